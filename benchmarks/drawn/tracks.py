"""How well `--track` and `--line` do on drawn clips: ids that switch, and counts that are exact, as a table.

    python -m benchmarks.drawn.tracks [--clips 12] [--seed 1000] [--every 1]

The shipped detector finds the shapes. A shape is compared in the frames in which at least half of it is to be seen.
Its id switches where the detection that overlaps it best (IoU of 0.5 or more) has another id than the one before.
Counts are by class; the line goes down the middle of the frame.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from benchmarks.drawn.moving_shapes import CLIPS, SIZE, Seen, draw_frames, movers_of
from prediction.predictor import Predictor
from prediction.result import Prediction
from prediction.tracking.line import Crossings, Line
from prediction.tracking.tracker import Tracker
from util.box_ops import box_iou

REPOSITORY = Path(__file__).resolve().parents[2]
RATE = 30.0
LINE = Line((SIZE / 2, 0, SIZE / 2, SIZE))
VISIBLE, OVERLAP = 0.5, 0.5
ABOUT = {
    "apart": "three shapes to and fro in lanes of their own",
    "free": "three shapes anywhere inside, which cover each other",
    "passing": "eight shapes enter, pass each other closely and leave",
    "crossing": "six shapes enter from two sides, meet head-on and leave",
}


@dataclass
class Comparison:
    """What a clip has shown.

    Attributes:
        seen: frames × shapes that were compared.
        switched: how often an id switched in them.
        objects, lines: whether the counts by class, and the crossings by class and way, are exact.
    """

    seen: int
    switched: int
    objects: bool
    lines: bool


def compare(
    tracker: Tracker, found: Sequence[Prediction], there: Sequence[Sequence[Seen]], every: int = 1
) -> Comparison:
    """Follow the detections of successive frames, and compare with what is there; `tracker` has the line `LINE`."""
    last: dict[int, int] = {}
    seen = switched = 0
    for frame, (prediction, shapes) in enumerate(zip(found, there)):
        ids = tracker.update(prediction, frame * every / RATE)
        shown = [shape for shape in shapes if shape.visible >= VISIBLE]
        seen += len(shown)
        for shape, number in zip(shown, _ids_of(prediction, ids, shown)):
            if number is not None:
                switched += last.get(shape.index, number) != number
                last[shape.index] = number
    objects, crossed = truth(there, tracker.counted)
    return Comparison(seen, switched, tracker.counts() == objects, tracker.crossed() == crossed)


def truth(there: Sequence[Sequence[Seen]], counted: int) -> tuple[Mapping[int, int], Mapping[str, Mapping[int, int]]]:
    """Category id → number of shapes that are to be seen in at least `counted` frames; way → id → crossings."""
    frames: Counter[tuple[int, int]] = Counter()
    ways: dict[str, Counter[int]] = {"in": Counter(), "out": Counter()}
    crossings = Crossings(LINE)
    for shape in (shape for shapes in there for shape in shapes if shape.visible >= VISIBLE):
        frames[shape.index, shape.label] += 1
        way = crossings.see(shape.index, shape.inside())
        if way:
            ways[way][shape.label] += 1
    return Counter(label for (_, label), number in frames.items() if number >= counted), ways


def _ids_of(prediction: Prediction, ids: Sequence[int | None], shapes: Sequence[Seen]) -> list[int | None]:
    """The id of the best detection of each shape; of two that overlap it enough, that which has one."""
    if not len(prediction):
        return [None] * len(shapes)
    overlap = box_iou(prediction.boxes, torch.tensor([shape.inside() for shape in shapes]).reshape(-1, 4))[0].numpy()
    overlap = overlap * np.array([number is not None for number in ids])[:, None]
    best = overlap.argmax(0)
    return [ids[row] if overlap[row, column] >= OVERLAP else None for column, row in enumerate(best)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--clips", type=int, default=12, help="of each kind")
    parser.add_argument("--seed", type=int, default=1000, help="of the first clip of each kind")
    parser.add_argument("--every", type=int, default=1, help="only every N-th frame")
    args = parser.parse_args()
    torch.set_num_threads(1)
    predictor = Predictor(REPOSITORY / "weights/detr_tiny_shapes.pth", "cpu")
    print("| clips | ids switched | counts exact | line exact |\n|---|---|---|---|")
    for kind, (_, frames) in CLIPS.items():
        clips = []
        for seed in range(args.seed, args.seed + args.clips):
            drawn = list(draw_frames(movers_of(kind, seed), frames, seed=seed))[:: args.every]
            found = predictor([picture for picture, _ in drawn])
            tracker = Tracker(predictor.names, RATE / args.every, LINE)
            clips.append(compare(tracker, found, [there for _, there in drawn], args.every))
        seen, switched = sum(clip.seen for clip in clips), sum(clip.switched for clip in clips)
        exact = [f"{sum(getattr(clip, name) for clip in clips)} of {len(clips)}" for name in ("objects", "lines")]
        print(f"| {ABOUT[kind]} | {switched} of {seen} ({switched / seen:.2%}) | {' | '.join(exact)} |", flush=True)


if __name__ == "__main__":
    main()
