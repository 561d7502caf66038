"""A video file, stream or webcam → upright frames with their times, and packets of its sound."""

from __future__ import annotations

import errno
import math
import tempfile
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from prediction.video.clock import Clock
from prediction.video.opening import SILENCE, SoundFormat, cause_of, download, ends, import_av, open_source, sound_of
from prediction.video.sources import WEB, Source
from prediction.video.upright import Upright

PAUSE, LONGEST_PAUSE = 1.0, 30.0  # seconds before a stream is opened again: twice as long each time
STEADY = 30.0  # seconds after which a server that ends a stream is tried again as if for the first time
ENDED = "the server ended it"
TELL_DURATION = frozenset(("avi", "matroska,webm", "mov,mp4,m4a,3gp,3g2,mj2", "rtsp"))  # of others it is estimated
WITHOUT_TIMES = frozenset(("mjpeg", "mpjpeg"))  # pictures one after the other: the time is that at which one arrives
EARLY, EARLY_FILE = 0.25, 1.0  # seconds that a stream or file may lack at its end: durations are rounded
SAME = 0.0005  # seconds: times in files are rounded, some to thousandths
NAMED = 3  # broken frames that are named in the sentence


@dataclass(frozen=True)
class Frame:
    """One picture of a video: `pixels` uint8 [H, W, 3], upright; `time` in seconds from the first frame of the source.

    `index` counts the frames of the source from 0; those that cannot be decoded have no index. A `damaged` frame was
    decoded with errors. `aspect` is the width of a pixel by its height.
    """

    index: int
    time: float
    pixels: np.ndarray
    damaged: bool = False
    aspect: Fraction = Fraction(1)


@dataclass(frozen=True)
class Sound:
    """A packet of the sound or a decoded piece of it, and its time in seconds on the clock of the frames."""

    piece: Any
    time: float


class Reader:
    """Decodes a source, frame by frame.

    Args:
        source: the video.
        start, end: seconds of the source; frames before and after them are left out. None: all.
        every: keep every N-th frame.
        copied: codecs of sound whose packets are passed on; other sound is decoded.
        retries: how often a stream that breaks off is opened again, counted from its last frame.
        stopped: True ends the iteration, also while a stream is waited for.
        say: takes one sentence about a stream that is opened again.

    Attributes:
        rate: frames per second, on average or as a guess.
        time_base: the unit of the times in the source.
        sound: the format of its sound, or None.
        sound_is_lost: it has sound that cannot be decoded.
        broken: a description of each frame that could not be decoded, or was decoded with errors; at most `NAMED`.
        broken_count: their number.

    Raises:
        ValueError: `av` is not installed.
        OSError: the source cannot be opened or holds no video; no message has a password in it.
    """

    def __init__(
        self,
        source: Source,
        *,
        start: float | None = None,
        end: float | None = None,
        every: int = 1,
        copied: Collection[str] = (),
        retries: int = 3,
        stopped: Callable[[], bool] = lambda: False,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.source, self.start, self.end, self.every = source, start, end, every
        self.copied, self.retries, self.stopped, self.say = copied, retries, stopped, say
        self.broken: list[str] = []
        self.broken_count = 0
        self._av = import_av()
        self._index, self._last = 0, None
        self._folder: tempfile.TemporaryDirectory | None = None  # of what is downloaded
        self._container = open_source(self.source)
        self.stream = self._container.streams.best("video")
        self.rate = Fraction(self.stream.average_rate or self.stream.guessed_rate or 30)
        self.time_base = self.stream.time_base or Fraction(1, 90000)
        sound = sound_of(self._container)
        self.sound = SoundFormat.of(sound) if sound is not None else None
        self.sound_is_lost = self.sound is None and self._container.streams.best("audio") is not None
        self._live = source.kind != "file" and not ends(self._container)
        self._without_times = self._live and self._container.format.name in WITHOUT_TIMES
        self._clock = self._new_clock()

    def __iter__(self) -> Iterator[Frame | Sound]:
        failures = 0
        try:
            while True:
                before, began = self._index, time.monotonic()
                try:
                    yield from self._items()
                    cause = self._early_end()
                    if cause is None or self._left:
                        return
                except (self._av.error.FFmpegError, OSError) as error:
                    cause = self._cause_of_break(error)
                at = self._place()
                if self._index == 0 and self._download():
                    continue
                if self.source.kind == "file":
                    self._break(f"{at} the file cannot be read ({cause})")
                    return
                lasted = not self._live or time.monotonic() - began > STEADY
                failures = 1 if self._index > before and lasted else failures + 1
                if failures > self.retries:
                    if cause != ENDED:
                        tried = f" and was tried again {self.retries} times" if self.retries else ""
                        self._break(f"{at} the stream broke off ({cause}){tried}")
                    return
                self.say(f"{self.source.name}: broke off {at} ({cause}), trying again ({failures} of {self.retries})")
                self._wait(min(PAUSE * 2 ** min(failures - 1, 5), LONGEST_PAUSE))
                if self.stopped():
                    return
        finally:
            self.close()
            if self._folder is not None:
                self._folder.cleanup()

    @property
    def last(self) -> float | None:
        """The time of the last frame that was decoded, also of one that was left out."""
        return self._last

    def close(self) -> None:
        """Let the source go."""
        if self._container is not None:
            self._container.close()
            self._container = None

    def _items(self) -> Iterator[Frame | Sound]:
        self._left, self._reached, self._longest = False, 0.0, 0.0
        if self._container is None:
            self._container = open_source(self.source)
            if self._live and self._container.format.name == "hls" and ends(self._container):
                self._left = True  # the broadcast is over, and has become a recording
                return
            if self._live:
                self._clock.restart()
            else:
                self._clock = self._new_clock()
        container, video = self._container, self._container.streams.best("video")
        sound = sound_of(container)
        if sound is not None and (self.sound is None or sound.codec_context.name != self.sound.codec):
            sound = None
        upright = Upright()
        resumed = None if self._live else self._last  # a file on a server is read again up to where it broke off
        for packet in self._packets(container, video, sound):
            if self.stopped():
                self._left = True
                return
            if packet.stream is sound:
                yield from (sound for sound in self._sounds(packet) if resumed is None or sound.time > resumed)
                continue
            for frame in self._decoded(packet):
                moment = self._clock.frame(time.monotonic() if self._without_times else frame.time)
                if resumed is not None and moment <= resumed:
                    continue
                index, self._last = self._index, moment
                self._index += 1
                if self.end is not None and moment > self.end + SAME:
                    self._left = True
                    return
                if index % self.every or (self.start is not None and moment < self.start - SAME):
                    continue
                if frame.is_corrupt:
                    self._break(f"frame {index} at {moment:.2f} s is damaged")
                pixels, aspect = upright(frame), Fraction(video.sample_aspect_ratio or 1)
                yield Frame(index, moment, pixels, frame.is_corrupt, 1 / aspect if upright.turned else aspect)

    def _sounds(self, packet: Any) -> Iterator[Sound]:
        pieces = [packet]
        if self.sound.codec not in self.copied or self.sound.template is None:
            try:
                pieces = packet.decode()
            except self._av.error.FFmpegError:  # what cannot be decoded is silent
                return
        for piece in pieces:
            moment = None if piece.pts is None else self._clock.sound(float(piece.pts * piece.time_base))
            if moment is not None:
                yield Sound(piece, moment)

    def _packets(self, container: Any, video: Any, sound: Any) -> Iterator[Any]:
        """Packets, the last of which is empty: it asks the decoder for the frames that it holds back."""
        chosen = [stream for stream in (video, sound) if stream is not None]
        streams = container.streams if self.source.kind == "file" else chosen  # others tell how long a file should be
        try:
            for packet in container.demux(list(streams)):
                if packet.pts is not None:
                    end = float((packet.pts + (packet.duration or 0)) * packet.time_base)
                    self._longest = max(self._longest, end - self._reached)
                    self._reached = max(self._reached, end)
                if packet.stream in chosen and (packet.size or packet.stream is video):
                    yield packet
        except (self._av.error.FFmpegError, IndexError) as error:
            empty = self._av.Packet()
            empty.stream, empty.time_base = video, video.time_base
            yield empty
            if not isinstance(error, IndexError):  # PyAV's at the end of a file in which a stream begins later
                raise

    def _download(self) -> bool:
        """Load a file whose index is at its end from a server that sends no parts of files; whether that was done."""
        if self._folder is not None or self._live or not self.source.address.lower().startswith(WEB):
            return False
        self.say(f"{self.source.name}: its server sends no parts of files, so it is downloaded first")
        self.close()
        self._folder = tempfile.TemporaryDirectory()
        try:
            self.source = download(self.source, Path(self._folder.name), self.stopped)
        except OSError as error:
            self.say(f"{self.source.name}: it cannot be downloaded ({cause_of(error)})")
            return False
        return True

    def _early_end(self) -> str | None:
        """Why there should be more after the last packet, or None."""
        if self._live:
            return ENDED
        container = self._container
        if container.duration is None or container.format.name not in TELL_DURATION:
            return None
        whole = (container.duration + (container.start_time or 0)) / self._av.time_base
        allowed = EARLY_FILE if self.source.kind == "file" else EARLY
        early = whole - self._reached > max(allowed, 2 * self._longest)
        return f"it ends after {self._reached:.1f} of {whole:.1f} s" if early else None

    def _cause_of_break(self, error: BaseException) -> str:
        over = self._live and self._container is not None and getattr(error, "errno", None) == errno.EIO
        return ENDED if over else cause_of(error.__cause__ or error)

    def _new_clock(self) -> Clock:
        whole = self._container.duration
        longest = SILENCE if self._live else math.inf if whole is None else whole / self._av.time_base + SILENCE
        return Clock(float(1 / self.rate), longest)

    def _decoded(self, packet: Any) -> list[Any]:
        try:
            return packet.decode()
        except self._av.error.EOFError:
            return []
        except self._av.error.FFmpegError as error:
            where = f" at {float(packet.pts * packet.time_base):.2f} s" if packet.pts is not None else ""
            self._break(f"the frame {self._place()}{where} cannot be decoded ({cause_of(error)})")
            return []

    def _place(self) -> str:
        return f"after frame {self._index - 1}" if self._index else "before the first frame"

    def _break(self, what: str) -> None:
        self.broken_count += 1
        if len(self.broken) < NAMED:
            self.broken.append(what)

    def _wait(self, pause: float) -> None:
        """Close what broke off; the next pass opens it."""
        self.close()
        until = time.monotonic() + pause
        while time.monotonic() < until and not self.stopped():
            time.sleep(0.05)
