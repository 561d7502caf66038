"""`python -m tools.to_coco`: what it writes and says, and that nothing half-written stays."""

import json
import os
import shutil

import pytest
import yaml
from PIL import Image

from datasets.image_decoding import ORIENTATION
from tests.helpers.layouts import coco_layouts, voc_layouts, yolo_layouts
from tests.helpers.layouts.voc_layouts import write_picture
from tools.to_coco import run


def write_coco(root, names, annotations=(), ids=(1,), size=(48, 36), **options):
    for name in names:
        write_picture(root / "train2017" / name, size, **options)
    images = [{"id": n, "file_name": name, "width": size[0], "height": size[1]} for n, name in enumerate(names)]
    annotations = [{"id": n, "category_id": 1, "iscrowd": 0} | each for n, each in enumerate(annotations)]
    content = {"images": images, "annotations": annotations, "categories": [{"id": n, "name": f"c{n}"} for n in ids]}
    (root / "annotations").mkdir(parents=True, exist_ok=True)
    (root / "annotations/instances_train2017.json").write_text(json.dumps(content | {"info": {}}))
    return root


@pytest.mark.parametrize("layout", [coco_layouts.roboflow, voc_layouts.devkit, yolo_layouts.darknet])
def test_any_format_becomes_the_published_layout(tmp_path, capsys, layout):
    source = layout(tmp_path / "a", (3, 7)) if layout is coco_layouts.roboflow else layout(tmp_path / "a")
    assert run([str(source), str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert "train" in said and said.endswith(f"wrote {tmp_path / 'out'} as COCO\n")
    data = json.loads((tmp_path / "out/annotations/instances_train2017.json").read_text())
    files = [tmp_path / "out/train2017" / image["file_name"] for image in data["images"]]
    assert all(file.is_file() and not file.is_symlink() for file in files)
    assert os.listdir(tmp_path / "out/val2017")


def test_a_part_that_cannot_be_used_is_said_to_be_left_out(tmp_path, capsys):
    root = yolo_layouts.roboflow(tmp_path / "a")
    shutil.rmtree(root / "valid")
    assert run([str(root), str(tmp_path / "out")]) == 0
    assert "the val part is left out, because it cannot be used: " in capsys.readouterr().out
    assert sorted(os.listdir(tmp_path / "out")) == ["annotations", "train2017"]


def test_links_lead_to_the_images(tmp_path):
    yolo_layouts.flat(tmp_path / "a")
    assert run([str(tmp_path / "a"), str(tmp_path / "out"), "--link"]) == 0
    assert os.readlink(tmp_path / "out/train2017/a.png") == str(tmp_path / "a/a.png")


def test_data_yaml_is_plain(tmp_path):
    coco_layouts.published(tmp_path / "a", (3, 7))
    assert run([str(tmp_path / "a"), str(tmp_path / "out"), "--to", "yolo"]) == 0
    content = yaml.safe_load((tmp_path / "out/data.yaml").read_text())
    assert content == {
        "train": "images/train",
        "val": "images/val",
        "names": {0: "ein Apfel", 1: "plum #2"},
        "coco_category_ids": [3, 7],
    }


@pytest.mark.parametrize("to", ["coco", "yolo", "voc"])
def test_nothing_half_written_stays(tmp_path, capsys, to):
    coco_layouts.published(tmp_path / "a", (0, 1))
    next((tmp_path / "a/val2017").iterdir()).unlink()
    assert run([str(tmp_path / "a"), str(tmp_path / "new" / "out"), "--to", to]) == 1
    assert "error: 1 of the 3 images in" in (said := capsys.readouterr().err)
    assert said.count("\n") == 1
    assert sorted(os.listdir(tmp_path)) == ["a"]


def test_an_interrupted_conversion_leaves_nothing(tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    coco_layouts.published(tmp_path / "a", (0, 1))
    monkeypatch.setattr("shutil.copyfile", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run([str(tmp_path / "a"), str(tmp_path / "out")])
    assert os.listdir(tmp_path) == ["a"]


def test_a_full_disk_is_said(tmp_path, monkeypatch, capsys):
    def fill_up(*_):
        raise OSError(28, "No space left on device")

    coco_layouts.published(tmp_path / "a", (0, 1))
    monkeypatch.setattr("shutil.copyfile", fill_up)
    assert run([str(tmp_path / "a"), str(tmp_path / "out")]) == 1
    said = capsys.readouterr().err
    assert "cell 000.png cannot be copied (No space left on device): check the permissions and the space" in said
    assert os.listdir(tmp_path) == ["a"]


def test_an_existing_folder_stays(tmp_path, capsys):
    yolo_layouts.flat(tmp_path / "a")
    for out in (tmp_path, tmp_path / "a"):
        assert run([str(tmp_path / "a"), str(out)]) == 1
        assert "already exists: choose a new folder" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert run([str(tmp_path / "a"), str(tmp_path / "empty")]) == 0


def test_file_names_do_not_leave_the_folder(tmp_path):
    write_picture(tmp_path / "elsewhere.png")
    write_coco(tmp_path / "a", [], ids=(1,))
    path = tmp_path / "a/annotations/instances_train2017.json"
    names = ["../../elsewhere.png", str(write_picture(tmp_path / "b.png"))]
    (tmp_path / "a/train2017").mkdir()
    images = [{"id": n, "file_name": name} for n, name in enumerate(names)]
    path.write_text(json.dumps(json.loads(path.read_text()) | {"images": images}))
    assert run([str(tmp_path / "a"), str(tmp_path / "out")]) == 0
    assert sorted(os.listdir(tmp_path / "out/train2017")) == ["b.png", "elsewhere.png"]


@pytest.mark.parametrize(
    ("names", "to", "expected"),
    [
        (["a.png", "a.jpg"], "yolo", "would share one annotation file"),
        (["a.png", "a.jpg"], "voc", "would share one annotation file"),
        (["a.png", "b\n.png"], "voc", "has a line break or is not in UTF-8, which VOC's lists cannot hold"),
        ([".a.png"], "yolo", "begins with a point"),
    ],
)
def test_names_that_a_format_cannot_hold_are_refused(tmp_path, capsys, names, to, expected):
    write_coco(tmp_path / "a", names)
    assert run([str(tmp_path / "a"), str(tmp_path / "out"), "--to", to]) == 1
    assert expected in capsys.readouterr().err
    assert os.listdir(tmp_path) == ["a"]


@pytest.mark.parametrize(("name", "expected"), [("c2", "two classes are named 'c2'"), ("a\x1b", "a letter that XML")])
def test_classes_that_voc_cannot_hold_are_refused(tmp_path, capsys, name, expected):
    path = write_coco(tmp_path / "a", ["a.png"], ids=(1, 2)) / "annotations/instances_train2017.json"
    path.write_text(path.read_text().replace('"c1"', json.dumps(name)))
    assert run([str(tmp_path / "a"), str(tmp_path / "out"), "--to", "voc"]) == 1
    assert expected in capsys.readouterr().err


def test_what_a_format_cannot_hold_is_said(tmp_path, capsys):
    box, polygon = [1, 2, 10, 20], [[1, 2, 11, 2, 11, 22]]
    annotations = [
        {"image_id": 0, "bbox": box, "segmentation": polygon, "keypoints": [3, 4, 2]},
        {"image_id": 0, "bbox": box, "iscrowd": 1, "keypoints": []},
        {"image_id": 0, "bbox": [40, 30, 20, 20]},
        {"image_id": 0, "bbox": [50, 30, 20, 20]},
    ]
    write_coco(tmp_path / "a", ["a.png"], annotations)
    assert run([str(tmp_path / "a"), str(tmp_path / "yolo"), "--to", "yolo"]) == 0
    said = capsys.readouterr().out
    assert "the keypoints of 1 objects are left out: boxes are written" in said
    assert "1 crowd regions are left out" in said
    assert "1 boxes without area inside their image are left out" in said
    assert "1 boxes extend beyond their image and are clamped" in said
    assert "1 segmentations are left out, because boxes are written: --labels polygons" in said
    assert len((tmp_path / "yolo/labels/train/a.txt").read_text().splitlines()) == 2
    assert run([str(tmp_path / "a"), str(tmp_path / "p"), "--to", "yolo", "--labels", "polygons"]) == 0
    assert "1 objects without a polygon are written as the corners of their box" in capsys.readouterr().out
    assert run([str(tmp_path / "a"), str(tmp_path / "voc"), "--to", "voc"]) == 0
    said = capsys.readouterr().out
    assert "the keypoints of 1 objects are left out: boxes are written" in said
    assert "1 segmentations are left out: VOC's XML files hold boxes" in said
    assert "1 crowd regions are marked difficult" in said


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_boxes_are_turned_with_images_that_yolo_reads_upright(tmp_path, orientation):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    write_coco(tmp_path / "a", ["a.jpg"], [{"image_id": 0, "bbox": [8, 4, 16, 12]}], exif=exif)
    stored = Image.new("L", (48, 36))
    stored.paste(255, (8, 4, 24, 16))
    stored.info["exif"] = exif.tobytes()
    transpose = {5: "TRANSPOSE", 6: "ROTATE_270", 7: "TRANSVERSE", 8: "ROTATE_90"}[orientation]
    left, top, right, bottom = stored.transpose(Image.Transpose[transpose]).getbbox()
    assert run([str(tmp_path / "a"), str(tmp_path / "yolo"), "--to", "yolo"]) == 0
    assert run([str(tmp_path / "yolo"), str(tmp_path / "back")]) == 0
    data = json.loads((tmp_path / "back/annotations/instances_train2017.json").read_text())
    assert (data["images"][0]["width"], data["images"][0]["height"]) == (36, 48)
    assert data["annotations"][0]["bbox"] == [left, top, right - left, bottom - top]
