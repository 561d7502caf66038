"""Targets that no loss can be computed on are rejected, by image and annotation id."""

import pytest
import torch

from datasets.targets import check_targets


def target(boxes=((0.5, 0.5, 0.2, 0.2), (0.1, 0.1, 0.2, 0.2)), labels=(0, 3), image_id=17, names=(811, 812)):
    entries = {
        "boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        "labels": torch.tensor(labels, dtype=torch.int64),
        "image_id": torch.tensor([image_id]),
        "annotation_id": torch.tensor(names, dtype=torch.int64),
    }
    return {name: value for name, value in entries.items() if value is not None}


EMPTY = target(boxes=(), labels=(), image_id=16, names=())


def test_valid_targets_pass():
    check_targets([], 4)
    check_targets([EMPTY], 4)
    check_targets([target(), EMPTY, target(labels=(0, 0))], 4)
    check_targets([target(boxes=((0.5, 0.5, 1e-30, 1), (-3, 2, 5, 9)))], 4)  # a sliver, and a box beyond the image


@pytest.mark.parametrize("label", [4, -1, 2**40])
def test_a_label_that_is_not_a_class_is_rejected(label):
    message = rf"annotation 812 of image 17 has label {label}, .* 0\.\.3: pass --num_classes"
    with pytest.raises(ValueError, match=message):
        check_targets([EMPTY, target(labels=(3, label)), target(image_id=18)], 4)


@pytest.mark.parametrize("place", range(4))
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_box_that_is_not_finite_is_rejected(place, value):
    box = [0.5, 0.5, 0.2, 0.2]
    box[place] = value
    with pytest.raises(ValueError, match="annotation 811 of image 17 has a box with values that are not finite"):
        check_targets([target(image_id=18), target(boxes=(box, box))], 4)


@pytest.mark.parametrize("size", [(0, 0.2), (0.2, 0), (-0.1, 0.2), (0.2, -0.0)])
def test_a_box_without_area_is_rejected(size):
    with pytest.raises(ValueError, match="annotation 812 of image 17 has a box with no area"):
        check_targets([target(boxes=((0.5, 0.5, 0.2, 0.2), (0.1, 0.1, *size)))], 4)


def test_a_thin_box_may_have_a_side_of_0_but_not_a_negative_one():
    thin = torch.tensor([True, False])
    check_targets([EMPTY, target(boxes=((0.5, 0.5, 0, 0), (0.1, 0.1, 0.2, 0.2))) | {"thin": thin}], 4)
    for boxes, name in (
        (((0.5, 0.5, -0.1, 0), (0.1, 0.1, 0.2, 0.2)), 811),
        (((0.5, 0.5, 0, 0.1), (0.1, 0.1, 0, 1)), 812),
    ):
        with pytest.raises(ValueError, match=f"annotation {name} of image 17 has a box with no area"):
            check_targets([EMPTY, target(boxes=boxes) | {"thin": thin}], 4)


def test_targets_of_another_device_are_checked_there():
    targets = [target(), EMPTY]
    with torch.device("meta"):  # where new tensors are made by default: not the device of the targets
        check_targets(targets, 4)


def test_without_annotation_ids_the_objects_index_is_given():
    bare = target(labels=(0, 9))
    del bare["annotation_id"]
    with pytest.raises(ValueError, match="object 1 of image 17 has label 9"):
        check_targets([EMPTY, bare], 4)
    with pytest.raises(ValueError, match="object 1 of image 17 has label 9"):  # -1: the annotation has no id
        check_targets([EMPTY, target(labels=(0, 9), names=(-1, -1))], 4)
    del bare["image_id"]
    with pytest.raises(ValueError, match="object 1 of an image without image_id"):
        check_targets([bare], 4)


@pytest.mark.parametrize("boxes", [torch.zeros(1, 4), torch.zeros(2, 5), torch.zeros(4), torch.zeros(0)])
def test_boxes_that_do_not_match_the_labels_are_rejected(boxes):
    with pytest.raises(ValueError, match="image 17 has boxes of shape"):
        check_targets([target(), target() | {"boxes": boxes}], 4)
