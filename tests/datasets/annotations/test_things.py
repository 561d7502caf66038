"""The things of panoptic data as COCO instances: the same objects as in the instances file of the images."""

import json
from pathlib import Path

import numpy as np
from pycocotools import mask as coco_mask

from datasets import build_dataset, get_coco_api_from_dataset
from tests.helpers.runs import parse

PANOPTIC = ("--dataset_file", "coco_panoptic")


def without_instances(shapes: Path, folder: Path) -> Path:
    """The same data with panoptic annotations only."""
    (folder / "annotations").mkdir()
    for split in ("train", "val"):
        for name in (f"{split}2017", f"panoptic_{split}2017", f"annotations/panoptic_{split}2017.json"):
            (folder / name).symlink_to(shapes / name)
    return folder


def objects(coco) -> set[tuple]:
    """(image, category, box, area, mask) of each annotation."""
    found = set()
    for annotation in coco.anns.values():
        mask = coco_mask.decode(coco.annToRLE(annotation))
        box = tuple(round(number, 3) for number in annotation["bbox"])
        found.add((annotation["image_id"], annotation["category_id"], box, annotation["area"], mask.tobytes()))
    return found


def test_segments_that_are_things_are_the_instances(shapes: Path, tmp_path: Path):
    alone = build_dataset("val", parse(without_instances(shapes, tmp_path), *PANOPTIC))
    with_file = build_dataset("val", parse(shapes, *PANOPTIC))
    assert alone.instances_file is None and with_file.instances_file is not None
    ours, theirs = get_coco_api_from_dataset(alone), get_coco_api_from_dataset(with_file)
    assert objects(ours) == objects(theirs) and len(ours.anns) == len(theirs.anns) > 5
    assert sorted(ours.cats) == sorted(theirs.cats) == [1, 2, 3]
    assert {i: (x["height"], x["width"]) for i, x in ours.imgs.items()} == {i: (64, 64) for i in theirs.imgs}


def test_crowds_stay_crowds(shapes: Path, tmp_path: Path):
    folder = without_instances(shapes, tmp_path)
    path = folder / "annotations" / "panoptic_val2017.json"
    content = json.loads(path.read_text())
    for annotation in content["annotations"]:
        for segment in annotation["segments_info"]:
            segment["iscrowd"] = int(segment["category_id"] == 2)
    path.unlink()
    path.write_text(json.dumps(content))
    coco = build_dataset("val", parse(folder, *PANOPTIC)).coco
    crowds = {annotation["category_id"]: annotation["iscrowd"] for annotation in coco.anns.values()}
    assert crowds == {1: 0, 2: 1, 3: 0}


def test_named_annotations_are_not_mixed_with_the_instances_of_others(shapes: Path):
    path = str(shapes / "annotations" / "panoptic_train2017.json")
    images, maps = str(shapes / "train2017"), str(shapes / "panoptic_train2017")
    flags = ["--val_ann", path, "--val_images", images, "--val_panoptic", maps]
    dataset = build_dataset("val", parse(shapes, *PANOPTIC, *flags))
    assert dataset.instances_file is None
    assert sorted(dataset.coco.imgs) == dataset.ids == list(range(1, 9))


def test_it_is_read_once(shapes: Path):
    dataset = build_dataset("val", parse(shapes, *PANOPTIC))
    assert dataset.coco is dataset.coco
    assert np.isfinite([a["area"] for a in dataset.coco.anns.values()]).all()
