"""Run the pickle of a checkpoint with inert values: no class is imported, no function called, no tensor made.

The instructions are those that torch reads with `weights_only=True`, and they mean the same.
"""

from __future__ import annotations

import math
import pickletools
import warnings
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import torch

from util.files import MAX_EXACT_INT
from util.loading.archive import Damaged, Unusable

MAX_STEPS = 3_000_000  # instructions; 100,000 classes take 1.2 million
_OTHER = "pass another file"
MAX_ODD_KEYS = 1000  # keys whose hashes a file can choose, such as huge integers: many equal hashes take for ever
MAX_DIMENSIONS = 64
_CHUNK = 2**20

_ITEM_SIZES = {
    f"torch.{name}": dtype.itemsize for dtype, name in torch.storage._dtype_to_storage_type_map().items()
} | {"torch.storage.UntypedStorage": 1}
_ITEM_SIZES |= {name.replace("torch.", "torch.cuda."): size for name, size in _ITEM_SIZES.items()}
_TENSORS = ("torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor_v3")
_PARAMETERS = ("torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state")
_FAULTS = {
    "torch._utils._rebuild_qtensor": "a quantized tensor",
    "torch._utils._rebuild_sparse_tensor": "a sparse tensor",
    "torch._utils._rebuild_nested_tensor": "a nested tensor",
    "torch._utils._rebuild_meta_tensor_no_storage": "a tensor without values (device meta)",
}
_CONTAINERS = {"collections.OrderedDict": dict, "collections.Counter": dict, "builtins.set": set}


@dataclass(eq=False)
class Name:
    """A class or function that the pickle names."""

    name: str


@dataclass(eq=False)
class Instance:
    """What a class or function of this name would return, with everything that was handed to it."""

    name: str
    parts: list[Any] = field(default_factory=list)


@dataclass(eq=False)
class Storage:
    """Values of a tensor: their number and the bytes of each."""

    items: int
    item_size: int


@dataclass(eq=False)
class TensorLike:
    """A tensor of this many bytes; `fault` says what is unusual about it."""

    size: int = 0
    fault: str = ""


class OrderedLike(dict):
    """An OrderedDict or a Counter, whose attributes are kept under a key of their own."""


class Machine:
    """The machine for one pickle.

    Args:
        file: read from its position to the end of the pickle.
        storages: key → bytes of the storages in the archive; None if they follow the pickle.

    Attributes:
        classes: full names of the classes and functions that were named.
        bytes_of_storages: what all storages hold together.
    """

    def __init__(self, file: BinaryIO, storages: Mapping[str, int] | None) -> None:
        self.file, self.storages = file, storages
        self.classes: set[str] = set()
        self.bytes_of_storages = 0
        self.known: dict[Any, Storage] = {}
        self.odd_keys = 0

    def run(self) -> Any:
        """The result of the pickle.

        Raises:
            Damaged: it is cut, or an instruction is unknown or does not fit its operands.
            Unusable: it is too long, or would make something out of proportion.
        """
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of invalid escape sequences, which they print as they are
                return self._run()
        except (Damaged, Unusable):
            raise
        except RecursionError:
            raise Damaged("its values are nested too deeply") from None
        except Exception as error:  # instructions that do not fit each other can raise almost any type
            raise Damaged(str(error) or type(error).__name__) from error

    def _run(self) -> Any:
        stack: list[Any] = []
        marked: list[list[Any]] = []
        memo: dict[int, Any] = {}

        def above_mark() -> list[Any]:
            nonlocal stack
            items, stack = stack, marked.pop()
            return items

        for step, (opcode, value, _) in enumerate(self._instructions()):
            if step > MAX_STEPS:
                raise Unusable(
                    f"holds a pickle of more than {MAX_STEPS:,} instructions, unlike any checkpoint: {_OTHER}"
                )
            match opcode:
                case "BINPUT" | "LONG_BINPUT":
                    memo[value] = stack[-1]
                case "BINGET" | "LONG_BINGET":
                    stack.append(memo[value])
                case "BINUNICODE" | "BININT" | "BININT1" | "BININT2" | "BINFLOAT" | "SHORT_BINSTRING" | "LONG1":
                    stack.append(value)
                case "MARK":
                    marked.append(stack)
                    stack = []
                case "TUPLE":
                    items = above_mark()
                    stack.append(tuple(items))
                case "TUPLE1" | "TUPLE2" | "TUPLE3":
                    count = int(opcode[-1])
                    items = [stack.pop() for _ in range(count)]
                    stack.append(tuple(reversed(items)))
                case "NONE" | "NEWFALSE" | "NEWTRUE":
                    stack.append({"NONE": None, "NEWFALSE": False, "NEWTRUE": True}[opcode])
                case "EMPTY_TUPLE" | "EMPTY_LIST" | "EMPTY_DICT" | "EMPTY_SET":
                    stack.append({"TUPLE": tuple, "LIST": list, "DICT": dict, "SET": set}[opcode[6:]]())
                case "APPEND" | "APPENDS":
                    items = above_mark() if opcode == "APPENDS" else [stack.pop()]
                    target = stack[-1]
                    (target.parts if isinstance(target, Instance) else target).extend(items)
                case "SETITEM" | "SETITEMS":
                    items = above_mark() if opcode == "SETITEMS" else [stack.pop(), stack.pop()][::-1]
                    self._set_items(stack[-1], items)
                case "GLOBAL":
                    stack.append(self._name(*value.split(" ", 1)))
                case "REDUCE" | "NEWOBJ":
                    arguments = stack.pop()
                    stack.append(self._call(stack.pop(), arguments, opcode))
                case "BUILD":
                    state = stack.pop()
                    self._build(stack[-1], state)
                case "BINPERSID":
                    stack.append(self._storage(stack.pop()))
                case "PROTO":
                    pass
                case "STOP":
                    return stack.pop()
        raise Damaged("its pickle has no end")

    def _instructions(self) -> Any:
        reader = _Reader(self.file)
        try:
            for opcode, value, position in pickletools.genops(reader):
                if opcode.name not in _KNOWN:
                    raise Damaged(f"Unsupported operand {ord(opcode.code)}")
                yield opcode.name, value, position
        except ValueError as error:
            unknown = str(error).partition("opcode b")[2]
            code = unknown[1 : -len("' unknown")].encode().decode("unicode_escape") if unknown else ""
            raise Damaged(f"Unsupported operand {ord(code)}" if len(code) == 1 else str(error)) from error

    def _name(self, module: str, name: str) -> Name:
        if (module, name) in NAME_MAPPING:
            module, name = NAME_MAPPING[module, name]
        module = IMPORT_MAPPING.get(module, module)
        self.classes.add(f"{module}.{name}")
        return Name(f"{module}.{name}")

    def _set_items(self, target: Any, items: list[Any]) -> None:
        if isinstance(target, Instance):
            target.parts += items
            return
        if not isinstance(target, dict):
            raise Damaged(f"it sets an item of a {type(target).__name__}")
        for key, value in zip(items[::2], items[1::2], strict=True):
            self._check_key(key)
            target[key] = value

    def _check_key(self, key: Any) -> None:
        if isinstance(key, str | bytes) or (type(key) is int and abs(key) <= MAX_EXACT_INT):
            return
        parts = key if isinstance(key, tuple) else (key,)
        self.odd_keys += 1
        # Nested tuples, too, could take for ever to hash.
        if self.odd_keys > MAX_ODD_KEYS or len(parts) > 16 or any(isinstance(part, tuple) for part in parts):
            raise Unusable(f"has keys that are neither text nor small integers, unlike any checkpoint: {_OTHER}")

    def _call(self, function: Any, arguments: Any, opcode: str) -> Any:
        name = function.name if isinstance(function, Name) else ""
        if not name or not isinstance(arguments, tuple):
            raise Damaged("it calls what is no function")
        if name in _TENSORS:
            return _tensor(name, *arguments)
        if name in _PARAMETERS and isinstance(arguments[0], TensorLike):
            return arguments[0]
        if name == "torch._tensor._rebuild_from_type_v2":
            rebuild, kind, inner, *_ = arguments
            if kind.name in ("torch.Tensor", "torch._tensor.Tensor", "torch.nn.parameter.Parameter"):
                return self._call(rebuild, inner, "REDUCE")
            return TensorLike(fault=f"a tensor of the class {kind.name}")
        if name.startswith("torch._utils._rebuild"):
            return TensorLike(fault=_FAULTS.get(name, "a tensor of an unusual kind"))
        if name.startswith("torch.") and (name.endswith("Tensor") or name.startswith("torch.storage.")):
            return TensorLike(fault="a tensor in a form that torch has given up")
        if name in _CONTAINERS:
            return self._container(_CONTAINERS[name], *arguments)
        if name == "builtins.bytearray" and not all(isinstance(value, bytes | str) for value in arguments):
            raise Unusable(f"holds bytes that are given by their number alone, unlike any checkpoint: {_OTHER}")
        if name == "_codecs.encode":
            return arguments[0].encode("latin-1", "replace")
        if name.startswith("numpy.") and _largest(arguments) > 1000:
            raise Unusable(f"holds a NumPy array that is given by its size alone, unlike any checkpoint: {_OTHER}")
        return Instance(name, list(arguments))

    def _container(self, kind: type, *arguments: Any) -> Any:
        if not arguments:
            return OrderedLike() if kind is dict else set()
        (content,) = arguments
        if kind is set:
            for key in content:
                self._check_key(key)
            return set(content)
        result = OrderedLike()
        items = content.items() if isinstance(content, dict) else content
        self._set_items(result, [part for pair in items for part in pair])
        return result

    def _build(self, target: Any, state: Any) -> None:
        if isinstance(target, Instance):
            target.parts.append(state)
        elif isinstance(target, OrderedLike):
            target[_ATTRIBUTES] = state
        elif not isinstance(target, TensorLike):
            raise Damaged(f"it sets the state of a {type(target).__name__}")

    def _storage(self, place: Any) -> Storage:
        kind, key, items = place[1], place[2], place[4]
        item_size = _ITEM_SIZES.get(kind.name)
        if place[0] not in ("storage", b"storage") or item_size is None or not _is_size(items):
            raise Damaged("it names a storage that is none")
        if not isinstance(key, str):
            raise Damaged("it names a storage by something else than a text")
        storage = self.known.get(key)
        if storage is None:
            held = items * item_size if self.storages is None else self.storages.get(key)
            if held is None or items * item_size > held:
                raise Damaged(f"the storage {key} has {held or 0:,} bytes of {items * item_size:,}")
            self.bytes_of_storages += held
            storage = self.known[key] = Storage(items, item_size)
        view = place[5] if len(place) > 5 else None
        if view is not None:
            _, offset, length = view
            if not (_is_size(offset) and _is_size(length) and offset + length <= storage.items):
                raise Damaged("a view of a storage reaches past its end")
            return Storage(length, item_size)
        return storage


class _Reader:
    """A file without a position: `pickletools.genops` would ask for it at every instruction."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.readline = file, file.readline

    def read(self, size: int) -> bytes:
        """Up to `size` bytes, of which only those that are there take memory: a damaged length may be any number."""
        parts = []
        while size > 0 and (part := self.file.read(min(size, _CHUNK))):
            parts.append(part)
            size -= len(part)
        return b"".join(parts)


_ATTRIBUTES = ("attributes",)
_KNOWN = frozenset(
    "GLOBAL NEWOBJ REDUCE BUILD APPEND APPENDS SETITEM SETITEMS MARK TUPLE TUPLE1 TUPLE2 TUPLE3 NONE NEWFALSE NEWTRUE "
    "EMPTY_TUPLE EMPTY_LIST EMPTY_DICT EMPTY_SET BININT BININT1 BININT2 BINFLOAT BINUNICODE SHORT_BINSTRING BINPERSID "
    "BINGET LONG_BINGET BINPUT LONG_BINPUT LONG1 PROTO STOP".split()
)


def _is_size(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**62


def _tensor(name: str, storage: Any, offset: Any, shape: Any, strides: Any, *rest: Any) -> TensorLike:
    if (
        not isinstance(storage, Storage)
        or len(shape) != len(strides)
        or not all(map(_is_size, (offset, *shape, *strides)))
    ):
        raise Damaged("a tensor has no storage, or an impossible shape")
    if len(shape) > MAX_DIMENSIONS:
        raise Damaged(f"a tensor has {len(shape)} dimensions")
    item_size = storage.item_size
    if name.endswith("_v3"):
        item_size = getattr(torch, rest[2].name.removeprefix("torch.")).itemsize
    count = math.prod(shape)
    last = offset + sum((length - 1) * stride for length, stride in zip(shape, strides, strict=True))
    if count and (last + 1) * item_size > storage.items * storage.item_size:
        raise Damaged(f"a tensor of shape {list(shape)} reaches past the end of its values")
    return TensorLike(count * item_size)


def _largest(value: Any) -> int:
    """The largest integer, or product of integers, in nested tuples."""
    if isinstance(value, tuple):
        numbers = [abs(part) for part in value if type(part) is int]
        return max([math.prod(numbers), *(_largest(part) for part in value)], default=0)
    return abs(value) if type(value) is int else 0
