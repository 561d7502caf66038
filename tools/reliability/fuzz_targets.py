"""What the fuzzer damages and which code reads it: annotation files, images, checkpoints."""

from __future__ import annotations

import io
import json
import random
import zipfile
import zlib
from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from pycocotools import mask as coco_mask
from torch import nn

from datasets.annotations.picture_checks import check_pictures
from datasets.coco import CocoDetection, make_coco_transforms
from datasets.image_decoding import read_image
from datasets.targets import check_targets
from evaluation.coco_eval import CocoEvaluator
from evaluation.ground_truth import copy_ground_truth
from tools.reliability.fuzz_mutations import VALUES, mutate_bytes, mutate_tree
from training.follow import RESUME, follow_checkpoint
from training.init_weights import init_weights
from training.optim import build_optimizer
from training.state import TrainingState
from util.arguments import check_args, get_args_parser
from util.checkpoint import CheckpointError, load_checkpoint, load_weights
from util.loading.checkpoint_entries import model_of
from util.meters import MetricLogger

WIDTH, HEIGHT = 24, 16
CATEGORIES = [{"id": 1, "name": "cat", "supercategory": "animal"}, {"id": 3, "name": "dog"}]


@dataclass(frozen=True)
class Target:
    """A kind of file: how to make a damaged one, which code reads it, and which errors are expected.

    Attributes:
        name: of the kind of file.
        suffix: of its files.
        make: random generator → file content.
        read: reads a file, and raises the readers' errors.
        expected_errors: types of errors that this repository's readers may raise.
    """

    name: str
    suffix: str
    make: Callable[[random.Random], bytes]
    read: Callable[[Path], None]
    expected_errors: tuple[type[BaseException], ...]


# ---- Annotations -----------------------------------------------------------------------------------------------------


@cache
def _annotations() -> dict[str, Any]:
    mask = np.zeros((HEIGHT, WIDTH), dtype=np.uint8, order="F")
    mask[4:9, 5:20] = 1
    compressed = coco_mask.encode(mask)
    runs = np.diff(np.flatnonzero(np.diff(mask.ravel(order="F"), prepend=0, append=1)), prepend=0).tolist()
    size = [HEIGHT, WIDTH]
    segmentations = [
        [[5, 4, 20, 4, 20, 9, 5, 9]],
        {"size": size, "counts": runs},
        {"size": size, "counts": compressed["counts"].decode()},
        [[1.5, 1.5, 9, 1, 9, 9], [2, 2, 3, 2, 3, 3, 2, 3]],
    ]
    names = ("0.png", "1.jpg", "in/2.png")
    images = [{"id": 7 + i, "file_name": name, "width": WIDTH, "height": HEIGHT} for i, name in enumerate(names)]
    objects = [
        {
            "id": 100 + i,
            "image_id": 7 + i % 2,
            "category_id": (1, 3)[i % 2],
            "bbox": [5, 4, 15.5, 5],
            "area": 70.25,
            "iscrowd": int(i == 1),
            "segmentation": segmentation,
            "keypoints": [5, 6, 2, 7, 8, 1],
            "num_keypoints": 2,
        }
        for i, segmentation in enumerate(segmentations)
    ]
    return {"info": {"year": 2024}, "licenses": [], "images": images, "annotations": objects, "categories": CATEGORIES}


def _make_annotations(rng: random.Random) -> bytes:
    whole = json.dumps(_annotations()).encode()
    if rng.random() < 0.4:
        return mutate_bytes(whole, [whole, b"[" * 5000, b'{"a":' * 5000], rng)
    text = json.dumps(mutate_tree(_annotations(), rng))
    if rng.random() < 0.05:
        text = text.replace(', "', ', "id": 5, "', rng.randrange(1, 9))  # a duplicate key, which a dict cannot hold
    return text.encode(rng.choice(("utf-8", "utf-8", "utf-8", "utf-8-sig", "utf-16")))


def _read_annotations(path: Path) -> None:
    folder = path.parent / "images"
    if not folder.is_dir():
        (folder / "in").mkdir(parents=True)
        for image in _annotations()["images"]:
            _picture().save(folder / image["file_name"])
    choice = random.Random(zlib.crc32(path.read_bytes()))
    if choice.random() < 0.5:
        transforms = make_coco_transforms("train", train_sizes=(16, 24), max_size=40)
    else:
        transforms = make_coco_transforms("val", val_size=16)
    masks, skip = choice.random() < 0.5, choice.random() < 0.3
    dataset = CocoDetection(folder, path, transforms, masks, skip_bad_images=skip)
    check_pictures(dataset, every=choice.random() < 0.5)
    if masks:
        copy_ground_truth(dataset.coco, ("bbox", "segmentation"))
    dataset.check_classes(dataset.num_classes)
    evaluator = CocoEvaluator(dataset.coco, ["bbox"], backend=choice.choice(("auto", "pycocotools")))
    for index in range(len(dataset)):
        _, target = dataset[index]
        check_targets([target], dataset.num_classes)
        found = {"boxes": target["boxes"] * 16, "labels": target["labels"], "scores": target["area"].sigmoid()}
        evaluator.update({int(target["image_id"]): found})
    if len(dataset):
        evaluator.synchronize_between_processes()
        evaluator.accumulate()
        evaluator.summarize()
        evaluator.per_class()


# ---- Images ----------------------------------------------------------------------------------------------------------


def _picture() -> Image.Image:
    return Image.fromarray(np.random.RandomState(0).randint(0, 256, (HEIGHT, WIDTH, 3)).astype(np.uint8))


@cache
def _images() -> tuple[bytes, ...]:
    exif = Image.Exif()
    exif[0x0112] = 6
    picture, grey = _picture(), _picture().convert("L")
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    kinds: list[tuple[Image.Image, str, dict[str, Any]]] = [
        (picture, "JPEG", {"exif": exif}),
        (picture, "JPEG", {"progressive": True}),
        (picture.convert("CMYK"), "JPEG", {}),
        (picture, "PNG", {"exif": exif}),
        (picture.convert("P"), "PNG", {"transparency": 3}),
        (deep, "PNG", {}),
        (picture.convert("1"), "PNG", {}),
        (picture, "GIF", {"save_all": True, "append_images": [grey]}),
        (picture, "TIFF", {"compression": "tiff_lzw", "exif": exif}),
        (picture.convert("CMYK"), "TIFF", {}),
        (picture, "WEBP", {"exif": exif}),
        (picture, "BMP", {}),
        (picture.convert("RGBA"), "TGA", {}),
        (grey, "PPM", {}),
        (picture, "JPEG2000", {}),
        (picture, "ICO", {}),
    ]
    Image.init()
    contents = []
    for image, kind, options in kinds:
        if kind not in Image.SAVE:
            continue  # Pillow may be built without it
        file = io.BytesIO()
        image.save(file, kind, **options)
        contents.append(file.getvalue())
    return tuple(contents)


def _make_image(rng: random.Random) -> bytes:
    return mutate_bytes(rng.choice(_images()), _images(), rng)


def _read_image(path: Path) -> None:
    annotated = random.Random(zlib.crc32(path.read_bytes())).choice((None, (WIDTH, HEIGHT), (HEIGHT, WIDTH)))
    image = read_image(path, annotated)
    if image.mode != "RGB" or 0 in image.size or not image.tobytes():
        raise AssertionError(f"read as {image.mode} {image.size}")


# ---- Checkpoints -----------------------------------------------------------------------------------------------------


class _Detector(nn.Module):
    """The parts of a detector that loading checks, as small as possible."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.BatchNorm2d(2)
        self.input_proj = nn.Conv2d(2, 4, 1)
        self.query_embed = nn.Embedding(3, 4)
        self.class_embed = nn.Linear(4, 5)
        layers = {part: nn.ModuleDict({"layers": nn.ModuleList([_Layer()])}) for part in ("encoder", "decoder")}
        self.transformer = nn.ModuleDict(layers)


class _Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear1 = nn.Linear(4, 4)


def _settings(path: Path | str = "") -> Namespace:
    args = get_args_parser().parse_args(["--coco_path", "data", "--resume", str(path)])
    args.given = ()
    args.enc_layers = args.dec_layers = args.nheads = 1
    args.hidden_dim, args.dim_feedforward, args.num_queries = 4, 4, 3
    return args


def _training(args: Namespace) -> tuple[nn.Module, torch.optim.Optimizer, Any]:
    model = _Detector()
    optimizer = build_optimizer(model, args)
    return model, optimizer, torch.optim.lr_scheduler.StepLR(optimizer, args.lr_drop)


def _take_step(model: nn.Module, optimizer: torch.optim.Optimizer, lr_scheduler: Any) -> None:
    sum(parameter.square().sum() for parameter in model.parameters()).backward()
    optimizer.step()
    lr_scheduler.step()


@cache
def _checkpoint() -> dict[str, Any]:
    torch.manual_seed(0)
    args = _settings()
    model, optimizer, lr_scheduler = _training(args)
    _take_step(model, optimizer, lr_scheduler)
    return {
        "model": dict(model.state_dict()),
        "optimizer": optimizer.state_dict(),
        "lr_scheduler": lr_scheduler.state_dict(),
        "epoch": 5,
        "step": 26,
        "args": vars(args),
        "categories": [{"id": category["id"], "name": category["name"]} for category in CATEGORIES],
        "best_ap": 0.25,
        "data": "0123abcd",
        "world_size": 1,
        "progress": {"step": 2, "meters": {"meters": {}, "progress": {}}, "train_stats": None},
        "record": {"epoch": 5, "train_loss": 1.5},
    }


TENSORS = tuple(
    make()
    for make in (
        lambda: torch.zeros(()),
        lambda: torch.zeros(0),
        lambda: torch.full((4, 5), torch.nan),
        lambda: torch.full((5, 4), torch.inf),
        lambda: torch.zeros(5, 4, dtype=torch.int64),
        lambda: torch.zeros(5, 4, dtype=torch.complex64),
        lambda: torch.zeros(5, 4).to_sparse(),
        lambda: torch.zeros(5, 4, device="meta"),
        lambda: torch.zeros(1).expand(10**12),
        lambda: torch.zeros(2, 2, 2, 2, 2, 2),
    )
)


def _saved(content: Any, zipped: bool = True) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, _use_new_zipfile_serialization=zipped)
    return file.getvalue()


@cache
def _checkpoints() -> tuple[bytes, ...]:
    return tuple(_saved(_checkpoint(), zipped) for zipped in (True, False))


def _make_checkpoint(rng: random.Random) -> bytes:
    way = rng.random()
    if way < 0.3:
        return mutate_bytes(rng.choice(_checkpoints()), _checkpoints(), rng)
    if way < 0.5:
        return _with_damaged_pickle(_checkpoints()[0], rng)
    return _saved(mutate_tree(_checkpoint(), rng, VALUES + TENSORS))


def _with_damaged_pickle(content: bytes, rng: random.Random) -> bytes:
    """A checkpoint with a valid archive and valid checksums, but damaged content."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as source, zipfile.ZipFile(file, "w") as archive:
        for name in source.namelist():
            part = source.read(name)
            damaged = mutate_bytes(part, [part], rng) if name.endswith("data.pkl") else part
            archive.writestr(zipfile.ZipInfo(name), damaged)  # without a timestamp
    return file.getvalue()


def _read_checkpoint(path: Path) -> None:
    checkpoint = load_checkpoint(path)
    args = _settings(path)
    if zlib.crc32(path.read_bytes()) % 3 == 0:
        init_weights(_Detector(), checkpoint, str(path), CATEGORIES)
        return
    follow_checkpoint(args, checkpoint, str(path), RESUME)
    check_args(args)
    model, optimizer, lr_scheduler = _training(args)
    load_weights(model, model_of(checkpoint, str(path)), str(path))
    state = TrainingState(args, model, optimizer, lr_scheduler, steps_per_epoch=4, data="0123abcd")
    state.load_state_dict(checkpoint)
    position = state.position
    if position.meters is not None:
        MetricLogger().load_state_dict(position.meters)
    _take_step(model, optimizer, lr_scheduler)


TARGETS = (
    Target("annotations", ".json", _make_annotations, _read_annotations, (ValueError, OSError)),
    Target("images", ".img", _make_image, _read_image, (OSError,)),
    Target("checkpoints", ".pth", _make_checkpoint, _read_checkpoint, (CheckpointError, ValueError)),
)
