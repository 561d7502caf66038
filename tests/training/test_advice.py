"""Warnings at the start of a training: when they are given and when not."""

import argparse

import numpy as np
import pytest

from hubconf import WEIGHTS_URL
from main import get_args_parser
from tests.helpers.paths import REPOSITORY
from tools.demo import RECIPE
from training.advice import (
    PUBLISHED_BATCH,
    PUBLISHED_EPOCHS,
    PUBLISHED_IMAGES,
    PUBLISHED_WEIGHTS,
    TINY_WEIGHTS,
    more_objects_than_queries,
    too_short_training,
)


def test_images_with_more_objects_than_queries_are_counted_and_the_worst_is_named():
    text = more_objects_than_queries(np.array([3, 101, 100, 250, 0]), 100, [11, 12, 13, 14, 15])
    assert "2 of 5 images have more objects" in text and "image 14 has the most, 250" in text
    assert "--num_queries 250" in text
    assert "1 of 2 images has" in more_objects_than_queries([3, 7], 6, [1, 2])


@pytest.mark.parametrize("counts", [[100, 3], [0], []])
def test_as_many_objects_as_queries_are_fine(counts):
    assert more_objects_than_queries(counts, 100, list(range(len(counts)))) is None


def test_a_short_training_from_scratch_gives_a_warning_with_a_remedy():
    text = too_short_training(steps=3650, images_per_step=8, images=292)
    assert "3,650 steps of 8 images" in text and "29,200 images" in text and "100.0 epochs of 292" in text
    assert "0.082% of the 35.5 million" in text and "2.2 million steps of 16" in text
    assert "--init_from" in text and PUBLISHED_WEIGHTS in text


def test_the_published_weights_have_the_hubs_address():
    assert PUBLISHED_WEIGHTS == WEIGHTS_URL + "detr-r50-e632da11.pth"


@pytest.mark.parametrize("epochs", [PUBLISHED_EPOCHS, 150, 50, 15])
def test_published_schedules_on_coco_give_no_warning_at_any_batch_size(epochs):
    for batch in (1, 4, PUBLISHED_BATCH, 64):
        assert too_short_training(epochs * PUBLISHED_IMAGES // batch + 1, batch, PUBLISHED_IMAGES) is None


def test_fewer_than_a_twentieth_of_the_published_images_are_too_few():
    assert too_short_training(14 * PUBLISHED_IMAGES // 16, 16, PUBLISHED_IMAGES) is not None


def test_starting_from_a_detector_gives_no_warning():
    assert too_short_training(100, 8, 292, from_scratch=False) is None


def test_a_short_training_of_the_tiny_model_leads_to_what_works():
    text = too_short_training(steps=400, images_per_step=2, images=8, backbone="tiny")
    assert "400 steps show the model 800 images (100.0 epochs of 8)" in text
    assert f"--init_from {TINY_WEIGHTS}" in text and (REPOSITORY / TINY_WEIGHTS).is_file()
    recipe = vars(get_args_parser().parse_args(RECIPE))
    named = get_args_parser().parse_args(text.split("little data: ")[1].split())
    differing = [name for name, value in vars(named).items() if value != recipe[name]]
    sizes = {"num_queries", "train_sizes", "max_size", "val_size", "no_crop"}  # which depend on the images
    run = {"backbone", "batch_size", "epochs", "eval_every", "num_workers", "print_freq"}
    assert set(differing) <= sizes | run


def test_the_demo_gives_no_warning():
    args = argparse.ArgumentParser(parents=[get_args_parser()]).parse_args(RECIPE)
    steps = args.epochs * (4000 // args.batch_size)
    assert too_short_training(steps, args.batch_size, 4000, backbone=args.backbone) is None
    assert too_short_training(steps, args.batch_size, 4000, backbone="resnet18") is not None
