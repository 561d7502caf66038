"""The report of a run: what it shows, and that nothing about a run keeps it from being made."""

import base64
import io
import json
import re
from html import unescape
from pathlib import Path

import pytest
from PIL import Image

from tests.helpers.coco_files import captured_warnings
from tests.training.report.samples import write_facts, write_run
from tests.util.pages.test_page import Elements
from training.report import errors
from training.report.page import build_report
from util.files import write_json
from util.pages.markup import number

HOSTILE = "</td><script>alert(1)</script>\u202e\x1b[31m"


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    return write_run(tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="module")
def html(run) -> str:
    return build_report(run).html()


def sections(html: str) -> list[str]:
    return [unescape(found) for found in re.findall(r"<h2[^>]*>([^<]*)<", html)]


def tables(html: str) -> list[list[list[str]]]:
    """The cells of each table."""
    return [
        [re.findall(r"<t[hd][^>]*>([^<]*)</t[hd]>", row) for row in re.findall(r"<tr>.*?</tr>", table)]
        for table in re.findall(r"<table>.*?</table>", html)
    ]


def images_in(html: str) -> list[Image.Image]:
    found = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', html)
    return [Image.open(io.BytesIO(base64.b64decode(content))) for content in found]


def test_the_page_is_whole_and_has_its_parts(html):
    assert Elements(html).open == []
    assert sections(html) == [
        "Curves",
        "Errors",
        "Worst images",
        "Classes",
        "Precision, recall, confusion",
        "Run",
    ]
    assert "could not be" not in html
    assert html.count('<figure class="picture drawn">') == 3


def test_the_numbers_are_those_of_the_evaluation(run, html):
    saved = json.loads((run / "eval" / "per_class.json").read_text())
    assert f"<b>{saved['numbers']['AP']:.3f}</b><span>AP</span>" in html
    table = next(rows for rows in tables(html) if rows[0][0] == "class")
    measured = sorted((row for row in saved["per_class"] if row["AP"] >= 0), key=lambda row: row["AP"])
    assert [(row[0], row[3]) for row in table[1:]] == [(row["name"], f"{row['AP']:.3f}") for row in measured]
    assert "1 class without an object" in html


def test_the_errors_are_those_of_the_evaluation(run, html):
    saved = json.loads((run / "eval" / "errors.json").read_text())
    table = next(rows for rows in tables(html) if rows[0][0] == "kind")
    assert [(row[0], row[1], row[2]) for row in table[1:]] == [
        (row["kind"], number(round(row["AP_cost"], 3)), number(row["count"])) for row in saved["kinds"]
    ]


def test_each_of_the_worst_images_is_shown_with_truth_and_prediction(run, html):
    saved = json.loads((run / "eval" / "errors.json").read_text())["pictures"]
    drawn = images_in(html)
    assert len(saved) >= 5 and len(drawn) == 2 * len(saved)
    assert {image.size for image in drawn} == {(480, 360)}
    for picture in saved:
        assert picture["file_name"] in html


def test_curves_of_the_log_are_drawn(html):
    for title in ("scores of the evaluations", "total loss", "learning rate"):
        assert f"<figcaption>{title}</figcaption>" in html
    assert "3 epochs; the highest AP" in html


def test_the_command_settings_data_and_versions_are_shown(html):
    assert "python main.py --lr 0.5 --coco_path &#x27;my data&#x27;" in html
    changed = next(rows for rows in tables(html) if rows[0] == ["setting", "value", "default"])
    assert changed[1:] == [["lr", "0.5", "0.0001"], ["coco_path", "my data", "–"]]
    assert "2:0123abcd" in html and "<dt>python</dt><dd>3.11</dd>" in html


def test_masks_have_a_number_and_a_column(tmp_path):
    html = build_report(write_run(tmp_path, masks=True)).html()
    assert "<span>AP of masks</span>" in html
    assert "AP of masks" in next(rows for rows in tables(html) if rows[0][0] == "class")[0]


def test_panoptic_quality_is_a_table(run, tmp_path):
    quality = {name: {"pq": 0.5, "sq": 0.8, "rq": 0.6, "n": 2} for name in ("All", "Things", "Stuff")}
    row = {"id": 1, "name": "sky", "isthing": 0, "PQ": 0.25, "SQ": 0.5, "RQ": 0.5}
    copy_of(run, tmp_path)
    (tmp_path / "panoptic_eval").mkdir()
    write_json(tmp_path / "panoptic_eval" / "quality.json", quality | {"per_class": [row, row | {"PQ": -1}]})
    assert "Panoptic quality" not in sections(build_report(tmp_path).html())  # a file of another run
    write_facts(tmp_path, run.parent / "images", evaluates=["bbox", "panoptic"])
    html = build_report(tmp_path).html()
    assert "<span>PQ</span>" in html
    assert ["sky", "stuff", "25", "50", "50"] in [cells for rows in tables(html) for cells in rows]
    assert html.count(">sky<") == 1


def copy_of(run: Path, folder: Path) -> None:
    (folder / "eval").mkdir()
    for file in ("log.txt", *(f"eval/{name}.json" for name in ("per_class", "f1", "errors", "run"))):
        (folder / file).write_bytes((run / file).read_bytes())


def test_names_cannot_break_out_of_the_page(tmp_path):
    run = write_run(tmp_path, names=dict.fromkeys((1, 3, 7, 90), HOSTILE))
    picture = json.loads((run / "eval" / "errors.json").read_text())
    picture["pictures"][0]["file_name"] = HOSTILE
    write_json(run / "eval" / "errors.json", picture)
    with captured_warnings():
        html = build_report(run).html()
    assert "<script" not in html and "\u202e" not in html and "\x1b" not in html
    assert Elements(html).open == [] and "&lt;script&gt;alert(1)" in html


def test_images_that_cannot_be_read_are_said(run, tmp_path):
    copy_of(run, tmp_path)
    with captured_warnings() as warnings:
        html = build_report(tmp_path, tmp_path / "elsewhere").html()
    count = len(json.loads((run / "eval" / "errors.json").read_text())["pictures"])
    assert f"{count} of these images could not be read" in html and len(warnings) == 1
    assert images_in(html) == [] and html.count("(the image could not be read)") == count


def test_the_page_stays_small(run, monkeypatch):
    monkeypatch.setattr(errors, "BUDGET", 60_000)
    html = build_report(run).html()
    count = len(json.loads((run / "eval" / "errors.json").read_text())["pictures"])
    shown = len(images_in(html)) // 2
    assert 0 < shown < count and f"{count - shown} images are not shown" in html


def test_a_run_without_an_evaluation_has_curves(run, tmp_path):
    (tmp_path / "log.txt").write_bytes((run / "log.txt").read_bytes())
    html = build_report(tmp_path).html()
    assert sections(html) == ["Curves"] and "no evaluation yet" in html


def test_an_evaluation_without_a_log_has_no_curves(run, tmp_path):
    copy_of(run, tmp_path)
    (tmp_path / "log.txt").unlink()
    assert "Curves" not in sections(build_report(tmp_path).html())


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(ValueError, match="neither log.txt nor an evaluation"):
        build_report(tmp_path)


@pytest.mark.parametrize("content", ["{", "[1]", "\x00"])
def test_a_damaged_file_is_named(run, tmp_path, content):
    copy_of(run, tmp_path)
    (tmp_path / "eval" / "errors.json").write_text(content)
    with pytest.raises(ValueError, match=r"errors\.json is damaged"):
        build_report(tmp_path)


@pytest.mark.parametrize("file", ["per_class", "f1", "errors", "run"])
def test_a_file_of_another_form_costs_only_its_part(run, tmp_path, file):
    copy_of(run, tmp_path)
    (tmp_path / "eval" / f"{file}.json").write_text('{"per_class": 3, "kinds": {}, "overall": 1}')
    with captured_warnings() as warnings:
        html = build_report(tmp_path, run.parent / "images").html()
    assert warnings and "could not be shown" in html
    assert Elements(html).open == [] and len(sections(html)) >= 3


def test_two_thousand_classes_and_noise_stay_below_five_megabytes(run, tmp_path):
    copy_of(run, tmp_path)
    saved = json.loads((tmp_path / "eval" / "per_class.json").read_text())
    row = saved["per_class"][0] | {"AP": 0.5}
    saved["per_class"] = [row | {"id": i, "name": f"class of a long name, number {i} " * 3} for i in range(2000)]
    write_json(tmp_path / "eval" / "per_class.json", saved)
    page = build_report(tmp_path)
    assert page.size < 5_000_000 and "1,500 better classes are left out" in page.html()
