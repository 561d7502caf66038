"""Errors between processes: a launcher's variables, the meeting place, a process that is lost."""

from __future__ import annotations

import socket
from argparse import Namespace

import pytest
import torch.distributed as dist

from tests.helpers.processes import LAUNCHERS
from util.dist import init_distributed_mode
from util.dist_errors import ProcessGroupError, check_meeting_place, explain_meeting, lost_process
from util.errors import CheckpointError

MEETING = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}


@pytest.fixture(autouse=True)
def no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*LAUNCHERS, "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)


def join(monkeypatch: pytest.MonkeyPatch, url: str = "env://", **environment: str) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    init_distributed_mode(Namespace(device="cpu", dist_url=url))


@pytest.mark.parametrize("environment", [{"RANK": "x", "WORLD_SIZE": "2"}, {"RANK": "0", "WORLD_SIZE": "0"}])
def test_joining_refuses_numbers_that_are_none(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]):
    with pytest.raises(ValueError, match="(RANK must be .* got 'x'|WORLD_SIZE must be .* got '0')"):
        join(monkeypatch, **environment)


@pytest.mark.parametrize("name", ["SLURM_STEP_NUM_TASKS", "SLURM_PROCID"])
def test_joining_refuses_slurm_variables_that_are_no_numbers(monkeypatch: pytest.MonkeyPatch, name: str):
    with pytest.raises(ValueError, match=f"{name} must be an integer .* got 'many'"):
        join(monkeypatch, **({"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "2"} | {name: "many"}))


@pytest.mark.parametrize(
    ("rank", "url", "environment", "sentence"),
    [
        (2, "env://", MEETING, "RANK is 2 and WORLD_SIZE 2: ranks go from 0 to 1"),
        (0, "env://", {}, r"where the processes meet \(MASTER_ADDR and MASTER_PORT not set\)"),
        (0, "env://", {"MASTER_ADDR": "127.0.0.1"}, r"\(MASTER_PORT not set\)"),
        (0, "env://", {**MEETING, "MASTER_PORT": "http"}, "MASTER_PORT must be .* got 'http'"),
        (0, "nonsense", {}, "--dist_url nonsense is no place to meet"),
        (0, "ftp://host:1", {}, "no place to meet"),
        (0, "tcp://127.0.0.1", {}, "no place to meet"),
        (0, "tcp://127.0.0.1:port", {}, "no place to meet"),
        (0, "file:///no/such/folder/meeting", {}, "there is no folder /no/such/folder"),
    ],
)
def test_a_place_where_nobody_can_meet_is_refused(rank: int, url: str, environment: dict[str, str], sentence: str):
    with pytest.raises(ValueError, match=sentence):
        check_meeting_place(rank, 2, url, environment)


def test_places_where_processes_can_meet_are_let_through(tmp_path):
    for url in ("env://", "tcp://10.0.0.1:29500", f"file://{tmp_path}/meeting"):
        check_meeting_place(1, 2, url, MEETING)


def test_a_port_in_use_is_named(monkeypatch: pytest.MonkeyPatch):
    with socket.socket() as other_run:
        other_run.bind(("127.0.0.1", 0))
        other_run.listen()
        port = str(other_run.getsockname()[1])
        with pytest.raises(
            ProcessGroupError, match=f"cannot listen at 127.0.0.1:{port}, which is in use; .*--master_port"
        ):
            join(monkeypatch, RANK="0", WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
    assert not dist.is_initialized()


@pytest.mark.parametrize(
    "words",
    [
        "Timed out after 4 seconds waiting for clients. 1/2 clients joined.",
        "The client socket has timed out after 3000ms while trying to connect to (10.0.0.1, 29500).",
        "Wait timeout",
    ],
)
def test_others_who_do_not_come_are_waited_for_in_vain(words: str):
    sentence = explain_meeting(RuntimeError(words), 0, 2, "tcp://10.0.0.1:29500")
    assert sentence.startswith("process 0 of 2 waited in vain for the others at tcp://10.0.0.1:29500 (")
    assert "see that all 2 are started" in sentence


def test_a_network_device_that_is_not_there_is_mended_by_naming_another():
    words = "[enforce fail at /src/gloo/transport/tcp/device.cc:84] ifa != nullptr. Unable to find address for: eth9"
    sentence = explain_meeting(RuntimeError(words), 1, 2, "env://")
    assert "Unable to find address for: eth9" in sentence and "set GLOO_SOCKET_IFNAME to" in sentence


def test_any_other_failure_to_join_keeps_its_words():
    sentence = explain_meeting(RuntimeError("Permission denied\nframe #1"), 1, 2, "file:///shared/meeting")
    assert sentence == "process 1 of 2 could not join the others at file:///shared/meeting: Permission denied"


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("[/src/gloo/gloo/transport/tcp/pair.cc:545] Read error [10.0.0.2]:37: Connection reset"),
        RuntimeError(
            "[/src/gloo/transport/tcp/pair.cc:534] Connection closed by peer [10.0.0.2]:3735. This is typically a hang."
        ),
        dist.DistBackendError("NCCL error: remote process exited or there was a network error"),
        dist.DistStoreError("wait timeout after 60000ms"),
    ],
)
def test_a_lost_process_is_told_from_the_words_of_gloo_and_nccl(error: RuntimeError):
    sentence = lost_process(error)
    assert sentence.startswith("the exchange with the other processes broke off (") and "--resume auto" in sentence
    assert ".cc" not in sentence and "typically" not in sentence


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("shape '[2]' is invalid"),
        ValueError("Connection closed by peer"),
        CheckpointError("checkpoint runs/gloo/1.pth is empty"),
    ],
)
def test_other_errors_are_not_taken_for_a_lost_process(error: Exception):
    assert lost_process(error) is None
