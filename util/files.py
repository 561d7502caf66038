"""Files: atomic writes, JSON, JSON lines; conversion to plain data, and checks of numbers read from files."""

import argparse
import hashlib
import json
import os
import pathlib
import re
import socket
import time
import uuid
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

MAX_EXACT_INT = 2**53  # float64, which evaluation and many JSON readers use, represents integers exactly up to here
_TEMPORARY = re.compile(r"\.detr-([0-9a-f]{8})-(\d{1,10})-[0-9a-f]{8}\.tmp")  # machine, process, a random part
_ABANDONED = 86400.0  # seconds after which a temporary file of another machine counts as left behind
_being_written: set[str] = set()  # names of temporary files, by this process


def write_atomically(path: str | os.PathLike[str], write: Callable[[BinaryIO], Any]) -> None:
    """Call `write(file)` on a temporary file next to `path`, then rename it to `path`.

    If interrupted at any point, `path` holds either its old content or all of the new, and the temporary file is
    removed unless the process was killed; `remove_leftovers` then does it. Missing folders are created. A symbolic link
    stays a link. The temporary name is short, so that every name that a file may have can be written.
    """
    target = Path(os.path.realpath(path))
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.parent / _temporary_name()
    _being_written.add(temporary.name)
    try:
        with open(temporary, "xb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    finally:
        _being_written.discard(temporary.name)
    if os.name == "posix":  # the renaming, too, must survive a power failure
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def remove_leftovers(files: Iterable[Path]) -> int:
    """Remove those of `files` that are temporary files of our own and whose writer was killed; returns their number.

    Files with other names, and those of a process that is alive, stay. Whether a process on another machine is alive
    cannot be seen: its files count as left behind after a day.
    """
    removed = 0
    for file in files:
        name = _TEMPORARY.fullmatch(file.name)
        with suppress(OSError):
            if name and _is_left_behind(file, name[1], int(name[2])):
                file.unlink()
                removed += 1
    return removed


def _temporary_name() -> str:
    return f".detr-{_this_machine()}-{os.getpid()}-{uuid.uuid4().hex[:8]}.tmp"


def _this_machine() -> str:
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]


def _is_left_behind(file: Path, machine: str, process: int) -> bool:
    if machine != _this_machine() or os.name != "posix":  # on Windows, os.kill would end the process
        return time.time() - file.lstat().st_mtime > _ABANDONED
    if process == os.getpid():  # perhaps that of an earlier process of the same number, as in a container
        return file.name not in _being_written
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):  # it exists and is another user's
        pass
    return False


def sha256_of(path: str | os.PathLike[str]) -> str:
    """The SHA-256 of a file, in hexadecimal digits.

    Raises:
        OSError: it cannot be read.
    """
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while part := file.read(2**20):  # hashlib.file_digest came with Python 3.11
            digest.update(part)
    return digest.hexdigest()


def to_json(obj: Any) -> str:
    """`obj` as one line of JSON, converted by `plain` first; tensors become nested lists."""
    return json.dumps(plain(obj), default=Tensor.tolist)


def write_json(path: str | os.PathLike[str], obj: Any) -> None:
    """Write `obj` as JSON: `to_json` and a line break, atomically."""
    write_atomically(path, lambda file: file.write((to_json(obj) + "\n").encode()))


def append_json_line(path: str | os.PathLike[str], record: Mapping[str, Any]) -> None:
    """Append `record` to `path` as one line of JSON, see `to_json`; a missing file is created.

    If an interrupted run left the last line unfinished, a line break is added first. If the line cannot be written, as
    on a full disk, the file keeps its old content.
    """
    line = to_json(record) + "\n"
    with open(path, "ab+", buffering=0) as file:
        end = file.seek(0, os.SEEK_END)
        if end > 0:
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                line = "\n" + line
        rest = memoryview(line.encode())
        try:
            while rest:  # a disk that fills up takes a part
                rest = rest[file.write(rest) :]
        except BaseException:
            with suppress(OSError):
                file.truncate(end)
            raise


def plain(obj: Any, where: str = "") -> Any:
    """A copy of `obj` in which everything is plain data or a tensor.

    Namespaces become dictionaries; paths, devices and dtypes strings; NumPy scalars Python numbers; NumPy arrays and
    parameters tensors without gradient; sets lists. Tuples stay tuples, ordered dictionaries stay ordered.

    Args:
        obj: the object to convert.
        where: name of `obj`, for the error message.

    Raises:
        TypeError: something cannot be converted; the message gives the keys that lead to it.
    """
    if obj is None or type(obj) in (bool, int, float, complex, str, bytes):
        return obj
    if isinstance(obj, Tensor):
        return obj.detach()
    if isinstance(obj, np.generic):
        return plain(obj.item(), where)
    if isinstance(obj, np.ndarray) and obj.dtype.kind in "biufc":
        return torch.from_numpy(np.ascontiguousarray(obj).copy().reshape(obj.shape))
    if isinstance(obj, argparse.Namespace):
        return plain(vars(obj), where)
    if isinstance(obj, pathlib.PurePath | torch.device | torch.dtype):
        return str(obj)
    if isinstance(obj, Mapping):
        return _plain_mapping(obj, where)
    if isinstance(obj, list | set | frozenset):
        return [plain(item, f"{where}[{index}]") for index, item in enumerate(obj)]
    if isinstance(obj, tuple):
        return tuple(plain(item, f"{where}[{index}]") for index, item in enumerate(obj))
    raise TypeError(
        f"{where or 'the object'} is a {type(obj).__module__}.{type(obj).__qualname__}, which cannot be saved as plain "
        "data: store its state as numbers, strings, lists, dictionaries or tensors"
    )


def _plain_mapping(obj: Mapping, where: str) -> dict:
    def name_of(key: Any) -> str:
        return f"{where}.{key}" if where else str(key)

    copy = {plain(key, f"the key {key!r} of {where}"): plain(value, name_of(key)) for key, value in obj.items()}
    if isinstance(obj, Counter):
        return Counter(copy)
    if isinstance(obj, OrderedDict):
        copy = OrderedDict(copy)
        if hasattr(obj, "_metadata"):  # the modules' versions, which nn.Module.state_dict attaches to its result
            copy._metadata = plain(obj._metadata, name_of("_metadata"))
    return copy


def is_count(value: Any) -> bool:
    """True for an int in 0..MAX_EXACT_INT: what counters and ids must be. `True` and 1.0 are not."""
    return type(value) is int and 0 <= value <= MAX_EXACT_INT


def is_number(value: Any) -> bool:
    """True for an int or float, NaN and infinity included, but not for `True`."""
    return isinstance(value, int | float) and not isinstance(value, bool)
