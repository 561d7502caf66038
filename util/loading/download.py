"""Files from an http(s) address, in torch.hub's cache: bounded in time and size, checked at every use.

A name that ends in a hash, such as `detr-r50-e632da11.pth`, says what the file holds: it is kept under that name, as
torch.hub keeps it. Any other name says nothing, `checkpoint.pth` least of all: it is kept under a name made from its
whole address, with a record of its content beside it, and loaded again when the server has another file.

Environment variables lift the limits: `DETR_DOWNLOAD_MB`, the size of a file, by default 2048, or 256 if the server
does not announce it; `DETR_DOWNLOAD_SECONDS`, how long a server may be silent, by default 12. A download may take 1000
times as long.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import re
import shutil
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urldefrag, urlsplit

import torch

from util.dist import is_main_process
from util.errors import CheckpointError
from util.files import sha256_of, write_json
from util.loading.transfer import Head, Refused, transfer
from util.text import printable

MB = 2**20
ANNOUNCED_MB, UNANNOUNCED_MB = 2048, 256
SILENCE = 12.0  # seconds
SPARE = 64 * MB  # bytes that stay free on the disk
_ADVICE = "check the address and the network, or download the file elsewhere and pass its path"


@dataclass(frozen=True)
class _Record:
    """What the cache knows of a file: its address, its content, and what the server said of it."""

    url: str
    sha256: str
    size: int
    etag: str | None
    last_modified: str | None

    def is_current(self, head: Head) -> bool:
        """Whether a server that answers with `head` still has this file; False if it does not say."""
        versions = (head.etag, head.last_modified)
        return any(versions) and versions == (self.etag, self.last_modified) and head.size in (None, self.size)


def download(url: str, what: str = "checkpoint", advice: str = _ADVICE, *, named_by_hash: bool = True) -> Path:
    """The file at an http(s) address, from the cache if it is there, intact and current.

    A file that is cut off, too large or does not match the hash in its name is not kept, nor is part of one when the
    program is interrupted. If the server cannot be asked whether a file without a hash is current, it counts as such.

    Args:
        url: the address.
        what: what it is in messages.
        advice: what to do if it cannot be downloaded.
        named_by_hash: a hash in the name is that of the file, and not of another one that it belongs to.

    Raises:
        CheckpointError: no file name in the address, no answer, a limit exceeded, a wrong hash, or a full disk.
    """
    target = cache_path(url, named_by_hash)
    url = urldefrag(url).url
    expected = _hash_in(target.name) if named_by_hash else None
    if expected and (_digest(target) or "").startswith(expected):
        return target
    cached = None if expected else _recorded(target, url)
    limits = _limits()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.closing(transfer(url, limits[0])) as parts:
            head = next(parts)
            if cached and cached.is_current(head):
                return target
            _say(f"downloading {printable(url)} to {printable(target)}")
            _receive(parts, head, url, target, expected, limits)
    except _WrongHash:
        raise CheckpointError(
            f"{what} {url} does not match the hash in its name: it is damaged or a different file; try again"
        ) from None
    except (OSError, Refused) as error:
        if cached:
            _say(f"{printable(url)} could not be downloaded again ({error}): using the copy {printable(target)}")
            return target
        if isinstance(error, OSError):
            advice = f"free some space, or set TORCH_HOME to another folder than {torch.hub.get_dir()}"
        raise CheckpointError(f"{what} {url} could not be downloaded ({error}): {advice}") from error
    return target


def cache_path(url: str, named_by_hash: bool = True) -> Path:
    """Where the file of this address is kept: under its own name if that has a hash, else under one of the address.

    Raises:
        CheckpointError: it is not an address, or contains no file name.
    """
    try:
        address = urldefrag(url).url
        place = urlsplit(address)
    except ValueError as error:
        raise CheckpointError(f"{url} is not an address ({error}): correct it") from None
    name = place.path.rpartition("/")[2]
    if not place.netloc or not unquote(name).strip(". "):
        raise CheckpointError(f"the address {url} contains no file name: add the name of the checkpoint")
    if not (named_by_hash and _hash_in(name)):
        stem, dot, suffix = re.sub(r"[^\w.-]|%[0-9a-fA-F]{2}", "_", name, flags=re.ASCII).rpartition(".")
        key = hashlib.sha256(address.encode("utf-8", "surrogatepass")).hexdigest()[:16]
        name = f"{(stem or suffix)[:80]}.{key}" + (f".{suffix[:16]}" if dot else "")
    return Path(torch.hub.get_dir(), "checkpoints", name)


def forget(url: str, named_by_hash: bool = True) -> None:
    """Remove the cached file of an address, so that the next try downloads it; not if a hash says that it is right."""
    path = cache_path(url, named_by_hash)
    if named_by_hash and _hash_in(path.name):
        return
    for file in (path, _record_path(path)):
        with contextlib.suppress(OSError):
            file.unlink()


def _hash_in(name: str) -> str | None:
    """The start of the SHA-256 in a name, as torch.hub's convention has it; a date in its place is none."""
    found = re.fullmatch(r"[\w.-]*-([0-9a-f]{8,64})\.\w{1,16}", name, flags=re.ASCII)
    is_date = found and re.fullmatch(r"(19|20)\d\d(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])(\d\d)*", found[1])
    return found[1] if found and not is_date else None


def _recorded(path: Path, url: str) -> _Record | None:
    """The record of a cached file; None if there is none, or the file is not the one that was downloaded."""
    try:
        record = _Record(**json.loads(_record_path(path).read_bytes()))
        intact = record.url == url and path.stat().st_size == record.size and _digest(path) == record.sha256
        return record if intact else None
    except (OSError, ValueError, TypeError, RecursionError):
        return None


def _record_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def _digest(path: Path) -> str | None:
    try:
        return sha256_of(path) if path.is_file() else None
    except OSError:
        return None  # as if it were not there


def _limits() -> tuple[float, float, float]:
    """Seconds of silence, bytes of a file of announced size and of another one."""

    def given(name: str) -> float | None:
        text = os.environ.get(name, "")
        try:
            value = float(text) if text else None
        except ValueError:
            value = math.nan
        if value is not None and not value > 0:
            raise CheckpointError(f"the environment variable {name} is {text!r}: set it to a number above 0")
        return value

    silence, megabytes = given("DETR_DOWNLOAD_SECONDS"), given("DETR_DOWNLOAD_MB")
    silence = min(silence or SILENCE, threading.TIMEOUT_MAX / 1000)
    return silence, (megabytes or ANNOUNCED_MB) * MB, (megabytes or UNANNOUNCED_MB) * MB


class _WrongHash(Exception):
    pass


def _receive(
    parts: Iterator[bytes],
    head: Head,
    url: str,
    target: Path,
    expected: str | None,
    limits: tuple[float, float, float],
) -> None:
    """Write the content to `target` and its record beside it, all or nothing."""
    silence, announced, unannounced = limits
    limit = unannounced if head.size is None else announced
    if head.size is not None and head.size > limit:
        raise Refused(f"it has {head.size / MB:,.0f} MB; DETR_DOWNLOAD_MB allows more than {limit / MB:,.0f}")
    partial = target.with_name(f"{target.name[:100]}.{uuid.uuid4().hex}.partial")
    digest, size, deadline = hashlib.sha256(), 0, time.monotonic() + 1000 * silence
    try:
        with partial.open("xb") as file, _bar(head.size) as bar:
            _check_space(target.parent, head.size or 0)
            for piece in parts:
                size += len(piece)
                if size > limit:
                    raise Refused(
                        f"the server does not announce the size and sends more than {limit / MB:,.0f} MB; "
                        "DETR_DOWNLOAD_MB allows more"
                    )
                if time.monotonic() > deadline:
                    raise Refused(
                        f"it takes longer than {1000 * silence / 3600:.1f} h; DETR_DOWNLOAD_SECONDS allows more"
                    )
                _check_space(target.parent, 0)
                file.write(piece)
                digest.update(piece)
                bar.update(len(piece))
            if head.size is not None and size != head.size:
                raise Refused(f"it was cut off after {size:,} of {head.size:,} bytes; try again")
            if not size:
                raise Refused("the server sent an empty file")
            file.flush()
            os.fsync(file.fileno())
        if expected and not digest.hexdigest().startswith(expected):
            raise _WrongHash
        os.replace(partial, target)
        if not expected:
            record = _Record(url, digest.hexdigest(), size, head.etag, head.last_modified)
            write_json(_record_path(target), asdict(record))
    finally:
        partial.unlink(missing_ok=True)


def _check_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed + SPARE:
        raise OSError(f"only {free / MB:,.0f} MB are free in {folder}")


def _bar(total: int | None) -> Any:
    from tqdm import tqdm

    return tqdm(total=total, unit="B", unit_scale=True, unit_divisor=1024, disable=not sys.stderr.isatty())


def _say(text: str) -> None:
    if is_main_process():
        print(text)  # not by the logger: torch.hub loads this module afresh for every model
