"""Optimizer steps that are computed from several batches (`--accumulate`), as one large batch would be.

The batches of a step stay where the loader put them until their turn, so that only one of them needs memory for
activations. Their gradients add up, and the criterion, which knows the targets of all of them, gives each its share.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from torch import Tensor, nn


class Parts(tuple):
    """The batches (samples, targets) of one optimizer step."""

    @classmethod
    def of(cls, batch: Any) -> Parts:
        """What a loader has yielded: the parts of a step, or a batch that is a step by itself."""
        return batch if isinstance(batch, cls) else cls([batch])

    @property
    def targets(self) -> list[dict[str, Tensor]]:
        """The targets of all parts."""
        return [target for _, targets in self for target in targets]

    def in_turn(self, model: nn.Module) -> Iterator[tuple[Any, Any]]:
        """The parts, one after the other; processes exchange the gradients of `model` only in the last one's turn."""
        for part in self[:-1]:
            with _unsynchronized(model):
                yield part
        yield self[-1]


class StepLoader:
    """Yields the `Parts` of each optimizer step. An epoch's last batches, if too few for a step, are dropped.

    Args:
        batches: yields batches, see `datasets.loader`.
        accumulate: batches per step.

    Raises:
        ValueError: there are fewer batches than one step takes.
    """

    def __init__(self, batches: Iterable[Any], accumulate: int) -> None:
        if len(batches) < accumulate:
            raise ValueError(
                f"an epoch has {len(batches)} batch{'es' * (len(batches) != 1)} on each process, but one step takes "
                f"--accumulate {accumulate}: pass --accumulate {len(batches)} or less, or a smaller --batch_size"
            )
        self.batches, self.accumulate = batches, accumulate

    def __len__(self) -> int:
        return len(self.batches) // self.accumulate

    def __iter__(self) -> Iterator[Parts]:
        batches = iter(self.batches)
        return (Parts(group) for group in zip(*[batches] * self.accumulate))


def add_shares(sums: Mapping[str, Tensor], shares: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The sums of losses so far, plus those of another part; without gradients."""
    return {name: sums[name] + v.detach() if name in sums else v.detach() for name, v in shares.items()}


def _unsynchronized(model: nn.Module) -> AbstractContextManager[Any]:
    return model.no_sync() if hasattr(model, "no_sync") else nullcontext()
