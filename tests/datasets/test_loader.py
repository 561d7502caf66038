"""The data loader: the order of the images, and samples that depend only on (seed, epoch, index)."""

import copy
import gc
import os
import random
import resource

import numpy as np
import pytest
import torch
from torch.utils.data import ConcatDataset, Subset

from datasets.coco import CocoDetection, make_coco_transforms
from datasets.loader import build_data_loader, fingerprint, same_data, sample_generators, set_epoch
from tests.helpers.coco_files import annotation, write_coco
from util.errors import OpenFilesError
from util.nested_tensor import NestedTensor


@pytest.fixture
def data(tmp_path):
    """Seven images, of which 6 and 7 have no objects, with the training augmentation."""
    annotations = [annotation(n, n, [4 + n, 5, 20, 16]) for n in range(1, 6)]
    transforms = make_coco_transforms("train", train_sizes=(24, 32, 40), max_size=60)
    return CocoDetection(*write_coco(tmp_path, annotations, count=7), transforms, False)


class Numbers(torch.utils.data.Dataset):
    """`length` images of one pixel, with their index as id."""

    def __init__(self, length):
        self.length = length

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        return torch.full((3, 1, 1), float(index)), {"image_id": torch.tensor([index])}


def order(loader):
    return [target["image_id"].item() for _, targets in loader for target in targets]


def epochs(data, num_workers, numbers=(0, 1)):
    """Everything in the training batches of the epochs `numbers`."""
    loader = build_data_loader(data, 2, train=True, num_workers=num_workers, seed=3)
    seen = []
    for epoch in numbers:
        set_epoch(loader, epoch)
        for samples, targets in loader:
            seen += [samples.tensors, samples.mask]
            seen += [target[name] for target in targets for name in ("image_id", "boxes", "size")]
    return seen


def equal(first, second):
    return len(first) == len(second) and all(torch.equal(a, b) for a, b in zip(first, second))


def test_batches_are_the_same_with_0_1_and_2_workers_over_epochs(data):
    alone = epochs(data, 0)
    assert equal(epochs(data, 1), alone)
    assert equal(epochs(data, 2), alone)
    assert equal(epochs(data, 0, numbers=(1,)), alone[len(alone) // 2 :])  # an epoch does not depend on the one before


def test_augmentation_changes_with_the_epoch_also_in_persistent_workers(data):
    loader = build_data_loader(data, 7, train=False, num_workers=1)
    sizes = []
    for epoch in (0, 1, 0):
        set_epoch(loader, epoch)
        sizes.append([target["size"].tolist() for _, targets in loader for target in targets])
    assert sizes[0] != sizes[1]
    assert sizes[0] == sizes[2]


def test_loading_leaves_the_global_generators_alone(data):
    def states():
        return random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()

    before = states()
    for num_workers in (0, 1):
        epochs(data, num_workers, numbers=(0,))
    assert states() == before


def test_training_shuffles_by_epoch_and_seed_and_drops_the_short_batch():
    loader = build_data_loader(Numbers(11), 3, train=True, seed=1)
    assert len(loader) == 3
    orders = []
    for epoch in (0, 1, 0):
        set_epoch(loader, epoch)
        orders.append(order(loader))
    assert len(set(orders[0])) == 9
    assert orders[0] != orders[1] and orders[0] == orders[2]
    assert order(build_data_loader(Numbers(11), 3, train=True, seed=2)) != orders[0]


def test_evaluation_keeps_the_order_and_the_last_short_batch():
    loader = build_data_loader(Numbers(11), 3, train=False)
    assert len(loader) == 4
    assert order(loader) == list(range(11))


def test_batches_are_padded_images_and_a_tuple_of_targets(data):
    samples, targets = next(iter(build_data_loader(data, 3, train=False)))
    assert isinstance(samples, NestedTensor)
    assert isinstance(targets, tuple) and len(targets) == 3
    for mask, target in zip(samples.mask, targets):
        height, width = target["size"].tolist()
        assert not mask[:height, :width].any()
        assert (~mask).sum() == height * width


def test_a_batch_of_images_without_objects_is_possible(data):
    samples, targets = next(iter(build_data_loader(Subset(data, [5, 6]), 2, train=True)))
    assert samples.tensors.shape[0] == 2
    assert [target["boxes"].shape for target in targets] == [(0, 4), (0, 4)]


def test_set_epoch_reaches_the_sampler_and_data_in_subsets_and_concatenations(data):
    first, second = data, copy.deepcopy(data)
    loader = build_data_loader(ConcatDataset([Subset(first, [0, 1, 2]), second]), 2, train=True)

    def epoch_of(number):
        """The order of the images, and the sizes to which each data set's augmentation resizes."""
        set_epoch(loader, number)
        sizes = ([part[index][1]["size"].tolist() for index in range(len(part))] for part in (first, second))
        return order(loader), *sizes

    before, after = epoch_of(0), epoch_of(4)
    assert all(old != new for old, new in zip(before, after, strict=True))
    assert epoch_of(0) == before


def test_set_epoch_starts_an_epoch_at_a_step():
    loader = build_data_loader(Numbers(11), 3, train=True, seed=1)
    set_epoch(loader, 2)
    whole = order(loader)
    set_epoch(loader, 2, first_step=1)
    assert order(loader) == whole[3:]


def test_every_process_gets_its_own_share(monkeypatch):
    shares = []
    for rank in (0, 1):
        monkeypatch.setattr("datasets.loader.get_world_size", lambda: 2)
        monkeypatch.setattr("datasets.loader.get_rank", lambda rank=rank: rank)
        shares.append(order(build_data_loader(Numbers(8), 2, train=True)))
    assert sorted(shares[0] + shares[1]) == list(range(8))


def test_workers_compute_with_one_thread():
    class Threads(Numbers):
        def __getitem__(self, index):
            return torch.zeros(3, 1, 1), {"image_id": torch.tensor([torch.get_num_threads()])}

    assert order(build_data_loader(Threads(1), 1, train=False, num_workers=1)) == [1]


def test_too_few_images_for_a_training_batch_is_an_error(monkeypatch):
    with pytest.raises(ValueError, match="3 images, fewer than one batch of 4.*--batch_size 3"):
        build_data_loader(Numbers(3), 4, train=True)
    assert len(build_data_loader(Numbers(3), 4, train=False)) == 1
    with pytest.raises(ValueError, match="no images"):
        build_data_loader(Numbers(0), 1, train=False)
    with pytest.raises(ValueError, match="--batch_size must be at least 1, got 0"):
        build_data_loader(Numbers(3), 0, train=False)
    monkeypatch.setattr("datasets.loader.get_world_size", lambda: 2)
    with pytest.raises(ValueError, match="2 for each of 2 processes.*--batch_size 2"):
        build_data_loader(Numbers(4), 3, train=True)


def test_seeds_of_any_size_and_sign_are_accepted():
    drawn = []
    for seed in (0, -1, 2**63, 42):
        with sample_generators(seed, 0, 0):
            drawn.append((random.random(), np.random.rand(), torch.rand(1).item()))
    assert len(set(drawn)) == 4


class FewFiles(Numbers):
    """In a worker, leaves only `spare` more files to open."""

    def __init__(self, length, spare):
        super().__init__(length)
        self.spare = spare

    def __getitem__(self, index):
        if torch.utils.data.get_worker_info() is not None:
            is_open = set(map(int, os.listdir("/proc/self/fd")))
            free = [number for number in range(max(is_open) + self.spare + 2) if number not in is_open]
            hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
            resource.setrlimit(resource.RLIMIT_NOFILE, (free[self.spare], hard))
        return super().__getitem__(index)


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts open files as Linux does")
def test_a_worker_that_may_not_open_enough_files_ends_the_run_with_a_sentence():
    assert len(list(build_data_loader(FewFiles(2, 60), 1, train=False, num_workers=1))) == 2
    with pytest.raises(OpenFilesError, match="cannot send a batch: the limit .*: raise it, .*, or lower --num_workers"):
        next(iter(build_data_loader(FewFiles(2, 6), 1, train=False, num_workers=1)))


class Unsendable(Numbers):
    def __getitem__(self, index):
        return torch.zeros(3, 1, 1), {"image_id": lambda: index}


def test_a_batch_that_cannot_be_sent_ends_the_worker_so_that_nobody_waits_for_it(capfd):
    with pytest.raises(RuntimeError, match="exited unexpectedly"):
        next(iter(build_data_loader(Unsendable(1), 1, train=False, num_workers=1)))
    said = capfd.readouterr().err
    assert "a data loader worker cannot send a batch: " in said and "Traceback" not in said


@pytest.mark.parametrize(
    ("change", "with_masks"),
    [({"iscrowd": 1}, False), ({"bbox": [4, 5, 20, 17]}, False), ({"segmentation": [[4, 5, 24, 5, 24, 20]]}, True)],
    ids=["iscrowd", "bbox", "segmentation"],
)
def test_the_fingerprint_changes_with_what_is_learned(tmp_path, change, with_masks):
    outline = {"segmentation": [[4, 5, 24, 5, 24, 21]]}

    def of(name, **fields):
        (tmp_path / name).mkdir()
        row = annotation(1, 1, [4, 5, 20, 16]) | outline | fields
        return fingerprint(CocoDetection(*write_coco(tmp_path / name, [row], count=1), None, with_masks))

    assert of("one") == of("same") != of("other", **change)


def test_the_fingerprint_knows_codes_and_where_a_polygon_ends(tmp_path):
    part = [4, 5, 24, 5, 24, 21]
    code = {"size": [30, 40], "counts": [100, 50, 30 * 40 - 150]}
    outlines = [[part, part], [part + part], code, code | {"counts": [101, 49, 30 * 40 - 150]}]
    found = set()
    for number, outline in enumerate(outlines):
        row = annotation(1, 1, [4, 5, 20, 16]) | {"segmentation": outline}
        found.add(fingerprint(CocoDetection(*write_coco(tmp_path / str(number), [row], count=1), None, True)))
    assert len(found) == len(outlines)


def test_the_fingerprint_changes_with_the_classes(data):
    before = fingerprint(data)
    data.categories[0]["name"] += "s"
    assert fingerprint(data) != before


def test_fingerprints_of_another_form_are_not_compared():
    assert same_data("2:0123abcd", "2:0123abcd") and same_data("0123abcd", "2:ffffffff")
    assert not same_data("2:0123abcd", "2:ffffffff") and not same_data("0123abcd", "ffffffff")


@pytest.mark.parametrize("num_workers", [0, 1])
def test_batches_are_padded_to_multiples_in_training_and_evaluation_but_not_where_images_have_one_size(num_workers):
    def shapes(**options):
        loader = build_data_loader(Numbers(4), 2, num_workers=num_workers, pad_multiple=16, **options)
        return {tuple(samples.tensors.shape[2:]) for samples, _ in loader}

    assert shapes(train=True) == shapes(train=False) == {(16, 16)}
    assert shapes(train=False, sizes=[(1, 1)] * 4) == {(1, 1)}


class Frozen(torch.utils.data.Dataset):
    """How many objects of the process are kept out of the collector's sight."""

    def __len__(self):
        return 2

    def __getitem__(self, index):
        return torch.full((3, 1, 1), float(gc.get_freeze_count() > 10_000)), {}


def test_the_collector_of_a_worker_leaves_the_memory_that_it_shares_alone():
    (samples, _), *_ = build_data_loader(Frozen(), 2, train=False, num_workers=1)
    assert samples.tensors.tolist() == [[[[1]]] * 3] * 2
    assert gc.get_freeze_count() == 0  # in this process, all goes on as before
