"""Hostile models and folders, and what `predict.py` does with them."""

from __future__ import annotations

import json
import random
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import torch

import predict
from models import build_model
from prediction.arguments import parse
from tools.reliability.fuzzing.annotations import CATEGORIES
from tools.reliability.fuzzing.images import HEIGHT, WIDTH, picture, pictures
from tools.reliability.fuzzing.mutations import TEXTS, VALUES, mutate_tree
from tools.reliability.fuzzing.other_checkpoints import unfolding
from tools.reliability.fuzzing.tiny_checkpoint import saved
from util.arguments import get_args_parser

MODEL = (
    "--backbone tiny --backbone_weights none --backbone_norm gn --num_classes 4 --num_queries 3 --hidden_dim 16 "
    "--nheads 2 --dim_feedforward 16 --enc_layers 1 --dec_layers 1 --val_size 32 --max_size 48 --device cpu"
).split()
ABSURD = (
    *(0, -1, -8, 1, 7, 10**7, 10**9, 2**63, 10**400, 1.5, -0.5, float("nan"), float("inf"), "800", "", None, True, []),
    *([32], [0], ["a"], {}, {"a": 1}, "resnet9999", "no_such_choice", "../..", [10**9] * 3, *TEXTS[:10]),
)


@cache
def trained() -> dict[str, Any]:
    """A checkpoint of a detector that can predict."""
    torch.manual_seed(0)
    args = get_args_parser().parse_args(MODEL)
    model = build_model(args)[0]
    categories = [{"id": category["id"], "name": category["name"]} for category in CATEGORIES]
    return {"model": dict(model.state_dict()), "args": vars(args), "epoch": 3, "categories": categories}


@cache
def _trained_file() -> bytes:
    return saved(trained())


# ---- Models ----------------------------------------------------------------------------------------------------------


def make_model(rng: random.Random) -> bytes:
    """A checkpoint with absurd settings, hostile names or weights, or one that unfolds."""
    way = rng.random()
    if way < 0.15:
        return unfolding(trained(), rng)
    content = dict(trained())
    if way < 0.6:
        content["args"] = dict(content["args"])
        for _ in range(rng.choice((1, 1, 2))):
            name = rng.choice(_ARCHITECTURE if rng.random() < 0.7 else list(content["args"]))
            content["args"][name] = rng.choice(ABSURD)
        return saved(content)
    if way < 0.75:
        names = [rng.choice(TEXTS) for _ in CATEGORIES]
        content["categories"] = [{"id": number, "name": name} for number, name in enumerate(names)]
        return saved(content)
    return saved(mutate_tree(content, rng, VALUES))


_ARCHITECTURE = (
    "backbone dilation position_embedding pos_temperature enc_layers dec_layers dim_feedforward hidden_dim nheads "
    "dropout num_queries pre_norm val_size max_size backbone_norm num_classes masks trainable_layers dataset_file"
).split()


def read_model(path: Path) -> None:
    """Predict with a model."""
    folder = path.with_suffix("")
    folder.mkdir()
    try:
        picture().save(folder / "0.png")
        _predict(path, [str(folder / "0.png")], folder / "out", "--threshold", "0", "--save_crops")
    finally:
        shutil.rmtree(folder)


def _predict(model: Path, inputs: list[str], out: Path, *flags: str) -> int:
    command = [str(model), *inputs, "--out", str(out), "--device", "cpu", *flags]
    return predict.main(parse(command))


# ---- Folders ---------------------------------------------------------------------------------------------------------

_NAMES = (
    *("0.png", "in/1.jpg", "A.PNG", "a.png", "a.jpg", "b.tiff", "x" * 246 + ".png", "é" * 120 + ".png", "con.png"),
    *("-rf.png", " .png", ".hidden.png", "a b\tc.png", "\nerror: FORGED.png", "\x1b[2JFORGED.png", "\u202eFORGED.png"),
    *("[a-z].png", "*.png", "%41.png", "no_suffix", "notes.txt", "detections.json", "\udcff.png"),
)
_KINDS = ("picture", "picture", "picture", "damaged", "empty", "folder", "link", "loop", "dangling")
_FOREIGN = (
    *(".mine.tmp", "pictures/.notes.tmp", "pictures/holiday.png", "notes.txt", "crops/cat/old.png", ".git/config.tmp"),
    *("0.png", "pictures/0.png.bak"),
)
_LINES = (
    *("", "{}", "[]", "null", "7", '"x"', "{", '{"name": 5}', '{"name": "0.png"}', '{"settings": []}', "\x00\xff"),
    *('{"settings": null}', '{"name": "0.png", "file": null, "results": 3}', "[" * 100_000, '{"settings": {}}'),
    '{"name": "0.png", "file": "0.png", "width": "1", "height": null, "results": [{"category_id": []}]}',
)


def make_folder(rng: random.Random) -> bytes:
    """A description of input files, of what lies in the output folder, and of flags."""
    inputs = {name: rng.choice(_KINDS) for name in rng.sample(_NAMES, rng.choice((1, 2, 4)))}
    return json.dumps(
        {
            "inputs": inputs,
            "named": rng.random() < 0.3,
            "foreign": rng.sample(_FOREIGN, rng.choice((0, 1, 3))),
            "earlier": rng.random() < 0.6,
            "lines": [rng.choice(_LINES) for _ in range(rng.choice((0, 1, 3)))],
            "place": rng.choice(("start", "end", "middle", "instead")),
            "cut": rng.choice((0, 0, 1, 20)),
            "flags": rng.choice(([], ["--resume"], ["--resume", "--no_pictures"], ["--batch_size", "2", "--resume"])),
            "seed": rng.randrange(10**6),
        }
    ).encode()


def read_folder(path: Path) -> None:
    """Predict for a folder, perhaps after an earlier job whose progress was damaged; foreign files must survive."""
    case = json.loads(path.read_bytes())
    folder = path.with_suffix("")
    inputs, out, model = folder / "inputs", folder / "out", folder / "model.pth"
    inputs.mkdir(parents=True)
    try:
        model.write_bytes(_trained_file())
        rng = random.Random(case["seed"])
        written = [inputs / name for name, kind in case["inputs"].items() if _write(inputs / name, kind, rng)]
        named = [str(file) for file in written] if case["named"] and written else [str(inputs)]
        flags = [*case["flags"], "--threshold", "0"]
        foreign = [out / name for name in case["foreign"]]
        for file in foreign:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(b"mine")
        if case["earlier"]:
            try:
                _predict(model, named, out, *(flag for flag in flags if flag != "--resume"))
            except (ValueError, OSError):
                pass  # said again below
            _damage(out / "progress.jsonl", case)
        _predict(model, named, out, *flags)
        lost = [file.name for file in foreign if not file.exists() or file.read_bytes() != b"mine"]
        if lost:
            raise AssertionError(f"files of others were changed: {lost}")
        found = json.loads((out / "detections.json").read_bytes())
        if len(found["images"]) > len(case["inputs"]) + 1:
            raise AssertionError(f"{len(found['images'])} results for {len(case['inputs'])} inputs")
    finally:
        shutil.rmtree(folder)


def _write(path: Path, kind: str, rng: random.Random) -> bool:
    """Write an input file; False where this system has no such name."""
    content = pictures()[3] if kind == "picture" else bytes(rng.choice(pictures())[: HEIGHT * WIDTH])
    try:
        path.parent.mkdir(exist_ok=True)
        if kind == "folder":
            path.mkdir()
        elif kind == "loop":
            path.symlink_to(path)
        elif kind == "link":
            path.symlink_to(path.parent, target_is_directory=True)
        elif kind == "dangling":
            path.symlink_to(path.parent / "nothing.png")
        else:
            path.write_bytes(b"" if kind == "empty" else content)
    except (OSError, ValueError):
        return False
    return True


def _damage(progress: Path, case: dict[str, Any]) -> None:
    """Add lines to the progress of an earlier job, at some place, and cut its end."""
    lines = progress.read_bytes().splitlines() if progress.exists() else []
    more = [line.encode("latin-1") for line in case["lines"]]
    place = {"start": 0, "end": len(lines), "middle": len(lines) // 2, "instead": 0}[case["place"]]
    lines = more if case["place"] == "instead" else [*lines[:place], *more, *lines[place:]]
    content = b"\n".join(lines)
    progress.parent.mkdir(parents=True, exist_ok=True)
    progress.write_bytes(content[: len(content) - case["cut"]])
