"""The thresholds in a checkpoint: reading, applying, and what is said about them."""

import numpy as np
import pytest
import torch

from util.checkpoint import CheckpointError
from util.loading.class_thresholds import ClassThresholds, is_thresholds

NAMES = {1: "RBC", 2: "WBC", 7: "Platelets"}


def entry(*classes: tuple, overall: float | None = 0.41) -> dict:
    """The entry of a checkpoint with classes (id, threshold, objects)."""
    return {
        "iou": 0.5,
        "overall": None if overall is None else {"threshold": overall, "f1": 0.8},
        "classes": [{"id": i, "threshold": t, "f1": 0.8, "objects": n} for i, t, n in classes],
    }


def read(*classes: tuple, **more) -> ClassThresholds:
    return ClassThresholds.read({"thresholds": entry(*classes, **more)}, "a.pth")


def test_each_class_has_its_own_and_others_that_of_all_together():
    found = read((1, 0.43, 100), (2, 0.71, 50), (7, None, 12))
    scores, labels = torch.tensor([0.42, 0.44, 0.7, 0.72, 0.4, 0.42, 0.42]), torch.tensor([1, 1, 2, 2, 7, 7, 3])
    assert found.reached(scores, labels).tolist() == [False, True, False, True, False, True, True]
    assert found.reached(torch.zeros(0), torch.zeros(0, dtype=torch.int64)).tolist() == []


def test_a_threshold_between_neighbouring_scores_tells_them_apart():
    below = np.float32(0.7)
    for _ in range(2):  # in float32, one of the two thresholds would be the score below it
        above = np.nextafter(below, np.float32(1))
        found = read((1, (float(below) + float(above)) / 2, 10))
        assert found.reached(torch.tensor([below, above]), torch.tensor([1, 1])).tolist() == [False, True]
        below = above


def test_the_sentence_names_the_thresholds():
    found = read((1, 0.43, 100), (2, 0.7112, 50), (7, 0.998, 10))
    assert found.sentence(NAMES) == "thresholds from the validation set: RBC 0.43, WBC 0.711, Platelets 0.998"
    assert found.sentence({2: "WBC"}) == "thresholds from the validation set: WBC 0.711"


def test_the_sentence_says_what_is_missing_or_doubtful():
    said = read((1, 0.43, 1), (2, 0.71, 3)).sentence(NAMES)
    assert "RBC 0.43 (from 1 object only), WBC 0.71 (from 3 objects only)" in said
    assert "0.41, the best of all classes together, for 1 class that was not found in it" in said
    assert "2 classes that were not" in read((1, 0.43, 100)).sentence(NAMES)
    assert "0.5 for every class, the default, since no object was found" in read(overall=None).sentence(NAMES)
    assert "0.41 for every class, the best of all" in read((5, 0.4, 30)).sentence(NAMES)


def test_names_are_escaped_and_cut_and_many_are_counted():
    names = {i: f"class {i}" for i in range(100)} | {3: "\x1b[31mred\n", 4: "long " * 100}
    said = read(*[(i, 0.5, 20) for i in names]).sentence(names)
    assert "\x1b" not in said and "\n" not in said and "\\x1b" in said and len(said) < 800
    assert said.endswith("and 80 more")


def test_a_checkpoint_without_them_says_how_to_get_them():
    for checkpoint in ({}, {"thresholds": None}):
        with pytest.raises(CheckpointError, match=r"a\.pth has no thresholds.*--save_thresholds COPY\.pth"):
            ClassThresholds.read(checkpoint, "a.pth")


@pytest.mark.parametrize(
    "wrong",
    [
        [],
        "0.5",
        {},
        {"classes": {}},
        entry((1, 1.5, 3)),
        entry((1, float("nan"), 3)),
        entry((1, "0.5", 3)),
        entry((1, True, 3)),
        entry((-1, 0.5, 3)),
        entry((1, 0.5, None)),
        entry((1, torch.tensor(0.5), 3)),
        entry((1, 0.5, 3), overall=-0.1),
        {"classes": [{"id": 1, "objects": 3}]},
        {"classes": [5]},
        {"classes": [], "overall": 0.5},
    ],
)
def test_a_damaged_entry_is_refused(wrong):
    assert not is_thresholds(wrong)
    with pytest.raises(CheckpointError, match=r"`thresholds` of a\.pth is damaged"):
        ClassThresholds.read({"thresholds": wrong}, "a.pth")
