"""A video file, stream or webcam → upright frames with their times, and packets of its sound."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from prediction.video.sources import Source

SILENCE = 10.0  # seconds that a stream may send nothing
PAUSE = 1.0  # seconds before a stream is opened again
NAMED = 3  # broken frames that are named in the sentence
INSTALL = 'the package av, which videos need, is not installed: pip install ".[video]"'


@dataclass(frozen=True)
class Frame:
    """One picture of a video: `pixels` uint8 [H, W, 3], upright; `time` in seconds from the first frame of the source.

    `index` counts the frames of the source from 0; those that cannot be decoded have no index. A `damaged` frame was
    decoded with errors.
    """

    index: int
    time: float
    pixels: np.ndarray
    damaged: bool = False


@dataclass(frozen=True)
class Sound:
    """A packet of the sound, and its time in seconds on the clock of the frames."""

    packet: Any
    time: float


class Reader:
    """Decodes a source, frame by frame.

    Args:
        source: the video.
        start, end: seconds of the source; frames before and after them are left out. None: all.
        every: keep every N-th frame.
        retries: how often a stream that breaks off is opened again, counted from its last frame.
        stopped: True ends the iteration, also while a stream is waited for.
        say: takes one sentence about a stream that is opened again.

    Attributes:
        rate: frames per second, on average or as a guess.
        time_base: the unit of the times in the source.
        sound: the stream of its sound, or None.
        broken: a description of each frame that could not be decoded, or was decoded with errors; at most `NAMED`.
        broken_count: their number.

    Raises:
        ValueError: `av` is not installed.
        OSError: the source cannot be opened, holds no video, or breaks off for good; no message has a password in it.
    """

    def __init__(
        self,
        source: Source,
        *,
        start: float | None = None,
        end: float | None = None,
        every: int = 1,
        retries: int = 3,
        stopped: Callable[[], bool] = lambda: False,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.source, self.start, self.end, self.every = source, start, end, every
        self.retries, self.stopped, self.say = retries, stopped, say
        self.broken: list[str] = []
        self.broken_count = 0
        self._av = import_av()
        self._index, self._last = 0, None
        self._container = self._open()
        self.stream = self._container.streams.video[0]
        self.rate = Fraction(self.stream.average_rate or self.stream.guessed_rate or 30)
        self.time_base = self.stream.time_base or Fraction(1, 90000)
        self.sound = next(iter(self._container.streams.audio), None)
        self._ends = self._container.duration is not None

    def __iter__(self) -> Iterator[Frame | Sound]:
        failures = 0
        try:
            while True:
                before = self._index
                try:
                    yield from self._items()
                    return
                except (self._av.error.FFmpegError, OSError) as error:
                    if self.source.kind == "file":
                        self._break(f"after frame {self._index - 1} the file cannot be read ({_cause(error)})")
                        return
                    failures = 1 if self._index > before else failures + 1
                    if failures > self.retries:
                        raise OSError(
                            f"{self.source.name} broke off ({_cause(error)}) and was tried again {self.retries} times"
                        ) from error
                    self.say(
                        f"{self.source.name}: broke off ({_cause(error)}), trying again ({failures} of {self.retries})"
                    )
                    self._reopen()
                    if self.stopped():
                        return
        finally:
            self.close()

    def close(self) -> None:
        """Let the source go."""
        if self._container is not None:
            self._container.close()
            self._container = None

    def _items(self) -> Iterator[Frame | Sound]:
        if self._container is None:
            self._container = self._open()
        container, video = self._container, self._container.streams.video[0]
        sound = next(iter(container.streams.audio), None) if self.sound is not None else None
        resumed, first, shift = self._last, None, 0.0
        for packet in container.demux([stream for stream in (video, sound) if stream is not None]):
            if self.stopped():
                return
            if packet.stream is sound:
                if packet.pts is not None and first is not None:
                    moment = float(packet.pts * packet.time_base) - first + shift
                    if resumed is None or moment > resumed:
                        yield Sound(packet, moment)
                continue
            for frame in self._decoded(packet):
                moment = self._moment(frame, first, shift)
                if first is None:
                    first = float(frame.time) if frame.time is not None else 0.0
                    if resumed is not None and not self._ends:
                        shift = resumed + float(1 / self.rate)  # a live stream goes on where it broke off
                    moment = self._moment(frame, first, shift)
                if resumed is not None and moment <= resumed:
                    continue  # seen before a file on a server broke off
                index, self._last = self._index, moment
                self._index += 1
                if frame.is_corrupt:
                    self._break(f"frame {index} at {moment:.2f} s is damaged")
                if self.end is not None and moment > self.end:
                    return
                if index % self.every or (self.start is not None and moment < self.start):
                    continue
                yield Frame(index, moment, _upright(frame), frame.is_corrupt)

    def _moment(self, frame: Any, first: float | None, shift: float) -> float:
        """The time of a frame, always after the one before it in this pass."""
        if frame.time is None:
            return shift if first is None else (self._last or 0.0) + float(1 / self.rate)
        return float(frame.time) - (float(frame.time) if first is None else first) + shift

    def _decoded(self, packet: Any) -> list[Any]:
        try:
            return packet.decode()
        except self._av.error.EOFError:
            return []
        except self._av.error.FFmpegError as error:
            where = f" at {float(packet.pts * packet.time_base):.2f} s" if packet.pts is not None else ""
            self._break(f"the frame after frame {self._index - 1}{where} cannot be decoded ({_cause(error)})")
            return []

    def _break(self, what: str) -> None:
        self.broken_count += 1
        if len(self.broken) < NAMED:
            self.broken.append(what)

    def _reopen(self) -> None:
        """Close what broke off and wait; the next pass opens it."""
        self.close()
        until = time.monotonic() + PAUSE
        while time.monotonic() < until and not self.stopped():
            time.sleep(0.05)

    def _open(self) -> Any:
        address, how = self.source.address, {}
        if self.source.kind == "webcam":
            formats = {"linux": ("video4linux2", f"/dev/video{address}"), "darwin": ("avfoundation", address)}
            if sys.platform not in formats:
                raise OSError(f"webcam {address}: webcams are opened by number on Linux and macOS only")
            how["format"], address = formats[sys.platform]
        elif self.source.kind == "address":
            how["timeout"] = (SILENCE, SILENCE)
            if address.lower().startswith("rtsp"):
                how["options"] = {"rtsp_transport": "tcp"}
        else:
            address = f"file:{address}"  # no name of a file is an address or a protocol
        try:
            container = self._av.open(address, **how)
        except (self._av.error.FFmpegError, OSError, ValueError) as error:
            raise OSError(f"{self.source.name} cannot be opened as a video ({_cause(error)})") from error
        if not container.streams.video:
            container.close()
            raise OSError(f"{self.source.name} holds no video")
        return container


def import_av() -> Any:
    """The package PyAV.

    Raises:
        ValueError: it is not installed; the message says how to install it.
    """
    try:
        import av
    except ImportError as error:
        raise ValueError(INSTALL) from error
    av.logging.set_level(None)  # what matters is said in our own words
    return av


def _upright(frame: Any) -> np.ndarray:
    """uint8 [H, W, 3] as the camera was held."""
    pixels = frame.to_ndarray(format="rgb24")
    turns = round(getattr(frame, "rotation", 0) / 90) % 4
    return np.ascontiguousarray(np.rot90(pixels, turns)) if turns else pixels


def _cause(error: BaseException) -> str:
    """What went wrong, without the address, which may hold a password."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return re.sub(r"\w+://\S+", "…", text)
