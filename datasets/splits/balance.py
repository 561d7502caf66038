"""Which side each group of pictures goes to: by its draw, and balanced by class where draws alone would not do.

A group whose draw, a number in [0, 1) that never changes, is below the share goes to validation. Adding pictures thus
moves nothing, and each class gets its share up to chance. Where chance is unkind, groups move across:

- a class that two or more groups show is in both parts; one that only one group shows is in training. The first group
  of the class moves, so that groups added behind it change nothing;
- in validation, the pictures of each class, those without objects and all of them together are neither less than half
  nor more than one and a half of the share asked for, beyond what chance explains (2.5 standard deviations). The
  groups whose draw is nearest to the share move.

Both hold as far as the groups allow it. `G` groups, `C` classes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from scipy.sparse import csr_array

MISSING = 1e6  # weight of a class that is missing from a part, beside one whose share is off
WITHIN = 0.5  # of the share asked for
DEVIATIONS = 2.5


def choose_sides(
    draws: np.ndarray, pictures: csr_array, share: float, fixed: np.ndarray | None = None
) -> tuple[np.ndarray, int]:
    """Choose the groups for validation.

    Args:
        draws: of the groups, float64 [G] in [0, 1), in the order of the groups' names.
        pictures: how many pictures of each group show each class, int64 [G, C]. All pictures show the last class,
            which counts most: neither part may be empty.
        share: of validation.
        fixed: int64 [G], 1 for a group that must go to validation, 0 for one that must not, -1 for any other.

    Returns:
        (bool [G], True for validation; the number of groups that are not where their draw says).
    """
    fixed = np.full(len(draws), -1) if fixed is None else fixed
    drawn = np.where(fixed < 0, draws < share, fixed == 1)
    chosen = drawn.copy()
    balance = _Balance(pictures, share, chosen)
    nearness = np.where(draws < share, (share - draws) / share, (draws - share) / (1 - share))
    stuck: set[int] = set()
    while (worst := balance.worst(stuck)) is not None:
        group = balance.best_move(worst, fixed < 0, nearness)
        if group is None:
            stuck.add(worst)
        else:
            balance.move(group)
            stuck.clear()
    return chosen, int((chosen != drawn).sum())


class _Balance:
    """How far the parts are from balance.

    Args:
        chosen: the groups in validation, changed by `move`.
    """

    def __init__(self, pictures: csr_array, share: float, chosen: np.ndarray):
        from scipy.sparse import csc_array, csr_array

        self.rows, self.columns, self.chosen = csr_array(pictures), csc_array(pictures), chosen
        self.total = np.asarray(pictures.sum(axis=0)).ravel().astype(np.int64)  # [C]
        self.groups = np.diff(self.columns.indptr)  # [C]
        self.wanted = share * self.total
        room = np.maximum(WITHIN * self.wanted, DEVIATIONS * np.sqrt((1 - share) * self.wanted))  # [C] pictures
        self.low = np.maximum(1, np.ceil(self.wanted - room))
        self.high = np.maximum(1, np.floor(self.wanted + room))
        self.low[self.groups < 2] = self.high[self.groups < 2] = 0
        self.weight = np.full(len(self.total), MISSING)
        self.weight[-1] *= 10
        self.held = np.asarray(pictures[chosen].sum(axis=0)).ravel().astype(np.int64)  # [C] in validation

    def penalty(self, classes: np.ndarray, held: np.ndarray) -> np.ndarray:
        """How far each of `classes` is from balance with `held` pictures in validation; 0 within the limits."""
        low, high = self.low[classes], self.high[classes]
        off = np.maximum(low - held, 0) + np.maximum(held - high, 0)
        return off / np.maximum(self.wanted[classes], 1) + self.weight[classes] * self.is_missing(classes, held)

    def is_missing(self, classes: np.ndarray, held: np.ndarray) -> np.ndarray:
        """Whether classes with `held` pictures in validation are missing from a part that should show them."""
        return ((held == 0) & (self.low[classes] > 0)) | ((held == self.total[classes]) & (held > 0))

    def worst(self, stuck: set[int]) -> int | None:
        """The class furthest from balance, the one with fewer pictures among equals; none of `stuck`."""
        penalty = self.penalty(np.arange(len(self.total)), self.held)
        penalty[list(stuck)] = 0
        if not penalty.any():
            return None
        return int(np.lexsort((self.total, -penalty))[0])

    def best_move(self, target: int, free: np.ndarray, nearness: np.ndarray) -> int | None:
        """The group to move for a class, among those that help at least half as much as the best one.

        That is the first one for a class that a part lacks, else the nearest. None if no move brings the parts nearer
        to balance as a whole.
        """
        to_validation = self.held[target] < self.low[target]
        groups = self.columns.indices[self.columns.indptr[target] : self.columns.indptr[target + 1]]
        groups = groups[free[groups] & (self.chosen[groups] != to_validation)]
        if not len(groups):
            return None
        moved = self.rows[groups]
        lengths = np.diff(moved.indptr)
        classes, counts = moved.indices, moved.data if to_validation else -moved.data
        change = self.penalty(classes, self.held[classes] + counts) - self.penalty(classes, self.held[classes])
        gain = -np.bincount(np.repeat(np.arange(len(groups)), lengths), change, minlength=len(groups))
        if gain.max() <= 1e-9:
            return None
        helpful = groups[gain >= gain.max() / 2]
        if self.is_missing(np.array([target]), self.held[[target]])[0]:
            return int(helpful.min())
        return int(helpful[np.lexsort((helpful, nearness[helpful]))[0]])

    def move(self, group: int) -> None:
        sign = -1 if self.chosen[group] else 1
        row = self.rows[[group]]
        self.held[row.indices] += sign * row.data
        self.chosen[group] = not self.chosen[group]
