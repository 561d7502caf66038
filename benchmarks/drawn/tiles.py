"""How well `--slice` does on large drawn pictures, beside the whole picture, as a table.

    python -m benchmarks.drawn.tiles [--pictures 4] [--seed 1000] [--overlap 0.2]

The shipped detector looks at pictures of 4000 x 3000 pixels. A shape is found if a detection of its class has an IoU of
0.5 or more; every detection counts for one shape at most, and the others are false.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

import numpy as np
import torch

from benchmarks.drawn.wide_scenes import TILE, draw_mixed_scene, draw_wide_scene
from prediction.predictor import Predictor
from prediction.result import Prediction
from prediction.slicing.predictor import SlicedPredictor
from util.box_ops import box_iou

REPOSITORY = Path(__file__).resolve().parents[2]
PICTURES = {
    "48 shapes of 140 to 200 pixels": draw_wide_scene,
    "70 shapes of 130 to 170 pixels": partial(draw_wide_scene, cell=400, sides=(16, 20)),
    "14 small, 4 medium and 3 large shapes, up to 1200 pixels": draw_mixed_scene,
}


def found_and_false(prediction: Prediction, boxes: np.ndarray, labels: np.ndarray) -> tuple[int, int]:
    """The number of true boxes that are found, and that of detections that find none."""
    iou = box_iou(prediction.boxes, torch.from_numpy(boxes))[0]  # [n, m]
    iou *= prediction.labels[:, None] == torch.from_numpy(labels)
    free = torch.ones(len(prediction), dtype=torch.bool)
    for column in iou.unbind(1):
        best = column.where(free, 0.0)
        if len(best) and best.max() >= 0.5:
            free[best.argmax()] = False
    return int((~free).sum()), int(free.sum())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--pictures", type=int, default=4, help="of each kind")
    parser.add_argument("--seed", type=int, default=1000, help="of the first picture of each kind")
    parser.add_argument("--overlap", type=float, default=0.2)
    args = parser.parse_args()
    torch.set_num_threads(1)
    predictor = Predictor(REPOSITORY / "weights/detr_tiny_shapes.pth", "cpu")
    ways = {"whole": predictor, "tiles": SlicedPredictor(predictor, TILE, args.overlap)}
    print("| pictures | recall, whole | recall, tiles | precision, tiles |\n|---|---|---|---|")
    for about, draw in PICTURES.items():
        found, false, there = dict.fromkeys(ways, 0), dict.fromkeys(ways, 0), 0
        for seed in range(args.seed, args.seed + args.pictures):
            picture, boxes, labels = draw(seed=seed)
            there += len(boxes)
            for name, way in ways.items():
                hits, misses = found_and_false(way(picture), boxes, labels)
                found[name], false[name] = found[name] + hits, false[name] + misses
        recall = [f"{found[name] / there:.3f}" for name in ways]
        precision = found["tiles"] / max(1, found["tiles"] + false["tiles"])
        print(f"| {about} | {' | '.join(recall)} | {precision:.3f} |", flush=True)


if __name__ == "__main__":
    main()
