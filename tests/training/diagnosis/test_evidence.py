"""What is seen of data, detections and weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from datasets import build_dataset
from models import build_model
from tests.helpers.coco_files import annotation, write_coco
from tests.helpers.runs import parse
from training.diagnosis.evidence import (
    background_objects,
    copy_of_weights,
    look_at_data,
    look_at_detections,
    mean_of_last,
    random_frozen_parts,
    relative_changes,
)
from training.diagnosis.few_pictures import few_pictures, overfit_settings


def few_of(tmp_path, annotations, count: int = 3, pictures: int = 2, **more):
    """Pictures of 40 x 30 pixels, enlarged to twice their size."""
    images, file = write_coco(tmp_path, annotations, count=count, **more)
    args = parse("", "--train_images", str(images), "--train_ann", str(file), "--val_size", "60", "--max_size", "100")
    args.overfit = pictures
    return few_pictures(build_dataset("train", args), args), args


def test_sides_are_those_at_the_models_input(tmp_path):
    few, _ = few_of(tmp_path, [annotation(1, 1, [2, 3, 10, 5]), annotation(2, 3, [0, 0, 4, 4], category_id=2)])
    facts = look_at_data(few)
    np.testing.assert_allclose(facts.stored, [[10, 5], [4, 4]], rtol=1e-6)
    np.testing.assert_allclose(facts.sides, [[20, 10], [8, 8]], rtol=1e-6)
    assert few[0][1]["boxes"][0].tolist() == pytest.approx([7 / 40, 5.5 / 30, 10 / 40, 5 / 30]), "not flipped"
    assert facts.objects.tolist() == [1, 1] and facts.labels.tolist() == [7, 2]
    assert facts.offsets == {0: 2} and facts.forms == {"sizes": 2}
    assert (facts.far, facts.annotations, facts.background) == (0, 2, "")


def test_pictures_with_objects_are_taken_from_the_whole_part(tmp_path):
    few, _ = few_of(tmp_path, [annotation(i, i, [0, 0, 9, 9]) for i in (2, 4, 5, 9)], count=9, pictures=3)
    assert few.ids == [2, 5, 9] or few.ids == [2, 4, 9]
    assert few.objects_per_image.tolist() == [1, 1, 1] and set(few.annotations) == set(few.ids)


def test_a_part_without_objects_cannot_be_learned(tmp_path):
    with pytest.raises(ValueError, match="none of the 3 pictures has an object"):
        few_of(tmp_path, [])


def test_settings_that_few_pictures_cannot_fill_are_lowered(tmp_path):
    few, args = few_of(tmp_path, [annotation(1, 1, [0, 0, 9, 9]), annotation(2, 3, [0, 0, 9, 9])])
    args.batch_size, args.accumulate, args.dropout, args.ema = 16, 4, 0.1, 0.99
    changed = overfit_settings(args, few)
    assert (changed["batch_size"], changed["accumulate"], changed["dropout"], changed["ema"]) == (2, 1, 0, 0)


def test_corners_are_counted(tmp_path):
    boxes = [[2, 3, 10, 5], [25, 20, 36, 29], [15, 10, 39, 28], [30, 5, 20, 4]]
    few, _ = few_of(tmp_path, [annotation(i + 1, 1, box) for i, box in enumerate(boxes)], pictures=1)
    facts = look_at_data(few)
    assert (facts.far, facts.fitting, facts.corner_like, facts.annotations) == (3, 2, 3, 4)


@pytest.mark.parametrize(("name", "seen"), [("Background", True), ("no_object", True), ("backgrounds", False)])
def test_objects_of_the_background_are_counted(name, seen):
    rows = np.array([[1, 1, 0, 0], [2, 1, 0, 0], [3, 1, 5, 0]])
    found = background_objects([{"id": 0, "name": name}, {"id": 5, "name": "cat"}], rows)
    assert found == (f"2 objects belong to class 0, {name!r}" if seen else "")
    assert background_objects([{"id": 9, "name": "background"}], rows) == ""


def rows(*detections: tuple) -> np.ndarray:
    """(image, x, y, w, h, score, class) of each."""
    return np.array(detections, dtype=np.float64).reshape(-1, 7)


def test_an_object_has_the_class_of_its_most_confident_detection():
    objects = [annotation(1, 1, [10, 10, 20, 20]), annotation(2, 1, [50, 50, 8, 8]), annotation(3, 2, [0, 0, 9, 9])]
    detections = rows(
        (2, 10, 10, 20, 20, 0.99, 4),  # of another image
        (1, 10, 10, 20, 20, 0.4, 7),
        (1, 11, 10, 20, 20, 0.9, 8),
        (1, 50, 50, 20, 20, 0.9, 5),  # too large
        (2, 0, 0, 9, 9, 0.2, 3),  # not confident
    )
    found = look_at_detections(detections, objects, 0.3)
    assert (found.truth.tolist(), found.predicted.tolist(), found.objects) == ([7], [8], 3)
    assert look_at_detections(detections, objects).predicted.tolist() == [8, 3]
    assert look_at_detections(rows(), objects).truth.tolist() == []


def test_boxes_are_read_as_corners_too():
    objects = [annotation(1, 1, [10, 20, 30, 50]), annotation(2, 1, [60, 60, 5, 5])]
    found = look_at_detections(rows((1, 10, 20, 20, 30, 0.9, 7)), objects)
    assert (len(found.truth), found.as_corners) == (0, 1)


def model_with(*more: str):
    return build_model(parse("", *more))[0]


@pytest.mark.filterwarnings("ignore:the backbone starts from random weights")
@pytest.mark.parametrize("norm", ["gn", "bn", "frozen_bn"])
def test_frozen_parts_that_were_never_trained_are_seen(norm):
    model = model_with("--trainable_layers", "3", "--backbone_norm", norm)
    assert random_frozen_parts(model) == ["stem", "layer1"]
    with torch.no_grad():  # as if it had been trained
        for parameter in model.backbone[0].body["layer1"].parameters():
            parameter.mul_(1.3)
    assert random_frozen_parts(model) == ["stem"]
    assert random_frozen_parts(model_with("--trainable_layers", "5", "--backbone_norm", norm)) == []


def test_how_far_weights_have_moved_is_told_by_part():
    model = model_with()
    before = copy_of_weights(model)
    assert relative_changes(model, before) == {"backbone": 0.0, "transformer": 0.0}
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.mul_(1.5 if "backbone" in name else 1.25)
    changes = relative_changes(model, before)
    assert changes["backbone"] == pytest.approx(0.5) and changes["transformer"] == pytest.approx(0.25)
    for parameter in model.backbone.parameters():
        parameter.requires_grad_(False)
    assert list(relative_changes(model, before)) == ["transformer"], "what does not train tells nothing"


def test_the_mean_of_the_last_losses_is_infinite_where_one_is_not_finite():
    assert mean_of_last([9.0, 1.0, 3.0], 2) == 2.0
    assert mean_of_last([1.0, float("nan")], 2) == mean_of_last([], 2) == float("inf")
