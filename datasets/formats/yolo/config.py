"""`data.yaml` and `obj.data`: where YOLO's parts lie, and the names of the classes."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from datasets.annotations.rules import LARGEST_CATEGORY_ID, short
from datasets.formats.text_files import read_text
from datasets.formats.yolo.names import Names, numbered, read_names
from util.text import printable

LARGEST_CONFIG = 2**20  # bytes; the parser takes seconds for one of this size
WHAT = "data file"
KEYS = {"train": ("train",), "val": ("val", "valid", "validation"), "test": ("test",)}  # of the parts
IDS = "coco_category_ids"  # as `tools.to_coco --to yolo` writes it: the ids of COCO's categories, in the names' order
DEEPEST = 20  # lists and mappings within each other; YOLO's files have two
MOST_PATHS = 1000  # of a part
NOTHING = ("", "~", "null", "Null", "NULL")  # what leaves a key without value


@dataclass
class Config:
    """What a data file states.

    Attributes:
        source: the file.
        names: None if it states none.
        parts: "train", "val" or "test" → paths as written.
        path: what they are relative to, as written; None if it is the file's folder.
        keypoints: numbers behind the box in each line of the label files.
    """

    source: Path
    names: Names | None
    parts: dict[str, list[str]]
    path: str | None = None
    keypoints: int = 0
    lines: dict[str, int] = field(default_factory=dict)  # key → line


class _TextLoader(yaml.SafeLoader):
    """PyYAML's safe loader, which builds no objects. All values stay text: a class may be named no, 007 or 1e3."""

    yaml_implicit_resolvers = {}

    # PyYAML looks at all open collections for each word: 5,000 open brackets would take seconds.
    def fetch_flow_collection_start(self, token: type[yaml.Token]) -> None:
        self._check_depth(self.flow_level)
        super().fetch_flow_collection_start(token)

    def add_indent(self, column: int) -> bool:
        self._check_depth(len(self.indents))
        return super().add_indent(column)

    def _check_depth(self, depth: int) -> None:
        if depth > DEEPEST:
            problem = f"more than {DEEPEST} lists or mappings within each other"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=self.get_mark())

    def construct_mapping(self, node: yaml.Node, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    problem = f"has the key '{printable(key.value, 60)}' twice"
                    raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def looks_like_config(path: Path) -> bool:
    """Whether a YAML file has the keys of YOLO's; False also if it cannot be read as text."""
    try:
        text = read_text(path, WHAT, LARGEST_CONFIG)
    except (OSError, ValueError):
        return False
    keys = {match[1] for match in re.finditer(r"^[\"']?(\w+)[\"']?[ \t]*:", text, re.MULTILINE)}
    return not keys.isdisjoint(("names", "nc")) and not keys.isdisjoint(("train", "val", "valid", "test"))


def read_config(path: Path) -> Config:
    """Read `data.yaml`.

    Raises:
        OSError, ValueError: it cannot be read, is no YAML, would build objects, or states no usable names or parts.
    """
    text = read_text(path, WHAT, LARGEST_CONFIG)
    lines: dict[str, int] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        key = re.match(r"[\"']?(\w+)[\"']?[ \t]*:", line)
        if key:
            lines.setdefault(key[1], number)
    try:
        data = yaml.load(text, _TextLoader)  # noqa: S506 (it is a safe loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        tag = re.search(r"constructor for the tag '([^']*)'", str(error.problem))
        problem = "is not YAML that can be read" if not tag else f"would build an object ({printable(tag[1], 80)})"
        advice = (
            f"{printable(str(error.problem), 120)}; correct it" if not tag else "only plain data are read; remove it"
        )
        raise _fault(path, mark.line + 1 if mark else None, f"{problem}: {advice}") from None
    except (yaml.YAMLError, ValueError, RecursionError, TypeError, AttributeError) as error:
        reason = printable(" ".join(str(error).split()), 120)
        raise _fault(path, None, f"is not YAML that can be read: {reason}; correct it") from None
    if not isinstance(data, dict):
        raise _fault(path, None, f"holds {short(data)}, but it must hold keys such as train, val and names")
    parts = _parts(path, data, lines)
    root = data.get("path")
    if root is not None and not isinstance(root, str):
        raise _fault(path, lines.get("path"), f"has path {short(root)}: it must be a folder")
    names = _names(path, data, lines)
    return Config(path, names, parts, None if root in NOTHING else root, _keypoints(path, data, lines), lines)


def read_darknet_config(path: Path) -> Config:
    """Read `obj.data`, lines such as `train = data/train.txt`; the file of names is read where it lies.

    Raises:
        OSError, ValueError: it cannot be read.
    """
    data, lines = {}, {}
    for number, line in enumerate(read_text(path, WHAT, LARGEST_CONFIG).splitlines(), start=1):
        key, is_setting, value = line.partition("=")
        if is_setting and not key.strip().startswith("#"):
            data[key.strip()], lines[key.strip()] = value.strip(), number
    names = None
    if data.get("names"):
        file = path.parent / data["names"].replace("\\", "/").split("/")[-1]
        names = read_names(file) if os.path.isfile(file) else None
    return Config(path, names, _parts(path, data, lines), lines=lines)


def _parts(path: Path, data: dict[Any, Any], lines: dict[str, int]) -> dict[str, list[str]]:
    parts: dict[str, list[str]] = {}
    for part, keys in KEYS.items():
        given = [key for key in keys if data.get(key) not in (None, *NOTHING) and data.get(key) != []]
        if not given:
            continue
        value = data[given[0]]
        if any(data[key] != value for key in given):
            raise _fault(path, lines.get(given[1]), f"states both {given[0]} and {given[1]}: remove one")
        paths = value if isinstance(value, list) else [value]
        if not all(isinstance(each, str) and each.strip() for each in paths) or len(paths) > MOST_PATHS:
            raise _fault(
                path, lines.get(given[0]), f"has {given[0]} {short(value)}: it must be a path or a list of paths"
            )
        parts[part] = [each.strip() for each in paths]
    return parts


def _names(path: Path, data: dict[Any, Any], lines: dict[str, int]) -> Names | None:
    value, count = data.get("names"), data.get("nc")
    line = lines.get("names")
    if value is None or value in NOTHING:
        if count is None or count in NOTHING:
            return None
        return numbered(path, [f"class{number}" for number in range(_whole(path, count, "nc", lines))])
    if isinstance(value, str):  # a file of names
        file = path.parent / value
        if not os.path.isfile(file):  # False also for a name that no file can have
            raise _fault(path, line, f"has names {short(value)}: it must be a list of names")
        names = read_names(file)
    elif isinstance(value, list):
        if not all(isinstance(name, str) for name in value):
            wrong = next(name for name in value if not isinstance(name, str))
            raise _fault(path, line, f"has the name {short(wrong)}: each class needs a text")
        if not value:
            raise _fault(path, line, "has an empty list of names: write the classes in the labels' order")
        names = numbered(path, value)
    elif isinstance(value, dict) and value:
        of_class = {_class_number(path, key, line): name for key, name in value.items()}
        if len(of_class) < len(value) or not all(isinstance(name, str) for name in of_class.values()):
            raise _fault(path, line, f"has names {short(value)}: each class needs a number and a text of its own")
        names = Names(path, of_class)
    else:
        raise _fault(path, line, f"has names {short(value)}: write the classes in the labels' order")
    if count is not None and count not in NOTHING:
        stated = _whole(path, count, "nc", lines)
        if stated != len(names.of_class):
            raise _fault(
                path, lines.get("nc"), f"states {stated} classes (nc), but {len(names.of_class)} names: correct one"
            )
    return _with_ids(path, data, lines, names)


def _with_ids(path: Path, data: dict[Any, Any], lines: dict[str, int], names: Names) -> Names:
    value = data.get(IDS)
    if value is None:
        return names
    numbers = sorted(names.of_class)
    texts = value if isinstance(value, list) else []
    is_usable = all(isinstance(text, str) and re.fullmatch("[0-9]{1,5}", text) for text in texts)
    if not is_usable or len(texts) != len(numbers) or len(set(map(int, texts))) < len(texts):
        raise _fault(path, lines.get(IDS), f"has {IDS} {short(value)}: it must list an id of its own for each name")
    return Names(names.source, names.of_class, dict(zip(numbers, map(int, texts), strict=True)))


def _class_number(path: Path, key: Any, line: int | None) -> int:
    if not isinstance(key, str) or not re.fullmatch("[0-9]{1,5}", key) or int(key) > LARGEST_CATEGORY_ID:
        raise _fault(path, line, f"names a class {short(key)}: classes are numbers in 0..{LARGEST_CATEGORY_ID}")
    return int(key)


def _whole(path: Path, value: Any, key: str, lines: dict[str, int]) -> int:
    if not isinstance(value, str) or not re.fullmatch("[0-9]{1,6}", value) or not 0 < int(value) <= LARGEST_CATEGORY_ID:
        raise _fault(path, lines.get(key), f"has {key} {short(value)}: it must be a number from 1")
    return int(value)


def _keypoints(path: Path, data: dict[Any, Any], lines: dict[str, int]) -> int:
    """The numbers behind each box, from `kpt_shape: [17, 3]`."""
    shape = data.get("kpt_shape")
    if shape is None:
        return 0
    if not isinstance(shape, list) or len(shape) != 2 or shape[1] not in ("2", "3"):
        raise _fault(path, lines.get("kpt_shape"), f"has kpt_shape {short(shape)}: it must be such as [17, 3]")
    return _whole(path, shape[0], "kpt_shape", lines) * int(shape[1])


def _fault(path: Path, line: int | None, what: str) -> ValueError:
    return ValueError(f"{WHAT} {printable(path)}{f' line {line}' if line else ''} {what}")
