"""How a long prediction is getting on, and its findings as a table."""

from __future__ import annotations

import sys
import time
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from datetime import timedelta
from types import TracebackType
from typing import Any, TextIO

from prediction.result import Prediction, class_name

EVERY = 10.0  # seconds between lines of progress, off a terminal
WIDEST = 44  # letters of a column


class Pace:
    """Images done and images a second, on standard error: a bar on a terminal, a line now and then elsewhere.

    Args:
        total: images to do.
        before: images that an earlier run did.
    """

    def __init__(self, total: int, before: int = 0) -> None:
        self.total, self.before = total, before
        self.done = 0
        self.begun = self.spoke = time.monotonic()
        self.bar: Any = None

    def __enter__(self) -> Pace:
        if self.before:
            print(f"going on: {self.before} images are done, {self.total} are left", file=sys.stderr)
        if sys.stderr.isatty() and self.total > 1:
            from tqdm import tqdm

            self.bar = tqdm(total=self.total, unit=" images", dynamic_ncols=True, leave=False)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.bar is not None:
            self.bar.close()
        print(f"{self.done} of {self.total} images{self._speed()}", file=sys.stderr)

    def say(self, text: str, file: TextIO | None = None) -> None:
        """Print a line above the bar, at once, to standard output or `file`."""
        if self.bar is not None:
            self.bar.write(text, file=file or sys.stdout)
        else:
            print(text, file=file or sys.stdout, flush=True)

    def step(self, images: int) -> None:
        """So many more images are done."""
        self.done += images
        now = time.monotonic()
        if self.bar is not None:
            self.bar.update(images)
        elif now - self.spoke >= EVERY and self.done < self.total:
            self.spoke = now
            left = timedelta(seconds=int((now - self.begun) / self.done * (self.total - self.done)))
            print(f"{self.done} of {self.total} images{self._speed()}, about {left} to go", file=sys.stderr)

    def _speed(self) -> str:
        return f", {self.done / max(time.monotonic() - self.begun, 1e-9):.1f} images/s" if self.done else ""


class Table:
    """Rows of text under each other: an object a row, or with `counts` an image a row.

    Args:
        images: the names of all images.
        classes: category id → name.
        counts: list how many objects of each class an image has.
    """

    def __init__(self, images: Iterable[str], classes: Mapping[int, str], *, counts: bool = False) -> None:
        self.classes, self.counts = classes, counts
        self.image_width = _width_of([*images, "image"])
        self.class_width = _width_of([*classes.values(), class_name(100, {})])
        self.headed = False

    def rows(self, image: str, found: Prediction) -> Iterator[str]:
        """What was found in one image; before the first one, the head of the table."""
        if not self.headed:
            self.headed = True
            tail = "objects" if self.counts else f"{_pad('class', self.class_width)}  score  x0, y0, x1, y1"
            yield f"{_pad('image', self.image_width)}  {tail}"
        name = _pad(image, self.image_width)
        if self.counts:
            each = Counter(found.names).most_common()
            parts = f" ({', '.join(f'{number} {one}' for one, number in each)})" if each else ""
            yield f"{name}  {len(found)}{parts}"
        elif not len(found):
            yield f"{name}  nothing"
        else:
            for box, score, one in zip(found.boxes.tolist(), found.scores.tolist(), found.names):
                edges = ", ".join(f"{edge:.0f}" for edge in box)
                yield f"{name}  {_pad(one, self.class_width)}  {score:5.2f}  {edges}"

    def totals(self, objects: Mapping[int, int], images: Mapping[int, int]) -> str:
        """How many objects of each class there are, and in how many images."""
        rows = [f"{_pad('class', self.class_width)}  objects  in images"]
        for label in sorted(objects, key=lambda label: (-objects[label], label)):
            name = _pad(class_name(label, self.classes), self.class_width)
            rows.append(f"{name}  {objects[label]:7}  {images[label]:9}")
        return "\n".join(rows if objects else ["no objects"])


def _width_of(texts: Iterable[str]) -> int:
    return min(max(map(_columns, texts), default=0), WIDEST)


def _columns(text: str) -> int:
    """Columns of a terminal: letters of Chinese, Japanese and Korean take two, accents that are set above one none."""
    return sum(
        0 if unicodedata.combining(letter) else 2 if unicodedata.east_asian_width(letter) in "WF" else 1
        for letter in text
    )


def _pad(text: str, width: int) -> str:
    """On one line and of this many columns, its end cut off if need be."""
    text = " ".join(text.split())
    if _columns(text) > width:
        while _columns(text) > width - 1:
            text = text[:-1]
        text += "…"
    return text + " " * (width - _columns(text))
