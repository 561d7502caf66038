"""`split_part` on files: the parts that it returns, what it logs, and data that exist only on some machines."""

import json
import zlib
from pathlib import Path

import pytest

from datasets.formats.find import find_data
from datasets.formats.part import Part
from datasets.splits.parts import read_side, split_part
from tests.datasets.splits.scenes import scene
from tests.helpers.paths import SHARED_DATA

CATEGORIES = [{"id": 3, "name": "cat"}, {"id": 1, "name": "dog\n"}]


def write(folder: Path, names: list[str], same: dict[str, str] | None = None) -> Part:
    """A COCO data set of scenes, one cat each and a dog in every second; `same` names a file to repeat as another."""
    images, annotations = [], []
    for number, name in enumerate(names, start=1):
        (folder / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        source = (same or {}).get(name, name)
        scene(zlib.crc32(source.encode())).save(folder / "images" / name, quality=90)
        images.append({"id": number, "file_name": name, "width": 160, "height": 120})
        for category in [3, 1][: 1 + number % 2]:
            box = {"bbox": [10, 10, 20, 20], "area": 400, "iscrowd": 0}
            annotations.append({"id": len(annotations) + 1, "image_id": number, "category_id": category, **box})
    data = {"images": images, "annotations": annotations, "categories": CATEGORIES}
    (folder / "annotations.json").write_text(json.dumps(data))
    return find_data(folder).parts["train"]


def names_in(part: Part) -> list[str]:
    return [image["file_name"] for image in part.read()["images"]]


def test_the_parts_have_the_pictures_of_their_side_with_their_objects(tmp_path, capsys):
    part = write(tmp_path, [f"p {n} #.jpg" for n in range(30)])
    found = split_part(part, 0.2)
    train, val = found.train.read(), found.val.read()
    assert sorted(names_in(found.train) + names_in(found.val)) == sorted(names_in(part))
    assert set(names_in(found.val)) == set(found.split.val)
    assert len(train["annotations"]) + len(val["annotations"]) == 45
    for data in (train, val):
        assert data["categories"] == CATEGORIES
        assert {a["image_id"] for a in data["annotations"]} == {image["id"] for image in data["images"]}
    said = capsys.readouterr().out
    counts = f"cat {len(train['images'])} + {len(val['images'])}, dog\\n "
    assert "--val_share 0.2 split 30 images" in said and counts in said and said.count("\n") == 1


def test_copies_of_a_picture_are_on_one_side_and_can_be_split_all_the_same(tmp_path, capsys):
    names = [f"p{n}.jpg" for n in range(12)]
    copies = {f"copy of {name}": name for name in names}
    part = write(tmp_path, [*names, *copies], copies)
    sides = split_part(part, 0.3).split.sides
    assert all(sides[copy] == sides[name] for copy, name in copies.items())
    assert "24 near-duplicates in 12 groups" in capsys.readouterr().out
    sides = split_part(part, 0.3, val_groups="none").split.sides
    assert any(sides[copy] != sides[name] for copy, name in copies.items())


def test_a_picture_that_cannot_be_read_is_split_by_its_name(tmp_path):
    part = write(tmp_path, [f"p{n}.jpg" for n in range(20)])
    whole = split_part(part, 0.2).split
    (tmp_path / "images" / "p3.jpg").write_bytes(b"broken")
    (tmp_path / "images" / "p4.jpg").unlink()
    assert split_part(part, 0.2).split == whole


def test_ids_written_as_text_are_those_of_their_pictures(tmp_path):
    def reader() -> dict:
        images = [{"id": "1", "file_name": "a.jpg"}, {"id": 2.0, "coco_url": "http://x/b.jpg"}]
        entries = [{"id": n, "image_id": image, "category_id": 1} for n, image in enumerate([1, "2", 2, "1", 7])]
        return {"images": images, "annotations": entries, "categories": []}

    data = read_side(reader, tmp_path, frozenset(["b.jpg"]))
    assert [image["id"] for image in data["images"]] == [2.0]
    assert [entry["id"] for entry in data["annotations"]] == [1, 2, 4]  # 4 names no picture, which the checks report


def test_annotations_that_cannot_be_used_are_refused_as_without_a_split(tmp_path):
    part = write(tmp_path, ["a.jpg", "b.jpg"])
    file = tmp_path / "annotations.json"
    data = json.loads(file.read_text())
    data["annotations"][0]["bbox"] = [1, 2, 3]
    file.write_text(json.dumps(data))
    with pytest.raises(ValueError, match=r"annotations\.json.*annotation 1"):
        split_part(part, 0.5)


@pytest.mark.parametrize("data", ["bccd", "coco_panoptic100"])
def test_real_data(data):
    if not (SHARED_DATA / data).is_dir():
        pytest.skip(f"needs {SHARED_DATA / data}")
    found = split_part(find_data(SHARED_DATA / data).parts["train"], 0.15).split
    both = [counts for counts in found.classes.values() if counts["train"][0] + counts["val"][0] > 3]
    assert both and all(counts["train"][0] and counts["val"][0] for counts in both)
    assert 0.1 < len(found.val) / (len(found.train) + len(found.val)) < 0.3
