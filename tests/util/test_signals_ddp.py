"""SIGTERM to torchrun: two processes stop at one step, save within its 30 seconds, and go on to the bit."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from datasets.shapes import write_shapes
from tests.helpers.processes import run_together, torchrun
from tests.helpers.runs import flags
from tools.reliability.tiny_run import differences
from util.checkpoint import load_checkpoint

STEPS = 5  # an epoch
# In its third step process 0 sends the signal to torchrun, which has started it, and waits for what is passed on: so
# the step is certain, however busy the machine is. Process 1 hears of it whenever it does.
ASK = """
if os.environ["RANK"] == "0":
    import engine, signal
    check, seen = engine.check_targets, []

    def ask(*args):
        seen.append(None)
        if len(seen) == 3:
            reader, writer = os.pipe()
            os.set_blocking(writer, False)
            signal.set_wakeup_fd(writer)
            os.kill(os.getppid(), signal.SIGTERM)
            os.read(reader, 1)
        return check(*args)

    engine.check_targets = ask
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGTERM to send")
def test_sigterm_to_torchrun_stops_all_ranks_at_one_step_and_the_run_goes_on_to_the_bit(tmp_path: Path):
    write_shapes(tmp_path / "data", train=2 * STEPS, val=3, size=64)
    command = flags(tmp_path / "data", "--batch_size", "1", "--epochs", "2", "--eval_every", "2", "--dropout", "0.1")
    undisturbed = [*command, "--output_dir", str(tmp_path / "undisturbed")]
    stopped = [*command, "--output_dir", str(tmp_path / "stopped"), "--resume", "auto"]

    stop = torchrun(stopped, tmp_path, ASK)
    assert "SIGTERM: finishing this step, then saving and stopping" in stop.stderr, stop
    assert stop.stdout.count("to resume, run the same command with --resume auto") == 1, stop
    saved = load_checkpoint(tmp_path / "stopped" / "checkpoint.pth")
    assert (saved["progress"]["epoch"], saved["progress"]["step"]) == (0, 3)
    assert len(saved["rng"]) == 2

    outcomes = run_together(2, [undisturbed, stopped], tmp_path / "pair")
    assert [code for ranks in outcomes for code, _ in ranks] == [0, 0, 0, 0], outcomes
    assert f"epoch 0, step 3 of {STEPS}" in outcomes[1][0][1]
    assert differences(tmp_path / "stopped", tmp_path / "undisturbed") == []
