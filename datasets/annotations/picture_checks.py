"""What the headers of image files say about a data set's annotations; no image is decoded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from datasets.annotated_images import AnnotatedImages
from datasets.annotations.boxes import Boxes, far_beyond
from datasets.annotations.headers import Header, Size, annotated_size, read_header
from datasets.annotations.rules import Annotation, box_array, preview
from util.dist import is_main_process
from util.logging import get_logger
from util.settings import MAX_PIXELS

LOOKED_AT = 1000  # training images, evenly spread: opening all 118,287 of COCO would delay the start by minutes
ANNOUNCED = 5000  # images from which a line says what takes the time


def check_pictures(dataset: AnnotatedImages, *, every: bool) -> None:
    """Compare a COCO data set's annotations with the headers of its image files, before any training.

    Args:
        dataset: a `CocoDetection`.
        every: look at every image, as an evaluation will; otherwise at up to `LOOKED_AT`. With masks, images without
            `width` and `height` then get those of their file.

    Raises:
        OSError: a file is no image; with `skip_bad_images` it is skipped later.
        ValueError: with masks, an image has not the annotated size; or boxes are corners.
    """
    images, annotations = dataset.images, dataset.coco.imgToAnns
    headers = look_at(list(images.values()), dataset.img_folder, every=every, max_pixels=dataset.max_pixels)
    if every:
        check_readable(dataset, headers)
    try:
        warnings = check_boxes_of_unknown_size(images, headers, annotations)
        if every and dataset.return_masks:
            settle_sizes(images, headers)
    except ValueError as error:
        raise ValueError(f"{dataset.ann_file}: {error}") from None
    warnings.append(warn_of_turned(images, headers, annotations))
    for warning in filter(None, warnings):
        if is_main_process():
            get_logger().warning(f"{dataset.ann_file}: {warning}")


def look_at(
    images: Sequence[Mapping[str, Any]], folder: Path, *, every: bool, max_pixels: int = MAX_PIXELS
) -> dict[int, Header | None]:
    """Image id → header, of every image or of up to `LOOKED_AT` that are evenly spread."""
    if not every and len(images) > LOOKED_AT:
        images = [images[row] for row in np.linspace(0, len(images) - 1, LOOKED_AT).astype(int)]
    if len(images) >= ANNOUNCED and is_main_process():
        get_logger().info(f"looking at the headers of {len(images):,} images in {folder}")
    return {image["id"]: read_header(folder / image["file_name"], max_pixels) for image in images}


def check_readable(dataset: AnnotatedImages, headers: Mapping[int, Header | None]) -> None:
    """Raise OSError if images cannot be opened, with what is wrong with the first, unless they are to be skipped."""
    if dataset.skip_bad_images:
        return
    bad = [row for row, image_id in enumerate(dataset.ids) if image_id in headers and headers[image_id] is None]
    if not bad:
        return
    try:
        dataset[bad[0]]
    except OSError as error:
        more = f"; {len(bad)} of {len(headers)} images cannot be read" if len(bad) > 1 else ""
        raise type(error)(f"{error}{more}") from None


def settle_sizes(images: Mapping[int, dict[str, Any]], headers: Mapping[int, Header | None]) -> None:
    """Give images without `width` and `height` those of their file: masks are evaluated at the image's size.

    Raises:
        ValueError: an annotated size is not that of the image, so the masks of the two would not fit; names the first.
    """
    wrong = []
    for image_id, header in headers.items():
        if header is None or image_id not in images:
            continue
        image = images[image_id]
        annotated = annotated_size(image)
        found = header.is_read_as(annotated)
        if annotated is None:
            image["width"], image["height"] = found
        elif found != annotated:
            width, height = annotated
            wrong.append(f"image {image_id}, {image['file_name']}: {width}x{height}, but {found[0]}x{found[1]} pixels")
    if wrong:
        count = f"{len(wrong)} of {len(images)} images {'has' if len(wrong) == 1 else 'have'} another size"
        raise ValueError(
            f"{count} than annotated ({preview(wrong)}), so their masks do not fit: correct width and height under "
            "`images`, or leave them out to use those of the files"
        )


def warn_of_turned(
    images: Mapping[int, Mapping[str, Any]],
    headers: Mapping[int, Header | None],
    of_image: Mapping[int, Sequence[Annotation]],
) -> str:
    """A warning about images with an EXIF orientation that are read as stored; empty if there are none."""
    turned, misfits = [], []
    for image_id, header in headers.items():
        if header is None or header.orientation == 1:
            continue
        if header.is_read_as(annotated_size(images[image_id])) != header.size:
            continue  # its boxes are for the upright image, as its size says, and it is read upright
        turned.append(image_id)
        if _fits_only(of_image.get(image_id, ()), header.upright_size, header.size):
            misfits.append(image_id)
    if not turned:
        return ""
    first = images[(misfits or turned)[0]]
    header = headers[first["id"]]
    looked = "images" if len(headers) == len(images) else "images looked at"
    count = f"{len(turned)} of {len(headers)} {looked} {'has' if len(turned) == 1 else 'have'} an EXIF orientation"
    are = "is" if len(turned) == 1 else "are"
    fit = f"; the boxes of {len(misfits)} fit only the upright image" if misfits else ""
    return (
        f"{count} ({first['file_name']}: {header.orientation}) and {are} read as stored, as in COCO{fit}. If the boxes "
        "were drawn on the upright image that a browser shows, they are wrong: save the images upright (ImageMagick: "
        "mogrify -auto-orient), or, for quarter turns, annotate width and height of the upright image"
    )


def check_boxes_of_unknown_size(
    images: Mapping[int, Mapping[str, Any]],
    headers: Mapping[int, Header | None],
    of_image: Mapping[int, Sequence[Annotation]],
) -> list[str]:
    """The checks of `Boxes` that need an image's size, for the images whose annotation does not state it.

    Raises:
        ValueError: the boxes are corners, not sizes.
    """
    sized = [
        images[image_id] | dict(zip(("width", "height"), header.size, strict=True))
        for image_id, header in headers.items()
        if header is not None and annotated_size(images[image_id]) is None
    ]
    annotations = [annotation for image in sized for annotation in of_image.get(image["id"], ())]
    if not annotations:
        return []
    boxes = Boxes.of(annotations, box_array(annotations), sized)
    problems, usable = boxes.find_bad()
    warnings = [problems, boxes.corners(), boxes.nothing_left(usable) if len(sized) == len(images) else ""]
    return [warning for warning in warnings if warning]


def _fits_only(annotations: Sequence[Annotation], upright: Size, stored: Size) -> bool:
    """Whether boxes reach far beyond the stored image, and all lie within the upright one."""
    boxes = box_array(annotations)  # [n, 4]
    ends = boxes[:, :2] + boxes[:, 2:]
    beyond = (ends > far_beyond(np.array(stored))).any()
    return bool(beyond and (ends <= far_beyond(np.array(upright))).all())
