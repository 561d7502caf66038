"""A page of the lesson → a Jupyter notebook (format 4.5) as plain data."""

from __future__ import annotations

import base64
import os
import re
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
LESSON = REPOSITORY / "docs" / "lesson"
Cell = dict[str, Any]

# A snippet with the output right behind it, if there is one
SNIPPET = re.compile(r"^```python\n(.*?)^```$(?:\s*^```text\n(.*?)^```$)?", re.MULTILINE | re.DOTALL)
DETAILS = re.compile(r"<details>(<summary>.*?</summary>)|</details>")
LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s]+)\)")

SETUP = """\
import os
import sys
from pathlib import Path

folders = [*(Path.cwd() / "_").parents, Path({repository!r})]
root = next((folder for folder in folders if (folder / "docs/lesson/minimal_detr.py").is_file()), None)
if root is None:
    raise FileNotFoundError("no folder above this notebook is the repository: write the notebooks again")
os.chdir(root)
sys.path.insert(0, str(root))"""


def notebook_of(page: Path, folder: Path) -> dict[str, Any]:
    """The notebook of a page, to be written into `folder`.

    Its first code cell changes to the root of the repository. Each snippet is a code cell with the output that the page
    shows. The code of an answer is collapsed. Pictures are attached; links lead from `folder` to notebooks and files.
    """
    text = page.read_text(encoding="utf-8")
    cells: list[Cell] = []
    summary, end = "", 0  # of the answer that is open
    for snippet in SNIPPET.finditer(text):
        summary = _add_prose(cells, text[end : snippet.start()], summary, page, folder)
        cells.append(_code(snippet[1], snippet[2] or "", collapsed=bool(summary)))
        end = snippet.end()
    _add_prose(cells, text[end:], summary, page, folder)
    cells.insert(1, _code(SETUP.format(repository=str(REPOSITORY)), "", collapsed=True))
    for number, cell in enumerate(cells):
        cell["id"] = f"cell-{number}"
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
    return {"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}


def _add_prose(cells: list[Cell], text: str, summary: str, page: Path, folder: Path) -> str:
    """Append a Markdown cell, if there is any text; returns the summary of the answer that is still open behind it.

    Markdown cells cannot share an element, so an answer that is interrupted by code is closed and opened again.
    """
    text = f"<details>{summary}\n\n{text}" if summary else text
    for tag in DETAILS.finditer(text):
        summary = tag[1] or ""
    text = f"{text.rstrip()}\n\n</details>" if summary else text
    text = re.sub(r"<details><summary>[^<]*</summary>\s*</details>", "", text).strip()
    if not text:
        return summary
    pictures: dict[str, Any] = {}
    source = LINK.sub(lambda link: _link(link, page, folder, pictures), text)
    cells.append({"cell_type": "markdown", "metadata": {}, "source": source})
    if pictures:
        cells[-1]["attachments"] = pictures
    return summary


def _link(link: re.Match[str], page: Path, folder: Path, pictures: dict[str, Any]) -> str:
    mark, text, target = link.groups()
    if "://" in target or target.startswith("#"):
        return link[0]
    path, _, anchor = target.partition("#")
    file = (page.parent / path).resolve()
    if mark:
        pictures[file.name] = {"image/png": base64.b64encode(file.read_bytes()).decode("ascii")}
        return f"![{text}](attachment:{file.name})"
    if file.parent.parent == LESSON and file.suffix == ".md":
        new = f"../{file.parent.name}/{file.stem}.ipynb"
    else:
        new = Path(os.path.relpath(file, folder.resolve())).as_posix()
    return f"[{text}]({new}{'#' * bool(anchor)}{anchor})"


def _code(source: str, output: str, collapsed: bool) -> Cell:
    outputs = [{"output_type": "stream", "name": "stdout", "text": output}] if output else []
    hidden = {"jupyter": {"source_hidden": True, "outputs_hidden": True}} if collapsed else {}
    return {
        "cell_type": "code",
        "execution_count": None,
        "metadata": hidden,
        "outputs": outputs,
        "source": source.rstrip("\n"),
    }
