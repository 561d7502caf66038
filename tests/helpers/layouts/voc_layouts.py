"""Small data sets of Pascal VOC, in the layouts in which they lie about."""

from __future__ import annotations

from pathlib import Path
from xml.sax.saxutils import escape

from PIL import Image

SIZE = 48, 36  # (w, h) of an image, pixels
BOX = 11, 6, 30, 25  # xmin, ymin, xmax, ymax of the first object: x 10, y 5, 20 wide, 20 high


def write_picture(path: Path, size: tuple[int, int] = SIZE, **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, "white").save(path, **options)
    return path


def write_xml(path: Path, *objects: str, filename: str | None = None, size: tuple[int, int] | None = SIZE) -> Path:
    """Write an annotation file; `objects` as from `object_xml`, one of class "cat" if there are none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    name = f"<filename>{escape(filename)}</filename>" if filename else ""
    sides = f"<size><width>{size[0]}</width><height>{size[1]}</height><depth>3</depth></size>" if size else ""
    path.write_text("\n".join(["<annotation>", name + sides, *(objects or [object_xml()]), "</annotation>\n"]))
    return path


def object_xml(name: str = "cat", box: tuple = BOX, more: str = "") -> str:
    sides = zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
    corners = "".join(f"<{side}>{value}</{side}>" for side, value in sides)
    return f"<object><name>{escape(name)}</name>{more}<bndbox>{corners}</bndbox></object>"


def devkit(root: Path) -> Path:
    """The layout of the published data: train a, b; val c; test d, which has no XML file; e is in no list."""
    for name in "abcde":
        write_picture(root / "JPEGImages" / f"{name}.jpg")
    for name in "abce":
        write_xml(root / "Annotations" / f"{name}.xml", object_xml("dog" if name == "c" else "cat"))
    write_picture(root / "SegmentationClass" / "a.png")
    lists = root / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    for part, names in {"train": "ab", "val": "c", "trainval": "abc", "test": "d"}.items():
        (lists / f"{part}.txt").write_text("\n".join(names) + "\n")
    (lists / "cat_train.txt").write_text("a  1\nb -1\n")
    return root


def folders(root: Path) -> Path:
    """`annotations/` beside `images/`, without parts; c is without XML file."""
    for name in "abc":
        write_picture(root / "images" / f"{name}.png")
    for name in "ab":
        write_xml(root / "annotations" / f"{name}.xml", object_xml(name))
    return root


def mirrored(root: Path) -> Path:
    """The parts below both folders."""
    for part, name in (("train", "a"), ("val", "b")):
        write_picture(root / "images" / part / f"{name}.png")
        write_xml(root / "annotations" / part / f"{name}.xml", object_xml(name))
    return root


def roboflow(root: Path) -> Path:
    """XML files beside the images, in a folder for each part."""
    for part, name in (("train", "a_jpg.rf.1"), ("valid", "b_jpg.rf.2"), ("test", "c_jpg.rf.3")):
        write_picture(root / part / f"{name}.jpg")
        write_xml(root / part / f"{name}.xml", object_xml(name[0]), filename=f"{name}.jpg")
    (root / "README.roboflow.txt").write_text("data set\n=====\n")
    return root


def flat(root: Path) -> Path:
    """XML files and images in the folder itself."""
    for name in "ab":
        write_picture(root / f"{name}.png")
        write_xml(root / f"{name}.xml", object_xml(name))
    return root
