"""Damaged files of Pascal VOC, YOLO and annotation tools in a small data set, and what `--data` does with them."""

from __future__ import annotations

import json
import random
import shutil
import zlib
from functools import cache
from io import BytesIO
from pathlib import Path, PurePosixPath

from PIL import Image

from datasets.annotations.instances import read_coco
from datasets.formats.faults import collected_faults
from datasets.formats.find import find_data
from datasets.formats.voc.options import VocOptions
from tools.reliability.fuzzing.annotations import document, make_annotations
from tools.reliability.fuzzing.mutations import TEXTS, mutate_bytes, mutate_tree
from tools.to_coco import convert

SIZE = 32, 24  # (w, h) of an image, pixels
CONVERTED = 0.1  # share of cases that are converted to another format
XML = """<?xml version="1.0" encoding="UTF-8"?>
<annotation>
\t<folder>cells</folder><filename>0.png</filename><path>C:\\cells\\0.png</path>
\t<size><width>32</width><height>24</height><depth>3</depth></size>
\t<object><name>cat</name><pose>Left</pose><truncated>1</truncated><difficult>0</difficult>
\t\t<bndbox><xmin>1</xmin><ymin>2.5</ymin><xmax>30</xmax><ymax>24</ymax></bndbox></object>
\t<object><name>a &amp; b</name><difficult>1</difficult>
\t\t<bndbox><xmin>5</xmin><ymin>6</ymin><xmax>7</xmax><ymax>8</ymax></bndbox>
\t\t<part><name>head</name><bndbox><xmin>5</xmin><ymin>6</ymin><xmax>7</xmax><ymax>8</ymax></bndbox></part></object>
</annotation>
"""
XML_TOKENS = (
    *(
        '<!DOCTYPE a [<!ENTITY b "c"><!ENTITY d "&b;&b;">]>',
        '<!DOCTYPE a SYSTEM "/etc/passwd">',
        "&b;",
        "&#0;",
        "&#x1b;",
    ),
    *(
        "<![CDATA[",
        "]]>",
        "<!--",
        "<?a",
        "</object>",
        "<object>",
        "<name>",
        "<bndbox>",
        "<object/>",
        '<name xml:space="x">',
    ),
    *("<a>" * 200, '<?xml version="1.0" encoding="gbk"?>', 'encoding="klingon"', "nan", "1e999", "9" * 400, "-5", "0"),
)
LABELS = "0 0.5 0.5 0.25 0.5\n1 0.1 0.2 0.1 0.2\n0 0.1 0.1 0.9 0.1 0.5 0.9\n1 0.123456789 0.5 1 1\n"
LABEL_TOKENS = (
    "1.5",
    "-0.1",
    "nan",
    "inf",
    "1e999",
    "1e-9999",
    "2",
    "-1",
    "0.5",
    "x",
    ",",
    "\0",
    "\r",
    "0 " * 500,
    "٣",
    "9" * 99,
)
CONFIG = """path: .
train: images/train
val: images/val
test:
nc: 2
names:
  0: cat
  1: 'a: b'
coco_category_ids: [3, 7]
"""
CONFIG_TOKENS = (
    *(
        "!!python/object/apply:os.system ['true']",
        "!!python/name:os.system",
        "&a ",
        "*a",
        "<<: *a",
        "? ",
        "- ",
        "[",
        "{",
        "|",
    ),
    *(
        "../",
        "/",
        "C:\\cells\\",
        "~",
        "null",
        "names:",
        "kpt_shape: [1, 3]",
        "\t",
        "%YAML 9",
        "---\n",
        "...\n",
        "x" * 5000,
    ),
)


def make_xml(rng: random.Random) -> bytes:
    """A damaged XML file of VOC's."""
    return _damaged(XML, XML_TOKENS, rng)


def make_labels(rng: random.Random) -> bytes:
    """A damaged label file of YOLO's."""
    return _damaged(LABELS, LABEL_TOKENS, rng)


def make_config(rng: random.Random) -> bytes:
    """A damaged `data.yaml`."""
    return _damaged(CONFIG, CONFIG_TOKENS, rng)


def make_export(rng: random.Random) -> bytes:
    """A damaged COCO file as annotation tools write it, with the names of another machine."""
    if rng.random() < 0.5:
        return make_annotations(rng)
    content = json.loads(json.dumps(document()))
    prefix = rng.choice(("", "images\\", "/data/upload/3/", "/data/local-files/?d=", "../images/", "C:\\x\\", "%2F"))
    for image in content["images"]:
        image["file_name"] = prefix + image["file_name"]
    return json.dumps(mutate_tree(content, rng) if rng.random() < 0.8 else content).encode()


def read_xml(path: Path) -> None:
    """Read a data set of VOC's of which one XML file is damaged."""
    _read(path, PurePosixPath("Annotations", "0.xml"), {"JPEGImages": ("0.png", "1.png")}, {"Annotations/1.xml": XML})


def read_labels(path: Path) -> None:
    """Read a data set of YOLO's of which one label file is damaged."""
    texts = {"labels/1.txt": LABELS, "classes.txt": "cat\ndog\n"}
    _read(path, PurePosixPath("labels", "0.txt"), {"images": ("0.png", "1.png")}, texts)


def read_config(path: Path) -> None:
    """Read a data set of YOLO's of which `data.yaml` is damaged."""
    texts = {"labels/train/0.txt": LABELS, "labels/val/1.txt": LABELS}
    _read(path, PurePosixPath("data.yaml"), {"images/train": ("0.png",), "images/val": ("1.png",)}, texts)


def read_export(path: Path) -> None:
    """Read a damaged export of an annotation tool."""
    files = {"train": "_annotations.coco.json", "annotations": "instances_default.json", ".": "result.json"}
    folder, name = random.Random(zlib.crc32(path.read_bytes())).choice(list(files.items()))
    images = "train" if folder == "train" else "images"
    _read(path, PurePosixPath(folder, name), {images: ("0.png", "1.jpg", "in/2.png")}, {})


def _read(path: Path, place: PurePosixPath, images: dict[str, tuple[str, ...]], texts: dict[str, str]) -> None:
    """Put the damaged file into a data set, and do what training, the check of the data and a conversion do."""
    choice = random.Random(zlib.crc32(path.read_bytes()))
    root = path.parent / f"data_{path.stem}"
    shutil.rmtree(root, ignore_errors=True)
    try:
        for folder, names in images.items():
            for name in names:
                (root / folder / name).parent.mkdir(parents=True, exist_ok=True)
                (root / folder / name).write_bytes(_picture(PurePosixPath(name).suffix))
        for name, text in texts.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text)
        (root / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, root / place)
        _use(root, choice)
    finally:
        shutil.rmtree(root, ignore_errors=True)


def _use(root: Path, choice: random.Random) -> None:
    voc = VocOptions(choice.choice(("ignore", "keep", "drop")), choice.choice((0, 1)))
    if choice.random() < CONVERTED:
        out = root.with_name(f"{root.name}_out")
        try:
            convert(root, out, choice.choice(("coco", "yolo", "voc")), link=True, voc=voc)
        except (ValueError, OSError):
            half_written = [each for each in root.parent.iterdir() if each == out or each.name.startswith(".detr-")]
            assert not half_written, f"a conversion left {half_written}"
            raise
        try:
            for part in find_data(out).parts.values():
                part.read()
        except (ValueError, OSError) as error:
            raise AssertionError("what was written cannot be read") from error
        finally:
            shutil.rmtree(out, ignore_errors=True)
        return
    found = find_data(root, voc)
    if choice.random() < 0.2:
        with collected_faults():
            for part in found.parts.values():
                part.read()
        return
    for part in found.parts.values():
        read_coco(part.source, part.images, read=part.read)
    print(found.sentence())


@cache
def _picture(suffix: str) -> bytes:
    file = BytesIO()
    Image.new("RGB", SIZE, "white").save(file, "JPEG" if suffix == ".jpg" else "PNG")
    return file.getvalue()


def _damaged(text: str, tokens: tuple[str, ...], rng: random.Random) -> bytes:
    """`text` with changed words, lines or bytes."""
    way = rng.random()
    if way < 0.3:
        return mutate_bytes(text.encode(), [text.encode(), *(token.encode() for token in tokens)], rng)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        token = rng.choice(tokens) if rng.random() < 0.8 else rng.choice(TEXTS)
        start = rng.randrange(len(text) + 1)
        if way < 0.6:
            words = text.split(" ")
            words[rng.randrange(len(words))] = token
            text = " ".join(words)
        elif way < 0.75:
            lines = text.splitlines(keepends=True)
            place = rng.randrange(len(lines)) if lines else 0
            lines[place : place + rng.choice((0, 1, 2))] = rng.choice(
                ([], [token + "\n"], lines[place : place + 1] * 2)
            )
            text = "".join(lines)
        else:
            text = text[:start] + token + text[start + rng.choice((0, 0, 1, len(token))) :]
    encoding = rng.choice(("utf-8",) * 6 + ("utf-16", "utf-8-sig", "latin-1"))
    return text.encode(encoding, "surrogatepass" if encoding.startswith("utf") else "replace")
