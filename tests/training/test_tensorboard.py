"""TensorBoard curves, as TensorBoard reads them back, also after a run was resumed."""

from __future__ import annotations

import math
import sys

import pytest

from tests.helpers.coco_files import captured_warnings
from training import tensorboard as util_tensorboard
from training.tensorboard import TensorBoardWriter, epoch_scalars, require_tensorboard, step_name
from util.coco_names import COCO_METRICS


@pytest.fixture
def curves():
    """Reads a folder the way TensorBoard does: curve → [(step, value), ...]."""
    loader = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="tensorboard is not installed"
    )

    def read(folder):
        events = loader.EventAccumulator(str(folder))
        events.Reload()
        return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}

    return read


def test_scalars_are_read_back_at_their_steps(tmp_path, curves):
    writer = TensorBoardWriter(tmp_path / "new" / "tensorboard")
    writer.scalars({"loss": 1.5, "lr": 0.25, "time/data_share": 12.5}, 1)
    writer.scalars({"loss": 0.5}, 11)
    read = curves(tmp_path / "new" / "tensorboard")  # complete before it is closed, as a run may be killed
    assert read == {"step/loss": [(1, 1.5), (11, 0.5)], "lr/lr": [(1, 0.25)], "time/data_share": [(1, 12.5)]}
    writer.close()
    writer.close()
    assert curves(tmp_path / "new" / "tensorboard") == read


def test_a_resumed_run_replaces_what_came_after_its_checkpoint(tmp_path, curves):
    killed = TensorBoardWriter(tmp_path, purge_step=1)
    for step in range(1, 7):
        killed.scalars({"loss": float(step)}, step)
    killed.epoch({"train_loss": 2.0}, 3)
    killed.epoch({"train_loss": 5.0}, 6)
    resumed = TensorBoardWriter(tmp_path, purge_step=4)  # its checkpoint had three steps
    for step in range(4, 8):
        resumed.scalars({"loss": step + 0.5}, step)
    resumed.epoch({"train_loss": 5.5}, 6)
    read = curves(tmp_path)
    assert read["step/loss"] == [(1, 1.0), (2, 2.0), (3, 3.0), (4, 4.5), (5, 5.5), (6, 6.5), (7, 7.5)]
    assert read["train/loss"] == [(3, 2.0), (6, 5.5)]


def test_a_file_cut_off_in_the_middle_of_a_point_does_not_hide_the_next(tmp_path, curves):
    killed = TensorBoardWriter(tmp_path)
    killed.scalars({"loss": 1.0}, 1)
    (file,) = tmp_path.iterdir()
    with file.open("ab") as half:
        half.write(file.read_bytes()[:30])
    TensorBoardWriter(tmp_path, purge_step=2).scalars({"loss": 2.0}, 2)
    assert curves(tmp_path) == {"step/loss": [(1, 1.0), (2, 2.0)]}


def test_a_nan_is_a_point_too(tmp_path, curves):
    TensorBoardWriter(tmp_path).scalars({"grad_norm": math.nan}, 3)
    ((step, value),) = curves(tmp_path)["step/grad_norm"]
    assert step == 3 and math.isnan(value)


def test_only_the_main_process_writes(tmp_path, monkeypatch):
    monkeypatch.setattr(util_tensorboard, "is_main_process", lambda: False)
    writer = TensorBoardWriter(tmp_path, purge_step=1)
    writer.scalars({"loss": 1.0}, 1)
    writer.epoch({"train_loss": 1.0}, 1)
    writer.close()
    assert list(tmp_path.iterdir()) == []


def test_without_a_folder_nothing_is_written_and_no_package_needed(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    monkeypatch.chdir(tmp_path)
    writer = TensorBoardWriter(None, purge_step=1)
    writer.scalars({"loss": 1.0}, 1)
    writer.close()
    assert list(tmp_path.iterdir()) == []


def test_a_missing_package_is_one_sentence_with_the_command(tmp_path, monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "tensorboard"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(ImportError, match="^--tensorboard needs .*: run `pip install tensorboard`, or omit"):
        require_tensorboard()
    with pytest.raises(ImportError, match="pip install tensorboard"):
        TensorBoardWriter(tmp_path / "curves")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_created_is_named(tmp_path):
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"curves cannot be written to .*file/curves .*: pass another --output_dir"):
        TensorBoardWriter(tmp_path / "file" / "curves")


def test_a_full_disk_ends_the_curves_and_not_the_run(tmp_path, curves, monkeypatch):
    writer = TensorBoardWriter(tmp_path)
    writer.scalars({"loss": 1.0}, 1)
    with captured_warnings() as logged:
        monkeypatch.setattr(writer._records, "flush", lambda: open("/nowhere/at/all"))
        writer.scalars({"loss": 2.0}, 2)
        writer.scalars({"loss": 3.0}, 3)
        writer.close()
    assert len(logged) == 1 and "the run continues without curves" in logged[0] and str(tmp_path) in logged[0]
    assert curves(tmp_path)["step/loss"] == [(1, 1.0)]
    assert "could not be written" in writer.failed


def test_a_record_that_does_not_fit_leaves_no_part(tmp_path, curves, monkeypatch):
    writer = TensorBoardWriter(tmp_path)
    writer.scalars({"loss": 1.0}, 1)
    [file] = tmp_path.iterdir()
    whole = file.read_bytes()

    def write_some(record):
        writer._file.write(record[:5])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(writer._records, "write", write_some)
    writer.scalars({"loss": 2.0}, 2)
    assert file.read_bytes() == whole and "(No space left on device)" in writer.failed


def test_a_disk_that_is_full_from_the_start_ends_the_curves_too(tmp_path, monkeypatch):
    record_writer = pytest.importorskip("tensorboard.summary.writer.record_writer", reason="no tensorboard")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(record_writer.RecordWriter, "write", full)
    with captured_warnings() as logged:
        writer = TensorBoardWriter(tmp_path, purge_step=1)
        writer.scalars({"loss": 2.0}, 2)
    assert len(logged) == 1 and "No space left on device" in logged[0]


def test_step_values_are_grouped_by_kind():
    assert [step_name(name) for name in ("loss_ce", "loss_ce_unscaled", "lr_backbone", "memory/rss_mb")] == [
        *("step/loss_ce", "step_unscaled/loss_ce", "lr/lr_backbone", "memory/rss_mb")
    ]


def test_an_epoch_gives_train_and_test_values_and_coco_numbers_by_name():
    numbers = [0.4, 0.6, 0.45, -1.0, 0.3, 0.5, 0.35, 0.5, 0.55, -1.0, 0.4, 0.7]
    record = {
        "train_loss": 3.0,
        "train_lr": 1e-4,
        "train_loss_ce_unscaled": 1.0,
        "test_class_error": 20.0,
        "test_coco_eval_bbox": numbers,
        "epoch": 4,
        "n_parameters": 10,
    }
    values = epoch_scalars(record)
    assert values == {
        "train/loss": 3.0,
        "train/lr": 1e-4,
        "train_unscaled/loss_ce": 1.0,
        "test/class_error": 20.0,
        **{f"bbox/{name}": number for name, number in zip(COCO_METRICS.values(), numbers) if number >= 0},
    }
    assert values["bbox/AP50"] == 0.6 and values["bbox/AR_large"] == 0.7 and "bbox/AP_small" not in values


def test_panoptic_quality_has_curves_by_group_and_none_for_what_does_not_occur():
    record = {
        "test_PQ_all": {"pq": 0.5, "sq": 0.8, "rq": 0.6, "n": 4},
        "test_PQ_st": {"pq": -1, "sq": -1, "rq": -1, "n": 0},
    }
    assert epoch_scalars(record) == {"panoptic_all/pq": 0.5, "panoptic_all/sq": 0.8, "panoptic_all/rq": 0.6}
