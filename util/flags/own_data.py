"""The settings that data of one's own may need: a part to hold out, less or more augmentation, balance of classes."""

from __future__ import annotations

from util.flags.setting import RUN, TRAINING, Setting

HELD_OUT = (
    Setting(
        "val_share",
        0,
        float,
        "hold out this share of the training images for validation, where --data has no validation part",
        TRAINING,
        0,
        below=1,
    ),
    Setting(
        "val_split",
        None,
        str,
        "split as an earlier run did: its folder, or the split.json in it; new images are split by --val_share",
        RUN,
    ),
    Setting(
        "val_groups",
        "near",
        None,
        "near: frames of one video and other near-duplicates stay on one side of --val_share; none: every image by "
        "itself",
        TRAINING,
        choices=("near", "none"),
    ),
)
AUGMENTED = (
    Setting("no_flip", False, None, "no random flips in training", TRAINING, trains=True),
    Setting(
        "color_jitter",
        0,
        float,
        "change brightness, contrast, saturation (by up to this factor) and hue in training; 0.2 is mild",
        TRAINING,
        0,
        1,
        trains=True,
    ),
    Setting(
        "repeat_threshold",
        0,
        float,
        "repeat images of classes that fewer than this share of the images show, so that they are seen more often",
        TRAINING,
        0,
        1,
        trains=True,
    ),
)
