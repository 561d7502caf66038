"""JSON files that users hand in: one reader, whose errors say what the file is instead."""

from __future__ import annotations

import gc
import json
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from util.loading.file_kinds import START, advice_for, kind_of
from util.text import printable

_FIRST = '{["-0123456789tfnNI'  # what a JSON value begins with, NaN and Infinity included


def read_json(
    path: str | Path,
    what: str = "file",
    *,
    if_missing: str = "check the path",
    if_nested: str = "is nested too deeply to be read",
) -> Any:
    """The value in a JSON file, in any of JSON's encodings, with or without a byte order mark.

    NaN and Infinity are read, as Python writes them. A file of another kind is told by its first bytes, before all of
    it is read; memory and time grow linearly with the file.

    Args:
        path: the file.
        what: what it is in messages, such as "annotation file".
        if_missing: what to do if there is no such file.
        if_nested: the end of the sentence about a file whose nesting is too deep.

    Raises:
        FileNotFoundError, OSError: the file does not exist or cannot be read.
        ValueError: it is not JSON, or an object in it has a key twice.
    """
    path = Path(path)
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise ValueError(f"{what} {path} is a folder: pass a file")
        if not stat.S_ISREG(mode):  # a pipe would be waited for, a device read without end
            raise ValueError(f"{what} {path} is not a regular file: pass a file")
        with path.open("rb") as file:
            start = file.read(START)
            fault = _fault_of(start)
            file.seek(0)
            content = b"" if fault else file.read()
    except FileNotFoundError:
        raise FileNotFoundError(f"{what} {path} does not exist: {if_missing}") from None
    except OSError as error:
        raise OSError(f"{what} {path} cannot be read ({error.strerror}): check its permissions") from None
    if fault:
        raise ValueError(f"{what} {path} {fault}")
    try:
        text = content.decode(json.detect_encoding(content), "surrogatepass")
        del content  # only one copy of a large file stays in memory
        with collector_paused():
            return json.loads(text, object_pairs_hook=_unique_keys)
    except _RepeatedKey as error:
        fault = f"has the key {error} twice in one object: remove one"
    except RecursionError:
        fault = if_nested
    except json.JSONDecodeError as error:
        fault = f"is not JSON ({error}): {_advice(error, start)}"
    except UnicodeDecodeError as error:
        fault = f"is not JSON ({error}): it is damaged, or saved in another encoding than UTF-8"
    except ValueError:
        fault = f"is not JSON that can be read (an integer of more than {sys.get_int_max_str_digits()} digits)"
    raise ValueError(f"{what} {path} {fault}")


@contextmanager
def collector_paused() -> Iterator[None]:
    """Context without Python's search for unreachable cycles, which goes through all objects again and again.

    Where millions of objects are made that refer to each other in one direction only, it takes as long as the work.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _fault_of(start: bytes) -> str | None:
    """What is wrong with a file that begins with these bytes; None if it may be JSON."""
    if not start:
        return "is empty; writing or copying it may have been interrupted: copy it again"
    first = start.decode(json.detect_encoding(start), "replace").lstrip()[:40]
    if first.startswith(("{'", "[{'", "{\"'", "[(")):
        return f"is not JSON but a Python value ({printable(first)}…): write it with json.dump"
    if first[:1] in _FIRST:  # also if there is only white space so far
        return None
    kind = kind_of(start)
    if kind:
        return f"is not JSON but {kind}: {advice_for(kind)}"
    return f"is not JSON (it begins with '{printable(first[:20])}'): pass another file"


def _advice(error: json.JSONDecodeError, start: bytes) -> str:
    kind = kind_of(start)
    if kind:
        return f"it looks like {kind}; {advice_for(kind)}"
    if error.msg == "Extra data" and error.doc[error.pos] in "{[":
        return "it holds several JSON values, such as JSON lines: join them into one"
    if error.msg.startswith("Unterminated") or error.pos > len(error.doc.rstrip()) - 9:  # 9: the longest literal
        return "it may be truncated"
    return "correct it there, or pass another file"


class _RepeatedKey(ValueError):
    pass


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # json keeps the last of equal keys: if a bad merge left two `images` lists, one would be lost silently.
    entries = dict(pairs)
    if len(entries) < len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise _RepeatedKey(f"'{printable(key, 60)}'")
            seen.add(key)
    return entries
