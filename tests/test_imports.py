"""The rooms: who may import whom, what product code may not import, and how long a file may be."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PARTS = {"util", "models", "datasets"}
MAY_IMPORT = {  # room → the rooms it may import, besides itself
    "util": set(),
    "models": {"util"},
    "datasets": {"util"},
    "engine": PARTS,
    "main": PARTS | {"engine"},
    "predict": PARTS | {"engine"},
    "hubconf": {"models", "util"},
}
OUTERMOST = {"tools", "benchmarks", "run_with_submitit", "tests"}  # may import anything; only tests import them
ROOMS = set(MAY_IMPORT) | OUTERMOST
MAX_LINES = 350


def room_of(path: Path) -> str:
    """The room that a path, relative to the repository, lies in."""
    return path.parts[0].removesuffix(".py")


def imported(node: ast.AST, path: Path) -> list[str]:
    """Dotted names that one node imports: statements, relative ones too, and `import_module("…")`."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        above = path.parts[: len(path.parts) - node.level] if node.level else ()
        base = ".".join([*above, *([node.module] if node.module else [])])
        return [f"{base}.{alias.name}" if base else alias.name for alias in node.names]
    if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
        called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if called in {"import_module", "__import__"} and isinstance(node.args[0].value, str):
            return [node.args[0].value]
    return []


def problems(source: str, path: Path) -> Iterator[str]:
    """What is wrong with the imports of a file at `path` (relative to the repository)."""
    room = room_of(path)
    tree = ast.parse(source, filename=str(path))
    functions = [n for n in ast.walk(tree) if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))]
    inside_functions = {id(node) for function in functions for node in ast.walk(function)}
    for node in ast.walk(tree):
        for name in imported(node, path):
            where = f"{path}:{node.lineno}: imports {name}"
            other = name.split(".")[0]
            if room != "tests" and f"{name}.".startswith("torchvision.models."):
                yield f"{where}: the model path is our own"
            if other not in ROOMS:
                continue
            if other != room and room not in OUTERMOST and other not in MAY_IMPORT[room]:
                yield f"{where}: {room} may import only {sorted(MAY_IMPORT[room]) or 'itself'}"
            if other != room and room in OUTERMOST - {"tests"} and other in OUTERMOST:
                yield f"{where}: only tests import {other}"
            if id(node) in inside_functions and room != "tests":
                yield f"{where} inside a function: our own rooms are imported at the top"


def python_files() -> list[Path]:
    """Every Python file of ours, relative to the repository."""
    found = [*ROOT.glob("*.py"), *(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))]
    return sorted(path.relative_to(ROOT) for path in found)


@pytest.mark.parametrize("path", python_files(), ids=str)
def test_imports_follow_the_arrows(path):
    assert room_of(path) in ROOMS, f"{path} belongs to no room: give it one in MAY_IMPORT"
    assert list(problems((ROOT / path).read_text(encoding="utf-8"), path)) == []


@pytest.mark.parametrize("path", python_files(), ids=str)
def test_files_stay_readable(path):
    lines = len((ROOT / path).read_text(encoding="utf-8").splitlines())
    assert lines <= MAX_LINES, f"{path} has {lines} lines: split it"


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("util/box_ops.py", "import models"),
        ("util/box_ops.py", "from datasets.coco import build"),
        ("models/detr.py", "from datasets import build_dataset"),
        ("models/detr.py", "import datasets.coco as data"),
        ("models/detr.py", "from ..datasets import coco"),
        ("models/detr.py", "from engine import evaluate"),
        ("models/detr.py", "from importlib import import_module\nimport_module('datasets')"),
        ("datasets/coco.py", "from models import build_model"),
        ("engine.py", "import main"),
        ("main.py", "from tools.plot_logs import main"),
        ("main.py", "from predict import main"),
        ("hubconf.py", "from datasets import build_dataset"),
        ("hubconf.py", "from engine import evaluate"),
        ("engine.py", "from benchmarks import speed"),
        ("tools/plot_logs.py", "import benchmarks.speed"),
        ("models/detr.py", "def build():\n    from util import box_ops"),
        ("main.py", "def main():\n    import engine"),
        ("models/resnet.py", "import torchvision.models"),
        ("models/resnet.py", "from torchvision.models import resnet50"),
        ("models/resnet.py", "from torchvision import models"),
        ("models/resnet.py", "def build():\n    from torchvision.models.resnet import resnet50"),
    ],
)
def test_a_wrong_import_is_seen(path, source):
    assert len(list(problems(source, Path(path)))) == 1


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("models/detr.py", "from util import box_ops\nfrom . import matcher\nfrom models.matcher import build_matcher"),
        ("util/misc.py", "from .dist import get_rank\nimport torchvision.transforms"),
        ("main.py", "from engine import evaluate\nfrom models import build_model\nfrom datasets import build_dataset"),
        ("tools/plot_logs.py", "from util.plot_utils import plot_logs\nimport main"),
        ("datasets/coco_eval.py", "def load():\n    import hotcoco\n    return hotcoco"),
        ("tests/test_plot_logs.py", "from tools.plot_logs import main"),
        ("tests/test_resnet.py", "from torchvision.models import resnet50\nfrom models.resnet import resnet50 as ours"),
    ],
)
def test_a_right_import_passes(path, source):
    assert list(problems(source, Path(path))) == []
