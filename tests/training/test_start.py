"""The start of a run: its checkpoint, the settings that follow it, its classes."""

from argparse import Namespace

import pytest
import torch

from datasets.coco_panoptic import CocoPanoptic
from tests.helpers.panoptic_files import map_of, segment, write_panoptic
from training.run_folder import RunFolder
from training.start import find_checkpoint, follow_checkpoint, settle_classes
from util.errors import CheckpointError


@pytest.fixture
def data(tmp_path):
    images, maps, ann_file = write_panoptic(tmp_path, {1: (map_of((4, slice(0, 5), slice(0, 5))), [segment(4)])})
    return CocoPanoptic(images, maps, ann_file)


def settled(data, checkpoint=None, num_classes=None):
    args = Namespace(num_classes=num_classes, resume="box.pth")
    changes, categories = settle_classes(args, checkpoint or {}, [data])
    assert vars(args) == {"num_classes": num_classes, "resume": "box.pth"}
    return Namespace(**changes), categories


def test_the_data_decide_and_their_kinds_travel_along(data):
    args, categories = settled(data)
    assert args.num_classes == 8
    assert categories == [{"id": 2, "name": "sky", "isthing": 0}, {"id": 7, "name": "dog", "isthing": 1}]


@pytest.mark.parametrize("prefix", ["", "detr."])
def test_a_checkpoint_decides_with_masks_and_without(data, prefix):
    args, categories = settled(data, {"model": {f"{prefix}class_embed.weight": torch.zeros(13, 4)}})
    assert args.num_classes == 12 and categories == data.categories
    with pytest.raises(ValueError, match="annotation 4 of image 1 has category 7"):
        settled(data, {"model": {f"{prefix}class_embed.weight": torch.zeros(8, 4)}})


def test_the_command_line_goes_first(data):
    assert settled(data, {"model": {"class_embed.weight": torch.zeros(13, 4)}}, num_classes=20)[0].num_classes == 20


def test_a_checkpoint_without_a_class_head_is_refused(data):
    with pytest.raises(CheckpointError, match="box.pth is not a DETR"):
        settled(data, {"model": {"weight": torch.zeros(2)}})


def test_things_are_those_of_the_categories_and_without_kinds_nothing_is_said(data):
    assert settled(data)[0].thing_ids == [7]
    other = [{"id": 2, "name": "sky", "isthing": 1}, {"id": 7, "name": "dog", "isthing": 0}]
    model = {"class_embed.weight": torch.zeros(13, 4)}
    assert settled(data, {"model": model, "categories": other})[0].thing_ids == [2], "the checkpoint's go first"
    plain = [{"id": 2, "name": "sky"}]
    assert not hasattr(settled(data, {"model": model, "categories": plain})[0], "thing_ids")


def test_auto_is_settled_in_the_arguments(tmp_path):
    folder = RunFolder(tmp_path)
    args = Namespace(resume="auto", init_from="weights.pth")
    assert find_checkpoint(args, folder) == {} and (args.resume, args.init_from) == ("", "weights.pth")
    folder.save({"model": {"weight": torch.zeros(1)}, "epoch": 0})
    args.resume = "auto"
    assert find_checkpoint(args, folder)["epoch"] == 0
    assert (args.resume, args.init_from) == (str(tmp_path / "checkpoint.pth"), "")


def test_a_list_and_a_tuple_are_the_same_setting(capsys):
    saved = {"args": {"train_sizes": [480, 512]}, "optimizer": {}}
    args = Namespace(train_sizes=(480, 512), resume="old.pth")
    follow_checkpoint(args, saved)
    assert capsys.readouterr().out == ""
    args.train_sizes = (480,)
    follow_checkpoint(args, saved)
    assert "--train_sizes (480,) (was [480, 512])" in capsys.readouterr().out
