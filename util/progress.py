"""Progress of a loop over batches: times, memory, and the bar on a terminal or the lines in a log."""

from __future__ import annotations

import math
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import torch

from util.dist import get_world_size, is_main_process
from util.logging import get_logger

MEGABYTE = 1024.0 * 1024.0
QUIET = 10.0  # seconds after which a brief loop shows that it is alive
WINDOW = 20  # steps that the displayed speed is averaged over, as many as a meter's window


class _Step(NamedTuple):
    seconds: float  # from the request for one batch to the request for the next
    waited: float  # of these, waiting for the batch
    images: int


class Progress:
    """Times and reports one loop. Only rank 0 reports: a bar on a terminal, lines elsewhere.

    A batch counts as a step once it is handed out, so that a state taken inside the loop's body, as for a checkpoint,
    includes the work of that body.

    Args:
        describe: returns the meters as text.
        delimiter: between the parts of a line.
        header: first part of a line.
        length: number of batches of the whole epoch; None if unknown.
        start: batches of this epoch done before this loop.
        earlier: `state_dict` of the loop that did them; its time counts in the total.
        brief: of a loop with few steps, `summary` is all that is reported, except for a line if one takes long.
    """

    def __init__(
        self,
        describe: Callable[[], str],
        delimiter: str,
        header: str,
        length: int | None,
        start: int = 0,
        earlier: Mapping[str, float] | None = None,
        *,
        brief: bool = False,
    ) -> None:
        earlier = earlier or {}
        self.brief = brief
        self.describe, self.delimiter, self.header, self.length = describe, delimiter, header, length
        self.done = start
        self.steps, self.images = int(earlier.get("steps", 0)), int(earlier.get("images", 0))
        self.window: deque[_Step] = deque(maxlen=WINDOW)
        self.step_start = time.perf_counter()
        self.start_time = self.step_start - earlier.get("seconds", 0.0)
        self.ended: float | None = None
        self.waited: float | None = None  # for the current batch; None between batches
        self.current_images = 0
        self.bar: Any = None
        self.bar_drawn = -math.inf  # time at which the bar was last drawn
        self.shown = start  # batches done at the last printed line
        self.shown_at = self.step_start

    def open_bar(self) -> AbstractContextManager[Any]:
        """A context manager with the bar on a terminal; one that does nothing if lines are printed."""
        if not (sys.stdout.isatty() and is_main_process()):
            return nullcontext()
        from tqdm import tqdm

        layout = "{desc} {percentage:3.0f}%|{bar:16}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]"
        self.bar = tqdm(
            total=self.length,
            initial=self.done,
            desc=self.header,
            file=sys.stdout,
            dynamic_ncols=True,
            bar_format=layout,
            leave=not self.brief,
        )
        return self.bar

    def data_arrived(self, batch: Any) -> None:
        """To be called when a batch has arrived; its step lasts until `step_done`."""
        self.waited = time.perf_counter() - self.step_start
        self.current_images = _count_images(batch)

    def step_done(self, print_freq: int) -> None:
        """To be called at the end of the loop's body; reports every `print_freq` steps."""
        now = time.perf_counter()
        self.window.append(self._current_step(now))
        self.waited, self.step_start = None, now
        self.done, self.steps, self.images = self.done + 1, self.steps + 1, self.images + self.window[-1].images
        if self.bar is not None:
            self.bar.update()
            if now - self.bar_drawn > 0.2:  # formatting dozens of meters costs more than a fast step
                self._draw(now)
        elif now - self.shown_at > QUIET if self.brief else (self.done - 1) % print_freq == 0:
            self._print()

    def finish(self) -> None:
        """Report the last step and the total time; nothing of a brief loop."""
        self.ended = time.perf_counter()
        if self.bar is not None:
            self._draw(self.ended)
            self.bar.close()  # before the total, which would otherwise be printed above the bar
        elif self.shown < self.done and not self.brief:
            self._print()
        if not self.brief:
            get_logger().info(self.summary())

    def watched(self) -> dict[str, float]:
        """Speed and memory over the last steps, by the names of their curves.

        time/step_seconds, time/data_seconds (waiting for data), time/data_share (percent of a step),
        time/images_per_second (of all processes, assuming that they are equally fast), memory/rss_mb (this process,
        without workers), memory/cuda_peak_mb. Values that are unknown here are left out.
        """
        steps = [*self.window, *([] if self.waited is None else [self._current_step(time.perf_counter())])]
        values: dict[str, float] = {}
        if steps:
            seconds, waited, images = (sum(column) for column in zip(*steps))
            values["time/step_seconds"] = seconds / len(steps)
            values["time/data_seconds"] = waited / len(steps)
            values["time/data_share"] = 100.0 * waited / max(seconds, 1e-9)
            if images:
                values["time/images_per_second"] = images * get_world_size() / max(seconds, 1e-9)
        return values | memory()

    def state_dict(self) -> dict[str, float]:
        """Seconds, steps and images of the epoch so far, including the current batch."""
        in_step = self.waited is not None
        seconds = (time.perf_counter() if self.ended is None else self.ended) - self.start_time
        images = self.images + (self.current_images if in_step else 0)
        return {"seconds": seconds, "steps": self.steps + in_step, "images": images}

    def _current_step(self, now: float) -> _Step:
        return _Step(now - self.step_start, self.waited or 0.0, self.current_images)

    def _draw(self, now: float) -> None:
        self.bar.set_postfix_str(self.delimiter.join(self._facts()).replace("\t", "  "))
        self.bar_drawn = now

    def _print(self) -> None:
        self.shown, self.shown_at = self.done, time.perf_counter()
        if self.length is None:
            parts = [self.header, f"[{self.done - 1}]"]
        else:
            left = (self.step_start - self.start_time) / self.steps * (self.length - self.done)
            place = f"[{self.done - 1:>{len(str(self.length))}}/{self.length}]"
            parts = [self.header, place, f"eta: {timedelta(seconds=int(left))}"]
        get_logger().info(self.delimiter.join(parts + self._facts()))

    def _facts(self) -> list[str]:
        values = self.watched()
        layout = {
            "time/images_per_second": "images/s: {:.1f}",
            "meters": "{}",
            "time/step_seconds": "time: {:.4f}",
            "time/data_seconds": "data: {:.4f} ({:.0f}%)",
            "memory/rss_mb": "rss: {:.0f} MB",
            "memory/cuda_peak_mb": "max mem: {:.0f} MB",
        }
        known: dict[str, Any] = values | ({"meters": meters} if (meters := self.describe()) else {})
        share = values.get("time/data_share", 0.0)
        return [text.format(known[name], share) for name, text in layout.items() if name in known]

    def summary(self) -> str:
        """The total time and the pace, after `header`."""
        so_far = self.state_dict()
        rate = so_far["images"] * get_world_size() / max(so_far["seconds"], 1e-9)
        shown_rate = f", {rate:.1f} images/s" if rate else ""
        pace = f"{so_far['seconds'] / max(so_far['steps'], 1):.4f} s / it{shown_rate}"
        return f"{self.header} Total time: {timedelta(seconds=int(so_far['seconds']))} ({pace})".lstrip()


def memory() -> dict[str, float]:
    """memory/rss_mb, the resident memory of this process (Linux only), and memory/cuda_peak_mb if cuda is in use."""
    values = {}
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        values["memory/rss_mb"] = pages * os.sysconf("SC_PAGE_SIZE") / MEGABYTE
    except OSError:
        pass  # without another package, other systems report only the peak
    if torch.cuda.is_initialized():
        values["memory/cuda_peak_mb"] = torch.cuda.max_memory_allocated() / MEGABYTE
    return values


def length_of(iterable: Iterable[Any]) -> int | None:
    """The number of batches in `iterable`; None if unknown, as for a generator or a loader over an endless data set."""
    try:
        return len(iterable)  # type: ignore[arg-type]
    except TypeError:
        return None


def _count_images(batch: Any) -> int:
    first = batch[0] if isinstance(batch, list | tuple) and batch else None
    if hasattr(first, "tensors"):
        return len(first.tensors)
    return sum(map(_count_images, batch)) if isinstance(first, list | tuple) else 0  # the batches of one step
