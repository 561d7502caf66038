"""The share of padded pixels in training batches, with and without `--group_by_aspect`, by size of the batch.

    python -m benchmarks.padding COCO_FOLDER [--batch_sizes 2 4 8] [--epochs 4] [--no_crop]

Counted over the batches that training would draw. Images are replaced by blank ones of the annotated size.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from datasets.aspect_batches import aspect_ratios
from datasets.coco import CocoDetection, make_coco_transforms
from datasets.loader import build_data_loader, sample_generators, set_epoch


class ViewSizes(torch.utils.data.Dataset):
    """(h, w) of each image as training sees it, instead of its pixels."""

    def __init__(self, dataset: CocoDetection, crop: bool) -> None:
        self.steps = make_coco_transforms("train", crop=crop).transforms[:-1]  # without the one that normalises
        entries = [dataset.images[image_id] for image_id in dataset.ids]
        self.sizes, self.epoch = [(entry["width"], entry["height"]) for entry in entries], 0

    def __len__(self) -> int:
        return len(self.sizes)

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __getitem__(self, index: int) -> tuple[torch.Tensor, dict]:
        image, target = Image.new("L", self.sizes[index]), {}
        with sample_generators(0, self.epoch, index):
            for step in self.steps:
                image, target = step(image, target)
        return torch.empty(1, image.height, image.width), target


def padded_share(sizes: ViewSizes, batch_size: int, epochs: int, aspects: list[float] | None) -> float:
    """Padded pixels over all pixels of the batches of some epochs."""
    loader = build_data_loader(sizes, batch_size, train=True, aspects=aspects)
    shares = []
    for epoch in range(epochs):
        set_epoch(loader, epoch)
        shares += [(samples.mask.sum().item(), samples.mask.numel()) for samples, _ in loader]
    padded, total = np.array(shares).sum(0)
    return float(padded / total)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path, help="with annotations/ and train2017/")
    parser.add_argument("--batch_sizes", type=int, nargs="+", default=[2, 4, 8])
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--no_crop", action="store_true", help="without random crops, as `main.py --no_crop`")
    args = parser.parse_args()
    file = args.folder / "annotations" / "instances_train2017.json"
    dataset = CocoDetection(args.folder / "train2017", file, None, False)
    sizes, aspects = ViewSizes(dataset, not args.no_crop), aspect_ratios(dataset)
    for batch_size in args.batch_sizes:
        plain, grouped = (padded_share(sizes, batch_size, args.epochs, ratios) for ratios in (None, aspects))
        print(f"batches of {batch_size}: {plain:.1%} padding, grouped {grouped:.1%}")


if __name__ == "__main__":
    main()
