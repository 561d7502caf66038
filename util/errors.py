"""Errors as the user reads them: one sentence on what is wrong, where, and what to do."""

from __future__ import annotations

import errno
import os
import re

import torch.distributed as dist

from util.compute.device import is_out_of_memory
from util.text import escape, shorten

# From the messages of gloo, which reports a lost process as a plain RuntimeError.
_LOST = ("connection closed by peer", "connection reset by peer", "broken pipe", "/gloo/")

MAX_SENTENCE = 2000  # characters


class CheckpointError(RuntimeError):
    """A checkpoint cannot be used; the message names the file, the cause and what to do."""


class OpenFilesError(OSError):
    """The limit of open files is reached, and no file is to blame; the message names `ulimit -n`."""


class ProcessGroupError(RuntimeError):
    """The processes of a run could not connect; the message says what to do."""


def one_sentence(error: BaseException) -> str:
    """The message of `error` on one line of at most `MAX_SENTENCE` characters, safe to print.

    White space in it, such as line breaks from a file name, becomes single spaces, other control characters escapes.
    """
    return shorten(escape(" ".join(_message(error).split())), MAX_SENTENCE)


# Errors that the user can fix, in every command; any other is a bug and shows its traceback.
FIXABLE = (ValueError, OSError, CheckpointError, FloatingPointError)


def sentence_or_raise(error: Exception, fixable: tuple[type[Exception], ...], *known: str | None) -> str:
    """What a command says about the error that ended it: the first sentence of `known`, or the error's own message if
    it is one of the types `fixable`, which the user can fix. Any other error is a bug and is raised again."""
    sentence = next(filter(None, known), None)
    if sentence is None and not isinstance(error, fixable):
        raise error
    return sentence or one_sentence(error)


def _message(error: BaseException) -> str:
    """The message of `error`, also of one that was raised in a data loader's worker process.

    torch wraps such an error: its type is kept, and its message becomes the worker's traceback, whose last part is the
    message itself.
    """
    text = str(error).strip()
    if text.startswith("Caught ") and "\nOriginal Traceback" in text:
        kind, lines = text.split()[1], text.splitlines()
        last = max((i for i, line in enumerate(lines) if _names(kind, line)), default=len(lines) - 1)
        text = "\n".join(lines[last:]).partition(": ")[2].strip()
    return text or type(error).__name__


def _names(kind: str, line: str) -> bool:
    """True for `OSError: …` and `package.module.OSError: …`, as the last part of a traceback begins."""
    return line.partition(":")[0].split(".")[-1] == kind


def lack_of_memory(
    error: BaseException, advice: str = "lower --batch_size, or --max_size and --train_sizes, or choose a smaller model"
) -> str | None:
    """One sentence that ends with `advice` if memory ran out, here or in a data loader's worker; None otherwise."""
    cause = shorten(escape(_message(error).split("\n")[0]), MAX_SENTENCE)
    if isinstance(error, RuntimeError) and cause.startswith("DataLoader worker (pid"):
        return f"a data loader worker died ({cause}), usually because memory ran out: lower --num_workers"
    return f"out of memory ({cause}): {advice}" if is_out_of_memory(error) else None


def lack_of_open_files(error: BaseException, advice: str = "") -> str | None:
    """One sentence that ends with `advice` if the limit of open files was reached, here or in a data loader's worker;
    None otherwise."""
    codes = (errno.EMFILE, errno.ENFILE)
    cause = _message(error)
    from_torch = isinstance(error, RuntimeError) and cause.startswith("Too many open files")
    from_worker = isinstance(error, OSError) and cause.startswith(tuple(f"[Errno {code}]" for code in codes))
    if not from_torch and not from_worker and getattr(error, "errno", None) not in codes:
        return None
    try:
        import resource

        limit = f" ({resource.getrlimit(resource.RLIMIT_NOFILE)[0]} files)"
    except ImportError:  # Windows
        limit = ""
    return f"the limit of open files{limit} is reached: raise it, such as by `ulimit -n 4096`{advice}"


def failed_rendezvous(error: BaseException, rank: int, world_size: int, url: str) -> str:
    """One sentence on why the processes could not connect, from what `init_process_group` raised."""
    cause = _first_line(error)
    place = url if url != "env://" else f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
    if "address already in use" in str(error).lower():
        advice = "choose another port (torchrun: --master_port N, or --standalone)"
        return f"process {rank} cannot listen on {place}: the address is in use, probably by another run; {advice}"
    if "unable to find address" in cause.lower() or "resolve" in cause.lower():
        return (
            f"process {rank} found no network address to listen on ({cause}): set GLOO_SOCKET_IFNAME to the network "
            "interface that connects the machines (lo if all processes run on one machine)"
        )
    if "timed out" in cause.lower() or "timeout" in cause.lower():
        return (
            f"process {rank} of {world_size} timed out waiting for the others at {place} ({cause}): check that all "
            f"{world_size} are running, were given the same address, and can reach it over the network"
        )
    return f"process {rank} of {world_size} could not join the others at {place}: {cause}"


def lost_process(error: BaseException) -> str | None:
    """One sentence if `error` reports that another process of the run was lost; None for any other error."""
    from_gloo = type(error) is RuntimeError and any(words in str(error).lower() for words in _LOST)
    if not from_gloo and not isinstance(error, dist.DistError):
        return None
    return (
        f"communication with the other processes failed ({_first_line(error)}): if one of them has stopped, its last "
        "output says why; the last checkpoint is intact: run the same command with --resume auto to continue"
    )


def _first_line(error: BaseException) -> str:
    """The cause in gloo's message, without the position in gloo's source before it and the guess after it."""
    line = (str(error).strip() or type(error).__name__).splitlines()[0]
    return shorten(escape(re.sub(r"^\[[^\]]*\.cc:\d+\] ", "", line).partition(". This is typically")[0]), MAX_SENTENCE)
