"""Errors as the user reads them: one sentence, whichever process they come from."""

import errno

import pytest
import torch
import torch.distributed as dist
from torch.utils.data import DataLoader, Dataset

from util.errors import (
    MAX_SENTENCE,
    CheckpointError,
    failed_rendezvous,
    lack_of_memory,
    lack_of_open_files,
    lost_process,
    one_sentence,
    sentence_or_raise,
)


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (ValueError("image 17 has no file_name"), "image 17 has no file_name"),
        (OSError("image file a\nb.png\tcannot be read"), "image file a b.png cannot be read"),
        (FileNotFoundError(2, "No such file or directory", "a.png"), "[Errno 2] No such file or directory: 'a.png'"),
        (CheckpointError("Caught in the act: a.pth"), "Caught in the act: a.pth"),
        (MemoryError(), "MemoryError"),
        (ValueError("class \x1b[2J\nerror: forged\u202e"), "class \\x1b[2J error: forged\\u202e"),
    ],
)
def test_a_message_is_given_on_one_line(error, sentence):
    assert one_sentence(error) == sentence


def test_a_long_message_keeps_its_start_and_its_advice():
    sentence = one_sentence(ValueError(f"the class {'x' * 10**6} is unknown: pass --num_classes"))
    assert len(sentence) == MAX_SENTENCE
    assert sentence.startswith("the class xxx") and sentence.endswith("xxx is unknown: pass --num_classes")


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.EMFILE, "Too many open files", "a.png"),
        OSError(errno.ENFILE, "Too many open files in system"),
        RuntimeError("Too many open files. Communication with the workers is no longer possible. Please increase"),
        OSError("Caught OSError in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\n  x\n"
                "OSError: [Errno 24] Too many open files: 'a.png'"),
    ],
)  # fmt: skip
def test_the_limit_of_open_files_is_named_with_what_to_do(error):
    sentence = lack_of_open_files(error, ", or rest")
    assert sentence.startswith("the limit of open files (") and sentence.endswith("`ulimit -n 4096`, or rest")


def test_other_errors_are_not_taken_for_the_limit_of_open_files():
    for error in (OSError(errno.ENOENT, "No such file"), RuntimeError("x"), ValueError("[Errno 24]"), OSError("a.png")):
        assert lack_of_open_files(error) is None


class Failing(Dataset):
    def __init__(self, error):
        self.error = error

    def __len__(self):
        return 1

    def __getitem__(self, index):
        try:
            raise KeyError("the cause in the decoder")
        except KeyError as cause:
            raise self.error from cause


@pytest.mark.parametrize(
    "error",
    [
        OSError("image file a.png cannot be read (KeyError: 'x'): replace it"),
        FileNotFoundError("image file /data/a: b.png does not exist"),
        CheckpointError("annotation 812 of image 17 has label 4"),
        ValueError("image file a\nb.png is\nbroken: replace it"),
    ],
)
def test_a_workers_traceback_is_left_out(error):
    with pytest.raises(type(error)) as caught:
        next(iter(DataLoader(Failing(error), num_workers=1)))
    assert "Traceback" in str(caught.value)
    assert one_sentence(caught.value) == " ".join(str(error).split())


def test_a_workers_error_without_a_message_is_named_by_type():
    wrapped = "Caught MemoryError in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\n"
    assert one_sentence(MemoryError(f'{wrapped}  File "a.py", line 1, in read\nMemoryError\n')) == "MemoryError"


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OSError(12, "Cannot allocate memory"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:80] DefaultCPUAllocator: not enough memory: you tried to"),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nGPU 0 has a capacity of 8 GiB"),
    ],
    ids=lambda error: str(error)[:20],
)
def test_out_of_memory_is_one_sentence_with_advice(error):
    sentence = lack_of_memory(error)
    assert sentence.startswith("out of memory (") and "--batch_size" in sentence
    assert "\n" not in sentence and one_sentence(error).split(" GPU")[0] in sentence
    assert lack_of_memory(error, "try --device cpu").endswith("): try --device cpu")


def test_out_of_memory_in_a_loader_worker_is_recognised():
    for error in (MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9")):
        with pytest.raises(type(error)) as caught:
            next(iter(DataLoader(Failing(error), num_workers=1)))
        cause = str(error) or "MemoryError"
        assert lack_of_memory(caught.value, "lower it") == f"out of memory ({cause}): lower it"


def test_a_killed_loader_worker_is_one_sentence_with_advice():
    sentence = lack_of_memory(RuntimeError("DataLoader worker (pid 7) is killed by signal: Bus error. It is possible"))
    assert "pid 7" in sentence and "--num_workers" in sentence


def test_other_errors_are_not_a_lack_of_memory():
    assert lack_of_memory(RuntimeError("shapes do not match")) is None


@pytest.mark.parametrize(
    "words",
    [
        "Timed out after 4 seconds waiting for clients. 1/2 clients joined.",
        "The client socket has timed out after 3000ms while trying to connect to (10.0.0.1, 29500).",
        "Wait timeout",
    ],
)
def test_a_timeout_of_the_rendezvous_is_explained(words: str):
    sentence = failed_rendezvous(RuntimeError(words), 0, 2, "tcp://10.0.0.1:29500")
    assert sentence.startswith("process 0 of 2 timed out waiting for the others at tcp://10.0.0.1:29500 (")
    assert "check that all 2 are running" in sentence


def test_a_missing_network_interface_is_explained():
    words = "[enforce fail at /src/gloo/transport/tcp/device.cc:84] ifa != nullptr. Unable to find address for: eth9"
    sentence = failed_rendezvous(RuntimeError(words), 1, 2, "env://")
    assert "Unable to find address for: eth9" in sentence and "set GLOO_SOCKET_IFNAME to" in sentence


def test_any_other_failure_to_join_keeps_its_message():
    sentence = failed_rendezvous(RuntimeError("Permission denied\nframe #1"), 1, 2, "file:///shared/meeting")
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
def test_a_lost_process_is_recognised_with_gloo_and_nccl(error: RuntimeError):
    sentence = lost_process(error)
    assert sentence.startswith("communication with the other processes failed (") and "--resume auto" in sentence
    assert ".cc" not in sentence and "typically" not in sentence


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("shape '[2]' is invalid"),
        ValueError("Connection closed by peer"),
        CheckpointError("checkpoint runs/gloo/1.pth is empty"),
    ],
)
def test_other_errors_are_not_a_lost_process(error: Exception):
    assert lost_process(error) is None


def test_a_command_says_what_is_known_or_what_can_be_fixed_and_raises_bugs():
    fixable = (ValueError, OSError)
    assert sentence_or_raise(KeyError("x"), fixable, None, "out of memory: wait", "later") == "out of memory: wait"
    assert sentence_or_raise(ValueError("too\nlarge"), fixable, None) == "too large"
    with pytest.raises(KeyError):
        sentence_or_raise(KeyError("x"), fixable, None, None)
