"""What all tools share: parse the command line, run, turn an expected error into one sentence, return the exit code."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from util.errors import CheckpointError, one_sentence
from util.text import print_any_script, printable_lines


class ToolError(RuntimeError):
    """The tool cannot do what it was asked to; the message is for its user."""


def tool_parser(description: str | None, **options: Any) -> argparse.ArgumentParser:
    """A parser whose help shows `description`, usually the tool's docstring, with its line breaks."""
    options.setdefault("prog", _command())
    return argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter, **options
    )


def _command() -> str | None:
    """`python -m tools.NAME` in a process that was started so; argparse before Python 3.14 names the file alone."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return f"python -m {spec.name}" if spec and spec.name.startswith("tools.") else None


def say(text: str) -> None:
    """Print lines of a tool; what they contain from files cannot steer the terminal."""
    print(printable_lines(text))


def refuse_existing(path: Path, what: str) -> None:
    """ValueError if there is something at `path` already."""
    if os.path.lexists(path):
        raise ValueError(f"{path} already exists: choose a new {what}")


def refuse_input(out: Path, *inputs: str | os.PathLike[str]) -> None:
    """ValueError if `out` is one of the inputs, which would be lost; also under another name."""
    for path in inputs:
        if os.path.exists(out) and os.path.exists(path) and os.path.samefile(out, path):
            raise ValueError(f"{out} is the input itself and would be overwritten: choose another output")


def run_tool(
    parser: argparse.ArgumentParser,
    main: Callable[[argparse.Namespace], int | None],
    argv: Sequence[str] | None = None,
    *,
    training_flags: bool = False,
    packages: str = "",
    failed: int = 1,
) -> int:
    """Run a tool from its command line.

    Args:
        parser: reads the command line; it exits with code 2 if that is wrong.
        main: does the work; returns the exit code, None for 0.
        argv: the command line, by default that of this process.
        training_flags: collect flags that `parser` does not know in `options.training_flags`, for `main.py`.
        packages: optional packages the tool needs, named in the error if one is missing; what `pip install` takes.
        failed: the exit code after an error.

    Returns:
        The exit code, `failed` after an error that the user can fix. Any other error is a bug and is raised.
    """
    print_any_script()
    if training_flags:
        options, unknown = parser.parse_known_args(argv)
        options.training_flags = unknown
    else:
        options = parser.parse_args(argv)
    try:
        return main(options) or 0
    except ImportError as error:
        if not packages:
            raise
        sentence = f"{one_sentence(error)}: pip install {packages}"
    except (ValueError, OSError, CheckpointError, ToolError) as error:
        sentence = one_sentence(error)
    print(f"error: {sentence}", file=sys.stderr)
    return failed
