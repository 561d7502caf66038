"""The whole story in one command: draw a data set, train a small DETR on it from scratch, evaluate, show.

python -m tools.demo --output_dir outputs/demo --seed 1
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import hubconf
import main as detr
from datasets.shapes import THINGS, write_shapes
from predict import Predictor
from tools.draw_detections import draw_detections
from tools.plot_logs import FIELDS
from util.pictures.boxes import contact_sheet
from util.pictures.run_curves import plot_logs

# What small drawn pictures want; everything else is the published default. Against it, the classification loss weighs
# double, since IoU 0.5 is reached long before the classes are told apart; "no object" weighs double too, since a dozen
# queries for some three objects leave fewer empty ones than a hundred do.
RECIPE = """
    --backbone tiny --dilation --backbone_norm bn --backbone_weights none --trainable_layers 5
    --hidden_dim 128 --dim_feedforward 512 --enc_layers 2 --dec_layers 3 --num_queries 12 --dropout 0
    --pos_temperature 20 --bbox_loss_coef 2.5 --giou_loss_coef 1 --eos_coef 0.2
    --train_sizes 96 --max_size 96 --val_size 96 --no_crop
    --batch_size 16 --lr 5e-4 --lr_backbone 5e-4 --lr_schedule cosine --warmup_steps 200
    --epochs 15 --eval_every 5 --num_workers 0 --print_freq 50
""".split()

SHIPPED = hubconf.SHIPPED / "detr_tiny_shapes.pth"  # this recipe on four times as many pictures
SHIPPED_PANOPTIC = hubconf.SHIPPED / "detr_tiny_shapes_panoptic.pth"


def run(argv: list[str] | None = None) -> None:
    """Parse, then make the demo."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--output_dir", type=Path, default=Path("outputs/demo"), help="where everything goes")
    parser.add_argument("--seed", type=int, default=1, help="of the training; the data stay the same")
    parser.add_argument("--train", type=int, default=4000, help="training pictures to draw")
    parser.add_argument("--val", type=int, default=500, help="validation pictures to draw")
    parser.add_argument("--pictures", type=int, default=12, help="validation pictures to annotate")
    options, further = parser.parse_known_args(argv)  # what this parser does not know goes to the training
    out = options.output_dir

    write_shapes(out / "data", train=options.train, val=options.val)
    args = argparse.ArgumentParser(parents=[detr.get_args_parser()]).parse_args(
        [*RECIPE, "--coco_path", str(out / "data"), "--output_dir", str(out), "--seed", str(options.seed), *further]
    )
    (out / "log.txt").unlink(missing_ok=True)  # a curve belongs to one run
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
    """The panoptic maps of some images on one sheet, by the model that ships."""
    found = Predictor(SHIPPED_PANOPTIC, "cpu")(images)
    contact_sheet([prediction.draw_panoptic() for prediction in found], columns=3).save(path)


def report(out: Path, curves: Path, pictures: list[Path], shipped: list[Path], minutes: float) -> None:
    """The last screen: what was reached, what was made, what to try next."""
    rows = [json.loads(line) for line in (out / "log.txt").read_text().splitlines()]
    best = max((row["test_coco_eval_bbox"] for row in rows if "test_coco_eval_bbox" in row), key=lambda stats: stats[0])
    objects = ", ".join(thing["name"] + "s" for thing in THINGS)
    print(
        f"""
A small DETR trained from scratch for {minutes:.1f} minutes, evaluations included, to find {objects}.
On {out / "data" / "val2017"}: AP {best[0]:.3f}, AP50 {best[1]:.3f}

made:
  {pictures[0]}   ground truth beside prediction, {len(pictures) - 1} validation pictures
  {shipped[0]}   the same pictures by {SHIPPED.name}, which ships with this repository
  {shipped[-1]}   panoptic maps of them, by {SHIPPED_PANOPTIC.name}
  {curves}   loss, AP and learning rate over the epochs
  {out / "checkpoint_best.pth"}   the best weights; checkpoint.pth: the last ones, to go on from
  {out / "log.txt"}   a line of JSON for each epoch
  {out / "eval" / "per_class.json"}   the last evaluation, class by class

try next:
  python main.py --help
  python main.py --coco_path YOUR_DATA --output_dir outputs/mine      # annotations/, train2017/, val2017/
  python -m tools.plot_logs {out} outputs/mine --out compare.png
"""
    )


if __name__ == "__main__":
    sys.exit(run())
