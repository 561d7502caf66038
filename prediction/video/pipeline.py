"""Work on a stream of items in another thread, with a few items in between: bounded memory, and errors arrive."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

ROOM = 4  # items between two threads
_TICK = 0.1  # seconds after which a waiting thread looks whether it should stop
_PATIENCE = 0.5  # seconds that the end of a thread is waited for
_END = object()


def ahead(items: Iterable[Any], room: int = ROOM, leave: Callable[[], bool] = lambda: False) -> Iterator[Any]:
    """The items, computed in another thread, at most `room` ahead. Leaving early ends that thread, after its item.

    Args:
        items: a generator is closed by that thread.
        room: items that may wait.
        leave: asked several times a second while there is no item; True ends the iteration.

    Raises:
        Exception: what `items` raises, at its place.
    """
    between: queue.Queue = queue.Queue(room)
    stop = threading.Event()

    def work() -> None:
        try:
            for item in items:
                if not _put(between, (item, None), stop):
                    return
            _put(between, (_END, None), stop)
        except BaseException as error:  # raised again by the reader
            _put(between, (_END, error), stop)
        finally:
            if hasattr(items, "close"):
                items.close()

    thread = threading.Thread(target=work, name="decode", daemon=True)
    thread.start()
    try:
        while True:
            try:
                item, error = between.get(timeout=_TICK)
            except queue.Empty:
                if leave():
                    return
                continue
            if error is not None:
                raise error
            if item is _END:
                return
            yield item
    finally:
        stop.set()
        thread.join(_PATIENCE)  # it may wait for a stream that sends nothing


class Behind:
    """Calls `work` with what `put` takes, in order, in another thread that is at most `room` behind.

    `finish` waits for the rest. What `work` raises is raised by the next `put` or by `finish`.
    """

    def __init__(self, work: Callable[[Any], None], room: int = ROOM) -> None:
        self._between: queue.Queue = queue.Queue(room)
        self._stop = threading.Event()
        self._error: BaseException | None = None
        self._work = work
        self._thread = threading.Thread(target=self._run, name="encode", daemon=True)
        self._thread.start()

    def put(self, item: Any) -> None:
        """Hand an item over; waits while there is no room."""
        _put(self._between, item, self._stop)
        self._raise()

    def finish(self) -> None:
        """Wait until all items are done."""
        _put(self._between, _END, self._stop)
        self._thread.join()
        self._raise()

    def _run(self) -> None:
        try:
            while (item := self._between.get()) is not _END:
                self._work(item)
        except BaseException as error:  # raised again by the caller
            self._error = error
            self._stop.set()

    def _raise(self) -> None:
        if self._error is not None:
            error, self._error = self._error, None
            raise error


def _put(between: queue.Queue, item: Any, stop: threading.Event) -> bool:
    while not stop.is_set():
        try:
            between.put(item, timeout=_TICK)
            return True
        except queue.Full:
            continue
    return False
