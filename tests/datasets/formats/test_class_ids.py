"""Classes of Pascal VOC, which have only names, have the ids of the checkpoint that a run goes on from."""

import pickle
from argparse import Namespace

import pytest

from datasets.formats.choose import choose_data
from tests.helpers.layouts import coco_layouts
from tests.helpers.layouts.voc_layouts import object_xml, write_picture, write_xml

KNOWN = [{"id": 3, "name": "Dog"}, {"id": 8, "name": "cat"}, {"id": 9, "name": "cow"}]


def write_voc(root, *classes):
    for number, name in enumerate(classes):
        write_picture(root / "JPEGImages" / f"{number}.jpg")
        write_xml(root / "Annotations" / f"{number}.xml", object_xml(name))
    return root


def chosen(root, known):
    return choose_data(Namespace(data=str(root), eval=True), known=known)


def ids_in(part):
    data = part.read()
    names = {category["id"]: category["name"] for category in data["categories"]}
    return [(annotation["category_id"], names[annotation["category_id"]]) for annotation in data["annotations"]]


def test_names_have_the_ids_of_the_checkpoint(tmp_path):
    root = write_voc(tmp_path, "dog", "cat", "dog")
    assert ids_in(chosen(root, ()).val) == [(2, "dog"), (1, "cat"), (2, "dog")]
    part = chosen(root, KNOWN).val
    assert ids_in(part) == [(3, "Dog"), (8, "cat"), (3, "Dog")]
    assert ids_in(pickle.loads(pickle.dumps(part))) == ids_in(part)
    assert part.read()["categories"] == KNOWN and part.counts.classes == ["Dog", "cat", "cow"]


def test_a_class_that_the_checkpoint_has_not_is_named(tmp_path):
    root = write_voc(tmp_path, "dog", "zebra")
    with pytest.raises(ValueError, match=r"class 'zebra', which is none of the checkpoint's classes \(Dog, cat, cow\)"):
        chosen(root, KNOWN).val.read()


def test_stated_ids_are_kept(tmp_path):
    root = coco_layouts.label_studio(tmp_path / "coco", (0, 1))
    assert {label for label, _ in ids_in(chosen(root, [{"id": 5, "name": "ein Apfel"}]).val)} == {0, 1}
    root = write_voc(tmp_path / "voc", "dog")
    (root / "coco_categories.json").write_text('[{"id": 40, "name": "dog"}]')
    assert ids_in(chosen(root, KNOWN).val) == [(40, "dog")]
