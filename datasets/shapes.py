"""The built-in data set: circles, squares and triangles on a patterned background, as COCO instances and COCO panoptic.

    python -m datasets.shapes OUT --train 4000 --val 500 --size 96 --seed 0

writes the published folder layout to OUT:

    train2017/*.png            annotations/instances_train2017.json   panoptic_train2017/*.png
    val2017/*.png              annotations/instances_val2017.json     panoptic_val2017/*.png
    shapes.json                annotations/panoptic_{train,val}2017.json

The class of a thing is its outline, and that of stuff its pattern; colours are random. Image i of a split depends only
on (seed, split, i) and the size, so a larger set begins with the images of a smaller one.
"""

import argparse
import colorsys
import json
import math
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

import datasets.transforms as T
from datasets.coco import ConvertCocoPolysToMask
from util.pictures.segment_png import ids_to_colors

CATEGORIES: list[dict[str, Any]] = [
    {"id": 1, "name": "circle", "supercategory": "shape", "isthing": 1, "color": [230, 75, 90]},
    {"id": 2, "name": "square", "supercategory": "shape", "isthing": 1, "color": [80, 130, 235]},
    {"id": 3, "name": "triangle", "supercategory": "shape", "isthing": 1, "color": [245, 180, 60]},
    {"id": 4, "name": "stripes", "supercategory": "ground", "isthing": 0, "color": [120, 170, 130]},
    {"id": 5, "name": "checks", "supercategory": "ground", "isthing": 0, "color": [160, 140, 185]},
    {"id": 6, "name": "clouds", "supercategory": "ground", "isthing": 0, "color": [150, 185, 200]},
]
THINGS = [category for category in CATEGORIES if category["isthing"]]
STUFF = [category for category in CATEGORIES if not category["isthing"]]

CORNERS = {"square": 4, "triangle": 3}  # a circle has none
MAX_OBJECTS = 4
SIDES = (16, 44)  # side of an object in a 96-pixel image, pixels; lengths scale with the image
MIN_VISIBLE = 0.5  # fraction of an object that stays visible under later objects
MIN_CONTRAST = 0.4  # between an object and everything else: distance of RGB colours in [0, 1]^3
SPLITS = {"train": 0, "val": 1}
FIRST_ID = {"train": 1, "val": 1_000_001}  # image ids of the splits do not overlap, as in COCO
DRAWING = 1  # version of the drawing code; increase it whenever the images change


class Segment(NamedTuple):
    """One object or one region of background; `mask` is its visible part, bool [size, size]."""

    category_id: int
    mask: np.ndarray


def draw_scene(rng: np.random.Generator, size: int = 96) -> tuple[Image.Image, list[Segment]]:
    """Draw one image with 1 to 4 objects.

    Returns:
        The RGB image, `size` pixels wide and high, and its segments: the objects in painting order (later ones cover at
        most half of an earlier one), then the background regions. The masks are disjoint and together fill the image.
    """
    unit = size / 96
    y, x = np.mgrid[:size, :size].astype(np.float32) + 0.5  # pixel centres
    canvas, stuff, colors = draw_ground(rng, x, y, unit)  # [3, size, size] in [0, 1]

    things: list[Segment] = []
    full_areas: list[int] = []
    for _ in range(rng.integers(1, MAX_OBJECTS + 1)):
        category = THINGS[rng.integers(len(THINGS))]
        place = _find_place(rng, category["name"], x, y, unit, things, full_areas)
        if place is None:
            break  # no space left
        depth, side = place
        inside = depth >= 0
        color = contrasting_color(rng, colors)
        things = [Segment(thing.category_id, thing.mask & ~inside) for thing in things]
        things.append(Segment(category["id"], inside))
        full_areas.append(int(inside.sum()))
        colors.append(color)
        canvas = paint_object(rng, canvas, depth, color, side, unit)

    free = ~np.any([thing.mask for thing in things], axis=0)
    stuff = [Segment(region.category_id, region.mask & free) for region in stuff]
    canvas = canvas + rng.uniform(0.01, 0.04) * rng.standard_normal(canvas.shape, np.float32)
    pixels = np.round(np.clip(canvas, 0, 1) * 255).astype(np.uint8).transpose(1, 2, 0)  # [size, size, 3]
    image = Image.fromarray(np.ascontiguousarray(pixels))
    return image, things + [region for region in stuff if region.mask.any()]


def draw_sample(index: int, *, split: str = "val", size: int = 96, seed: int = 0) -> tuple[Image.Image, T.Target]:
    """Image `index` of a split in memory, as a `CocoDetection` with masks and without transforms reads it from files.

    Returns:
        The RGB image and its target: xyxy boxes in pixels, see `CocoDetection`. `annotation_id` is -1, because files
        number the objects of all their images.

    Raises:
        ValueError: a split other than "train" and "val", or a number that is too small.
    """
    if split not in SPLITS or index < 0:
        raise ValueError(f"shapes has the splits 'train' and 'val' and counts images from 0, not {split!r}, {index}")
    _check({"size": size, "seed": seed})
    image_id, image, segments = _draw_image(split, index, size, seed)
    read = ConvertCocoPolysToMask(return_masks=True)
    return read(image, {"image_id": image_id, "annotations": _annotations(segments)})


def write_shapes(out: str | Path, train: int = 4000, val: int = 500, size: int = 96, seed: int = 0) -> bool:
    """Write a data set to the folder `out`, which appears only when the data set is complete.

    The same arguments give the same bytes.

    Args:
        out: the folder to create.
        train, val: numbers of images.
        size: width and height of the images, pixels.
        seed: another seed draws other images.

    Returns:
        False if `out` already contains this data set, so nothing was written.

    Raises:
        ValueError: a setting is too small.
        FileExistsError: `out` contains anything else.
    """
    out = Path(out).absolute()
    settings = {"drawing": DRAWING, "train": train, "val": val, "size": size, "seed": seed}
    _check(settings)
    if _holds(out, settings):
        return False
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as temporary:
        partial = Path(temporary) / out.name
        (partial / "annotations").mkdir(parents=True)
        for split, count in (("train", train), ("val", val)):
            _write_split(partial, split, count, size, seed)
        _write_json(partial / "shapes.json", settings)
        if out.exists():
            out.rmdir()  # an empty folder: anything else was rejected above
        partial.rename(out)
    return True


def draw_ground(rng, x, y, unit):
    """(canvas [3, S, S] in [0, 1], segments, colours) of one or two patterns, parted by a wavy line; x and y [S, S]."""
    size = len(x)
    first, second = rng.choice(STUFF, 2, replace=False)
    angle, phase = rng.uniform(0, 2 * math.pi, 2)
    along, across = _turn(x - size / 2, y - size / 2, angle)
    wave = 3 * unit * np.sin(along / (rng.uniform(7, 16) * unit) + phase)
    offset = rng.uniform(-0.22, 0.22) * size if rng.random() < 0.8 else size  # beyond the corner: a single pattern
    depth = offset - across - wave  # pixels from the line; positive on the side of the first pattern

    layers, regions, colors = [], [], []
    for category, mask in ((first, depth >= 0), (second, depth < 0)):
        color = colorsys.hsv_to_rgb(rng.random(), rng.uniform(0.1, 0.5), rng.uniform(0.35, 0.9))
        strength = rng.uniform(0.04, 0.09)
        layers.append(_plane(color) + strength * _pattern(rng, category["name"], x, y, unit))
        if mask.any():
            regions.append(Segment(category["id"], mask))
            colors.append(color)
    cover = np.clip(depth + 0.5, 0, 1)
    canvas = layers[0] * cover + layers[1] * (1 - cover)
    return canvas, regions, colors


def _pattern(rng, name, x, y, unit):
    """[size, size], about -1 to 1."""
    if name == "clouds":
        coarse = rng.normal(0, 0.8, (10, 10)).astype(np.float32)
        return np.asarray(Image.fromarray(coarse).resize(x.shape, Image.Resampling.BICUBIC))
    u, v = _turn(x, y, rng.uniform(0, math.pi))
    frequency = 2 * math.pi / (rng.uniform(7, 13) * unit)
    wave = np.sin(frequency * u + rng.uniform(0, 2 * math.pi))
    if name == "checks":
        wave = wave * np.sin(frequency * v)
    return np.tanh(3 * wave)


def _plane(color):
    return np.array(color, np.float32)[:, None, None]  # [3, 1, 1]


def _turn(x, y, angle):
    return x * math.cos(angle) + y * math.sin(angle), y * math.cos(angle) - x * math.sin(angle)


def _find_place(rng, name, x, y, unit, things, full_areas, tries: int = 50):
    """Depth map and side, in pixels, of a new object that leaves the others visible; None if no place is found."""
    size = len(x)
    for _ in range(tries):
        side = rng.uniform(*SIDES) * unit
        center = rng.uniform(side / 2, size - side / 2, 2)
        depth = signed_distance(name, x - center[0], y - center[1], side, rng.uniform(0, 2 * math.pi))
        outside = depth < 0
        if all(
            (thing.mask & outside).sum() >= MIN_VISIBLE * area for thing, area in zip(things, full_areas, strict=True)
        ):
            return depth, side
    return None


def signed_distance(name, x, y, side, angle):
    """Distance of points [S, S] to the outline in pixels, negative outside; `side` is a circle's diameter."""
    if name == "circle":
        return side / 2 - np.hypot(x, y)
    corners = CORNERS[name]
    normals = [angle + 2 * math.pi * k / corners for k in range(corners)]
    reach = np.max([x * math.cos(a) + y * math.sin(a) for a in normals], axis=0)
    return side / (2 * math.tan(math.pi / corners)) - reach


def contrasting_color(rng, others):
    """The first of 24 random colours with enough contrast to all `others`, else the one with the most."""
    h, s, v = rng.random(24), rng.uniform(0.5, 1, 24), rng.uniform(0.35, 1, 24)
    candidates = np.array([colorsys.hsv_to_rgb(*hsv) for hsv in zip(h, s, v, strict=True)])  # [24, 3]
    contrast = np.linalg.norm(candidates[:, None] - np.array(others), axis=2).min(axis=1)  # [24]
    good = np.flatnonzero(contrast >= MIN_CONTRAST)
    return candidates[good[0] if len(good) else contrast.argmax()]


def paint_object(rng, canvas, depth, color, side, unit):
    """A canvas [3, S, S] with an object: a dark rim, a soft shadow, slight shading, and anti-aliased edges."""
    shadow = 0.35 * np.clip(1 + depth / (4 * unit), 0, 1)
    rim = 0.6 + 0.4 * np.clip(depth / unit - 0.7, 0, 1)
    middle = 0.9 + rng.uniform(0.1, 0.3) * depth / side
    cover = np.clip(depth + 0.5, 0, 1)
    return canvas * ((1 - shadow) * (1 - cover)) + _plane(color) * (rim * middle * cover)


def _write_split(root, split, count, size, seed):
    """Write the images and panoptic maps of one split, and its two annotation files."""
    images_folder, maps = root / f"{split}2017", root / f"panoptic_{split}2017"
    images_folder.mkdir()
    maps.mkdir()
    images, annotations, panoptic = [], [], []
    for index in range(count):
        image_id, image, segments = _draw_image(split, index, size, seed)
        file_name = f"{image_id:012d}.png"
        image.save(images_folder / file_name, compress_level=1)
        images.append({"id": image_id, "file_name": file_name, "width": size, "height": size})
        for annotation in _annotations(segments):
            annotations.append({"id": len(annotations) + 1, "image_id": image_id, **annotation})
        segments_info = _write_map(maps / file_name, segments)
        panoptic.append({"image_id": image_id, "file_name": file_name, "segments_info": segments_info})

    info = {"description": f"shapes, {split}: {count} pictures of {size} pixels, seed {seed}"}
    common = {"info": info, "licenses": [], "images": images}
    things = [{key: category[key] for key in ("id", "name", "supercategory")} for category in THINGS]
    folder = root / "annotations"
    _write_json(folder / f"instances_{split}2017.json", {**common, "annotations": annotations, "categories": things})
    _write_json(folder / f"panoptic_{split}2017.json", {**common, "annotations": panoptic, "categories": CATEGORIES})


def _draw_image(split, index, size, seed):
    """Id, image and segments of image `index` of a split."""
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(SPLITS[split], index)))
    return FIRST_ID[split] + index, *draw_scene(rng, size)


def _annotations(segments):
    """COCO's entries of the objects, without ids."""
    things = [segment for segment in segments if segment.category_id <= len(THINGS)]
    return [{**_facts(thing), "segmentation": _rle(thing.mask)} for thing in things]


def _write_map(path, segments):
    """Write the PNG of segment ids; returns its `segments_info`."""
    ids = np.zeros(segments[0].mask.shape, np.uint32)
    segments_info = []
    for number, segment in enumerate(segments):
        segment_id = _segment_id(segment.category_id, number)
        ids[segment.mask] = segment_id
        segments_info.append({"id": segment_id, **_facts(segment)})
    Image.fromarray(ids_to_colors(ids)).save(path, compress_level=1)
    return segments_info


def _segment_id(category_id, number):
    """R + 256 G + 65536 B of a colour close to the category's, different for each segment of an image."""
    red, green, blue = (channel - 8 * number for channel in CATEGORIES[category_id - 1]["color"])
    return red + 256 * green + 65536 * blue


def _facts(segment):
    """The fields that instances and panoptic segments share, from the visible part; the box is xywh in pixels."""
    mask = segment.mask
    columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    x, y = int(columns[0]), int(rows[0])
    bbox = [x, y, int(columns[-1]) + 1 - x, int(rows[-1]) + 1 - y]
    return {"category_id": segment.category_id, "area": int(mask.sum()), "bbox": bbox, "iscrowd": 0}


def _rle(mask):
    rle = coco_mask.encode(np.asfortranarray(mask, np.uint8))
    return {"size": list(rle["size"]), "counts": rle["counts"].decode("ascii")}


def _check(settings):
    for name, least in (("train", 1), ("val", 1), ("size", 32), ("seed", 0)):
        if settings.get(name, least) < least:
            raise ValueError(f"--{name} must be at least {least}, got {settings[name]}")


def _holds(out, settings):
    """True if the folder contains the data set with these settings; FileExistsError if it contains anything else."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return False
    record = out / "shapes.json"
    held = json.loads(record.read_text()) if record.is_file() else None
    if held == settings:
        return True
    what = f"shapes with the settings {held}, not {settings}" if held else "something other than a shapes data set"
    raise FileExistsError(f"{out} contains {what}: choose another folder, or delete this one first")


def _write_json(path, content):
    path.write_text(json.dumps(content, separators=(",", ":")) + "\n", encoding="utf-8")


def get_args_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m datasets.shapes", description="Draw the built-in data set of shapes.")
    parser.add_argument("out", metavar="OUT", help="folder to create; pass it to main.py as --coco_path")
    parser.add_argument("--train", default=4000, type=int, metavar="N", help="number of training images")
    parser.add_argument("--val", default=500, type=int, metavar="N", help="number of validation images")
    parser.add_argument("--size", default=96, type=int, metavar="PIXELS", help="width and height of an image")
    parser.add_argument("--seed", default=0, type=int, help="random seed of the images")
    return parser


def main(argv: list[str] | None = None) -> None:
    """The command; `argv` defaults to the process's arguments."""
    parser = get_args_parser()
    args = parser.parse_args(argv)
    try:
        written = write_shapes(**vars(args))
    except (ValueError, FileExistsError) as error:
        parser.error(str(error))
    what = f"{args.train} training and {args.val} validation images of {args.size} pixels, seed {args.seed}"
    print(f"{args.out}: wrote {what}" if written else f"{args.out}: already contains {what}; nothing written")


if __name__ == "__main__":
    main()
