"""Inference of one image of 480 × 640 with ResNet-50 in float32: `python -m benchmarks.inference`.

Besides PyTorch's models, the files that `tools.export` writes, in ONNX Runtime and OpenVINO.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.common.command import (
    HUGGING_FACE,
    OPTIMIZED,
    PLAIN,
    PUBLISHED,
    Options,
    detectors,
    lacking,
    run_row,
)
from benchmarks.common.results import Row
from benchmarks.common.rounds import REPOSITORY, Contestant, environment, measure, progress

KEY = "inference"
EXPORTS = {  # name → (suffix of the exported file, packages)
    "ONNX Runtime": (".onnx", ("onnx", "onnxruntime", "onnxscript")),
    "OpenVINO": (".xml", ("openvino",)),
}


def run(options: Options) -> Row:
    """Measure the row."""
    with tempfile.TemporaryDirectory() as folder:
        contestants = detectors(options, optimized=True, warmup=2, repeats=7)
        contestants += exported(options, Path(folder))
        measurements = measure(contestants, options.turns)
    size = "128 × 160" if options.quick else "480 × 640"
    notes = [
        "The exported files run in their own runtimes; their memory here includes torch, which makes the images.",
    ]
    row = Row(KEY, f"Inference, ResNet-50, 1 × {size}, float32", [HUGGING_FACE, PUBLISHED, PLAIN], measurements, notes)
    best, onnx = row.find(OPTIMIZED), row.find("ONNX Runtime")
    if best.seconds and onnx.seconds:
        row.notes.append(f"The optimized form takes {best.seconds / onnx.seconds:.2f} of ONNX Runtime's time.")
    return row


def exported(options: Options, folder: Path) -> list[Contestant]:
    """The runtimes, each with a file that `tools.export` has written."""
    checkpoint = folder / "detr.pth"
    work = options.work(warmup=2, repeats=7)
    problem = "" if options.device == "cpu" else "measured on the CPU only"
    if not problem:
        problem = run_tool("benchmarks.subjects.checkpoint", json.dumps({"path": str(checkpoint)}))
    paths = {name: folder / f"detr{suffix}" for name, (suffix, _) in EXPORTS.items()}
    problems = {name: problem or lacking(*packages) for name, (_, packages) in EXPORTS.items()}
    possible = [name for name in EXPORTS if not problems[name]]
    if possible:
        progress(f"  exporting to {' and '.join(possible)}")
        if run_tool("tools.export", str(checkpoint), *(str(paths[name]) for name in possible)):
            for name in possible:  # one by one, to see which of them fails
                if not paths[name].exists():
                    problems[name] = run_tool("tools.export", str(checkpoint), str(paths[name]))
    return [
        Contestant(name, "benchmarks.subjects.exported", {**work, "path": str(path)}, problem=problems[name])
        for name, path in paths.items()
    ]


def run_tool(module: str, *arguments: str) -> str:
    """Run a module; returns its error, empty if it succeeded."""
    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(
        command, cwd=REPOSITORY, env=environment(REPOSITORY, None), capture_output=True, text=True, timeout=600
    )
    lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
    return lines[-1][:300] if done.returncode else ""


if __name__ == "__main__":
    sys.exit(run_row(__doc__, run))
