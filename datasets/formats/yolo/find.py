"""Recognising YOLO's formats: `data.yaml`, `obj.data`, or folders of label files alone."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from datasets.formats.part import NAMES, FoundData, Part
from datasets.formats.part_names import part_of
from datasets.formats.pictures import common_folder, is_picture
from datasets.formats.text_files import read_text
from datasets.formats.tree import Tree
from datasets.formats.yolo.config import KEYS, Config, looks_like_config, read_config, read_darknet_config
from datasets.formats.yolo.labels import looks_like_labels
from datasets.formats.yolo.names import NAMES_FILES, common_names
from datasets.formats.yolo.paths import IMAGES, LABELS, Folders, resolve
from datasets.formats.yolo.read import YoloData
from util.text import printable

KIND = "YOLO"
CONFIGS = ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml")
MOST_KINDS = 5  # of files that a message names
LOOKED_AT = 50  # text files of a folder, to see whether they are label files


def find_yolo(tree: Tree) -> list[FoundData]:
    """The YOLO data set in a folder, if there is one. Label files are not read.

    Raises:
        ValueError: the data file cannot be used, a part that it names is not there, or there are several data files.
        OSError: a file cannot be read.
    """
    folders = Folders(tree)
    config = _config(tree)
    if config:
        return [_by_config(config, folders)]
    return _by_folders(folders)


def _config(tree: Tree) -> Config | None:
    """The data file: `data.yaml` in the folder or below it, another YAML file with its keys, or `obj.data`."""
    depth = {folder: len(folder.relative_to(tree.root).parts) for folder in tree.files}
    yaml = [file for file in tree.with_suffix(".yaml", ".yml") if depth[file.parent] <= 2]
    for files in (
        [file for file in yaml if file.name.lower() in CONFIGS and (looks_like_config(file) or _is_alone(tree, file))],
        [file for file in yaml if looks_like_config(file)],
    ):
        uppermost = [file for file in files if depth[file.parent] == min(depth[each.parent] for each in files)]
        if len(uppermost) > 1:
            raise ValueError(
                f"{printable(tree.root)} holds several data files of YOLO: "
                f"{', '.join(map(tree.relative, uppermost[:4]))}. Keep one, or pass a folder with one"
            )
        if uppermost:
            return read_config(uppermost[0])
    darknet = [folder / name for folder, names in tree.files.items() for name in names if name.lower() == "obj.data"]
    return read_darknet_config(darknet[0]) if darknet else None


def _is_alone(tree: Tree, file: Path) -> bool:
    """Whether a file with the name of a data file, but without its keys, lies beside label files: it is damaged."""
    return any(
        folder.is_relative_to(file.parent) and _has_labels(folder, names) for folder, names in tree.files.items()
    )


def _has_labels(folder: Path, names: list[str]) -> bool:
    texts = [name for name in names if name.lower().endswith(".txt") and name not in NAMES_FILES]
    return any(looks_like_labels(folder / name) for name in texts[:LOOKED_AT])


def _by_config(config: Config, folders: Folders) -> FoundData:
    root = folders.tree.root
    base = config.source.parent
    named = config.path and resolve(config.path, [base], root)
    bases = [named, base] if named and named.is_dir() else [base]
    pictures: dict[str, list[Path]] = {}
    notes: dict[str, list[str]] = {}
    unusable: dict[str, str] = {}
    for part, paths in config.parts.items():
        notes[part] = []
        found = [(text, resolve(text, bases, root)) for text in paths]
        missing = [text for text, path in found if path is None]
        if missing and part == "test":  # Roboflow states all three, and writes those that it has
            continue
        line = next((config.lines[key] for key in KEYS[part] if key in config.lines), None)
        where = f"{printable(config.source)}{f' line {line}' if line else ''} states that {part} lies in"
        if missing:
            unusable[part] = (
                f"{where} '{printable(missing[0])}', but it is neither there nor below {printable(root)}: correct the "
                "path"
            )
            continue
        of_part: list[Path] = []
        for text, path in found:
            try:
                of_part += _pictures(path, bases, folders, notes[part])
            except (OSError, ValueError) as error:
                unusable[part] = f"{where} '{printable(text)}', which cannot be used: {error}"
        if part not in unusable:
            pictures[part] = list(dict.fromkeys(of_part))
    if not pictures and not unusable:
        raise ValueError(f"{printable(config.source)} states neither train nor val: write where the images lie")
    names = config.names or common_names(_names_files(folders.tree))
    return _found(YoloData(root, names, pictures, notes, folders, config.keypoints), config.source, unusable)


def _pictures(path: Path, bases: list[Path], folders: Folders, notes: list[str]) -> list[Path]:
    """The pictures of a folder and the folders in it, or those that a list names."""
    if path.is_dir():
        files = [folder / name for folder, names in folders.below(path).items() for name in names]
        found = [file for file in files if is_picture(file.name)]
        if files and not found:
            kinds = ", ".join(sorted({printable(file.suffix, 20) or "no suffix" for file in files})[:MOST_KINDS])
            notes.append(
                f"{printable(path)} holds no image of a kind that is read, but files of other kinds ({kinds}): correct "
                "the path, or save the images as JPEG or PNG"
            )
        return found
    if is_picture(path.name):
        return [path]
    missing: list[tuple[int, str]] = []
    pictures = []
    for number, line in enumerate(read_text(path, "list of images").splitlines(), start=1):
        text = line.strip()
        picture = resolve(text, [path.parent, *bases], folders.tree.root) if text else None
        if picture and picture.is_file():
            pictures.append(picture)
        elif text:
            missing.append((number, text))
    if missing:
        number, text = missing[0]
        first = f"(line {number}: '{printable(text, 80)}')"
        notes.append(
            f"{len(missing):,} of the {len(missing) + len(pictures):,} images that {printable(path)} names "
            f"{'is' if len(missing) == 1 else 'are'} not there {first}: "
            + ("they are left out" if pictures else "put them there, or export the data again, with its images")
        )
    return pictures


def _by_folders(folders: Folders) -> list[FoundData]:
    """The data set that has no data file: pictures in folders, with label files in the folders that belong to them."""
    tree = folders.tree
    of_labels: dict[Path, list[Path]] = {}
    for folder, names in tree.files.items():
        if any(map(is_picture, names)):
            of_labels.setdefault(folders.labels_of(folder), []).append(folder)
    parts: dict[str | None, list[Path]] = {}
    for labels, claiming in of_labels.items():
        if _has_labels(labels, folders.names(labels)) or _is_named_labels(labels, folders):
            inner = {folder: folder.relative_to(tree.root) for folder in claiming}
            named = [folder for folder in claiming if not set(IMAGES).isdisjoint(map(str.lower, inner[folder].parts))]
            for folder in named or claiming:
                parts.setdefault(part_of(inner[folder]), []).append(folder)
    if not parts:
        return []
    if None in parts and len(parts) > 1:
        named = ", ".join(sorted(tree.relative(found[0]) for found in parts.values()))
        raise ValueError(
            f"the names of some folders of images in {printable(tree.root)} tell their part, and those of others do "
            f"not: {named}. Name them after their part (train, val, test), or write a data.yaml"
        )
    pictures = {
        part or "train": [folder / name for folder in found for name in folders.pictures(folder)]
        for part, found in parts.items()
    }
    data = YoloData(tree.root, common_names(_names_files(tree)), pictures, {}, folders)
    first = folders.labels_of(next(iter(parts.values()))[0])
    return [_found(data, first)]


def _is_named_labels(folder: Path, folders: Folders) -> bool:
    """Whether a folder of label files is told by its name alone, as where all are empty or damaged."""
    is_named = not set(LABELS).isdisjoint(map(str.lower, folder.relative_to(folders.tree.root).parts))
    return is_named and any(name.lower().endswith(".txt") for name in folders.names(folder))


def _names_files(tree: Tree) -> list[Path]:
    files = [folder / name for folder, names in tree.files.items() for name in names if name.lower() in NAMES_FILES]
    return [file for file in files if not looks_like_labels(file)]


def _found(data: YoloData, evidence: Path, unusable: dict[str, str] | None = None) -> FoundData:
    """The data set; an error if none of its parts can be used."""
    parts, unusable = {}, dict(unusable or {})
    for name in NAMES:
        if data.pictures.get(name) is not None:
            pictures = data.pictures[name]
            if not pictures and name == "test":
                continue
            if not pictures:
                fault = next(
                    iter(data.notes.get(name, ())), "the folders that it names hold no image: correct the path"
                )
                unusable[name] = f"{printable(evidence)}: there is no image of the {name} part; {fault}"
                continue
            images = common_folder(picture.parent for picture in pictures)
            data.images[name] = images
            parts[name] = Part(images, evidence, partial(data.read, name))
    if not parts:
        raise ValueError(next(iter(unusable.values())))
    undivided = set(parts) == {"train"} and not unusable
    return FoundData(KIND, data.root, parts, evidence, undivided, unusable)
