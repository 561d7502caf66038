"""The names of files in the output folder: each image and each class has its own, on any file system."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from pathlib import PurePosixPath

from util.text import escape

JPEG, PNG = (".jpg", ".jpeg", ".jpe"), (".png",)
MAX_BYTES = 255  # of a file's name, on all common file systems
MAX_CLASS_BYTES = 200  # of a class's folder, which leaves room for its id
_NOT_PORTABLE = re.compile(r'[\x00-\x1f<>:"/\\|?*]')
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\.|$)", re.IGNORECASE)  # devices on Windows


def picture_name(name: str) -> str:
    """The file name of an image's picture: JPEG stays JPEG, PNG stays PNG, everything else becomes PNG."""
    return name if PurePosixPath(name).suffix.lower() in (*JPEG, *PNG) else f"{name}.png"


def map_name(name: str) -> str:
    """The file name of an image's panoptic map, a PNG."""
    return name if PurePosixPath(name).suffix.lower() in PNG else f"{name}.png"


def own_names(
    names: Iterable[str], form: Callable[[str], str], taken: Mapping[str, str] | None = None
) -> dict[str, str]:
    """A file name for each image, `form(name)` where possible.

    No two are equal, also where upper and lower case or Unicode's forms of a letter are not distinguished, and none is
    a folder of another. Where two would clash, all but one contain a part of a hash of the image's name; the same holds
    for names that are too long. The result does not depend on the order of `names`.

    Args:
        names: relative paths with "/".
        form: such as `picture_name`.
        taken: image → file name, names that are in use already.

    Returns:
        Image → file name, those in `taken` included.
    """
    found = dict(taken or {})
    files = {_comparable(file) for file in found.values()}
    folders = {parent for file in files for parent in _parents(file)}
    wanted = {name: _fitting(form(name)) for name in set(names) - set(found)}
    for name in sorted(wanted, key=lambda name: (wanted[name] != name, name)):  # what keeps its name comes first
        file, digits = wanted[name], 8
        while (key := _comparable(file)) in files or key in folders or any(parent in files for parent in _parents(key)):
            path = PurePosixPath(wanted[name])
            blocked = any(parent in files for parent in _parents(_comparable(wanted[name])))
            marked = with_tail(path.stem, f"-{_digest(name)[:digits]}{path.suffix}")
            file, digits = marked if blocked else path.with_name(marked).as_posix(), digits + 8
        found[name] = file
        files.add(key)
        folders.update(_parents(key))
    return found


def crop_name(picture: str, number: int) -> str:
    """The file name of the crop of detection `number`, from the file name of the image's picture."""
    path = PurePosixPath(picture)
    return path.with_name(with_tail(path.stem, f"-{number}{path.suffix}")).as_posix()


def class_folder(label: int, name: str, taken: Mapping[int, str]) -> str:
    """A folder name for a class, usable on any system, that none of the classes in `taken` (label → folder) has."""
    plain = _NOT_PORTABLE.sub("_", escape(name[:200])).strip(" .")
    plain = _cut(plain[:80], MAX_CLASS_BYTES).rstrip(" .") or "_"
    plain = f"_{plain}" if _RESERVED.match(plain) else plain
    used = {_comparable(folder) for folder in taken.values()}
    folder, count = plain, 1
    while _comparable(folder) in used:
        folder, count = f"{plain}-{label}" + f"-{count}" * (count > 1), count + 1
    return folder


def with_tail(stem: str, tail: str) -> str:
    """`stem` and `tail` as one name; if it is too long, the stem is cut and marked with a part of its hash."""
    if len(_bytes(stem + tail)) <= MAX_BYTES:
        return stem + tail
    tail = f"-{_digest(stem)[:8]}{tail}"
    return _cut(stem, MAX_BYTES - len(_bytes(tail))) + tail


def _fitting(file: str) -> str:
    """A path that stays below its folder, with a last part that is not too long."""
    parts = [part if part not in ("", ".", "..") else "_" for part in file.split("/")] or ["_"]
    path = PurePosixPath(*parts)
    suffix = path.suffix if len(_bytes(path.suffix)) < 32 else ""
    return path.with_name(with_tail(path.name.removesuffix(suffix), suffix)).as_posix()


def _comparable(file: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", file).casefold())


def _parents(file: str) -> list[str]:
    parts = file.split("/")
    return ["/".join(parts[:count]) for count in range(1, len(parts))]


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _cut(text: str, size: int) -> str:
    """The longest beginning of `text` with at most `size` bytes."""
    for index, letter in enumerate(text):
        size -= len(_bytes(letter))
        if size < 0:
            return text[:index]
    return text


def _digest(text: str) -> str:
    return hashlib.sha256(_bytes(text)).hexdigest()
