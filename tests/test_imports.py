"""The rooms: who may import whom, how full a folder may be, how long a file may be."""

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.paths import REPOSITORY

MAY_IMPORT = {  # room → the rooms it may import, besides itself
    "util": set(),
    "models": {"util"},
    "datasets": {"util"},
    "evaluation": {"datasets", "util"},
    "engine": {"evaluation", "datasets", "util"},
    "training": {"engine", "evaluation", "datasets", "models", "util"},
    "prediction": {"models", "datasets", "util"},
    "main": {"training", "engine", "evaluation", "datasets", "models", "util"},
    "predict": {"prediction", "models", "datasets", "util"},
    "hubconf": {"models", "prediction", "util"},
}
LATE = {("hubconf", "prediction")}  # imported inside a function: the other entries of torch.hub do without its packages
OUTERMOST = {"tools", "benchmarks", "docs", "run_with_submitit", "tests"}  # may import anything; only tests import them
ROOMS = set(MAY_IMPORT) | OUTERMOST
# Published import paths of what lives elsewhere. They only re-export, and nothing of ours imports them.
FACADES = {
    "datasets.coco_eval": {"evaluation"},
    "datasets.panoptic_eval": {"evaluation"},
    "util.misc": {"util"},
    "util.plot_utils": {"util"},
}
MAX_LINES, MAX_FILES = 350, 16


def module_of(path: Path) -> str:
    """The dotted name of a file, relative to the repository."""
    return ".".join(path.with_suffix("").parts).removesuffix(".__init__")


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
    room, tree = room_of(path), ast.parse(source, filename=str(path))
    allowed = FACADES.get(module_of(path)) or MAY_IMPORT.get(room, set())
    functions = [n for n in ast.walk(tree) if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))]
    inside_functions = {id(node) for function in functions for node in ast.walk(function)}
    for node in ast.walk(tree):
        for name in imported(node, path):
            where = f"{path}:{node.lineno}: imports {name}"
            other = name.split(".")[0]
            if room != "tests" and f"{name}.".startswith("torchvision.models."):
                yield f"{where}: the ResNets are our own"
            if other not in ROOMS:
                continue
            if other != room and room not in OUTERMOST and other not in allowed:
                yield f"{where}: {room} may import only {sorted(allowed) or 'itself'}"
            if other != room and room in OUTERMOST - {"tests"} and other in OUTERMOST:
                yield f"{where}: only tests import {other}"
            if id(node) in inside_functions and room != "tests" and (room, other) not in LATE:
                yield f"{where} inside a function: our own rooms are imported at the top"
            if room != "tests" and any(f"{name}.".startswith(f"{facade}.") for facade in FACADES):
                yield f"{where}: a façade is for users; import from the file that holds it"


def python_files() -> list[Path]:
    """Every Python file of ours, relative to the repository."""
    found = [*REPOSITORY.glob("*.py"), *(path for room in ROOMS for path in (REPOSITORY / room).rglob("*.py"))]
    return sorted(path.relative_to(REPOSITORY) for path in found)


def overfull(paths: list[Path]) -> list[str]:
    """Folders with more than MAX_FILES code files; an `__init__` and façades hold no code."""
    code = [path for path in paths if path.name != "__init__.py" and module_of(path) not in FACADES]
    counts = Counter(path.parent for path in code)
    return [f"{folder} holds {count} files" for folder, count in sorted(counts.items()) if count > MAX_FILES]


@pytest.mark.parametrize("path", python_files(), ids=str)
def test_imports_follow_the_arrows(path):
    assert room_of(path) in ROOMS, f"{path} belongs to no room: give it one in MAY_IMPORT"
    assert list(problems((REPOSITORY / path).read_text(encoding="utf-8"), path)) == []


@pytest.mark.parametrize("path", python_files(), ids=str)
def test_files_stay_readable(path):
    lines = len((REPOSITORY / path).read_text(encoding="utf-8").splitlines())
    assert lines <= MAX_LINES, f"{path} has {lines} lines: split it"


def test_folders_hold_one_subject():
    assert overfull(python_files()) == []


def test_an_overfull_folder_is_seen():
    files = [Path("util", f"part_{index}.py") for index in range(MAX_FILES)] + [Path("util/__init__.py")]
    assert overfull(files) == []
    assert overfull([*files, Path("util/one_more.py")]) == ["util holds 17 files"]


@pytest.mark.parametrize("module", FACADES)
def test_facades_only_re_export(module):
    source = (REPOSITORY / module.replace(".", "/")).with_suffix(".py").read_text(encoding="utf-8")
    docstring, *statements = ast.parse(source).body
    assert isinstance(docstring, ast.Expr)
    *imports, names = statements
    assert all(isinstance(node, ast.ImportFrom) for node in imports)
    assert isinstance(names, ast.Assign) and names.targets[0].id == "__all__"
    assert sorted(ast.literal_eval(names.value)) == sorted(alias.name for node in imports for alias in node.names)


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
        ("models/detr.py", "from util.misc import NestedTensor"),
        ("models/load.py", "from training.resume import restore_training"),
        ("datasets/coco.py", "from models import build_model"),
        ("datasets/coco.py", "from evaluation.coco_eval import CocoEvaluator"),
        ("datasets/coco_eval.py", "from models import build_model"),
        ("evaluation/report.py", "from engine import evaluate"),
        ("evaluation/report.py", "from models import build_model"),
        ("prediction/predictor.py", "from evaluation.report import write_evaluation"),
        ("prediction/predictor.py", "from training.resume import restore_training"),
        ("engine.py", "import main"),
        ("engine.py", "from training.diagnosis.forensics import report_non_finite"),
        ("engine.py", "from models import build_model"),
        ("main.py", "from tools.plot_logs import main"),
        ("main.py", "from predict import main"),
        ("main.py", "import datasets.coco_eval"),
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
        ("tools/plot_logs.py", "from util.pictures.run_curves import plot_logs\nimport main"),
        ("datasets/coco_eval.py", "from evaluation.coco_eval import CocoEvaluator"),
        ("evaluation/coco_eval.py", "def load():\n    import hotcoco\n    return hotcoco"),
        ("training/run.py", "from engine import evaluate\nfrom evaluation.report import write_evaluation"),
        ("tests/tools/test_plot_logs.py", "from tools.plot_logs import main\nfrom util.misc import NestedTensor"),
        ("tests/test_resnet.py", "from torchvision.models import resnet50\nfrom models.resnet import resnet50 as ours"),
    ],
)
def test_a_right_import_passes(path, source):
    assert list(problems(source, Path(path))) == []
