"""One video after another: detect objects in the frames, write the video and a line of JSON for each frame."""

from __future__ import annotations

import json
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, TextIO

import numpy as np
from PIL import Image, ImageDraw

from prediction.output_names import with_tail
from prediction.result import Prediction
from prediction.video.pipeline import Behind, ahead
from prediction.video.reader import Frame, Reader, Sound
from prediction.video.sources import LINES, Source
from prediction.video.window import Window
from prediction.video.writer import SOUND, Writer
from util.pictures.fonts import font
from util.text import printable

FOLDER = "videos"  # in the output folder
MP4, LONGEST = ".mp4", f".-99{LINES}.part"  # what may be added to the name of a video, besides its suffix
RECENT = 30  # frames over which the speed is taken

Detect = Callable[[Sequence[Image.Image]], Sequence[Prediction]]


class FollowsObjects(Protocol):
    """What gives objects their ids, such as `prediction.tracking.tracker.Tracker`."""

    def update(self, detections: Prediction, frame_time: float | None = None) -> Sequence[int | None]:
        """The id of each detection of the next frame."""


@dataclass(frozen=True)
class VideoJob:
    """What to do with each video.

    Attributes:
        detect: pictures of one size → their predictions: a `Predictor`, or whatever else finds objects.
        out: the output folder.
        batch_size: frames in one call of `detect`.
        every, start, end, retries: see `Reader`.
        overlay: draw the number of frames per second on the pictures.
        pictures: write the video; False: only the lines of JSON.
        show: show the pictures in a window.
        tracker: makes what follows objects in a video of so many frames per second; None: nothing does.
        stopped: True ends the job after the current frame; what is written then plays.
        say: takes a sentence for the user.
    """

    detect: Detect
    out: Path
    batch_size: int = 1
    every: int = 1
    start: float | None = None
    end: float | None = None
    retries: int = 3
    overlay: bool = False
    pictures: bool = True
    show: bool = False
    tracker: Callable[[float], FollowsObjects] | None = None
    stopped: Callable[[], bool] = lambda: False
    say: Callable[[str], None] = print
    _taken: set[str] = field(default_factory=set)

    def run(self, source: Source) -> int:
        """Do one video; returns the number of broken frames.

        Raises:
            OSError: it cannot be read, or results cannot be written; what was done until then is kept.
            ValueError: `av` or a display is missing, or a file of another origin has the name of a result.
        """
        path = self._path(source.name)
        if source.kind == "file" and path.exists() and path.samefile(source.address):
            raise ValueError(f"{path} is the video itself: choose another --out folder")
        how = {"start": self.start, "end": self.end, "every": self.every, "retries": self.retries, "copied": SOUND}
        reader = Reader(source, **how, stopped=self.stopped, say=lambda text: self.say(printable(text, 500)))
        try:
            one = _OneVideo(self, reader, path)
        except BaseException:
            reader.close()
            raise
        frames = one.run()
        if not frames and not self.stopped() and not (one.window is not None and one.window.closed):
            last = (
                f" between --start and --end, the last one read is at {reader.last:.2f} s"
                if reader.last is not None
                else ""
            )
            raise OSError(f"{source.name} has no frame{last}{': ' if reader.broken else ''}{'; '.join(reader.broken)}")
        broken = f", {reader.broken_count} broken ({'; '.join(reader.broken)})" if reader.broken_count else ""
        target = path if self.pictures else f"{path}{LINES}"
        done = f"{frames} frame{'s' * (frames > 1)}{printable(broken, 500)}"
        self.say(f"{printable(source.name)}: {done}, in {printable(target, 500)}")
        for sentence in one.sentences():
            self.say(f"{printable(source.name)}: {sentence}")
        return reader.broken_count

    def _path(self, name: str) -> Path:
        stem = name[:-4] if name.lower().endswith(".mp4") else name
        folder, _, stem = stem.rpartition("/")
        stem = with_tail(stem, f"{MP4}{LONGEST}").removesuffix(f"{MP4}{LONGEST}")  # the names of all its files fit
        name = f"{folder}/{stem}{MP4}" if folder else f"{stem}{MP4}"
        number, unique = 1, name
        while unique.casefold() in self._taken:
            number += 1
            unique = f"{name[:-4]}-{number}.mp4"
        self._taken.add(unique.casefold())
        path = self.out / FOLDER / unique
        if os.path.lexists(path) and not os.path.lexists(f"{path}{LINES}"):
            raise ValueError(
                f"{path} would be replaced, but predict.py has not written it: choose another --out folder"
            )
        return path


class _OneVideo:
    """The work on one video: frames ahead, the model here, pictures behind."""

    def __init__(self, job: VideoJob, reader: Reader, path: Path) -> None:
        self.job, self.reader, self.path = job, reader, path
        self.tracker = job.tracker(float(reader.rate) / job.every) if job.tracker else None
        self.window = Window(reader.source.name) if job.show else None
        self.writer: Writer | None = None
        self.frames = 0
        self._moments: deque[float] = deque(maxlen=RECENT)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._part = path.with_name(f".{path.name}{LINES}.part")

    def run(self) -> int:
        """Returns the number of frames that were written."""
        try:
            with open(self._part, "w", encoding="utf-8", errors="backslashreplace") as self._lines:
                behind = Behind(self._write)
                try:
                    self._feed(behind)
                finally:
                    behind.finish()
        except BaseException:
            self._finish()
            raise
        self._finish()
        return self.frames

    def sentences(self) -> Iterator[str]:
        """What else is to be said about the video."""
        if self.writer is not None and self.writer.converted:
            yield f"its sound, {printable(self.writer.converted, 50)}, is written as aac"
        if self.reader.sound_is_lost:
            yield "its sound is left out, its codec is unknown"
        if hasattr(self.tracker, "sentence"):
            yield self.tracker.sentence()

    def _feed(self, behind: Behind) -> None:
        waiting: list[Frame] = []
        for item in ahead(iter(self.reader), leave=self._left):
            if self._left():
                return
            if isinstance(item, Sound):
                behind.put(item)
                continue
            if waiting and waiting[0].pixels.shape != item.pixels.shape:
                self._detect(waiting, behind)
                waiting = []
            waiting.append(item)
            if len(waiting) == self.job.batch_size:
                self._detect(waiting, behind)
                waiting = []
        if waiting:
            self._detect(waiting, behind)

    def _left(self) -> bool:
        """Whether the user has ended the video."""
        if self.window is not None:
            self.window.update()
        return self.job.stopped() or (self.window is not None and self.window.closed)

    def _detect(self, frames: Sequence[Frame], behind: Behind) -> None:
        for frame, found in zip(frames, self.job.detect([Image.fromarray(frame.pixels) for frame in frames])):
            ids = self.tracker.update(found, frame.time) if self.tracker else None
            self._moments.append(time.monotonic())
            picture = self._picture(found, ids) if self.job.pictures or self.window else None
            if self.window is not None:
                self.window.show(picture)
            behind.put((frame, found, ids, picture))

    def _picture(self, found: Prediction, ids: Sequence[int | None] | None) -> Image.Image:
        if ids is not None:
            named = [name if number is None else f"{name} #{number}" for name, number in zip(found.names, ids)]
            found = replace(found, names=named)
        if found.panoptic is not None:  # without the legend below, whose height differs from frame to frame
            segments = found.draw_panoptic(min_side=1).crop((0, 0, *found.image.size))
            found = replace(found, image=segments, masks=None)
        picture = found.draw(min_side=1)
        if self.job.overlay and len(self._moments) > 1:
            rate = (len(self._moments) - 1) / max(self._moments[-1] - self._moments[0], 1e-9)
            size = max(picture.height // 24, 12)
            draw = ImageDraw.Draw(picture)
            draw.rectangle((0, 0, 5 * size, 1.4 * size), fill=(0, 0, 0))
            draw.text((size // 3, size // 6), f"{rate:.1f} fps", fill=(255, 255, 255), font=font(size))
        return picture

    def _write(self, item: Any) -> None:
        """In the thread behind: a packet of sound, or a frame with what was found in it."""
        if isinstance(item, Sound):
            if self.writer is not None:
                self.writer.sound(item)
            return
        frame, found, ids, picture = item
        if self.job.pictures:
            if self.writer is None:
                rate = self.reader.rate / self.job.every
                of_source = self.reader.time_base, self.reader.sound, frame.aspect
                self.writer = Writer(self.path, picture.size, rate, *of_source)
            self.writer.picture(np.asarray(picture), frame.time)
        _write_line(self._lines, line_of(self.reader.source.name, frame, found, ids))
        self.frames += 1

    def _finish(self) -> None:
        """Close what was written, so that it plays, also after an error; then give the files their names."""
        try:
            if self.writer is not None:
                self.writer.close()
        finally:
            if self.frames:
                os.replace(self._part, f"{self.path}{LINES}")
            else:
                self._part.unlink(missing_ok=True)
                with suppress(OSError):
                    self.path.parent.rmdir()  # if nothing else is in it
            if self.window is not None:
                self.window.close()


def line_of(name: str, frame: Frame, found: Prediction, ids: Sequence[int | None] | None) -> dict[str, Any]:
    """A frame in COCO's form: `image` with its number and time, and `annotations`, those with an id also `track_id`."""
    height, width = frame.pixels.shape[:2]
    image = {"id": frame.index, "file_name": name, "width": width, "height": height, "time": round(frame.time, 6)}
    if frame.damaged:
        image["damaged"] = True
    annotations = [{"image_id": frame.index} | result for result in found.results()]
    for annotation, number in zip(annotations, ids or ()):
        annotation["track_id"] = number
    return {"image": image, "annotations": annotations}


def _write_line(file: TextIO, line: dict[str, Any]) -> None:
    file.write(json.dumps(line, ensure_ascii=False) + "\n")
