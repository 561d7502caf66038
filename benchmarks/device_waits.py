"""How often the host waits for the device in a training step: `python -m benchmarks.device_waits`.

A dispatch mode counts our own training loop, with small models (`tests/helpers/device`): on a CPU with a pretended
device, on CUDA with the real one. There, torch's own watch also counts the waits of the others, as the difference
between processes of five steps and of three.
"""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import tempfile

from benchmarks.common.command import PUBLISHED, Options, detectors, run_row
from benchmarks.common.results import Measurement, Row
from benchmarks.common.rounds import REPOSITORY, Contestant, environment, measure, progress

KEY = "device_waits"
WAITS = "waits a step"


def run(options: Options) -> Row:
    """Count the row."""
    counted = counted_in_our_loop(options.device)
    pretended = " of a pretended device" if options.device == "cpu" else ""
    row = Row(KEY, f"Waits for the device in a training step{pretended}", [], counted)
    for contestant in detectors(options, task="training", batch=2, backbone="resnet18"):
        row.measurements.append(watched(options, contestant))
    return row


def counted_in_our_loop(device: str) -> list[Measurement]:
    """The counts of `tests.helpers.device.steps`: float32, half types, masks."""
    name = "pretended" if device == "cpu" else device
    with tempfile.TemporaryDirectory() as folder:
        data = f"{folder}/shapes"
        made = [sys.executable, "-m", "datasets.shapes", data, "--train", "12", "--val", "4", "--size", "64"]
        counting = [sys.executable, "-m", "tests.helpers.device.steps", data, "--device", name, "--plants"]
        for command in (made, counting):
            progress(f"  {command[2]}")
            done = subprocess.run(
                command, cwd=REPOSITORY, env=environment(REPOSITORY, None), capture_output=True, text=True, timeout=600
            )
            if done.returncode:
                lines = done.stderr.strip().splitlines() or ["no message"]
                return [Measurement("as built", problem=lines[-1][:300])]
    found = json.loads(done.stdout.splitlines()[-1])
    return [
        Measurement(
            f"as built, {scenario}",
            values={WAITS: len(result["found"]) / result["steps"]},
            details={"waits": result["found"], "device": name},
        )
        for scenario, result in found.items()
    ]


def watched(options: Options, contestant: Contestant) -> Measurement:
    """The count of torch's watch over one contestant; only on CUDA."""
    name = f"{contestant.name}, by torch's watch"
    if contestant.problem:
        return Measurement(name, problem=contestant.problem)
    if options.device == "cpu":
        return Measurement(name, problem="it needs a CUDA device")
    counts = []
    for repeats in (2, 4):
        work = {**contestant.options, "warmup": 1, "repeats": repeats}
        (found,) = measure([dataclasses.replace(contestant, options=work)], rounds=1)
        if found.problem:
            return Measurement(name, problem=found.problem)
        counts.append(found.values.get("waits", 0))
    folder = {"folder": str(contestant.folder)} if contestant.name == PUBLISHED else {}
    return Measurement(name, values={WAITS: (counts[1] - counts[0]) / 2}, details={"device": options.device, **folder})


if __name__ == "__main__":
    sys.exit(run_row(__doc__, run))
