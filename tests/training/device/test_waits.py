"""How often the host waits for the device in a training step, counted on a pretended device."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.device.steps import SCENARIOS
from tests.helpers.device.waits import REPOSITORY

ALLOWED = {"models/matcher.py", "engine.py"}  # the costs of the matching, and the losses with the gradient's norm
PLANTED = {
    "item in the model": "_local_scalar_dense",
    "mask in the model": "index",
    "masked_select in the model": "masked_select",
    "nonzero in the matcher": "nonzero",
    "bool in the criterion": "_local_scalar_dense",
    "copy in the criterion": "_to_copy",
    "item in the backward": "_local_scalar_dense",
    "cpu in the clipping": "_to_copy",
    "float in the optimizer": "_local_scalar_dense",
    "tolist in the meters": "_to_copy",
    "copy in the monitor": "_to_copy",
}


@pytest.fixture(scope="module")
def counted(shapes: Path) -> dict[str, dict]:
    """Scenario or planted wait → what was counted. In a process of its own, since a device cannot be taken back."""
    command = [sys.executable, "-m", "tests.helpers.device.steps", str(shapes)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


def places(found: list[str]) -> list[str]:
    """The files of waits, "operation at file:line"."""
    return [wait.split(" at ")[1].split(":")[0] for wait in found]


@pytest.mark.parametrize("scenario", [name for name in SCENARIOS if name != "fp16"])
def test_a_step_waits_twice_and_once_more_for_each_further_batch(counted, scenario):
    found = counted[scenario]["found"]
    assert len(found) == counted[scenario]["steps"] + counted[scenario]["batches"], found
    assert set(places(found)) == ALLOWED


def test_a_step_in_float16_waits_twice_and_once_more_if_it_is_skipped(counted):
    found = counted["fp16"]["found"]
    others = [place for place in places(found) if place != "util/compute/precision.py"]
    assert len(others) == 2 * counted["fp16"]["steps"] and set(others) == ALLOWED, found
    assert len(found) - len(others) <= counted["fp16"]["steps"]


@pytest.mark.parametrize("planted", PLANTED)
def test_a_wait_that_somebody_adds_is_counted(counted, planted):
    found = list(counted[planted]["found"])
    assert len(found) == 2 * counted[planted]["steps"] + 1, found
    assert PLANTED[planted] in [wait.split(" at ")[0] for wait in found]
