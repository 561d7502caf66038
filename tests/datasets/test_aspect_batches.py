"""Batches of like aspect ratio: every image once, the same for a seed and epoch, as many on every process."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from torch.utils.data import Subset

from datasets.aspect_batches import AspectBatches, aspect_ratios
from datasets.coco import CocoDetection
from datasets.loader import build_data_loader, set_epoch
from tests.datasets.test_loader import Numbers, order
from tests.helpers.coco_files import write_coco

RATIOS = np.random.default_rng(0).choice([0.5, 0.75, 1.0, 1.33, 2.0], 203).tolist()


def batches(
    epoch: int = 0, start: int = 0, ratios: list[float] = RATIOS, size: int = 4, **more: int
) -> list[list[int]]:
    sampler = AspectBatches(ratios, size, **more)
    sampler.set_epoch(epoch)
    sampler.start = start
    return list(sampler)


def spread(found: list[list[int]]) -> float:
    """The mean of largest over smallest ratio in a batch."""
    return float(np.mean([max(RATIOS[i] for i in batch) / min(RATIOS[i] for i in batch) for batch in found]))


def test_batches_are_full_and_hold_no_image_twice():
    found = batches()
    assert {len(batch) for batch in found} == {4} and len(found) == len(AspectBatches(RATIOS, 4)) == 203 // 4
    assert len({image for batch in found for image in batch}) == 4 * len(found)  # three of 203 are left out


def test_every_image_has_its_turn_over_the_epochs():
    assert {image for epoch in range(4) for batch in batches(epoch) for image in batch} == set(range(203))


def test_batches_hold_like_ratios():
    assert spread(batches()) < 1.15 < 1.5 < spread(np.arange(200).reshape(-1, 4).tolist())


def test_seed_and_epoch_decide_the_batches():
    assert batches(1) == batches(1) != batches(0) != batches(0, seed=1)
    neighbours = [{tuple(sorted(batch)) for batch in batches(epoch)} for epoch in (0, 1)]
    assert len(neighbours[0] & neighbours[1]) < 5  # not only the order of the batches is another


def test_wide_and_tall_batches_alternate():
    first = [RATIOS[batch[0]] for batch in batches()[:10]]
    assert len(set(first)) > 2 and first != sorted(first)


@pytest.mark.parametrize("start", [0, 1, 17, 50])
def test_an_epoch_goes_on_from_any_batch(start):
    assert batches(2, start) == batches(2)[start:]


@pytest.mark.parametrize(
    ("images", "world_size", "size"), [(203, 2, 4), (203, 3, 1), (8, 3, 3), (5, 8, 1), (200, 4, 7)]
)
def test_processes_get_equally_many_batches_and_share_the_images(images, world_size, size):
    shares = [batches(3, ratios=RATIOS[:images], size=size, rank=r, world_size=world_size) for r in range(world_size)]
    plain = -(-images // world_size) // size  # steps without grouping
    assert [len(share) for share in shares] == [plain] * world_size
    seen = Counter(image for share in shares for batch in share for image in batch)
    drawn = plain * size * world_size
    assert len(seen) == min(images, drawn)  # repeated only to fill the last batches, as without grouping
    assert drawn - len(seen) < world_size


def test_processes_work_on_like_ratios_at_a_time():
    two = [batches(rank=rank, world_size=2) for rank in range(2)]
    assert spread([one + other for one, other in zip(*two)]) < 1.25


def test_ratios_come_from_the_annotation_file(tmp_path):
    folder, file = write_coco(tmp_path, [], count=3)
    data = CocoDetection(folder, file, None, False)
    for image_id, (width, height) in zip(data.ids, [(640, 480), (480, 640), (300, 300)]):
        data.images[image_id] |= {"width": width, "height": height}
    for path in folder.iterdir():
        if path.suffix != ".json":
            path.unlink()  # they are not opened
    assert aspect_ratios(data) == pytest.approx([0.75, 4 / 3, 1], rel=2e-3)
    assert aspect_ratios(Subset(data, [2, 0])) == pytest.approx([1, 0.75], rel=2e-3)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_the_loader_yields_them_and_starts_inside_an_epoch(num_workers):
    loader = build_data_loader(
        Numbers(22), 4, train=True, aspects=RATIOS[:22], seed=5, num_workers=num_workers, pad_multiple=2
    )
    expected = batches(1, ratios=RATIOS[:22], seed=5)
    set_epoch(loader, 1)
    assert order(loader) == sum(expected, [])
    set_epoch(loader, 1, first_step=3)
    assert len(loader) == 5 and order(loader) == sum(expected[3:], [])
    set_epoch(loader, 2)
    assert order(loader) == sum(batches(2, ratios=RATIOS[:22], seed=5), [])


def test_too_few_images_are_refused():
    with pytest.raises(ValueError, match="fewer than one batch of 4"):
        build_data_loader(Numbers(3), 4, train=True, aspects=[1.0] * 3)


def test_planning_leaves_the_global_generators_alone():
    before = torch.get_rng_state(), np.random.get_state()[1].tolist()
    batches()
    assert torch.equal(torch.get_rng_state(), before[0]) and np.random.get_state()[1].tolist() == before[1]
