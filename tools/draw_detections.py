"""Ground truth beside prediction for images of an annotated set.

python -m tools.draw_detections RUN/checkpoint_best.pth --coco_path DATA --out FOLDER --count 12
python -m tools.draw_detections RUN/checkpoint_best.pth --val_ann test.json --val_images test --out FOLDER
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn

from datasets import build_dataset
from datasets.transforms import IMAGENET_MEAN, IMAGENET_STD
from models.load import load_detector
from util.box_ops import box_cxcywh_to_xyxy
from util.checkpoint import CheckpointError
from util.errors import one_sentence
from util.pictures.boxes import color_of, contact_sheet, denormalize, ground_truth_beside_prediction


def draw_detections(
    checkpoint_path: str | Path, data: dict[str, str], folder: Path, count: int = 12, threshold: float = 0.5
) -> list[Path]:
    """Annotate the first `count` images of a set with a checkpoint's detections.

    Args:
        checkpoint_path: see `models.load.load_detector`; its settings build the model.
        data: where the images are: `coco_path`, or `val_ann` and `val_images`.
        folder: gets one PNG an image and `overview.png` with all of them.
        count: images to draw.
        threshold: least score of a box that is drawn.

    Returns:
        The files, the overview first.

    Raises:
        CheckpointError, ValueError, FileNotFoundError: the checkpoint or the data cannot be used.
    """
    model, postprocessors, args, categories = load_detector(checkpoint_path, "cpu")
    vars(args).update({"coco_path": None, "val_ann": None, "val_images": None} | data)
    names = {category["id"]: category["name"] for category in categories}
    dataset = build_dataset("val", args)
    folder.mkdir(parents=True, exist_ok=True)
    paths, pictures = [folder / "overview.png"], []
    for index in range(min(count, len(dataset))):
        pictures.append(annotate(model, postprocessors["bbox"], *dataset[index], names, threshold))
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
    threshold: float,
) -> Image.Image:
    """One image [3, H, W] with its target's boxes and, beside it, the detections of at least `threshold`."""
    height, width = target["size"].tolist()
    result = postprocess(model(image[None]), target["size"][None])[0]
    keep = result["scores"] >= threshold
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


def run(argv: list[str] | None = None) -> int:
    """The command; the exit code is 1 where something cannot be used."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", help="a checkpoint's file or address")
    parser.add_argument("--coco_path", help="folder whose validation images are drawn")
    parser.add_argument("--val_ann", help="annotation file, in place of --coco_path's")
    parser.add_argument("--val_images", help="image folder, in place of --coco_path's")
    parser.add_argument("--out", type=Path, required=True, help="folder for the pictures")
    parser.add_argument("--count", type=int, default=12)
    parser.add_argument("--threshold", type=float, default=0.5)
    options = parser.parse_args(argv)
    data = {key: getattr(options, key) for key in ("coco_path", "val_ann", "val_images") if getattr(options, key)}
    try:
        paths = draw_detections(options.checkpoint, data, options.out, options.count, options.threshold)
    except (ValueError, OSError, CheckpointError) as error:
        print(f"error: {one_sentence(error)}", file=sys.stderr)
        return 1
    print(f"drew {len(paths) - 1} images: {paths[0]}")
    return 0


if __name__ == "__main__":
    sys.exit(run())
