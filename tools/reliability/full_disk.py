"""A training on a disk that has room for one checkpoint and a half, and then for all of them.

python -m tools.reliability.full_disk --out outputs/full_disk

Where this process may mount a tmpfs for itself alone (Linux, root) that is the disk; elsewhere, and with `--no_tmpfs`,
it is a file that raises ENOSPC half-way. `tools.reliability.torture` ends with this trial. Any violation gives exit
code 1.
"""

from __future__ import annotations

import argparse
import builtins
import ctypes
import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

import util.files
from evaluation import report
from tools.reliability.forked_run import ForkedRun
from tools.reliability.tiny_run import differences, fresh_folder, tiny_run
from util.checkpoint import CheckpointError, load_checkpoint

EPOCHS = 4
CLONE_NEWNS = 0x00020000  # linux/sched.h: mounts of this process's own


def run_undisturbed(command: list[str], folder: Path) -> ForkedRun:
    """One whole run into `folder`, for others to be compared with; prepares this process, too, for the forks to come.

    Raises:
        RuntimeError: the run failed.
    """
    torch.set_num_threads(1)
    report.draw_evaluation = lambda *parts: None  # pictures take longer than all the rest
    run = ForkedRun([*command, "--output_dir", str(folder)], folder.with_suffix(".txt"))
    run.wait()
    if run.code != 0:
        raise RuntimeError(f"the undisturbed run failed, see {run.said}")
    return run


def fill_disk(
    out: Path, command: list[str], reference: Path, epochs: int, *, tmpfs: bool = True
) -> tuple[str, int, list[str]]:
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
        tmpfs: try to mount one.

    Returns:
        (what was counted, saves that failed for want of space, violations: what should have been otherwise).
    """
    folder = out / "full_disk"
    folder.mkdir()
    command = [*command, "--output_dir", str(folder), "--resume", "auto"]
    size = (reference / "checkpoint.pth").stat().st_size
    mounted = tmpfs and _mount(folder, size + size // 2)
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

    util.files.open = open_scarcely  # found there before the built-in one


def main(argv: list[str] | None = None) -> int:
    """The command; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("outputs/full_disk"), help="folder for the runs")
    parser.add_argument("--no_tmpfs", action="store_true", help="use a file that raises ENOSPC")
    options = parser.parse_args(argv)
    out = options.out.absolute()
    try:
        fresh_folder(out, "full_disk")
        command = tiny_run(out, "--batch_size", "2", "--epochs", str(EPOCHS), "--eval_every", "2")
        run_undisturbed(command, out / "undisturbed")
        name, saves, violations = fill_disk(out, command, out / "undisturbed", EPOCHS, tmpfs=not options.no_tmpfs)
    except (OSError, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print("\n".join([f"{name}: {saves}", f"violations: {len(violations)}", *violations]))
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
