"""Which image each XML file of Pascal VOC belongs to."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath

from datasets.formats.faults import leave_out
from datasets.formats.pictures import first_of, pictures_by_stem
from util.text import printable

Pair = tuple[Path | None, Path]  # an XML file, None for an image without objects, and its image


@dataclass
class XmlFolder:
    """A folder of XML files, with the folder of their images and the names of these, and the part, if it is of one."""

    folder: Path
    xml: list[str]
    images: Path
    pictures: list[str]
    part: str | None = None


@dataclass
class Listed:
    """A list of `ImageSets/Main`: the file, and the number and text of each line that is not empty."""

    file: Path
    entries: list[tuple[int, str]]


class Matcher:
    """Finds the images of XML files: by their name without suffix, else by the name that the file states.

    Args:
        stated_name: XML file → the file name that it states, if it does.
    """

    def __init__(self, sources: Sequence[XmlFolder], stated_name: Callable[[Path], str | None]):
        self.sources = sources
        self.stated_name = stated_name
        self._stems = {source.images: pictures_by_stem(source.pictures) for source in sources}
        self._names = {source.images: set(source.pictures) for source in sources}

    def picture_of(self, source: XmlFolder, xml: str) -> Path | None:
        """The image of an XML file; None if it is not there.

        Raises:
            ValueError: it could be one of several.
        """
        stem = os.path.splitext(xml)[0]
        if stem in self._names[source.images]:  # a.jpg.xml
            return source.images / stem
        found = self._stems[source.images].get(stem, [])
        if len(found) != 1:
            stated = self.stated_name(source.folder / xml)
            name = PureWindowsPath(stated).name if stated else ""  # a path of any system
            if name in (found or self._names[source.images]):
                return source.images / name
        if len(found) > 1:
            raise two_pictures(source.images, found, source.folder / xml)
        return source.images / found[0] if found else None

    def pairs_of_part(self, part: str) -> tuple[list[Pair], list[str]]:
        """All images of a part and their XML files, and what should be known about the others."""
        sources = [source for source in self.sources if source.part == part]
        owners: dict[Path, Path] = {}
        orphans: list[Path] = []
        for source in sources:
            for xml in source.xml:
                self._take(source, xml, owners, orphans)
        left_out: list[Path] = []
        pairs: list[Pair] = [(xml, picture) for picture, xml in owners.items()]
        for folder in dict.fromkeys(source.images for source in sources):
            others = [source for source in self.sources if source.images == folder and source.part != part]
            stems = {os.path.splitext(xml)[0] for source in others for xml in source.xml}
            free = [folder / name for name in sorted(self._names[folder]) if folder / name not in owners]
            free = [path for path in free if path.stem not in stems and path.name not in stems]
            if others:
                left_out += free
            else:
                pairs += [(None, path) for path in free]
        notes = _about_orphans(orphans, sources[0].folder)
        if left_out:
            notes.append(
                f"{first_of(left_out, left_out[0].parent)} of the images have no XML file and lie in a folder of "
                "several parts: they are left out, because nothing tells their part; list them in ImageSets/Main"
            )
        return sorted(pairs, key=lambda pair: pair[1]), notes

    def pairs_of_list(self, listed: Listed) -> tuple[list[Pair], list[str]]:
        """The images that a list names and their XML files, and what should be known about the others."""
        owners: dict[Path, Path] = {}
        orphans: list[Path] = []
        pairs: list[Pair] = []
        missing: list[tuple[int, str]] = []
        seen: set[Path] = set()
        xml, pictures = self._keys("xml"), self._keys("pictures")
        for number, text in listed.entries:
            key = next((each for each in _spellings(text) if each in xml or each in pictures), None)
            if key is None:
                missing.append((number, text))
                continue
            found = xml.get(key) or pictures[key]
            if len(found) > 1:
                if key in xml:
                    named = " and ".join(printable(source.folder / name) for source, name in found[:2])
                    raise ValueError(f"list {printable(listed.file)} line {number} means {named}: rename one")
                raise two_pictures(found[0][0].images, [name for _, name in found], listed.file, number)
            source, name = found[0]
            own = name if key in xml else self._xml_of(source, name, xml)
            meant = source.folder / own if own else source.images / name
            if meant in seen:
                continue
            seen.add(meant)
            if own:
                self._take(source, own, owners, orphans)
            else:
                pairs.append((None, meant))
        pairs += [(path, picture) for picture, path in owners.items()]
        notes = _about_orphans(orphans, self.sources[0].folder)
        if missing:
            number, text = missing[0]
            notes.append(
                f"{len(missing):,} of {len(listed.entries):,} lines name neither an image nor an XML file that is "
                f"there (line {number}: '{printable(text, 80)}'): they are left out"
            )
        return sorted(pairs, key=lambda pair: pair[1]), notes

    def _xml_of(self, source: XmlFolder, picture: str, xml: dict[str, list[tuple[XmlFolder, str]]]) -> str | None:
        """The XML file of an image that a list names with its suffix; None if there is none."""
        stem = os.path.splitext(picture)[0]
        found = [name for owner, name in xml.get(stem, ()) if owner is source]
        for name in found:
            try:
                if self.picture_of(source, name) == source.images / picture:
                    return name
            except ValueError:  # it could be of two images, which is said when it is taken
                return name
        return None

    def _take(self, source: XmlFolder, xml: str, owners: dict[Path, Path], orphans: list[Path]) -> None:
        path = source.folder / xml
        try:
            picture = self.picture_of(source, xml)
        except ValueError as error:
            leave_out(path, error)
            return
        if picture is None:
            orphans.append(path)
        elif picture in owners:
            files = f"{printable(owners[picture])} and {printable(path)}"
            error = f"annotation files {files} both belong to the image {printable(picture)}: remove one"
            leave_out(path, ValueError(error))
        else:
            owners[picture] = path

    def _keys(self, what: str) -> dict[str, list[tuple[XmlFolder, str]]]:
        """How a list may name XML files or images: without suffix, with the folders below the data set's, or none.

        A name without folders means the file in the uppermost folder, if there is one there.
        """
        found: dict[str, list[tuple[XmlFolder, str]]] = {}
        uppermost: dict[str, list[tuple[XmlFolder, str]]] = {}
        folders = [source.folder if what == "xml" else source.images for source in self.sources]
        top = Path(os.path.commonpath(folders))
        for source, folder in zip(self.sources, folders, strict=True):
            inner = folder.relative_to(top).as_posix()
            for name in source.xml if what == "xml" else source.pictures:
                stem = os.path.splitext(name)[0]
                for key in {stem, f"{inner}/{stem}"} | ({name, f"{inner}/{name}"} if what == "pictures" else set()):
                    found.setdefault(key, []).append((source, name))
                    if inner == ".":
                        uppermost.setdefault(key, []).append((source, name))
        return found | uppermost


def two_pictures(folder: Path, names: Sequence[str], owner: Path, line: int | None = None) -> ValueError:
    """The error for images that share a name and so an annotation."""
    where = f"{printable(owner)}{f' line {line}' if line else ''}"
    return ValueError(
        f"the images {printable(names[0])} and {printable(names[1])} in {printable(folder)} differ only in their "
        f"suffix, so {where} could belong to either: rename or remove one"
    )


def _spellings(text: str) -> Iterator[str]:
    """What a line of a list may mean, the plain text first: `a`, `"a"`, `a 1`, `a.jpg`, `JPEGImages/a.jpg`."""
    flagged = re.fullmatch(r"(.+?)\s+-?[01]", text)
    plain = (text, _unquoted(text), *((flagged[1], _unquoted(flagged[1])) if flagged else ()))
    for each in dict.fromkeys(plain):
        yield each
        for slashed in dict.fromkeys((each, each.replace("\\", "/"))):
            parts = slashed.removeprefix("./").split("/")
            for start in range(len(parts)):
                tail = "/".join(parts[start:])
                yield tail
                yield os.path.splitext(tail)[0]


def _unquoted(text: str) -> str:
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'" else text


def _about_orphans(orphans: list[Path], folder: Path) -> list[str]:
    if not orphans:
        return []
    return [f"{first_of(orphans, folder)} of the XML files have no image: they are left out"]
