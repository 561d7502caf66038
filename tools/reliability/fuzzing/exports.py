"""Annotation files as other tools write them: dialects of COCO, other formats, and large files."""

from __future__ import annotations

import gzip
import io
import json
import random
import uuid
import zipfile
from collections.abc import Callable, Iterable
from typing import Any

from tools.reliability.fuzzing.mutations import TEXTS

Document = dict[str, Any]


def odd_export(document: Document, rng: random.Random) -> bytes:
    """The annotations of `document` as another tool might write them, or a file that costs much to read."""
    way = rng.random()
    if way < 0.1:
        return rng.choice(_OTHER_FORMATS)(document, rng)
    if way < 0.2:
        return _repeat(document, rng)
    for change in rng.sample(_DIALECTS, rng.choice((1, 1, 2, 3))):
        change(document, rng)
    if rng.random() < 0.1:
        _leave_out_a_part(document, rng)
    text = json.dumps(document, ensure_ascii=rng.random() < 0.8)
    return text.encode("utf-8", "surrogatepass")


# ---- Dialects --------------------------------------------------------------------------------------------------------


def _some(entries: list[Any], rng: random.Random) -> Iterable[Any]:
    """One entry or all of them."""
    return entries if rng.random() < 0.6 else [rng.choice(entries)] if entries else []


def _ids_as_strings(document: Document, rng: random.Random) -> None:
    kind, keys = rng.choice(
        (
            ("images", ["id"]),
            ("annotations", ["id"]),
            ("annotations", ["image_id"]),
            ("categories", ["id"]),
            ("annotations", ["id", "image_id", "category_id"]),
        )
    )
    for entry in _some(document[kind], rng):
        for key in keys:
            entry[key] = str(entry.get(key))


def _annotation_ids(document: Document, rng: random.Random) -> None:
    way = rng.randrange(6)
    for number, entry in enumerate(document["annotations"]):
        if way == 5:
            entry.pop("id", None)
        else:
            entry["id"] = (0, str(uuid.UUID(int=rng.getrandbits(128))), number, None, float(number))[way]


def _sizes(document: Document, rng: random.Random) -> None:
    way = rng.randrange(7)
    for image in _some(document["images"], rng):
        width, height = image.get("width"), image.get("height")
        if way == 0:
            image.pop("width", None), image.pop("height", None)
        elif way == 1:
            image["width"] = image["height"] = 0
        elif way == 2:
            image["width"], image["height"] = height, width
        elif way == 3:
            image["width"] = rng.choice((25, 1, 10**9, "24", -24, 24.0, None))
        elif way == 4:
            image["height"], image["width"] = [16, 24]
            image["size"] = [image.pop("height"), image.pop("width")]
        elif way == 5:
            image["width"], image["height"] = 10**9, 10**9
        else:
            image["width"], image["height"] = f"{width}", f"{height}px"


def _segmentations(document: Document, rng: random.Random) -> None:
    segmentation = rng.choice(
        (
            [],
            [[]],
            None,
            [[5, 4, 20, 9]],
            [5, 4, 20, 4, 20, 9],
            [[5, 4, 20, 4, 20, 4, 5, 4]],
            [[5, 4, 5, 4, 5, 4]],
            [[[5, 4], [20, 4], [20, 9]]],
            [["5", "4", "20", "4", "20", "9"]],
            [{"x": 5, "y": 4}, {"x": 20, "y": 4}, {"x": 20, "y": 9}],
            [[0.2, 0.25, 0.8, 0.25, 0.8, 0.5]],
            {"size": [16, 24], "counts": [384]},
            {"size": [16, 24], "counts": []},
            {"size": [24, 16], "counts": [100, 284]},
            {"size": [10**6, 10**6], "counts": [10**12]},
            {"size": [16, 24], "counts": [10**12] * 3},
            {"size": [16, 24], "counts": ""},
            {"size": [16, 24], "counts": "`" * 5000},
            {"counts": [384]},
            [[rng.uniform(-5, 30) for _ in range(2 * rng.choice((3, 100, 20_000)))]],
        )
    )
    for entry in _some(document["annotations"], rng):
        entry["segmentation"] = segmentation
        entry["iscrowd"] = rng.choice((0, entry.get("iscrowd", 0), 1))


def _boxes(document: Document, rng: random.Random) -> None:
    way = rng.randrange(8)
    for entry in _some(document["annotations"], rng):
        x, y, w, h = 5, 4, 15.5, 5
        entry["bbox"] = (
            [x / 24, y / 16, w / 24, h / 16],
            [x, y, x + w, y + h],
            [x, y, w, h, 30.0],
            [str(x), str(y), str(w), str(h)],
            {"x": x, "y": y, "width": w, "height": h},
            [[x, y], [x + w, y + h]],
            [x, y, -w, -h],
            [24, 16, 5, 5],
        )[way]


def _names(document: Document, rng: random.Random) -> None:
    for category in _some(document["categories"], rng):
        category["name"] = rng.choice((None, "", " ", 7, 1.5, True, [], {"en": "cat"}, "dog", *TEXTS))


def _file_names(document: Document, rng: random.Random) -> None:
    for image in _some(document["images"], rng):
        name = str(image.get("file_name"))
        image["file_name"] = rng.choice(
            (
                "C:\\data\\images\\" + name,
                "images/" + name,
                "/tmp/../" + name,
                name.replace(".", "%2E"),
                name.upper(),
                name.replace("/", "\\"),
                "https://example.com/" + name,
                name + "?raw=1",
                f"{name}.rf.0123abcd.jpg",
                "a" * 300 + name,
                "..",
                ".",
                "in",
                *TEXTS,
            )
        )


def _lvis(document: Document, rng: random.Random) -> None:
    for image in document["images"]:
        image["coco_url"] = f"http://images.cocodataset.org/train2017/{image.pop('file_name', None)}"
        image["neg_category_ids"], image["not_exhaustive_category_ids"] = [3], []
    for category in document["categories"]:
        category.update(synset=f"{category.get('name')}.n.01", frequency="f", image_count=3, synonyms=["x"])
    for entry in document["annotations"]:
        entry.pop("iscrowd", None)


def _objects365(document: Document, rng: random.Random) -> None:
    for entry in document["annotations"]:
        entry.update(isfake=0, isreflected=0, iscrowd=rng.choice((0, 1, "0", False, 2)))


def _cvat(document: Document, rng: random.Random) -> None:
    for entry in document["annotations"]:
        rotation = rng.choice((0.0, 45.0, 359.9, "45", None, float("nan")))
        entry["attributes"] = {"occluded": False, "rotation": rotation, "track_id": 3}
        entry["segmentation"] = rng.choice(([], entry.get("segmentation")))


def _roboflow(document: Document, rng: random.Random) -> None:
    document["categories"].insert(0, {"id": 0, "name": "animals", "supercategory": "none"})
    for image in document["images"]:
        image["extra"] = {"name": str(image.get("file_name"))}


def _label_studio(document: Document, rng: random.Random) -> None:
    for image in document["images"]:
        image["file_name"] = f"..\\..\\data/upload/1/{image.get('file_name')}"
    for number, category in enumerate(document["categories"]):
        category["id"] = number


def _leave_out_a_part(document: Document, rng: random.Random) -> None:
    part = rng.choice(list(document))
    document[part] = rng.choice(([], {}, None, {"0": document[part]}, json.dumps(document[part])))
    if rng.random() < 0.5:
        del document[part]


def _crowds_only(document: Document, rng: random.Random) -> None:
    for entry in document["annotations"]:
        entry["iscrowd"] = 1


def _panoptic_segments(document: Document, rng: random.Random) -> None:
    for entry in document["annotations"]:
        parts = {"id": 1, "category_id": entry.pop("category_id", 1), "bbox": entry.pop("bbox", None), "iscrowd": 0}
        entry.update(segments_info=[parts], file_name="0.png")


_DIALECTS: tuple[Callable[[Document, random.Random], None], ...] = (
    *(_ids_as_strings, _annotation_ids, _sizes, _segmentations, _boxes, _names, _file_names),
    *(_lvis, _objects365, _cvat, _roboflow, _label_studio, _crowds_only, _panoptic_segments),
)


# ---- Other formats ---------------------------------------------------------------------------------------------------


def _results_list(document: Document, rng: random.Random) -> bytes:
    return json.dumps([entry | {"score": 0.5} for entry in document["annotations"]]).encode()


def _via(document: Document, rng: random.Random) -> bytes:
    region = {"shape_attributes": {"name": "rect", "x": 5, "y": 4, "width": 15, "height": 5}, "region_attributes": {}}
    return json.dumps({"0.png123": {"filename": "0.png", "size": 123, "regions": [region]}}).encode()


def _labelme(document: Document, rng: random.Random) -> bytes:
    shape = {"label": "cat", "points": [[5, 4], [20, 9]], "shape_type": "rectangle"}
    return json.dumps({"version": "5.0", "shapes": [shape], "imagePath": "0.png", "imageData": None}).encode()


def _tasks(document: Document, rng: random.Random) -> bytes:
    value = {"x": 20.0, "y": 25.0, "width": 60.0, "height": 30.0, "rectanglelabels": ["cat"]}
    return json.dumps([{"id": 1, "data": {"image": "0.png"}, "annotations": [{"result": [{"value": value}]}]}]).encode()


def _lines(document: Document, rng: random.Random) -> bytes:
    return b"\n".join(json.dumps(entry).encode() for entry in document["annotations"])


def _archive(document: Document, rng: random.Random) -> bytes:
    content = json.dumps(document).encode()
    if rng.random() < 0.3:
        return gzip.compress(content, mtime=0)
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(zipfile.ZipInfo("annotations/instances_train2017.json"), content)
    return file.getvalue()


def _page(document: Document, rng: random.Random) -> bytes:
    return rng.choice(
        (
            b"<!DOCTYPE html><html><body>404 Not Found</body></html>",
            b"<annotation><object><name>cat</name></object></annotation>",
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 448\n",
            b"1 0.5 0.5 0.2 0.2\n0 0.1 0.1 0.1 0.1\n",
            b"train: images/train\nval: images/val\nnames: [cat, dog]\n",
            b"// COCO\n" + json.dumps(document).encode(),
            json.dumps(document).encode()[:-1] + b",}",
            str(document).encode("utf-8", "replace"),
            b"\0" * 5000,
        )
    )


_OTHER_FORMATS = (_results_list, _via, _labelme, _tasks, _lines, _archive, _page)


# ---- Large by repetition ---------------------------------------------------------------------------------------------


def _repeat(document: Document, rng: random.Random) -> bytes:
    """A file of up to a few megabytes of which a careless reader would make far more."""
    way = rng.randrange(9)
    if way == 0:
        document["categories"] += [{"id": 10 + number, "name": f"class {number}"} for number in range(20_000)]
    elif way == 1:
        for category in document["categories"]:
            category["name"] = rng.choice(("x", "\n", "\x1b[31m", "猫")) * 500_000
    elif way == 2:
        return b'{"images": [' + b"[" * 200_000
    elif way == 3:
        keys = b", ".join(b'"%d": 0' % rng.randrange(10**9) for _ in range(100_000))
        return b'{"a": 1, %s, "a": 2, "images": []}' % keys
    elif way == 4:
        return b'{"images": [{"id": %s}]}' % (b"9" * rng.choice((400, 5000, 500_000)))
    elif way == 5:
        document["images"][0]["file_name"] = "in/" * 100_000 + "2.png"
    elif way == 6:
        entry = document["annotations"][0]
        document["annotations"] = [entry | {"id": number} for number in range(3000)]
    elif way == 7:
        document["categories"][0]["id"] = document["annotations"][0]["category_id"] = rng.choice((99_999, 10**5, 2**53))
    else:
        document["annotations"][0]["segmentation"] = [[5.0, 4.0, 20.0, 4.0, 20.0, 9.0]] * 20_000
    return json.dumps(document).encode()
