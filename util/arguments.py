"""The command line: a parser built from the table of settings, and the checks that need no data.

`check_flags` and `check_args` refuse impossible settings before anything is built or written.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from util.settings import GROUPS, SCHEDULE, SETTINGS
from util.text import print_any_script

_OTHER_DATA = ("coco_path", "coco_panoptic_path", "train_ann", "train_images", "val_ann", "val_images")


def get_args_parser() -> argparse.ArgumentParser:
    """The parser of `main.py`; without `--help`, so that it can be a parent of other parsers, as published."""
    parser = argparse.ArgumentParser("DETR: train and evaluate", add_help=False)
    for title, settings in GROUPS.items():
        group = parser.add_argument_group(title)
        for setting in settings:
            setting.add_to(group)
    return parser


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The settings on the command line of `main.py`; `given` names those that it sets.

    Ends the process after `--help`, and with code 2 if a flag is unknown or its value is not of its kind.
    """
    print_any_script()
    parser = argparse.ArgumentParser(
        usage="%(prog)s [-h] [--flag VALUE ...]",  # a list of all flags would bury an error below it
        description="Train and evaluate DETR on COCO (--coco_path FOLDER) or on data of your own (--data FOLDER).",
        parents=[get_args_parser()],
    )
    args = parser.parse_args(argv)
    args.given = given_flags(parser, argv)
    return args


def given_flags(parser: argparse.ArgumentParser, argv: Sequence[str] | None = None) -> list[str]:
    """Names of the settings that the command line sets, even if to their defaults."""
    untouched = object()  # argparse fills in defaults only where the namespace has nothing yet
    names = vars(parser.parse_args(argv))
    marked = parser.parse_args(argv, argparse.Namespace(**dict.fromkeys(names, untouched)))
    return [name for name in names if getattr(marked, name) is not untouched]


def named_settings(args: argparse.Namespace) -> list[str]:
    """Names of the settings that the user sets: `args.given`; without it, those that differ from their defaults."""
    given = getattr(args, "given", None)
    if given is not None:
        return list(given)
    return [name for name, setting in SETTINGS.items() if getattr(args, name, setting.default) != setting.default]


def check_flags(args: argparse.Namespace) -> None:
    """Refuse a command line that cannot work, whatever the checkpoint that it names contains.

    Raises:
        ValueError: names the flag, what is wrong with it, and what to use instead.
    """
    if args.resume or args.init_from or args.frozen_weights or getattr(args, "recipe", "published") != "published":
        _check_bounds(args)
        _check_files(args)
    else:
        check_args(args)


def check_args(args: argparse.Namespace) -> None:
    """Refuse impossible settings and combinations. An evaluation looks only at the settings that it uses.

    Raises:
        ValueError: names the flag, what is wrong with it, and what to use instead.
    """
    _check_bounds(args)
    check_detector(args)
    if not args.eval:
        _check_training(args)
    if args.val_size > args.max_size:
        raise ValueError(
            f"--val_size {args.val_size} exceeds --max_size {args.max_size}: raise --max_size or lower --val_size"
        )
    _check_files(args)


def _check_bounds(args: argparse.Namespace) -> None:
    for name, setting in SETTINGS.items():
        if not args.eval or not (setting.trains or setting.touches == SCHEDULE):
            setting.check(getattr(args, name))


def check_detector(args: argparse.Namespace) -> None:
    """Refuse widths of the network that do not go together; ValueError names the flags."""
    if args.hidden_dim % args.nheads:
        raise ValueError(f"--hidden_dim {args.hidden_dim} must be a multiple of --nheads {args.nheads}")
    if args.hidden_dim % (4 if args.position_embedding == "sine" else 2):
        raise ValueError(
            f"--hidden_dim {args.hidden_dim} must be a multiple of 4 (the position encoding splits it over two axes)"
        )
    if args.masks and (args.hidden_dim % 128 or args.nheads % 8):
        raise ValueError(
            f"--masks does not work with --hidden_dim {args.hidden_dim} and --nheads {args.nheads}: the mask head "
            "needs a multiple of 128 and a multiple of 8"
        )


def _check_training(args: argparse.Namespace) -> None:
    if args.max_steps is not None and args.warmup_steps >= args.max_steps:
        raise ValueError(f"--warmup_steps {args.warmup_steps} must be below --max_steps {args.max_steps}")
    if args.set_cost_class == args.set_cost_bbox == args.set_cost_giou == 0:
        raise ValueError("--set_cost_class, --set_cost_bbox and --set_cost_giou are all 0: set one of them above 0")
    if max(args.train_sizes) > args.max_size:
        raise ValueError(
            f"--train_sizes {args.train_sizes} exceeds --max_size {args.max_size}: raise --max_size or lower "
            "--train_sizes"
        )


def _check_data(args: argparse.Namespace) -> None:
    """Refuse flags of the data that do not go together, and too few of them."""
    if getattr(args, "data", None):
        others = [name for name in _OTHER_DATA if getattr(args, name, None)]
        if others:
            raise ValueError(f"--data and --{others[0]} both name the data: pass only one of them")
        if args.dataset_file == "coco_panoptic":
            raise ValueError("--data reads boxes and masks of objects: pass panoptic data with --coco_panoptic_path")
        return
    if getattr(args, "eval_part", "val") != "val":
        raise ValueError("--eval_part names a part of --data: pass --data, or --val_ann and --val_images")
    for name in ("val_share", "val_split"):
        if getattr(args, name, None) and name in named_settings(args):
            raise ValueError(f"--{name} splits the training part of --data: pass --data FOLDER")
    splits = ("val",) if args.eval else ("train",) if args.overfit else ("train", "val")
    panoptic = args.dataset_file == "coco_panoptic"
    kinds = {"ann": args.coco_path, "images": args.coco_path}
    if panoptic:
        kinds |= dict.fromkeys(("ann", "panoptic"), args.coco_panoptic_path or args.coco_path)
    for split in splits:
        for kind, root in kinds.items():
            if not root and not getattr(args, f"{split}_{kind}"):
                flag = "--coco_panoptic_path" if panoptic and kind != "images" else "--coco_path"
                folder = f"{flag} FOLDER" if panoptic else "--data FOLDER or --coco_path FOLDER"
                raise ValueError(
                    f"no data: pass {folder}, or --{split}_{kind} and the flags of the other files and folders"
                )


def _check_files(args: argparse.Namespace) -> None:
    _check_data(args)
    if args.resume == "auto" and not args.output_dir:
        raise ValueError(
            "--resume auto looks for a checkpoint in --output_dir: pass --output_dir too, or name the checkpoint"
        )
    if args.overwrite and (args.eval or args.resume == "auto"):
        other = "--eval" if args.eval else "--resume auto"
        raise ValueError(f"--overwrite deletes the run in --output_dir, which {other} needs: pass only one of them")
    if args.resume and args.resume != "auto" and args.init_from:
        raise ValueError("--resume continues a training and --init_from starts a new one: pass only one of them")
    if args.frozen_weights and not args.masks and not args.resume:
        raise ValueError("--frozen_weights freezes the detector below a mask head: pass --masks too")
    if args.frozen_weights and args.init_from:
        raise ValueError("--frozen_weights and --init_from both supply the detector's weights: pass only one of them")
    if args.eval and args.init_from:
        raise ValueError("--eval evaluates a checkpoint as it is: pass it with --resume, not with --init_from")
    if args.tensorboard and not args.output_dir:
        raise ValueError("--tensorboard writes to OUTPUT_DIR/tensorboard: pass --output_dir too")
    if args.overfit and (args.eval or args.resume not in ("", "auto")):
        other = "--eval" if args.eval else f"--resume {args.resume}"
        raise ValueError(
            f"--overfit tests the settings of a new run, and {other} continues an old one: leave it out; to start from "
            "a checkpoint's weights, pass it as --init_from"
        )
    if args.eval and not args.resume:
        raise ValueError("--eval needs weights to evaluate: pass --resume CHECKPOINT")
    if args.save_thresholds and not args.eval:
        raise ValueError(
            "--save_thresholds adds the thresholds of an evaluation: pass it with --eval --resume CHECKPOINT; "
            "training stores them itself"
        )
    if args.start_epoch >= args.epochs and not args.eval:
        raise ValueError(f"--start_epoch {args.start_epoch} leaves nothing to train: --epochs is {args.epochs}")
    if args.output_dir:
        folder = Path(args.output_dir)
        existing = next(path for path in [folder, *folder.absolute().parents] if path.exists())
        if not existing.is_dir():
            raise ValueError(f"--output_dir {folder} cannot be created: {existing} is a file")
