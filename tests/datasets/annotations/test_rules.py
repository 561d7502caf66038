"""Unusable annotation files are rejected with a message that names the entry."""

import json

import pytest

from datasets.annotations.rules import read_json
from datasets.coco import CocoDetection
from tests.helpers.coco_files import CATEGORIES, annotation, write_coco

BOX = [1, 2, 3, 4]
HUGE = 2**53 + 1


def image(**fields):
    return {"images": [{"id": 1, "file_name": "1.png"} | fields]}


@pytest.mark.parametrize(
    ("annotations", "parts", "sentence"),
    [
        ([], {"images": None}, "no list `images`"),
        ([], {"annotations": None}, "lists images without `annotations`.* predict.py CHECKPOINT IMAGES --ann .*json"),
        ([], {"annotations": {}}, "no list `annotations`"),
        ([], {"categories": None}, "no list `categories`"),
        ([], {"categories": {}}, "no list `categories`"),
        ([], {"categories": [{"name": "cat"}]}, "`categories` needs an integer `id`, got {'name': 'cat'}"),
        ([], {"categories": ["cat"]}, "`categories` needs an integer `id`, got 'cat'"),
        ([], {"categories": [{"id": -1, "name": "cat"}]}, "id -1 in `categories` is not in 0..99999"),
        ([], {"categories": [{"id": 10**6, "name": "cat"}]}, "id 1000000 in `categories` is not in 0..99999"),
        ([], {"categories": [{"id": True, "name": "cat"}]}, "`categories` needs an integer `id`"),
        ([], {"categories": CATEGORIES + CATEGORIES}, "id 2 appears twice in `categories`"),
        ([], image(id="a"), "`images` needs an integer `id`"),
        ([], image(id=True), "`images` needs an integer `id`"),
        ([], image(id=None), "`images` needs an integer `id`"),
        ([], image(id=-1), "id -1 in `images` is not in 0..9007199254740992"),
        ([], image(id=HUGE), "id 9007199254740993 in `images` is not in"),
        ([], {"images": [*image()["images"], *image()["images"]]}, "id 1 appears twice in `images`"),
        ([], {"images": [{"id": 4}]}, "image 4 has no file_name"),
        ([], image(file_name=""), "image 1 has no file_name"),
        ([], image(file_name=["1.png"]), "image 1 has no file_name"),
        ([], image(file_name="1\0.png"), r"image 1 has file_name '1\\x00.png', which is not a valid file name"),
        ([], image(file_name="1\ud83d.png"), r"image 1 has file_name '1\\ud83d.png', which is not a valid file name"),
        ([], image(width="forty"), "image 1 has width 'forty'"),
        ([], image(height=-30), "image 1 has height -30"),
        ([], image(width=1e300), r"image 1 has width 1e\+300"),
        ([], image(width=float("nan")), "image 1 has width nan"),
        ([], image(width=40.5), "image 1 has width 40.5"),
        ([], image(width=True), "image 1 has width True"),
        ([annotation(3, 1, BOX, category_id=5)], {}, "annotation 3 of image 1 has category_id 5"),
        ([annotation(3, 1, BOX, category_id=True)], {}, "integer `category_id`"),
        ([annotation(3, 1, BOX, image_id=None)], {}, "integer `image_id`"),
        (["annotation"], {}, "integer `image_id` in .* got 'annotation'"),
        ([annotation(3, 1, BOX, bbox=None)], {}, "annotation 3 of image 1 needs a bbox"),
        ([annotation(3, 1, BOX, bbox=[1, 2, 3])], {}, "annotation 3 of image 1 needs a bbox"),
        ([annotation(3, 1, BOX, bbox=[1, 2, "3 px", 4])], {}, "annotation 3 of image 1 needs a bbox"),
        ([annotation(3, 1, BOX, bbox=[1, 2, True, 4])], {}, "annotation 3 of image 1 needs a bbox"),
        ([annotation(3, 1, BOX, bbox=[1, 2, 3, 4, 30])], {}, "annotation 3 .* looks like a rotated box"),
        ([annotation(3, 1, BOX, bbox=[])], {}, r"annotation 3 of image 1 needs .* got \[\]: remove the annotation"),
        ([annotation(3, 1, BOX, bbox="1234")], {}, "annotation 3 of image 1 needs a bbox"),
        ([annotation(3, 1, BOX, iscrowd=2)], {}, "annotation 3 of image 1 has iscrowd 2"),
        ([annotation(3, 1, BOX, iscrowd="no")], {}, "annotation 3 of image 1 has iscrowd 'no'"),
        ([annotation(3, 1, BOX, iscrowd=[])], {}, "annotation 3 of image 1 has iscrowd"),
        ([annotation(3, 8, BOX), annotation(4, 9, BOX)], {}, "none of the 2 .* listed image .annotation 3 of"),
    ],
)  # fmt: skip
def test_an_unusable_file_is_rejected(tmp_path, annotations, parts, sentence):
    with pytest.raises(ValueError, match=f"instances.json.*{sentence}") as caught:
        CocoDetection(*write_coco(tmp_path, annotations, **parts), None, False)
    assert "\n" not in str(caught.value)


def test_the_largest_ids_are_accepted(tmp_path):
    parts = {"categories": [{"id": 0, "name": "cat"}, {"id": 99_999, "name": "dog"}], **image(id=2**53)}
    data = CocoDetection(
        *write_coco(tmp_path, [annotation(2**53, 2**53, BOX, category_id=99_999)], **parts), None, False
    )
    target = data[0][1]
    assert target["image_id"] == target["annotation_id"] == 2**53 and target["labels"] == 99_999


def test_an_overlong_entry_is_truncated_in_the_message(tmp_path):
    wrong = annotation(3, 1, BOX, bbox=list(range(10**5)), segmentation=[list(range(10**5))])
    with pytest.raises(ValueError, match="needs a bbox") as caught:
        CocoDetection(*write_coco(tmp_path, [wrong]), None, False)
    assert len(str(caught.value)) < 400


def refused(tmp_path, content: bytes | str, sentence: str, kind=ValueError):
    file = tmp_path / "bad.json"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(kind, match=f"bad.json {sentence}") as caught:
        CocoDetection(tmp_path, file, None, False)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "is empty"),
        (b" \n", "is not JSON"),
        (b"not json", "is not JSON"),
        (b'{"images": [', "is not JSON"),
        (b"\xff\xfe\x00", "is not JSON"),
        (b"\x80\x02}q", "is not JSON"),
        (b"[]", "holds a JSON list"),
        (b"null", "holds a JSON NoneType"),
        (b"[" * 10**5, "is nested too deeply"),
        (b'{"images":' * 10**5, "is nested too deeply"),
        (b'{"images": ' + b"9" * 5000 + b"}", "is not JSON .*digits"),
        (b'{"images": [], "annotations": [], "categories": [], "images": []}', "has the key 'images' twice"),
        (b'{"images": [{"id": 1, "id": 2}]}', "has the key 'id' twice"),
    ],
)
def test_a_file_that_is_not_coco_json_is_rejected(tmp_path, content, sentence):
    refused(tmp_path, content, sentence)


def test_a_file_truncated_anywhere_is_rejected(tmp_path):
    _, ann_file = write_coco(tmp_path, [annotation(1, 1, BOX)])
    whole = ann_file.read_bytes()
    for length in range(0, len(whole), 37):
        refused(tmp_path, whole[:length], "is ")


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="none.json does not exist: check --coco_path"):
        CocoDetection(tmp_path, tmp_path / "none.json", None, False)
    with pytest.raises(ValueError, match="is a folder: pass a file"):
        CocoDetection(tmp_path, tmp_path, None, False)


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "loop.json").symlink_to(tmp_path / "loop.json")
    with pytest.raises(OSError, match="loop.json cannot be read"):
        CocoDetection(tmp_path, tmp_path / "loop.json", None, False)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_every_encoding_of_json_is_read(tmp_path, encoding):
    content = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "Küken"}]}
    (tmp_path / "a.json").write_text(json.dumps(content, ensure_ascii=False), encoding=encoding)
    assert read_json(tmp_path / "a.json") == content
