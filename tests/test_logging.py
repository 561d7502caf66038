"""Meters, progress lines, the logger and the log file."""

import copy
import io
import json
import math
import subprocess
from types import SimpleNamespace

import pytest
import torch

from util import logging as util_logging
from util.logging import MetricLogger, SmoothedValue, accuracy, append_json_line, get_logger, get_sha


class Clock:
    """Time that passes only when told to."""

    def __init__(self):
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(util_logging, "time", clock)
    return clock


def batches(clock, count, images=4, wait=0.5):
    for _ in range(count):
        clock.now += wait
        yield SimpleNamespace(tensors=torch.zeros(images, 3, 2, 2)), ()


class Sized:
    """An iterable that knows its length, as a loader does."""

    def __init__(self, items, length):
        self.items, self.length = items, length

    def __len__(self):
        return self.length

    def __iter__(self):
        return iter(self.items)


def meter_of(*values, **options):
    meter = SmoothedValue(**options)
    for value in values:
        meter.update(value)
    return meter


def test_a_meter_shows_its_window_and_its_whole_past():
    meter = meter_of(100.0, 4.0, 1.0, 3.0, 2.0, window_size=4)
    assert meter.median == 2.0  # the lower of the middle two, as torch.median
    assert meter.median == torch.tensor([4.0, 1.0, 3.0, 2.0]).median()
    assert (meter.avg, meter.max, meter.value, meter.global_avg) == (2.5, 4.0, 2.0, 22.0)


def test_a_meter_weighs_values_by_the_samples_they_stand_for():
    meter = SmoothedValue()
    meter.update(1.0, n=3)
    meter.update(5.0)
    assert (meter.count, meter.total, meter.global_avg) == (4, 8.0, 2.0)


def test_meters_have_the_published_format():
    assert str(meter_of(1.0, 2.0, 6.0)) == "2.0000 (3.0000)"
    assert str(meter_of(1.0, 2.0, fmt="{value:.1f} {avg:.2f} {max:.0f}")) == "2.0 1.50 2"


def test_a_meter_without_values_is_nan_and_still_prints():
    assert all(math.isnan(getattr(SmoothedValue(), name)) for name in ("median", "avg", "global_avg", "max", "value"))
    assert str(SmoothedValue()) == "nan (nan)"


def test_a_nan_in_the_window_shows_in_the_median():
    assert math.isnan(meter_of(1.0, math.nan, 2.0).median)


def test_meters_are_made_on_demand_from_numbers_and_tensors():
    logger = MetricLogger()
    logger.update(loss=torch.tensor(1.5, requires_grad=True), count=3, error=torch.tensor([2.0], dtype=torch.float64))
    assert (logger.loss.value, logger.count.value, logger.meters["error"].value) == (1.5, 3.0, 2.0)
    assert all(type(meter.value) is float for meter in logger.meters.values())
    assert str(logger) == "loss: 1.5000 (1.5000)\tcount: 3.0000 (3.0000)\terror: 2.0000 (2.0000)"


def test_an_accelerator_is_waited_for_once_an_update(monkeypatch):
    fetched = []

    class Remote(torch.Tensor):
        """A CPU tensor that claims to live elsewhere."""

        device = torch.device("cuda", 0)

        @classmethod
        def __torch_function__(cls, function, types, args=(), kwargs=None):
            if function in (torch.Tensor.tolist, torch.Tensor.item, torch.Tensor.__float__):
                fetched.append(function)
            return super().__torch_function__(function, types, args, kwargs or {})

    logger = MetricLogger()
    logger.update(a=torch.tensor(1.0).as_subclass(Remote), lr=0.5, b=torch.tensor(2.0).as_subclass(Remote))
    assert {name: meter.value for name, meter in logger.meters.items()} == {"a": 1.0, "lr": 0.5, "b": 2.0}
    assert len(fetched) == 1


def test_what_is_no_number_is_refused_by_the_name_of_its_meter():
    with pytest.raises(TypeError, match="'loss' takes numbers .* not str"):
        MetricLogger().update(loss="low")
    with pytest.raises(ValueError, match=r"'loss' takes single numbers, but was given a tensor \[2\]"):
        MetricLogger().update(loss=torch.zeros(2))


def test_a_meter_of_ones_own_is_kept_and_a_missing_one_is_an_attribute_error():
    logger = MetricLogger()
    logger.add_meter("lr", SmoothedValue(window_size=1, fmt="{value:.6f}"))
    logger.update(lr=1e-4)
    assert str(copy.deepcopy(logger)) == "lr: 0.000100"
    with pytest.raises(AttributeError, match="'loss'"):
        _ = logger.loss


def test_only_the_meters_asked_for_are_shown():
    logger = MetricLogger(shown=["loss", "absent"])
    logger.update(loss=1, noise=2)
    assert str(logger) == "loss: 1.0000 (1.0000)"


def run(clock, logger, count, print_freq, length=True):
    items = batches(clock, count)
    for number, _ in enumerate(logger.log_every(Sized(items, count) if length else items, print_freq, "Epoch: [0]")):
        clock.now += 1.5
        logger.update(loss=float(number))


def test_plain_lines_come_every_print_freq_batches_and_at_the_end(clock, capsys):
    run(clock, MetricLogger(delimiter="  "), 12, 5)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[1] for line in lines[:-1]] == ["[ 0/12]", "[ 5/12]", "[10/12]", "[11/12]"]
    assert lines[1] == (
        "Epoch: [0]  [ 5/12]  eta: 0:00:12  images/s: 2.0  loss: 2.0000 (2.5000)  time: 2.0000  data: 0.5000"
    )
    assert lines[-1] == "Epoch: [0] Total time: 0:00:24 (2.0000 s / it, 2.0 images/s)"


def test_a_loader_without_a_length_is_reported_without_an_eta(clock, capsys):
    run(clock, MetricLogger(delimiter="  "), 3, 2, length=False)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[1] for line in lines[:-1]] == ["[0]", "[2]"]
    assert "eta" not in lines[0]


def test_batches_that_are_not_images_are_timed_all_the_same(clock, capsys):
    assert list(MetricLogger().log_every(["a", "b"], 1)) == ["a", "b"]
    assert "images/s" not in capsys.readouterr().out


def test_an_empty_loader_passes_without_batches(clock, capsys):
    assert list(MetricLogger().log_every([], 10, "Test:")) == []
    assert capsys.readouterr().out == "Test: Total time: 0:00:00 (0.0000 s / it)\n"


def test_print_freq_must_be_positive():
    with pytest.raises(ValueError, match="print_freq is 0"):
        list(MetricLogger().log_every([1], 0))


def test_a_terminal_gets_a_bar_with_the_same_facts(clock, monkeypatch):
    screen = io.StringIO()
    screen.isatty = lambda: True
    monkeypatch.setattr("sys.stdout", screen)
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.setenv("LINES", "50")
    logger = MetricLogger()
    for number, _ in enumerate(logger.log_every(Sized(batches(clock, 3), 3), 1, "Epoch: [0]")):
        clock.now += 1.5
        logger.update(loss=7.0)
        if number == 0:
            get_logger().info("a message between two steps")
    drawn = screen.getvalue().replace("\n", "\r").split("\r")
    last = [line for line in drawn if line.startswith("Epoch: [0] 100%")][-1]
    for fact in ("3/3", "images/s: 2.0", "loss: 7.0000 (7.0000)", "time: 2.0000", "data: 0.5000"):
        assert fact in last
    assert drawn.count("a message between two steps") == 1
    assert "Epoch: [0] Total time: 0:00:06 (2.0000 s / it, 2.0 images/s)" in drawn


def test_the_logger_prints_bare_messages_once_to_the_current_stdout(capsys):
    get_logger()
    get_logger().info("hello")
    get_logger().debug("whisper")
    assert capsys.readouterr().out == "hello\n"


def test_other_ranks_print_warnings_only(capsys, monkeypatch):
    monkeypatch.setattr(util_logging, "is_main_process", lambda: False)
    get_logger().info("news")
    get_logger().warning("trouble")
    list(MetricLogger().log_every([1], 1))
    assert capsys.readouterr().out == "trouble\n"


def test_accuracy_is_per_cent_within_the_best_k():
    output = torch.tensor([[0.1, 0.7, 0.2], [0.5, 0.3, 0.2], [0.2, 0.3, 0.5], [0.4, 0.35, 0.25]])
    target = torch.tensor([1, 1, 2, 2])
    assert [value.item() for value in accuracy(output, target, topk=[1, 2, 3])] == [50.0, 75.0, 100.0]
    assert [value.item() for value in accuracy(output, target)] == [50.0]


def test_accuracy_of_nothing_is_zero():
    assert [v.item() for v in accuracy(torch.zeros(0, 3), torch.zeros(0, dtype=torch.long), topk=[1, 2])] == [0.0, 0.0]


def test_get_sha_describes_the_checkout_or_says_that_it_cannot(monkeypatch):
    answers = {
        "rev-parse HEAD": "0123abcd\n",
        "diff-index HEAD": ":100644 util/a.py\n",
        "rev-parse --abbrev-ref HEAD": "x\n",
    }

    def git(command, **_):
        return SimpleNamespace(stdout=answers[" ".join(command[1:])])

    monkeypatch.setattr(subprocess, "run", git)
    assert get_sha() == "sha: 0123abcd, status: has uncommitted changes, branch: x"
    answers["diff-index HEAD"] = ""
    assert get_sha() == "sha: 0123abcd, status: clean, branch: x"

    def no_git(*_, **__):
        raise FileNotFoundError("git")

    monkeypatch.setattr(subprocess, "run", no_git)
    assert get_sha() == "sha: N/A, status: N/A, branch: N/A"


def test_log_lines_are_appended_as_plain_json(tmp_path):
    log = tmp_path / "log.txt"
    append_json_line(log, {"epoch": 0, "test_coco_eval_bbox": torch.tensor([0.5, 0.25]), "folder": tmp_path})
    append_json_line(log, {"epoch": 1})
    first, second = map(json.loads, log.read_text().splitlines())
    assert first == {"epoch": 0, "test_coco_eval_bbox": [0.5, 0.25], "folder": str(tmp_path)}
    assert second == {"epoch": 1}


def test_a_line_cut_off_by_an_interruption_does_not_swallow_the_next(tmp_path):
    log = tmp_path / "log.txt"
    log.write_text('{"epoch": 0}\n{"epo')
    append_json_line(log, {"epoch": 1})
    assert log.read_text() == '{"epoch": 0}\n{"epo\n{"epoch": 1}\n'
