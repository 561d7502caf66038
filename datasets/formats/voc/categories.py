"""The ids of the classes of a Pascal VOC data set, if a file beside it states them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from datasets.annotations.rules import check_categories
from util.loading.json_text import read_json
from util.text import printable

CATEGORIES_FILE = "coco_categories.json"  # as `tools.to_coco --to voc` writes it


def read_categories(home: Path) -> dict[str, dict[str, Any]] | None:
    """Name → category as in COCO, from `CATEGORIES_FILE`; None if there is no such file.

    Raises:
        OSError, ValueError: the file cannot be read, or is no list of categories with different names.
    """
    path = home / CATEGORIES_FILE
    if not path.is_file():
        return None
    content = read_json(path, "file of classes")
    try:
        if not isinstance(content, list):
            raise ValueError("it must hold a list of COCO's categories")
        check_categories(content)
        names = [category.get("name") for category in content]
        if not all(isinstance(name, str) and name for name in names) or len(set(names)) < len(names):
            raise ValueError("each category needs a name of its own")
    except ValueError as error:
        raise ValueError(f"file of classes {printable(path)} is not usable ({error}): correct or remove it") from None
    return dict(zip(names, content, strict=True))
