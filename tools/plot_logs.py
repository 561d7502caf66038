"""Curves of one or more runs in one picture: `python -m tools.plot_logs RUN... --out FILE.png`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from util.files import write_atomically
from util.pictures.run_curves import plot_logs, read_log

FIELDS = ("loss", "loss_ce", "loss_bbox", "loss_giou", "class_error", "AP", "mAP", "lr")
MASK_FIELDS = ("loss_mask", "loss_dice", "mask_AP", "PQ")  # drawn too where a run has masks


def main(argv: Sequence[str] | None = None) -> int:
    """Draw the runs named on the command line; the exit code is 1 where a log or the output cannot be used."""
    parser = argparse.ArgumentParser(description="Draw loss, error, AP and learning rate of one or more runs.")
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="output folder of a run, with its log.txt")
    parser.add_argument("--out", type=Path, required=True, help="picture to write; the suffix chooses the kind")
    parser.add_argument("--smooth", type=float, default=0, help="centre of mass of the smoothing in epochs (0: none)")
    parser.add_argument("--log_name", default="log.txt", help="name of the log in each folder")
    args = parser.parse_args(argv)
    try:
        fields = FIELDS
        if any("train_loss_mask" in record for run in args.runs for record in read_log(run / args.log_name)):
            fields += MASK_FIELDS
        figure = plot_logs(args.runs, fields, args.smooth, args.log_name, columns=4)
        kind = args.out.suffix[1:] or "png"
        write_atomically(args.out, lambda file: figure.savefig(file, format=kind, dpi=120))
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"wrote {args.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
