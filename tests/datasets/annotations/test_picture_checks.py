"""The headers of image files are compared with the annotations before training."""

import json
from argparse import Namespace

import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from datasets.annotations.headers import read_header
from datasets.coco import CocoDetection, build
from evaluation.coco_eval import CocoEvaluator
from tests.helpers.coco_files import annotation, captured_warnings, write_coco

SQUARE = [annotation(1, 1, [10, 10, 20, 15])]


def built(folder, ann_file, split="val", masks=True, **more):
    paths = {f"{split}_ann": str(ann_file), f"{split}_images": str(folder)}
    with captured_warnings() as logged:
        data = build(split, Namespace(coco_path=None, masks=masks, val_size=30, **paths, **more))
    return data, logged


def rewrite(ann_file, **fields):
    """Set `fields` in the entries of all images; None removes one."""
    data = json.loads(ann_file.read_text())
    for image in data["images"]:
        image |= fields
    data["images"] = [{key: value for key, value in image.items() if value is not None} for image in data["images"]]
    ann_file.write_text(json.dumps(data))


@pytest.mark.parametrize("size", [{"width": None, "height": None}, {"width": 0, "height": 0}, {"width": None}])
def test_sizes_that_the_annotations_do_not_state_come_from_the_files(tmp_path, size):
    folder, ann_file = write_coco(tmp_path, SQUARE)
    rewrite(ann_file, **size)
    data, _ = built(folder, ann_file)
    assert [(image["width"], image["height"]) for image in data.images.values()] == [(40, 30)] * 3
    for backend in ("auto", "pycocotools"):
        code = CocoEvaluator(data.coco, ["segm"], backend=backend).coco_gt.anns[1]["segmentation"]
        assert code["size"] == [30, 40] and coco_mask.area(code) == 300


@pytest.mark.parametrize("size", [{"width": 30, "height": 40}, {"width": 41}])
def test_an_image_of_another_size_than_annotated_is_refused_with_masks(tmp_path, size):
    folder, ann_file = write_coco(tmp_path, SQUARE)
    rewrite(ann_file, **size)
    with pytest.raises(ValueError, match="json: 3 of 3 images have another size than annotated .image 1, 1.png"):
        built(folder, ann_file)
    built(folder, ann_file, masks=False)
    built(folder, ann_file, split="train")


def test_a_validation_image_that_is_none_is_named_at_the_start(tmp_path):
    folder, ann_file = write_coco(tmp_path, SQUARE)
    (folder / "2.png").write_bytes(b"text")
    (folder / "3.png").write_bytes(b"")
    for masks in (True, False):
        with pytest.raises(OSError, match="2.png cannot be read .*; 2 of 3 images cannot be read"):
            built(folder, ann_file, masks=masks)
    built(folder, ann_file, skip_bad_images=True)


def turn(folder, tag, suffix=".png"):
    exif = Image.Exif()
    exif[0x0112] = tag
    for path in folder.iterdir():
        Image.open(path).save(path, exif=exif)


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize(("tag", "box", "fits"), [(6, [2, 8, 20, 30], True), (3, [0, 0, 20, 20], False)])
def test_turned_images_that_are_read_as_stored_give_one_warning(tmp_path, split, tag, box, fits):
    folder, ann_file = write_coco(tmp_path, [annotation(1, 2, box)])
    turn(folder, tag)
    data, logged = built(folder, ann_file, split, masks=False)
    found = [line for line in logged if "EXIF" in line]
    assert len(found) == 1 and "3 of 3 images have an EXIF orientation" in found[0]
    assert ("the boxes of 1 fit only the upright image" in found[0]) == fits
    assert (f"({'2' if fits else '1'}.png: {tag})") in found[0]


def test_turned_images_whose_size_says_that_they_are_upright_are_read_so(tmp_path):
    folder, ann_file = write_coco(tmp_path, SQUARE)
    turn(folder, 6)
    rewrite(ann_file, width=30, height=40)
    data, logged = built(folder, ann_file)
    assert not any("EXIF" in line for line in logged)
    assert data[0][1]["orig_size"].tolist() == [40, 30]


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".webp"])
@pytest.mark.parametrize("tag", [None, 1, 3, 6, 8])
def test_a_header_gives_the_stored_size_and_the_orientation(tmp_path, suffix, tag):
    exif = Image.Exif()
    if tag:
        exif[0x0112] = tag
    Image.new("RGB", (40, 30)).save(tmp_path / f"a{suffix}", exif=exif)
    header = read_header(tmp_path / f"a{suffix}")
    assert header.size == (40, 30) and header.orientation == (tag or 1)
    assert header.upright_size == ((30, 40) if tag in (6, 8) else (40, 30))


def test_boxes_outside_images_of_unknown_size_are_found(tmp_path):
    folder, ann_file = write_coco(tmp_path, [annotation(1, 1, [100, 100, 5, 5])])
    rewrite(ann_file, width=None, height=None)
    _, logged = built(folder, ann_file, "train", masks=False)
    assert any("1 box has no area inside its image" in line for line in logged)
    assert any("no object to learn" in line for line in logged)
    assert not any("no object" in line for line in captured(folder, ann_file))


def captured(folder, ann_file):
    with captured_warnings() as logged:
        CocoDetection(folder, ann_file, None, False)  # without looking at headers, nothing can be said
    return logged
