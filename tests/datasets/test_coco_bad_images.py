"""A data set with unreadable images: they are replaced on request, by the same samples in every process."""

import random
from argparse import Namespace

import pytest
import torch
from torch.utils.data import DataLoader

from datasets.coco import CocoDetection, build, make_coco_transforms
from evaluation.coco_eval import CocoEvaluator
from tests.helpers.coco_files import annotation, write_coco


def draw(image, target):
    return random.random(), target


def damaged(tmp_path, bad, transforms=None, **options):
    """Six images with one object each; the files of images `bad` (from 1) are empty."""
    annotations = [annotation(10 * n, n, [n, n, 5, 5]) for n in range(1, 7)]
    folder, ann_file = write_coco(tmp_path, annotations, count=6)
    for number in bad:
        (folder / f"{number}.png").write_bytes(b"")
    return CocoDetection(folder, ann_file, transforms, False, **options)


def test_a_bad_image_is_replaced_by_the_complete_next_sample(tmp_path):
    intact, data = (damaged(tmp_path, bad, draw, skip_bad_images=True) for bad in ((), (2, 3, 6)))
    expected = [intact[index] for index in (0, 3, 3, 3, 4, 0)]
    for (drawn, target), (drawn_expected, target_expected) in zip((data[i] for i in range(6)), expected, strict=True):
        assert drawn == drawn_expected
        assert all(torch.equal(target[name], target_expected[name]) for name in target_expected)
    assert data[1][1]["image_id"] == 4 and data[1][1]["annotation_id"] == 40
    assert data.bad_images == [str(tmp_path / "images" / f"{n}.png") for n in (2, 3, 6)]


def test_workers_give_the_same_samples_and_report_bad_images_to_the_training_process(tmp_path):
    alone = damaged(tmp_path, (2, 6), skip_bad_images=True)
    ids = [int(alone[index][1]["image_id"]) for index in range(6)]
    assert ids == [1, 3, 3, 4, 5, 1]
    data = damaged(tmp_path, (2, 6), lambda image, target: (0, target), skip_bad_images=True)
    loader = DataLoader(data, collate_fn=lambda batch: int(batch[0][1]["image_id"]), num_workers=2)
    assert list(loader) == ids
    assert data.bad_images == alone.bad_images


def test_more_bad_images_than_allowed_are_an_error(tmp_path):
    data = damaged(tmp_path, (1, 2, 3), skip_bad_images=True, max_bad_images=2)
    with pytest.raises(OSError, match="3 of 6 images .* more than --max_bad_images 2"):
        data[0]


def test_the_flags_for_bad_images_reach_the_data_set(tmp_path):
    damaged(tmp_path, (2,))
    files = {"val_ann": str(tmp_path / "instances.json"), "val_images": str(tmp_path / "images")}
    common = {"coco_path": None, "masks": False, "val_size": 16, **files}
    data = build("val", Namespace(**common, skip_bad_images=True, max_bad_images=1))
    assert data[1][1]["image_id"] == 3
    with pytest.raises(OSError, match="--max_bad_images 0"):
        build("val", Namespace(**common, skip_bad_images=True, max_bad_images=0))[1]
    with pytest.raises(OSError, match="2.png cannot be read"):
        build("val", Namespace(**common))[1]


def test_evaluation_omits_a_bad_image(tmp_path):
    data = damaged(tmp_path, (2,), make_coco_transforms("val", val_size=30), skip_bad_images=True)
    evaluator = CocoEvaluator(data.coco, ["bbox"], backend="pycocotools")
    for index in range(6):
        image_id = int(data[index][1]["image_id"])
        n = image_id  # each image's one object, found exactly
        found = {"boxes": torch.tensor([[n, n, n + 5.0, n + 5.0]]), "labels": torch.tensor([7])}
        evaluator.update({image_id: found | {"scores": torch.tensor([0.9])}})
    evaluator.accumulate()
    evaluator.summarize()
    assert evaluator.img_ids == [1, 3, 4, 5, 6]
    assert evaluator.coco_eval["bbox"].stats[0] == pytest.approx(1.0)  # the object of the bad image is not missed
