"""Repeat factors and the images of an epoch: shuffled, by aspect ratio, over processes, with workers, going on."""

import pickle
from collections import Counter

import numpy as np
import pytest
import torch

from datasets.aspect_batches import AspectBatches
from datasets.augment.rare_classes import describe_repeats, repeat_factors
from datasets.augment.repeats import Copy, Repeats
from datasets.coco import CocoDetection
from datasets.loader import build_data_loader, sample_generators, set_epoch
from tests.helpers.coco_files import annotation, write_coco

FACTORS = np.random.default_rng(0).choice([1.0, 1.0, 1.25, 2.5, 3.0], 61)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Ten images: class 7 in nine of them, class 2 in one of these, and one image without objects."""
    rows = [annotation(n, n, [5, 5, 20, 10]) for n in range(1, 10)]
    rows.append(annotation(10, 4, [8, 8, 9, 9], category_id=2))
    rows.append(annotation(11, 4, [9, 8, 9, 9], category_id=2))
    rows.append(annotation(12, 10, [9, 8, 9, 9], category_id=2, iscrowd=1, segmentation=None))
    return write_coco(tmp_path_factory.mktemp("data"), rows, count=10)


def view(image, target):
    """A number that is drawn for the sample, in place of the image."""
    return torch.rand(3, 2, 2), target


def test_the_factors_are_those_of_the_paper(data):
    dataset = CocoDetection(*data, None, False)
    expected = np.ones(10)
    expected[3] = np.sqrt(0.5 / 0.1)
    assert repeat_factors(dataset, 0.5) == pytest.approx(expected, rel=1e-12)
    expected[:9] = np.sqrt(1 / 0.9)
    expected[3] = np.sqrt(1 / 0.1)
    assert repeat_factors(dataset, 1.0) == pytest.approx(expected, rel=1e-12)
    assert (repeat_factors(dataset, 0.1) == 1).all() and len(Repeats(repeat_factors(dataset, 0.1))) == 10


def test_what_is_repeated_is_said(data):
    dataset = CocoDetection(*data, None, False)
    said = describe_repeats(dataset, 0.5, Repeats(repeat_factors(dataset, 0.5)))
    assert "an epoch holds 11 images, 10 of them different; repeat factors: cat 2.24" in said and "dog" not in said
    assert "repeats nothing" in describe_repeats(dataset, 0.05, Repeats(np.ones(10)))


def test_a_data_set_without_objects_repeats_nothing(tmp_path):
    assert (repeat_factors(CocoDetection(*write_coco(tmp_path, []), None, False), 0.5) == 1).all()


@pytest.mark.parametrize("factors", [FACTORS, np.ones(7), np.full(5, 2.0), np.full(3, 1.5), np.full(9, 1 / 3 + 1)])
def test_an_epoch_has_one_length_and_each_image_floor_or_ceil_times(factors):
    repeats = Repeats(factors, seed=3)
    for epoch in range(30):
        counts = Counter(int(image) for image in repeats.images(epoch))
        assert sum(counts.values()) == len(repeats) == int(factors.sum() + 1e-6)
        found = np.array([counts[image] for image in range(len(factors))])
        assert ((found >= np.floor(factors)) & (found <= repeats.most())).all()


def test_images_come_as_often_as_their_factor_on_average():
    repeats, epochs = Repeats(FACTORS), 400
    counts = Counter(int(image) for epoch in range(epochs) for image in repeats.images(epoch))
    found = np.array([counts[image] for image in range(len(FACTORS))]) / epochs
    # the odd repetition is a draw with a deviation of at most 0.5; five of them, and one image that is left out
    assert np.abs(found - FACTORS).max() < 5 * 0.5 / np.sqrt(epochs) + 1 / len(FACTORS)


def test_seed_and_epoch_decide():
    assert Repeats(FACTORS, 1).images(2) == Repeats(FACTORS, 1).images(2)
    counts = [Counter(map(int, Repeats(FACTORS, seed).images(epoch))) for seed, epoch in ((0, 0), (0, 1), (5, 0))]
    assert counts[0] != counts[1] and counts[0] != counts[2]


def test_a_copy_is_an_index_with_a_number_also_in_another_process():
    copy = pickle.loads(pickle.dumps(Copy(4, 2)))
    assert copy == 4 and copy.number == 2 and list(range(9))[copy] == 4


def test_copies_of_an_image_are_different_views_and_the_first_is_that_without_repeats(data):
    dataset = CocoDetection(*data, view, False, seed=7)
    first, again, third = (dataset[index][0] for index in (3, Copy(3, 1), Copy(3, 2)))
    assert not torch.equal(first, again) and not torch.equal(again, third)
    assert torch.equal(dataset[Copy(3, 1)][0], again)
    with sample_generators(7, 0, 3):
        assert torch.equal(first, torch.rand(3, 2, 2))


def loaded(data, start: int = 0, epoch: int = 1, workers: int = 0, aspects=None) -> list[list[tuple]]:
    """(image id, its random number) of the samples of each batch."""
    dataset = CocoDetection(*data, view, False)
    repeats = Repeats(repeat_factors(dataset, 1.0), seed=2)
    loader = build_data_loader(dataset, 2, train=True, seed=2, num_workers=workers, repeats=repeats, aspects=aspects)
    set_epoch(loader, epoch, start)
    assert len(loader) == len(repeats) // 2 == 6
    return [
        [(int(t["image_id"]), float(x[0, 0, 0])) for t, x in zip(targets, batch.tensors)] for batch, targets in loader
    ]


@pytest.mark.parametrize("aspects", [None, [1.0, 2.0] * 5], ids=["shuffled", "by aspect"])
def test_the_loader_repeats_and_goes_on_inside_an_epoch_with_any_number_of_workers(data, aspects):
    whole = loaded(data, aspects=aspects)
    counts = Counter(image for batch in whole for image, _ in batch)
    assert counts[4] in (2, 3, 4) and sum(counts.values()) == 12
    assert len({number for batch in whole for _, number in batch}) == 12
    assert loaded(data, start=4, aspects=aspects) == whole[4:]
    assert loaded(data, workers=2, aspects=aspects) == whole
    assert loaded(data, epoch=2, aspects=aspects) != whole


@pytest.mark.parametrize("by_aspect", [False, True])
def test_processes_share_the_images_of_an_epoch(data, by_aspect, monkeypatch):
    repeats, dataset = Repeats(FACTORS, seed=1), list(range(len(FACTORS)))
    taken = []
    for rank in range(3):
        monkeypatch.setattr("datasets.loader.get_world_size", lambda: 3)
        monkeypatch.setattr("datasets.loader.get_rank", lambda rank=rank: rank)
        if by_aspect:
            batches = AspectBatches(np.ones(len(FACTORS)), 1, rank=rank, world_size=3, seed=1, repeats=repeats)
            batches.set_epoch(4)
            taken.append([int(image) for batch in batches for image in batch])
        else:
            loader = build_data_loader(dataset, 1, train=True, seed=1, repeats=repeats)
            loader.sampler.set_epoch(4)
            taken.append(list(map(int, loader.sampler)))
    assert len({len(images) for images in taken}) == 1
    found, expected = Counter(sum(taken, [])), Counter(map(int, repeats.images(4)))
    assert (found - expected).total() <= 2 and not expected - found  # filled up to a multiple of three


def test_too_few_images_are_counted_with_their_repetitions():
    build_data_loader([0, 1], 4, train=True, repeats=Repeats(np.full(2, 2.0)))
    with pytest.raises(ValueError, match="fewer than one batch"):
        build_data_loader([0, 1], 4, train=True, repeats=Repeats(np.full(2, 1.5)))
