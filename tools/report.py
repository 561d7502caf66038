"""Write the report of a run again, from the files in its folder: `python -m tools.report RUN`.

Every evaluation writes RUN/report.html. This command writes it again, for example after the images were moved, or
for a run that was stopped between two evaluations.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from tools.command import run_tool, say, tool_parser
from training.report.page import REPORT, build_report


def main(options: argparse.Namespace) -> None:
    """Write the page."""
    if not options.run.is_dir():
        raise ValueError(f"{options.run} is no folder: pass the --output_dir of a run")
    if options.images is not None and not options.images.is_dir():
        raise ValueError(f"--images {options.images} is no folder: pass the folder of the evaluated images")
    out = options.out or options.run / REPORT
    if out.is_dir():
        raise ValueError(f"--out {out} is a folder: pass the name of a file, such as {out / REPORT}")
    page = build_report(options.run, options.images)
    page.write(out)
    say(f"wrote {out}, {page.size / 1e6:.1f} MB")


def run(argv: Sequence[str] | None = None) -> int:
    """The command; returns the exit code."""
    parser = tool_parser(__doc__)
    parser.add_argument("run", type=Path, metavar="RUN", help="output folder of a run")
    parser.add_argument("--images", type=Path, help="folder of the evaluated images, if they were moved")
    parser.add_argument("--out", type=Path, help="the file to write (default RUN/report.html)")
    return run_tool(parser, main, argv)


if __name__ == "__main__":
    sys.exit(run())
