"""Writing COCO's published layout."""

from __future__ import annotations

from pathlib import Path

from tools.converting.content import Content, check_names
from tools.converting.output import place_pictures
from util.files import write_json


def write_coco(out: Path, parts: dict[str, Content], *, link: bool) -> list[str]:
    """Write annotations/instances_{part}2017.json and {part}2017/; returns what was not written, nothing here.

    Raises:
        OSError, ValueError: two images would get one name, or a file cannot be written.
    """
    check_names({name: content.pictures for name, content in parts.items()}, by_stem=False)
    for name, content in parts.items():
        folder = out / f"{name}2017"
        folder.mkdir()
        place_pictures([(picture.file, folder / picture.name) for picture in content.pictures], link=link)
        for picture in content.pictures:
            picture.entry["file_name"] = str(picture.name)
        write_json(out / "annotations" / f"instances_{name}2017.json", content.coco)
    return []
