"""Entries of a checkpoint with the wrong type."""

import pytest
import torch

from tests.helpers.checkpoint_files import published_checkpoint, small_model
from util.checkpoint import CheckpointError, load_checkpoint
from util.loading.checkpoint_entries import check_entries, model_of

WEIGHTS = {"class_embed.weight": torch.zeros(5, 4)}
RIGHT = {
    "model": WEIGHTS,
    "optimizer": {},
    "lr_scheduler": {},
    "epoch": 3,
    "step": 20,
    "args": {"lr": 1e-4, "train_sizes": [480, 512], "betas": (0.9, 0.999), "resume": None},
    "categories": [{"id": 1, "name": "cell"}],
    "best_ap": 0.5,
    "record": {"epoch": 3},
    "progress": {"step": 5, "meters": {"loss": {}}, "train_stats": None},
    "thresholds": {"overall": None, "classes": [{"id": 1, "objects": 2, "threshold": 0.5, "f1": 1.0}]},
    "more": object(),
}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("model", wrong) for wrong in ([], "a", 5, {"a": 1}, {"a": [1.0]}, {7: torch.zeros(1)}, {"a": None})],
        *[(n, wrong) for n in ("optimizer", "lr_scheduler", "args", "record", "progress") for wrong in ([], "a", 5)],
        *[("epoch", wrong) for wrong in ("3", 3.0, -2, -1.0, True, [3], 2**60, float("nan"), torch.tensor(3))],
        *[("world_size", wrong) for wrong in ("1", 2.0, [1])],
        *[("step", wrong) for wrong in ("3", -1, True)],
        *[("args", {"lr": wrong}) for wrong in (torch.zeros(2), [torch.zeros(2)], {"a": (torch.zeros(2),)})],
        *[("args", {7: 1}), ("record", {"epoch": torch.zeros(2)}), ("record", {"epoch": 1j})],
        *[("progress", wrong) for wrong in ({}, {"step": -1}, {"step": 1, "meters": 5}, {"step": 1, "meters": []})],
        *[("thresholds", wrong) for wrong in (0.5, [], {}, {"classes": [{"id": 1, "objects": 2, "threshold": 2}]})],
        *[("best_ap", wrong) for wrong in ("0.5", True, [0.5], {})],
        *[("categories", wrong) for wrong in ({}, "a", [5], [{"id": 1}], [{"name": "a"}], [{"id": "1", "name": "a"}])],
        *[("categories", [{"id": 1, "name": 5}]), ("categories", [{"id": -1, "name": "a"}])],
    ],
)  # fmt: skip
def test_an_entry_of_the_wrong_type_is_named(tmp_path, name, value):
    torch.save({**RIGHT, "more": 1, name: value}, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match=rf"`{name}` of checkpoint .*a\.pth is not "):
        load_checkpoint(tmp_path / "a.pth")


def test_valid_missing_none_and_further_entries_pass():
    check_entries(RIGHT, "a.pth")
    check_entries({"epoch": -1}, "a.pth")  # saved within epoch 0
    check_entries({}, "a.pth")
    check_entries(dict.fromkeys(RIGHT), "a.pth")


def test_a_published_checkpoint_passes(tmp_path):
    torch.save(published_checkpoint(small_model()), tmp_path / "a.pth")
    assert model_of(load_checkpoint(tmp_path / "a.pth"), "a.pth").keys() == small_model().state_dict().keys()


@pytest.mark.parametrize(
    ("checkpoint", "sentence"),
    [
        ({}, "a.pth has no weights under `model`.*pass another file"),
        ({"model": {}}, "has no weights"),
        ({"model": None}, "has no weights"),
        (WEIGHTS, "look like bare weights: save them under the key `model`"),
        ({"model": [1]}, "`model` of checkpoint a.pth is not a dictionary"),
    ],
)
def test_a_checkpoint_without_weights_is_refused(checkpoint, sentence):
    with pytest.raises(CheckpointError, match=sentence):
        model_of(checkpoint, "a.pth")
