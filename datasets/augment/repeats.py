"""Images of rare classes more than once in an epoch: repeat factor sampling of Gupta et al. (LVIS, 2019).

With f(c) the share of the images that show class c, and t the threshold, the repeat factor of a class is
r(c) = max(1, sqrt(t / f(c))), and that of an image the largest of its classes'. An epoch holds an image floor(r) or
ceil(r) times, and r times on average.
"""

from __future__ import annotations

import numpy as np
import torch

DRAW = 2**32  # between the seeds of these draws and those of the epochs' orders


class Copy(int):
    """The index of an image that an epoch holds before: as the index, with random choices of its own.

    Attributes:
        number: 1 for the first repetition, and so on.
    """

    number: int

    def __new__(cls, index: int, number: int) -> Copy:
        made = super().__new__(cls, index)
        made.number = number
        return made

    def __reduce__(self) -> tuple:  # to reach the workers
        return Copy, (int(self), self.number)


class Repeats:
    """Which images an epoch holds how often.

    The number of images is the same in every epoch, the sum of the factors rounded down, so that the steps of an epoch
    and the learning rate's schedule are known from the start. Which images get the odd repetition is drawn by (seed,
    epoch): each of them with the chance that its factor says.

    Args:
        factors: of the images, at least 1.
        seed: the same on all processes.
    """

    def __init__(self, factors: np.ndarray, seed: int = 0):
        self.factors, self.seed = np.asarray(factors, dtype=np.float64), seed

    def __len__(self) -> int:
        return int(np.floor(self.factors.sum() + 1e-6))

    def most(self) -> np.ndarray:
        """The most often that an epoch may hold each image, int64 [images]."""
        return np.ceil(self.factors).astype(np.int64)

    def images(self, epoch: int) -> list[int]:
        """Image indices of an epoch, repeated ones as `Copy`, in no particular order."""
        generator = torch.Generator().manual_seed((self.seed + epoch + DRAW) % 2**63)
        order = torch.randperm(len(self.factors), generator=generator).numpy()
        first = float(torch.rand((), generator=generator, dtype=torch.float64))
        factors = self.factors[order]
        # Marks at distance 1 on the line of all factors, one after the other: their number within a factor r is
        # floor(r) or ceil(r), and r on average. In total there may be one mark too many.
        ends = np.floor(np.concatenate([[0], factors.cumsum()]) + first)
        counts = np.clip(np.diff(ends), np.floor(factors), np.ceil(factors)).astype(np.int64)
        surplus = int(counts.sum()) - len(self)
        counts[np.flatnonzero(counts > np.floor(factors))[::-1][: max(surplus, 0)]] -= 1
        counts[np.flatnonzero(counts < np.ceil(factors))[: max(-surplus, 0)]] += 1
        return [
            Copy(image, number) if number else image
            for image, count in zip(order.tolist(), counts.tolist(), strict=True)
            for number in range(count)
        ]
