"""The start of a run: its checkpoint, and what is said of its settings."""

from argparse import Namespace

import torch

from training.run_folder import RunFolder
from training.start import describe_settings, find_checkpoint
from util.arguments import get_args_parser


def test_auto_is_settled_in_the_arguments(tmp_path):
    folder = RunFolder(tmp_path)
    args = Namespace(resume="auto", init_from="weights.pth")
    assert find_checkpoint(args, folder) == {} and (args.resume, args.init_from) == ("", "weights.pth")
    folder.save({"model": {"weight": torch.zeros(1)}, "epoch": 0})
    args.resume = "auto"
    assert find_checkpoint(args, folder)["epoch"] == 0
    assert (args.resume, args.init_from) == (str(tmp_path / "checkpoint.pth"), "")


def test_only_settings_other_than_the_defaults_are_said():
    args = get_args_parser().parse_args([])
    assert describe_settings(args).endswith(": none")
    args.nheads, args.dilation, args.train_sizes = 4, True, [64, 96]
    assert describe_settings(args).endswith(": --dilation --nheads 4 --train_sizes 64 96")
