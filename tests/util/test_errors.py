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


def test_a_killed_loader_worker_is_one_sentence_with_advice():
    sentence = lack_of_memory(RuntimeError("DataLoader worker (pid 7) is killed by signal: Bus error. It is possible"))
    assert "pid 7" in sentence and "--num_workers" in sentence


def test_other_errors_are_not_a_lack_of_memory():
    assert lack_of_memory(RuntimeError("shapes do not match")) is None
