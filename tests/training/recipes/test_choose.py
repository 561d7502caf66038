"""Which recipe `auto` chooses, and that it says why."""

from __future__ import annotations

import pytest

from tests.training.recipes.test_tables import facts
from training.recipes.choose import choose_recipe

TINY, FULL = {"backbone": "tiny"}, {"backbone": "resnet50"}


@pytest.mark.parametrize(
    ("pictures", "classes", "start", "chosen", "reason"),
    [
        (8, 3, None, "small", "8 pictures of 3 classes can only be learned by heart"),
        (1, 1, None, "small", "1 picture of 1 class can only be learned by heart"),
        (205, 3, None, "small", "205 pictures of 3 classes are too few"),
        (205, 3, TINY, "small", "continues from a small one"),
        (205, 3, FULL, "finetune", "starts from a full-size detector"),
        (205, 3, {}, "finetune", "starts from a full-size detector"),  # a published file without settings
        (118_287, 80, None, "published", "118,287 pictures of 80 classes are enough"),
        (118_287, 80, FULL, "finetune", "starts from a full-size detector"),
        (118_287, 80, TINY, "small", "starts from a small detector"),
        (20_000, 300, None, "small", "which takes 90,000 or more"),
        (9_999, 1, None, "small", "which takes 10,000 or more"),
    ],
)
def test_the_choice_and_the_reason(pictures, classes, start, chosen, reason):
    name, why = choose_recipe(facts(pictures, classes=classes), start)
    assert name == chosen and reason in why


def test_a_start_from_scratch_is_not_called_a_start_from_a_detector():
    name, why = choose_recipe(facts(205), None, from_scratch=True)
    assert name == "small" and "detector" not in why
