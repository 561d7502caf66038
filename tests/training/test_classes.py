"""The classes of a run: which file decides, and ids that mean other classes in another file."""

from argparse import Namespace

import pytest
import torch

from datasets.coco_panoptic import CocoPanoptic
from tests.helpers.panoptic_files import map_of, segment, write_panoptic
from training.classes import compare_classes, settle_classes
from util.errors import CheckpointError


@pytest.fixture
def data(tmp_path):
    images, maps, ann_file = write_panoptic(tmp_path, {1: (map_of((4, slice(0, 5), slice(0, 5))), [segment(4)])})
    return CocoPanoptic(images, maps, ann_file)


def head_of(rows, prefix=""):
    return {"model": {f"{prefix}class_embed.weight": torch.zeros(rows, 4)}}


def settled(data, checkpoint=None, num_classes=None):
    changes, categories = settle_classes(num_classes, checkpoint or {}, "box.pth" if checkpoint else None, [data])
    return Namespace(**changes), categories


def test_the_data_decide_and_their_kinds_travel_along(data):
    args, categories = settled(data)
    assert args.num_classes == 8
    assert categories == [{"id": 2, "name": "sky", "isthing": 0}, {"id": 7, "name": "dog", "isthing": 1}]


@pytest.mark.parametrize("prefix", ["", "detr."])
def test_a_checkpoint_decides_with_masks_and_without(data, prefix):
    args, categories = settled(data, head_of(13, prefix))
    assert args.num_classes == 12 and categories == data.categories


def test_new_classes_of_a_checkpoint_lead_to_init_from(data):
    with pytest.raises(ValueError, match="annotation 4 of image 1 has category 7, .* with --init_from box.pth"):
        settled(data, head_of(8))
    with pytest.raises(ValueError, match="--num_classes 20 contradicts box.pth, .* 12 classes: .*--init_from box.pth"):
        settled(data, head_of(13), num_classes=20)
    assert settled(data, head_of(13), num_classes=12)[0].num_classes == 12


def test_without_a_checkpoint_the_command_line_goes_first(data):
    assert settled(data, num_classes=20)[0].num_classes == 20


def test_a_checkpoint_without_a_class_head_is_refused(data):
    with pytest.raises(CheckpointError, match="box.pth is not a DETR"):
        settled(data, {"model": {"weight": torch.zeros(2)}})


def test_things_are_those_of_the_categories_and_without_kinds_nothing_is_said(data):
    assert settled(data)[0].thing_ids == [7]
    other = [{"id": 2, "name": "sky", "isthing": 1}, {"id": 7, "name": "dog", "isthing": 0}]
    assert settled(data, head_of(13) | {"categories": other})[0].thing_ids == [2], "the checkpoint's go first"
    plain = [{"id": 2, "name": "sky"}]
    assert not hasattr(settled(data, head_of(13) | {"categories": plain})[0], "thing_ids")


def named(**names):
    return [{"id": int(number[1:]), "name": name} for number, name in names.items()]


CATS = named(_1="cat", _2="dog", _5="bird")


@pytest.mark.parametrize(
    "other",
    [
        named(_1="dog", _2="cat"),  # exchanged
        named(_1="dog", _2="bird"),  # counted from another number
        named(_2="cat"),  # the name is another id's in the first file
        named(_1="mouse", _3="cat"),  # the name has moved in the second
    ],
    ids=str,
)
def test_ids_that_mean_other_classes_are_refused(other):
    with pytest.raises(ValueError, match=r"class \d is '\w+' in train.json and '\w+' in val.json.*--init_from"):
        compare_classes([("train.json", CATS), ("val.json", other)])


def test_the_same_names_under_ids_of_their_own_are_refused():
    with pytest.raises(
        ValueError, match=r"'cat' is class 1 in train.json and 11 in val.json \(2 classes differ\): the"
    ):
        compare_classes([("train.json", named(_1="cat", _2="dog")), ("val.json", named(_11="Cat", _12="dog"))])


def test_a_name_that_two_ids_have_may_keep_one_of_them():
    compare_classes([("train.json", named(_1="cat", _5="cat")), ("val.json", named(_5="cat"))])


@pytest.mark.parametrize(
    "other",
    [
        CATS,
        named(_2="dog"),  # a part of them
        named(_1=" Cat", _2="DOG", _5="b_i-r d"),  # written otherwise
        named(_1="1", _2="", _5="bird"),  # without names
        named(_7="fish"),
        [],
    ],
    ids=str,
)
def test_the_same_classes_pass_without_a_word(other, capsys):
    compare_classes([("train.json", CATS), ("val.json", other)])
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "pair", [("C++", "C#"), ("A+", "A-"), ("+1", "-1"), ("\u0915\u093f", "\u0915\u093e")], ids=ascii
)
def test_names_that_differ_in_a_sign_are_different_classes(pair):
    files = [("train.json", named(_3=pair[0], _4=pair[1])), ("val.json", named(_3=pair[1], _4=pair[0]))]
    with pytest.raises(ValueError, match="the ids mean other classes"):
        compare_classes(files)


def test_the_form_of_a_letter_does_not_matter(capsys):
    compare_classes([("train.json", named(_1="caf\u00e9")), ("val.json", named(_1="CAFE\u0301"))])
    assert capsys.readouterr().out == ""


def test_training_and_validation_are_compared_where_the_checkpoint_has_no_names():
    files = [("old.pth", []), ("train.json", CATS), ("val.json", named(_1="dog", _2="cat"))]
    with pytest.raises(ValueError, match="class 1 is 'cat' in train.json and 'dog' in val.json"):
        compare_classes(files)


def test_the_same_difference_in_two_files_is_said_once(capsys):
    compare_classes([("old.pth", CATS), ("train.json", named(_1="kitty")), ("val.json", named(_1="kitty"))])
    assert capsys.readouterr().out.count("taken to be the same class") == 1


def test_a_new_name_for_a_class_is_said(capsys):
    compare_classes([("old.pth", CATS), ("val.json", named(_1="kitty", _2="dog"))])
    said = capsys.readouterr().out
    assert "class 1 is 'cat' in old.pth and 'kitty' in val.json: they are taken to be the same class" in said


def test_a_checkpoint_of_91_classes_without_names_has_cocos(data, tmp_path):
    with pytest.raises(ValueError, match="class 7 is 'train' in box.pth and 'dog' in"):
        settled(data, head_of(92))
