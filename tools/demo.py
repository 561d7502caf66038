"""Draw a data set, train a small DETR on it from scratch, evaluate it, and draw its detections.

python -m tools.demo --output_dir outputs/demo --seed 1

All other flags are passed to main.py.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import hubconf
import main as detr
from datasets.shapes import THINGS, write_shapes
from predict import Predictor
from tools.command import run_tool, say, tool_parser
from tools.draw_detections import draw_detections
from tools.plot_logs import FIELDS
from util.pictures.boxes import contact_sheet
from util.pictures.run_curves import plot_logs

# Settings for small drawn images; all others are the published defaults. Relative to the box losses, the classification
# loss has twice its published weight, since boxes reach IoU 0.5 long before classes are distinguished. "No object" has
# twice its weight too, since of a dozen queries fewer are left without an object than of a hundred.
RECIPE = """
    --backbone tiny --dilation --backbone_norm bn --backbone_weights none --trainable_layers 5
    --hidden_dim 128 --dim_feedforward 512 --enc_layers 2 --dec_layers 3 --num_queries 12 --dropout 0
    --pos_temperature 20 --bbox_loss_coef 2.5 --giou_loss_coef 1 --eos_coef 0.2
    --train_sizes 96 --max_size 96 --val_size 96 --no_crop
    --batch_size 16 --lr 5e-4 --lr_backbone 5e-4 --lr_schedule cosine --warmup_steps 200
    --epochs 15 --eval_every 5 --num_workers 0 --print_freq 50
""".split()

SHIPPED = hubconf.SHIPPED / "detr_tiny_shapes.pth"  # this recipe on four times as many images
SHIPPED_PANOPTIC = hubconf.SHIPPED / "detr_tiny_shapes_panoptic.pth"


def main(options: argparse.Namespace) -> None:
    """Draw a data set, train, evaluate, draw pictures, print a report."""
    out = options.output_dir
    write_shapes(out / "data", train=options.train, val=options.val)
    flags = ["--coco_path", str(out / "data"), "--output_dir", str(out), "--seed", str(options.seed)]
    parser = argparse.ArgumentParser(parents=[detr.get_args_parser()])
    args = parser.parse_args([*RECIPE, *flags, *options.training_flags])
    args.overwrite = not args.resume  # the curves are those of one run
    start = time.time()
    detr.main(args)
    minutes = (time.time() - start) / 60

    curves = out / "curves.png"
    plot_logs([out], FIELDS, columns=4).savefig(curves, dpi=120)
    data = {"coco_path": str(out / "data")}
    pictures = draw_detections(out / "checkpoint_best.pth", data, out / "pictures", options.pictures)
    shipped = draw_detections(SHIPPED, data, out / "shipped_detector", options.pictures)
    shipped.append(out / "shipped_detector" / "panoptic.png")
    draw_panoptic(sorted((out / "data" / "val2017").iterdir())[: options.pictures], shipped[-1])
    report(out, curves, pictures, shipped, minutes)


def draw_panoptic(images: list[Path], path: Path) -> None:
    """Draw the panoptic maps of some images on one sheet, with the panoptic model in weights/."""
    found = Predictor(SHIPPED_PANOPTIC, "cpu")(images)
    contact_sheet([prediction.draw_panoptic() for prediction in found], columns=3).save(path)


def report(out: Path, curves: Path, pictures: list[Path], shipped: list[Path], minutes: float) -> None:
    """Print the results, the files, and what to try next."""
    rows = [json.loads(line) for line in (out / "log.txt").read_text().splitlines()]
    best = max((row["test_coco_eval_bbox"] for row in rows if "test_coco_eval_bbox" in row), key=lambda stats: stats[0])
    objects = ", ".join(thing["name"] + "s" for thing in THINGS)
    say(
        f"""
Trained a small DETR from scratch to find {objects}, in {minutes:.1f} minutes including evaluations.
On {out / "data" / "val2017"}: AP {best[0]:.3f}, AP50 {best[1]:.3f}

files:
  {pictures[0]}   ground truth beside predictions, {len(pictures) - 1} validation images
  {shipped[0]}   the same images with {SHIPPED.name}, which comes with this repository
  {shipped[-1]}   their panoptic maps with {SHIPPED_PANOPTIC.name}
  {curves}   loss, AP and learning rate over the epochs
  {out / "checkpoint_best.pth"}   the best weights; checkpoint.pth holds the last ones, to resume from
  {out / "report.html"}   curves, kinds of errors, the worst images and a table of the classes, on one page
  {out / "log.txt"}   a line of JSON per epoch
  {out / "eval" / "per_class.json"}   the last evaluation, per class

try next:
  python main.py --help
  python -m tools.check YOUR_DATA --out outputs/check      # COCO, Pascal VOC or YOLO: what is wrong with it
  python main.py --data YOUR_DATA --recipe auto --output_dir outputs/mine
  python -m tools.plot_logs {out} outputs/mine --out compare.png
"""
    )


def run(argv: Sequence[str] | None = None) -> int:
    """The command; returns the exit code."""
    parser = tool_parser(__doc__, allow_abbrev=False)
    parser.add_argument("--output_dir", type=Path, default=Path("outputs/demo"), help="output folder")
    parser.add_argument("--seed", type=int, default=1, help="seed of the training run; the data do not depend on it")
    parser.add_argument("--train", type=int, default=4000, help="number of training images to draw")
    parser.add_argument("--val", type=int, default=500, help="number of validation images to draw")
    parser.add_argument("--pictures", type=int, default=12, help="number of validation images to annotate")
    return run_tool(parser, main, argv, training_flags=True)


if __name__ == "__main__":
    sys.exit(run())
