"""Compare runs: the settings that differ, the scores, and AP of each class, with the change from the first run.

python -m tools.compare outputs/base outputs/longer                       # tables
python -m tools.compare outputs/base outputs/longer --out compare.html    # and a page with the curves
python -m tools.compare outputs/*/ --out curves.png                       # and a picture of the curves
python -m tools.compare RUN/checkpoint0099.pth RUN/checkpoint_best.pth    # two checkpoints of one run

A RUN is the output folder of a training, finished or not, one of its checkpoints, of which nothing later is used, or
the output folder of an evaluation. Detectors and panoptic models can be compared, also runs of the published code.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from tools.command import refuse_input, run_tool, say, tool_parser
from tools.comparing.page import kind_of, page, picture
from tools.comparing.runs import read_run, short_names
from tools.comparing.tables import class_scores, classes_table, scores_table, settings_table, text
from util.files import write_atomically
from util.loading.transfer import is_address
from util.text import column_width, fit

NAME_WIDTH = 40  # columns of the names in the list of runs
MIN_WIDTH, USUAL_WIDTH = 60, 120  # columns of a terminal at least, and of a file


def main(options: argparse.Namespace) -> None:
    """Print the tables, and write the page or the picture.

    Raises:
        ValueError, CheckpointError: there is nothing of a run at one of the places, or `--out` cannot be this file.
        OSError: the file cannot be written.
    """
    kind = kind_of(options.out) if options.out else ""
    local = [source for source in options.runs if not is_address(source)]
    if options.out:
        refuse_input(options.out, *local)
    runs = [read_run(source) for source in options.runs]
    names = short_names(options.runs)
    figure = picture(runs, names) if kind not in ("", "html") else None
    width = max(MIN_WIDTH, shutil.get_terminal_size((USUAL_WIDTH, 24)).columns) if sys.stdout.isatty() else USUAL_WIDTH
    wide = column_width(names, NAME_WIDTH)
    for number, (name, run) in enumerate(zip(names, runs), start=1):
        notes = "".join(f"; {note}" for note in run.notes)
        say(f"{number}  {fit(name, wide)}  {run.state()}{notes}")
    classes = [classes_table(runs, score) for score in class_scores(runs)]
    for table in (settings_table(runs), scores_table(runs), *classes):
        say("\n" + text(table, names, width))
    if kind == "html":
        page(runs, names).write(options.out)
    elif figure is not None:
        write_atomically(options.out, lambda file: figure.savefig(file, format=kind, dpi=120))
    if options.out:
        say(f"\nwrote {options.out}")


def run(argv: Sequence[str] | None = None) -> int:
    """The command; returns the exit code."""
    parser = tool_parser(__doc__)
    parser.add_argument("runs", nargs="+", metavar="RUN", help="output folder of a run, or a checkpoint; two or more")
    parser.add_argument("--out", type=Path, metavar="FILE", help="a page (.html), or a picture of the curves (.png)")

    def checked(options: argparse.Namespace) -> None:
        if len(options.runs) < 2:
            parser.error("pass two runs or more")
        main(options)

    return run_tool(parser, checked, argv)


if __name__ == "__main__":
    sys.exit(run())
