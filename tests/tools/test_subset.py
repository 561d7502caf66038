"""A subset of a data set: the same images in both splits, with only their annotations."""

import json

import pytest

from datasets import build_dataset
from datasets.shapes import write_shapes
from tests.helpers.layouts import coco_layouts
from tests.helpers.runs import parse
from tools.subset import run


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    root = tmp_path_factory.mktemp("shapes")
    write_shapes(root, train=4, val=3, size=48, seed=0)
    return root


def test_both_splits_hold_the_named_images(shapes, tmp_path, capsys):
    assert run([str(shapes), str(tmp_path / "out"), "--ids", "3", "1"]) == 0
    assert "2 images; instances: " in capsys.readouterr().out
    for kind in ("coco", "coco_panoptic"):
        flags = ["--dataset_file", kind, "--masks", "--hidden_dim", "128", "--nheads", "8"]
        for split in ("train", "val"):
            dataset = build_dataset(split, parse(tmp_path / "out", *flags))
            whole = build_dataset("train", parse(shapes, *flags))
            assert dataset.ids == [1, 3]
            dataset._transforms = whole._transforms = None
            for index, original in ((0, 0), (1, 2)):
                (image, target), (expected, truth) = dataset[index], whole[original]
                assert image.tobytes() == expected.tobytes()
                assert target["boxes"].tolist() == truth["boxes"].tolist()


def test_it_can_be_written_again(shapes, tmp_path):
    for ids in ("1", "2"):
        assert run([str(shapes), str(tmp_path), "--ids", ids]) == 0
    content = json.loads((tmp_path / "annotations" / "instances_val2017.json").read_text())
    assert [image["id"] for image in content["images"]] == [2]


def test_a_missing_image_is_named(shapes, tmp_path, capsys):
    assert run([str(shapes), str(tmp_path / "out"), "--ids", "1", "77"]) == 1
    assert "has no image 77" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_folder_without_annotations_is_an_error(tmp_path, capsys):
    assert run([str(tmp_path), str(tmp_path / "out"), "--ids", "1"]) == 1
    assert "instances_train2017.json" in capsys.readouterr().err


def test_the_data_set_itself_is_not_overwritten(tmp_path, capsys):
    write_shapes(tmp_path, train=2, val=1, size=48, seed=0)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    (tmp_path / "same").symlink_to(tmp_path)
    for out in (tmp_path, tmp_path / "same"):
        assert run([str(tmp_path), str(out), "--ids", "1"]) == 1
        assert "is the input itself and would be overwritten" in capsys.readouterr().err
    (tmp_path / "same").unlink()
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_folder_of_images_is_not_replaced_by_a_link(shapes, tmp_path, capsys):
    (tmp_path / "train2017").mkdir()
    assert run([str(shapes), str(tmp_path), "--ids", "1"]) == 1
    assert "train2017 is a folder of its own" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ("[]", "holds a JSON list"),
        ('{"images": 1, "annotations": [], "categories": []}', "has no list `images`"),
        ('{"images": [{}], "annotations": [], "categories": []}', "is no COCO file"),
        ("{", "is not JSON"),
    ],
)
def test_a_file_of_another_kind_is_an_error(tmp_path, content, fault, capsys):
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "instances_train2017.json").write_text(content)
    assert run([str(tmp_path), str(tmp_path / "out"), "--ids", "1"]) == 1
    assert f"instances_train2017.json {fault}" in capsys.readouterr().err


def test_any_format_is_read(tmp_path):
    data = coco_layouts.roboflow(tmp_path / "data", (5, 90))
    assert run([str(data), str(tmp_path / "out"), "--split", "val", "--ids", "4"]) == 0
    dataset = build_dataset("train", parse(tmp_path / "out"))
    assert dataset.ids == [4] and [category["id"] for category in dataset.categories] == [5, 90]
    assert dataset[0][1]["boxes"].shape == (2, 4)


def test_a_folder_without_parts_gives_all_its_images(tmp_path, capsys):
    data = coco_layouts.label_studio_windows(tmp_path / "data", (0, 1))
    assert run([str(data), str(tmp_path / "out"), "--ids", "0", "5"]) == 0
    assert len(build_dataset("val", parse(tmp_path / "out"))) == 2
    assert run([str(tmp_path / "nothing"), str(tmp_path / "out"), "--ids", "0"]) == 1
    assert "there is no folder" in capsys.readouterr().err
