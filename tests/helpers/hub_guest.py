"""A process that has other modules named like our packages and loads our models through torch.hub.

python hub_guest.py REPOSITORY FOREIGN OUT.json writes the facts that the tests check.
"""

from __future__ import annotations

import copy
import importlib
import io
import json
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import scipy.optimize  # noqa: F401
import torch

NAMES = ("models", "models.detr", "util", "utils", "datasets")


def write_foreign_packages(folder: Path) -> None:
    """Write packages and modules of these names that state their owner."""
    for package in ("models", "utils", "datasets"):
        (folder / package).mkdir(parents=True)
        (folder / package / "__init__.py").write_text("OWNER = 'foreign'\n")
    (folder / "models" / "detr.py").write_text("OWNER = 'foreign'\n")
    (folder / "datasets" / "arrow.py").write_text("from datasets import OWNER\n")
    (folder / "util.py").write_text("OWNER = 'foreign'\n")


def load(repository: str, name: str = "detr_tiny_shapes", **arguments: Any) -> torch.nn.Module:
    return torch.hub.load(repository, name, source="local", **arguments)


def left_behind(repository: str, before: dict[str, Any], path: list[str]) -> list[str]:
    """The differences from the modules and path before: our modules that stayed, others that changed or are missing."""
    now = dict(sys.modules)
    changed = [name for name, module in before.items() if now.get(name) is not module]
    files = {name: getattr(module, "__file__", None) or "" for name, module in now.items() if name not in before}
    # A virtual environment inside the repository holds other packages, which may stay.
    ours = [n for n, f in files.items() if f.startswith(f"{repository}/") and "site-packages" not in Path(f).parts]
    return changed + ours + (["sys.path"] if sys.path != path else [])


def use(model: torch.nn.Module, other: torch.nn.Module, image: torch.Tensor) -> dict[str, Any]:
    """Use the model after its modules were removed from sys.modules."""
    expected = model(image)

    def is_same(outputs: dict[str, torch.Tensor]) -> bool:
        return all(torch.equal(outputs[key], expected[key]) for key in ("pred_logits", "pred_boxes"))

    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    different = not is_same(other(image))
    other.load_state_dict(torch.load(file, weights_only=True))
    return {
        "shape": list(expected["pred_boxes"].shape),
        "list": model([image[0], image[0, :, :40]])["pred_boxes"].isfinite().all().item(),
        "copy": is_same(copy.deepcopy(model)(image)),
        "weights": different and is_same(other(image)),
    }


def script(model: torch.nn.Module, image: torch.Tensor) -> bool:
    """Whether TorchScript compiles the model and computes the same boxes."""
    nested_tensor = model.forward.__globals__["NestedTensor"]
    batch = nested_tensor(image, torch.zeros(image.shape[0], *image.shape[2:], dtype=torch.bool))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scripted = torch.jit.script(model)
    return torch.equal(scripted(batch)["pred_boxes"], model(batch)["pred_boxes"])


@torch.no_grad()
def main(repository: str, foreign: str, out: str) -> None:
    torch.manual_seed(0)
    image = torch.rand(1, 3, 64, 64)
    facts: dict[str, Any] = {}

    sys.path.insert(0, foreign)
    for name in NAMES:
        importlib.import_module(name)
    before, path = dict(sys.modules), sys.path[:]
    first, second = load(repository).eval(), load(repository).eval()
    facts["left beside others"] = left_behind(repository, before, path)
    facts["owners"] = [importlib.import_module(name).OWNER for name in (*NAMES, "datasets.arrow")]
    facts["uses"] = use(first, second, image)
    facts["scripts"] = [script(first, image), script(second, image)]

    before, path = dict(sys.modules), sys.path[:]
    predictor = load(repository, "predictor", checkpoint=f"{repository}/weights/detr_tiny_shapes.pth", device="cpu")
    found = list(predictor(picture for picture in [np.full((96, 120, 3), 90, np.uint8)] * 2))
    facts["left by the predictor"] = left_behind(repository, before, path)
    facts["predictor"] = [found[0].to_coco()["images"][0]["width"], len(found), len(found[0]._repr_png_()) > 100]

    for name in [*NAMES, "datasets.arrow"]:
        del sys.modules[name]
    sys.path.remove(foreign)
    before, path = dict(sys.modules), sys.path[:]
    load(repository)
    facts["left alone"] = left_behind(repository, before, path)
    Path(out).write_text(json.dumps(facts))


if __name__ == "__main__":
    main(*sys.argv[1:])
