"""Threads sleep soon after their work, unless the user's environment decides how they wait."""

import os
import platform
import re
import subprocess
import sys

import pytest

from tests.helpers.paths import REPOSITORY
from util.start_up import threads
from util.start_up.threads import DECIDED_BY, SPIN_COUNT, wait_briefly

on_linux = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() != "x86_64", reason="what is decided is for x86 on Linux"
)
UNDECIDED = {name: value for name, value in os.environ.items() if name not in DECIDED_BY}


@pytest.fixture
def linux(monkeypatch):
    monkeypatch.setattr(threads.sys, "platform", "linux")
    monkeypatch.setattr(threads.platform, "machine", lambda: "x86_64")


def test_the_waiting_loop_is_shortened(linux):
    environment = {"OMP_NUM_THREADS": "2", "MKL_NUM_THREADS": "2"}  # the number of threads is another matter
    wait_briefly(environment)
    assert environment.pop("GOMP_SPINCOUNT") == str(SPIN_COUNT)
    assert environment == {"OMP_NUM_THREADS": "2", "MKL_NUM_THREADS": "2"}


@pytest.mark.parametrize("name", DECIDED_BY)
def test_the_users_environment_wins(name, linux):
    environment = {name: "PASSIVE"}
    wait_briefly(environment)
    assert environment == {name: "PASSIVE"}


@pytest.mark.parametrize(
    ("system", "processor"), [("darwin", "arm64"), ("darwin", "x86_64"), ("win32", "AMD64"), ("linux", "aarch64")]
)
def test_other_systems_are_left_alone(system, processor, monkeypatch):
    monkeypatch.setattr(threads.sys, "platform", system)
    monkeypatch.setattr(threads.platform, "machine", lambda: processor)
    environment = {}
    wait_briefly(environment)
    assert environment == {}


@on_linux
@pytest.mark.parametrize(
    "command",
    [
        ["main.py"],
        ["predict.py", "model.pth", "--fps"],
        ["-m", "tools.demo"],
        ["-m", "tools.summary"],
    ],
)
def test_commands_decide_before_they_import_torch(command, tmp_path):
    (tmp_path / "torch.py").write_text("import os, sys\nsys.exit(os.environ.get('GOMP_SPINCOUNT', 'undecided'))")
    environment = UNDECIDED | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run([sys.executable, *command], cwd=REPOSITORY, env=environment, capture_output=True, text=True)
    assert done.stderr.strip() == str(SPIN_COUNT)


@on_linux
def test_torchs_openmp_reads_it():
    code = "from util.start_up.threads import wait_briefly; wait_briefly(); import torch"
    environment = UNDECIDED | {"OMP_DISPLAY_ENV": "VERBOSE"}
    said = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=True
    ).stderr
    if "GOMP_" not in said:
        pytest.skip("this torch uses another OpenMP")
    assert re.findall(r"GOMP_SPINCOUNT = '(\d+)'", said) == [str(SPIN_COUNT)]
