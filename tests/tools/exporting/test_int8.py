"""Convolutions in int8: what counts as found again, and what is refused."""

import pytest
import torch
from PIL import Image

from tools.export import run
from tools.exporting.int8 import calibration_images, prove
from util.checkpoint import CheckpointError

INPUTS = [(torch.zeros(1, 3, 64, 64), torch.zeros(1, 64, 64, dtype=torch.bool))]


def outputs(*objects: tuple[int, float, tuple[float, ...]], masks=None):
    """What a model finds: (class, score, box) of each query; two classes and "no object"."""
    probabilities = torch.full((1, len(objects), 3), 1e-6)
    boxes = torch.empty(1, len(objects), 4)
    for query, (label, score, box) in enumerate(objects):
        probabilities[0, query, label], probabilities[0, query, 2] = score, 1 - score
        boxes[0, query] = torch.tensor(box)
    found = (probabilities.log(), boxes)
    return lambda image, mask: found if masks is None else (*found, masks)


HERE, THERE = (0.3, 0.3, 0.2, 0.2), (0.7, 0.7, 0.2, 0.2)
EXPECTED = outputs((0, 0.9, HERE), (1, 0.8, THERE), (1, 0.4, HERE))


def test_objects_are_found_again_by_any_query_with_a_lower_score_and_a_box_that_moved_a_little():
    moved = (0.31, 0.3, 0.2, 0.2)
    found = outputs((1, 0.45, THERE), (0, 0.5, moved), (0, 0.1, HERE))
    assert prove(EXPECTED, found, INPUTS) == (2, 2)


@pytest.mark.parametrize(
    "second",
    [(0, 0.8, THERE), (1, 0.35, THERE), (1, 0.8, (0.74, 0.7, 0.2, 0.2))],
    ids=["another class", "less than half the score", "another place"],
)
def test_a_lost_object_is_an_error(second):
    with pytest.raises(CheckpointError, match="only 1 of 2 objects are found again, the limit is 95%"):
        prove(EXPECTED, outputs((0, 0.9, HERE), second, (1, 0.1, HERE)), INPUTS)


def test_masks_must_agree_too():
    masks = torch.full((1, 1, 4, 4), -1.0)
    masks[..., :2, :] = 1.0
    model = outputs((0, 0.9, HERE), masks=masks)
    assert prove(model, outputs((0, 0.9, HERE), masks=masks * 3), INPUTS) == (1, 1)
    with pytest.raises(CheckpointError, match="only 0 of 1"):
        prove(model, outputs((0, 0.9, HERE), masks=-masks), INPUTS)


def test_without_objects_nothing_is_proven():
    with pytest.raises(CheckpointError, match="finds nothing with a score above 0.5"):
        prove(outputs((0, 0.4, HERE)), outputs((0, 0.4, HERE)), INPUTS)


def test_images_are_resized_and_shared_between_calibration_and_proof(tmp_path):
    for number in range(3):
        Image.new("RGB", (40, 20), (number * 100, 0, 0)).save(tmp_path / f"{number}.png")
    images, others = calibration_images(tmp_path, 64, 100)
    assert [tuple(image.shape) for image, _ in (*images, *others)] == [(1, 3, 50, 100)] * 3
    reds = [round(image[0, 0, 0, 0].item(), 1) for image, _ in (*images, *others)]
    assert reds == sorted(reds[:2]) + [reds[2]] and reds[0] < reds[2] < reds[1]
    assert not any(mask.any() for _, mask in images)


def test_one_image_is_too_few(tmp_path):
    Image.new("RGB", (40, 20)).save(tmp_path / "0.png")
    with pytest.raises(ValueError, match="has one image, but calibration and its proof need two"):
        calibration_images(tmp_path, 64, 100)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["out.xml", "--int8"], "--int8 and --calibrate FOLDER go together"),
        (["out.xml", "--calibrate", "."], "--int8 and --calibrate FOLDER go together"),
        (["out.onnx", "--int8", "--calibrate", "."], "out.onnx cannot be in int8"),
        (["out.xml", "--time_size", "10", "64"], "--time_size must be at least 64 64"),
    ],
)
def test_flags_that_do_not_fit_are_refused_before_anything_is_read(flags, message, capsys):
    assert run(["none.pth", *flags]) == 1
    assert message in capsys.readouterr().err
