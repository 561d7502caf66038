"""A window that shows frames while they are made."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator
from typing import Any

from PIL import Image, ImageOps

PART_OF_SCREEN = 0.9


class Window:
    """Shows pictures; closing it, Escape and q set `closed`.

    Raises:
        ValueError: there is no display, or this Python has no Tk.
    """

    def __init__(self, title: str) -> None:
        try:
            import tkinter
            from tkinter import TclError

            from PIL import ImageTk
        except ImportError as error:
            raise ValueError(f"--show needs Tk, which this Python lacks ({error}): omit --show") from error
        try:
            self._root: Any = tkinter.Tk()
        except TclError as error:
            raise ValueError(f"--show needs a display, and there is none ({error}): omit --show") from error
        self._photo: Any = None
        self.closed, self._photo_of, self._error = False, ImageTk.PhotoImage, TclError
        screen = self._root.winfo_screenwidth(), self._root.winfo_screenheight()
        self._most = tuple(int(PART_OF_SCREEN * side) for side in screen)
        self._root.title(title)
        self._label = tkinter.Label(self._root)
        self._label.pack()
        self._root.protocol("WM_DELETE_WINDOW", self._close)
        for key in ("<Escape>", "q", "Q"):
            self._root.bind(key, lambda event: self._close())

    def show(self, picture: Image.Image) -> None:
        """Replace the picture; one that is larger than the screen is made smaller."""
        if picture.width > self._most[0] or picture.height > self._most[1]:
            picture = ImageOps.contain(picture, self._most, Image.Resampling.BILINEAR)
        with self._unless_gone():
            self._photo = self._photo_of(picture)  # Tk itself does not keep it
            self._label.configure(image=self._photo)
        self.update()

    def update(self) -> None:
        """Answer keys and clicks."""
        with self._unless_gone():
            self._root.update()

    def close(self) -> None:
        """Take the window away."""
        with self._unless_gone():
            self._root.destroy()
        self._root = self._label = self._photo = None
        gc.collect()  # what is left of Tk must not be collected by another thread: it would abort the process

    @contextlib.contextmanager
    def _unless_gone(self) -> Iterator[None]:
        """Context in which a window or display that is gone counts as closed."""
        try:
            yield
        except self._error:
            self.closed = True

    def _close(self) -> None:
        self.closed = True
