"""Which inputs of `predict.py` are videos: files, those in folders, streams and webcams. Nothing here imports torch."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

SUFFIXES = frozenset(
    ".3gp .asf .avi .flv .m2ts .m4v .mjpeg .mkv .mov .mp4 .mpeg .mpg .mts .mxf .ogv .ts .vob .webm .wmv .y4m".split()
)
STREAMS = ("rtsp://", "rtsps://")
WEB = ("http://", "https://")
LINES = ".jsonl"  # added to the name of a video that is written, for its lines of JSON


@dataclass(frozen=True)
class Source:
    """A video.

    Attributes:
        address: what is opened: a path, an address, or the number of a webcam.
        name: for messages and results, relative to the folder that was given; without the password of an address.
        kind: file, webcam or address.
    """

    address: str
    name: str
    kind: str


@dataclass
class Inputs:
    """The inputs of a command line, sorted: what may be images stays as it was given."""

    images: list[str] = field(default_factory=list)
    videos: list[Source] = field(default_factory=list)
    web: list[str] = field(default_factory=list)  # http(s) addresses without the suffix of a video


def sort_inputs(entries: Sequence[str], of_images: Collection[str] = ()) -> Inputs:
    """Tell videos, addresses and the rest apart; folders are searched for videos.

    A folder that holds videos and no image is not passed on to be searched for images.

    Args:
        entries: of the command line.
        of_images: suffixes of images, such as ".png".
    """
    inputs = Inputs()
    for entry in entries:
        low = entry.lower()
        if os.path.isdir(entry):
            found, has_images = _search(entry, of_images)
            inputs.videos += found
            if has_images or not found:
                inputs.images.append(entry)
        elif os.path.lexists(entry):
            kept = Path(entry).suffix.lower() in SUFFIXES
            inputs.videos.append(Source(entry, Path(entry).name, "file")) if kept else inputs.images.append(entry)
        elif low.startswith(STREAMS) or (low.startswith(WEB) and Path(urlsplit(entry).path).suffix.lower() in SUFFIXES):
            inputs.videos.append(address_source(entry))
        elif low.startswith(WEB):
            inputs.web.append(entry)
        elif re.fullmatch(r"\d{1,3}", entry):
            inputs.videos.append(Source(entry, f"webcam-{entry}", "webcam"))
        elif Path(entry).suffix.lower() in SUFFIXES and not any(part in entry for part in ("*", "?", "[", "://")):
            inputs.videos.append(Source(entry, Path(entry).name, "file"))
        else:
            inputs.images.append(entry)
    return inputs


def address_source(address: str) -> Source:
    """The video at an address; neither its password nor its query enters the name."""
    parts = urlsplit(address)
    place = "/".join(filter(None, (parts.netloc.rsplit("@", 1)[-1], parts.path.strip("/"))))
    return Source(address, re.sub(r"[^\w.-]+", "_", place)[:120].strip(".") or "stream", "address")


def _search(folder: str, of_images: Collection[str]) -> tuple[list[Source], bool]:
    """The videos below a folder, sorted, without those `predict.py` wrote; and whether it has images."""
    found, has_images = [], False
    for path in sorted(_files_below(folder)):
        if path.suffix.lower() not in SUFFIXES:
            has_images = has_images or path.suffix.lower() in of_images
        elif not os.path.lexists(f"{path}{LINES}"):
            found.append(Source(str(path), path.relative_to(folder).as_posix(), "file"))
    return found, has_images


def _files_below(folder: str) -> Iterator[Path]:
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(place, name) for name in names if not name.startswith("."))
