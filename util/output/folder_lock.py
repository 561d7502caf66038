"""The lock of an output folder: one run writes to it at a time, and a killed run leaves no lock behind.

The operating system holds the lock (flock) as long as this process lives; the file says who holds it. Where a file
system has no locks, the process that the file names decides: it is alive or not.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from util.logging import get_logger
from util.text import printable

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

PATIENCE = 2.0  # seconds to wait for a lock: a process that was just killed may take a moment to be gone

_held: list[FolderLock] = []  # by this process


class FolderLock:
    """The lock of `folder`, kept in its file `name`. `locks_released` gives it back.

    Args:
        folder: it is created, and removed again with the lock if nothing was written to it.
        name: of the file.
        doing: what this process does in the folder, for the message to others.
        flag: the flag that names the folder, for messages.
    """

    def __init__(self, folder: Path, name: str, doing: str, flag: str = "--output_dir") -> None:
        self.folder, self.file, self.doing, self.flag = folder, folder / name, doing, flag
        self._descriptor = -1
        self._created: list[Path] = []

    def acquire(self) -> None:
        """Take the lock, and thereby see that the folder can be written to.

        Raises:
            ValueError: another process holds the lock; the message names it.
            OSError: the folder cannot be created or written to.
        """
        try:
            absolute = self.folder.absolute()
            self._created = [path for path in (absolute, *absolute.parents) if not path.exists()]
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock()
            _held.append(self)
            self._write_owner()
        except OSError as error:
            self.release()
            raise OSError(
                f"{self.flag} {self.folder} cannot be written to ({error.strerror or error}): choose another folder, "
                "or make room and check its permissions"
            ) from error
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        """Give the lock back, if it is held, and remove its file and the folders that were created in vain."""
        if self in _held:
            _held.remove(self)
            with suppress(OSError):
                self.file.unlink()  # before the lock is gone: the file must not be another process's
        if self._descriptor >= 0:
            with suppress(OSError):
                os.close(self._descriptor)
            self._descriptor = -1
        for folder in self._created:
            with suppress(OSError):  # not empty: the run has left its files
                folder.rmdir()
        self._created = []

    def _lock(self) -> None:
        while True:
            self._descriptor = os.open(self.file, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o666)
            if not _flock(self._descriptor, self.file, self.flag):
                self._check_owner()
                return
            with suppress(FileNotFoundError):  # removed by its last owner in the meantime
                if os.path.samestat(os.fstat(self._descriptor), os.stat(self.file)):
                    return
            os.close(self._descriptor)
            self._descriptor = -1

    def _check_owner(self) -> None:
        """Without locks: refuse if the process that the file names is alive, as far as this machine can see."""
        owner = read_owner(self.file)
        if owner and owner.get("host") == socket.gethostname() and _is_alive(owner):
            raise ValueError(
                f"{_in_use(self.file, owner, self.flag)}; if that process is another program, delete {self.file}"
            )
        where = f", last used by {_name(owner)}" if owner else ""
        get_logger().warning(
            f"the file system of {self.folder} has no locks{where}: a second run into the same folder on another "
            "machine would not be noticed"
        )

    def _write_owner(self) -> None:
        owner = {
            "doing": self.doing,
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "since": time.strftime("%Y-%m-%d %H:%M:%S"),
            "started": _start_of(os.getpid()),
        }
        os.ftruncate(self._descriptor, 0)
        os.write(self._descriptor, (json.dumps(owner) + "\n").encode())
        os.fsync(self._descriptor)


def refuse_if_locked(file: Path, flag: str = "--output_dir") -> None:
    """ValueError if another process holds the lock that is kept in `file`."""
    try:
        descriptor = os.open(file, os.O_RDWR | getattr(os, "O_CLOEXEC", 0))
    except OSError:
        return  # no such file, or one that says nothing
    try:
        if not _flock(descriptor, file, flag):
            owner = read_owner(file)
            if owner and owner.get("host") == socket.gethostname() and _is_alive(owner):
                raise ValueError(_in_use(file, owner, flag))
    finally:
        os.close(descriptor)


@contextmanager
def locks_released() -> Iterator[None]:
    """A context, or a decorator, that ends by giving back all locks of this process."""
    try:
        yield
    finally:
        for lock in list(_held):
            lock.release()


def read_owner(file: Path) -> dict[str, Any]:
    """What the owner of a lock wrote about itself: `doing`, `pid`, `host`, `since`; empty if it cannot be read."""
    try:
        owner = json.loads(file.read_bytes()[:10_000])
    except (OSError, ValueError, RecursionError):
        return {}
    return owner if isinstance(owner, dict) else {}


def _flock(descriptor: int, file: Path, flag: str) -> bool:
    """Lock an open file; False if its file system has no locks; ValueError if another process holds the lock."""
    if fcntl is None:
        return False
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise ValueError(_in_use(file, read_owner(file), flag)) from None
        except OSError:  # not supported here
            return False
        time.sleep(0.05)


def _in_use(file: Path, owner: dict[str, Any], flag: str) -> str:
    return (
        f"{flag} {file.parent} is in use by {_name(owner)}: wait until it has ended, stop it, or choose another folder"
    )


def _name(owner: dict[str, Any]) -> str:
    if not owner:
        return "another process"
    doing, pid, host, since = (printable(owner.get(key, "?"), 100) for key in ("doing", "pid", "host", "since"))
    return f"process {pid} on {host} ({doing} since {since})"


def _is_alive(owner: dict[str, Any]) -> bool:
    """True if the process still runs on this machine; not if its number has been given to another one."""
    pid = owner.get("pid")
    if os.name != "posix" or type(pid) is not int or pid < 1 or pid == os.getpid():
        return False
    try:
        os.kill(pid, 0)
    except PermissionError:
        pass  # it exists and is another user's
    except (OSError, OverflowError):
        return False
    started = _start_of(pid)
    return started is None or owner.get("started") in (None, started)


def _start_of(pid: int) -> str | None:
    """When a process started, in ticks since the machine did (Linux); None if unknown."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return None


def _forget_in_child() -> None:
    """In a forked process, such as a data loader's worker: the lock must not outlive the process that took it."""
    for lock in _held:
        with suppress(OSError):
            os.close(lock._descriptor)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_in_child)
