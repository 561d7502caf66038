"""`data.yaml` and `obj.data`: names, and what is refused."""

import pytest

from datasets.formats.yolo.config import read_config
from datasets.formats.yolo.names import read_names

PARTS = "train: images/train\nval: images/val\n"


def config(folder, text):
    (folder / "data.yaml").write_text(text)
    return read_config(folder / "data.yaml")


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (
            "names: [no, 007, 1e3, 12:30, null, '#5', 2024-01-01]",
            ["no", "007", "1e3", "12:30", "null", "#5", "2024-01-01"],
        ),
        ("names:\n- ein Apfel\n- 'a: b'\n- \"\\u732b\"\n", ["ein Apfel", "a: b", "猫"]),
        ("names: {1: b, 0: a}", ["a", "b"]),
        ("nc: 2", ["class0", "class1"]),
    ],
)
def test_names_are_as_they_are_written(tmp_path, names, expected):
    categories = config(tmp_path, f"{PARTS}{names}\n").names.categories()
    assert categories == [{"id": number, "name": name} for number, name in enumerate(expected)]


def test_numbers_may_have_gaps_and_ids_may_be_stated(tmp_path):
    assert [c["id"] for c in config(tmp_path, f"{PARTS}names: {{3: a, 7: b}}").names.categories()] == [3, 7]
    found = config(tmp_path, f"{PARTS}names: [a, b]\ncoco_category_ids: [90, 5]").names
    assert found.categories() == [{"id": 90, "name": "a"}, {"id": 5, "name": "b"}]
    assert found.id_of(1) == 5


def test_keys_of_parts_and_paths(tmp_path):
    found = config(tmp_path, "path: ''\ntrain: [a, b]\nvalid: ../c d/#1\ntest: null\nnames: [a]\n")
    assert found.parts == {"train": ["a", "b"], "val": ["../c d/#1"]}
    assert found.path is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            f"{PARTS}names: !!python/object/apply:os.system ['true']",
            "line 3 would build an object .tag:yaml.org,2002:py",
        ),
        (f"{PARTS}names: [a, b", "line 3 is not YAML that can be read|line 4 is not YAML that can be read"),
        (f"{PARTS}names: [a]\ntrain: b", "line 4 is not YAML that can be read: has the key 'train' twice"),
        (f"{PARTS}names: {{0: a, x: b}}", "line 3 names a class 'x': classes are numbers in 0..99999"),
        (f"{PARTS}names: {{0: a, 00: b}}", "line 3 has names .* a number and a text of its own"),
        (f"{PARTS}names: [[a]]", r"line 3 has the name \['a'\]: each class needs a text"),
        (f"{PARTS}names: []", "line 3 has an empty list of names"),
        (f"{PARTS}nc: 3\nnames: [a, b]", "line 3 states 3 classes .nc., but 2 names: correct one"),
        (f"{PARTS}nc: many", "line 3 has nc 'many': it must be a number from 1"),
        ("train: {a: b}\nnames: [a]", "line 1 has train .*: it must be a path or a list of paths"),
        ("val: a\nvalid: b\nnames: [a]", "line 2 states both val and valid: remove one"),
        (
            f"{PARTS}names: [a, b]\ncoco_category_ids: [1]",
            "line 4 has coco_category_ids .*: it must list an id of its own",
        ),
        ("- a\n- b", "holds .* but it must hold keys such as train, val and names"),
        (
            "names: " + "[" * 9999,
            "line 1 is not YAML that can be read: more than 20 lists or mappings within each other",
        ),
        ("train:\n" + "- " * 9999, "line 2 is not YAML that can be read: more than 20 lists or mappings"),
        (f"{PARTS}names: &a [*a]", "line 3 has the name"),
        (f"{PARTS}? [a]\n: b", "line 3 is not YAML that can be read"),
        ("a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\nnames: *c\ntrain: x", "line 4 has the name"),
    ],
)
def test_a_file_that_cannot_be_used_is_named_with_the_line(tmp_path, text, expected):
    with pytest.raises(ValueError, match=f"data file .*data.yaml (?:{expected})") as error:
        config(tmp_path, text)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 600


def test_a_huge_file_is_not_parsed(tmp_path):
    with pytest.raises(ValueError, match="data.yaml has 2,000,000 bytes, more than the 1,048,576 allowed"):
        config(tmp_path, "x" * 2_000_000)


def test_names_in_a_file_keep_their_numbers(tmp_path):
    (tmp_path / "classes.txt").write_text("\ufeffcat \n\n猫 #2\n\n", encoding="utf-8")
    assert read_names(tmp_path / "classes.txt").of_class == {0: "cat", 1: "", 2: "猫 #2"}
    (tmp_path / "classes.txt").write_text("\n")
    with pytest.raises(ValueError, match="classes.txt states no name of a class"):
        read_names(tmp_path / "classes.txt")
