"""Checkpoints of other programs, and small files of which a careless reader makes far more."""

from __future__ import annotations

import io
import json
import pickle
import random
import struct
import zipfile
import zlib
from functools import cache
from typing import Any

import numpy as np
import torch

from tools.reliability.fuzzing.mutations import TEXTS, VALUES
from tools.reliability.fuzzing.tiny_checkpoint import TinyDetector, checkpoints, repacked, saved

# ---- Checkpoints of other programs -----------------------------------------------------------------------------------


def _state_dict(model: dict[str, Any], rng: random.Random) -> bytes:
    key = rng.choice(("state_dict", "model_state_dict", "ema", "module", "net", "weights", "teacher"))
    prefix = rng.choice(("", "module.", "model.", "detr.", "_orig_mod.", "net.model."))
    content = {prefix + name: value for name, value in model.items()}
    return saved(rng.choice(({key: content}, {"model": {key: content}}, {"model": content}, content)))


def _lightning(model: dict[str, Any], rng: random.Random) -> bytes:
    more = {"pytorch-lightning_version": "2.0", "hyper_parameters": {"lr": 1e-4}, "callbacks": {}, "loops": {}}
    return saved({"epoch": 3, "global_step": 9, "state_dict": {f"model.{k}": v for k, v in model.items()}, **more})


def _safetensors(model: dict[str, Any], rng: random.Random) -> bytes:
    header = {"w": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}}
    text = json.dumps(header).encode()
    return struct.pack("<Q", rng.choice((len(text), 2**62))) + text + bytes(16)


def _arrays(model: dict[str, Any], rng: random.Random) -> bytes:
    file = io.BytesIO()
    np.savez(file, **{name: value.numpy() for name, value in model.items()})
    return rng.choice((file.getvalue(), pickle.dumps({"model": {n: v.numpy() for n, v in model.items()}})))


def _whole_module(model: dict[str, Any], rng: random.Random) -> bytes:
    module = TinyDetector()
    module.load_state_dict(model)
    return saved(rng.choice((module, {"model": module}, {"model": model, "args": NamedSettings()})))


def _list(model: dict[str, Any], rng: random.Random) -> bytes:
    return saved(rng.choice((list(model.values()), model["class_embed.weight"], "model", None, 5, [model], (model,))))


def _other_file(model: dict[str, Any], rng: random.Random) -> bytes:
    content = checkpoints()[0]
    return rng.choice(
        (
            b"",
            b"<!DOCTYPE html><html>404</html>",
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 448\n",
            b"\x1f\x8b\x08" + content[:200],
            repacked(content, lambda part: part, **{"archive/code/__torch__.py": b"import os"}),
            repacked(content, lambda part: b"cos\nsystem\n(S'exit'\ntR."),
            b"PK\x05\x06" + bytes(18),
            pickle.dumps({"model": {}}),
        )
    )


class NamedSettings(dict):
    """Settings of a class that only the other program has."""


WRAPPERS = (_state_dict, _state_dict, _lightning, _safetensors, _arrays, _whole_module, _list, _other_file)


# ---- Small files of which a careless reader makes far more -----------------------------------------------------------


def unfolding(intact: dict[str, Any], rng: random.Random) -> bytes:
    """A checkpoint of up to a few megabytes that costs far more to read than it weighs."""
    way = rng.randrange(8)
    content = dict(intact)
    if way == 0:  # 2 ** depth entries in `depth` lists
        nested: Any = rng.choice(([], {}, 1, "x"))
        for _ in range(rng.choice((20, 40, 200))):
            nested = rng.choice((lambda x: [x, x], lambda x: {"a": x, "b": x}, lambda x: (x, x)))(nested)
        content[rng.choice((*content, "more"))] = nested
        return saved(content)
    if way == 1:
        name = rng.choice(list(content["model"]))
        value = content["model"][name]
        rows = rng.choice((10**6, 10**7, 10**9))
        wide = torch.zeros(1).expand(rows, *value.shape[1:])
        return saved(content | {"model": content["model"] | {name: wide}})
    if way == 2:  # lists in lists, deeper than any recursion
        depth = rng.choice((900, 5000, 500_000))
        return repacked(checkpoints()[0], lambda part: b"\x80\x02" + b"]" * depth + b"a" * (depth - 1) + b".")
    if way == 3:
        return _expanding(rng.choice((100, 3000)), rng.random() < 0.5)
    if way == 4:
        name = rng.choice(("x", "\n", "\x1b[31m", "猫")) * 300_000
        more = {name: torch.zeros(1)}
        return saved(content | rng.choice(({name: 1}, {"model": content["model"] | more}, {"args": {name: 1}})))
    if way == 5:
        names = [{"id": number, "name": rng.choice(TEXTS[:15])} for number in range(rng.choice((3, 3000)))]
        return saved(content | {"categories": names})
    if way == 6:
        args = content["args"] | {rng.choice(list(content["args"])): rng.choice(TEXTS)}
        return saved(content | {"args": args | {rng.choice(TEXTS): rng.choice(VALUES)}})
    weights = {f"{rng.choice(TEXTS[:15])}{number}": torch.zeros(1) for number in range(rng.choice((1, 5, 2000)))}
    return saved(content | {"model": content["model"] | weights})


@cache
def _packed_zeros(blocks: int) -> tuple[bytes, int, int]:
    """`blocks` MiB of zeros: compressed, their checksum, their length."""
    block, packer, checksum = bytes(2**20), zlib.compressobj(9, zlib.DEFLATED, -15), 0
    once = packer.compress(block) + packer.flush(zlib.Z_FULL_FLUSH)  # refers to nothing before it
    for _ in range(blocks):
        checksum = zlib.crc32(block, checksum)
    return once * blocks + packer.flush(), checksum, blocks * len(block)


@cache
def _expanding(blocks: int, in_pickle: bool) -> bytes:
    """An archive with a compressed entry of `blocks` MiB of zeros."""
    packed, checksum, size = _packed_zeros(blocks)
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(checkpoints()[0])) as source:
        names = source.namelist()
        big = next(name for name in names if name.endswith("data.pkl" if in_pickle else "/data/0"))
        directory = []
        for name in names:
            part = source.read(name)
            plain = (0, zlib.crc32(part), part, len(part))
            how, crc, data, length = (8, checksum, packed, size) if name == big else plain
            fields = struct.pack("<HHHHHIIIHH", 20, 0, how, 0, 33, crc, len(data), length, len(name), 0)
            directory.append((fields, file.tell(), name.encode()))
            file.write(b"PK\x03\x04" + fields + name.encode() + data)
    start = file.tell()
    for fields, place, name in directory:
        file.write(b"PK\x01\x02" + struct.pack("<H", 20) + fields + struct.pack("<HHHII", 0, 0, 0, 0, place) + name)
    count, length = len(directory), file.tell() - start
    file.write(b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, count, count, length, start, 0))
    return file.getvalue()
