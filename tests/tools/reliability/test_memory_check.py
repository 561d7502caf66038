"""The memory check counts what processes allocate, detects growth, and runs the real loop."""

from __future__ import annotations

import mmap
import multiprocessing
from pathlib import Path

import pytest
import torch

from tools.reliability import memory_check
from tools.reliability.memory_check import Reading, drift, own_memory, table, take_reading
from util.logging import get_logger

MB = 2**20


@pytest.fixture(autouse=True)
def measurable():
    try:
        own_memory()
    except OSError:
        pytest.skip("only Linux reports what a process shares with others")
    level = get_logger().level
    yield
    get_logger().setLevel(level)


def test_what_a_process_allocates_is_counted():
    before = own_memory()
    with mmap.mmap(-1, 40 * MB) as held:  # fresh pages; a bytearray may be given ones that were freed before
        for _ in range(40):
            held.write(b"x" * MB)
        assert 38 < own_memory() - before < 60


def hold(size, ready, done):
    held = bytearray(b"x" * size)
    ready.set()
    done.wait()
    del held


def test_workers_are_counted_separately_and_shared_memory_once():
    context = multiprocessing.get_context("fork")
    shared = bytearray(b"x" * 60 * MB)
    alone = take_reading(0)
    if alone.workers:
        pytest.skip("loader processes of other tests are still there")
    done = context.Event()
    workers = []
    for _ in range(2):
        ready = context.Event()
        workers.append(context.Process(target=hold, args=(20 * MB, ready, done)))
        workers[-1].start()
        ready.wait()
    try:
        family = take_reading(100)
    finally:
        done.set()
        for worker in workers:
            worker.join()
    assert family.samples == 100
    assert family.main < alone.main - 30  # its pages are split with the workers
    assert 35 < family.total - alone.total < 200  # two times 20, and living; shared pages count once
    del shared


def readings(*totals):
    return [Reading(100 * number, total / 2, total / 2) for number, total in enumerate(totals, start=1)]


def test_drift_compares_the_ends_and_ignores_a_peak():
    assert drift(readings(100, 100, 100, 100, 100, 100, 100, 100)) == 0
    assert drift(readings(100, 101, 102, 103, 104, 105, 106, 107)) == pytest.approx(100 * (106.5 / 100.5 - 1))
    assert drift(readings(*[100] * 9, 300, 100, 100)) == 0


def test_the_table_has_a_line_for_each_reading_and_the_drift():
    lines = table(readings(100, 100, 103, 104)).splitlines()
    assert lines[1].split() == ["100", "50.0", "50.0", "100.0"] and len(lines) == 6
    assert lines[-1].startswith("drift +4.00%") and "between 100.0 and 104.0 MB" in lines[-1]


def run(shapes: Path, *more: str) -> int:
    lengths = ["--samples", "16", "--every", "4", "--warm_up", "4"]
    return memory_check.run(
        ["--coco_path", str(shapes), *lengths, "--batch_size", "2", "--train_sizes", "32", "--no_crop", *more]
    )


def test_freed_memory_is_returned_before_a_reading_by_default(shapes, monkeypatch, capsys):
    order = []
    monkeypatch.setattr(memory_check, "return_freed_memory", lambda: order.append("return"))
    monkeypatch.setattr(memory_check, "take_reading", lambda n: order.append(n) or Reading(n, 1.0, 0.0))
    monkeypatch.setattr(memory_check, "train_one_epoch", lambda model, criterion, loader, *_, **__: list(loader))
    run(shapes, "--num_workers", "0")
    assert order[:4] == ["return", 4, "return", 8]
    order.clear()
    run(shapes, "--num_workers", "0", "--keep_freed")
    assert order[:2] == [4, 8]


def test_every_epoch_runs_to_its_end(shapes, monkeypatch, capsys):
    epochs = []
    monkeypatch.setattr(memory_check, "set_epoch", lambda loader, epoch: epochs.append(epoch))
    monkeypatch.setattr(memory_check, "train_one_epoch", lambda model, criterion, loader, *_, **__: list(loader))
    run(shapes, "--num_workers", "0")
    assert epochs == [0, 1, 2]  # of four batches of two, for 20 samples


def test_it_trains_over_epochs_and_reads_after_the_warm_up(shapes, capsys):
    assert run(shapes, "--num_workers", "1") in (0, 1)  # so short a run says nothing about leaks
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[1:-1]]
    assert [int(row[0]) for row in rows] == [8, 12, 16, 20]
    assert all(float(row[2]) > 1 for row in rows)


@pytest.mark.parametrize("dataset_file", ["coco", "coco_panoptic"])
def test_masks_of_both_kinds_of_data_are_used(shapes, monkeypatch, dataset_file):
    seen = []

    def watch(model, criterion, loader, *rest, **how):
        for samples, targets in loader:
            seen.append((targets, criterion(model(samples), targets)))

    monkeypatch.setattr(memory_check, "train_one_epoch", watch)
    assert run(shapes, "--num_workers", "0", "--masks", "--dataset_file", dataset_file) in (0, 1)
    for targets, losses in seen:
        assert all(target["masks"].dtype == torch.bool for target in targets)
        assert losses["loss_mask"] > 0
    stuff = {label for targets, _ in seen for target in targets for label in target["labels"].tolist()} - {1, 2, 3}
    assert bool(stuff) == (dataset_file == "coco_panoptic")


@pytest.mark.parametrize(("totals", "code"), [((100, 100, 100, 100), 0), ((100, 100, 100, 103), 1)])
def test_growth_fails_the_check_and_a_flat_line_passes(shapes, monkeypatch, totals, code):
    monkeypatch.setattr(memory_check, "measure", lambda *_: readings(*totals))
    assert run(shapes) == code


def test_what_cannot_be_measured_is_an_error_before_any_work(shapes, monkeypatch, capsys):
    def refuse(pid="self"):
        raise FileNotFoundError("/proc/self/smaps_rollup")

    monkeypatch.setattr(memory_check, "own_memory", refuse)
    monkeypatch.setattr(memory_check, "measure", None)
    assert run(shapes) == 1
    assert capsys.readouterr().err == "error: /proc/self/smaps_rollup\n"
    with pytest.raises(SystemExit):
        run(shapes, "--every", "5")
    assert "four times --every" in capsys.readouterr().err
