"""Label files of YOLO: boxes and polygons in pixels, and lines that cannot be used."""

import os

import pytest
from PIL import Image

from datasets.formats import find_data
from datasets.formats.faults import collected_faults
from datasets.formats.yolo.labels import looks_like_labels, read_labels
from datasets.formats.yolo.names import Names
from datasets.image_decoding import ORIENTATION
from tests.helpers.layouts.voc_layouts import write_picture
from tests.helpers.layouts.yolo_layouts import LABEL, flat, write_label, write_pair


@pytest.fixture
def names(tmp_path):
    return Names(tmp_path / "data.yaml", {0: "cat", 1: "dog"})


def test_a_box_is_in_pixels(tmp_path, names):
    path = write_label(tmp_path / "a.txt", "1 0.5 0.25 0.1 0.3", "", " 0.0\t.5 5e-1 +1 1.0 ")
    first, second = read_labels(path, names, (640, 480))
    assert (first.number, first.box, first.polygon) == (1, [288, 48, 64, 144], None)
    assert (second.number, second.box) == (0, [0, 0, 640, 480])


def test_a_polygon_is_in_pixels_and_its_box_is_around_it(tmp_path, names):
    (label,) = read_labels(write_label(tmp_path / "a.txt", "0 0.1 0.2 0.5 0.2 0.3 0.9"), names, (100, 10))
    assert label.polygon == [10, 2, 50, 2, 30, 9]
    assert label.box == [10, 2, 40, 7]


def test_polygons_are_segmentations_with_their_area(tmp_path):
    flat(tmp_path)
    write_label(tmp_path / "a.txt", "0 0 0 0.5 0 0.5 0.5")
    annotation = find_data(tmp_path).parts["train"].read()["annotations"][0]
    assert annotation["segmentation"] == [[0, 0, 24, 0, 24, 18]]
    assert annotation["area"] == 24 * 18 / 2


def test_keypoints_are_not_a_polygon(tmp_path, capsys):
    write_pair(tmp_path / "images", tmp_path / "labels", "a", f"{LABEL} 0.1 0.1 2 0.2 0.2 1")
    text = "train: images\nval: images\nkpt_shape: [2, 3]\nnames: [person]\n"
    (tmp_path / "data.yaml").write_text(text)
    annotation = find_data(tmp_path).parts["train"].read()["annotations"][0]
    assert annotation["bbox"] == [18, 9, 12, 18]
    assert "segmentation" not in annotation
    assert "keypoints (kpt_shape) are not read, only the boxes" in capsys.readouterr().out
    write_label(tmp_path / "labels/a.txt", f"{LABEL} 0.1 0.1")
    with pytest.raises(ValueError, match="a.txt line 1 has 7 numbers, but a box has 5 and its keypoints 6 more"):
        find_data(tmp_path).parts["train"].read()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("0.5 0.5 0.2 0.2", "has 4 numbers, but a box has 5: class, x, y, width, height"),
        ("0 0.5 0.5 0.2 0.2 0.9", "has 6 numbers, but a box has 5: .* is the sixth a confidence"),
        ("0 " + "0.5 " * 7, "has 8 numbers, but a polygon has an odd number"),
        ("0", "has 1 number, but a box has 5"),
        ("2 0.5 0.5 0.2 0.2", "has class 2, but .*data.yaml names the classes up to 1: add the name, or correct"),
        ("-1 0.5 0.5 0.2 0.2", "has the class '-1': write its number, which is its place"),
        ("0.5 0.5 0.5 0.2 0.2", "has the class '0.5': write its number"),
        ("cat 0.5 0.5 0.2 0.2", "has the class 'cat': write its number"),
        ("0 320 240 64 48", "has the number 320, which is outside 0..1: .* not pixels"),
        ("0 0.5 0.5 0.2 -0.2", "has the number -0.2, which is outside 0..1"),
        ("0 0.5 0.5 0.2 1.02", "has the number 1.02, which is outside 0..1"),
        ("0 0.5 0.5 0.2 nan", "has 'nan', which is no number"),
        ("0 0.5 0.5 0.2 1e99999999", "has '1e99999999', which is no number"),
        ("0 0.5 0.5 0.2 0.2.1", "has '0.2.1', which is no number"),
        ("0,0.5,0.5,0.2,0.2", "has commas: separate the numbers by spaces"),
        ("0 0.5 0.5 0.2 ٣", "has '٣', which is no number"),
    ],
)
def test_a_line_that_cannot_be_used_is_named(tmp_path, names, line, expected):
    path = write_label(tmp_path / "a.txt", LABEL, "", line)
    with pytest.raises(ValueError, match=f"label file {path} line 3 (?:{expected})"):
        read_labels(path, names, (640, 480))


def test_rounding_beyond_the_image_is_accepted(tmp_path, names):
    assert read_labels(write_label(tmp_path / "a.txt", "0 1.000001 -0.0000001 0.2 0.2"), names, (640, 480))


@pytest.mark.parametrize("content", [b"\xff\xd8\xff\xe0", b"0 0.5 0.5 0.2 0.2\xe9\n"])
def test_a_file_that_is_no_text_is_named(tmp_path, names, content):
    (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(ValueError, match=r"label file .*a.txt is not text in UTF-8 .byte \d+.: it is damaged"):
        read_labels(tmp_path / "a.txt", names, (640, 480))


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_byte_order_mark_is_no_class(tmp_path, names, encoding):
    (tmp_path / "a.txt").write_text(f"{LABEL}\r\n", encoding=encoding)
    assert len(read_labels(tmp_path / "a.txt", names, (640, 480))) == 1


def test_a_pipe_is_not_waited_for(tmp_path, names):
    os.mkfifo(tmp_path / "a.txt")
    assert not looks_like_labels(tmp_path / "a.txt")
    with pytest.raises(OSError, match="label file .*a.txt is not a regular file"):
        read_labels(tmp_path / "a.txt", names, (640, 480))


def test_long_polygons_look_like_labels(tmp_path):
    assert looks_like_labels(write_label(tmp_path / "a.txt", "0 " + "0.123456789 " * 2000))
    assert not looks_like_labels(write_label(tmp_path / "b.txt", "a photo"))


def test_turned_images_are_read_upright(tmp_path):
    turned = Image.Exif()
    turned[ORIENTATION] = 6
    write_picture(tmp_path / "a.jpg", (48, 36), exif=turned)
    write_label(tmp_path / "a.txt", "0 0.5 0.5 1 1")
    data = find_data(tmp_path).parts["train"].read()
    assert (data["images"][0]["width"], data["images"][0]["height"]) == (36, 48)
    assert data["annotations"][0]["bbox"] == [0, 0, 36, 48]


def test_an_image_that_cannot_be_opened_is_left_to_the_loader(tmp_path):
    (flat(tmp_path) / "a.png").write_bytes(b"no picture")
    data = find_data(tmp_path).parts["train"].read()
    assert len(data["images"]) == 2
    assert [annotation["image_id"] for annotation in data["annotations"]] == [2]


def test_a_check_collects_faulty_files_and_reads_the_rest(tmp_path):
    write_label(flat(tmp_path) / "a.txt", "0 0.5")
    with collected_faults() as faults:
        data = find_data(tmp_path).parts["train"].read()
    assert [image["file_name"] for image in data["images"]] == ["b.png"]
    assert [fault.path.name for fault in faults] == ["a.txt"]
