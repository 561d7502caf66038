"""A data set that is converted and converted back says the same, bit for bit."""

import pytest

from datasets.formats.voc.options import VocOptions
from tests.helpers.layouts import voc_layouts, yolo_layouts
from tests.tools.converting.random_data import facts, write_random
from tools.to_coco import convert


@pytest.mark.parametrize("to", ["coco", "yolo", "voc"])
@pytest.mark.parametrize("seed", range(25))
def test_coco_to_another_format_and_back_loses_nothing(tmp_path, seed, to):
    before = facts(write_random(tmp_path / "coco", seed))
    convert(tmp_path / "coco", tmp_path / "other", to, link=True)
    assert within_folders(facts(tmp_path / "other"), to) == before
    convert(tmp_path / "other", tmp_path / "back", link=True)
    assert within_folders(facts(tmp_path / "back"), to) == before


def within_folders(said, to):
    """Without the folder for each part that VOC's layout needs where both have an image of one name."""
    if to != "voc":
        return said
    return {part: {name.removeprefix(f"{part}/"): what for name, what in of.items()} for part, of in said.items()}


@pytest.mark.parametrize("seed", range(8))
def test_polygons_come_back_from_yolo(tmp_path, seed):
    before = facts(write_random(tmp_path / "coco", seed, polygons=True))
    convert(tmp_path / "coco", tmp_path / "yolo", "yolo", link=True, labels="polygons")
    after = facts(tmp_path / "yolo")
    for part in before:
        for name in before[part].keys() - {"classes"}:
            assert [each[4] for each in after[part][name][1]] == [each[4] for each in before[part][name][1]]
    convert(tmp_path / "yolo", tmp_path / "again", "yolo", link=True)  # auto: nothing is lost by polygons
    assert facts(tmp_path / "again") == after


@pytest.mark.parametrize("layout", [yolo_layouts.ultralytics, yolo_layouts.darknet, yolo_layouts.flat])
def test_yolo_to_coco_and_back_loses_nothing(tmp_path, layout):
    layout(tmp_path / "yolo")
    lines = "0 0.123456 0.654321 0.2 0.3", "1 0.333333 0.666667 0.123456 0.1", "1 0.99 0.99 0.02 0.02"
    yolo_layouts.write_label(next((tmp_path / "yolo").rglob("a*.txt")), *lines)
    before = facts(tmp_path / "yolo")
    convert(tmp_path / "yolo", tmp_path / "coco", link=True)
    assert facts(tmp_path / "coco") == before
    convert(tmp_path / "coco", tmp_path / "back", "yolo", link=True)
    assert facts(tmp_path / "back") == before


@pytest.mark.parametrize("layout", [voc_layouts.folders, voc_layouts.roboflow, voc_layouts.devkit])
def test_voc_to_coco_and_back_loses_nothing(tmp_path, layout):
    layout(tmp_path / "voc")
    hard = voc_layouts.object_xml("dog", ("0.5", -3, "17.125", 99), "<truncated>1</truncated><difficult>1</difficult>")
    voc_layouts.write_xml(sorted((tmp_path / "voc").rglob("*.xml"))[0], hard, voc_layouts.object_xml())
    before = facts(tmp_path / "voc")
    convert(tmp_path / "voc", tmp_path / "coco", link=True)
    assert facts(tmp_path / "coco") == before
    convert(tmp_path / "coco", tmp_path / "back", "voc", link=True)
    assert facts(tmp_path / "back") == before


def test_difficult_objects_are_what_the_setting_says(tmp_path):
    voc_layouts.write_picture(tmp_path / "voc/a.png")
    voc_layouts.write_xml(tmp_path / "voc/a.xml", voc_layouts.object_xml(more="<difficult>1</difficult>"))
    for difficult, crowds in (("ignore", [1]), ("keep", [0]), ("drop", [])):
        convert(tmp_path / "voc", tmp_path / difficult, voc=VocOptions(difficult), link=True)
        assert [each[3] for each in facts(tmp_path / difficult)["train"]["a.png"][1]] == crowds
