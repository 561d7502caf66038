"""The device: choosing it, waiting for it, and recognising that its memory has run out."""

import pytest
import torch

from util.compute.device import is_out_of_memory, launcher_number, resolve_device, synchronize


@pytest.fixture(autouse=True)
def no_launcher(monkeypatch):
    for name in ("LOCAL_RANK", "SLURM_PROCID", "SLURM_LOCALID"):
        monkeypatch.delenv(name, raising=False)


def pretend(monkeypatch, cuda: int = 0, mps: bool = False) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)


def test_auto_prefers_cuda_then_mps_then_cpu(monkeypatch):
    pretend(monkeypatch)
    assert resolve_device("auto") == torch.device("cpu")
    pretend(monkeypatch, mps=True)
    assert resolve_device("auto") == torch.device("mps")
    pretend(monkeypatch, cuda=1, mps=True)
    assert resolve_device("auto") == torch.device("cuda", 0)


@pytest.mark.parametrize("name", ["cuda", "cuda:0", "mps", "meta", "gpu"])
def test_a_device_that_is_not_there_is_an_error_that_names_it(monkeypatch, name):
    pretend(monkeypatch)
    with pytest.raises(ValueError, match=f"{name}.*: use (--device )?auto"):
        resolve_device(name)


def test_each_process_of_a_machine_gets_its_own_cuda_device(monkeypatch):
    pretend(monkeypatch, cuda=2)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert resolve_device("cuda") == torch.device("cuda", 1)
    assert resolve_device("cuda:0") == torch.device("cuda", 0)
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(ValueError, match="cuda device 2 was requested, but this machine has 2"):
        resolve_device("cuda")


def test_slurm_task_numbers_wrap_around_the_visible_devices(monkeypatch):
    pretend(monkeypatch, cuda=2)
    monkeypatch.setenv("SLURM_PROCID", "7")
    monkeypatch.setenv("SLURM_LOCALID", "3")
    assert resolve_device("cuda") == torch.device("cuda", 1)


@pytest.mark.parametrize("text", ["two", "", "-1", "1.5"])
def test_a_launcher_variable_must_be_an_integer(text):
    with pytest.raises(ValueError, match=f"RANK must be an integer of at least 0, got '{text}': start with torchrun"):
        launcher_number("RANK", environment={"RANK": text})


def test_a_launcher_variable_has_a_lower_bound():
    assert launcher_number("WORLD_SIZE", at_least=1, environment={"WORLD_SIZE": "1"}) == 1
    with pytest.raises(ValueError, match="WORLD_SIZE must be an integer of at least 1, got '0'"):
        launcher_number("WORLD_SIZE", at_least=1, environment={"WORLD_SIZE": "0"})


def test_an_invalid_local_rank_is_an_error(monkeypatch):
    pretend(monkeypatch, cuda=2)
    monkeypatch.setenv("LOCAL_RANK", "first")
    with pytest.raises(ValueError, match="LOCAL_RANK must be an integer of at least 0, got 'first'"):
        resolve_device("cuda")


@pytest.mark.parametrize(("name", "waits"), [("cpu", []), ("cuda:1", [torch.device("cuda:1")])])
def test_an_accelerator_is_waited_for(monkeypatch, name, waits):
    seen = []
    monkeypatch.setattr(torch.accelerator, "synchronize", seen.append)
    synchronize(torch.device(name))
    assert seen == waits


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OSError(12, "Cannot allocate memory"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: you tried to"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:80] DefaultCPUAllocator: not enough memory: you tried to"),
        RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"),
        RuntimeError("unable to allocate shared memory(shm) for file </torch_7_1>: No space left on device (28)"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("std::bad_alloc"),
        RuntimeError("Caught RuntimeError in worker process 0.\nRuntimeError: DefaultCPUAllocator: not enough memory"),
        torch.OutOfMemoryError("Allocation on device failed"),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nGPU 0 has a capacity of 8 GiB"),
    ],
    ids=lambda error: str(error)[-25:],
)
def test_out_of_memory_is_recognised_on_every_device(error):
    assert is_out_of_memory(error)


def test_the_cpu_allocators_message_is_recognised():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**61, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)


@pytest.mark.parametrize(
    "error",
    [RuntimeError("shapes do not match"), ValueError("not enough memory"), OSError(28, "No space left on device")],
)
def test_other_errors_are_not_out_of_memory(error):
    assert not is_out_of_memory(error)
