"""Training batches of images of like aspect ratio, which need less padding.

The idea is that of torchvision's `GroupedBatchSampler`. Here the batches are planned an epoch at a time, so that every
process gets the same number of them, no image is repeated to fill one, and a run can resume at any of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler

from datasets.augment.repeats import Repeats
from datasets.same_size import resized_sizes

STRETCH = 32  # batches between which images are exchanged: few enough that an image has new neighbours in every epoch
STEPS = 12  # of like aspect ratio, while the ratio doubles: 6 % each
SIDE = 1000  # pixels that a short side is measured in


def aspect_ratios(dataset: Dataset) -> list[float]:
    """Height over width of each image of an `AnnotatedImages`, from the annotation file.

    For an image without a size there it is read from the file's header; 1 for a file that cannot be read.
    """
    return [1.0 if size is None else size[0] / size[1] for size in resized_sizes(dataset, SIDE)]


class AspectBatches(Sampler[list[int]]):
    """This process's batches of one epoch: a `batch_sampler` for a DataLoader.

    The images are shuffled by (seed, epoch). Those beyond the last whole batch of all processes are left out, others in
    every epoch, as without grouping. Within stretches of about 32 batches images are then sorted by aspect ratio and
    cut into batches. The processes work on neighbouring batches at a time. `start` is the batch to begin with; the
    length remains that of the whole epoch.

    Args:
        aspects: height over width of each image.
        batch_size: images in each batch.
        rank, world_size: this process and the number of processes.
        seed: the same on all processes.
        repeats: how often an epoch holds each image; None: once.
    """

    def __init__(
        self,
        aspects: Sequence[float],
        batch_size: int,
        *,
        rank: int = 0,
        world_size: int = 1,
        seed: int = 0,
        repeats: Repeats | None = None,
    ) -> None:
        self._steps = np.round(STEPS * np.log2(np.asarray(aspects, dtype=np.float64)))  # [images]
        self.batch_size, self.rank, self.world_size, self.seed = batch_size, rank, world_size, seed
        self.repeats = repeats
        self.epoch = self.start = 0

    def __len__(self) -> int:
        images = len(self._steps) if self.repeats is None else len(self.repeats)
        share = -(-images // self.world_size)  # images of each process, as `DistributedSampler` counts them
        return share // self.batch_size

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch that the order depends on."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[list[int]]:
        if self.repeats is None:
            return iter(self._plan(self._steps)[self.start :].tolist())
        images = self.repeats.images(self.epoch)
        places = self._plan(self._steps[images])[self.start :].tolist()
        return ([images[place] for place in batch] for batch in places)

    def _plan(self, steps: np.ndarray) -> np.ndarray:
        """The epoch's batches of this process, int64 [batches, images].

        Args:
            steps: of the images of the epoch, by aspect ratio.
        """
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        order = torch.randperm(len(steps), generator=generator).numpy()
        count = len(self) * self.world_size
        order = np.resize(order, count * self.batch_size)  # leaves out the last, or repeats some
        batches = order.reshape(count, self.batch_size)
        sorted_batches = []
        for stretch in np.array_split(batches, max(1, round(count / STRETCH))):
            images = stretch.ravel()
            images = images[np.argsort(steps[images], kind="stable")]  # like ratios stay in random order
            sorted_batches.append(images.reshape(-1, self.batch_size))
        together = np.concatenate(sorted_batches).reshape(len(self), self.world_size, self.batch_size)
        return together[torch.randperm(len(self), generator=generator).numpy(), self.rank]
