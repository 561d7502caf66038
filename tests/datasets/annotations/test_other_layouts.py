"""A path that has not the expected files: the message says what it holds and what to do."""

import shutil
import zipfile
from argparse import Namespace

import pytest

from datasets.coco import build
from tests.helpers.coco_files import annotation, write_coco

ANNOTATIONS = [annotation(1, 1, [4, 5, 10, 12])]


def message(image_set="train", kind=FileNotFoundError, **flags):
    with pytest.raises(kind) as caught:
        build(image_set, Namespace(**{"coco_path": None, "masks": False} | flags))
    return str(caught.value)


def test_another_layout_of_coco_is_named_with_its_flags(tmp_path):
    for split in ("train", "valid"):  # Roboflow's
        folder, ann_file = write_coco(tmp_path / "made" / split, ANNOTATIONS)
        shutil.move(folder, tmp_path / "set" / split)
        shutil.move(ann_file, tmp_path / "set" / split / "_annotations.coco.json")
    root = tmp_path / "set"
    for image_set, split in (("train", "train"), ("val", "valid")):
        flags = f"--{image_set}_ann {root / split / '_annotations.coco.json'} --{image_set}_images {root / split}"
        said = message(image_set, coco_path=str(root))
        assert f"pass {flags}, and likewise" in said and "with --data instead" in said
        first, file, second, folder, *_ = flags.split()
        build(image_set, Namespace(coco_path=None, masks=False, **{first[2:]: file, second[2:]: folder}))
        build(image_set, Namespace(data=str(root), masks=False))


def test_a_folder_of_xml_is_named(tmp_path):
    (tmp_path / "Annotations").mkdir()
    (tmp_path / "Annotations" / "1.xml").write_text("<annotation/>")
    sentence = "holds 1 XML files, as in Pascal VOC: pass the folder of the data set with --data"
    assert sentence in message(coco_path=str(tmp_path))
    assert sentence in message(train_ann=str(tmp_path / "Annotations"), train_images=str(tmp_path))


def test_a_folder_of_yolo_is_named(tmp_path):
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "1.txt").write_text("0 0.5 0.5 0.25 0.25\n")
    sentence = "looks like YOLO's format: pass the folder of the data set with --data"
    assert sentence in message(coco_path=str(tmp_path))
    assert sentence in message(train_ann=str(tmp_path / "labels"), train_images=str(tmp_path))


def test_an_archive_is_to_be_unpacked(tmp_path):
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        archive.writestr("a.json", "{}")
    assert "set.zip is a ZIP archive: unpack it" in message(coco_path=str(tmp_path / "set.zip"))
    assert "holds the archive set.zip: unpack it" in message(coco_path=str(tmp_path))


def test_a_file_without_images_names_its_part(tmp_path):
    folder, ann_file = write_coco(tmp_path, [], images=[])
    for image_set in ("train", "val"):
        paths = {f"{image_set}_ann": str(ann_file), f"{image_set}_images": str(folder)}
        error = message(image_set, ValueError, **paths)
        assert f"the {image_set} data has no images: {ann_file} lists none" in error and f"--{image_set}_ann" in error


def test_a_folder_without_images_names_its_flag(tmp_path):
    folder, ann_file = write_coco(tmp_path, [], images=[])
    error = message("val", ValueError, data=str(tmp_path), eval=True)
    assert f"the val data has no images: {ann_file} lists none" in error and "pass another folder with --data" in error
