"""Files of other formats that lie in a folder without a data set: which tool wrote them, and what to do."""

from __future__ import annotations

import re

from datasets.formats.text_files import beginning_of
from datasets.formats.tree import Tree

HEAD = 2**14  # bytes in which a file shows what it is
LOOKED_AT = 20  # files of each suffix
_EXPORT = "export the project from there as COCO"
_CONVERT = "convert it to COCO"

# Suffix → what a file's beginning holds, all of it → whose it is, and what to do.
_FORMS: dict[str, list[tuple[tuple[str, ...], str, str]]] = {
    ".xml": [((r"<annotations>", r"<(image|track|meta)\b"), "CVAT's own XML", "export the task as COCO 1.0")],
    ".json": [
        ((r'"shapes"\s*:', r'"imagePath"|"shape_type"'), "LabelMe's format", _CONVERT),
        ((r'"region_attributes"\s*:|"regions"\s*:|"_via_settings"',), "VIA's own format", _EXPORT),
        ((r"^\s*\[", r'"(annotations|completions|data)"\s*:', r'"result"\s*:'), "Label Studio's own JSON", _EXPORT),
        ((r"^\s*\[", r'"coordinates"\s*:', r'"annotations?"\s*:'), "CreateML's format", _CONVERT),
        ((r"^\s*\[", r'"image_id"\s*:', r'"score"\s*:'), "a list of detections", "pass annotations"),
        ((r'"classTitle"\s*:', r'"objects"\s*:'), "Supervisely's format", _EXPORT),
        ((r'"categories"\s*:\s*\{\s*"label"|"items"\s*:',), "Datumaro's own format", _CONVERT),
    ],
    ".jsonl": [((r"^\s*\{",), "JSON Lines", _CONVERT)],
    ".csv": [((r"^[^\n]*,[^\n]*,",), "a table", _CONVERT)],
    ".txt": [((r"^\S+\.\w+ +\d+,\d+,\d+,\d+,\d+",), "a list of images with their boxes", _EXPORT)],
    ".parquet": [((r"^PAR1",), "a Parquet table", _CONVERT)],
    ".tfrecord": [((r"",), "TensorFlow's records", _EXPORT)],
}


def other_form(tree: Tree) -> str:
    """A sentence on the first file of a format that is not read, with what to do; empty if none is known."""
    for suffix, forms in _FORMS.items():
        for file in tree.with_suffix(suffix)[:LOOKED_AT]:
            head = beginning_of(file, HEAD).decode("utf-8", "replace").lstrip("\ufeff")
            for patterns, whose, remedy in forms:
                if head and all(re.search(pattern, head) for pattern in patterns):
                    return f"{tree.relative(file)} is {whose}, which is not read: {remedy}"
    return ""
