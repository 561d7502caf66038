"""Check a data set before training: `python -m tools.check FOLDER [--checkpoint CKPT] --out report`.

Reads every annotation and every picture of a folder of any format that training reads, and prints what is wrong with
them, the worst first, with the file and what to do. REPORT gets report.html, one page with charts and pictures, and
findings.json. With a checkpoint, the data are checked against its sizes, queries and classes.

exit code  0  nothing that hurts; there may be notes
           1  findings that hurt
           2  something could not be read: the folder, the checkpoint, or the annotations of a part; or the report could
              not be written
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tools.checking.data_set import check
from tools.checking.findings import spoiled
from tools.checking.model import add_flags, model_facts
from tools.checking.report import write_reports
from tools.checking.scan import default_workers
from tools.checking.screen import lines
from tools.command import run_tool, say, tool_parser
from util.settings import SETTINGS

CLEAN, HURT, UNREAD = 0, 1, 2
STOPPED = 130  # by Ctrl-C
QUIET = 10.0  # seconds between lines about the progress, where there is no terminal


class PictureCount:
    """Shows how many pictures were read: a bar on a terminal, else a line now and then."""

    def __init__(self, total: int) -> None:
        from tqdm import tqdm

        self.total, self.done, self.said_at = total, 0, time.monotonic()
        is_terminal = sys.stderr.isatty()
        self.bar = tqdm(total=total, desc="reading", unit=" pictures", leave=False, disable=not is_terminal)
        self.is_silent = is_terminal

    def __call__(self, count: int) -> None:
        self.done += count
        self.bar.update(count)
        if self.done >= self.total:
            self.bar.close()
        elif not self.is_silent and time.monotonic() - self.said_at > QUIET:
            self.said_at = time.monotonic()
            print(f"read {self.done:,} of {self.total:,} pictures", file=sys.stderr)


def main(options: argparse.Namespace, argv: Sequence[str]) -> int:
    """Check, print, write; returns the exit code."""
    if options.out and (options.out.suffix.lower() in (".html", ".htm") or options.out.is_file()):
        raise ValueError(f"--out {options.out} must be a folder: report.html and findings.json are written to it")
    SETTINGS["num_workers"].check(options.num_workers)
    facts = model_facts(options)
    workers = default_workers() if options.num_workers is None else options.num_workers
    checked = check(options.folder, facts, workers, PictureCount)
    say("\n".join([checked.sentence, "", *lines(checked.findings)]))
    if options.out:
        page, record = write_reports(options.out, checked, facts, argv)
        say(f"wrote {page} and {record}")
    if not checked.complete:
        return UNREAD
    return HURT if spoiled(checked.findings) else CLEAN


def run(argv: Sequence[str] | None = None) -> int:
    """The command; returns the exit code."""
    parser = tool_parser(__doc__)
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="a data set, as for main.py --data")
    parser.add_argument("--checkpoint", default="", metavar="CKPT", help="a file or an http(s) address")
    parser.add_argument("--out", type=Path, metavar="REPORT", help="folder for report.html and findings.json")
    parser.add_argument(
        "--num_workers",
        type=int,
        metavar="N",
        help="processes that read pictures (default: one per processor, up to 8)",
    )
    add_flags(parser.add_argument_group("what the model will see (default: the checkpoint's, else main.py's)"))
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        return run_tool(parser, lambda options: main(options, arguments), argv, failed=UNREAD)
    except KeyboardInterrupt:
        print("stopped before the check was complete", file=sys.stderr)
        return STOPPED


if __name__ == "__main__":
    sys.exit(run())
