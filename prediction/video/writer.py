"""Pictures and packets of sound → an MP4 file with H.264 that a browser plays."""

from __future__ import annotations

import os
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from prediction.video.opening import SoundFormat, import_av
from prediction.video.reader import Sound

SOUND = frozenset(("aac", "ac3", "alac", "eac3", "flac", "mp3", "opus"))  # what MP4 holds and players know
RATES = frozenset((8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 64000, 88200, 96000))  # of AAC
LAYOUTS = {1: "mono", 6: "5.1"}  # of AAC, by channels; stereo for all else
# How colours become YUV here: by BT.601's matrix in the limited range. A player that is not told all of it guesses.
COLOURS = {"colorspace": 6, "color_range": 1, "color_primaries": 1, "color_trc": 1}
GAP = 0.05  # seconds between two pieces of sound that are kept
FINEST = 90000  # units of a second; finer times are rounded to it


class Writer:
    """Writes to a temporary name; `close` renames it, also after only a part of the video.

    Args:
        path: the MP4 file; missing folders are created.
        size: (w, h) of the first picture. Odd sides get one more row or column, as H.264 needs; pictures of another
            size are scaled to it.
        rate: frames per second, about; the times of the pictures are kept.
        time_base: unit of the times.
        sound: the format of the sound to carry over, or None. Its packets are copied if MP4 holds their codec, see
            `SOUND`; else decoded sound is written as AAC.
        aspect: the width of a pixel by its height.

    Attributes:
        converted: the codec of sound that is written as AAC, or nothing.
    """

    def __init__(
        self,
        path: Path,
        size: tuple[int, int],
        rate: Fraction,
        time_base: Fraction,
        sound: SoundFormat | None = None,
        aspect: Fraction = Fraction(1),
    ) -> None:
        self._av = import_av()
        self.path, self._part = path, path.with_name(f".{path.name}.part")
        path.parent.mkdir(parents=True, exist_ok=True)
        self._size = size[0] + size[0] % 2, size[1] + size[1] % 2
        self._container = self._av.open(str(self._part), "w", format="mp4", options={"movflags": "faststart"})
        self._video = self._container.add_stream("libx264", rate=rate, options={"preset": "veryfast", "crf": "23"})
        self._video.width, self._video.height = self._size
        self._video.pix_fmt = "yuv420p"
        self._video.codec_context.max_b_frames = 0
        self._base = time_base if time_base >= Fraction(1, FINEST) else Fraction(1, FINEST)
        self._video.time_base = self._video.codec_context.time_base = self._base
        self._video.codec_context.sample_aspect_ratio = aspect
        for name, meaning in COLOURS.items():
            setattr(self._video.codec_context, name, meaning)
        self._sound, self.converted, self._next = None, "", 0
        if sound is not None and sound.codec in SOUND and sound.template is not None:
            self._sound = self._container.add_stream_from_template(sound.template)
        elif sound is not None:
            self.converted = sound.codec
            rate, layout = sound.rate if sound.rate in RATES else 48000, LAYOUTS.get(sound.channels, "stereo")
            self._sound = self._container.add_stream("aac", rate=rate, layout=layout)
        self._start: float | None = None
        self._last_pts = self._last_dts = -1

    def picture(self, pixels: np.ndarray, time: float) -> None:
        """Add uint8 [H, W, 3], shown from `time` on, in seconds; the first one starts the video."""
        if self._start is None:
            self._start = time
        frame = self._av.VideoFrame.from_ndarray(self._fitted(pixels), format="rgb24")
        frame.pts = self._last_pts = max(round((time - self._start) / self._base), self._last_pts + 1)
        frame.time_base = self._base
        self._mux(self._video.encode(frame))

    def sound(self, sound: Sound) -> None:
        """Add a packet, or a decoded piece if sound is converted; those before the first picture are left out."""
        piece = sound.piece
        if self._sound is None or self._start is None or sound.time < self._start or piece.pts is None:
            return
        if self.converted:
            self._convert(piece, sound.time - self._start)
            return
        moved = round((sound.time - self._start) / piece.time_base)
        if moved <= self._last_dts:
            return
        piece.pts = piece.dts = self._last_dts = moved
        piece.stream = self._sound
        self._container.mux(piece)

    def _convert(self, piece: Any, time: float) -> None:
        place = round(time * piece.sample_rate)
        if place < self._next - GAP * piece.sample_rate:
            return
        piece.pts = place if place > self._next + GAP * piece.sample_rate else self._next
        piece.time_base = Fraction(1, piece.sample_rate)
        self._next = piece.pts + piece.samples
        self._mux(self._sound.encode(piece))

    def close(self) -> None:
        """Finish the file: from now on it plays, and has its name. What cannot be finished is removed."""
        try:
            try:
                if self._start is not None:
                    if self.converted:
                        self._mux(self._sound.encode(None))
                    self._mux(self._video.encode(None))
            finally:
                self._container.close()
        except BaseException:
            self._part.unlink(missing_ok=True)
            raise
        if self._start is None:
            self._part.unlink(missing_ok=True)
        else:
            os.replace(self._part, self.path)

    def _mux(self, packets: Sequence[Any]) -> None:
        for packet in packets:
            self._container.mux(packet)

    def _fitted(self, pixels: np.ndarray) -> np.ndarray:
        width, height = self._size
        right, below = width - pixels.shape[1], height - pixels.shape[0]
        if right in (0, 1) and below in (0, 1):
            return np.pad(pixels, ((0, below), (0, right), (0, 0)), mode="edge") if right or below else pixels
        other = self._av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
        return other.reformat(width=width, height=height).to_ndarray()
