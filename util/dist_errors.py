"""What goes wrong between processes, each in one sentence: where they should meet, and when one of them is lost."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlparse

import torch.distributed as dist

from util.device import launcher_number

# Words of gloo, which reports a peer that has gone as a plain RuntimeError.
_LOST = ("connection closed by peer", "connection reset by peer", "broken pipe", "/gloo/")


class ProcessGroupError(RuntimeError):
    """The processes of a run did not find, or have lost, one another; the message says how to mend it."""


def check_meeting_place(rank: int, world_size: int, url: str, environment: Mapping[str, str] = os.environ) -> None:
    """Refuse what torch would only find out by waiting in vain.

    Args:
        rank, world_size: of this process.
        url: `--dist_url`.

    Raises:
        ValueError: names the variable or flag, and what to do.
    """
    who = f"process {rank} of {world_size}"
    if not 0 <= rank < world_size:
        raise ValueError(
            f"RANK is {rank} and WORLD_SIZE {world_size}: ranks go from 0 to {world_size - 1}; start with torchrun"
        )
    if url == "env://":
        missing = [name for name in ("MASTER_ADDR", "MASTER_PORT") if not environment.get(name)]
        if missing:
            raise ValueError(
                f"{who} does not know where the processes meet ({' and '.join(missing)} not set): start with torchrun, "
                "or set MASTER_ADDR and MASTER_PORT, or pass --dist_url tcp://HOST:PORT or file:///SHARED/PATH"
            )
        launcher_number("MASTER_PORT", at_least=1, environment=environment)
        return
    parts = urlparse(url)
    try:
        port = parts.port
    except ValueError:
        port = None
    fits = bool(parts.hostname and port) if parts.scheme == "tcp" else parts.scheme == "file" and bool(parts.path)
    if not fits:
        raise ValueError(f"--dist_url {url} is no place to meet: use env://, tcp://HOST:PORT or file:///SHARED/PATH")
    if parts.scheme == "file" and not Path(parts.path).parent.is_dir():
        raise ValueError(f"--dist_url {url}: there is no folder {Path(parts.path).parent}; make it, on a shared disk")


def explain_meeting(error: BaseException, rank: int, world_size: int, url: str) -> str:
    """Why the processes did not meet: one sentence for what `init_process_group` raised."""
    words = _first_line(error)
    place = url if url != "env://" else f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
    if "address already in use" in str(error).lower():
        remedy = "another run holds it: choose another port (torchrun: --master_port N, or --standalone)"
        return f"process {rank} cannot listen at {place}, which is in use; {remedy}"
    if "unable to find address" in words.lower() or "resolve" in words.lower():
        remedy = "set GLOO_SOCKET_IFNAME to the network device that joins the machines (lo: all processes are on one)"
        return f"process {rank} has no network address to be met at ({words}): {remedy}"
    if "timed out" in words.lower() or "timeout" in words.lower():
        return (
            f"process {rank} of {world_size} waited in vain for the others at {place} ({words}): see that all "
            f"{world_size} are started, see the same address and are let through to it by the network"
        )
    return f"process {rank} of {world_size} could not join the others at {place}: {words}"


def lost_process(error: BaseException) -> str | None:
    """One sentence if `error` comes from the exchange with other processes; None for any other error."""
    by_gloo = type(error) is RuntimeError and any(mark in str(error).lower() for mark in _LOST)
    if not by_gloo and not isinstance(error, dist.DistError):
        return None
    return (
        f"the exchange with the other processes broke off ({_first_line(error)}): if one of them has ended, what it "
        "said last tells why; the last checkpoint is whole, to go on run the same command with --resume auto"
    )


def _first_line(error: BaseException) -> str:
    """The gist: gloo puts the place in its source in front, and a guess behind."""
    line = (str(error).strip() or type(error).__name__).splitlines()[0]
    return re.sub(r"^\[[^\]]*\.cc:\d+\] ", "", line).partition(". This is typically")[0]
