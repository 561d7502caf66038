"""Evaluation without padding: batches of images that are of one size when the transforms are done with them.

DETR's numbers change a little with the padding of a batch. With batches of one size there is none, and a batch of many
images gives what each of them gives alone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from PIL import Image
from torch.utils.data import Dataset, Subset

from datasets.transforms import get_size_with_aspect_ratio

TIFF_WIDTH, TIFF_HEIGHT = 256, 257  # tags
Size = tuple[int, int]


def resized_sizes(dataset: Dataset, size: int, max_size: int | None = None) -> list[Size | None]:
    """(h, w) of each sample after `datasets.transforms.resize` to a short side of `size`, no image decoded.

    Args:
        dataset: a data set of annotated images (`images`, `ids`, `img_folder`), or a subset of one. The annotation
            file's width and height count; where they are missing, the image file is asked. An image that is not of the
            size its annotation states, which the data set warns of, or that stands in for a bad one, is padded as
            usual.
        size, max_size: those of the validation transform.

    Returns:
        Sizes in the order of the samples; None for a file that cannot be read, which is for the data set to say.
    """
    if isinstance(dataset, Subset):
        sizes = resized_sizes(dataset.dataset, size, max_size)
        return [sizes[index] for index in dataset.indices]
    sizes = []
    for image_id in dataset.ids:
        image = dataset.images[image_id]
        annotated = (image.get("width") or 0, image.get("height") or 0)
        stated = all(side > 0 and float(side).is_integer() for side in annotated)
        found = annotated if stated else _stored_size(Path(dataset.img_folder) / image["file_name"])
        sizes.append(found and get_size_with_aspect_ratio(found, size, max_size))
    return sizes


def same_size_batches(
    sizes: Sequence[Size | None], batch_size: int, rank: int = 0, world_size: int = 1
) -> list[list[int]]:
    """This process's batches: indices of up to `batch_size` images of one size; a `batch_sampler` for a DataLoader.

    The batches of all processes hold every image. The largest images come first, so that a batch that does not fit
    into memory is met at once, and the processes work on batches of about one size at a time. Every process gets
    equally many batches; where they do not go round, the last one is given to several.

    Args:
        sizes: (h, w) of each image; an image of None has a batch of its own.
    """
    groups: dict[Size, list[int]] = defaultdict(list)
    for index, size in enumerate(sizes):
        if size is not None:
            groups[size].append(index)
    batches = [
        groups[size][start : start + batch_size]
        for size in sorted(groups, key=lambda size: (size[0] * size[1], size), reverse=True)
        for start in range(0, len(groups[size]), batch_size)
    ]
    batches += [[index] for index, size in enumerate(sizes) if size is None]
    batches += batches[-1:] * (-len(batches) % world_size)
    return batches[rank::world_size]


def _stored_size(path: Path) -> Size | None:
    """(w, h) of the pixels as `datasets.image_decoding.read_image` gives them when it knows of no other frame."""
    try:
        with Image.open(path) as image:
            if image.format == "TIFF":  # Pillow states the size after turning, but the pixels are taken as stored
                return image.tag_v2[TIFF_WIDTH], image.tag_v2[TIFF_HEIGHT]
            return image.size
    except Exception:  # of almost any type; `read_image` will say what is wrong with the file
        return None
