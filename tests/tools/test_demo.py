"""The demo, shortened: it draws, trains, evaluates, and writes the files that its report names."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from tests.helpers.runs import drawing
from tools import demo
from tools.draw_detections import draw_detections

FILE = Path(demo.__file__).parents[1] / "weights" / "detr_tiny_shapes.pth"

SHORT = ["--train", "16", "--val", "5", "--pictures", "3", "--epochs", "1", "--warmup_steps", "0", "--num_workers", "0"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The demo's folder and its report."""
    out = tmp_path_factory.mktemp("demo")
    lines: list[str] = []
    with pytest.MonkeyPatch.context() as patch, drawing():
        patch.setattr("builtins.print", lambda *texts, **_: lines.extend(map(str, texts)))
        demo.run(["--output_dir", str(out), *SHORT])
    return out, "\n".join(lines)


def test_every_file_named_in_the_report_exists(made: tuple[Path, str]):
    out, screen = made
    named = [line.split()[0] for line in screen.split("files:")[1].split("try next:")[0].splitlines() if line.strip()]
    assert len(named) == 8 and all(Path(path).is_file() for path in named)
    assert len(list((out / "pictures").glob("*.png"))) == 3 + 1


def test_the_report_gives_the_logged_numbers(made: tuple[Path, str]):
    out, screen = made
    stats = json.loads((out / "log.txt").read_text().splitlines()[-1])["test_coco_eval_bbox"]
    assert f"AP {stats[0]:.3f}, AP50 {stats[1]:.3f}" in screen


def test_pictures_show_ground_truth_beside_prediction(made: tuple[Path, str]):
    picture = Image.open(min((made[0] / "pictures").glob("1*.png")))
    assert picture.width > 1.8 * picture.height  # two squares side by side
    assert len(picture.convert("RGB").getcolors(1 << 24)) > 100


def test_the_shipped_detector_is_shown_on_the_same_pictures(made: tuple[Path, str], tmp_path: Path):
    out, screen = made
    assert str(out / "shipped_detector" / "overview.png") in screen
    expected = draw_detections(FILE, {"coco_path": str(out / "data")}, tmp_path, 3)
    for path in expected:
        shown = Image.open(out / "shipped_detector" / path.name)
        assert shown.tobytes() == Image.open(path).tobytes()
        assert shown.tobytes() != Image.open(out / "pictures" / path.name).tobytes()


def test_the_shipped_panoptic_model_is_shown_too(made: tuple[Path, str]):
    with Image.open(made[0] / "shipped_detector" / "panoptic.png") as sheet:
        assert sheet.width >= 3 * 384 and sheet.height > 384
        assert len(sheet.convert("RGB").getcolors(1 << 24)) > 100


def test_a_second_demo_keeps_the_data_and_starts_a_new_log(made: tuple[Path, str]):
    out, _ = made
    before = (out / "data" / "train2017").stat().st_mtime_ns
    demo.run(["--output_dir", str(out), *SHORT])
    assert (out / "data" / "train2017").stat().st_mtime_ns == before
    assert len((out / "log.txt").read_text().splitlines()) == 1
