"""The detections of successive frames → an id for each object, and counts of the objects."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

import torch

from prediction.result import Prediction, class_name
from prediction.tracking.association import Association
from prediction.tracking.line import Crossings, Line
from util.text import printable

SAME = 0.5  # IoU from which two detections of a class are of one object: the better one is followed
SAME_PLACE = 0.7  # the same for detections of different classes
APART = 0.3  # a new object overlaps no better detection by more
COUNTED = 1 / 3  # seconds that an object is seen before it is counted, but
COUNTED_FRAMES = (3, 10)  # at least and at most so many frames


class Tracker:
    """Follows objects through the frames of a video, and counts them by class and across a line.

    The class of an object is the one that most of its detections have, weighted by their scores: a detection of another
    class for a few frames changes neither its id nor the counts.

    Args:
        names: category id → name.
        rate: frames per second that are passed to `update`, about; the times of the frames are what counts.
        line: objects whose centre crosses it are counted.

    Attributes:
        counted: frames that an object is seen in before it is counted.

    Raises:
        ValueError: the package `trackers` is not installed (the message says how to install it), or a rate that is not
            positive.
    """

    def __init__(self, names: Mapping[int, str], rate: float = 30.0, line: Line | None = None):
        if not (math.isfinite(rate) and rate > 0):
            raise ValueError(f"a tracker needs a positive number of frames per second, got {rate:g}")
        self.names, self.line, self.rate = names, line, rate
        self.counted = min(max(round(COUNTED * rate), COUNTED_FRAMES[0]), COUNTED_FRAMES[1])
        self._association = Association(rate)
        self._clock, self._last_time = 0.0, None
        self._seen: Counter[int] = Counter()  # id → frames
        self._crossings = Crossings(line) if line else None

    def update(self, detections: Prediction, frame_time: float | None = None) -> list[int | None]:
        """Follow the objects into the next frame.

        Args:
            detections: those of the frame, or any object with its boxes, scores and labels.
            frame_time: of the frame, in seconds from any start; None: the frames are evenly spaced. A time that does
                not follow the one before it, such as after a stream was cut, counts as the next frame.

        Returns:
            The id of each detection, from 1, in their order; None for an object that was not seen in the frame before.
        """
        from torchvision.ops import batched_nms, nms  # takes long to import

        self._clock += self._elapsed(frame_time)
        boxes, scores = torch.as_tensor(detections.boxes).float().reshape(-1, 4), torch.as_tensor(detections.scores)
        boxes, scores, labels = boxes.cpu(), scores.float().cpu(), torch.as_tensor(detections.labels).cpu()
        rows = batched_nms(boxes, scores, labels, SAME)
        rows = rows[nms(boxes[rows], scores[rows], SAME_PLACE)].sort().values
        alone = torch.isin(rows, rows[nms(boxes[rows], scores[rows], APART)])
        picture = getattr(detections, "image", None)
        found = self._association.update(
            boxes[rows].double().numpy(),
            scores[rows].numpy(),
            labels[rows].tolist(),
            alone.numpy(),
            self._clock,
            picture and picture.size,
        )
        ids: list[int | None] = [None] * len(labels)
        for row, number in zip(rows.tolist(), found):
            ids[row] = number
            if number is not None:
                self._seen[number] += 1
                if self._crossings:
                    self._crossings.see(number, boxes[row].tolist())
        return ids

    def class_of(self, number: int) -> int:
        """The category id of the object with this id.

        Raises:
            KeyError: no object has the id.
        """
        votes = self._association.votes.get(number)
        if votes is None:
            raise KeyError(f"no object has the id {number}")
        return max(sorted(votes), key=votes.__getitem__)

    def counts(self) -> dict[int, int]:
        """Category id → number of different objects so far; those seen in fewer than `counted` frames are left out."""
        counts = Counter(self.class_of(number) for number, frames in self._seen.items() if frames >= self.counted)
        return dict(sorted(counts.items()))

    def crossed(self) -> dict[str, dict[int, int]]:
        """`in` and `out` (see `Line`) → category id → crossings of the line so far; empty without a line."""
        if not self._crossings:
            return {}
        crossed: dict[str, Counter[int]] = {"in": Counter(), "out": Counter()}
        for number, way in self._crossings.found:
            if self._seen[number] >= self.counted:
                crossed[way][self.class_of(number)] += 1
        return {way: dict(sorted(counts.items())) for way, counts in crossed.items()}

    def summary(self) -> dict[str, Any]:
        """The counts as plain data, with the names of the classes."""
        summary: dict[str, Any] = {"objects": self._named(self.counts())}
        if self.line:
            summary |= {"line": list(self.line.ends)}
            summary |= {way: self._named(counts) for way, counts in self.crossed().items()}
        return summary

    def sentence(self) -> str:
        """The counts as one line for the terminal."""
        parts = [f"tracked: {_listed(self._named(self.counts()))}"]
        parts += [f"{way}: {_listed(self._named(counts))}" for way, counts in self.crossed().items()]
        return "; ".join(parts)

    def _named(self, counts: Mapping[int, int]) -> dict[str, int]:
        named: Counter[str] = Counter()
        for label, count in counts.items():
            named[class_name(label, self.names)] += count
        return dict(named)

    def _elapsed(self, frame_time: float | None) -> float:
        """Seconds since the frame before; those of one frame where the times do not tell."""
        last, self._last_time = self._last_time, frame_time
        known = last is not None and frame_time is not None and math.isfinite(frame_time - last)
        return frame_time - last if known and frame_time > last else 1 / self.rate


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {printable(name, 100)}" for name, count in counts.items()) or "none"
