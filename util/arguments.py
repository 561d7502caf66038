"""The command line: the published flags with their published defaults, then ours; and the checks that need no work.

A setting that cannot be right is refused by `check_args` before anything is built, read or written.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path

TRAIN_SIZES = (480, 512, 544, 576, 608, 640, 672, 704, 736, 768, 800)


def get_args_parser() -> argparse.ArgumentParser:
    """The parser of `main.py`; without help of its own, so that it can be a parent of others, as published."""
    parser = argparse.ArgumentParser("DETR: train and evaluate", add_help=False)
    _add_training(parser)
    _add_model(parser)
    _add_loss(parser)
    _add_data(parser)
    _add_run(parser)
    return parser


def given_flags(parser: argparse.ArgumentParser, argv: Sequence[str] | None = None) -> list[str]:
    """Names of the settings that the command line names itself, be it with their defaults."""
    untouched = object()  # argparse fills in defaults only where the namespace has nothing yet
    names = vars(parser.parse_args(argv))
    marked = parser.parse_args(argv, argparse.Namespace(**dict.fromkeys(names, untouched)))
    return [name for name in names if getattr(marked, name) is not untouched]


def _add_training(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("training")
    group.add_argument("--lr", default=1e-4, type=float, help="learning rate of all but the backbone")
    group.add_argument("--lr_backbone", default=1e-5, type=float, help="learning rate of the backbone; 0 freezes it")
    group.add_argument("--batch_size", default=2, type=int, help="images per process and step")
    group.add_argument("--weight_decay", default=1e-4, type=float)
    group.add_argument("--epochs", default=300, type=int)
    group.add_argument("--lr_drop", default=200, type=int, help="epochs between drops of the rate to a tenth")
    group.add_argument("--clip_max_norm", default=0.1, type=float, help="gradient norm to clip at; 0: no clipping")
    group.add_argument(
        "--lr_schedule",
        default="step",
        choices=["step", "cosine"],
        help="step: a tenth after every --lr_drop epochs; cosine: down to 0 at the last step",
    )
    group.add_argument("--warmup_steps", default=0, type=int, help="steps over which the rates rise from 0")
    group.add_argument("--max_steps", default=None, type=int, help="end after so many training steps")


def _add_model(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("model")
    group.add_argument("--frozen_weights", default=None, type=str, help="box model for a mask head to stand on")
    group.add_argument("--backbone", default="resnet50", type=str, help="resnet18, 34, 50, 101, 152 or tiny")
    group.add_argument("--dilation", action="store_true", help="dilate the last stage in place of its stride (DC5)")
    group.add_argument("--position_embedding", default="sine", type=str, choices=("sine", "learned"))
    group.add_argument(
        "--pos_temperature",
        default=10000,
        type=float,
        help="sine encoding: longest wavelength over shortest; around 20 learns faster on little data",
    )
    group.add_argument("--enc_layers", default=6, type=int, help="encoder layers")
    group.add_argument("--dec_layers", default=6, type=int, help="decoder layers")
    group.add_argument("--dim_feedforward", default=2048, type=int, help="width inside feed-forward parts")
    group.add_argument("--hidden_dim", default=256, type=int, help="width of the transformer")
    group.add_argument("--dropout", default=0.1, type=float)
    group.add_argument("--nheads", default=8, type=int, help="attention heads")
    group.add_argument("--num_queries", default=100, type=int, help="the most objects one image can yield")
    group.add_argument("--pre_norm", action="store_true", help="norms in front of the sublayers")
    group.add_argument("--masks", action="store_true", help="train segmentation")
    group.add_argument(
        "--panoptic_threshold", default=0.85, type=float, help="class probability that a panoptic segment must exceed"
    )
    group.add_argument(
        "--num_classes",
        default=None,
        type=int,
        help="largest class id + 1; default: the checkpoint's, else the annotations', else COCO's 91",
    )
    group.add_argument(
        "--backbone_weights", default="imagenet", type=str, help="imagenet (downloaded), none, or a file"
    )
    group.add_argument(
        "--trainable_layers",
        default=3,
        type=int,
        choices=range(6),
        help="backbone stages that train, from the top; 5: the stem too",
    )
    group.add_argument("--backbone_norm", default="frozen_bn", choices=["frozen_bn", "bn", "gn"])


def _add_loss(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("matching and loss")
    group.add_argument("--no_aux_loss", dest="aux_loss", action="store_false", help="no losses on inner decoder layers")
    group.add_argument("--set_cost_class", default=1, type=float, help="matching: weight of the class probability")
    group.add_argument("--set_cost_bbox", default=5, type=float, help="matching: weight of the L1 distance")
    group.add_argument("--set_cost_giou", default=2, type=float, help="matching: weight of the generalised IoU")
    group.add_argument("--mask_loss_coef", default=1, type=float)
    group.add_argument("--dice_loss_coef", default=1, type=float)
    group.add_argument("--bbox_loss_coef", default=5, type=float)
    group.add_argument("--giou_loss_coef", default=2, type=float)
    group.add_argument("--eos_coef", default=0.1, type=float, help='weight of the class "no object"')


def _add_data(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("data")
    group.add_argument("--dataset_file", default="coco", help="the kind of data: coco or coco_panoptic")
    group.add_argument("--coco_path", type=str, help="folder with annotations/, train2017/ and val2017/")
    group.add_argument(
        "--coco_panoptic_path", type=str, help="folder with panoptic_{train,val}2017/, default: --coco_path's"
    )
    group.add_argument("--remove_difficult", action="store_true", help="published, without effect there and here")
    for split in ("train", "val"):
        group.add_argument(f"--{split}_ann", type=str, help="annotation file, in place of --coco_path's")
        group.add_argument(f"--{split}_images", type=str, help="image folder, in place of --coco_path's")
        group.add_argument(f"--{split}_panoptic", type=str, help="folder of panoptic PNGs, in place of the layout's")
    group.add_argument(
        "--train_sizes", default=list(TRAIN_SIZES), type=int, nargs="+", help="short sides to draw from, pixels"
    )
    group.add_argument("--max_size", default=1333, type=int, help="limit of the long side, pixels")
    group.add_argument("--val_size", default=800, type=int, help="short side in evaluation, pixels")
    group.add_argument("--no_crop", action="store_true", help="no random crops in training")
    group.add_argument("--eval_no_pad", action="store_true", help="evaluate in batches of images of one size")
    group.add_argument("--skip_bad_images", action="store_true", help="go on without image files that cannot be read")
    group.add_argument("--max_bad_images", default=10, type=int, help="stop when more than so many were skipped")


def _add_run(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("run")
    group.add_argument("--output_dir", default="", help="folder for checkpoints, logs, evaluation; empty: save nothing")
    group.add_argument("--device", default="auto", help="auto (cuda, else mps, else cpu), cpu, cuda, cuda:N, mps")
    group.add_argument("--seed", default=42, type=int)
    group.add_argument(
        "--resume", default="", help="go on from a checkpoint: a path, an http(s) address, or auto: --output_dir's own"
    )
    group.add_argument(
        "--init_from", default="", help="start anew from a checkpoint's weights, other classes or queries allowed"
    )
    group.add_argument("--start_epoch", default=0, type=int, metavar="N", help="first epoch")
    group.add_argument("--eval", action="store_true", help="evaluate and stop")
    group.add_argument("--num_workers", default=2, type=int, help="processes that load images")
    group.add_argument("--eval_every", default=1, type=int, help="epochs between evaluations; the last one always is")
    group.add_argument(
        "--evaluator",
        default="auto",
        choices=["auto", "hotcoco", "pycocotools"],
        help="who computes AP; the numbers are equal, hotcoco is faster; auto: hotcoco where installed",
    )
    group.add_argument("--print_freq", default=10, type=int, help="steps between progress lines, off a terminal")
    group.add_argument("--tensorboard", action="store_true", help="write curves to OUTPUT_DIR/tensorboard too")
    group.add_argument("--preflight", action="store_true", help="try the largest batch first; forecast time and memory")
    group.add_argument("--checkpoint_every", default=100, type=int, help="epochs between checkpoints that are kept")
    group.add_argument("--world_size", default=1, type=int, help="number of processes; launchers set it themselves")
    group.add_argument("--dist_url", default="env://", help="where the processes meet")


def check_args(args: argparse.Namespace) -> None:
    """Refuse settings that cannot be right, alone or together.

    Raises:
        ValueError: with the flag, what is wrong with it, and what to use instead.
    """
    _check_numbers(args)
    _check_shapes(args)
    _check_files(args)


def _check_numbers(args: argparse.Namespace) -> None:
    at_least = {
        1: "pos_temperature batch_size epochs lr_drop dim_feedforward hidden_dim nheads num_queries dec_layers "
        "max_size val_size eval_every num_classes max_steps print_freq checkpoint_every",
        0: "max_bad_images lr lr_backbone weight_decay clip_max_norm enc_layers num_workers warmup_steps start_epoch "
        "set_cost_class set_cost_bbox set_cost_giou bbox_loss_coef giou_loss_coef mask_loss_coef dice_loss_coef",
    }
    for bound, names in at_least.items():
        for name in names.split():
            value = getattr(args, name)
            if value is not None and not (bound <= value < math.inf):  # NaN compares as False
                raise ValueError(f"--{name} {value} makes no sense: use a number of {bound} or more")
    if not 0 < args.eos_coef < math.inf:
        raise ValueError(f"--eos_coef {args.eos_coef} leaves images without objects no loss: use a number above 0")
    if args.max_steps is not None and args.warmup_steps >= args.max_steps:
        raise ValueError(f"--warmup_steps {args.warmup_steps} leaves none of --max_steps {args.max_steps}: lower it")
    if not 0 <= args.dropout < 1:
        raise ValueError(f"--dropout {args.dropout} is no share: use a number from 0 to below 1")
    if not 0 <= args.panoptic_threshold < 1:
        raise ValueError(f"--panoptic_threshold {args.panoptic_threshold} is no probability: use 0 to below 1")
    if min(args.train_sizes) < 1:
        raise ValueError(f"--train_sizes holds {min(args.train_sizes)}: short sides are pixels, 1 or more")
    if args.set_cost_class == args.set_cost_bbox == args.set_cost_giou == 0:
        raise ValueError("--set_cost_class, --set_cost_bbox and --set_cost_giou are all 0: give one a weight")


def _check_shapes(args: argparse.Namespace) -> None:
    if args.hidden_dim % args.nheads:
        raise ValueError(
            f"--hidden_dim {args.hidden_dim} cannot be split into --nheads {args.nheads} heads: "
            "make the first a multiple of the second"
        )
    if args.hidden_dim % (4 if args.position_embedding == "sine" else 2):
        raise ValueError(
            f"--hidden_dim {args.hidden_dim} cannot be shared by the position encoding's two axes: use a multiple of 4"
        )
    for name in ("train_sizes", "val_size"):
        value = getattr(args, name)
        if (max(value) if name == "train_sizes" else value) > args.max_size:
            raise ValueError(f"--{name} {value} exceeds --max_size {args.max_size}: raise the limit or lower the size")
    if args.masks and (args.hidden_dim % 128 or args.nheads % 8):
        raise ValueError(
            f"--masks does not go with --hidden_dim {args.hidden_dim} and --nheads {args.nheads}: the mask head needs "
            "a multiple of 128 and a multiple of 8"
        )
    if args.dataset_file not in ("coco", "coco_panoptic"):
        raise ValueError(f"--dataset_file {args.dataset_file} is not known: use coco or coco_panoptic")
    if args.frozen_weights and not args.masks:
        raise ValueError("--frozen_weights freezes the detector under a mask head: pass --masks too")


def _check_files(args: argparse.Namespace) -> None:
    splits = ("val",) if args.eval else ("train", "val")
    panoptic = args.dataset_file == "coco_panoptic"
    kinds = {"ann": args.coco_path, "images": args.coco_path}
    if panoptic:
        kinds |= dict.fromkeys(("ann", "panoptic"), args.coco_panoptic_path or args.coco_path)
    for split in splits:
        for kind, root in kinds.items():
            if not root and not getattr(args, f"{split}_{kind}"):
                flag = "--coco_panoptic_path" if panoptic and kind != "images" else "--coco_path"
                raise ValueError(f"no data: pass {flag} FOLDER, or --{split}_{kind} with the others of its kind")
    if args.resume == "auto" and not args.output_dir:
        raise ValueError("--resume auto looks for a checkpoint in --output_dir: pass that too, or name the checkpoint")
    if args.resume and args.resume != "auto" and args.init_from:
        raise ValueError("--resume goes on with a training and --init_from starts a new one: pass one of them")
    if args.frozen_weights and args.init_from:
        raise ValueError("--frozen_weights and --init_from both bring the detector's weights: pass one of them")
    if args.eval and args.init_from:
        raise ValueError("--eval needs all weights of one checkpoint: pass it as --resume, not as --init_from")
    if args.tensorboard and not args.output_dir:
        raise ValueError("--tensorboard writes to OUTPUT_DIR/tensorboard: pass --output_dir too")
    if args.eval and not args.resume:
        raise ValueError("--eval needs weights to evaluate: pass --resume CHECKPOINT")
    if args.start_epoch >= args.epochs and not args.eval:
        raise ValueError(f"--start_epoch {args.start_epoch} leaves nothing to train: --epochs is {args.epochs}")
    if args.output_dir:
        folder = Path(args.output_dir)
        existing = next(path for path in [folder, *folder.absolute().parents] if path.exists())
        if not existing.is_dir():
            raise ValueError(f"--output_dir {folder} cannot be made: {existing} is a file")
