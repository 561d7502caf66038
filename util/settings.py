"""All settings of a run in one table: flag, default, bounds, and what a checkpoint has to do with it.

`util.arguments` builds the command line from it and checks values against it; `training.follow` decides which
settings come from a checkpoint. The published flags keep their names and defaults; ours are additions.
"""

from __future__ import annotations

import argparse
from typing import Any

from util.flags.own_data import AUGMENTED, HELD_OUT
from util.flags.setting import DETECTOR, INPUT, RUN, SCHEDULE, TRAINING, Setting

MAX_PIXELS = 178_956_970  # of an image file: where Pillow refuses by default
BEST = "best"  # a threshold: for each class that of its best F1, which the checkpoint holds
MAX_SIDE = 2**16  # of a resized image, in pixels
BACKBONES = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "tiny")
DATA_KINDS = ("coco", "coco_panoptic")
TRAIN_SIZES = (480, 512, 544, 576, 608, 640, 672, 704, 736, 768, 800)

GROUPS: dict[str, tuple[Setting, ...]] = {
    "training": (
        Setting(
            "recipe",
            "published",
            None,
            "settings that fit the data, where no flag names them: small, finetune, or auto, which chooses",
            TRAINING,
            choices=("published", "finetune", "small", "auto"),
            trains=True,
        ),
        Setting("lr", 1e-4, float, "learning rate, except for the backbone", SCHEDULE, 0),
        Setting("lr_backbone", 1e-5, float, "learning rate of the backbone; 0 freezes it", SCHEDULE, 0),
        Setting("batch_size", 2, int, "images per process and step", RUN, 1),
        Setting("accumulate", 1, int, "batches per step, whose gradients equal those of one large batch", RUN, 1),
        Setting("weight_decay", 1e-4, float, "weight decay of AdamW", SCHEDULE, 0),
        Setting("epochs", 300, int, "epochs to train", RUN, 1, trains=True),
        Setting("lr_drop", 200, int, "epochs between drops of the learning rate to a tenth", SCHEDULE, 1),
        Setting("clip_max_norm", 0.1, float, "gradient norm to clip at; 0: no clipping", TRAINING, 0, trains=True),
        Setting(
            "lr_schedule",
            "step",
            None,
            "step: a tenth after every --lr_drop epochs; cosine: down to 0 at the last step",
            SCHEDULE,
            choices=("step", "cosine"),
        ),
        Setting("warmup_steps", 0, int, "steps over which the learning rates rise from 0", SCHEDULE, 0),
        Setting("max_steps", None, int, "end after this many training steps", RUN, 1, trains=True),
        Setting(
            "early_stop",
            0,
            int,
            "end after this many evaluations in a row without a better score; 0: never",
            TRAINING,
            0,
            trains=True,
        ),
        Setting(
            "checkpoint_activations",
            False,
            None,
            "recompute activations in the backward pass: less memory, more time, the same numbers",
            RUN,
        ),
        Setting(
            "ema",
            0,
            float,
            "evaluate a moving average of the weights, with at most this decay per step; 0: none",
            TRAINING,
            0,
            below=1,
            trains=True,
        ),
        Setting(
            "amp",
            "none",
            None,
            "number type of the forward pass: bf16 or fp16 by torch's autocast; none: float32 throughout",
            TRAINING,
            choices=("bf16", "fp16", "none"),
        ),
        Setting("compile", False, None, "compile the network with torch.compile, in the first steps", RUN),
    ),
    "model": (
        Setting("frozen_weights", None, str, "checkpoint of the box model to train a mask head on", TRAINING),
        Setting("backbone", "resnet50", str, "resnet18, 34, 50, 101, 152 or tiny", DETECTOR, known=BACKBONES),
        Setting("dilation", False, None, "dilate the last stage instead of striding it (DC5)", DETECTOR),
        Setting(
            "position_embedding", "sine", str, "position encoding of the image", DETECTOR, choices=("sine", "learned")
        ),
        Setting(
            "pos_temperature",
            10000,
            float,
            "sine encoding: longest wavelength over shortest; around 20 learns faster on little data",
            DETECTOR,
            1,
            1e12,
        ),
        Setting("enc_layers", 6, int, "encoder layers", DETECTOR, 0, 1000),
        Setting("dec_layers", 6, int, "decoder layers", DETECTOR, 1, 1000),
        Setting("dim_feedforward", 2048, int, "width of the feed-forward layers", DETECTOR, 1, 2**20),
        Setting("hidden_dim", 256, int, "width of the transformer", DETECTOR, 1, 2**16),
        Setting("dropout", 0.1, float, "dropout of the transformer", INPUT, 0, below=1),
        Setting("nheads", 8, int, "attention heads", DETECTOR, 1, 2**16),
        Setting(
            "num_queries",
            100,
            int,
            "object queries: the most objects found in one image",
            DETECTOR,
            1,
            2**20,
            adapts=True,
        ),
        Setting("pre_norm", False, None, "normalise before each sublayer instead of after it", DETECTOR),
        Setting("masks", False, None, "train segmentation", TRAINING),
        Setting(
            "panoptic_threshold",
            0.85,
            float,
            "class probability that a panoptic segment must exceed",
            INPUT,
            0,
            below=1,
        ),
        Setting(
            "num_classes",
            None,
            int,
            "largest class id + 1; default: the checkpoint's, else the annotations', else COCO's 91",
            RUN,
            1,
        ),
        Setting("backbone_weights", "imagenet", str, "imagenet (downloaded), none, or a file", RUN),
        Setting(
            "trainable_layers",
            3,
            int,
            "backbone stages that train, from the top; 5: the stem too",
            TRAINING,
            trains=True,
            choices=tuple(range(6)),
        ),
        Setting(
            "backbone_norm",
            "frozen_bn",
            None,
            "normalisation layers of the backbone",
            DETECTOR,
            choices=("frozen_bn", "bn", "gn"),
        ),
    ),
    "matching and loss": (
        Setting("aux_loss", True, None, "no losses on the earlier decoder layers", TRAINING, flag="no_aux_loss"),
        Setting("set_cost_class", 1, float, "matching cost: weight of the class probability", TRAINING, 0),
        Setting("set_cost_bbox", 5, float, "matching cost: weight of the L1 distance", TRAINING, 0),
        Setting("set_cost_giou", 2, float, "matching cost: weight of the generalised IoU", TRAINING, 0),
        Setting("mask_loss_coef", 1, float, "weight of the focal loss of masks", TRAINING, 0),
        Setting("dice_loss_coef", 1, float, "weight of the dice loss of masks", TRAINING, 0),
        Setting("bbox_loss_coef", 5, float, "weight of the L1 loss of boxes", TRAINING, 0),
        Setting("giou_loss_coef", 2, float, "weight of the generalised IoU loss", TRAINING, 0),
        Setting("eos_coef", 0.1, float, 'weight of the class "no object"', TRAINING, above=0),
    ),
    "data": (
        Setting("dataset_file", "coco", None, "the kind of data: coco or coco_panoptic", TRAINING, known=DATA_KINDS),
        Setting(
            "data",
            None,
            str,
            "folder of a data set in any format that is recognised, instead of --coco_path: COCO, exports of "
            "annotation tools, Pascal VOC, YOLO",
            RUN,
        ),
        *HELD_OUT,
        Setting("eval_part", "val", None, "part of --data to evaluate on", RUN, choices=("val", "test")),
        Setting(
            "voc_difficult",
            "ignore",
            None,
            "objects that Pascal VOC marks difficult: ignored as crowds are, kept as any other, or dropped",
            TRAINING,
            choices=("ignore", "keep", "drop"),
        ),
        Setting("voc_origin", 1, int, "number of the first pixel in the boxes of Pascal VOC", TRAINING, choices=(1, 0)),
        Setting("coco_path", None, str, "folder with annotations/, train2017/ and val2017/", RUN),
        Setting("coco_panoptic_path", None, str, "folder with panoptic_{train,val}2017/, default: --coco_path", RUN),
        Setting("remove_difficult", False, None, "published; has no effect, as in the published code", RUN),
        Setting("train_ann", None, str, "annotation file, instead of the one in --coco_path", RUN),
        Setting("train_images", None, str, "image folder, instead of the one in --coco_path", RUN),
        Setting("train_panoptic", None, str, "folder of panoptic PNGs, instead of the layout's", RUN),
        Setting("val_ann", None, str, "annotation file, instead of the one in --coco_path", RUN),
        Setting("val_images", None, str, "image folder, instead of the one in --coco_path", RUN),
        Setting("val_panoptic", None, str, "folder of panoptic PNGs, instead of the layout's", RUN),
        Setting(
            "train_sizes",
            list(TRAIN_SIZES),
            int,
            "short sides to draw from, in pixels",
            INPUT,
            1,
            MAX_SIDE,
            trains=True,
        ),
        Setting("max_size", 1333, int, "limit of the long side, in pixels", INPUT, 1, MAX_SIDE),
        Setting("val_size", 800, int, "short side in evaluation, in pixels", INPUT, 1, MAX_SIDE),
        Setting(
            "group_by_aspect",
            False,
            None,
            "train on batches of images of similar aspect ratio, which need less padding",
            TRAINING,
            trains=True,
        ),
        Setting("no_crop", False, None, "no random crops in training", TRAINING, trains=True),
        *AUGMENTED,
        Setting(
            "pad_multiple",
            1,
            int,
            "pad batches to multiples of this many pixels, so that they have fewer shapes; results change slightly, "
            "since DETR is sensitive to padding",
            TRAINING,
            1,
            1024,
        ),
        Setting("eval_no_pad", False, None, "evaluate in batches of images of equal size, without padding", TRAINING),
        Setting("skip_bad_images", False, None, "skip image files that cannot be read", RUN),
        Setting("max_bad_images", 10, int, "stop when more images than this were skipped", RUN, 0),
        Setting("max_pixels", MAX_PIXELS, int, "refuse image files with more pixels than this", RUN, 1),
    ),
    "run": (
        Setting("output_dir", "", None, "folder for checkpoints, logs and evaluation; empty: save nothing", RUN),
        Setting("overwrite", False, None, "replace the run that --output_dir holds by a new one", RUN),
        Setting("device", "auto", None, "auto (cuda, else mps, else cpu), cpu, cuda, cuda:N, mps", RUN),
        Setting("seed", 42, int, "seed of all random generators", RUN),
        Setting(
            "resume",
            "",
            None,
            "resume from a checkpoint: a path, an http(s) address, or auto for the newest in --output_dir",
            RUN,
        ),
        Setting(
            "init_from",
            "",
            None,
            "start a new run from a checkpoint's weights; classes and queries may differ; none: no checkpoint",
            RUN,
        ),
        Setting("start_epoch", 0, int, "first epoch", RUN, 0, metavar="N", trains=True),
        Setting(
            "raw_weights",
            False,
            None,
            "use a checkpoint's weights, not the moving average of them that it may hold",
            RUN,
        ),
        Setting("eval", False, None, "evaluate and exit", RUN),
        Setting(
            "save_thresholds",
            "",
            None,
            "with --eval: write the checkpoint with the best threshold of each class to this file, also the same one",
            RUN,
            metavar="FILE",
        ),
        Setting("num_workers", 2, int, "processes that load images", RUN, 0),
        Setting("eval_every", 1, int, "epochs between evaluations; the last is evaluated too", RUN, 1, trains=True),
        Setting(
            "evaluator",
            "auto",
            None,
            "backend that computes AP; the numbers are equal, hotcoco is faster; auto: hotcoco where installed",
            RUN,
            choices=("auto", "hotcoco", "pycocotools"),
        ),
        Setting("max_dets", 100, int, "detections per image and class that AP counts; 100 is COCO's rule", RUN, 1),
        Setting("print_freq", 10, int, "steps between progress lines, where there is no terminal", RUN, 1),
        Setting("tensorboard", False, None, "write curves to OUTPUT_DIR/tensorboard too", RUN),
        Setting("preflight", False, None, "try the largest batch first; forecast time and memory", RUN),
        Setting(
            "overfit",
            None,
            int,
            "only test: learn this many training images by heart, to AP50 > 0.9, or say why that fails",
            RUN,
            1,
        ),
        Setting(
            "overfit_minutes",
            15,
            float,
            "time limit of --overfit; --max_steps, else 1,000, limits it too",
            RUN,
            above=0,
        ),
        Setting("checkpoint_every", 100, int, "epochs between checkpoints that are kept", RUN, 1, trains=True),
        Setting("world_size", 1, int, "number of processes; launchers set it themselves", RUN),
        Setting("dist_url", "env://", None, "rendezvous address of the processes", RUN),
    ),
}
SETTINGS: dict[str, Setting] = {setting.name: setting for group in GROUPS.values() for setting in group}


def names_that_touch(*what: str) -> tuple[str, ...]:
    """Names of the settings that touch any of `what` (DETECTOR, INPUT, ...), in the order of the table."""
    return tuple(setting.name for setting in SETTINGS.values() if setting.touches in what)


class SettledArgs(argparse.Namespace):
    """Settings that no longer change; `replace` makes a copy with other values."""

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"args.{name} cannot be set: the settings of a run do not change once it has started")

    @classmethod
    def of(cls, args: argparse.Namespace) -> SettledArgs:
        """A read-only copy of `args`."""
        settled = cls()
        vars(settled).update(vars(args))
        return settled

    def replace(self, **changes: Any) -> SettledArgs:
        """A copy with some values changed."""
        copy = self.of(self)
        vars(copy).update(changes)
        return copy
