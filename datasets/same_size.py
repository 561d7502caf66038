"""Evaluation without padding: batches of images that have the same size after the transforms.

DETR's predictions depend slightly on the padding of the batch. Batches of one size have none, so an image gives the
same result in a batch as on its own.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from torch.utils.data import Dataset, Subset

from datasets.image_files import open_image
from datasets.transforms import get_size_with_aspect_ratio

TIFF_WIDTH, TIFF_HEIGHT = 256, 257  # tags
Size = tuple[int, int]


def resized_sizes(dataset: Dataset, size: int, max_size: int | None = None) -> list[Size | None]:
    """(h, w) in pixels of each sample after `datasets.transforms.resize` to a short side of `size`, without decoding.

    Args:
        dataset: an `AnnotatedImages` (`images`, `ids`, `img_folder`, `max_pixels`), or a `Subset` of one. Sizes come
            from the annotation file; if missing, from the header of the image file. An image whose size differs from
            its annotation (the data set warns about it), or that replaces a bad one, is padded as usual.
        size, max_size: those of the validation transform, pixels.

    Returns:
        Sizes in the order of the samples; None for a file that cannot be read, which the data set will report.
    """
    sizes = picture_sizes(dataset)
    return [found and get_size_with_aspect_ratio(found, size, max_size) for found in sizes]


def picture_sizes(dataset: Dataset) -> list[Size | None]:
    """(w, h) in pixels of each image of an `AnnotatedImages` or a `Subset` of one, see `resized_sizes`."""
    if isinstance(dataset, Subset):
        sizes = picture_sizes(dataset.dataset)
        return [sizes[index] for index in dataset.indices]
    sizes = []
    for image_id in dataset.ids:
        image = dataset.images[image_id]
        annotated = (image.get("width") or 0, image.get("height") or 0)
        stated = all(side > 0 and float(side).is_integer() for side in annotated)
        found = annotated if stated else _stored_size(Path(dataset.img_folder) / image["file_name"], dataset.max_pixels)
        sizes.append(found)
    return sizes


def same_size_batches(
    sizes: Sequence[Size | None], batch_size: int, rank: int = 0, world_size: int = 1
) -> list[list[int]]:
    """This process's batches: indices of up to `batch_size` images of one size; a `batch_sampler` for a DataLoader.

    The batches of all processes together contain every image. The largest images come first, so that running out of
    memory happens at once, and the processes work on batches of similar size at a time. Every process gets the same
    number of batches; the last batch is repeated if necessary.

    Args:
        sizes: (h, w) of each image; an image with None gets a batch to itself.
        batch_size: the largest number of images per batch.
        rank, world_size: this process and the number of processes.
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


def _stored_size(path: Path, max_pixels: int) -> Size | None:
    """(w, h) that `datasets.image_decoding.read_image` returns without an `annotated_size`; None if unreadable."""
    try:
        with open_image(path, max_pixels) as image:
            if image.format == "TIFF":  # Pillow gives the size after turning, but the pixels are used as stored
                return image.tag_v2[TIFF_WIDTH], image.tag_v2[TIFF_HEIGHT]
            return image.size
    except OSError:  # `read_image` will report what is wrong with the file
        return None
