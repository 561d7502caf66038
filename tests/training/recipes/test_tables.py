"""The recipes: their counts come from the run, what they set can be set, and sizes follow the boxes."""

from __future__ import annotations

import pytest

from training.recipes.facts import DataFacts
from training.recipes.tables import BY_HEART, RECIPES, Run, finetune, size_for, small
from util.settings import SETTINGS


def facts(
    pictures: int = 200, most: int = 10, side: float = 0.1, classes: int = 3, elongation: float = 1.5
) -> DataFacts:
    sides = {percent: side for percent in (5, 50, 95)}
    return DataFacts(pictures, classes, pictures * 5, most, sides, {50: 480.0}, elongation)


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("pictures", [1, 8, 12, 13, 40, 205, 1000, 20_000])
@pytest.mark.parametrize("named", [{}, {"batch_size": 1}, {"epochs": 3}, {"max_steps": 2}, {"accumulate": 2}])
def test_counts_come_from_the_run(recipe, pictures, named):
    run = Run(facts(pictures), named)
    settings = RECIPES[recipe](run)
    batch = settings["batch_size"]
    steps = max(1, pictures // (batch * named.get("accumulate", 1)))
    total = min(named.get("epochs", settings["epochs"]) * steps, named.get("max_steps", 10**9))
    assert batch == named.get("batch_size", batch) <= pictures
    assert settings["epochs"] * steps >= 300
    assert 0 <= settings["warmup_steps"] < total and settings["warmup_steps"] <= min(steps, 100)
    assert settings["lr_schedule"] == "cosine"
    assert settings["ema"] == 0 or 1 / (1 - settings["ema"]) == pytest.approx(total / 20, rel=0.2)
    evaluations = named.get("epochs", settings["epochs"]) / settings["eval_every"]
    assert evaluations <= 40


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("scratch", [False, True])
@pytest.mark.parametrize("pictures", [8, 200])
def test_what_a_recipe_sets_can_be_typed(recipe, scratch, pictures):
    settings = RECIPES[recipe](Run(facts(pictures), {}, from_scratch=scratch))
    for name, value in settings.items():
        SETTINGS[name].check_saved(value)
        if isinstance(SETTINGS[name].default, bool) and value is False:
            assert SETTINGS[name].default is False  # a switch cannot be typed to be off


def test_processes_share_the_pictures():
    alone, four = (small(Run(facts(200), {}, processes=n)) for n in (1, 4))
    assert alone["warmup_steps"] == 25 and four["warmup_steps"] == 6
    assert small(Run(facts(20), {}, processes=4))["batch_size"] == 5


def test_fewer_pictures_are_seen_more_often():
    epochs = [small(Run(facts(n), {}))["epochs"] for n in (20, 100, 200, 1000, 30_000)]
    assert epochs == sorted(epochs, reverse=True) and epochs[2] == 141 and epochs[-1] == 12
    assert small(Run(facts(200), {}, from_scratch=True))["epochs"] == 2 * epochs[2]


def test_the_size_follows_the_small_boxes():
    sizes = [size_for(facts(side=side)) for side in (0.5, 0.15, 0.12, 0.1, 0.01)]
    assert sizes == sorted(sizes) and sizes[0] == 160 and sizes[-1] == 256 and 160 < sizes[2] < 256
    nothing = DataFacts(20, 0, 0, 0, {}, {}, 1.0)
    assert small(Run(nothing, {}))["val_size"] == 160


@pytest.mark.parametrize("named", [{}, {"max_size": 128}, {"val_size": 500}, {"train_sizes": [96, 700]}])
def test_sizes_fit_together_and_to_those_of_the_user(named):
    settings = small(Run(facts(200), named)) | named
    assert max(*settings["train_sizes"], settings["val_size"]) <= settings["max_size"]
    assert settings["train_sizes"] == sorted(set(settings["train_sizes"]))


def test_a_dozen_pictures_are_learned_by_heart_and_more_are_augmented():
    few, more = (small(Run(facts(n), {})) for n in (BY_HEART, BY_HEART + 1))
    assert few["no_crop"] and few["no_flip"] and few["train_sizes"] == [few["val_size"]] == [160]
    assert few["epochs"] == 480  # of one step of 8 pictures
    assert not {"no_crop", "no_flip"} & more.keys() and len(more["train_sizes"]) > 1


def test_there_are_queries_for_all_objects():
    for most in (0, 1, 7, 42, 300):
        assert small(Run(facts(8, most), {}))["num_queries"] > most
        assert small(Run(facts(200, most), {}))["num_queries"] > 1.4 * most
    assert "num_queries" not in finetune(Run(facts(200, 100), {}))
    assert finetune(Run(facts(200, 101), {}))["num_queries"] > 101
    assert finetune(Run(facts(200, 20), {}, start={"num_queries": 12}))["num_queries"] > 20


def test_the_start_is_the_users_or_the_shipped_detector():
    assert small(Run(facts(), {}))["init_from"].endswith("detr_tiny_shapes.pth")
    assert "detr-r50" in finetune(Run(facts(), {}))["init_from"]
    for recipe in (small, finetune):
        assert "init_from" not in recipe(Run(facts(), {}, start={"backbone": "resnet50"}))


def test_a_backbone_with_weights_keeps_its_norms_and_learns_more_slowly():
    settings = small(Run(facts(), {"backbone": "resnet18"}, from_scratch=True))
    assert settings["lr_backbone"] < settings["lr"] and "backbone_weights" not in settings
    assert "backbone_norm" not in settings and settings["trainable_layers"] == 3
