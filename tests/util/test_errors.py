"""What a user reads of an error: one sentence, whichever process it comes from."""

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from util.errors import CheckpointError, lack_of_memory, one_sentence


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (ValueError("image 17 has no file_name"), "image 17 has no file_name"),
        (OSError("image file a\nb.png\tcannot be read"), "image file a b.png cannot be read"),
        (FileNotFoundError(2, "No such file or directory", "a.png"), "[Errno 2] No such file or directory: 'a.png'"),
        (CheckpointError("Caught in the act: a.pth"), "Caught in the act: a.pth"),
        (MemoryError(), "MemoryError"),
    ],
)
def test_a_message_is_given_on_one_line(error, sentence):
    assert one_sentence(error) == sentence


class Failing(Dataset):
    def __init__(self, error):
        self.error = error

    def __len__(self):
        return 1

    def __getitem__(self, index):
        try:
            raise KeyError("what the decoder said: nothing")
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


def test_a_workers_error_without_words_is_named():
    wrapped = "Caught MemoryError in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\n"
    assert one_sentence(MemoryError(f'{wrapped}  File "a.py", line 1, in read\nMemoryError\n')) == "MemoryError"


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OSError(12, "Cannot allocate memory"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: you tried to"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:80] DefaultCPUAllocator: not enough memory: you tried to"),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nGPU 0 has a capacity of 8 GiB"),
    ],
    ids=lambda error: str(error)[:20],
)
def test_a_lack_of_memory_is_told_with_a_way_out(error):
    sentence = lack_of_memory(error)
    assert sentence.startswith("there is not enough memory (") and "--batch_size" in sentence
    assert "\n" not in sentence and one_sentence(error).split(" GPU")[0] in sentence


def test_a_loader_process_that_was_killed_is_told():
    sentence = lack_of_memory(RuntimeError("DataLoader worker (pid 7) is killed by signal: Bus error. It is possible"))
    assert "pid 7" in sentence and "--num_workers" in sentence


@pytest.mark.parametrize(
    "error",
    [RuntimeError("shapes do not match"), ValueError("not enough memory"), OSError(28, "No space left on device")],
)
def test_other_errors_are_no_lack_of_memory(error):
    assert lack_of_memory(error) is None


def test_the_allocators_own_words_are_known():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**61, dtype=torch.uint8)
    assert lack_of_memory(caught.value) is not None
