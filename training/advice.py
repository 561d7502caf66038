"""What to tell a user at the start of a training that will run but is likely to disappoint."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

# The published training from scratch (paper, section 4; 40.6 AP): 300 epochs of COCO train2017, 16 images a step.
PUBLISHED_EPOCHS = 300
PUBLISHED_IMAGES = 118_287
PUBLISHED_BATCH = 16
# A training that shows the detector fewer than this share of the published images is warned of: 15 of 300 epochs. The
# published model is far from done there, and small data do not need fewer images shown, only fewer different ones. It
# is a rule of thumb, set low so that it speaks where there is no doubt: a few dozen epochs of some hundred pictures.
TOO_SHORT = 0.05
PUBLISHED_WEIGHTS = "https://dl.fbaipublicfiles.com/detr/detr-r50-e632da11.pth"


def more_objects_than_queries(
    objects_per_image: Sequence[int] | np.ndarray, num_queries: int, image_ids: Sequence[int]
) -> str | None:
    """A warning if images have more objects than the model has queries, with their number and the fullest one.

    Args:
        objects_per_image: counts, crowds left out.
        num_queries: the most objects that one image can yield.
        image_ids: in the order of the counts.

    Returns:
        One sentence, or None when all is well.
    """
    counts = np.asarray(objects_per_image, dtype=np.int64)
    over = int((counts > num_queries).sum())
    if not over:
        return None
    fullest = int(counts.argmax())
    most = int(counts[fullest])
    have = "image has" if over == 1 else "images have"
    return (
        f"{over:,} of {len(counts):,} {have} more objects than the model has queries ({num_queries}); image "
        f"{image_ids[fullest]} has the most, {most}: what is beyond can be neither learnt nor found; pass "
        f"--num_queries {most} or more"
    )


def too_short_training(
    steps: int, images_per_step: int, images: int, *, backbone: str = "resnet50", from_scratch: bool = True
) -> str | None:
    """A warning if the planned training is far too short for a DETR that starts without a detector's weights.

    Says nothing where it would cry wolf: to a training that goes on or starts from a detector, and to the small
    backbone "tiny", whose recipes for small pictures learn in minutes.

    Args:
        steps: planned steps, of all epochs.
        images_per_step: batch size times processes.
        images: of the training set.
        backbone: its name.
        from_scratch: neither --resume nor --init_from; ImageNet weights of the backbone are no detector.

    Returns:
        A few sentences, or None.
    """
    seen, published = steps * images_per_step, PUBLISHED_EPOCHS * PUBLISHED_IMAGES
    if not from_scratch or backbone == "tiny" or seen >= TOO_SHORT * published:
        return None
    millions = f"{published / 1e6:.1f} million of the published training"
    return (
        f"this training from scratch is very short: {steps:,} steps of {images_per_step} images show the model "
        f"{seen:,} images ({seen / images:,.1f} epochs of {images:,}), {100 * seen / published:.2g}% of the {millions} "
        f"({published / PUBLISHED_BATCH / 1e6:.1f} million steps of {PUBLISHED_BATCH}). DETR learns slowly, "
        "on small data too: expect a low AP. Start from a detector instead, with --init_from CHECKPOINT (for "
        f"--backbone resnet50: {PUBLISHED_WEIGHTS}), or train much longer"
    )
