"""The ZIP archive that torch.save writes: whole, undamaged, and no larger inside than outside."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from util.text import printable

MAX_RECORDS = 100_000  # a checkpoint has about one per tensor
# torch.save does not compress. A file that someone has compressed since may hold this much more than its size.
MAX_EXPANSION, FREE_EXPANSION = 4, 2**24
_CHUNK = 2**20
_FOLDER = 0x10  # the attribute of MS-DOS
_OTHER = "pass another file"


class Damaged(Exception):
    """A file is cut or damaged; the message is a clause that gives the cause."""


class Unusable(Exception):
    """A file is intact, but will not be read; the message goes on after its name: "is …", "holds …"."""


@dataclass(frozen=True)
class Archive:
    """What `check_archive` found: the pickle in `data.pkl`, and the bytes of each storage by its key."""

    pickle: bytes
    storages: Mapping[str, int]


def is_archive(path: Path) -> bool:
    """Whether torch reads a file as a ZIP archive."""
    with path.open("rb") as file:
        return file.read(4) == b"PK\x03\x04"


def check_archive(path: Path) -> Archive:
    """Check the directory of an archive before anything in it is read, then the checksum of every record.

    Raises:
        Damaged: a record is cut, or its checksum (CRC-32) is wrong.
        Unusable: it is not an archive of torch.save, or claims to hold far more than its size.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            records = archive.infolist()
            _check_directory(archive, records, path.stat().st_size)
            for record in records:
                if not record.filename.endswith("/data.pkl"):
                    _check_record(archive, record)
            folder = records[0].filename.partition("/")[0]
            storages = {
                record.filename.removeprefix(f"{folder}/data/"): record.file_size
                for record in records
                if record.filename.startswith(f"{folder}/data/")
            }
            return Archive(archive.read(f"{folder}/data.pkl"), storages)
    except zipfile.BadZipFile as error:
        raise Damaged(printable(error)) from error
    except (EOFError, NotImplementedError, RuntimeError, ValueError, OverflowError) as error:
        raise Damaged(printable(error) or "it ends too early") from error  # RuntimeError: it claims to be encrypted


def _check_directory(archive: zipfile.ZipFile, records: list[zipfile.ZipInfo], size: int) -> None:
    if archive.comment:
        raise Unusable(f"is a ZIP archive with a comment, which torch.save does not write: {_OTHER}")
    if len(records) > MAX_RECORDS:
        raise Unusable(
            f"is a ZIP archive of {len(records):,} files, and a checkpoint has at most {MAX_RECORDS:,}: {_OTHER}"
        )
    names = [record.filename for record in records]
    folders = {name.partition("/")[0] for name in names}
    if len(folders) != 1 or f"{next(iter(folders))}/data.pkl" not in names:
        inside = next((name for name in names if name.endswith((".pth", ".pt", ".bin", ".safetensors"))), None)
        raise Unusable(
            "is a ZIP archive of other files: unpack it and pass "
            + (f"the file in it, such as {inside}" if inside else "a checkpoint")
        )
    if len({name.casefold() for name in names}) < len(names):
        raise Unusable(f"is a ZIP archive with two files of one name, which torch.save does not write: {_OTHER}")
    if any(name.endswith("/constants.pkl") for name in names):
        raise Unusable("is a TorchScript program (torch.jit.save), not a checkpoint: pass the training's checkpoint")
    inside = sum(record.file_size for record in records)
    stored = all(record.compress_type == zipfile.ZIP_STORED for record in records)
    if inside > (size if stored else MAX_EXPANSION * size + FREE_EXPANSION):
        raise Unusable(f"has {size:,} bytes and claims to hold {inside:,}, which torch.save does not write: {_OTHER}")


def _check_record(archive: zipfile.ZipFile, record: zipfile.ZipInfo) -> None:
    if record.external_attr & _FOLDER:  # torch would read nothing, and take whatever memory holds for weights
        raise Damaged(f"{record.filename} is marked as a folder")
    size = 0
    with archive.open(record) as file:
        while chunk := file.read(_CHUNK):  # checks the checksum at the end
            size += len(chunk)
    if size != record.file_size:
        raise Damaged(f"{record.filename} is cut")
