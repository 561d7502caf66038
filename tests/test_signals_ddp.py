"""SIGTERM to torchrun: two processes stop at one step, save within its 30 seconds, and go on to the bit."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from processes import REPOSITORY, clean_environment, run_together
from runs import flags

from datasets.shapes import write_shapes
from tools.tiny_run import differences
from util.checkpoint import load_checkpoint

STEPS = 16  # an epoch


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGTERM to send")
def test_sigterm_to_torchrun_stops_all_ranks_at_one_step_and_the_run_goes_on_to_the_bit(tmp_path: Path):
    write_shapes(tmp_path / "data", train=2 * STEPS, val=3, size=64)
    command = flags(tmp_path / "data", "--batch_size", "1", "--epochs", "2", "--eval_every", "2", "--dropout", "0.1")
    undisturbed = [*command, "--output_dir", str(tmp_path / "undisturbed")]
    stopped = [*command, "--output_dir", str(tmp_path / "stopped"), "--resume", "auto"]

    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    with subprocess.Popen(
        [*launch, str(REPOSITORY / "main.py"), *stopped, "--print_freq", "1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=clean_environment() | {"PYTHONUNBUFFERED": "1"},
    ) as torchrun:
        said = []
        for line in torchrun.stdout:  # ends with torchrun
            said.append(line)
            if line.startswith("Epoch: [0]  [ 2/"):
                torchrun.send_signal(signal.SIGTERM)
    text = "".join(said)
    assert "SIGTERM: finishing this step, then saving and stopping" in text, text
    assert text.count("to go on, run the same command with --resume auto") == 1, text
    saved = load_checkpoint(tmp_path / "stopped" / "checkpoint.pth")
    assert saved["progress"]["epoch"] == 0 and 3 <= saved["progress"]["step"] < STEPS
    assert len(saved["rng"]) == 2

    outcomes = run_together(2, [undisturbed, stopped], tmp_path / "pair")
    assert [code for ranks in outcomes for code, _ in ranks] == [0, 0, 0, 0], outcomes
    assert f"epoch 0, step {saved['progress']['step']} of {STEPS}" in outcomes[1][0][1]
    assert differences(tmp_path / "stopped", tmp_path / "undisturbed") == []
