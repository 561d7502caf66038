"""One XML file of Pascal VOC → its objects. Entities and references to other files are refused."""

from __future__ import annotations

import re
import xml.sax
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import defusedxml.sax
from defusedxml.common import DefusedXmlException

from datasets.annotations.headers import Size
from datasets.annotations.rules import LARGEST_NUMBER
from datasets.formats.numbers import number_in
from datasets.formats.text_files import beginning_of, read_content
from util.text import printable

WHAT = "annotation file"
HEAD = 2**12  # bytes in which a file shows that it is VOC's
DEEPEST = 50  # elements within each other; VOC's are five deep
SIDES = ("xmin", "ymin", "xmax", "ymax")
OTHER_SHAPES = ("robndbox", "polygon", "bndbox2D", "line", "point")
# Encodings of XML files that Python reads and expat does not.
WIDE = ("gb2312", "gbk", "gb18030", "big5", "big5hkscs", "shift_jis", "cp932", "euc-jp", "euc-kr", "cp949", "utf-32")
_DECLARED = re.compile(rb"^\s*<\?xml[^>]*?\sencoding\s*=\s*[\"']([\w.-]+)[\"'][^>]*?\?>")


class VocObject(NamedTuple):
    """One object as its file states it."""

    name: str
    corners: tuple[int | Decimal, ...]  # xmin, ymin, xmax, ymax
    flags: dict[str, Any]  # those of difficult, truncated and occluded that are not 0, and the pose if it is specified


class VocFile(NamedTuple):
    """What training needs of an XML file."""

    filename: str | None  # of the image, as stated
    size: Size | None  # (w, h) in pixels, as stated
    objects: list[VocObject]


@dataclass
class _Element:
    tag: str
    line: int
    text: list[str] = field(default_factory=list)
    children: list[_Element] = field(default_factory=list)
    keeps_space: bool = False

    def content(self) -> str:
        text = "".join(self.text)
        return text if self.keeps_space else text.strip()

    def find(self, tag: str) -> _Element | None:
        """The only child of this name, None if there is none."""
        found = [child for child in self.children if child.tag == tag]
        if len(found) > 1:
            raise _Fault(found[1].line, f"has a second <{tag}> in one <{printable(self.tag, 40)}>: remove one")
        return found[0] if found else None


class _Fault(ValueError):
    """Something is wrong in a line of the file."""

    def __init__(self, line: int | None, what: str):
        super().__init__(what)
        self.line = line


class _Builder(xml.sax.ContentHandler):
    """Builds the elements of a file. The parser's events are used because they know their line."""

    def __init__(self) -> None:
        super().__init__()
        self.root: _Element | None = None
        self.open: list[_Element] = []
        self.locator: Any = None

    def setDocumentLocator(self, locator: Any) -> None:
        self.locator = locator

    def startElement(self, name: str, attrs: Any) -> None:
        line = self.locator.getLineNumber()
        if len(self.open) >= DEEPEST:
            raise _Fault(line, f"has more than {DEEPEST} elements within each other, which VOC's files have not")
        element = _Element(name, line, keeps_space=attrs.get("xml:space") == "preserve" if attrs.getLength() else False)
        if self.open:
            self.open[-1].children.append(element)
        else:
            self.root = element
        self.open.append(element)

    def characters(self, content: str) -> None:
        self.open[-1].text.append(content)

    def endElement(self, name: str) -> None:
        self.open.pop()


def looks_like_voc(path: Path) -> bool:
    """Whether an XML file begins as VOC's do; False also if it cannot be read."""
    head = beginning_of(path, HEAD)
    return re.search(rb"<annotation[\s>/]", head.replace(b"\0", b"")) is not None  # UTF-16 has zeros between letters


def read_voc_file(path: Path) -> VocFile:
    """Read one file.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no XML file of VOC's; the message names the file and the line.
    """
    try:
        root = _parse(read_content(path, WHAT))
        if root.tag != "annotation":
            raise _Fault(root.line, f"is not Pascal VOC: its root is <{printable(root.tag, 40)}>, not <annotation>")
        name = root.find("filename")
        return VocFile(
            name.content() or None if name else None,
            _size(root.find("size")),
            [_object(element) for element in root.children if element.tag == "object"],
        )
    except _Fault as fault:
        where = f" line {fault.line}" if fault.line else ""
        raise ValueError(f"{WHAT} {printable(path)}{where} {fault}") from None


def _parse(content: bytes) -> _Element:
    if not content.strip():
        raise _Fault(None, "is empty; writing or copying it may have been interrupted: copy it again")
    builder = _Builder()
    try:
        defusedxml.sax.parseString(_decoded(content), builder)
    except xml.sax.SAXParseException as error:
        reason = error.getMessage()
        advice = {
            "no element found": "it is cut off: copy it again",
            "unclosed token": "it is cut off: copy it again",
            "not well-formed (invalid token)": "a letter such as & or < that is not escaped, or another encoding than "
            "the file says: write &amp; or &lt;, or save it as UTF-8",
        }.get(reason, "correct it, or write it again")
        raise _Fault(error.getLineNumber(), f"is not well-formed XML ({printable(reason, 100)}): {advice}") from None
    except DefusedXmlException as error:
        what = type(error).__name__.removesuffix("Forbidden").lower()
        line = builder.locator.getLineNumber() if builder.locator else None
        raise _Fault(line, f"declares {what}, which are not read, for safety: remove the declaration") from None
    except xml.sax.SAXException as error:
        raise _Fault(None, f"is not XML that can be read ({printable(error, 100)}): write it again") from None
    except _Fault:
        raise
    except (ValueError, LookupError) as error:
        raise _Fault(1, f"is in an encoding that is not read ({printable(error, 100)}): save it as UTF-8") from None
    assert builder.root is not None  # expat reports a document without an element
    return builder.root


def _decoded(content: bytes) -> bytes:
    """`content` in UTF-8 if it is in one of `WIDE`."""
    declared = _DECLARED.match(content)
    encoding = declared[1].decode("ascii", "replace").lower() if declared else ""
    if encoding.replace("_", "-") not in {name.replace("_", "-") for name in WIDE}:
        return content
    text = content[declared.end() :].decode(encoding)
    lines = content[: declared.end()].count(b"\n")
    return b"\n" * lines + text.encode("utf-8", "surrogatepass")


def _size(element: _Element | None) -> Size | None:
    """(w, h) if both are stated; None for 0, which tools write that do not know it."""
    sides = [element and element.find(tag) for tag in ("width", "height")]
    if None in sides:
        return None
    numbers = [number_in(side.content()) for side in sides]
    if any(number is None or number != int(number) or not 0 < number <= LARGEST_NUMBER for number in numbers):
        return None
    return int(numbers[0]), int(numbers[1])


def _object(element: _Element) -> VocObject:
    name = element.find("name")
    if name is None or not name.content():
        raise _Fault(element.line, "has an <object> without <name>: add its class")
    box = element.find("bndbox")
    if box is None:
        other = next((child.tag for child in element.children if child.tag in OTHER_SHAPES), None)
        reason = f" but <{other}>, which is not read" if other else ""
        raise _Fault(element.line, f"has an <object> without <bndbox>{reason}: add the upright rectangle around it")
    return VocObject(name.content(), tuple(_corner(box, side) for side in SIDES), _flags(element))


def _corner(box: _Element, side: str) -> int | Decimal:
    element = box.find(side)
    if element is None:
        raise _Fault(box.line, f"has a <bndbox> without <{side}>: it needs xmin, ymin, xmax and ymax")
    number = number_in(element.content())
    if number is None or not -LARGEST_NUMBER <= number <= LARGEST_NUMBER:
        raise _Fault(element.line, f"has <{side}> '{printable(element.content(), 40)}', which is no pixel: correct it")
    return number


def _flags(element: _Element) -> dict[str, Any]:
    flags: dict[str, Any] = {}
    for child in element.children:
        if child.tag in ("difficult", "truncated", "occluded") and child.tag not in flags:
            text = child.content().lower()
            if text in ("1", "true", "yes"):
                flags[child.tag] = 1
            elif child.tag == "difficult" and text not in ("", "0", "false", "no", "unspecified"):
                raise _Fault(child.line, f"has <{child.tag}> '{printable(text, 40)}': write 0 or 1")
        elif child.tag == "pose" and child.content() not in ("", "Unspecified"):
            flags["pose"] = child.content()
    return flags
