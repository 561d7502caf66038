"""Meters for logged values, smoothed over a window and averaged overall, and the published accuracy function."""

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
    """A series of values, with statistics over its last `window_size` entries and over all of them.

    `median`, `avg`, `max` and `value` (the latest) refer to the window; `global_avg` to all entries, each weighted by
    its `n`. Without entries all of them are NaN.

    Args:
        window_size: number of entries in the window.
        fmt: format string with these five names; default `"{median:.4f} ({global_avg:.4f})"`.
    """

    def __init__(self, window_size: int = 20, fmt: str | None = None) -> None:
        self.deque: deque[float] = deque(maxlen=window_size)
        self.total = 0.0
        self.count = 0
        self.fmt = "{median:.4f} ({global_avg:.4f})" if fmt is None else fmt

    def update(self, value: float, n: int = 1) -> None:
        """Add `value`, with weight `n` in the overall average."""
        self.deque.append(value)
        self.count += n
        self.total += value * n

    def state_dict(self) -> dict[str, Any]:
        """Window, total and count as plain data; `window_size` and `fmt` are not included."""
        return {"window": list(self.deque), "total": self.total, "count": self.count}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore `state_dict`: all statistics, now and later, are exactly those of the saved meter."""
        try:
            window, total, count = [float(v) for v in state["window"]], float(state["total"]), int(state["count"])
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"the state of a meter must hold window, total and count, got {state!r}") from error
        self.deque, self.total, self.count = deque(window, maxlen=self.deque.maxlen), total, count

    def synchronize_between_processes(self) -> None:
        """Sum count and total, and thus `global_avg`, over all processes. The window stays local."""
        self._take_sums(all_gather((self.count, self.total)))

    def _take_sums(self, sums: Iterable[tuple[int, float]]) -> None:
        counts, totals = zip(*sums, strict=True)
        self.count, self.total = sum(counts), sum(totals)

    @property
    def median(self) -> float:
        """The median; of an even number of entries, the lower of the two middle ones, like `torch.median`."""
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
    """Named meters, and progress lines that show them. A meter is also available as an attribute: `logger.loss`.

    Args:
        delimiter: between the parts of a line.
        shown: names of the meters to show, if they exist; None to show all.
        watch_only: names of meters that are shown but are not results: `averages` leaves them out.
    """

    def __init__(
        self, delimiter: str = "\t", *, shown: Sequence[str] | None = None, watch_only: Sequence[str] = ()
    ) -> None:
        self.meters: defaultdict[str, SmoothedValue] = defaultdict(SmoothedValue)
        self.delimiter = delimiter
        self.shown = shown
        self.watch_only = tuple(watch_only)
        self._progress: Progress | None = None
        self._earlier: Mapping[str, float] | None = None  # progress of the loop that the next one continues

    def update(self, **values: float | torch.Tensor) -> None:
        """Add one entry, a number or a tensor of one element, to each named meter.

        Tensors on an accelerator are fetched together, with one synchronization.
        """
        for name, value in _as_floats(values).items():
            self.meters[name].update(value)

    def add_meter(self, name: str, meter: SmoothedValue) -> None:
        """Use `meter`, with its own window and format, under `name`."""
        self.meters[name] = meter

    def __getattr__(self, name: str) -> SmoothedValue:
        meters = self.__dict__.get("meters", {})  # not self.meters, which does not exist yet while copying
        if name in meters:
            return meters[name]
        raise AttributeError(f"{type(self).__name__} has no attribute or meter named {name!r}")

    def __str__(self) -> str:
        names = self.meters if self.shown is None else dict.fromkeys([*self.shown, *self.watch_only])
        return self.delimiter.join(f"{name}: {self.meters[name]}" for name in names if name in self.meters)

    def summary(self) -> str:
        """The published line "Averaged stats: …"; after a brief loop, its total time comes before it."""
        total = f"{self._progress.summary()}  " if self._progress is not None and self._progress.brief else ""
        return f"{total}Averaged stats: {self}"

    def averages(self) -> dict[str, float]:
        """The results of an epoch: `global_avg` of each meter, except those in `watch_only`."""
        return {name: meter.global_avg for name, meter in self.meters.items() if name not in self.watch_only}

    def watched(self) -> dict[str, float]:
        """The latest value of each `watch_only` meter, and the loop's speed and memory, see `Progress.watched`.

        For curves. Inside the loop's body, the work so far counts as the latest step.
        """
        values = {name: self.meters[name].value for name in self.watch_only if name in self.meters}
        return values | (self._progress.watched() if self._progress is not None else {})

    def state_dict(self) -> dict[str, Any]:
        """All meters, and the time, steps and images of `log_every` so far, as plain data."""
        progress = self._earlier  # of an interrupted loop that has not been continued yet
        if progress is None:
            progress = self._progress.state_dict() if self._progress is not None else {}
        meters = {name: meter.state_dict() for name, meter in self.meters.items()}
        return {"meters": meters, "progress": dict(progress)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue within an epoch: the next `log_every` adds to the time and steps in `state`.

        Call `add_meter` first; other meters get the default window and format. If all processes fill their meters with
        reduced values, as the two loops in `engine` do, they can all load the state of one of them.

        Raises:
            ValueError: `state` is not the result of `state_dict`.
        """
        parts = [state.get(name) if isinstance(state, Mapping) else None for name in ("meters", "progress")]
        if not all(isinstance(part, Mapping) for part in parts):
            raise ValueError(f"the state of meters must hold 'meters' and 'progress', got {state!r}")
        meters, progress = parts
        if not all(isinstance(value, numbers.Real) for value in progress.values()):
            raise ValueError(f"the progress of an epoch must hold seconds, steps and images, got {dict(progress)!r}")
        for name, meter in meters.items():
            self.meters[name].load_state_dict(meter)
        self._earlier = dict(progress)

    def synchronize_between_processes(self) -> None:
        """Sum every meter's count and total, and thus `global_avg`, over all processes, in one collective.

        Afterwards, every process has the meters of all processes.
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
        *,
        brief: bool = False,
    ) -> Iterator[Any]:
        """Yield the batches and report progress: a bar on a terminal, else a line every `print_freq` batches.

        It shows the time left, the images per second (of all processes, assuming that they are equally fast), the
        meters, the seconds per step and those spent waiting for data, and in MB this process's memory and the peak cuda
        memory. Images are counted if `batch[0].tensors` is [B, 3, H, W]; otherwise only steps are timed. Only rank 0
        reports. The last line and the total time are always reported, even if the loop is left early.

        Args:
            iterable: the batches.
            print_freq: batches per line.
            header: first part of each line.
            start: batches of this epoch done before, by a loop that was interrupted.
            length: number of batches of the whole epoch; by default `start` plus the length of `iterable`, if known.
            brief: if there are fewer than `print_freq` batches, report nothing here but in `summary`, except for a line
                if one takes long.

        Raises:
            ValueError: `print_freq` is not positive.
        """
        if print_freq < 1:
            raise ValueError(f"print_freq must be at least 1, got {print_freq}")
        if length is None and (remaining := length_of(iterable)) is not None:
            length = start + remaining
        brief = brief and length is not None and length < print_freq
        progress = Progress(self.__str__, self.delimiter, header or "", length, start, self._earlier, brief=brief)
        self._progress, self._earlier = progress, None
        with progress.open_bar():
            try:
                for batch in iterable:
                    progress.data_arrived(batch)
                    yield batch
                    progress.step_done(print_freq)
            except GeneratorExit:  # the loop was left early; the current step counts
                progress.step_done(print_freq)
            progress.finish()


def _as_floats(values: dict[str, Any]) -> dict[str, float]:
    remote: dict[torch.device, list[str]] = defaultdict(list)
    for name, value in values.items():
        if isinstance(value, torch.Tensor):
            if value.numel() != 1:
                raise ValueError(f"meter {name!r} takes single numbers, got a tensor of shape {list(value.shape)}")
            if value.device.type != "cpu":
                remote[value.device].append(name)
        elif not isinstance(value, numbers.Real):
            raise TypeError(f"meter {name!r} takes numbers and tensors of one element, got {type(value).__name__}")
    for names in remote.values():
        fetched = torch.stack([values[name].detach().reshape(()) for name in names]).tolist()
        values = values | dict(zip(names, fetched, strict=True))
    return {name: float(v.item() if isinstance(v, torch.Tensor) else v) for name, v in values.items()}


@torch.no_grad()
def accuracy(output: torch.Tensor, target: torch.Tensor, topk: Sequence[int] = (1,)) -> list[torch.Tensor]:
    """Percentage of rows whose true class is among the k highest scores, one 0-dim tensor for each k in `topk`.

    Args:
        output: scores [N, C].
        target: class indices [N]. If N = 0, every accuracy is 0.
    """
    if target.numel() == 0:
        return [torch.zeros([], device=output.device) for _ in topk]
    best = output.topk(max(topk), dim=1).indices  # [N, K]
    hit = best == target[:, None]  # [N, K]
    return [100.0 * hit[:, :k].any(dim=1).float().mean() for k in topk]
