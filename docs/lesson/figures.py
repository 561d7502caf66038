"""Draw the figures of the lesson into docs/lesson/images.

python -m docs.lesson.figures             # all
python -m docs.lesson.figures boxes-hull  # some

Every function in `docs/lesson/drawing` with the decorator `figure` draws one.
"""

from __future__ import annotations

import argparse
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

import torch

from docs.lesson import drawing
from docs.lesson.drawing.look import FIGURES, write

IMAGES = Path(__file__).parent / "images"

for module in iter_modules(drawing.__path__):
    import_module(f"{drawing.__name__}.{module.name}")


def main(argv: list[str] | None = None) -> None:
    """The command; `argv` defaults to the process's arguments."""
    parser = argparse.ArgumentParser("python -m docs.lesson.figures", description="Draw the figures of the lesson.")
    parser.add_argument("names", metavar="NAME", nargs="*", help=f"any of {', '.join(FIGURES)}; all by default")
    names = parser.parse_args(argv).names or list(FIGURES)
    unknown = [name for name in names if name not in FIGURES]
    if unknown:
        parser.error(f"no figure is called {', '.join(unknown)}: choose from {', '.join(FIGURES)}")
    torch.set_num_threads(1)
    for name in names:
        path = write(name, IMAGES)
        print(f"{path}: {path.stat().st_size / 1000:.0f} KB")


if __name__ == "__main__":
    main()
