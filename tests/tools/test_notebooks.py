"""`python -m tools.notebooks`: the lesson as notebooks, one of which is executed."""

import base64
import json
import re
import shutil
import subprocess
import sys

import pytest

from tests.helpers.paths import REPOSITORY
from tests.lesson.pages import CHAPTERS, LANGUAGES, LESSON, compare, fences
from tools.notebooks.__main__ import run

PAGES = [page for language in LANGUAGES for page in sorted((LESSON / language).glob("*.md"))]
# What Jupyter does with the code cells: one namespace, started in the notebook's folder
RUN = """
import contextlib, io, json, sys
cells = json.load(open(sys.argv[1], encoding="utf-8"))["cells"]
namespace, outputs = {"__name__": "__main__"}, []
for cell in cells:
    if cell["cell_type"] == "code":
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(cell["source"], namespace)
        outputs.append(printed.getvalue())
json.dump(outputs, sys.stdout)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The notebooks, written by the command."""
    folder = tmp_path_factory.mktemp("lesson")
    command = [sys.executable, "-m", "tools.notebooks", str(folder)]
    result = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert result.returncode == 0 and f"wrote {len(PAGES)} notebooks" in result.stdout, result.stderr
    return folder


def load(folder, page):
    return json.loads((folder / page.parent.name / f"{page.stem}.ipynb").read_text(encoding="utf-8"))


def test_every_chapter_is_a_notebook(folder):
    assert sorted(path.stem for path in folder.rglob("*.ipynb")) == sorted(2 * CHAPTERS)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: f"{page.stem}-{page.parent.name}")
def test_a_notebook_has_the_content_of_its_page(folder, page):
    notebook = load(folder, page)
    cells = notebook["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    found = list(fences(page.read_text(encoding="utf-8")))
    assert [cell["source"] for cell in code[1:]] == [f.text.rstrip("\n") for f in found if f.kind == "python"]
    shown = [output["text"] for cell in code for output in cell["outputs"]]
    assert shown == [f.text for f in found if f.kind == "text" and f.follows]

    prose = [cell["source"] for cell in cells if cell["cell_type"] == "markdown"]
    assert all(text.count("<details>") == text.count("</details>") for text in prose)
    assert not any("```python" in text for text in prose)
    attached = {name for cell in cells for name in cell.get("attachments", {})}
    assert attached == set(re.findall(r"\(attachment:([^)]+)\)", "".join(prose))) != set()
    here = folder / page.parent.name
    for target in re.findall(r"\]\((?!attachment:|https?:|#)([^)\s#]+)", "".join(prose)):
        assert (here / target).exists(), target
    assert len({cell["id"] for cell in cells}) == len(cells)
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)


def test_pictures_are_those_of_the_page(folder):
    cells = load(folder, LESSON / "zh" / f"{CHAPTERS[0]}.md")["cells"]
    pictures = {name: data["image/png"] for cell in cells for name, data in cell.get("attachments", {}).items()}
    (name,) = pictures
    assert base64.b64decode(pictures[name]) == (LESSON / "images" / name).read_bytes()


def test_an_answer_is_collapsed(folder):
    cells = load(folder, LESSON / "en" / f"{CHAPTERS[0]}.md")["cells"]
    hidden = [cell["metadata"] != {} for cell in cells if cell["cell_type"] == "code"]
    assert hidden[0] and not hidden[1]
    answer = next(index for index, cell in enumerate(cells) if "<summary>Answer</summary>" in cell["source"])
    assert cells[answer + 1]["metadata"]["jupyter"] == {"source_hidden": True, "outputs_hidden": True}


def test_a_notebook_runs_where_it_lies(folder):
    """In a folder outside the repository, without the repository on the path."""
    path = folder / "en" / f"{CHAPTERS[0]}.ipynb"
    result = subprocess.run(
        [sys.executable, "-I", "-c", RUN, path.name], cwd=path.parent, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    code = [cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]
    outputs = json.loads(result.stdout)
    assert len(outputs) == len(code) > 5
    for cell, printed in zip(code, outputs):
        compare(printed, "".join(output["text"] for output in cell["outputs"]), "cell, line {}", 0)


def test_a_moved_repository_is_found_from_inside(folder, tmp_path):
    """The first cell prefers the repository that the notebook lies in."""
    (tmp_path / "docs/lesson").mkdir(parents=True)
    (tmp_path / "docs/lesson/minimal_detr.py").touch()
    inside = tmp_path / "outputs" / "lesson.ipynb"
    inside.parent.mkdir()
    shutil.copy(folder / "en" / f"{CHAPTERS[0]}.ipynb", inside)
    setup = json.loads(inside.read_text(encoding="utf-8"))["cells"][1]["source"]
    command = [sys.executable, "-I", "-c", f"{setup}\nprint(Path.cwd(), sys.path[0])"]
    result = subprocess.run(command, cwd=inside.parent, capture_output=True, text=True)
    assert result.stdout.split() == [str(tmp_path), str(tmp_path)], result.stderr


def test_an_output_that_is_a_file_is_refused(tmp_path, capsys):
    (tmp_path / "out").touch()
    assert run([str(tmp_path / "out")]) == 1
    assert "error: " in capsys.readouterr().err
