"""Several processes on this machine, forked from one that has imported everything needed."""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from multiprocessing.process import BaseProcess
from pathlib import Path
from textwrap import indent
from typing import Any

import main
from evaluation import report
from util.files import write_atomically

REPOSITORY = Path(__file__).resolve().parents[2]
HANGS = 900  # seconds; no test takes that long, however busy the machine is
# What a training imports when it comes to it, besides: PyTorch's optimizers and the matching. Takes two seconds.
IMPORTED = ["main", "torch._dynamo", "scipy.optimize"]
NO_PICTURES = "from evaluation import report\nreport.draw_evaluation = lambda *parts: None\n"
LAUNCHERS = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "SLURM_PROCID", "SLURM_LOCALID", "SLURM_STEP_NUM_TASKS", "MASTER_ADDR")


def clean_environment() -> dict[str, str]:
    """This process's variables without those of a launcher, for processes that can import the project."""
    kept = {name: value for name, value in os.environ.items() if name not in LAUNCHERS}
    return kept | {"PYTHONPATH": os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "tests")])}


def start(work: Callable[..., None], arguments: Sequence[tuple[Any, ...]]) -> list[BaseProcess]:
    """A process that runs `work(*arguments[i])` for each i."""
    context = multiprocessing.get_context("forkserver" if os.name == "posix" else "spawn")
    if os.name == "posix":
        context.set_forkserver_preload(IMPORTED)
    before, clean = dict(os.environ), clean_environment()
    try:  # the fork server starts with the first process and keeps this environment
        os.environ.clear()
        os.environ.update(clean)
        processes = [context.Process(target=work, args=own) for own in arguments]
        for process in processes:
            process.start()
    finally:
        os.environ.clear()
        os.environ.update(before)
    return processes


def wait(processes: Sequence[BaseProcess]) -> list[int]:
    """Their exit codes.

    Raises:
        TimeoutError: some still ran after `HANGS` seconds; all have been killed.
    """
    deadline = time.monotonic() + HANGS
    for process in processes:
        process.join(max(0.0, deadline - time.monotonic()))
    late = [rank for rank, process in enumerate(processes) if process.is_alive()]
    if late:
        for process in processes:
            process.kill()
            process.join()
        raise TimeoutError(f"processes {late} of {len(processes)} still ran after {HANGS} seconds")
    return [process.exitcode for process in processes]


def run_together(
    world_size: int, commands: Sequence[Sequence[str]], folder: Path, prepare: Callable[[], Any] | None = None
) -> list[list[tuple[int, str]]]:
    """Run command lines of `main.py` one after the other, each with `world_size` processes, after `prepare()` in each.

    Returns:
        For each command, the exit code and the output of each rank.
    """
    folder.mkdir(parents=True)
    lists = [list(command) for command in commands]
    own = [(rank, world_size, lists, str(folder), prepare) for rank in range(world_size)]
    wait(start(_run_as, own))
    each = [json.loads((folder / f"rank{rank}.json").read_text()) for rank in range(world_size)]
    return [[tuple(outcomes[index]) for outcomes in each] for index in range(len(commands))]


def torchrun(command: Sequence[str], folder: Path, before: str = "") -> subprocess.CompletedProcess[str]:
    """`torchrun --nproc_per_node 2 main.py` with the flags `command`.

    Args:
        folder: for the files that this writes.
        before: Python code that runs in both processes before main.py, besides what keeps them from drawing.
    """
    before = indent(NO_PICTURES + before, "    ")
    (folder / "sitecustomize.py").write_text(f"import os\nif 'RANK' in os.environ:\n{before}")
    environment = clean_environment()  # Python imports a module of that name when it starts
    environment["PYTHONPATH"] = os.pathsep.join([str(folder), environment["PYTHONPATH"]])
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command = [*launch, str(REPOSITORY / "main.py"), *command]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=HANGS)


def _run_as(
    rank: int, world_size: int, commands: list[list[str]], folder: str, prepare: Callable[[], Any] | None
) -> None:
    if prepare is not None:
        prepare()
    report.draw_evaluation = lambda *parts: None  # pictures take longer than everything else
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(world_size), "LOCAL_RANK": str(rank)}
    outcomes = []
    for index, command in enumerate(commands):
        output = Path(folder, f"output{index}_rank{rank}.txt")
        with output.open("w") as file, redirect_stdout(file), redirect_stderr(file):
            code = main.run([*command, "--dist_url", f"file://{folder}/meeting{index}"])
        outcomes.append((code, output.read_text()))
    Path(folder, f"rank{rank}.json").write_text(json.dumps(outcomes))


def leave_behind(path: Path) -> None:
    """Begin to write `path` in a process that is killed before it is done; its temporary file remains."""
    process = os.fork()
    if process == 0:
        write_atomically(path, lambda file: os._exit(9))
    os.waitpid(process, 0)
