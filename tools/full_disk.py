"""A training on a disk that has room for one checkpoint and a half, and then for all of them."""

from __future__ import annotations

import builtins
import ctypes
import errno
import os
import subprocess
from pathlib import Path
from typing import Any

import util.checkpoint
from tools.forked_run import ForkedRun
from tools.tiny_run import differences
from util.checkpoint import CheckpointError, load_checkpoint

CLONE_NEWNS = 0x00020000  # linux/sched.h: mounts of this process's own


def fill_disk(out: Path, command: list[str], reference: Path, epochs: int) -> tuple[str, int, list[str]]:
    """Train in `out`/full_disk.

    The second save and all later ones break off half-way for want of space. The run has to say so, to train all epochs
    nevertheless, to end with exit code 1, and to leave the first checkpoint whole and nothing beside it. With space
    enough it then has to go on and to end as the undisturbed run did.

    The disk is a tmpfs where this process may mount one for itself alone (Linux, root); elsewhere a file that raises
    ENOSPC half-way.

    Args:
        out: of the tool.
        command, reference: command line and output folder of the undisturbed run.
        epochs: of the run.

    Returns:
        (what was counted, saves that failed for want of space, violations: what should have been otherwise).
    """
    folder = out / "full_disk"
    folder.mkdir()
    command = [*command, "--output_dir", str(folder), "--resume", "auto"]
    size = (reference / "checkpoint.pth").stat().st_size
    mounted = _mount(folder, size + size // 2)
    kind = "a tmpfs" if mounted else "a file that raises ENOSPC"

    starved = ForkedRun(command, out / "full_disk.txt", None if mounted else lambda: _raise_after(size // 2))
    starved.wait()
    text = starved.text()
    failures = text.count("could not be saved")
    expected = {
        "no save failed": failures > 0,
        "the full disk was not named": "No space left on device" in text,
        f"it did not train to epoch {epochs - 1}": f"Epoch: [{epochs - 1}]" in text,
        f"it ended with exit code {starved.code} in place of 1": starved.code == 1,
        "half a file was left behind": not [*folder.rglob(".*.tmp")],
    }
    try:
        expected["the first checkpoint is not the one that is left"] = (
            load_checkpoint(folder / "checkpoint.pth")["epoch"] == 0
        )
    except CheckpointError as error:
        expected[str(error)] = False

    if mounted:
        subprocess.run(["mount", "-o", f"remount,size={20 * size}", str(folder)], check=True)
    fed = ForkedRun(command, out / "full_disk_again.txt")
    fed.wait()
    expected[f"with space again, it ended with exit code {fed.code}"] = fed.code == 0
    problems = [f"full disk, see {starved.said}: {sentence}" for sentence, holds in expected.items() if not holds]
    if not problems:
        problems = [f"full disk: after its end, {found}" for found in differences(folder, reference)]
    return f"saves that met a full disk ({kind})", failures, problems


def _mount(folder: Path, size: int) -> bool:
    """Mount a tmpfs of `size` bytes that only this process and its children see; False where that is not allowed."""
    try:
        alone = ctypes.CDLL(None).unshare(CLONE_NEWNS) == 0
        if not alone:
            return False
        for arguments in (["--make-rprivate", "/"], ["-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]):
            subprocess.run(["mount", *arguments], check=True, capture_output=True)
    except (AttributeError, OSError, subprocess.CalledProcessError):
        return False
    return True


def _raise_after(limit: int) -> None:
    """From the second checkpoint on, no file that this process writes as one takes more than `limit` bytes."""
    opened: list[str] = []

    class Full:
        """A file on a full disk."""

        def __init__(self, file: Any):
            self._file, self._free = file, limit

        def __getattr__(self, name: str) -> Any:
            return getattr(self._file, name)

        def __enter__(self) -> Full:
            return self

        def __exit__(self, *_: object) -> None:
            self._file.close()

        def write(self, content: Any) -> int:
            self._free -= memoryview(content).nbytes
            if self._free < 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return self._file.write(content)

    def open_scarcely(path: Any, mode: str = "r", **options: Any) -> Any:
        file = builtins.open(path, mode, **options)
        if "w" not in mode or ".checkpoint" not in os.fspath(path):
            return file
        opened.append(str(path))
        return Full(file) if len(opened) > 1 else file

    util.checkpoint.open = open_scarcely  # found there before the built-in one
