"""Meters: series of numbers seen through a window and as a whole, many of them by name, and the published accuracy."""

from __future__ import annotations

import math
import numbers
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch

from util.dist import all_gather
from util.progress import Progress, length_of


class SmoothedValue:
    """A series of numbers, seen through its last `window_size` entries and as a whole.

    `median`, `avg`, `max` and `value` look at the window; `global_avg` at everything since the start, each entry
    weighted by its `n`. Without entries all are NaN.

    Args:
        window_size: entries the window holds.
        fmt: format string over the five names; default `"{median:.4f} ({global_avg:.4f})"`.
    """

    def __init__(self, window_size: int = 20, fmt: str | None = None) -> None:
        self.deque: deque[float] = deque(maxlen=window_size)
        self.total = 0.0
        self.count = 0
        self.fmt = "{median:.4f} ({global_avg:.4f})" if fmt is None else fmt

    def update(self, value: float, n: int = 1) -> None:
        """Add `value`, which stands for `n` samples in the overall average."""
        self.deque.append(value)
        self.count += n
        self.total += value * n

    def state_dict(self) -> dict[str, Any]:
        """Window, total and count as plain data; size of the window and format stay with whoever made the meter."""
        return {"window": list(self.deque), "total": self.total, "count": self.count}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state_dict`: every figure, and every later one, is to the bit what it would have been."""
        try:
            window, total, count = [float(v) for v in state["window"]], float(state["total"]), int(state["count"])
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"a meter's state is window, total and count, not {state!r}") from error
        self.deque, self.total, self.count = deque(window, maxlen=self.deque.maxlen), total, count

    def synchronize_between_processes(self) -> None:
        """Make count and total, and so `global_avg`, those of all processes together. The window stays local."""
        self._take_sums(all_gather((self.count, self.total)))

    def _take_sums(self, sums: Iterable[tuple[int, float]]) -> None:
        counts, totals = zip(*sums, strict=True)
        self.count, self.total = sum(counts), sum(totals)

    @property
    def median(self) -> float:
        """The lower of the two middle entries where their number is even, as `torch.median` has it."""
        if not self.deque or any(math.isnan(value) for value in self.deque):
            return math.nan
        return sorted(self.deque)[(len(self.deque) - 1) // 2]

    @property
    def avg(self) -> float:
        return sum(self.deque) / len(self.deque) if self.deque else math.nan

    @property
    def global_avg(self) -> float:
        return self.total / self.count if self.count else math.nan

    @property
    def max(self) -> float:
        return max(self.deque, default=math.nan)

    @property
    def value(self) -> float:
        return self.deque[-1] if self.deque else math.nan

    def __str__(self) -> str:
        return self.fmt.format(
            median=self.median, avg=self.avg, global_avg=self.global_avg, max=self.max, value=self.value
        )


class MetricLogger:
    """Named meters and the progress lines that show them; a meter also reads as an attribute: `logger.loss`.

    Args:
        delimiter: between the parts of a line.
        shown: names of the meters that lines show, of those that exist; None shows all of them.
        watch_only: names of meters to look at while a run goes on, always shown, but no result: `averages` leaves
            them out.
    """

    def __init__(
        self, delimiter: str = "\t", *, shown: Sequence[str] | None = None, watch_only: Sequence[str] = ()
    ) -> None:
        self.meters: defaultdict[str, SmoothedValue] = defaultdict(SmoothedValue)
        self.delimiter = delimiter
        self.shown = shown
        self.watch_only = tuple(watch_only)
        self._progress: Progress | None = None
        self._earlier: Mapping[str, float] | None = None  # progress of the loop that the next one goes on from

    def update(self, **values: float | torch.Tensor) -> None:
        """Add one entry to each named meter: numbers or tensors of one element.

        Tensors on an accelerator are fetched together, so that the step waits for the device once.
        """
        for name, value in _as_floats(values).items():
            self.meters[name].update(value)

    def add_meter(self, name: str, meter: SmoothedValue) -> None:
        """Show `name` through a meter of one's own, with its own window and format."""
        self.meters[name] = meter

    def __getattr__(self, name: str) -> SmoothedValue:
        meters = self.__dict__.get("meters", {})  # not self.meters: copying asks for attributes before they exist
        if name in meters:
            return meters[name]
        raise AttributeError(f"{type(self).__name__} has no attribute or meter named {name!r}")

    def __str__(self) -> str:
        names = self.meters if self.shown is None else dict.fromkeys([*self.shown, *self.watch_only])
        return self.delimiter.join(f"{name}: {self.meters[name]}" for name in names if name in self.meters)

    def averages(self) -> dict[str, float]:
        """`global_avg` of each meter, those of `watch_only` left out: what an epoch reports."""
        return {name: meter.global_avg for name, meter in self.meters.items() if name not in self.watch_only}

    def watched(self) -> dict[str, float]:
        """The latest value of each `watch_only` meter, and speed and memory in the loop as `Progress.watched` has it.

        For curves: it may be asked inside the loop's body, whose work so far counts as the latest step.
        """
        values = {name: self.meters[name].value for name in self.watch_only if name in self.meters}
        return values | (self._progress.watched() if self._progress is not None else {})

    def state_dict(self) -> dict[str, Any]:
        """All meters, and time, steps and images of `log_every` so far, as plain data (dicts, lists, numbers)."""
        progress = self._earlier  # of a loop that has yet to go on
        if progress is None:
            progress = self._progress.state_dict() if self._progress is not None else {}
        meters = {name: meter.state_dict() for name, meter in self.meters.items()}
        return {"meters": meters, "progress": dict(progress)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on in the middle of an epoch; the next `log_every` adds to the time and steps taken before.

        Meters of one's own come first (`add_meter`): the others get the default window and format. Several processes
        may take the state of one of them where they fill their meters with reduced values, as the two loops do.

        Raises:
            ValueError: `state` is not what `state_dict` gives.
        """
        parts = [state.get(name) if isinstance(state, Mapping) else None for name in ("meters", "progress")]
        if not all(isinstance(part, Mapping) for part in parts):
            raise ValueError(f"the state of meters must hold 'meters' and 'progress', got {state!r}")
        meters, progress = parts
        if not all(isinstance(value, numbers.Real) for value in progress.values()):
            raise ValueError(f"the progress of an epoch is seconds, steps and images, not {dict(progress)!r}")
        for name, meter in meters.items():
            self.meters[name].load_state_dict(meter)
        self._earlier = dict(progress)

    def synchronize_between_processes(self) -> None:
        """Make every `global_avg` that of all processes, in one exchange for all meters.

        A meter that only some processes have filled appears on all of them afterwards.
        """
        per_process = all_gather({name: (meter.count, meter.total) for name, meter in self.meters.items()})
        for name in dict.fromkeys(name for sums in per_process for name in sums):
            self.meters[name]._take_sums(sums[name] for sums in per_process if name in sums)

    def log_every(
        self,
        iterable: Iterable[Any],
        print_freq: int,
        header: str | None = None,
        start: int = 0,
        length: int | None = None,
    ) -> Iterator[Any]:
        """Pass the batches on and report progress: a bar on a terminal, else a line every `print_freq` batches.

        Shown are the time left, images a second (of all processes, taken as equally fast), the meters, the seconds a
        step took and waited for data, this process's memory and the peak of cuda memory in MB. A batch's images are
        counted by `batch[0].tensors` [B, 3, H, W]; of other batches only the steps are timed. Only rank 0 reports.
        The last line and the total time come in any case, also when the loop is left early.

        Args:
            start: batches of this epoch done before, by a loop that was interrupted.
            length: batches of the whole epoch; default `start` and what `iterable` says it gives.

        Raises:
            ValueError: `print_freq` is not positive.
        """
        if print_freq < 1:
            raise ValueError(f"print_freq is {print_freq}, but lines can only be printed every 1 or more batches")
        if length is None and (given := length_of(iterable)) is not None:
            length = start + given
        progress = Progress(self.__str__, self.delimiter, header or "", length, start, self._earlier)
        self._progress, self._earlier = progress, None
        with progress.open_bar():
            try:
                for batch in iterable:
                    progress.data_arrived(batch)
                    yield batch
                    progress.step_done(print_freq)
            except GeneratorExit:  # the loop was left; what its body did with the batch in hand counts
                progress.step_done(print_freq)
            progress.finish()


def _as_floats(values: dict[str, Any]) -> dict[str, float]:
    remote: dict[torch.device, list[str]] = defaultdict(list)
    for name, value in values.items():
        if isinstance(value, torch.Tensor):
            if value.numel() != 1:
                raise ValueError(f"meter {name!r} takes single numbers, but was given a tensor {list(value.shape)}")
            if value.device.type != "cpu":
                remote[value.device].append(name)
        elif not isinstance(value, numbers.Real):
            raise TypeError(f"meter {name!r} takes numbers and tensors of one element, not {type(value).__name__}")
    for names in remote.values():
        fetched = torch.stack([values[name].detach().reshape(()) for name in names]).tolist()
        values = values | dict(zip(names, fetched, strict=True))
    return {name: float(v.item() if isinstance(v, torch.Tensor) else v) for name, v in values.items()}


@torch.no_grad()
def accuracy(output: torch.Tensor, target: torch.Tensor, topk: Sequence[int] = (1,)) -> list[torch.Tensor]:
    """Per cent of rows whose true class is among the k highest scores, one 0-dim tensor for each k of `topk`.

    Args:
        output: scores [N, C].
        target: class indices [N]. With N = 0 every accuracy is 0.
    """
    if target.numel() == 0:
        return [torch.zeros([], device=output.device) for _ in topk]
    best = output.topk(max(topk), dim=1).indices  # [N, K]
    hit = best == target[:, None]  # [N, K]
    return [100.0 * hit[:, :k].any(dim=1).float().mean() for k in topk]
