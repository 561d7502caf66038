"""Warnings at the start of a training: when they are given and when not."""

import argparse

import numpy as np
import pytest

from hubconf import WEIGHTS_URL
from main import get_args_parser, main
from tests.helpers.paths import REPOSITORY
from tests.helpers.runs import parse
from tools.demo import RECIPE
from training.advice import (
    PUBLISHED_BATCH,
    PUBLISHED_EPOCHS,
    PUBLISHED_IMAGES,
    PUBLISHED_WEIGHTS,
    TINY_WEIGHTS,
    more_objects_than_queries,
    too_few_steps,
    too_short_training,
)


def test_images_with_more_objects_than_queries_are_counted_and_the_worst_is_named():
    text = more_objects_than_queries(np.array([3, 101, 100, 250, 0]), 100, [11, 12, 13, 14, 15])
    assert "2 of 5 images have more objects" in text and "image 14 has the most, 250" in text
    assert "--num_queries 250" in text
    assert "1 of 2 images has" in more_objects_than_queries([3, 7], 6, [1, 2])


@pytest.mark.parametrize("counts", [[100, 3], [0], []])
def test_as_many_objects_as_queries_are_fine(counts):
    assert more_objects_than_queries(counts, 100, list(range(len(counts)))) is None


def test_a_short_training_from_scratch_gives_a_warning_with_a_remedy():
    text = too_short_training(steps=3650, images_per_step=8, images=292)
    assert "3,650 steps of 8 images" in text and "29,200 images" in text and "100.0 epochs of 292" in text
    assert "0.082% of the 35.5 million" in text and "2.2 million steps of 16" in text
    assert "--init_from" in text and PUBLISHED_WEIGHTS in text


def test_the_published_weights_have_the_hubs_address():
    assert PUBLISHED_WEIGHTS == WEIGHTS_URL + "detr-r50-e632da11.pth"


@pytest.mark.parametrize("epochs", [PUBLISHED_EPOCHS, 150, 50, 15])
def test_published_schedules_on_coco_give_no_warning_at_any_batch_size(epochs):
    for batch in (1, 4, PUBLISHED_BATCH, 64):
        assert too_short_training(epochs * PUBLISHED_IMAGES // batch + 1, batch, PUBLISHED_IMAGES) is None


def test_fewer_than_a_twentieth_of_the_published_images_are_too_few():
    assert too_short_training(14 * PUBLISHED_IMAGES // 16, 16, PUBLISHED_IMAGES) is not None


def test_starting_from_a_detector_gives_no_warning():
    assert too_short_training(100, 8, 292, from_scratch=False) is None


def test_a_short_training_of_the_tiny_model_leads_to_what_works():
    text = too_short_training(steps=400, images_per_step=2, images=8, backbone="tiny")
    assert "in 400 steps, the model sees 800 images (100.0 epochs of 8)" in text
    assert f"--init_from {TINY_WEIGHTS}" in text and (REPOSITORY / TINY_WEIGHTS).is_file()
    recipe = vars(get_args_parser().parse_args(RECIPE))
    named = get_args_parser().parse_args(text.split("little data: ")[1].split())
    differing = [name for name, value in vars(named).items() if value != recipe[name]]
    sizes = {"num_queries", "train_sizes", "max_size", "val_size", "no_crop"}  # which depend on the images
    run = {"backbone", "batch_size", "epochs", "eval_every", "num_workers", "print_freq"}
    assert set(differing) <= sizes | run


def test_a_few_images_are_learned_by_heart_in_some_hundred_epochs():
    assert too_short_training(200, 8, 8, backbone="tiny") is None
    assert "100.0 epochs of 8" in too_short_training(100, 8, 8, backbone="tiny")
    slow = too_short_training(200, 8, 8, backbone="tiny", lr=1e-4)
    assert "about 1,600 at --lr 0.0005, and --lr 0.0001 needs 5 times as many" in slow
    assert too_short_training(1000, 8, 8, backbone="tiny", lr=1e-4) is None
    assert too_short_training(1000, 8, 8, backbone="tiny", lr=0) is not None


def test_many_images_take_more_steps():
    assert "about 20,000 at" in too_short_training(1000, 16, 4000, backbone="tiny")
    assert too_short_training(1250, 16, 4000, backbone="tiny") is None


def test_a_mask_head_on_a_frozen_detector_starts_from_a_detector(shapes, tmp_path, capsys):
    box = tmp_path / "box"
    wide = ["--hidden_dim", "128", "--nheads", "8", "--epochs", "1", "--max_steps", "1"]
    main(parse(shapes, *wide, "--output_dir", str(box)))
    assert "this training from scratch is very short" in capsys.readouterr().out
    main(parse(shapes, *wide, "--masks", "--frozen_weights", str(box / "checkpoint.pth")))
    assert "from scratch" not in capsys.readouterr().out


def test_the_demo_gives_no_warning():
    args = argparse.ArgumentParser(parents=[get_args_parser()]).parse_args(RECIPE)
    steps = args.epochs * (4000 // args.batch_size)
    assert too_short_training(steps, args.batch_size, 4000, backbone=args.backbone, lr=args.lr) is None
    assert too_short_training(steps, args.batch_size, 4000, backbone="resnet18") is not None


def test_a_start_from_a_detector_needs_some_hundred_steps_too():
    assert too_few_steps(200, 8) is None
    assert too_few_steps(40, 8).startswith("40 steps are very few") and "8 images" in too_few_steps(40, 8)
    assert "1 step is very few" in too_few_steps(1, 1) and "for 1 image:" in too_few_steps(1, 1)
