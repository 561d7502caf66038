"""`--recipe auto`: which recipe fits, and why."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from training.recipes.facts import DataFacts
from training.recipes.tables import BY_HEART

# What a DETR needs to be trained from an ImageNet backbone in the published way. With fewer pictures, a run that starts
# from a detector is better; COCO has 118,287 pictures, 1,478 for each class.
MANY, MANY_FOR_A_CLASS = 10_000, 300


def choose_recipe(facts: DataFacts, start: Mapping[str, Any] | None, *, from_scratch: bool = False) -> tuple[str, str]:
    """The recipe that fits.

    Args:
        facts: about the training pictures.
        start: the settings of the detector that the user starts from, None without one.
        from_scratch: the user wants no detector to start from.

    Returns:
        (name, why): one of "published", "finetune" and "small", and one or two sentences.
    """
    classes = f"{facts.classes} class{'es' * (facts.classes != 1)}"
    data = f"{facts.pictures:,} picture{'s' * (facts.pictures != 1)} of {classes}"
    if start is not None and start.get("backbone", "resnet50") != "tiny":
        return "finetune", f"the run starts from a full-size detector, which needs a short training only, on {data} too"
    enough = facts.pictures >= max(MANY, MANY_FOR_A_CLASS * facts.classes)
    if start is None and enough:
        return "published", f"{data} are enough to train the published model, which takes a GPU"
    if facts.pictures <= BY_HEART:
        why = f"{data} can only be learned by heart, as a check that they can be learned at all"
    elif enough:
        why = f"the run starts from a small detector, and {data} are enough for it"
    else:
        least = max(MANY, MANY_FOR_A_CLASS * facts.classes)
        why = f"{data} are too few to train the published model, which takes {least:,} or more"
    if from_scratch:
        return "small", why
    first = "continues from a small one" if start is not None else "starts from the small detector of this repository"
    return "small", f"{why}: the run {first}"
