"""Recognising Pascal VOC: folders of XML files, the images that belong to them, and the parts."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from datasets.formats.part import NAMES, FoundData, Part
from datasets.formats.part_names import part_of
from datasets.formats.pictures import common_folder, is_picture, pictures_by_stem
from datasets.formats.text_files import read_text
from datasets.formats.tree import Tree
from datasets.formats.voc.categories import CATEGORIES_FILE
from datasets.formats.voc.folder import Listed, XmlFolder
from datasets.formats.voc.options import VocOptions
from datasets.formats.voc.read import VocData
from datasets.formats.voc.xml_file import looks_like_voc
from util.text import printable

KIND = "Pascal VOC"
IMAGE_FOLDERS = ("jpegimages", "images", "image", "imgs", "img", "pictures", "photos")
XML_FOLDERS = ("annotations", "annotation", "xmls", "xml", "labels", "label")
MASKS = ("segmentationclass", "segmentationobject", "masks", "labels", "thumbnails")  # images of equal names
LISTS = Path("ImageSets", "Main")
LOOKED_AT = 50  # XML files of a folder, to see whether they are VOC's
SIDE_FILES = (".aux.xml",)  # which mapping programs write beside each image


def find_voc(tree: Tree, options: VocOptions) -> list[FoundData]:
    """The VOC data sets in a folder. Only names and the beginnings of files are looked at.

    The lists of `ImageSets/Main` tell the parts; without them, the names of folders do.

    Raises:
        ValueError: the images of a folder of XML files are not found, or only some folders tell their part.
        OSError: a list cannot be read.
    """
    folders = dict(_xml_folders(tree))
    homes: dict[Path, list[Path]] = {}
    for folder in folders:
        homes.setdefault(_home_of(folder, tree), []).append(folder)
    found = []
    for home, inside in homes.items():
        sources = [
            XmlFolder(folder, folders[folder], *_pictures_of(folder, folders[folder], tree)) for folder in inside
        ]
        data = VocData(home, sources, options)
        data.lists = _listed(tree, home)
        found.append(_data_set(tree, home, data) if not data.lists else _by_lists(home, data))
    return found


def _xml_folders(tree: Tree) -> Iterator[tuple[Path, list[str]]]:
    """The folders of VOC's files, and the names of these. A damaged file does not hide among others."""
    for folder, names in tree.files.items():
        files = [name for name in names if name.lower().endswith(".xml") and not name.lower().endswith(SIDE_FILES)]
        is_devkit = folder.name.lower() == "annotations" and folder.parent / "JPEGImages" in tree.files
        if files and (is_devkit or any(looks_like_voc(folder / name) for name in files[:LOOKED_AT])):
            yield folder, files


def _home_of(folder: Path, tree: Tree) -> Path:
    """The folder above with `ImageSets/Main`; the data set's own if there is none."""
    above = [each for each in folder.parents if each.is_relative_to(tree.root)]
    return next((each for each in above if each / LISTS in tree.files), tree.root)


def _pictures_of(folder: Path, xml: list[str], tree: Tree) -> tuple[Path, list[str]]:
    """The folder of the images of a folder of XML files, and the names of its images."""
    part = part_of(folder.relative_to(tree.root))
    with_pictures = [each for each, names in tree.files.items() if any(map(is_picture, names))]
    stems = {os.path.splitext(name)[0] for name in xml}
    matching = [each for each in with_pictures if _matches(stems, tree.files[each])]
    preferred = [each for each in _preferred(folder, tree) if each in set(with_pictures)]
    chosen = [each for each in preferred if each in set(matching)] or preferred
    if not chosen:
        usable = [each for each in matching or with_pictures if each.name.lower() not in MASKS]
        chosen = [each for each in usable if part_of(each.relative_to(tree.root)) in (None, part)] or usable
        if len(chosen) > 1:
            listed = ", ".join(tree.relative(each) for each in chosen[:4])
            raise ValueError(
                f"the images of the XML files in {printable(folder)} can be in several folders: {listed}. Name the "
                "right one JPEGImages, or move the others elsewhere"
            )
    if not chosen:
        raise ValueError(
            f"{printable(folder)} holds {len(xml):,} XML files of Pascal VOC, but no folder below "
            f"{printable(tree.root)} holds images: put them beside the XML files, or into a folder JPEGImages"
        )
    return chosen[0], [name for name in tree.files[chosen[0]] if is_picture(name)]


def _matches(stems: set[str], names: list[str]) -> bool:
    return not stems.isdisjoint(pictures_by_stem(names)) or not stems.isdisjoint(filter(is_picture, names))


def _preferred(folder: Path, tree: Tree) -> Iterator[Path]:
    """The folders that images lie in by convention, the likeliest first."""
    yield folder
    known = {each.relative_to(tree.root).as_posix().lower(): each for each in reversed(tree.files)}
    inner = folder.relative_to(tree.root)
    for depth in reversed(range(len(inner.parts))):
        if inner.parts[depth].lower() not in XML_FOLDERS:
            continue
        above, below = inner.parts[:depth], inner.parts[depth + 1 :]
        for name in (*IMAGE_FOLDERS, None):
            parts = (*above, *([name] if name else []), *below)
            found = known.get("/".join(parts).lower() or ".")
            if found is not None:
                yield found


def _listed(tree: Tree, home: Path) -> dict[str, Listed]:
    """The lists of `ImageSets/Main` by part. `trainval` is used where there is no `train`."""
    folder = home / LISTS
    files = {Path(name).stem: folder / name for name in tree.files.get(folder, ()) if name.lower().endswith(".txt")}
    chosen = {name: files[name] for name in NAMES if name in files}
    if "train" not in chosen:
        other = next((name for name in ("trainval", "default") if name in files), None)
        if other:
            chosen["train"] = files[other]
    lists = {}
    for name, file in chosen.items():
        lines = read_text(file, "list").splitlines()
        lists[name] = Listed(file, [(number, line.strip()) for number, line in enumerate(lines, 1) if line.strip()])
    if "train" in lists and lists["train"].file.stem == "trainval" and "val" in lists:
        held_out = {text for _, text in lists["val"].entries}
        lists["train"].entries = [entry for entry in lists["train"].entries if entry[1] not in held_out]
    return {name: listed for name, listed in lists.items() if listed.entries}


def _by_lists(home: Path, data: VocData) -> FoundData:
    images = common_folder(source.images for source in data.sources)
    parts = {name: Part(images, listed.file, partial(data.read, name)) for name, listed in data.lists.items()}
    return _found(home, parts, data, undivided=set(parts) == {"train"})


def _data_set(tree: Tree, home: Path, data: VocData) -> FoundData:
    """The data set whose parts the names of its folders tell."""
    for source in data.sources:
        source.part = part_of(source.folder.relative_to(tree.root)) or part_of(source.images.relative_to(tree.root))
    told = {source.part for source in data.sources}
    if None in told and len(told) > 1:
        named = [next(source.folder for source in data.sources if source.part == part) for part in told]
        raise ValueError(
            f"the names of some folders of XML files in {printable(home)} tell their part, and those of others do not: "
            f"{', '.join(sorted(map(tree.relative, named)))}. Name them after their part (train, val, test), or list "
            "the images in ImageSets/Main/train.txt and val.txt"
        )
    parts = {}
    for source in data.sources:
        source.part = source.part or "train"
    for name in NAMES:
        sources = [source for source in data.sources if source.part == name]
        if sources:
            images = common_folder(source.images for source in sources)
            where = common_folder(source.folder for source in sources)
            parts[name] = Part(images, where, partial(data.read, name))
    return _found(home, parts, data, undivided=told == {None})


def _found(home: Path, parts: dict[str, Part], data: VocData, undivided: bool) -> FoundData:
    ids_from_names = not (home / CATEGORIES_FILE).is_file()
    return FoundData(KIND, home, parts, data.sources[0].folder, undivided, ids_from_names=ids_from_names)
