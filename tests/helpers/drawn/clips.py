"""Clips whose frames are numbered, what was written of them, and the job that writes it."""

import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from prediction.result import Prediction
from prediction.video.job import VideoJob
from prediction.video.sources import Source

av = pytest.importorskip("av", reason="the package av is not installed")
BITS, CELL = 12, 16  # a number is drawn as a row of black and white cells


def numbered(number, size=(208, 96)):
    """A grey picture with a number drawn into it."""
    pixels = np.full((size[1], size[0], 3), 128, np.uint8)
    for bit in range(BITS):
        pixels[:CELL, bit * CELL : (bit + 1) * CELL] = 255 * (number >> bit & 1)
    return pixels


def number_in(pixels):
    middles = pixels[CELL // 2, CELL // 2 : BITS * CELL : CELL].mean(axis=-1)
    return sum(int(middle > 128) << bit for bit, middle in enumerate(middles))


def write_clip(path, times, size=(208, 96), rotation=0, mirrored=False, sound="", codec="libx264", first=0):
    """A clip whose frames are numbered from `first` on and shown at `times`, in seconds; `sound` is its codec."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        video = container.add_stream(codec, rate=30)
        video.width, video.height = size
        video.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        video.codec_context.time_base = Fraction(1, 1000)
        if rotation or mirrored:
            video.set_display_rotation(rotation, hflip=mirrored)
        tone = container.add_stream(sound, rate=16000, layout="mono") if sound else None
        for number, moment in enumerate(times, first):
            frame = av.VideoFrame.from_ndarray(numbered(number, size), format="rgb24")
            frame.pts, frame.time_base = round(moment * 1000), Fraction(1, 1000)
            container.mux(video.encode(frame))
        if tone:
            for block in range(int(times[-1] * 16000 / 1024)):
                wave = np.sin(np.arange(block * 1024, (block + 1) * 1024) * (2 * np.pi * 440 / 16000))
                frame = av.AudioFrame.from_ndarray(wave[None].astype(np.float32), format="fltp", layout="mono")
                frame.sample_rate, frame.pts = 16000, block * 1024
                container.mux(tone.encode(frame))
            container.mux(tone.encode(None))
        container.mux(video.encode(None))
    return path


def even(count, rate=30):
    return [index / rate for index in range(count)]


def decoded(path):
    """(pixels, time) of each frame of a written video."""
    with av.open(str(path)) as container:
        return [(frame.to_ndarray(format="rgb24"), frame.time) for frame in container.decode(video=0)]


def lines_of(path):
    return [json.loads(line) for line in Path(f"{path}.jsonl").read_text().splitlines()]


def nothing(images):
    """Finds nothing in any picture."""
    empty = torch.zeros(0)
    return [Prediction(image, empty.reshape(0, 4), empty, empty.long(), [], empty.long()) for image in images]


def run_job(clip, out, kind="file", detect=nothing, **how):
    """The written video, its lines, and what was said."""
    said = []
    VideoJob(detect, out, say=said.append, **how).run(Source(str(clip), "clip.mp4", kind))
    return out / "videos" / "clip.mp4", lines_of(out / "videos" / "clip.mp4"), said
