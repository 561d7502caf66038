"""Building the data sets by name."""

from argparse import Namespace

from torch.utils.data import Dataset, Subset

from datasets.annotated_images import AnnotatedImages
from datasets.coco import build as build_coco
from datasets.coco_panoptic import build as build_coco_panoptic
from datasets.formats.choose import ChosenData


def build_dataset(image_set: str, args: Namespace, data: ChosenData | None = None) -> AnnotatedImages:
    """The "train" or "val" split of the data set that `args.dataset_file` names; ValueError for an unknown name.

    Args:
        data: as from `datasets.formats.choose.choose_data`, so that the data are not looked for again.
    """
    if args.dataset_file == "coco":
        return build_coco(image_set, args, data)
    if args.dataset_file == "coco_panoptic":
        return build_coco_panoptic(image_set, args)
    raise ValueError(f"unknown --dataset_file {args.dataset_file!r}: use 'coco' or 'coco_panoptic'")


def get_coco_api_from_dataset(dataset: Dataset):
    """The pycocotools index of a COCO data set or of a `Subset` of one; TypeError if it has none."""
    while isinstance(dataset, Subset):
        dataset = dataset.dataset
    if not hasattr(dataset, "coco"):
        raise TypeError(f"{type(dataset).__name__} has no COCO annotations to evaluate against")
    return dataset.coco
