"""Several processes as one: ranks and collectives.

Everything here also works in a single process that never set up `torch.distributed`: the collectives then return
what they were given, so callers need no second code path.
"""

import logging
import os
from argparse import Namespace
from collections.abc import Callable
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from util.device import launcher_number, resolve_device
from util.dist_errors import ProcessGroupError, check_meeting_place, explain_meeting

Result = TypeVar("Result")

_cpu_group: tuple[Any, Any] | None = None  # (the default group it was made for, the group)


def is_dist_avail_and_initialized() -> bool:
    """True once a process group exists, that is after `init_distributed_mode` joined one."""
    return dist.is_available() and dist.is_initialized()


def get_rank() -> int:
    """This process's number among all processes; 0 outside of a process group."""
    return dist.get_rank() if is_dist_avail_and_initialized() else 0


def get_world_size() -> int:
    """How many processes work together; 1 outside of a process group."""
    return dist.get_world_size() if is_dist_avail_and_initialized() else 1


def is_main_process() -> bool:
    """True on the one process that writes files and speaks to the user."""
    return get_rank() == 0


def all_gather(data: Any) -> list[Any]:
    """Collect one picklable object from every process, of any size each.

    Returns:
        The objects in the order of the ranks, the same list on every process. A lone process gets `[data]`.
    """
    world_size = get_world_size()
    if world_size == 1:
        return [data]
    gathered: list[Any] = [None] * world_size
    dist.all_gather_object(gathered, data)
    return gathered


def gather_to_main(data: Any) -> list[Any] | None:
    """Collect one picklable object from every process on the main one, over the CPU whatever the backend.

    What is large and needed once stays off the accelerators and off the other processes. Every process has to call.

    Returns:
        The objects in the order of the ranks on the main process, None on the others. A lone process gets `[data]`.
    """
    if get_world_size() == 1:
        return [data]
    gathered: list[Any] | None = [None] * get_world_size() if is_main_process() else None
    dist.gather_object(data, gathered, dst=0, group=_group_on_cpu())
    return gathered


def run_on_main(function: Callable[[], Result]) -> Result:
    """Call `function` on the main process alone; every process returns its result, or raises its error.

    So the others neither do the work again nor wait for a process that has given up. Every process has to call. The
    result travels pickled over the CPU and should be small; errors that are not Python's own reach the others as a
    RuntimeError of the same words.
    """
    if get_world_size() == 1:
        return function()
    outcome: list[Any] = [None, None]  # result, error
    failure: Exception | None = None
    if is_main_process():
        try:
            outcome[0] = function()
        except Exception as error:  # told to the others, then raised below
            failure = error
            plain = type(error).__module__ == "builtins"
            outcome[1] = error if plain else RuntimeError(f"{type(error).__name__}: {error}")
    dist.broadcast_object_list(outcome, src=0, group=_group_on_cpu())
    if failure is not None or outcome[1] is not None:
        raise failure or outcome[1]
    return outcome[0]


def _group_on_cpu() -> Any:
    """All processes over gloo: the default group where it is gloo's own, else a second one, made at the first call."""
    global _cpu_group
    if dist.get_backend() == "gloo":
        return dist.group.WORLD
    if _cpu_group is None or _cpu_group[0] is not dist.group.WORLD:
        _cpu_group = (dist.group.WORLD, dist.new_group(backend="gloo"))
    return _cpu_group[1]


@torch.no_grad()
def reduce_dict(input_dict: dict[str, torch.Tensor], average: bool = True) -> dict[str, torch.Tensor]:
    """Sum, or average, each value over all processes in one collective; for logging, gradients are cut.

    Args:
        input_dict: tensors of one shape (as a rule 0-dim losses) on one device, with the same keys on every process.
        average: divide the sums by the number of processes.

    Returns:
        A new dictionary, equal on every process; a lone process gets its own dictionary back.
    """
    world_size = get_world_size()
    if world_size == 1 or not input_dict:
        return input_dict
    names = sorted(input_dict)  # processes may have filled their dictionaries in different orders
    values = torch.stack([input_dict[name] for name in names])  # [K, ...]
    dist.all_reduce(values)
    if average:
        values = values / world_size
    return dict(zip(names, values, strict=True))


def save_on_master(*args: Any, **kwargs: Any) -> None:
    """`torch.save(*args, **kwargs)` on the main process, nothing on the others."""
    if is_main_process():
        torch.save(*args, **kwargs)


def init_distributed_mode(args: Namespace) -> None:
    """Join the process group that a launcher prepared, if there is one, and note the outcome in `args`.

    torchrun is recognised by `RANK` and `WORLD_SIZE`, Slurm by `SLURM_PROCID` together with more than one task.
    Reads `args.device` (default auto), `args.dist_url` (default env://) and, under Slurm, `args.world_size`.
    Sets `args.distributed`, `rank`, `world_size`, `gpu` (index of the cuda device, else None) and `dist_backend`
    (nccl for cuda, else gloo; None when alone). Returns when all processes have arrived.

    Raises:
        ValueError: the device is absent, `--world_size` was given without a launcher, a launcher's variable makes no
            sense, or nobody told where the processes meet.
        ProcessGroupError: they did not meet there.
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
    check_meeting_place(rank, world_size, dist_url)
    try:
        dist.init_process_group(
            backend=args.dist_backend,
            init_method=dist_url,
            world_size=world_size,
            rank=rank,
            device_id=device if device.type == "cuda" else None,
        )
    except (RuntimeError, OSError) as error:
        raise ProcessGroupError(explain_meeting(error, rank, world_size, dist_url)) from error
    dist.barrier()
    logging.getLogger("detr").info(f"{world_size} processes joined ({args.dist_backend}, {dist_url})")


def _launched_as(args: Namespace) -> tuple[int | None, int]:
    """(rank, world size) by the environment; the rank is None when this process works alone."""
    if "RANK" in os.environ and "WORLD_SIZE" in os.environ:
        return launcher_number("RANK"), launcher_number("WORLD_SIZE", at_least=1)
    asked_for = int(getattr(args, "world_size", None) or 1)
    if "SLURM_PROCID" in os.environ:
        # SLURM_STEP_NUM_TASKS is set by srun only; the bare batch script, which runs once, works alone.
        tasks = launcher_number("SLURM_STEP_NUM_TASKS", at_least=1) if "SLURM_STEP_NUM_TASKS" in os.environ else 1
        world_size = asked_for if asked_for > 1 else tasks
        return (launcher_number("SLURM_PROCID"), world_size) if world_size > 1 else (None, 1)
    if asked_for > 1:
        raise ValueError(
            f"--world_size {asked_for} does not start processes by itself: "
            f"run `torchrun --nproc_per_node {asked_for} main.py ...` and leave the flag out"
        )
    return None, 1


def distribute(model: nn.Module, args: Namespace) -> nn.Module:
    """The model as all processes train it together; the model itself for one process."""
    if not args.distributed:
        return model
    return DistributedDataParallel(model, device_ids=None if args.gpu is None else [args.gpu])
