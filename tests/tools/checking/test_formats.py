"""Every format that is recognised is checked, and no file of one stops the check."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tools.checking.planted import COUNTS, FACTS, SIZE, noise_picture
from tools.checking.data_set import Checked, check

XML = """<annotation><filename>{name}.png</filename><size><width>64</width><height>48</height></size>
<object><name>cat</name><bndbox><xmin>5</xmin><ymin>7</ymin><xmax>{right}</xmax><ymax>30</ymax></bndbox></object>
</annotation>"""


def names() -> list[tuple[str, str, int]]:
    """(part, stem, seed) of the pictures; the stems hold what paths and tables trip over."""
    return [(part, f"{part} {k} #ü=%", 100 * len(part) + k) for part, count in COUNTS.items() for k in range(count)]


def write_voc(folder: Path) -> Path:
    """Pascal VOC; returns the folder of the XML files."""
    for inner in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (folder / inner).mkdir(parents=True)
    for part, stem, seed in names():
        noise_picture(seed, SIZE).save(folder / "JPEGImages" / f"{stem}.png")
        (folder / "Annotations" / f"{stem}.xml").write_text(
            XML.format(name=stem, right=25 + seed % 7), encoding="utf-8"
        )
        with (folder / f"ImageSets/Main/{part}.txt").open("a", encoding="utf-8") as file:
            file.write(f"{stem}\n")
    return folder / "Annotations"


def write_yolo(folder: Path) -> Path:
    """YOLO; returns the folder of training labels."""
    for part, stem, seed in names():
        for inner in ("images", "labels"):
            (folder / inner / part).mkdir(parents=True, exist_ok=True)
        noise_picture(seed, SIZE).save(folder / "images" / part / f"{stem}.png")
        (folder / "labels" / part / f"{stem}.txt").write_text(f"0 0.4 0.5 0.2 0.{3 + seed % 4}\n")
    (folder / "data.yaml").write_text("train: images/train\nval: images/val\nnames: [cat]\n")
    return folder / "labels/train"


def kinds(checked: Checked) -> dict[str, int]:
    return {found.kind: found.count for found in checked.findings}


@pytest.mark.parametrize("write", [write_voc, write_yolo])
def test_a_clean_set_yields_nothing(tmp_path, write):
    write(tmp_path)
    checked = check(tmp_path, FACTS, 0)
    assert checked.findings == [] and checked.complete
    assert [len(part.images) for part in checked.parts] == list(COUNTS.values())


@pytest.mark.parametrize(
    ("write", "faults"),
    [
        (write_voc, ["<annotation><obj", "<!DOCTYPE a [<!ENTITY x 'y'>]><annotation>&x;</annotation>"]),
        (write_yolo, ["0 0.4 0.5 0.2\n", "0 0.4 0.5 0.2 0.3 0.9\n", "7 0.4 0.5 0.2 0.3\n"]),
    ],
)
def test_each_faulty_label_file_is_named_and_the_rest_is_checked(tmp_path, write, faults):
    files = sorted(path for path in write(tmp_path).iterdir() if path.name.startswith("train"))
    for path, content in zip(files, faults):
        path.write_text(content)
    checked = check(tmp_path, FACTS, 0)
    (found,) = [one for one in checked.findings if one.kind == "annotation-file-unreadable"]
    assert found.count == len(faults)
    assert {Path(place.file).name for place in found.places} == {path.name for path in files[: len(faults)]}
    assert (
        len(checked.parts[0].images) >= COUNTS["train"] - len(faults) and len(checked.parts[1].images) == COUNTS["val"]
    )
