"""Curves: what is drawn for a log, and what is said about one that cannot be drawn."""

import io
import json
import runpy
import sys

import numpy as np
import pytest
import torch
from pycocotools.cocoeval import Params

from tests.helpers.coco_files import captured_warnings
from tools import plot_logs as plot_logs_command
from util.checkpoint import CheckpointError, save_checkpoint
from util.pictures.run_curves import plot_logs, plot_precision_recall, read_log, smooth


def record(epoch, evaluated=True):
    train = {"train_lr": 1e-4, "train_loss": 4.0 - epoch, "train_class_error": 50.0 - epoch, "train_loss_ce": 1.0}
    test = {"test_loss": 5.0 - epoch, "test_class_error": 60.0 - epoch}
    test |= {"test_coco_eval_bbox": [0.1 * epoch, 0.2 * epoch] + [-1.0] * 10}
    return {**train, **(test if evaluated else {}), "epoch": epoch, "n_parameters": 7}


@pytest.fixture
def write_run(tmp_path):
    def write(name, *records):
        (tmp_path / name).mkdir()
        (tmp_path / name / "log.txt").write_text("".join(json.dumps(line) + "\n" for line in records))
        return tmp_path / name

    return write


def curves(axis):
    """(style, x, y) of each line that has points."""
    lines = [(line.get_linestyle(), *map(list, line.get_data())) for line in axis.lines]
    return [(style, x, y) for style, x, y in lines if x]


def test_training_is_solid_evaluation_dashed_and_each_run_has_its_colour(write_run):
    runs = [write_run("a", record(0), record(1), record(2)), write_run("b", record(0))]
    figure = plot_logs(runs, fields=["class_error"])
    (axis,) = figure.axes
    assert curves(axis) == [
        ("-", [0, 1, 2], [50, 49, 48]),
        ("--", [0, 1, 2], [60, 59, 58]),
        ("-", [0], [50]),
        ("--", [0], [60]),
    ]
    colors = [line.get_color() for line in axis.lines]
    assert colors[0] == colors[1] != colors[2] == colors[3]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a", "b", "training", "evaluation"]


def test_map_is_ap50_as_in_the_published_plots_and_is_labelled_so(write_run):
    figure = plot_logs(write_run("a", record(0), record(1), record(2)))
    assert [axis.get_title() for axis in figure.axes][2].startswith("AP50")
    assert [len(curves(axis)) for axis in figure.axes] == [2, 0, 1]  # loss_bbox_unscaled is not in this log
    assert curves(figure.axes[2]) == [("--", [0, 1, 2], [0.0, 0.2, 0.4])]
    assert figure.axes[1].texts[0].get_text() == "not in the logs"


def test_a_field_of_several_numbers_is_drawn_as_a_curve_of_each(write_run):
    numbers = [{"epoch": e, "test_coco_eval_bbox": [0.1 * e, 0.2], "test_PQ_all": {"pq": 0.5, "n": 3}} for e in (0, 1)]
    figure = plot_logs(write_run("a", *numbers), fields=["coco_eval_bbox", "PQ_all", "AP", "mAP"])
    assert curves(figure.axes[0]) == [("--", [0, 1], [0, 0.1]), ("--", [0, 1], [0.2, 0.2])]
    assert [text.get_text().strip() for text in figure.axes[0].texts] == ["AP", "AP50"]
    assert [text.get_text().strip() for text in figure.axes[1].texts] == [".pq", ".n"]
    assert curves(figure.axes[2]) == [("--", [0, 1], [0, 0.1])]
    assert curves(figure.axes[3]) == [("--", [0, 1], [0.2, 0.2])]


@pytest.mark.parametrize("odd", ["word", "0.5", [], {}, ["a"], {"a": None, "b": "\x1b"}, [[["deep"]]]])
def test_what_is_no_number_is_left_out_and_named(write_run, odd):
    run = write_run("a", {"epoch": 0, "train_x": 1}, {"epoch": 3, "train_x": odd}, {"epoch": 4, "train_x": 2})
    with captured_warnings() as warnings:
        figure = plot_logs(run, fields=["x"])
    assert curves(figure.axes[0]) == [("-", [0, 4], [1, 2])]
    assert len(warnings) == 1 and "\x1b" not in warnings[0]
    assert warnings[0].startswith("train_x in ") and "is no number in 1 of 3 records, first in epoch 3: " in warnings[0]


@pytest.mark.parametrize("entry", [None, "word", 0.5, [], ["a"], [None], {"AP": 1}, [[0.5]]])
def test_an_odd_entry_of_the_evaluation_has_no_ap(write_run, entry):
    run = write_run("a", {"epoch": 0, "test_coco_eval_bbox": entry, "test_PQ_all": entry})
    with captured_warnings() as warnings:
        figure = plot_logs(run, fields=["AP", "mAP", "PQ"])
    assert [curves(axis) for axis in figure.axes] == [[], [], []] and len(warnings) == (0 if entry is None else 3)


def test_numbers_that_cannot_be_drawn_and_missing_ones_are_gaps(write_run):
    values = [1, None, float("nan"), float("inf"), 10**400, 1e308, True]
    run = write_run("a", *({"epoch": e, "train_x": value} for e, value in enumerate(values)))
    with captured_warnings() as warnings:
        figure = plot_logs(run, fields=["x"])
    assert curves(figure.axes[0]) == [("-", [0, 6], [1, 1])] and warnings == []


def test_of_very_many_numbers_some_are_drawn(write_run):
    run = write_run("a", {"epoch": 0, "train_x": list(range(100_000))})
    with captured_warnings() as warnings:
        figure = plot_logs(run, fields=["x"])
    assert len(curves(figure.axes[0])) == 24 and "the first 24 are drawn" in warnings[0]


@pytest.mark.parametrize("epoch", [None, "x", [1], float("nan"), {}])
def test_a_record_without_a_usable_epoch_has_its_place(write_run, epoch):
    run = write_run("a", record(0), record(1) | {"epoch": epoch}, record(2))
    assert curves(plot_logs(run, fields=["loss"]).axes[0])[0] == ("-", [0, 1, 2], [4, 3, 2])


def test_lines_that_are_no_records_are_left_out(write_run):
    run = write_run("a", record(0))
    with (run / "log.txt").open("ab") as file:
        file.write(b"[1]\n\xff\n" + b"[" * 100_000 + b"\n" + json.dumps(record(1)).encode() + b"\n")
    with captured_warnings() as warnings:
        assert [line["epoch"] for line in read_log(run / "log.txt")] == [0, 1]
    assert len(warnings) == 3


def test_names_of_runs_and_fields_are_shown_unchanged(write_run):
    runs = [write_run(name, record(0)) for name in ("_hidden", "$\\frac{$", "a\x1b[31m", "犬")]
    figure = plot_logs(runs, fields=["$x_{$"])
    figure.savefig(io.BytesIO(), format="png")
    assert figure.axes[0].get_title() == "$x_{$"
    assert [text.get_text() for text in figure.legends[0].get_texts()][:3] == ["_hidden", "$\\frac{$", "a\\x1b[31m"]


def test_masks_have_an_ap_and_panoptic_maps_a_quality(write_run):
    masks = {"test_coco_eval_masks": [0.3] * 12, "test_PQ_all": {"pq": 0.5, "sq": 0.8, "rq": 0.6, "n": 4}}
    figure = plot_logs(write_run("a", record(0) | masks, record(1)), fields=["mask_AP", "PQ"])
    assert [curves(axis) for axis in figure.axes] == [[("--", [0], [0.3])], [("--", [0], [0.5])]]


def test_the_command_draws_masks_where_a_run_has_them(write_run, tmp_path, monkeypatch):
    boxes, masks = write_run("boxes", record(0)), write_run("masks", record(0) | {"train_loss_mask": 0.2})
    asked = []
    draw = plot_logs_command.plot_logs

    def drawing(runs, fields, *args, **options):
        asked.append(fields)
        return draw(runs, fields[:1], *args, **options)

    monkeypatch.setattr(plot_logs_command, "plot_logs", drawing)
    for runs in ([boxes], [boxes, masks]):
        assert plot_logs_command.run([*map(str, runs), "--out", str(tmp_path / "a.png")]) == 0
    assert "PQ" not in asked[0] and asked[1][-4:] == ("loss_mask", "loss_dice", "mask_AP", "PQ")


def test_epochs_without_an_evaluation_leave_no_gap_and_no_point(write_run):
    run = write_run("a", record(0), record(1, evaluated=False), record(2))
    axis = plot_logs(run, fields=["loss"]).axes[0]
    assert curves(axis) == [("-", [0, 1, 2], [4, 3, 2]), ("--", [0, 2], [5, 3])]


def test_values_that_were_not_measured_are_not_drawn(write_run):
    run = write_run("a", {**record(0), "train_loss": float("nan"), "test_coco_eval_bbox": [-1.0] * 12}, record(1))
    loss, ap = plot_logs(run, fields=["loss", "AP"]).axes
    assert curves(loss)[0] == ("-", [1], [3])
    assert curves(ap) == [("--", [1], [0.1])]


def test_smoothing_is_the_weighted_mean_of_the_past():
    assert smooth([3.0, 1.0, 2.0], 0).tolist() == [3.0, 1.0, 2.0]
    expected = [3.0, (1 + 3 / 2) / (1 + 1 / 2), (2 + 1 / 2 + 3 / 4) / (1 + 1 / 2 + 1 / 4)]
    np.testing.assert_allclose(smooth([3.0, 1.0, 2.0], 1), expected)


def test_smoothing_is_applied_to_the_curves(write_run):
    run = write_run("a", record(0), record(1))
    assert curves(plot_logs(run, fields=["loss"], ewm_col=1).axes[0])[0][2] == pytest.approx([4, (3 + 4 / 2) / 1.5])


def test_a_missing_and_an_empty_log_are_errors_that_name_it(tmp_path, write_run):
    with pytest.raises(ValueError, match="there is no log .*gone/log.txt"):
        plot_logs(tmp_path / "gone")
    with pytest.raises(ValueError, match="log .*empty/log.txt has no records yet"):
        plot_logs([write_run("empty")])
    (tmp_path / "empty" / "other.txt").write_text(json.dumps(record(0)))
    assert plot_logs(tmp_path / "empty", log_name="other.txt").axes


def test_a_line_cut_off_is_left_out_with_a_warning(write_run, capsys):
    log = write_run("a", record(0)) / "log.txt"
    log.write_text(log.read_text() + '{"epoch": 1, "tr\n' + json.dumps(record(2)) + "\n")
    assert [line["epoch"] for line in read_log(log)] == [0, 2]
    assert f"line 2 of {log} is not a JSON object" in capsys.readouterr().out


def test_an_epoch_done_again_after_a_resume_counts_once(write_run):
    run = write_run("a", record(0), record(1), record(2), {**record(1), "train_loss": 9.0})
    assert curves(plot_logs(run, fields=["loss"]).axes[0])[0] == ("-", [0, 1, 2], [4, 9, 2])


def test_plots_leave_pyplot_alone_and_show_themselves_in_a_notebook(write_run, monkeypatch):
    monkeypatch.delitem(sys.modules, "matplotlib.pyplot", raising=False)
    figure = plot_logs(write_run("a", record(0)), fields=["loss"])
    assert figure._repr_png_().startswith(b"\x89PNG")
    assert "matplotlib.pyplot" not in sys.modules


def command(monkeypatch, *arguments):
    """The exit code of `python -m tools.plot_logs ARGUMENTS`."""
    monkeypatch.setattr(sys, "argv", ["plot_logs", *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_module("tools.plot_logs", run_name="__main__")
    return stopped.value.code


def test_the_command_draws_the_runs_into_a_picture(write_run, tmp_path, monkeypatch, capsys):
    runs = write_run("a", record(0), record(1)), write_run("b", record(0, evaluated=False))
    picture = tmp_path / "pictures" / "curves.png"
    assert command(monkeypatch, *runs, "--out", picture) == 0
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert "curves.png" in capsys.readouterr().out


def test_the_command_says_which_log_is_missing_and_writes_nothing(tmp_path, monkeypatch, capsys):
    assert command(monkeypatch, tmp_path / "gone", "--out", tmp_path / "none.png") == 1
    assert f"there is no log {tmp_path / 'gone' / 'log.txt'}" in capsys.readouterr().err
    assert not (tmp_path / "none.png").exists()


def test_the_command_does_not_overwrite_a_log(write_run, monkeypatch, capsys):
    run = write_run("a", record(0))
    (run / "log.txt").rename(run / "log.svg")
    before = (run / "log.svg").read_bytes()
    assert command(monkeypatch, run, "--log_name", "log.svg", "--out", run / "log.svg") == 1
    assert "is the input itself" in capsys.readouterr().err and (run / "log.svg").read_bytes() == before


# ---- precision over recall ----


def evaluation():
    """Two of three classes have ground truth: [T=2, R=101, K=3, A=4, M=3]."""
    precision = np.full((2, 101, 3, 4, 3), -1.0)
    precision[:, :, :2, 0, -1] = np.linspace(1, 0, 101)[None, :, None] * np.array([1.0, 0.5])
    recall = np.full((2, 3, 4, 3), -1.0)
    recall[:, :2, 0, -1] = 0.75
    return {"precision": precision, "recall": recall, "scores": np.where(precision > -1, 0.5, -1.0), "counts": [2, 101]}


def as_published(path):
    torch.save({**evaluation(), "params": Params("bbox"), "date": "2020-05-26 00:00:00"}, path)


def as_ours(path):
    save_checkpoint(path, evaluation())


@pytest.mark.parametrize("save", [as_published, as_ours])
def test_precision_and_scores_are_means_over_the_classes_with_ground_truth(tmp_path, save, capsys):
    (tmp_path / "run" / "eval").mkdir(parents=True)
    file = tmp_path / "run" / "eval" / "latest.pth"
    save(file)
    figure, axes = plot_precision_recall([file])
    recall, precision = axes[0].lines[0].get_data()
    np.testing.assert_allclose(recall, np.linspace(0, 1, 101))
    np.testing.assert_allclose(precision, 0.75 * np.linspace(1, 0, 101))
    np.testing.assert_allclose(axes[1].lines[0].get_ydata(), 0.5)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["latest"]
    assert "latest: AP 0.375, AP50 0.375, recall at IoU 0.50 0.750" in capsys.readouterr().out


def test_curves_can_be_called_by_their_run(tmp_path):
    (tmp_path / "run7" / "eval").mkdir(parents=True)
    as_ours(tmp_path / "run7" / "eval" / "000.pth")
    figure, _ = plot_precision_recall([tmp_path / "run7" / "eval" / "000.pth"], naming_scheme="exp_id")
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["run7"]
    with pytest.raises(ValueError, match="naming_scheme must be .* got 'date'"):
        plot_precision_recall([], naming_scheme="date")


def test_an_evaluation_file_that_would_run_code_is_refused(tmp_path):
    class Canary:
        def __reduce__(self):
            return print, ("code ran",)

    torch.save({**evaluation(), "extra": Canary()}, tmp_path / "latest.pth")
    with pytest.raises(CheckpointError, match=r"contains (builtins\.)?print"):
        plot_precision_recall([tmp_path / "latest.pth"])


@pytest.mark.parametrize("content", [{}, {"precision": [1.0], "scores": [1.0], "recall": [1.0]}, {"precision": "x"}])
def test_a_file_that_is_no_saved_evaluation_is_an_error(tmp_path, content):
    save_checkpoint(tmp_path / "a.pth", content)
    with pytest.raises(CheckpointError, match="a.pth is no saved evaluation"):
        plot_precision_recall([tmp_path / "a.pth"])


@pytest.mark.filterwarnings("error")
def test_an_evaluation_without_ground_truth_draws_nothing_and_says_so(tmp_path):
    empty = {name: np.full_like(value, -1.0) for name, value in evaluation().items() if name != "counts"}
    save_checkpoint(tmp_path / "a.pth", empty)
    with captured_warnings() as warnings:
        plot_precision_recall([tmp_path / "a.pth"])
    assert len(warnings) == 1 and "no class with ground truth" in warnings[0]


def test_evaluations_of_the_same_name_are_told_apart(tmp_path):
    files = [tmp_path / folder / "latest.pth" for folder in ("a", "b")]
    for file in files:
        file.parent.mkdir()
        save_checkpoint(file, evaluation())
    figure, _ = plot_precision_recall(files)
    shown = [text.get_text() for text in figure.legends[0].get_texts()]
    assert len(set(shown)) == 2
