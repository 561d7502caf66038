"""What a reader may do with a damaged file: read it, or refuse it in one sentence, within limits of time and memory.

`outcome_of` runs a reader in this process and looks at what it raised, printed and allocated. Time that it computes is
limited by a timer that ends the process; time that it waits is limited by whoever waits for the process.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tools.reliability.fuzzing.mutations import FORGED
from util.errors import one_sentence

try:
    import resource
except ImportError:  # Windows
    resource = None

REPOSITORY = Path(__file__).resolve().parents[3]
MAX_MESSAGE = 4000  # characters of an error, before it is shortened for printing
MAX_OUTPUT = 200_000  # characters of everything printed for a file
ADDRESSES = 2 * 2**30  # bytes that a process may address beyond what it does, so that no length exhausts the machine
MEMORY = 3 * 2**29  # bytes by which one file may raise the memory of the process
UNPRINTABLE = {"Cc", "Cs", "Zl", "Zp"}  # Unicode categories: control characters, lone surrogates, line separators
REORDERING = set("\u061c\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_NO_MEMORY = ("can't allocate memory", "cannot allocate memory", "not enough memory", "memoryerror", "bad_alloc")


class Output:
    """Everything that this process prints from now on, compiled code included, goes to a file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
        for number in (1, 2):
            os.dup2(self.handle, number)
        sys.stdout = sys.stderr = os.fdopen(os.dup(self.handle), "w", encoding="utf-8", buffering=1)

    def take(self) -> bytes:
        """What has been printed since the last call."""
        sys.stdout.flush()
        printed = self.path.read_bytes()
        os.ftruncate(self.handle, 0)
        return printed


def fault_of_output(printed: bytes) -> str | None:
    """What is wrong with printed text, None if nothing is: a user's terminal must be safe from what files contain."""
    try:
        text = printed.decode()
    except UnicodeDecodeError:
        return "printed text that is not UTF-8"
    if "Traceback (most recent call last)" in text:
        return "printed a traceback"
    for letter in set(text) - {"\n"}:
        if unicodedata.category(letter) in UNPRINTABLE or letter in REORDERING:
            return f"printed the character {ascii(letter)}"
    if any(line.lstrip().removeprefix("error: ").startswith(FORGED) for line in text.splitlines()):
        return "printed a forged line"
    if len(text) > MAX_OUTPUT:
        return f"printed {len(text):,} characters"
    return None


def fault_of_error(error: Exception, expected: tuple[type[BaseException], ...]) -> str | None:
    """What is wrong with an error that a reader raised, None if a user can work with it."""
    kind = type(error).__name__
    if not isinstance(error, expected):
        return kind
    last = traceback.extract_tb(error.__traceback__)[-1]
    file = Path(last.filename)
    ours = file.is_relative_to(REPOSITORY) and "site-packages" not in file.parts
    if not ours or not last.line.startswith("raise"):  # our own line may call compiled code, which leaves no frame
        return f"{kind} from {file.name}"
    if len(one_sentence(error)) <= 10:
        return f"{kind} without a sentence"
    if len(str(error)) > MAX_MESSAGE:
        return f"{kind} of more than {MAX_MESSAGE:,} characters"
    if any(words in f"{error} {error.__cause__!r}".lower() for words in _NO_MEMORY):
        return f"{kind} after it asked for too much memory"
    return None


def outcome_of(read: Callable[[], None], expected: tuple[type[BaseException], ...], output: Output) -> tuple[str, str]:
    """Run a reader.

    Returns:
        (outcome, details): the outcome is "accepted", "rejected: TYPE" or "finding: WHAT". The details of a finding
        are the traceback or the printed text; otherwise they are empty.
    """
    before = peak_memory()
    outcome, details = "accepted", ""
    try:
        read()
    except Exception as error:  # any error is an outcome
        fault = fault_of_error(error, expected)
        outcome = f"finding: {fault}" if fault else f"rejected: {type(error).__name__}"
        details = traceback.format_exc() if fault else ""
        print(f"error: {one_sentence(error)}", file=sys.stderr)  # as the commands do
    printed = output.take()
    grown = peak_memory() - before
    if not details and (fault := fault_of_output(printed)):
        outcome, details = f"finding: {fault}", printed.decode(errors="backslashreplace")[:20_000]
    if not details and grown > MEMORY:
        outcome, details = f"finding: {grown / 2**30:.1f} GB of memory", outcome
    return outcome, details


def peak_memory() -> int:
    """The most bytes that this process has held so far; 0 where the system does not tell."""
    if resource is None:
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """The system ends this process (SIGPROF) if the code inside computes for more than `seconds`."""
    if not hasattr(signal, "setitimer"):
        yield
        return
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def limit_addresses() -> None:
    """Limit the addresses of this process, where the system supports it."""
    try:
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + ADDRESSES, resource.RLIM_INFINITY))
    except (AttributeError, ValueError, OSError):
        print("fuzzing without a memory limit", file=sys.stderr)
