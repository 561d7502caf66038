"""Checks of the output folder before a job: nothing of another origin is in the way, and the settings are the same."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from prediction.job_record import FOLDERS, PROGRESS, SUMMARIES, JobRecord
from util.text import printable


def refuse_to_replace(path: Path, sources: Mapping[str, str | os.PathLike[str] | None]) -> None:
    """ValueError if a file that a command reads (what it is → file) is one that it would replace in `path`."""
    folder = Path(os.path.realpath(path))
    for what, source in sources.items():
        inside = Path(os.path.realpath(source)) if source is not None and "\0" not in os.fspath(source) else None
        if inside is None or not inside.is_relative_to(folder):
            continue
        parts = inside.relative_to(folder).parts
        if parts and (parts[0] in FOLDERS or parts in {(name,) for name in (PROGRESS, *SUMMARIES)}):
            raise ValueError(f"--out {path} would replace {what} {source}: choose another folder")


def refuse_others(path: Path, planned: Iterable[str], earlier: JobRecord) -> None:
    """ValueError if files that a job is about to write (relative to `path`) exist and are not from an earlier job."""
    has_job = earlier.settings is not None or earlier.done or earlier.files
    others = [name for name in SUMMARIES if not has_job and os.path.lexists(path / name)]
    others += [file for file in planned if file not in earlier.files and os.path.lexists(path / file)]
    if others:
        more = f" and {len(others) - 1} more" * (len(others) > 1)
        raise ValueError(
            f"{path / others[0]}{more} would be replaced, but no job of predict.py recorded in {PROGRESS} has written "
            "it: choose another folder with --out, or move it away"
        )


def check_same_settings(now: Mapping[str, Any], before: Mapping[str, Any], progress: Path) -> None:
    """ValueError if a job is resumed with other settings."""
    changes = [
        f"{key} {printable(repr(before.get(key)))} (now {printable(repr(value))})"
        for key, value in now.items()
        if before.get(key) != value
    ]
    if changes:
        raise ValueError(
            f"{progress} was started with other settings, {', '.join(changes)}: use those, or omit --resume to start "
            "anew"
        )
