"""Write the chapters of the lesson as Jupyter notebooks, OUT/zh/*.ipynb and OUT/en/*.ipynb.

python -m tools.notebooks outputs/lesson

They contain the text, figures, code and expected outputs of the pages in docs/lesson; running a cell replaces its
output. They find this repository when they run, so they may lie anywhere on this machine. Files of the same names are
replaced. To open them, install Jupyter in the same environment: `pip install jupyterlab`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from tools.command import run_tool, say, tool_parser
from tools.notebooks.notebook import LESSON, notebook_of


def main(options: argparse.Namespace) -> None:
    """Write all notebooks."""
    pages = sorted(LESSON.glob("??/[0-9][0-9]-*.md"))
    for page in pages:
        path = options.out / page.parent.name / f"{page.stem}.ipynb"
        path.parent.mkdir(parents=True, exist_ok=True)
        notebook = notebook_of(page, path.parent)
        path.write_text(json.dumps(notebook, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    say(f"{options.out}: wrote {len(pages)} notebooks")


def run(argv: Sequence[str] | None = None) -> int:
    """The command; returns the exit code."""
    parser = tool_parser(__doc__, prog="python -m tools.notebooks")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder of the notebooks, created if it does not exist")
    return run_tool(parser, main, argv)


if __name__ == "__main__":
    sys.exit(run())
