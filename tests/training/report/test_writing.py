"""When a run writes its report, and that this never stops it."""

import argparse
from types import SimpleNamespace

import numpy as np
import pytest

from main import get_args_parser
from tests.helpers.coco_files import captured_warnings
from tests.training.report.samples import write_run
from training.report import writing
from training.report.facts import command_of, settings_of, typed_command
from training.report.writing import RunReport
from training.run_folder import RunFolder


def args_of(*flags: str) -> argparse.Namespace:
    args = argparse.ArgumentParser(parents=[get_args_parser()]).parse_args(list(flags))
    args.device = "cpu"
    return args


@pytest.fixture
def report(tmp_path) -> RunReport:
    run = write_run(tmp_path)
    dataset = SimpleNamespace(
        ids=[1, 2], objects_per_image=np.array([3, 4]), categories=[{}], img_folder=tmp_path / "images"
    )
    return RunReport(args_of("--lr", "0.5"), RunFolder(run), dataset, ["bbox"])


def test_a_report_names_the_data_and_settings(report):
    report.trains_on(SimpleNamespace(**vars(report._val) | {"ids": [1, 2, 3]}), "2:aabbccdd")
    report.write()
    html = (report.folder.path / "report.html").read_text(encoding="utf-8")
    assert "2:aabbccdd" in html and "training images" in html and "evaluated images" in html
    assert "--lr 0.5" in html


def test_an_error_is_a_warning(report, monkeypatch):
    def fail(folder):
        raise RuntimeError("no page")

    monkeypatch.setattr(writing, "build_report", fail)
    with captured_warnings() as warnings:
        report.write()
    assert len(warnings) == 1 and "no page" in warnings[0]
    assert not (report.folder.path / "report.html").exists()


def test_reports_take_a_small_share_of_a_training(report, monkeypatch):
    clock, written = [0.0], []

    def build(folder):
        clock[0] += 1  # a second
        written.append(clock[0])
        return SimpleNamespace(write=lambda path: None)

    monkeypatch.setattr(writing, "build_report", build)
    monkeypatch.setattr(writing.time, "monotonic", lambda: clock[0])
    for _ in range(100):
        clock[0] += 1
        report.write(last=False)
    assert 2 <= len(written) <= 6
    report.write()
    assert len(written) >= 3 and written[-1] == clock[0]


def test_without_a_folder_nothing_is_written(report):
    RunReport(report.args, RunFolder(""), report._val, ["bbox"]).write()


def test_the_command_sets_what_differs_from_the_defaults():
    flags = ["--lr", "0.5", "--dilation", "--train_sizes", "64", "96", "--output_dir", "my run"]
    command = command_of(settings_of(args_of(*flags)))
    assert command == "python main.py --lr 0.5 --dilation --train_sizes 64 96 --output_dir 'my run' --device cpu"


def test_only_our_own_command_line_is_repeated(monkeypatch):
    monkeypatch.setattr("sys.argv", ["/home/me/main.py", "--lr", "0.5", "--coco_path", "my data"])
    assert typed_command() == "python /home/me/main.py --lr 0.5 --coco_path 'my data'"
    monkeypatch.setattr("sys.argv", ["ipykernel_launcher.py", "-f", "kernel.json"])
    assert typed_command() is None
