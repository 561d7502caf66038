"""Warnings at the start of a run that will work but is likely to give poor results."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

# The published training from scratch (paper, section 4; 40.6 AP): 300 epochs of COCO train2017, 16 images a step.
PUBLISHED_EPOCHS = 300
PUBLISHED_IMAGES = 118_287
PUBLISHED_BATCH = 16
# A run from scratch that shows the detector less than this fraction of the published number of images (15 of 300
# epochs) gets a warning. At that point the published model is far from converged, and a small data set needs as many
# images in total, only fewer different ones. This rule of thumb is set low, to catch only clear cases, such as a few
# dozen epochs of some hundred images.
TOO_SHORT = 0.05
# The same for `--backbone tiny` on small images with the recipe below. Of many different drawn images, AP50 was 0.27
# after 16,000 and 0.70 after 32,000 (docs/results.md). Of eight, AP50 on them was 0.91 after 100 epochs and 1.00 after
# 200; with the published learning rates, 0.25 and 0.58.
TINY_IMAGES = 20_000
TINY_EPOCHS = 200
TINY_LR = 5e-4
# From a detector, eight images took 300 to 500 steps, and 205 images about 1,800.
FEWEST_STEPS = 200
TINY_WEIGHTS = "weights/detr_tiny_shapes.pth"
TINY_RECIPE = (
    "--dilation --backbone_norm bn --backbone_weights none --trainable_layers 5 --hidden_dim 128 --dim_feedforward 512 "
    "--enc_layers 2 --dec_layers 3 --dropout 0 --pos_temperature 20 --bbox_loss_coef 2.5 --giou_loss_coef 1 "
    "--eos_coef 0.2 --lr 5e-4 --lr_backbone 5e-4 --lr_schedule cosine --warmup_steps 200"
)
PUBLISHED_WEIGHTS = "https://dl.fbaipublicfiles.com/detr/detr-r50-e632da11.pth"


def more_objects_than_queries(
    objects_per_image: Sequence[int] | np.ndarray, num_queries: int, image_ids: Sequence[int]
) -> str | None:
    """A warning if images have more objects than the model has queries.

    Args:
        objects_per_image: the number of objects of each image, without crowds.
        num_queries: the largest number of objects that the model can predict in one image.
        image_ids: in the same order.

    Returns:
        One sentence that counts such images and names the one with the most objects, or None if there are none.
    """
    counts = np.asarray(objects_per_image, dtype=np.int64)
    over = int((counts > num_queries).sum())
    if not over:
        return None
    fullest = int(counts.argmax())
    most = int(counts[fullest])
    images = f"{len(counts):,} image{'s' * (len(counts) > 1)} {'has' if over == 1 else 'have'}"
    return (
        f"{over:,} of {images} more objects than the model has queries ({num_queries}); image "
        f"{image_ids[fullest]} has the most, {most}. The surplus objects cannot be learned or detected: pass "
        f"--num_queries {most} or more"
    )


def too_short_training(
    steps: int,
    images_per_step: int,
    images: int,
    *,
    backbone: str = "resnet50",
    lr: float = TINY_LR,
    from_scratch: bool = True,
) -> str | None:
    """A warning if the planned training is far too short for a DETR that is trained from scratch.

    There is no warning for a run that resumes or starts from a detector. The small backbone "tiny" has a measure of its
    own: many images, or many epochs of few images, which it learns by heart; more of them at a lower learning rate.

    Args:
        steps: planned steps of all epochs.
        images_per_step: batch size times number of processes.
        images: number of training images.
        backbone: its name.
        lr: the learning rate; it matters for "tiny" only.
        from_scratch: no flag names the weights of a detector; ImageNet weights of the backbone do not count.

    Returns:
        A few sentences, or None.
    """
    seen, published = steps * images_per_step, PUBLISHED_EPOCHS * PUBLISHED_IMAGES
    if not from_scratch:
        return None
    if backbone == "tiny":
        return _too_short_for_tiny(steps, seen, images, lr)
    if seen >= TOO_SHORT * published:
        return None
    millions = f"{published / 1e6:.1f} million of the published training"
    batch = f"{images_per_step} image{'s' * (images_per_step > 1)}"
    return (
        f"this training from scratch is very short: {steps:,} steps of {batch} show the model "
        f"{seen:,} images ({seen / images:,.1f} epochs of {images:,}), {100 * seen / published:.2g}% of the {millions} "
        f"({published / PUBLISHED_BATCH / 1e6:.1f} million steps of {PUBLISHED_BATCH}). DETR learns slowly, "
        "also on small data sets: expect a low AP. Pass --recipe auto, or start from a detector, with --init_from "
        f"CHECKPOINT (for --backbone resnet50: {PUBLISHED_WEIGHTS}; {TINY_WEIGHTS} is a small one that trains "
        "without a GPU, and brings the flags of its network along), or train much longer"
    )


def too_few_steps(steps: int, images: int) -> str | None:
    """A warning if a run that starts from a detector ends before new classes can be learned.

    Args:
        steps: planned steps of all epochs.
        images: number of training images.
    """
    if steps >= FEWEST_STEPS:
        return None
    return (
        f"{steps:,} step{'s are' if steps != 1 else ' is'} very few, also for a run that starts from a detector and "
        f"for {images:,} image{'s' * (images != 1)}: expect a low AP. Plan {FEWEST_STEPS:,} or more, by --epochs, or "
        "pass --recipe auto, which counts them"
    )


def _too_short_for_tiny(steps: int, seen: int, images: int, lr: float) -> str | None:
    needed, pace = min(TINY_IMAGES, TINY_EPOCHS * images), min(lr / TINY_LR, 1.0)
    if seen * pace >= needed:
        return None
    epochs = f"{seen / images:,.1f} epochs of {images:,}"
    slower = f", and --lr {lr:g} needs {TINY_LR / lr:.2g} times as many" if 0 < pace < 1 else ""
    return (
        f"this training from scratch is very short: in {steps:,} step{'s' * (steps != 1)}, the model sees {seen:,} "
        f"image{'s' * (seen != 1)} ({epochs}). A tiny model on small images takes about "
        f"{needed:,} at --lr {TINY_LR:g}{slower}: expect a low AP. Pass --recipe auto, or start from a detector, with "
        f"--init_from {TINY_WEIGHTS}, which brings the flags of its network along, or train longer, with the "
        f"settings that learn fastest on little data: {TINY_RECIPE}"
    )
