"""What `predict.py` prints: progress on standard error, a table of detections on standard output."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from datetime import timedelta
from types import TracebackType
from typing import Any, TextIO

from prediction.result import Prediction, class_name
from util.text import column_width, fit, printable

INTERVAL = 10.0  # seconds between lines of progress when there is no terminal
MAX_WIDTH = 44  # of a column, in terminal columns


def count_of_images(count: int) -> str:
    """The count with its noun: `1 image`, `2 images`."""
    return "1 image" if count == 1 else f"{count} images"


class Progress:
    """Images done and images per second, on standard error: a bar on a terminal, otherwise a line every 10 seconds.

    Args:
        total: number of images to process.
        before: number of images that an earlier run processed.
    """

    def __init__(self, total: int, before: int = 0) -> None:
        self.total, self.before = total, before
        self.done = self.skipped = 0
        self.started = self.printed = time.monotonic()
        self.bar: Any = None

    def __enter__(self) -> Progress:
        if self.before:
            print(f"resuming: {count_of_images(self.before)} done, {self.total} to do", file=sys.stderr)
        if sys.stderr.isatty() and self.total > 1:
            from tqdm import tqdm

            self.bar = tqdm(total=self.total, unit=" images", dynamic_ncols=True, leave=False)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.bar is not None:
            self.bar.close()
        print(f"{self.done} of {count_of_images(self.total)}{self._speed()}", file=sys.stderr)

    def print(self, text: str, file: TextIO | None = None) -> None:
        """Print a line above the bar to `file`, by default standard output, and flush it."""
        if self.bar is not None:
            self.bar.write(text, file=file or sys.stdout)
        else:
            print(text, file=file or sys.stdout, flush=True)

    def step(self, images: int, skipped: int = 0) -> None:
        """Count images as done, `skipped` of them without a result; those do not count for the speed."""
        self.done += images
        self.skipped += skipped
        now = time.monotonic()
        if self.bar is not None:
            self.bar.update(images)
        elif now - self.printed >= INTERVAL and self.done < self.total:
            self.printed = now
            left = timedelta(seconds=int((now - self.started) / self.done * (self.total - self.done)))
            print(f"{self.done} of {count_of_images(self.total)}{self._speed()}, about {left} left", file=sys.stderr)

    def _speed(self) -> str:
        predicted = self.done - self.skipped
        return f", {predicted / max(time.monotonic() - self.started, 1e-9):.1f} images/s" if predicted else ""


class Table:
    """Aligned rows of text: one per object, or with `counts` one per image.

    Args:
        images: the names of all images.
        classes: category id → name.
        counts: print the number of objects per class instead of every object.
    """

    def __init__(self, images: Iterable[str], classes: Mapping[int, str], *, counts: bool = False) -> None:
        self.classes, self.counts = classes, counts
        self.image_width = column_width([*images, "image"], MAX_WIDTH)
        self.class_width = column_width([*classes.values(), class_name(100, {})], MAX_WIDTH)
        self.header_printed = False

    def rows(self, image: str, prediction: Prediction) -> Iterator[str]:
        """The rows of one image; the first call also yields the header."""
        if not self.header_printed:
            self.header_printed = True
            tail = "objects" if self.counts else f"{_pad('class', self.class_width)}  score  x0, y0, x1, y1"
            yield f"{_pad('image', self.image_width)}  {tail}"
        name = _pad(image, self.image_width)
        if self.counts:
            counts = Counter(prediction.names).most_common()
            parts = (
                f" ({', '.join(f'{count} {printable(label, MAX_WIDTH)}' for label, count in counts)})" if counts else ""
            )
            yield f"{name}  {len(prediction)}{parts}"
        elif not len(prediction):
            yield f"{name}  nothing"
        else:
            for box, score, label in zip(prediction.boxes.tolist(), prediction.scores.tolist(), prediction.names):
                edges = ", ".join(f"{edge:.0f}" for edge in box)
                yield f"{name}  {_pad(label, self.class_width)}  {score:5.2f}  {edges}"

    def totals(self, objects: Mapping[int, int], images: Mapping[int, int]) -> str:
        """Objects per class, and the number of images that contain the class, most frequent class first."""
        rows = [f"{_pad('class', self.class_width)}  objects  in images"]
        for label in sorted(objects, key=lambda label: (-objects[label], label)):
            name = _pad(class_name(label, self.classes), self.class_width)
            rows.append(f"{name}  {objects[label]:7}  {images[label]:9}")
        return "\n".join(rows if objects else ["no objects"])


def _pad(text: str, width: int) -> str:
    """Pad or cut a text to this many columns, on one line."""
    return fit(text, width)
