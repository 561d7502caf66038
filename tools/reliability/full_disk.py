"""Train on a disk with space for one and a half checkpoints, then resume with enough space.

python -m tools.reliability.full_disk --out outputs/full_disk

The disk is a tmpfs if this process may mount one in its own namespace (Linux, root); otherwise, and with `--no_tmpfs`,
files raise ENOSPC half-way. `tools.reliability.torture` ends with this trial. Exit code 1 on any violation.
"""

from __future__ import annotations

import argparse
import builtins
import ctypes
import errno
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

import util.files
from evaluation import report
from tools.command import ToolError, run_tool, tool_parser
from tools.reliability.forked_run import ForkedRun
from tools.reliability.tiny_run import differences, fresh_folder, tiny_run
from util.checkpoint import CheckpointError, load_checkpoint

EPOCHS = 4
CLONE_NEWNS = 0x00020000  # linux/sched.h: a mount namespace for this process


def run_undisturbed(command: list[str], folder: Path) -> ForkedRun:
    """A complete run into `folder`, as the reference for others. Also prepares this process for later forks.

    Raises:
        ToolError: the run failed.
    """
    torch.set_num_threads(1)
    report.draw_evaluation = lambda *parts: None  # pictures take longer than everything else
    run = ForkedRun([*command, "--output_dir", str(folder)], folder.with_suffix(".txt"))
    run.wait()
    if run.code != 0:
        raise ToolError(f"the undisturbed run failed, see {run.log}")
    return run


def fill_disk(
    out: Path, command: list[str], reference: Path, epochs: int, *, tmpfs: bool = True
) -> tuple[str, int, list[str]]:
    """Train in `out`/full_disk.

    The second save and all later ones fail half-way because the disk is full. The run must report this, train all
    epochs nevertheless, end with exit code 1, and leave the first checkpoint intact and no partial file. With enough
    space it must then resume and end as the undisturbed run did.

    Args:
        out: output folder of the tool.
        command, reference: command line and output folder of the undisturbed run.
        epochs: number of epochs of the run.
        tmpfs: try to mount a tmpfs.

    Returns:
        (name of the count, number of saves that failed because the disk was full, violations as sentences).
    """
    folder = out / "full_disk"
    folder.mkdir()
    command = [*command, "--output_dir", str(folder), "--resume", "auto"]
    size = (reference / "checkpoint.pth").stat().st_size
    mounted = tmpfs and _mount(folder, size + size // 2)
    kind = "a tmpfs" if mounted else "a file that raises ENOSPC"

    full = ForkedRun(command, out / "full_disk.txt", None if mounted else lambda: _raise_after(size // 2))
    full.wait()
    text = full.text()
    failures = text.count("could not be saved")
    expected = {
        "no save failed": failures > 0,
        "the full disk was not reported": "No space left on device" in text,
        f"it did not train to epoch {epochs - 1}": f"Epoch: [{epochs - 1}]" in text,
        f"it ended with exit code {full.code} instead of 1": full.code == 1,
        "a partial file was left behind": not [*folder.rglob(".*.tmp")],
    }
    try:
        expected["the remaining checkpoint is not the first one"] = (
            load_checkpoint(folder / "checkpoint.pth")["epoch"] == 0
        )
    except CheckpointError as error:
        expected[str(error)] = False

    if mounted:
        subprocess.run(["mount", "-o", f"remount,size={20 * size}", str(folder)], check=True)
    resumed = ForkedRun(command, out / "full_disk_again.txt")
    resumed.wait()
    expected[f"with enough space, it ended with exit code {resumed.code}"] = resumed.code == 0
    problems = [f"full disk, see {full.log}: {sentence}" for sentence, holds in expected.items() if not holds]
    if not problems:
        problems = [f"full disk: at the end, {found}" for found in differences(folder, reference)]
    return f"saves that met a full disk ({kind})", failures, problems


def _mount(folder: Path, size: int) -> bool:
    """Mount a tmpfs of `size` bytes that only this process and its children see; False if that is not allowed."""
    try:
        if ctypes.CDLL(None).unshare(CLONE_NEWNS) != 0:
            return False
        for arguments in (["--make-rprivate", "/"], ["-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]):
            subprocess.run(["mount", *arguments], check=True, capture_output=True)
    except (AttributeError, OSError, subprocess.CalledProcessError):
        return False
    return True


def _raise_after(limit: int) -> None:
    """After the first file, the first checkpoint, writing more than `limit` bytes to a new file raises ENOSPC."""
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

    def open_limited(path: Any, mode: str = "r", **options: Any) -> Any:
        file = builtins.open(path, mode, **options)
        if not os.fspath(path).endswith(".tmp"):  # see `write_atomically`
            return file
        opened.append(str(path))
        return Full(file) if len(opened) > 1 else file

    util.files.open = open_limited  # shadows the built-in one there


def main(options: argparse.Namespace) -> int:
    """Run the trial and print the result; returns 1 if anything was violated."""
    out = options.out.absolute()
    fresh_folder(out, "full_disk")
    command = tiny_run(out, "--batch_size", "2", "--epochs", str(EPOCHS), "--eval_every", "2")
    run_undisturbed(command, out / "undisturbed")
    name, saves, violations = fill_disk(out, command, out / "undisturbed", EPOCHS, tmpfs=not options.no_tmpfs)
    print("\n".join([f"{name}: {saves}", f"violations: {len(violations)}", *violations]))
    return 1 if violations else 0


def run(argv: Sequence[str] | None = None) -> int:
    """The command; returns the exit code."""
    parser = tool_parser(__doc__)
    parser.add_argument("--out", type=Path, default=Path("outputs/full_disk"), help="folder for the runs")
    parser.add_argument("--no_tmpfs", action="store_true", help="use a file that raises ENOSPC instead of a tmpfs")
    return run_tool(parser, main, argv)


if __name__ == "__main__":
    sys.exit(run())
