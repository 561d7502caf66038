"""The settings by which a run holds out validation images of its own data."""

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
