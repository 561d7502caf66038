"""Draw loss, error, AP and learning rate of one or more runs in one picture.

python -m tools.plot_logs outputs/base outputs/longer --out curves.png --smooth 2

`python -m tools.compare` also says which settings differ.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from tools.command import refuse_input, run_tool, say, tool_parser
from util.files import write_atomically
from util.pictures.run_curves import plot_logs, read_log

FIELDS = ("loss", "loss_ce", "loss_bbox", "loss_giou", "class_error", "AP", "mAP", "lr")
MASK_FIELDS = ("loss_mask", "loss_dice", "mask_AP", "PQ")  # drawn if a run has masks


def main(options: argparse.Namespace) -> None:
    """Draw the curves of the runs into one picture."""
    refuse_input(options.out, *(folder / options.log_name for folder in options.runs))
    fields = FIELDS
    if any("train_loss_mask" in record for folder in options.runs for record in read_log(folder / options.log_name)):
        fields += MASK_FIELDS
    figure = plot_logs(options.runs, fields, options.smooth, options.log_name, columns=4)
    kind = options.out.suffix[1:] or "png"
    write_atomically(options.out, lambda file: figure.savefig(file, format=kind, dpi=120))
    say(f"wrote {options.out}")


def run(argv: Sequence[str] | None = None) -> int:
    """The command; returns the exit code."""
    parser = tool_parser(__doc__)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="output folder of a run, with its log.txt")
    parser.add_argument("--out", type=Path, required=True, help="the picture to write; the suffix sets the format")
    parser.add_argument(
        "--smooth", type=float, default=0, help="smoothing: centre of mass in epochs (default 0, no smoothing)"
    )
    parser.add_argument("--log_name", default="log.txt", help="name of the log file in each folder")
    return run_tool(parser, main, argv)


if __name__ == "__main__":
    sys.exit(run())
