"""What a run says about itself: meters, progress, the log file and the logger that knows its rank."""

import logging
import math
import numbers
import os
import subprocess
import sys
import time
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch

from util.checkpoint import to_json
from util.dist import all_gather, get_world_size, is_main_process

MEGABYTE = 1024.0 * 1024.0


class _StdoutHandler(logging.StreamHandler):
    """Writes to whatever `sys.stdout` is at the moment of writing, above a progress bar and not through it."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> Any:
        return sys.stdout

    def emit(self, record: logging.LogRecord) -> None:
        tqdm = sys.modules.get("tqdm")  # without it loaded there is no bar to make room for
        with tqdm.tqdm.external_write_mode(file=self.stream) if tqdm else nullcontext():
            super().emit(record)


def _speaks(record: logging.LogRecord) -> bool:
    # Asked at each message, not once: loggers are made before the process group exists.
    return record.levelno >= logging.WARNING or is_main_process()


def get_logger(name: str = "detr") -> logging.Logger:
    """A standard logger that prints bare messages to stdout: everything from INFO on rank 0, warnings elsewhere."""
    logger = logging.getLogger(name)
    if not any(isinstance(handler, _StdoutHandler) for handler in logger.handlers):
        handler = _StdoutHandler()
        handler.setFormatter(logging.Formatter("%(message)s"))
        handler.addFilter(_speaks)
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        logger.propagate = False
    return logger


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
    """

    def __init__(self, delimiter: str = "\t", *, shown: Sequence[str] | None = None) -> None:
        self.meters: defaultdict[str, SmoothedValue] = defaultdict(SmoothedValue)
        self.delimiter = delimiter
        self.shown = shown

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
        names = self.meters if self.shown is None else [name for name in self.shown if name in self.meters]
        return self.delimiter.join(f"{name}: {self.meters[name]}" for name in names)

    def synchronize_between_processes(self) -> None:
        """Make every `global_avg` that of all processes, in one exchange for all meters.

        A meter that only some processes have filled appears on all of them afterwards.
        """
        per_process = all_gather({name: (meter.count, meter.total) for name, meter in self.meters.items()})
        for name in dict.fromkeys(name for sums in per_process for name in sums):
            self.meters[name]._take_sums(sums[name] for sums in per_process if name in sums)

    def log_every(self, iterable: Iterable[Any], print_freq: int, header: str | None = None) -> Iterator[Any]:
        """Pass the batches on and report progress: a bar on a terminal, else a line every `print_freq` batches.

        Shown are the time left, images a second (of all processes, taken as equally fast), the meters, the seconds a
        step took and waited for data, and the peak of cuda memory in MB. A batch's images are counted by
        `batch[0].tensors` [B, 3, H, W]; of other batches only the steps are timed. Only rank 0 reports.

        Raises:
            ValueError: `print_freq` is not positive.
        """
        if print_freq < 1:
            raise ValueError(f"print_freq is {print_freq}, but lines can only be printed every 1 or more batches")
        progress = _Progress(self, header or "", _length(iterable))
        with ExitStack() as stack:
            if sys.stdout.isatty() and is_main_process():
                progress.open_bar(stack)
            for batch in iterable:
                progress.data_arrived()
                yield batch
                progress.step_done(batch, print_freq)
        get_logger().info(progress.summary())


class _Progress:
    """The clock and the voice of one `log_every` loop."""

    def __init__(self, logger: MetricLogger, header: str, length: int | None) -> None:
        self.logger, self.header, self.length = logger, header, length
        self.step_time = SmoothedValue(fmt="{avg:.4f}")
        self.data_time = SmoothedValue(fmt="{avg:.4f}")
        self.images = SmoothedValue()
        self.bar: Any = None
        self.start = self.step_start = time.perf_counter()
        self.bar_shown = -math.inf

    def open_bar(self, stack: ExitStack) -> None:
        from tqdm import tqdm

        layout = "{desc} {percentage:3.0f}%|{bar:16}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]"
        self.bar = stack.enter_context(
            tqdm(total=self.length, desc=self.header, file=sys.stdout, dynamic_ncols=True, bar_format=layout)
        )

    def data_arrived(self) -> None:
        self.data_time.update(time.perf_counter() - self.step_start)

    def step_done(self, batch: Any, print_freq: int) -> None:
        now = time.perf_counter()
        self.step_time.update(now - self.step_start)
        self.images.update(_count_images(batch))
        self.step_start = now
        done = self.step_time.count
        last = done == self.length
        if self.bar is not None:
            if last or now - self.bar_shown > 0.2:  # formatting dozens of meters costs more than a fast step
                self.bar.set_postfix_str(self.logger.delimiter.join(self._facts()).replace("\t", "  "), refresh=False)
                self.bar_shown = now
            self.bar.update()
        elif last or (done - 1) % print_freq == 0:
            get_logger().info(self._line(done))

    def _line(self, done: int) -> str:
        if self.length is None:
            parts = [self.header, f"[{done - 1}]"]
        else:
            left = timedelta(seconds=int(self.step_time.global_avg * (self.length - done)))
            parts = [self.header, f"[{done - 1:>{len(str(self.length))}}/{self.length}]", f"eta: {left}"]
        return self.logger.delimiter.join(parts + self._facts())

    def _facts(self) -> list[str]:
        facts = [f"time: {self.step_time}", f"data: {self.data_time}"]
        if torch.cuda.is_initialized():
            facts.append(f"max mem: {torch.cuda.max_memory_allocated() / MEGABYTE:.0f}")
        rate = sum(self.images.deque) * get_world_size() / max(sum(self.step_time.deque), 1e-9)
        shown_rate = [f"images/s: {rate:.1f}"] if rate else []
        meters = str(self.logger)
        return shown_rate + ([meters] if meters else []) + facts

    def summary(self) -> str:
        seconds = time.perf_counter() - self.start
        steps = max(self.step_time.count, 1)
        rate = self.images.total * get_world_size() / max(seconds, 1e-9)
        shown_rate = f", {rate:.1f} images/s" if rate else ""
        line = f"Total time: {timedelta(seconds=int(seconds))} ({seconds / steps:.4f} s / it{shown_rate})"
        return f"{self.header} {line}".lstrip()


def _length(iterable: Iterable[Any]) -> int | None:
    try:
        return len(iterable)  # type: ignore[arg-type]
    except TypeError:  # a generator, or a loader over an endless data set
        return None


def _count_images(batch: Any) -> int:
    first = batch[0] if isinstance(batch, list | tuple) and batch else None
    return len(first.tensors) if hasattr(first, "tensors") else 0


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


def get_sha() -> str:
    """One line on the state of the checkout: `sha: …, status: …, branch: …`, with N/A where git cannot tell."""
    folder = Path(__file__).resolve().parent

    def git(*arguments: str) -> str:
        command = ["git", *arguments]
        return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout.strip()

    try:
        sha = git("rev-parse", "HEAD")
        status = "has uncommitted changes" if git("diff-index", "HEAD") else "clean"
        branch = git("rev-parse", "--abbrev-ref", "HEAD")
    except (OSError, subprocess.CalledProcessError):
        sha = status = branch = "N/A"
    return f"sha: {sha}, status: {status}, branch: {branch}"


def append_json_line(path: str | os.PathLike[str], record: dict[str, Any]) -> None:
    """Add `record` to `path` as one line of JSON; the file is made if need be.

    Paths, namespaces, NumPy values and tensors become plain data first. A last line that an interrupted run left
    unfinished is closed off, so that it does not swallow the new one.
    """
    line = to_json(record) + "\n"
    with open(path, "ab+") as file:
        if file.tell() > 0:
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                line = "\n" + line
        file.write(line.encode())
