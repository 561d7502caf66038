"""Opening a video file, stream or webcam with PyAV, and what it says of itself."""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from prediction.sources.address import receive
from prediction.video.sources import Source
from util.loading.transfer import Refused

MAX_DOWNLOAD, LONGEST_DOWNLOAD = 8 * 2**30, 3600.0  # bytes, seconds
SILENCE = 10.0  # seconds that a stream may send nothing
INSTALL = 'the package av, which videos need, is not installed: pip install ".[video]"'


@dataclass(frozen=True)
class SoundFormat:
    """What is known of the sound of a source; it stays valid when the source is closed.

    Attributes:
        codec: its name.
        rate: samples per second.
        channels: their number.
        template: a stream of the same format, or None where MP4 does not hold it.
    """

    codec: str
    rate: int
    channels: int
    template: Any

    @classmethod
    def of(cls, stream: Any) -> SoundFormat:
        """The format of a stream of PyAV's."""
        holder, context = import_av().open(io.BytesIO(), "w", format="mp4"), stream.codec_context
        try:
            template = holder.add_stream_from_template(stream)
        except ValueError:
            template = None
        return cls(context.name, context.sample_rate, context.channels, template)


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


def open_source(source: Source) -> Any:
    """A container of PyAV that holds a video.

    Raises:
        ValueError: `av` is not installed.
        OSError: it cannot be opened, or holds no video; no message has a password in it.
    """
    av = import_av()
    address, how = source.address, {"metadata_errors": "replace"}
    if source.kind == "webcam":
        formats = {"linux": ("video4linux2", f"/dev/video{address}"), "darwin": ("avfoundation", address)}
        if sys.platform not in formats:
            raise OSError(f"webcam {address}: webcams are opened by number on Linux and macOS only")
        how["format"], address = formats[sys.platform]
    elif source.kind == "address":
        how["timeout"] = (SILENCE, SILENCE)
        if address.lower().startswith("rtsp"):
            how["options"] = {"rtsp_flags": "prefer_tcp"}  # loses nothing; UDP where a server offers only that
    else:
        address = f"file:{address}"  # no name of a file is an address or a protocol
    try:
        container = av.open(address, **how)
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise OSError(f"{source.name} cannot be opened as a video ({cause_of(error)})") from error
    video, lack = container.streams.best("video"), ""
    if video is None or video.disposition & av.stream.Disposition.attached_pic:  # the cover of a song
        lack = "no video"
    elif video.codec_context is None:
        lack = "a video of an unknown codec"
    if lack:
        container.close()
        raise OSError(f"{source.name} holds {lack}")
    return container


def download(source: Source, folder: Path, stopped: Callable[[], bool]) -> Source:
    """A video at an http(s) address as a file in `folder`.

    Raises:
        OSError: it cannot be loaded, or is too large; no message has a password in it.
    """
    path = folder / "video"
    try:
        receive(source.address, path, max_bytes=MAX_DOWNLOAD, longest=LONGEST_DOWNLOAD, stopped=stopped)
    except (Refused, ValueError) as error:
        raise OSError(cause_of(error)) from error
    return replace(source, address=str(path), kind="file")


def sound_of(container: Any) -> Any:
    """The stream of the sound, if there is one that can be decoded."""
    sound = container.streams.best("audio")
    return sound if sound is not None and sound.codec_context is not None and sound.codec_context.sample_rate else None


def ends(container: Any) -> bool:
    """Whether a source has an end, by its duration or by its size on a server; a live stream has none."""
    return container.duration is not None or (container.size > 0 and container.format.name != "hls")


def cause_of(error: BaseException) -> str:
    """What went wrong, without the address, which may hold a password."""
    if isinstance(error, EOFError):
        return "it ends too early"
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return re.sub(r"\w+://\S+", "…", text)
