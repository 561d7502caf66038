"""The documents: links, paths, modules, names and commands in README.md, CONTRIBUTING.md and docs/ exist."""

import pkgutil
import re
from collections.abc import Iterator
from importlib.util import find_spec
from itertools import takewhile
from pathlib import Path

import pytest

from tests.helpers.paths import REPOSITORY
from tests.test_imports import ROOMS

DOCUMENTS = [REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
# First parts of paths that users and runs bring along.
NOT_OURS = set(
    "annotations train2017 val2017 photos shapes folder outputs eval panoptic panoptic_pictures panoptic_eval pictures "
    "crops attention images labels train JPEGImages Annotations ImageSets".split()
)
FENCED = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"`([^`]+)`")
LINK = re.compile(r"\]\(([^)\s]+)\)")
PATH = re.compile(r"[\w.-]+(/[\w.*-]*)+|[\w.-]+\.py")
DOTTED = re.compile(r"\w+(\.\w+)+")
MODULE = re.compile(r"python3? -m ([\w.]+)")
SCRIPT = re.compile(r"(?:python3?|torchrun)(?: --?\w+(?: \d+)?)* ([\w./]+\.py)")
PYTEST = re.compile(r"pytest((?: [\w./*:-]+)+)")
IMPORT = re.compile(r"from ([\w.]+) import (\w+)")


def problems(text: str, folder: Path) -> Iterator[str]:
    """What a Markdown text in `folder` names that does not exist."""
    prose = FENCED.sub("", text)
    spans = [" ".join(span.split()) for span in SPAN.findall(prose)]
    lines = "".join(FENCED.findall(text)).replace("\\\n", "").splitlines()
    for link in LINK.findall(prose):
        if "://" not in link and not is_link(link, text, folder):
            yield f"link to {link}"
    for span in spans:
        if PATH.fullmatch(span) and span.split("/")[0] not in NOT_OURS and not exists(span):
            yield f"path {span}"
        elif DOTTED.fullmatch(span) and span.split(".")[0] in ROOMS and not (exists(span) or is_name(span)):
            yield f"name {span}"
    for line in [*spans, *lines]:
        yield from (f"python -m {module}" for module in MODULE.findall(line) if not is_module(module))
        yield from (f"script {script}" for script in SCRIPT.findall(line) if not exists(script))
        imports = [(module, name) for module, name in IMPORT.findall(line) if is_here(module)]
        yield from (f"name {name} in {module}" for module, name in imports if not is_name(module, name))
        for arguments in PYTEST.findall(line):
            paths = takewhile(lambda argument: "/" in argument, arguments.split())  # up to a flag
            yield from (f"pytest {path}" for path in paths if not exists(path.split("::")[0]))


def exists(path: str) -> bool:
    """True if a path from the root of the repository, or a pattern, names something."""
    return any(REPOSITORY.glob(path.rstrip("/")))


def is_link(link: str, text: str, folder: Path) -> bool:
    """True if a relative link leads to a file and, if it has an anchor, to a heading in it."""
    file, _, anchor = link.partition("#")
    if file and not (folder / file).exists():
        return False
    if not anchor:
        return True
    target = (folder / file).read_text(encoding="utf-8") if file else text
    headings = re.findall(r"^#+ (.+)", FENCED.sub("", target), re.MULTILINE)
    return anchor in [re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings]


def is_module(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def is_here(module: str) -> bool:
    """True if a module is in a room, or in a package that is installed; readers may have others."""
    package = module.split(".")[0]
    return package in ROOMS or is_module(package)


def is_name(*parts: str) -> bool:
    """True if `parts`, joined by dots, is a module or something in one."""
    try:
        pkgutil.resolve_name(".".join(parts))
    except (ImportError, AttributeError):
        return False
    return True


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_what_a_document_names_exists(document: Path):
    assert list(problems(document.read_text(encoding="utf-8"), document.parent)) == []


@pytest.mark.parametrize(
    "text",
    [
        "[a](docs/absent.md)",
        "[a](docs/results.md#absent)",
        "[a](#absent)",
        "![a](docs/images/absent.png)",
        "`models/absent.py`",
        "`absent.py`",
        "`models/absent/`",
        "`tests/absent_*.py`",
        "`util.absent`",
        "`datasets.loader.absent`",
        "`python -m tools.absent --out x`",
        "`python -m absent.tools`",
        "```\npython -m tools.absent\n```",
        "`python\n-m tools.absent`",
        "`python absent.py`",
        "```\ntorchrun --nproc_per_node 8 absent.py\n```",
        "`pytest tests/absent.py`",
        "`pytest tests/test_main.py tests/absent`",
        "```python\nfrom models import absent\n```",
    ],
)
def test_what_does_not_exist_is_reported(text: str):
    assert len(list(problems(text, REPOSITORY))) == 1


@pytest.mark.parametrize(
    "text",
    [
        "# A title: 2 words\n[a](#a-title-2-words) [b](https://example.org/absent) [c](docs/results.md)",
        "`models/detr.py`, `models/`, `tests/golden`, `eval/f1.json`, `/path/to/coco`, `log.txt`",
        "`datasets.loader.sample_generators`, `main.py`, `model.pth`",
        "`python -m tools.export a.pth b.onnx`, `pytest tests/test_main.py -k absent/name`",
        "```\npython main.py --resume auto\n```",
        "```python\nfrom absent import anything\n```",
    ],
)
def test_what_exists_passes(text: str):
    assert list(problems(text, REPOSITORY)) == []
