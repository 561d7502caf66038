"""Draw ground truth beside predictions for images of an annotated data set.

python -m tools.draw_detections RUN/checkpoint_best.pth --coco_path DATA --out FOLDER --count 12
python -m tools.draw_detections RUN/checkpoint_best.pth --val_ann test.json --val_images test --out FOLDER
python -m tools.draw_detections RUN/checkpoint_best.pth --data FOLDER --eval_part test --out FOLDER
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn

from datasets import build_dataset
from datasets.formats.choose import choose_data
from datasets.splits.record import Split
from datasets.transforms import IMAGENET_MEAN, IMAGENET_STD
from models.load import load_detector
from prediction.arguments import threshold_value
from tools.command import refuse_input, run_tool, say, tool_parser
from util.box_ops import box_cxcywh_to_xyxy
from util.checkpoint import load_checkpoint
from util.loading.class_thresholds import ClassThresholds
from util.pictures.boxes import color_of, contact_sheet, denormalize, ground_truth_beside_prediction
from util.settings import BEST
from util.text import printable


def draw_detections(
    checkpoint_path: str | Path, data: dict[str, str], folder: Path, count: int = 12, threshold: float | str = 0.5
) -> list[Path]:
    """Draw the first `count` images of a data set with a checkpoint's detections.

    Args:
        checkpoint_path: see `models.load.load_detector`; its settings build the model.
        data: the data set: `data` (any format that `main.py` reads) and perhaps `eval_part`; or `coco_path`; or
            `val_ann` and `val_images`.
        folder: receives one PNG per image and `overview.png` with all of them.
        count: number of images.
        threshold: minimum score of a box, or "best": that of its class, which the checkpoint holds.

    Returns:
        The paths of the files, the overview first.

    Raises:
        CheckpointError, ValueError, FileNotFoundError: the checkpoint or the data cannot be used, or `folder` is that
            of the images.
    """
    checkpoint = load_checkpoint(checkpoint_path)
    model, postprocessors, args, categories = load_detector(checkpoint, "cpu", source=str(checkpoint_path))
    minimum = ClassThresholds.read(checkpoint, str(checkpoint_path)) if threshold == BEST else threshold
    vars(args).update({"coco_path": None, "val_ann": None, "val_images": None, "eval": True} | data)
    names = {category["id"]: category["name"] for category in categories}
    split = checkpoint.get("split")
    earlier = Split.of(split, str(checkpoint_path)) if split else None
    dataset = build_dataset("val", args, choose_data(args, earlier, categories))
    refuse_input(folder, dataset.img_folder)
    folder.mkdir(parents=True, exist_ok=True)
    paths, pictures = [folder / "overview.png"], []
    for index in range(min(count, len(dataset))):
        pictures.append(annotate(model, postprocessors["bbox"], *dataset[index], names, minimum))
        paths.append(folder / f"{dataset.ids[index]:06}.png")
        pictures[-1].save(paths[-1])
    contact_sheet(pictures, columns=2 if len(pictures) <= 4 else 3).save(paths[0])
    return paths


@torch.no_grad()
def annotate(
    model: nn.Module,
    postprocess: nn.Module,
    image: Tensor,
    target: dict[str, Tensor],
    names: dict[int, str],
    threshold: float | ClassThresholds,
) -> Image.Image:
    """One image [3, H, W] with its target's boxes and, next to it, the detections that reach `threshold`."""
    height, width = target["size"].tolist()
    result = postprocess(model(image[None]), target["size"][None])[0]
    scores = result["scores"]
    per_class = isinstance(threshold, ClassThresholds)
    keep = threshold.reached(scores, result["labels"]) if per_class else scores >= threshold
    labels, target_labels = result["labels"][keep].tolist(), target["labels"].tolist()
    names = {label: f"class {label}" for label in labels + target_labels} | names  # some ids may have no name
    return ground_truth_beside_prediction(
        denormalize(image, IMAGENET_MEAN, IMAGENET_STD),
        box_cxcywh_to_xyxy(target["boxes"]) * torch.tensor([width, height, width, height]),
        [names[label] for label in target_labels],
        result["boxes"][keep],
        [names[label] for label in labels],
        result["scores"][keep],
        colors={name: color_of(label) for label, name in names.items()},
    )


def main(options: argparse.Namespace) -> None:
    """Draw the pictures, and print where they are."""
    names = ("data", "eval_part", "coco_path", "val_ann", "val_images")
    data = {name: getattr(options, name) for name in names if getattr(options, name)}
    if options.data and (options.coco_path or options.val_ann or options.val_images):
        raise ValueError("--data names the images and annotations: leave the other flags of the data out")
    paths = draw_detections(options.checkpoint, data, options.out, options.count, options.threshold)
    images = len(paths) - 1
    say(f"drew {images} image{'s' * (images > 1)}: {printable(paths[0])}")


def run(argv: Sequence[str] | None = None) -> int:
    """The command; returns the exit code."""
    parser = tool_parser(__doc__)
    parser.add_argument("checkpoint", help="a file or an http(s) address")
    parser.add_argument("--data", help="data set in any format that main.py --data reads")
    parser.add_argument("--eval_part", choices=("val", "test"), default="val", help="part of --data (default val)")
    parser.add_argument("--coco_path", help="data set whose validation images are drawn")
    parser.add_argument("--val_ann", help="annotation file, instead of that of --coco_path")
    parser.add_argument("--val_images", help="image folder, instead of that of --coco_path")
    parser.add_argument("--out", type=Path, required=True, help="folder for the pictures")
    parser.add_argument("--count", type=int, default=12, help="number of images to draw (default 12)")
    parser.add_argument(
        "--threshold",
        type=threshold_value,
        default=0.5,
        help="minimum score of a box (default 0.5), or best: for each class that of its best F1, from the checkpoint",
    )
    return run_tool(parser, main, argv)


if __name__ == "__main__":
    sys.exit(run())
