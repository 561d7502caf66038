"""Evaluation without padding: every image once, in batches of one size, with the same predictions as alone."""

from __future__ import annotations

import json
from itertools import chain

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Subset

from datasets.coco import CocoDetection, make_coco_transforms
from datasets.same_size import resized_sizes, same_size_batches
from models import build_model
from tests.helpers.coco_files import CATEGORIES
from tests.helpers.runs import parse
from util.nested_tensor import collate_fn

SHORT, LONG = 32, 50
# Stored (w, h); some have the same size only after resizing, 70x20 only because of the limit of the long side.
STORED = [(40, 30), (30, 40), (80, 60), (32, 32), (70, 20), (64, 48), (64, 64), (20, 70), (60, 80), (40, 30), (72, 20)]


@pytest.fixture
def data(tmp_path):
    """Images of many sizes; the annotation file states the size of every second one."""
    entries = []
    for number, (width, height) in enumerate(STORED, start=1):
        noise = np.random.RandomState(number).randint(0, 256, (height, width, 3)).astype(np.uint8)
        Image.fromarray(noise).save(tmp_path / f"{number}.png")
        stated = {"width": width, "height": height} if number % 2 else {}
        entries.append({"id": number, "file_name": f"{number}.png"} | stated)
    return dataset(tmp_path, entries)


def dataset(folder, entries):
    (folder / "instances.json").write_text(
        json.dumps({"info": {}, "images": entries, "annotations": [], "categories": CATEGORIES})
    )
    transforms = make_coco_transforms("val", val_size=SHORT, max_size=LONG)
    return CocoDetection(folder, folder / "instances.json", transforms, False)


def seen(data, indices):
    return [tuple(data[index][0].shape[1:]) for index in indices]


def test_sizes_are_those_that_the_transforms_give(data):
    sizes = resized_sizes(data, SHORT, LONG)
    assert sizes == seen(data, range(len(data)))
    assert sizes[4][0] == 14 and len(set(sizes)) > 4  # the limit of the long side applies
    assert resized_sizes(Subset(data, [5, 0]), SHORT, LONG) == [sizes[5], sizes[0]]


def test_no_batch_has_padding_and_every_image_appears_once(data):
    batches = same_size_batches(resized_sizes(data, SHORT, LONG), 4)
    masks = [samples.mask for samples, _ in DataLoader(data, batch_sampler=batches, collate_fn=collate_fn)]
    assert not any(mask.any() for mask in masks)
    assert sorted(chain(*batches)) == list(range(len(STORED)))
    assert max(map(len, batches)) == 4


def test_groups_are_split_into_batches_with_the_largest_images_first():
    sizes = [(2, 2), (5, 5), (2, 2), (2, 2), (5, 5), (2, 3), (3, 2), (2, 20)]
    assert same_size_batches(sizes, 2) == [[7], [1, 4], [6], [5], [0, 2], [3]]
    assert same_size_batches(sizes, 2) == same_size_batches(sizes, 2)


@pytest.mark.parametrize("count", [1, 5, 6])
@pytest.mark.parametrize("world_size", [2, 4])
def test_every_process_gets_equally_many_batches_and_every_image_appears(count, world_size):
    sizes = [(7, 7 - index // 2) for index in range(count)]
    shares = [same_size_batches(sizes, 1, rank, world_size) for rank in range(world_size)]
    assert len({len(share) for share in shares}) == 1
    dealt = [batch for turn in zip(*shares) for batch in turn]
    whole = same_size_batches(sizes, 1)
    assert dealt[:count] == whole and dealt[count:] == [whole[-1]] * (-count % world_size)


def test_a_file_that_cannot_be_read_gets_a_batch_to_itself(tmp_path):
    Image.new("RGB", (40, 30)).save(tmp_path / "1.png")
    (tmp_path / "2.png").write_text("no image")
    data = dataset(tmp_path, [{"id": number, "file_name": f"{number}.png"} for number in (1, 2)])
    sizes = resized_sizes(data, SHORT, LONG)
    assert sizes == [(32, 42), None]
    assert same_size_batches([None, (3, 3), None, (3, 3)], 4) == [[1, 3], [0], [2]]


def test_invalid_annotated_sizes_are_ignored(tmp_path):
    Image.new("RGB", (40, 30)).save(tmp_path / "1.png")
    for width in (-40, 40.5, float("inf"), float("nan")):
        data = dataset(tmp_path, [])
        data.ids, data.images[1] = [1], {"id": 1, "file_name": "1.png", "width": width, "height": 30}
        assert resized_sizes(data, SHORT, LONG) == [(32, 42)]


@pytest.mark.parametrize("suffix", ["jpg", "tif", "png"])
@pytest.mark.parametrize("annotated", [None, (40, 30), (30, 40)])
def test_turned_images_have_the_size_that_the_data_set_gives_them(tmp_path, suffix, annotated):
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees
    Image.new("RGB", (40, 30), "red").save(tmp_path / f"1.{suffix}", exif=exif)
    stated = dict(zip(("width", "height"), annotated)) if annotated else {}
    data = dataset(tmp_path, [{"id": 1, "file_name": f"1.{suffix}"} | stated])
    assert resized_sizes(data, SHORT, LONG) == seen(data, [0])
    assert resized_sizes(data, SHORT, LONG) == [(42, 32) if annotated == (30, 40) else (32, 42)]


@torch.no_grad()
def predictions(data, model, batches):
    """image id → (logits [Q, C], boxes [Q, 4])."""
    found = {}
    for samples, targets in DataLoader(data, batch_sampler=batches, collate_fn=collate_fn):
        outputs = model(samples)
        for target, logits, boxes in zip(targets, outputs["pred_logits"], outputs["pred_boxes"]):
            found[int(target["image_id"])] = (logits, boxes)
    return found


def furthest(first, second):
    assert first.keys() == second.keys()
    return max((a - b).abs().max().item() for key in first for a, b in zip(first[key], second[key]))


def test_an_image_has_the_same_predictions_as_alone(data):
    torch.manual_seed(0)
    model = build_model(parse("", "--num_classes", "8"))[0].eval()
    alone = predictions(data, model, [[index] for index in range(len(data))])
    unpadded = predictions(data, model, same_size_batches(resized_sizes(data, SHORT, LONG), 4))
    padded = predictions(data, model, [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10]])
    assert furthest(unpadded, alone) < 1e-5
    assert furthest(padded, alone) > 1e-3  # otherwise the comparison proves nothing
