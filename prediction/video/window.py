"""A window that shows frames while they are made."""

from __future__ import annotations

from typing import Any

from PIL import Image


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
        self.closed, self._photo_of = False, ImageTk.PhotoImage
        self._root.title(title)
        self._label = tkinter.Label(self._root)
        self._label.pack()
        self._root.protocol("WM_DELETE_WINDOW", self._close)
        for key in ("<Escape>", "q"):
            self._root.bind(key, lambda event: self._close())

    def show(self, picture: Image.Image) -> None:
        """Replace the picture."""
        if not self.closed:
            self._photo = self._photo_of(picture)  # Tk itself does not keep it
            self._label.configure(image=self._photo)
            self._root.update()

    def close(self) -> None:
        """Take the window away."""
        self._root.destroy()

    def _close(self) -> None:
        self.closed = True
