"""The rules of `tests/golden/README.md` as code: weights, inputs, tolerances, and which figures are tested.

A golden test selects its keys with `covers(...)`, which parametrises the test and registers the keys as covered.
`tests/golden/test_coverage.py` fails on any figure that is neither covered nor listed in `EXCLUDED`.
"""

import json
import zlib
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from functools import lru_cache
from math import prod, sqrt
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

GOLDEN_DIR = Path(__file__).resolve().parents[1] / "golden"
ARRAYS = dict(np.load(GOLDEN_DIR / "golden.npz"))
FACTS = json.loads((GOLDEN_DIR / "golden.json").read_text(encoding="utf-8"))

# --- Keys of all, excluded and covered figures ------------------------------------------------------------------------

RECORD = "describes how the figures were made; nothing computes it"
EXCLUDED = {"made_with/*": RECORD, "salt": RECORD}  # fnmatch pattern over keys → reason


def _fact_keys() -> Iterator[str]:
    """One key for each fact: `section/name`, a position in a list, or one part of a signature."""
    for section, body in FACTS.items():
        if section == "signatures":
            for name, parts in body.items():
                yield from (f"{section}/{name}/{part}" for part in parts if part != "methods")
                yield from (f"{section}/{name}/methods/{method}" for method in parts.get("methods", []))
        elif isinstance(body, (dict, list)):
            yield from (f"{section}/{name}" for name in (body if isinstance(body, dict) else range(len(body))))
        else:
            yield section


ALL_KEYS = [*ARRAYS, *_fact_keys()]
COVERED: set[str] = set()


def is_excluded(key: str) -> bool:
    """Whether the key is excluded because it is not a figure."""
    return any(fnmatchcase(key, pattern) for pattern in EXCLUDED)


def covers(*patterns: str) -> pytest.MarkDecorator:
    """Run a test once for every golden key that matches one of the fnmatch patterns, as its argument `key`."""
    keys = [k for k in ALL_KEYS if not is_excluded(k) and any(fnmatchcase(k, pattern) for pattern in patterns)]
    for pattern in patterns:
        if not any(fnmatchcase(key, pattern) for key in keys):
            raise ValueError(f"no golden key matches {pattern!r}, apart from excluded ones: check the spelling")
    COVERED.update(keys)
    return pytest.mark.parametrize("key", keys)


# --- Weights ----------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=256)  # the detectors on a ResNet-18 share most of their weights
def golden_weight(key: str, shape: tuple[int, ...]) -> Tensor:
    """The float32 weight of a state_dict entry by the rules of the README. Must not be modified."""
    r = np.random.RandomState(zlib.crc32(key.encode()))
    if key.endswith("running_var"):
        value = 0.5 + r.random_sample(shape)
    elif key.endswith("query_embed.weight"):
        value = 4.0 * r.standard_normal(shape)
    elif len(shape) >= 2:
        value = r.standard_normal(shape) / sqrt(prod(shape[1:]))
    elif key.split(".")[-1] == "weight":
        value = 1.0 + 0.1 * r.standard_normal(shape)
    else:
        value = 0.1 * r.standard_normal(shape)
    return torch.from_numpy(value.astype(np.float32))


def load_golden_weights(module: nn.Module) -> nn.Module:
    """Overwrite every floating-point entry of the module's state_dict by the rules. Returns the module."""
    state = module.state_dict()
    module.load_state_dict(
        {k: golden_weight(k, tuple(v.shape)) if v.is_floating_point() else v for k, v in state.items()}
    )
    return module


# --- Inputs -----------------------------------------------------------------------------------------------------------


def tensor(name: str, *shape: int, kind: str = "n") -> Tensor:
    """Normal (`"n"`) or uniform (`"u"`) float32 numbers that depend only on name and shape."""
    r = np.random.RandomState(zlib.crc32(f"input:{name}".encode()))
    value = r.standard_normal(shape) if kind == "n" else r.random_sample(shape)
    return torch.from_numpy(value.astype(np.float32))


def boxes(name: str, n: int) -> Tensor:
    """Boxes inside the unit square, cxcywh, float32 [n, 4]."""
    centres = tensor(f"{name}:c", n, 2, kind="u") * 0.6 + 0.2
    sizes = tensor(f"{name}:wh", n, 2, kind="u") * 0.35 + 0.02
    return torch.cat([centres, sizes], dim=1)


def targets(
    name: str, counts: Sequence[int], classes: int, mask_hw: Sequence[tuple[int, int]] | None = None
) -> list[dict[str, Tensor]]:
    """A target per image: labels int64 [n], boxes cxcywh [n, 4], and with `mask_hw` rectangular masks [n, h, w]."""
    result = []
    for i, n in enumerate(counts):
        labels = np.random.RandomState(zlib.crc32(f"labels:{name}:{i}".encode())).randint(1, classes, n)
        target = {"labels": torch.from_numpy(labels.astype(np.int64)), "boxes": boxes(f"{name}:{i}", n)}
        if mask_hw is not None:
            h, w = mask_hw[i]
            cx, cy, bw, bh = target["boxes"][:, :, None, None].unbind(1)  # each [n, 1, 1]
            x, y = torch.arange(w) / w, torch.arange(h)[:, None] / h
            target["masks"] = ((x - cx).abs() < bw / 2) & ((y - cy).abs() < bh / 2)
        result.append(target)
    return result


def images(name: str, sizes: Sequence[tuple[int, int]]) -> list[Tensor]:
    """One float32 image [3, h, w] for each (h, w)."""
    return [tensor(f"{name}:{i}", 3, h, w) for i, (h, w) in enumerate(sizes)]


# --- Comparisons ------------------------------------------------------------------------------------------------------

FORWARD = (1e-3, 2e-4)  # (rtol, atol): forward values, boxes, scores, areas, normalised images
LOSS = (1e-3, 1e-6)
GRADIENT = (5e-3, 1e-6)
GRADIENT_NORM = (5e-3, 5e-8)
RANDOM_STREAM_BOXES = (0.0, 1e-5)
EXACT = (0.0, 0.0)


def assert_close(actual: Any, golden: Any, tolerance: tuple[float, float], what: str) -> None:
    """Fail unless shapes and dtypes agree and |a − g| ≤ atol + rtol·|g| everywhere (NaN always fails)."""
    a = actual.detach().cpu().numpy() if isinstance(actual, Tensor) else np.asarray(actual)
    g = np.asarray(golden)
    if a.shape != g.shape or a.dtype != g.dtype:
        pytest.fail(f"{what}: {a.dtype}{list(a.shape)}, golden {g.dtype}{list(g.shape)}", pytrace=False)
    if tolerance == EXACT:
        excess = (a != g).astype(np.float64)
    else:
        rtol, atol = tolerance
        g64 = g.astype(np.float64)
        excess = np.abs(a.astype(np.float64) - g64) - (atol + rtol * np.abs(g64))
    wrong = ~(excess <= 0)
    if wrong.any():
        at = np.unravel_index(np.argmax(np.where(np.isnan(excess), np.inf, excess)), a.shape)
        place = [int(i) for i in at]
        pytest.fail(f"{what}: {wrong.sum()} of {a.size} differ, worst at {place}: {a[at]}, golden {g[at]}", False)


def assert_same(actual: Any, golden: Any, what: str) -> None:
    """Fail unless shapes, dtypes and every element agree."""
    assert_close(actual, golden, EXACT, what)
