"""The rank-aware logger, and the state of the git checkout."""

import logging
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from util.dist import is_main_process
from util.text import Lines, escape, printable_lines, shorten


class _StdoutHandler(logging.StreamHandler):
    """Writes to the current `sys.stdout`, above a progress bar if there is one."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> Any:
        return sys.stdout

    def emit(self, record: logging.LogRecord) -> None:
        tqdm = sys.modules.get("tqdm")  # if it is not loaded, there is no bar
        with tqdm.tqdm.external_write_mode(file=self.stream) if tqdm else nullcontext():
            super().emit(record)


class _PrintableFormatter(logging.Formatter):
    """One line a message, unless it is `Lines`; what it contains of files neither steers the terminal nor fills it."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 (the base class's name)
        text = super().formatMessage(record)
        return printable_lines(text) if isinstance(record.msg, Lines) else shorten(escape(text, keep="\t"))

    def formatException(self, ei: Any) -> str:  # noqa: N802
        return printable_lines(super().formatException(ei))


def _is_printed(record: logging.LogRecord) -> bool:
    # Checked for each message, because loggers are created before the process group exists.
    return record.levelno >= logging.WARNING or is_main_process()


def get_logger(name: str = "detr") -> logging.Logger:
    """A standard logger that prints bare messages to stdout: everything from INFO on rank 0, warnings elsewhere."""
    logger = logging.getLogger(name)
    if not any(isinstance(handler, _StdoutHandler) for handler in logger.handlers):
        handler = _StdoutHandler()
        handler.setFormatter(_PrintableFormatter("%(message)s"))
        handler.addFilter(_is_printed)
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        logger.propagate = False
    return logger


def get_sha() -> str:
    """The state of the git checkout: `sha: …, status: …, branch: …`, each N/A if git is not available."""
    folder = Path(__file__).resolve().parent

    def git(*arguments: str) -> str:
        command = ["git", *arguments]
        return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout.strip()

    try:
        sha = git("rev-parse", "HEAD")
        status = "has uncommitted changes" if git("diff-index", "HEAD") else "clean"
        branch = git("rev-parse", "--abbrev-ref", "HEAD")
    except (OSError, subprocess.CalledProcessError):
        sha = status = branch = "N/A"
    return f"sha: {sha}, status: {status}, branch: {branch}"
