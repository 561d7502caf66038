"""`progress.jsonl`: what a job of `predict.py` has done and written, so that it can be resumed or cleared away.

The first line holds the settings. For each image, a line names the files that are about to be written, and after they
are written another line holds the results and the state of those files. So every file of a job is known, whenever it
was stopped.
"""

from __future__ import annotations

import json
import math
import os
import stat
import zlib
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from prediction.output_names import crop_name, map_name, picture_name
from util.files import is_count, is_number

PROGRESS = "progress.jsonl"
SUMMARIES = ("detections.json", "results.json", "segmentations.json", "panoptic.json")
FOLDERS = ("pictures", "crops", "attention", "panoptic", "panoptic_pictures")
_START = b'{"settings": {'
_CHUNK = 1 << 20  # bytes

Record = dict[str, Any]


@dataclass
class JobRecord:
    """What `progress.jsonl` says.

    Attributes:
        settings: those of the job; None if the line is damaged.
        done: image → its record, in the order of completion.
        files: all files that the job may have written, relative to the folder.
        damaged: number of lines that cannot be used; an unfinished last line is none.
    """

    settings: dict[str, Any] | None = None
    done: dict[str, Record] = field(default_factory=dict)
    files: set[str] = field(default_factory=set)
    damaged: int = 0


def read_record(folder: Path) -> JobRecord | None:
    """The record of the job in a folder; None if there is none.

    Raises:
        ValueError: nothing in the file is from predict.py.
        OSError: it cannot be read.
    """
    path = folder / PROGRESS
    if not os.path.lexists(path):
        return None
    if not path.is_file():
        raise ValueError(f"{path} is not a file: remove it, or choose another folder")
    record = JobRecord()
    lines = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines):
        entry = _parsed(line)
        if number == 0 and isinstance(entry, dict) and isinstance(entry.get("settings"), dict):
            record.settings = entry["settings"]
        elif _is_begun(entry):
            record.files.update(file for file in entry["files"] if _is_ours(file))
            record.done.pop(entry["begun"], None)  # a line that follows says that it is done, once it is
        elif _is_record(entry):
            record.files.update(_files_of(folder, entry))
            record.done[entry["name"]] = entry
        elif line.strip() and number < len(lines) - 1:
            record.damaged += 1
    if record.settings is None and not record.done and not record.files and any(line.strip() for line in lines):
        raise ValueError(
            f"{path} is damaged or not from predict.py: choose another folder, or remove it and the results beside it"
        )
    return record


def holds_job(folder: Path) -> bool:
    """True if a job of predict.py has written to a folder, as the beginning of its record says."""
    try:
        if not (folder / PROGRESS).is_file():
            return False
        with (folder / PROGRESS).open("rb") as file:
            return file.read(len(_START)) == _START
    except OSError:
        return False


def remove_files(folder: Path, files: Iterable[str]) -> int:
    """Remove files of a job, and folders that become empty; returns the number of files."""
    removed, emptied = 0, set()
    for file in sorted(files):
        path = folder / file
        if _is_ours(file) and _stays_below(path.parent, folder):
            with suppress(FileNotFoundError, NotADirectoryError):
                path.unlink()
                removed += 1
            emptied.update(PurePosixPath(file).parents)
    for empty in sorted(emptied - {PurePosixPath(".")}, key=lambda parent: -len(parent.parts)):
        with suppress(OSError):  # not empty
            (folder / empty).rmdir()
    return removed


def state_of(path: Path) -> list[int]:
    """[size, modified, changed, CRC-32 of the content] of a file, by which `is_unchanged` knows it; times in ns."""
    before = path.stat()
    return [before.st_size, before.st_mtime_ns, before.st_ctime_ns, _checksum(path)]


def is_unchanged(path: Path, state: Any) -> bool:
    """True if a file is still as `state_of` found it. It is read only if its times are others."""
    if not isinstance(state, list) or len(state) != 4:
        return False
    try:
        now = path.stat()
        if not stat.S_ISREG(now.st_mode) or now.st_size != state[0]:
            return False
        return [now.st_mtime_ns, now.st_ctime_ns] == state[1:3] or _checksum(path) == state[3]
    except (OSError, ValueError):
        return False


def _checksum(path: Path) -> int:
    checksum = 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            checksum = zlib.crc32(chunk, checksum)
    return checksum


def _parsed(line: bytes) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _is_begun(entry: Any) -> bool:
    return isinstance(entry, dict) and isinstance(entry.get("begun"), str) and _are_texts(entry.get("files"))


def _is_record(entry: Any) -> bool:
    return (
        isinstance(entry, dict)
        and _are_texts([entry.get("name"), entry.get("file")])
        and all(is_count(entry.get(side)) for side in ("width", "height"))
        and _are_dicts(entry.get("results"))
        and all(_is_result(result) for result in entry["results"])
        and isinstance(entry.get("files", {}), dict)
        and all(map(_is_ours, entry.get("files", {})))
        and is_number(entry.get("best_score", 0.0))
        and _are_dicts(entry.get("segments", []))
        and all(is_count(segment.get("category_id")) for segment in entry.get("segments", []))
        and ("segments" in entry) == isinstance(entry.get("map_name"), str)
    )


def _is_result(result: Mapping[str, Any]) -> bool:
    box = result.get("bbox")
    numbers = [*box, result.get("score"), result.get("area")] if isinstance(box, list) and len(box) == 4 else [None]
    return is_count(result.get("category_id")) and all(is_number(x) and math.isfinite(x) for x in numbers)


def _are_texts(values: Any) -> bool:
    return isinstance(values, list) and all(isinstance(value, str) for value in values)


def _are_dicts(values: Any) -> bool:
    return isinstance(values, list) and all(isinstance(value, dict) for value in values)


def _files_of(folder: Path, record: Record) -> list[str]:
    """The files of a record; those written by earlier versions, which did not name them, are known by their names."""
    if "files" in record:
        return list(record["files"])
    picture = picture_name(record["name"])
    files = [f"{kind}/{picture}" for kind in ("pictures", "attention", "panoptic_pictures")]
    crops = [crop_name(picture, number) for number in range(1, len(record["results"]) + 1)]
    classes = [path.name for path in sorted((folder / "crops").glob("*"))] if crops else []
    return [*files, f"panoptic/{map_name(record['name'])}", *(f"crops/{c}/{crop}" for c in classes for crop in crops)]


def _is_ours(file: str) -> bool:
    """True if a path lies in one of the folders that a job writes: the record itself may come from elsewhere."""
    parts = file.split("/")
    return len(parts) > 1 and parts[0] in FOLDERS and not {"", ".", ".."} & set(parts) and "\0" not in file


def _stays_below(parent: Path, folder: Path) -> bool:
    """True if no link leads from `folder` to elsewhere on the way to `parent`."""
    with suppress(OSError):
        return Path(os.path.realpath(parent)).is_relative_to(os.path.realpath(folder))
    return False
