"""Reading the XML files of Pascal VOC into COCO's form."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from datasets.annotations.headers import Size
from datasets.formats.faults import leave_out
from datasets.formats.numbers import minus, plain_number
from datasets.formats.pictures import common_folder, image_entries, settled_size, warn
from datasets.formats.voc.categories import CATEGORIES_FILE, read_categories
from datasets.formats.voc.folder import Listed, Matcher, XmlFolder
from datasets.formats.voc.options import VocOptions
from datasets.formats.voc.xml_file import VocFile, VocObject, read_voc_file
from util.text import printable

_DIFFICULT = {
    "ignore": "are crowd regions, which training leaves out and evaluation ignores; --voc_difficult keep makes them "
    "objects as any other, drop leaves them out",
    "drop": "are left out; --voc_difficult keep makes them objects as any other",
}


@dataclass
class VocData:
    """A data set of Pascal VOC. `read` returns a part of it in COCO's form.

    Classes are the names in all parts, in alphabetical order and numbered from 1: so an id means the same in each part.
    The file `coco_categories.json`, which `tools.to_coco --to voc` writes, states other ids.

    Attributes:
        home: the folder.
        sources: the folders of XML files.
        options: what the user decides.
        lists: part → its list in `ImageSets/Main`; empty if the folders tell the parts.
    """

    home: Path
    sources: list[XmlFolder]
    options: VocOptions
    lists: dict[str, Listed] = field(default_factory=dict)
    _names: list[str] | None = field(default=None, init=False)
    _parsed: dict[Path, VocFile | None] = field(default_factory=dict, init=False)  # of parts that are not read yet
    _reported: set[str] = field(default_factory=set, init=False)

    def read(self, part: str) -> dict[str, Any]:
        """A part in COCO's form, see `datasets.formats.part.Part.read`; what should be known is logged once.

        Raises:
            OSError, ValueError: a file cannot be read, or two belong to one image; the message names it and the line.
        """
        pairs, notes = self._pairs(part)
        files = {xml: file for xml, _ in pairs if xml and (file := self._file(xml))}
        pairs = [(xml, picture) for xml, picture in pairs if not xml or xml in files]
        categories = self._categories(part, files)
        images = image_entries([picture for _, picture in pairs], self.images_of(part))
        annotations: list[dict[str, Any]] = []
        other_sizes: list[tuple[Path, Size, Size]] = []
        for image, (xml, picture) in zip(images, pairs, strict=True):
            stated = files[xml].size if xml else None
            size, is_other = settled_size(picture, stated)
            if size:
                image["width"], image["height"] = size
            if is_other:
                other_sizes.append((xml, stated, size))
            for item in files[xml].objects if xml else ():
                if item.name not in categories:
                    leave_out(xml, self._unlisted(xml, item))
                    continue
                if self.options.difficult == "drop" and "difficult" in item.flags:
                    continue
                own = {"id": len(annotations) + 1, "image_id": image["id"], "category_id": categories[item.name]["id"]}
                annotations.append(own | self._fields(item))
        if part not in self._reported:
            self._reported.add(part)
            notes += self._notes(files.values(), other_sizes)
            warn(self.lists[part].file if self.lists else self.home, notes)
        for xml in files:
            self._parsed.pop(xml, None)
        info = {"description": f"Pascal VOC in {self.home.name}"}
        classes = list(categories.values())
        return {"info": info, "images": images, "annotations": annotations, "categories": classes}

    def images_of(self, part: str) -> Path:
        """The folder that the file names of a part's images are relative to."""
        return common_folder(source.images for source in self.sources if self.lists or source.part == part)

    def _pairs(self, part: str) -> tuple[list[tuple[Path | None, Path]], list[str]]:
        def stated_name(xml: Path) -> str | None:
            file = self._file(xml)
            return file and file.filename

        matcher = Matcher(self.sources, stated_name)
        return matcher.pairs_of_list(self.lists[part]) if self.lists else matcher.pairs_of_part(part)

    def _file(self, xml: Path) -> VocFile | None:
        """The content of a file; None if faults are collected and it is one."""
        if xml not in self._parsed:
            try:
                self._parsed[xml] = read_voc_file(xml)
            except (OSError, ValueError) as error:
                leave_out(xml, error)
                self._parsed[xml] = None
        return self._parsed[xml]

    def _unlisted(self, xml: Path, item: VocObject) -> ValueError:
        return ValueError(
            f"annotation file {printable(xml)} has an object of class '{printable(item.name, 80)}', which "
            f"{printable(self.home / CATEGORIES_FILE)} does not list: add it there, or remove that file"
        )

    def _categories(self, part: str, files: Mapping[Path, VocFile]) -> dict[str, dict[str, Any]]:
        """Name → category."""
        stated = read_categories(self.home)
        if stated is not None:
            return stated
        if self._names is None:
            names = {item.name for file in files.values() for item in file.objects}
            for other in self.lists or dict.fromkeys(source.part for source in self.sources):
                pairs = self._pairs(other)[0] if other != part else ()
                read = [file for xml, _ in pairs if xml and (file := self._file(xml))]
                names.update(item.name for file in read for item in file.objects)
            self._names = sorted(names)
        return {name: {"id": number, "name": name} for number, name in enumerate(self._names, start=1)}

    def _fields(self, item: VocObject) -> dict[str, Any]:
        left, top, right, bottom = item.corners
        first = self.options.origin  # the number of the first pixel; with 1, the last pixel is included
        sides = (
            minus(left, first),
            minus(top, first),
            minus(right, minus(left, first)),
            minus(bottom, minus(top, first)),
        )
        x, y, width, height = map(plain_number, sides)
        crowd = int(self.options.difficult == "ignore" and "difficult" in item.flags)
        area = max(width, 0) * max(height, 0)
        return {"bbox": [x, y, width, height], "area": area, "iscrowd": crowd, **item.flags}

    def _notes(self, files: Iterable[VocFile], sizes: list[tuple[Path, Size, Size]]) -> list[str]:
        objects = [item for file in files for item in file.objects]
        notes = []
        difficult = sum("difficult" in item.flags for item in objects)
        if difficult and self.options.difficult in _DIFFICULT:
            count = f"{difficult:,} of {len(objects):,} objects are marked difficult"
            notes.append(f"{count}: they {_DIFFICULT[self.options.difficult]}")
        early = sum(min(item.corners[:2]) < 1 for item in objects)
        if early and self.options.origin == 1:
            notes.append(
                f"{early:,} of {len(objects):,} boxes begin before pixel 1, where VOC's count begins: if the program "
                "that wrote the files counts from 0, pass --voc_origin 0"
            )
        if sizes:
            xml, stated, actual = sizes[0]
            notes.append(
                f"{len(sizes):,} XML files state another size than that of their image ({printable(xml)}: "
                f"{stated[0]}x{stated[1]}, the image has {actual[0]}x{actual[1]}): the image's is used; if images were "
                "resized after the boxes were drawn, the boxes are wrong"
            )
        return notes
