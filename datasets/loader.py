"""The data loader: samplers, workers, and the seeds that make every sample reproducible."""

from __future__ import annotations

import gc
import os
import random
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import islice
from multiprocessing import queues
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from datasets.aspect_batches import AspectBatches
from datasets.augment.repeats import Repeats
from datasets.same_size import Size, same_size_batches
from util.compute.accumulation import StepLoader
from util.dist import get_rank, get_world_size
from util.errors import OpenFilesError, lack_of_open_files, one_sentence
from util.nested_tensor import collate_fn
from util.rng import preserve_rng_state
from util.signals import ignore_in_worker

FEWER_WORKERS = ", or lower --num_workers"
FINGERPRINT = "2:"  # begins the fingerprints that count all fields; earlier ones had fewer and no such mark
SPARE_FILES = 8  # that a worker needs besides those of a batch


@contextmanager
def sample_generators(seed: int, epoch: int, index: int, copy: int = 0) -> Iterator[None]:
    """Context in which the global generators of Python, NumPy and torch (CPU) are seeded from (seed, epoch, index).

    `copy` tells apart the samples of an image that an epoch holds several times.

    A sample's augmentation thus depends neither on the worker that reads it nor on earlier samples. On exit, also after
    an error, the generators have their previous states. Generators of other devices are never touched.
    """
    entropy = [seed % 2**64, epoch, index, *([copy] if copy else [])]  # SeedSequence rejects negative numbers
    torch_seed, python_seed, numpy_seed = np.random.SeedSequence(entropy).generate_state(3, np.uint64).tolist()
    with preserve_rng_state():
        random.seed(python_seed)
        np.random.seed(numpy_seed % 2**32)
        torch.default_generator.manual_seed(torch_seed)
        yield


class _ResumableSampler(DistributedSampler):
    """A rank's share of the images, starting at position `start`; its length remains that of the whole share.

    With `repeats`, the images are those of the epoch.
    """

    start = 0
    repeats: Repeats | None = None

    def __iter__(self) -> Iterator[int]:
        places = islice(super().__iter__(), self.start, None)
        return places if self.repeats is None else map(self.repeats.images(self.epoch).__getitem__, places)


def build_data_loader(
    dataset: Dataset,
    batch_size: int,
    *,
    train: bool,
    num_workers: int = 0,
    seed: int = 0,
    pin_memory: bool = False,
    sizes: Sequence[Size | None] | None = None,
    aspects: Sequence[float] | None = None,
    repeats: Repeats | None = None,
    pad_multiple: int = 1,
) -> DataLoader:
    """Batches of `collate_fn` over this rank's share of `dataset`, `batch_size` images on each rank.

    Args:
        dataset: its samples are (image [3, h, w], target).
        batch_size: images per batch and rank.
        train: shuffle by (seed, epoch), see `set_epoch`, and drop the last short batch. Otherwise keep the data set's
            order and every image.
        num_workers: processes that read the images; 0 reads them in this one.
        seed: seed of the shuffling.
        pin_memory: see `torch.utils.data.DataLoader`.
        sizes: for evaluation, (h, w) of each image after the transforms: batches then hold images of one size, without
            padding, see `datasets.same_size`.
        aspects: for training, height over width of each image: batches then hold images of like aspect ratio, see
            `datasets.aspect_batches`.
        repeats: for training, how often an epoch holds each image; an epoch is then longer than the data set.
        pad_multiple: batches are padded to multiples of this many pixels; without effect where `sizes` are given.

    Raises:
        ValueError: an empty data set, a batch size below 1, or, in training, fewer images than one batch.
    """
    images = len(dataset) if repeats is None else len(repeats)
    if batch_size < 1:
        raise ValueError(f"--batch_size must be at least 1, got {batch_size}")
    if images == 0:
        raise ValueError("the data set has no images: add some under `images` in its annotation file")
    share = -(-images // get_world_size())
    if train and share < batch_size:
        shared = f" ({share} for each of {get_world_size()} processes)" if get_world_size() > 1 else ""
        raise ValueError(
            f"the training set has {images} image{'s' * (images > 1)}{shared}, fewer than one batch of "
            f"{batch_size}, and training drops short batches: pass --batch_size {share} or less"
        )
    if sizes is not None:
        batching = {"batch_sampler": same_size_batches(sizes, batch_size, get_rank(), get_world_size())}
    elif aspects is not None:
        place = {"rank": get_rank(), "world_size": get_world_size()}
        batching = {"batch_sampler": AspectBatches(aspects, batch_size, **place, seed=seed, repeats=repeats)}
    else:
        # Also used in a single process: the order is the same, and shuffling leaves torch's global generator alone.
        sampler = _ResumableSampler(
            range(images), num_replicas=get_world_size(), rank=get_rank(), shuffle=train, seed=seed, drop_last=False
        )
        sampler.repeats = repeats
        batching = {"batch_size": batch_size, "sampler": sampler, "drop_last": train}
    collate = _collate_in_worker if num_workers > 0 else collate_fn
    return DataLoader(
        dataset,
        **batching,
        collate_fn=partial(collate, pad_multiple=pad_multiple if sizes is None else 1),
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
        worker_init_fn=_set_up_worker,
        pin_memory=pin_memory,
        # Without this, a loader draws from torch's global generator each time it is iterated.
        generator=torch.Generator().manual_seed(seed % 2**64),
    )


def set_epoch(loader: DataLoader | StepLoader, epoch: int, first_step: int = 0) -> None:
    """Set the epoch of the sampler (order) and the data set (augmentation); call it before iterating.

    Data sets inside `Subset` and `ConcatDataset` and persistent workers are updated too.

    Args:
        loader: from `build_data_loader`, or one that yields several of its batches for each step.
        epoch: the epoch that comes next.
        first_step: the batch, or step, to start with, to resume inside an epoch.
    """
    if isinstance(loader, StepLoader):
        loader, first_step = loader.batches, first_step * loader.accumulate
    batching = loader.batch_sampler
    for sampler in (loader.sampler, batching, getattr(batching, "sampler", None)):
        if hasattr(sampler, "set_epoch"):
            sampler.set_epoch(epoch)
        if isinstance(sampler, _ResumableSampler):
            sampler.start = first_step * (loader.batch_size or 1)
        elif isinstance(sampler, AspectBatches):
            sampler.start = first_step
    _set_dataset_epoch(loader.dataset, epoch)


def _set_dataset_epoch(dataset: Dataset, epoch: int) -> None:
    if hasattr(dataset, "set_epoch"):
        dataset.set_epoch(epoch)
    for inner in (getattr(dataset, "dataset", None), *getattr(dataset, "datasets", ())):
        if inner is not None:
            _set_dataset_epoch(inner, epoch)


def fingerprint(dataset: Dataset) -> str:
    """A short text that depends on images' ids and file names, on the classes, and on all that is learned from.

    A resumed run uses it to detect other data, wherever they are stored. Empty unless the data set is an
    `AnnotatedImages`.
    """
    if not hasattr(dataset, "annotation_rows"):
        return ""
    images = [(key, dataset.images[key]["file_name"]) for key in sorted(dataset.images)]
    classes = [(category["id"], category["name"]) for category in dataset.categories]
    crc = zlib.crc32(repr((images, classes)).encode("utf-8", "surrogatepass"))
    rows = iter(dataset.annotation_rows())
    while some := list(islice(rows, 2**16)):  # so that a million rows take no memory
        crc = zlib.crc32(np.asarray(some, dtype=np.float64).tobytes(), crc)
    for segmentation in dataset.segmentations():
        crc = zlib.crc32(segmentation, crc)
    return f"{FINGERPRINT}{crc:08x}"


def same_data(one: str, other: str) -> bool:
    """Whether two fingerprints may be of the same data. Those of earlier versions cannot be compared with today's."""
    return one == other or one.startswith(FINGERPRINT) != other.startswith(FINGERPRINT)


def _set_up_worker(worker_id: int) -> None:
    # A worker with one thread per core would compete with training for the cores.
    torch.set_num_threads(1)
    # The search for unreachable cycles writes to every object it looks at, which would copy the memory that a forked
    # worker shares with training, for instance the annotations of the validation images.
    gc.freeze()
    ignore_in_worker()
    # Python prints the traceback of a batch that cannot be sent and drops it, and training would wait for it for ever.
    queues.Queue._on_queue_feeder_error = staticmethod(_end_worker)


def _end_worker(error: Exception, batch: Any) -> None:
    cause = lack_of_open_files(error, FEWER_WORKERS) or one_sentence(error)
    os.write(2, f"a data loader worker cannot send a batch: {cause}\n".encode(errors="backslashreplace"))
    os._exit(1)


def _collate_in_worker(batch: Sequence[tuple[Tensor, dict[str, Any]]], *, pad_multiple: int) -> Any:
    """`collate_fn`, if there are file descriptors left to send the batch; OpenFilesError otherwise."""
    samples, targets = collate_fn(batch, pad_multiple=pad_multiple)
    tensors = 2 + sum(isinstance(value, Tensor) for target in targets for value in target.values())
    duplicates = []
    try:
        with open(os.devnull, "rb") as file:
            # For each tensor, one of its memory and one that is sent; some for the connection.
            for _ in range(2 * tensors + SPARE_FILES):
                duplicates.append(os.dup(file.fileno()))
    except OSError as error:
        too_many = lack_of_open_files(error, FEWER_WORKERS)
        if too_many is None:
            raise
        raise OpenFilesError(f"a data loader worker cannot send a batch: {too_many}") from None
    finally:
        for duplicate in duplicates:
            os.close(duplicate)
    return samples, targets
