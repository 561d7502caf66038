"""How long commands take before they do anything: `python -m benchmarks.startup`.

`import main` and `main.py --help` beside `import torch`, each in fresh processes, in turns, with files in the cache.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.common.command import PUBLISHED, Options, published, run_row
from benchmarks.common.results import Measurement, Row
from benchmarks.common.rounds import REPOSITORY, environment, progress

KEY = "startup"
TORCH = "import torch"
COMMANDS = {  # name → arguments of the interpreter
    TORCH: ["-c", "import torch"],
    "import torch, torchvision": ["-c", "import torch, torchvision"],
    "import transformers' DETR": ["-c", "from transformers import DetrForObjectDetection"],
    "import main": ["-c", "import main"],
    "main.py --help": ["main.py", "--help"],
    "predict.py --help": ["predict.py", "--help"],
}
REPEATS = 3  # in each round


def run(options: Options) -> Row:
    """Measure the row."""
    folders = dict.fromkeys(COMMANDS, REPOSITORY)
    commands, theirs = dict(COMMANDS), published(options)
    if not theirs.problem:
        name = f"{PUBLISHED}: import main"
        commands[name], folders[name] = ["-c", "import main"], theirs.folder
    found = {name: Measurement(name, details={"device": "cpu"}) for name in commands}
    for name in commands:  # so that all files are in the cache
        _once(commands[name], folders[name], found[name])
    for turn in range(options.turns):
        progress(f"  round {turn + 1}")
        for measurement in found.values():
            measurement.rounds.append([])
        for _ in range(REPEATS):
            for name in commands:
                if not found[name].problem:
                    _once(commands[name], folders[name], found[name])
    alone = found[TORCH].seconds
    for measurement in found.values():
        measurement.rounds = [seconds for seconds in measurement.rounds if seconds]
        if measurement.seconds and alone:
            measurement.values["seconds more than torch alone"] = round(measurement.seconds - alone, 3)
    return Row(KEY, "Start-up: imports and `--help`", [], list(found.values()))


def _once(command: list[str], folder: Path, measurement: Measurement) -> None:
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, *command],
        cwd=folder,
        env=environment(folder, None),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        measurement.problem = f"it ended with exit code {process.returncode}"
    elif measurement.rounds:
        measurement.rounds[-1].append(seconds)
        measurement.peaks.append(usage.ru_maxrss * 1024)


if __name__ == "__main__":
    sys.exit(run_row(__doc__, run))
