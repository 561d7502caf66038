"""Distributed training: joining the process group, ranks, and collectives.

Everything here also works in a single process without `torch.distributed` set up: the collectives then return their
input, so callers need no second code path.
"""

import logging
import os
from argparse import Namespace
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlparse

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from util.compute.device import launcher_number, resolve_device
from util.errors import ProcessGroupError, failed_rendezvous

Result = TypeVar("Result")

_cpu_group: tuple[Any, Any] | None = None  # (the default group it was made for, the group)


def is_dist_avail_and_initialized() -> bool:
    """True once `init_distributed_mode` has joined a process group."""
    return dist.is_available() and dist.is_initialized()


def get_rank() -> int:
    """The index of this process among all processes; 0 without a process group."""
    return dist.get_rank() if is_dist_avail_and_initialized() else 0


def get_world_size() -> int:
    """The number of processes; 1 without a process group."""
    return dist.get_world_size() if is_dist_avail_and_initialized() else 1


def is_main_process() -> bool:
    """True on rank 0, which writes the files and the log."""
    return get_rank() == 0


def all_gather(data: Any) -> list[Any]:
    """Collect one picklable object of any size from every process.

    Returns:
        The objects in rank order, the same list on every process. A single process gets `[data]`.
    """
    world_size = get_world_size()
    if world_size == 1:
        return [data]
    gathered: list[Any] = [None] * world_size
    dist.all_gather_object(gathered, data)
    return gathered


def gather_to_main(data: Any) -> list[Any] | None:
    """Collect one picklable object from every process on the main one, over the CPU with every backend.

    For large objects that only the main process needs: they take no memory on accelerators or on other processes.
    Every process must call this.

    Returns:
        The objects in rank order on the main process, None on the others. A single process gets `[data]`.
    """
    if get_world_size() == 1:
        return [data]
    gathered: list[Any] | None = [None] * get_world_size() if is_main_process() else None
    dist.gather_object(data, gathered, dst=0, group=_group_on_cpu())
    return gathered


def run_on_main(function: Callable[[], Result]) -> Result:
    """Call `function` on the main process only; every process returns its result, or raises its error.

    Every process must call this. The result is pickled and broadcast over the CPU, and should be small. Errors other
    than Python's built-in ones reach the other processes as a RuntimeError with the same message.
    """
    if get_world_size() == 1:
        return function()
    outcome: list[Any] = [None, None]  # result, error
    failure: Exception | None = None
    if is_main_process():
        try:
            outcome[0] = function()
        except Exception as error:  # sent to the others, then raised below
            failure = error
            plain = type(error).__module__ == "builtins"
            outcome[1] = error if plain else RuntimeError(f"{type(error).__name__}: {error}")
    dist.broadcast_object_list(outcome, src=0, group=_group_on_cpu())
    if failure is not None or outcome[1] is not None:
        raise failure or outcome[1]
    return outcome[0]


def _group_on_cpu() -> Any:
    """All processes over gloo: the default group if it uses gloo, else a second one, created by the first call."""
    global _cpu_group
    if dist.get_backend() == "gloo":
        return dist.group.WORLD
    if _cpu_group is None or _cpu_group[0] is not dist.group.WORLD:
        _cpu_group = (dist.group.WORLD, dist.new_group(backend="gloo"))
    return _cpu_group[1]


@torch.no_grad()
def reduce_dict(input_dict: dict[str, torch.Tensor], average: bool = True) -> dict[str, torch.Tensor]:
    """Sum or average each value over all processes in one collective, without gradients, for logging.

    Args:
        input_dict: tensors of one shape (usually 0-dim losses) on one device, with the same keys on every process.
        average: divide the sums by the number of processes.

    Returns:
        A new dictionary, equal on every process; a single process gets its own dictionary back.
    """
    world_size = get_world_size()
    if world_size == 1 or not input_dict:
        return input_dict
    names = sorted(input_dict)  # the processes' dictionaries may be in different orders
    values = torch.stack([input_dict[name] for name in names])  # [K, ...]
    dist.all_reduce(values)
    if average:
        values = values / world_size
    return dict(zip(names, values, strict=True))


def mean_over_processes(value: float, device: torch.device) -> torch.Tensor:
    """The average of one number over all processes, a 0-dim tensor on `device`. Every process must call it."""
    total = torch.full([], value, device=device)  # a copy from the host would wait for the device
    if is_dist_avail_and_initialized():
        dist.all_reduce(total)
    return total / get_world_size()


def broadcast_tensors(tensors: Iterable[torch.Tensor]) -> None:
    """Overwrite the tensors of every process by those of the main one, in place. Every process must call it."""
    if get_world_size() > 1:
        for tensor in tensors:
            dist.broadcast(tensor, src=0)


def save_on_master(*args: Any, **kwargs: Any) -> None:
    """`torch.save(*args, **kwargs)` on the main process, nothing on the others."""
    if is_main_process():
        torch.save(*args, **kwargs)


def init_distributed_mode(args: Namespace) -> None:
    """Join the process group that a launcher has prepared, if any, and store the outcome in `args`.

    torchrun is recognised by `RANK` and `WORLD_SIZE`, Slurm by `SLURM_PROCID` together with more than one task.
    Reads `args.device` (default auto), `args.dist_url` (default env://) and, under Slurm, `args.world_size`.
    Sets `args.distributed`, `rank`, `world_size`, `gpu` (index of the cuda device, else None) and `dist_backend`
    (nccl for cuda, else gloo; None for a single process). Returns once all processes have joined.

    Raises:
        ValueError: the device is not present, `--world_size` was given without a launcher, a variable of the launcher
            is invalid, or the rendezvous address is missing or invalid.
        ProcessGroupError: the processes could not connect.
    """
    rank, world_size = _launched_as(args)
    args.distributed = rank is not None
    args.rank = rank or 0
    args.world_size = world_size
    args.gpu = None
    args.dist_backend = None
    if rank is None:
        return

    device = resolve_device(getattr(args, "device", "auto"))
    args.dist_backend = "gloo"
    if device.type == "cuda":
        args.dist_backend = "nccl"
        args.gpu = device.index
        torch.cuda.set_device(device)

    dist_url = getattr(args, "dist_url", None) or "env://"
    check_rendezvous(rank, world_size, dist_url)
    try:
        dist.init_process_group(
            backend=args.dist_backend,
            init_method=dist_url,
            world_size=world_size,
            rank=rank,
            device_id=device if device.type == "cuda" else None,
        )
    except (RuntimeError, OSError) as error:
        raise ProcessGroupError(failed_rendezvous(error, rank, world_size, dist_url)) from error
    dist.barrier()
    processes = f"{world_size} process{'es' * (world_size > 1)}"
    logging.getLogger("detr").info(f"{processes} joined ({args.dist_backend}, {dist_url})")


def check_rendezvous(rank: int, world_size: int, url: str, environment: Mapping[str, str] = os.environ) -> None:
    """Refuse a rank or rendezvous address for which torch would wait until it times out.

    Args:
        rank: of this process.
        world_size: number of processes.
        url: `--dist_url`.

    Raises:
        ValueError: names the variable or flag, and what to do.
    """
    if not 0 <= rank < world_size:
        raise ValueError(
            f"RANK must be in 0..{world_size - 1} as WORLD_SIZE is {world_size}, got {rank}: start with torchrun"
        )
    if url == "env://":
        missing = [name for name in ("MASTER_ADDR", "MASTER_PORT") if not environment.get(name)]
        if missing:
            raise ValueError(
                f"process {rank} of {world_size} has no rendezvous address ({' and '.join(missing)} not set): start "
                "with torchrun, or set MASTER_ADDR and MASTER_PORT, or pass --dist_url tcp://HOST:PORT or "
                "file:///SHARED/PATH"
            )
        launcher_number("MASTER_PORT", at_least=1, environment=environment)
        return
    parts = urlparse(url)
    try:
        port = parts.port
    except ValueError:
        port = None
    valid = bool(parts.hostname and port) if parts.scheme == "tcp" else parts.scheme == "file" and bool(parts.path)
    if not valid:
        raise ValueError(
            f"--dist_url {url} is not a valid rendezvous address: use env://, tcp://HOST:PORT or file:///SHARED/PATH"
        )
    if parts.scheme == "file" and not Path(parts.path).parent.is_dir():
        raise ValueError(
            f"--dist_url {url}: the folder {Path(parts.path).parent} does not exist: create it on a shared file system"
        )


def _launched_as(args: Namespace) -> tuple[int | None, int]:
    """(rank, world size) from the environment; the rank is None for a single process."""
    if "RANK" in os.environ and "WORLD_SIZE" in os.environ:
        return launcher_number("RANK"), launcher_number("WORLD_SIZE", at_least=1)
    requested = int(getattr(args, "world_size", None) or 1)
    if "SLURM_PROCID" in os.environ:
        # Only srun sets SLURM_STEP_NUM_TASKS: the batch script itself runs once, as a single process.
        tasks = launcher_number("SLURM_STEP_NUM_TASKS", at_least=1) if "SLURM_STEP_NUM_TASKS" in os.environ else 1
        world_size = requested if requested > 1 else tasks
        return (launcher_number("SLURM_PROCID"), world_size) if world_size > 1 else (None, 1)
    if requested > 1:
        raise ValueError(
            f"--world_size {requested} does not start processes by itself: "
            f"run `torchrun --nproc_per_node {requested} main.py ...` without the flag"
        )
    return None, 1


def end_distributed_mode() -> None:
    """Leave the process group that `init_distributed_mode` joined, if any, and all groups created alongside it."""
    global _cpu_group
    _cpu_group = None  # its threads must end before the interpreter does
    if is_dist_avail_and_initialized():
        dist.destroy_process_group()


def distribute(model: nn.Module, args: Namespace) -> nn.Module:
    """`model` wrapped for training by all processes together; the model itself for a single process."""
    if not args.distributed:
        return model
    return DistributedDataParallel(model, device_ids=None if args.gpu is None else [args.gpu])
