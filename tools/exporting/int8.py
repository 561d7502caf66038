"""OpenVINO's form with the convolutions in 8-bit integers: calibrated on images, proven on others.

The matrix products of the transformer stay in float32: they take little of the time, and in int8 they cost more
accuracy than all convolutions together (docs/export.md).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path

import torch
from torch import Tensor

from datasets.coco import make_coco_transforms
from prediction.exported.about import ENTRY
from prediction.exported.forms import Runs
from prediction.exported.openvino import import_openvino
from prediction.image_list import list_images
from prediction.inputs import read_upright_rgb
from tools.command import ToolError
from tools.exporting.openvino_form import save_openvino
from util.box_ops import box_cxcywh_to_xyxy, box_iou
from util.checkpoint import CheckpointError
from util.text import printable

MOST_IMAGES = 64  # for calibration, and as many for the proof; fewer suffice (docs/export.md)
SCORE = 0.5  # of the objects that must be found again
IOU = 0.75  # of an object's boxes, and of its masks
LEAST_SHARE = 0.95  # of the objects

Inputs = Sequence[tuple[Tensor, Tensor]]  # image [1, 3, H, W], mask [1, H, W]


def calibration_images(folder: Path, val_size: int | None, max_size: int | None) -> tuple[Inputs, Inputs]:
    """Images of a folder as the model takes them, for calibration and for the proof, taken in turns.

    Raises:
        ValueError: there are fewer than two images.
        OSError: an image cannot be read.
    """
    paths = list(list_images([str(folder)]).values())
    if len(paths) < 2:
        raise ValueError(f"{printable(folder)} has one image, but calibration and its proof need two: add images")
    transforms = make_coco_transforms("val", val_size=val_size, max_size=max_size)
    step = max(1, len(paths) // (2 * MOST_IMAGES))
    images = [transforms(read_upright_rgb(path), None)[0][None] for path in paths[::step][: 2 * MOST_IMAGES]]
    inputs = [(image, torch.zeros(image.shape[0], *image.shape[2:], dtype=torch.bool)) for image in images]
    return inputs[::2], inputs[1::2]


def write_int8(source: Path, path: Path, images: Inputs) -> None:
    """Write the detector of the OpenVINO file `source` to `path`, with its convolutions in int8.

    Raises:
        ToolError: NNCF is not installed.
    """
    nncf = import_nncf()
    model = import_openvino().Core().read_model(source)
    about = model.get_rt_info([ENTRY]).astype(str)
    data = nncf.Dataset([{"image": image.numpy(), "mask": mask.numpy()} for image, mask in images])
    float32 = nncf.IgnoredScope(types=["MatMul"], validate=False)
    with redirect_stdout(sys.stderr):  # of its progress
        small = nncf.quantize(model, data, subset_size=len(images), ignored_scope=float32)
    save_openvino(small, path, about)


def prove(model: Runs, runs: Runs, images: Inputs) -> tuple[int, int]:
    """Whether `runs` finds what the model finds.

    An object, a query of the model with a score above 0.5, is found again by any query of the same class with at least
    half its score, whose box, and mask if there are masks, overlaps the object's with an IoU of at least 0.75.

    Returns:
        The number of objects that the model finds in `images`, and how many of them `runs` finds again.

    Raises:
        CheckpointError: there are none, or fewer than 95 % are found again.
    """
    objects = again = 0
    for image, mask in images:
        with torch.no_grad():
            found = _found_again(model(image, mask), runs(image, mask))
        objects, again = objects + len(found), again + int(found.sum())
    if not objects:
        raise CheckpointError(
            f"in {len(images)} images the model finds nothing with a score above {SCORE}, so int8 cannot be proven: "
            "calibrate on images that show objects"
        )
    if again < LEAST_SHARE * objects:
        raise CheckpointError(
            f"in int8 only {again} of {objects} objects are found again, the limit is {LEAST_SHARE:.0%}: calibrate on "
            "more images, or export without --int8. The file was deleted"
        )
    return objects, again


def import_nncf():
    """The package `nncf`, which quantises, without its reports.

    Raises:
        ToolError: it is not installed.
    """
    import_openvino()
    try:
        import nncf
    except ImportError as error:
        raise ToolError(f'{error}, which --int8 needs: pip install ".[int8]"') from error
    nncf.set_log_level(30)  # warnings
    return nncf


def _found_again(expected: Sequence[Tensor], found: Sequence[Tensor]) -> Tensor:
    """bool [n]: which of the objects of one image are found again; each output is [1, Q, ...]."""
    scores, labels = expected[0][0].softmax(-1)[:, :-1].max(-1)  # [Q]; the last class is "no object"
    other_scores, other_labels = found[0][0].softmax(-1)[:, :-1].max(-1)
    objects = scores > SCORE
    ious, _ = box_iou(box_cxcywh_to_xyxy(expected[1][0][objects]), box_cxcywh_to_xyxy(found[1][0]))  # [n, Q]
    alike = (ious >= IOU) & (labels[objects, None] == other_labels) & (other_scores >= scores[objects, None] / 2)
    if len(expected) > 2:
        masks, other_masks = ((part[2][0] > 0).flatten(1).float() for part in (expected, found))  # [Q, H/4·W/4]
        common = masks[objects] @ other_masks.T
        either = masks[objects].sum(1)[:, None] + other_masks.sum(1) - common
        alike &= common >= IOU * either
    return alike.any(1)
