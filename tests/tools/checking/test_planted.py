"""Every kind of finding: a planted fault is found, it alone, and at its place."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from tests.helpers.paths import REPOSITORY
from tests.tools.checking.planted import FACTS, SIZE, Planted, annotation, noise_picture
from tools.checking.findings import Level

STOPS, HURTS, NOTE = Level.STOPS, Level.HURTS, Level.NOTE
CHECKPOINT = replace(FACTS, source="run.pth", num_classes=6, categories=[{"id": 1, "name": "cat"}])


def boxes(*changed):
    """Plant boxes into the first annotations of train."""

    def plant(data: Planted) -> None:
        for entry, box in zip(data.train["annotations"], changed, strict=False):
            entry.update(bbox=list(box))

    return plant


def first(key, **fields):
    """Change the first entry of a list of train."""
    return lambda data: data.train[key][0].update(fields)


def every(key, change):
    """Change every entry of a list of train."""
    return lambda data: [entry.update(change(entry)) for entry in data.train[key]]


def more(key, make):
    """Append to a list of train."""
    return lambda data: data.train[key].append(make(data.train))


def on(content, box, category, **fields):
    """Another annotation for the first picture."""
    return annotation(99, content["images"][0]["id"], category, box) | fields


def saved(change):
    """Save the first picture anew, after `change`."""
    return lambda data: change(Image.open(data.picture())).save(data.picture())


def turned(data: Planted, upright_size: bool = False) -> None:
    """The first picture of train becomes a JPEG file with an EXIF orientation."""
    exif = Image.Exif()
    exif[0x0112] = 6
    noise_picture(1).save(renamed(data, ".jpg"), exif=exif)
    if upright_size:
        data.train["images"][0].update(width=SIZE[1], height=SIZE[0])
        boxes([4, 6, 14, 20], [24, 6, 14, 20])(data)


def renamed(data: Planted, suffix: str):
    """Remove the first picture of train, and give its entry another suffix; returns the new path."""
    data.picture().unlink()
    entry = data.train["images"][0]
    entry["file_name"] = entry["file_name"].replace(".png", suffix)
    return data.picture()


def brighter(data: Planted) -> Image.Image:
    """Nearly the first picture of train."""
    return Image.open(data.picture()).point(lambda value: min(255, value + 9))


def again(data: Planted, with_all: bool = True) -> None:
    """The third picture of train becomes the first, with all of its annotations or one."""
    shutil.copy(data.picture(), data.picture(2))
    owner, other = (data.train["images"][row]["id"] for row in (0, 2))
    kept = [entry for entry in data.train["annotations"] if entry["image_id"] != other]
    same = [dict(entry, image_id=other, id=90 + entry["id"]) for entry in kept if entry["image_id"] == owner]
    data.train["annotations"] = kept + same[: 2 if with_all else 1]


def animated(data: Planted) -> None:
    frames = [noise_picture(seed).convert("P") for seed in (1, 2)]
    frames[0].save(renamed(data, ".gif"), save_all=True, append_images=frames[1:])


def sixteen_bits(data: Planted) -> None:
    grey = np.random.RandomState(1).randint(0, 3000, (SIZE[1], SIZE[0])).astype(np.uint16)
    Image.fromarray(grey).save(data.picture())


def without(part, category):
    """Remove the objects of a class from a part, and add one of the other class instead."""

    def plant(data: Planted) -> None:
        for entry in data.contents[part]["annotations"]:
            if entry["category_id"] == category:
                entry["category_id"] = 6 - category

    return plant


def rare(data: Planted) -> None:
    """One object of class 1 among 120 of class 5."""
    ids = [image["id"] for image in data.train["images"]]
    grid = [[4 * (k % 15), 24, 3.5, 7] for k in range(15)]
    crowd = [annotation(1000 + 20 * i + k, ids[i], 5, box) for i in range(8) for k, box in enumerate(grid)]
    data.train["annotations"] = [*crowd, annotation(1, ids[0], 1, [4, 4, 14, 10])]


def both(change):
    """The same in both parts."""
    return lambda data: [change(content) for content in data.contents.values()]


def names(*of_val):
    """Other categories in val."""
    return lambda data: data.val.update(categories=[{"id": n, "name": name} for n, name in zip((1, 5), of_val)])


PLANTED = [
    # (kind, level, what plants it, what the first place says)
    ("entry-image", STOPS, more("images", lambda c: {"id": "x", "file_name": "a.png"}), "'x'"),
    ("entry-image", STOPS, more("images", lambda c: "text"), "text"),
    ("entry-image", STOPS, more("images", lambda c: dict(c["images"][0])), "twice"),
    ("entry-image", STOPS, more("images", lambda c: {"id": 77, "file_name": ""}), "77"),
    ("entry-image", STOPS, more("images", lambda c: {"id": 77, "file_name": "a\0.png"}), "77"),
    ("entry-image", STOPS, more("images", lambda c: {"id": 77, "file_name": "a.png", "width": -4}), "width"),
    ("entry-category", STOPS, more("categories", lambda c: {"id": -3, "name": "dog"}), "-3"),
    ("entry-category", STOPS, more("categories", lambda c: {"id": 1, "name": "dog"}), "twice"),
    ("entry-annotation", STOPS, more("annotations", lambda c: on(c, [1, 2, 3, 4], 5, bbox=[1, 2, 3])), "four"),
    ("entry-annotation", STOPS, more("annotations", lambda c: on(c, [1, 2, 3, 4], 5, bbox=None)), "bbox"),
    ("entry-annotation", STOPS, more("annotations", lambda c: on(c, [1, 2, float("nan"), 4], 5)), "NaN"),
    ("entry-annotation", STOPS, more("annotations", lambda c: on(c, [1, 2, 3, 4], 6)), "category_id 6"),
    ("entry-annotation", STOPS, more("annotations", lambda c: on(c, [1, 2, 3, 4], 5, iscrowd=3)), "iscrowd 3"),
    ("entry-annotation", STOPS, more("annotations", lambda c: 17), "17"),
    ("annotation-orphan", HURTS, more("annotations", lambda c: annotation(99, 4711, 5, [1, 2, 3, 4])), "4711"),
    ("translated", NOTE, every("images", lambda entry: {"width": str(entry["width"])}), "text"),
    ("class-nameless", NOTE, lambda data: data.train["categories"][0].pop("name"), "instances_train2017.json"),
    ("box-empty", HURTS, boxes([5, 5, 0, 9]), "cat"),
    ("box-empty", HURTS, boxes([90, 5, 9, 9]), "64x48"),
    ("box-empty", HURTS, boxes([30, 5, -9, 9]), "-9"),
    ("box-outside", HURTS, boxes([50, 5, 30, 9]), "16 pixels beyond"),
    ("box-outside", HURTS, boxes([-12, 5, 30, 9]), "12 pixels beyond"),
    ("box-over-edge", NOTE, boxes([50, 5, 14.8, 9]), "0.8 pixels beyond"),
    ("box-tiny", HURTS, boxes([50, 5, 0.7, 0.7]), "7 pixels"),
    ("box-repeated", HURTS, more("annotations", lambda c: on(c, c["annotations"][0]["bbox"], 1)), "IoU 1.00"),
    ("box-twins", HURTS, more("annotations", lambda c: on(c, c["annotations"][0]["bbox"], 5)), "on cat"),
    ("box-corners", STOPS, every("annotations", lambda e: {"bbox": [30, 9 + e["id"], 62, 44]}), "train_a.png"),
    ("box-fractions", HURTS, every("annotations", lambda e: {"bbox": [0.2, 0.3, 0.1, e["id"] / 100]}), "train_a.png"),
    ("box-rotated", HURTS, first("annotations", attributes={"rotation": 30.5}), "train_a.png"),
    ("crowds", NOTE, first("annotations", iscrowd=1), "cat"),
    ("class-crowds-only", HURTS, every("annotations", lambda e: {"iscrowd": int(e["category_id"] == 1)}), "8 crowd"),
    ("translated", NOTE, every("annotations", lambda e: {"bbox": [f"{side:.1f}" for side in e["bbox"]]}), "bbox"),
    ("mask-bad", NOTE, first("annotations", segmentation=[[1, 2, 3]]), "3 numbers"),
    ("mask-bad", NOTE, first("annotations", segmentation={"size": [4, 4], "counts": [16]}), "(4, 4)"),
    ("mask-empty", NOTE, first("annotations", segmentation=[]), "cat"),
    ("class-unused", NOTE, both(lambda c: c["categories"].append({"id": 8, "name": "bus"})), "bus"),
    ("class-ids-differ", STOPS, names("traffic light", "bus"), "traffic light"),
    ("class-ids-differ", HURTS, names("cat", "bus"), "bus"),
    ("class-missing", HURTS, without("val", 5), "traffic light"),
    ("class-missing", HURTS, without("train", 1), "cat"),
    ("class-rare", HURTS, rare, "'cat': 1 object"),
    ("picture-missing", STOPS, lambda data: data.picture().unlink(), "train2017/train_a.png"),
    ("picture-unreadable", STOPS, lambda data: data.picture().write_text("no picture"), "train2017/train_a.png"),
    ("picture-unreadable", STOPS, lambda d: d.picture().write_bytes(d.picture().read_bytes()[:600]), "cannot be read"),
    ("picture-unreadable", STOPS, saved(lambda image: Image.new("RGB", (2000, 600))), "1,200,000 pixels"),
    ("picture-listed-twice", HURTS, first("images", file_name="./train_b.png"), "ids 1, 2"),
    ("picture-size", HURTS, saved(lambda image: image.resize((80, 48))), "80x48 pixels, annotated as 64x48"),
    ("picture-turned", HURTS, turned, "orientation 6"),
    ("picture-turned-upright", NOTE, lambda data: turned(data, upright_size=True), "orientation 6"),
    ("picture-16-bit", NOTE, sixteen_bits, "train_a.png"),
    ("picture-frames", NOTE, animated, "frames"),
    ("picture-blank", HURTS, saved(lambda image: Image.new("RGB", SIZE, "grey")), "train_a.png"),
    ("picture-without-annotations", NOTE, lambda d: d.train.update(annotations=d.train["annotations"][2:]), "_a.png"),
    ("picture-without-annotations", HURTS, lambda d: d.train.update(annotations=d.train["annotations"][8:]), "_a.png"),
    ("picture-not-listed", NOTE, lambda data: noise_picture(999).save(data.folder / "train2017/new.png"), "new.png"),
    ("duplicate-across-parts", HURTS, lambda d: shutil.copy(d.picture(), d.picture(2, "val")), "train_a.png"),
    ("near-duplicate-across-parts", HURTS, lambda d: brighter(d).save(d.picture(2, "val")), "train_a.png"),
    ("duplicate", NOTE, again, "train_a.png"),
    ("duplicate", HURTS, lambda data: again(data, with_all=False), "other annotations"),
    ("near-duplicate", NOTE, lambda data: brighter(data).save(data.picture(2)), "train_a.png"),
    ("part-unusable", STOPS, lambda data: shutil.rmtree(data.folder / "val2017"), "no folder below"),
    ("part-empty", STOPS, lambda data: data.val.update(annotations=[]), "instances_val2017.json"),
    ("no-val-part", HURTS, lambda data: data.remove("val"), ""),
    ("no-train-part", NOTE, lambda data: data.remove("train"), ""),
]
BROUGHT = {  # kind → what the planted fault brings about besides
    "class-crowds-only": {"crowds", "class-missing"},
    "picture-listed-twice": {"picture-not-listed"},  # the file that the entry named before
    "box-corners": {"box-outside", "box-repeated", "box-twins"},
    "box-fractions": {"box-tiny", "box-repeated", "box-twins"},
}


@pytest.fixture
def data(tmp_path):
    return Planted(tmp_path / "data")


def test_a_clean_set_yields_nothing(data):
    assert data.check().findings == []


@pytest.mark.parametrize(("kind", "level", "plant", "words"), PLANTED, ids=[planted[0] for planted in PLANTED])
def test_a_planted_fault_is_found_alone(data, kind, level, plant, words):
    plant(data)
    (found,) = [one for one in data.check().findings if one.kind not in BROUGHT.get(kind, ())]
    assert (found.kind, found.level) == (kind, level)
    assert words in f"{found.places[0].file} {found.places[0].detail}"
    assert found.title and found.advice.endswith(".") and found.count >= 1


@pytest.mark.parametrize(
    ("num_classes", "named", "level", "words"),
    [
        (5, ("cat", "traffic light"), STOPS, "beyond"),
        (6, ("cat", None), HURTS, "does not name"),
        (6, ("cat", "bus"), HURTS, "bus"),
        (6, ("Traffic-Light", "cat"), STOPS, "cat"),
    ],
)
def test_classes_other_than_the_checkpoints(data, num_classes, named, level, words):
    categories = [{"id": number, "name": name} for number, name in zip((1, 5), named) if name]
    facts = replace(CHECKPOINT, num_classes=num_classes, categories=categories)
    found = data.check(facts).findings
    assert {one.kind for one in found} == {"checkpoint-classes"} and found[0].level == level
    assert words in found[0].title + found[0].places[0].detail and "--init_from run.pth" in found[0].advice


def test_the_checkpoints_own_classes_are_no_finding(data):
    categories = [{"id": 1, "name": "Cat"}, {"id": 5, "name": "traffic_light"}]
    assert data.check(replace(CHECKPOINT, categories=categories)).findings == []


def test_classes_of_the_checkpoint_that_the_data_lack_are_a_note(data):
    categories = [{"id": 1, "name": "cat"}, {"id": 5, "name": "traffic light"}, {"id": 3, "name": "dog"}]
    (found,) = data.check(replace(CHECKPOINT, categories=categories)).findings
    assert (found.kind, found.level) == ("checkpoint-classes-unused", NOTE) and "dog" in found.title


@pytest.mark.parametrize("other", ["Cat", "CAT ", "cat"])
def test_names_that_differ_only_by_case_or_spaces(data, other):
    for content in data.contents.values():
        content["categories"].append({"id": 7, "name": other})
        content["annotations"][0]["category_id"] = 7
    found = data.check().findings
    assert {one.kind for one in found} == {"class-names-alike"} and found[0].level == HURTS


def test_more_objects_than_queries(data):
    found = data.check(replace(FACTS, num_queries=1)).findings
    assert [one.kind for one in found] == ["more-objects-than-queries"] * 2 and found[0].level == HURTS
    assert {"8 of 8", "4 of 4"} == {one.title[:6] for one in found} and "--num_queries 2" in found[0].advice


def test_more_objects_of_a_class_than_ap_counts(data):
    image = data.val["images"][0]["id"]
    data.val["annotations"] += [annotation(50 + k, image, 1, [20 + 4 * k, 36, 3, 8]) for k in range(3)]
    (found,) = data.check(replace(FACTS, max_dets=3)).findings
    assert found.kind == "more-objects-than-counted" and "--max_dets 4" in found.advice


@pytest.mark.parametrize(("count", "kinds"), [(12, ["class-rare"]), (20, [])])
def test_a_class_is_rare_below_a_hundredth_of_the_most_frequent(data, count, kinds):
    grid = [[4 * (k % 16), 4 * (k // 16), 3, 3] for k in range(176)]
    ids = [image["id"] for image in data.train["images"]]
    found = [annotation(200 * i + k, image, 5, box) for i, image in enumerate(ids) for k, box in enumerate(grid)]
    for entry in found[:count]:
        entry["category_id"] = 1
    data.train["annotations"] = found  # 1,408 objects
    assert [one.kind for one in data.check(replace(FACTS, num_queries=999)).findings] == kinds


def test_a_few_tiny_boxes_among_many_are_a_note(data):
    rare(data)
    for entry in data.train["annotations"][::10]:
        entry["category_id"] = 1
    data.train["annotations"][0]["bbox"] = [60, 2, 0.5, 0.5]
    (found,) = data.check().findings
    assert (found.kind, found.level, found.count) == ("box-tiny", NOTE, 1)


def test_masks_matter_where_the_checkpoint_segments(data):
    data.train["annotations"][0]["segmentation"] = [[1, 2, 3]]
    (found,) = data.check(replace(FACTS, with_masks=True)).findings
    assert (found.kind, found.level) == ("mask-bad", STOPS)


def test_boxes_of_two_classes_that_nearly_agree_are_a_note(data):
    x, y, w, h = data.train["annotations"][0]["bbox"]
    data.train["annotations"].append(on(data.train, [x, y, w, h * 1.08], 5))
    (found,) = data.check().findings
    assert (found.kind, found.level) == ("box-twins", NOTE)


def test_a_cause_is_named_before_what_follows_from_it(data):
    for entry in data.train["annotations"]:
        entry["bbox"] = "none"
    kinds = [found.kind for found in data.check().findings if found.level == STOPS]
    assert kinds == ["entry-annotation", "part-empty"]


def test_a_class_of_crowd_regions_alone_is_not_called_unused(data):
    for content in data.contents.values():
        for entry in content["annotations"]:
            entry["iscrowd"] = int(entry["category_id"] == 1)
    kinds = {found.kind for found in data.check().findings}
    assert kinds == {"class-crowds-only", "crowds"}


def test_every_kind_of_finding_is_planted_somewhere():
    sources = [path.read_text() for path in (REPOSITORY / "tools/checking").glob("*.py")]
    kinds = {kind for source in sources for kind in re.findall(r"finding\(\s*\"([a-z0-9-]+)\"", source)}
    tests = "".join(path.read_text() for path in (REPOSITORY / "tests/tools/checking").glob("test_*.py"))
    assert len(kinds) > 25
    assert [kind for kind in sorted(kinds) if f'"{kind}"' not in tests] == []
