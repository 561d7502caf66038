"""NaN on one of two processes, by the real command: both stop at that step, and say what, where and on which images."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import torch

from tests.helpers.processes import torchrun
from tests.helpers.runs import flags
from util.checkpoint import load_checkpoint

STEPS = 4  # an epoch: eight images, one for each of two processes
CULPRIT = "transformer.encoder.layers.0.linear1"
# On process 1 one module gives NaN in the second step of epoch 1; the checkpoint that lay there is kept beside the run.
POISON = f"""
if os.environ["RANK"] == "1":
    import shutil, models
    build, calls = models.build_model, []

    def spoil(module, inputs, output):
        if not module.training:
            return output
        calls.append(None)
        if len(calls) == {STEPS} + 2:
            shutil.copy("RUN/checkpoint.pth", "RUN.kept")
        return output * float("nan") if len(calls) >= {STEPS} + 2 else output

    def build_poisoned(args):
        parts = build(args)
        parts[0].get_submodule("{CULPRIT}").register_forward_hook(spoil)
        return parts

    models.build_model = build_poisoned
"""


@pytest.fixture(scope="module")
def ended(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[subprocess.CompletedProcess, Path]:
    """What torchrun ended with, and the run's folder."""
    run = tmp_path_factory.mktemp("nan") / "run"
    command = flags(shapes, "--batch_size", "1", "--epochs", "3", "--eval_every", "3", "--output_dir", str(run))
    return torchrun(command, run.parent, POISON.replace("RUN", str(run))), run


def test_the_processes_end_with_one_sentence_that_names_step_images_and_module(ended):
    said, _ = ended
    assert said.returncode == 1, said.stderr
    sentences = [line for line in said.stderr.splitlines() if line.startswith("error (process ")]
    speakers = {line.partition(":")[0] for line in sentences}
    # torchrun kills the slower process once the other one has ended, so that its sentence may be missing.
    assert speakers and speakers <= {"error (process 0)", "error (process 1)"}
    for line in sentences:
        assert "in epoch 1, step 1, process 1, images [" in line
        assert CULPRIT in line and "process 0, images" not in line
    assert 'main.py", line' not in said.stderr  # torchrun shows a traceback of its own, we none


def test_the_batch_is_kept_by_the_process_that_met_it(ended):
    said, run = ended
    assert sorted(file.name for file in run.glob("non_finite*")) == ["non_finite_rank1.pth"]
    batch = load_checkpoint(run / "non_finite_rank1.pth")
    assert (batch["epoch"], batch["step"], batch["rank"]) == (1, 1, 1)
    assert f"images [{int(batch['targets'][0]['image_id'])}]" in said.stderr
    assert torch.isfinite(batch["images"]).all() and batch["images"].shape[:2] == (1, 3)


def test_the_checkpoint_stays_as_it_was(ended):
    _, run = ended
    assert (run / "checkpoint.pth").read_bytes() == run.with_suffix(".kept").read_bytes()
    assert load_checkpoint(run / "checkpoint.pth")["epoch"] == 0
    assert len((run / "log.txt").read_text().splitlines()) == 1
