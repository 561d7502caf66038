"""Files: atomic writes, JSON, JSON lines; conversion to plain data, and checks of numbers read from files."""

import argparse
import json
import os
import pathlib
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

MAX_EXACT_INT = 2**53  # float64, which evaluation and many JSON readers use, represents integers exactly up to here


def write_atomically(path: str | os.PathLike[str], write: Callable[[BinaryIO], Any]) -> None:
    """Call `write(file)` on a temporary file next to `path`, then rename it to `path`.

    If interrupted at any point, `path` holds either its old content or all of the new, and the temporary file is
    removed unless the machine itself went down. Missing folders are created. A symbolic link stays a link.
    """
    target = Path(os.path.realpath(path))
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if os.name == "posix":  # the renaming, too, must survive a power failure
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def to_json(obj: Any) -> str:
    """`obj` as one line of JSON, converted by `plain` first; tensors become nested lists."""
    return json.dumps(plain(obj), default=Tensor.tolist)


def write_json(path: str | os.PathLike[str], obj: Any) -> None:
    """Write `obj` as JSON: `to_json` and a line break, atomically."""
    write_atomically(path, lambda file: file.write((to_json(obj) + "\n").encode()))


def append_json_line(path: str | os.PathLike[str], record: Mapping[str, Any]) -> None:
    """Append `record` to `path` as one line of JSON, see `to_json`; a missing file is created.

    If an interrupted run left the last line unfinished, a line break is added first.
    """
    line = to_json(record) + "\n"
    with open(path, "ab+") as file:
        if file.tell() > 0:
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                line = "\n" + line
        file.write(line.encode())


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
