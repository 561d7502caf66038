"""Errors as a user meets them: one sentence on what is wrong, where, and what to do."""

from __future__ import annotations

from util.device import is_out_of_memory


class CheckpointError(RuntimeError):
    """A checkpoint cannot be used; the message names the file, the cause and what to do."""


def one_sentence(error: BaseException) -> str:
    """The message of `error` on one line, also of one that came out of a loader's worker process.

    torch wraps such an error: its type is kept, its message becomes the worker's whole traceback, whose last part is
    the error's own line. Line breaks inside of a message, say from a file's name, become spaces.
    """
    text = str(error).strip()
    if text.startswith("Caught ") and "\nOriginal Traceback" in text:
        kind, lines = text.split()[1], text.splitlines()
        last = max((i for i, line in enumerate(lines) if _names(kind, line)), default=len(lines) - 1)
        text = "\n".join(lines[last:]).partition(": ")[2]
    return " ".join(text.split()) or type(error).__name__


def _names(kind: str, line: str) -> bool:
    """True for `OSError: …` and `package.module.OSError: …`, as the last part of a traceback begins."""
    return line.partition(":")[0].split(".")[-1] == kind


def lack_of_memory(
    error: BaseException, advice: str = "lower --batch_size, or --max_size and --train_sizes, or choose a smaller model"
) -> str | None:
    """One sentence that ends with `advice` if memory ran out, here or in a data loader's worker; None otherwise."""
    cause = str(error).strip().split("\n")[0] or type(error).__name__
    if isinstance(error, RuntimeError) and cause.startswith("DataLoader worker (pid"):
        return f"a data loader worker died ({cause}), usually because memory ran out: lower --num_workers"
    return f"out of memory ({cause}): {advice}" if is_out_of_memory(error) else None
