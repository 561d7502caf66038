"""Meters: windows, averages, what is shown, and their state."""

import copy
import json
import math

import pytest
import torch

from util.meters import MetricLogger, SmoothedValue, accuracy


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


def test_a_meter_weights_values_by_their_samples():
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


def test_an_update_synchronizes_with_an_accelerator_once(monkeypatch):
    fetched = []

    class Remote(torch.Tensor):
        """A CPU tensor that reports another device."""

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


def test_a_value_that_is_not_a_number_is_refused_with_the_meters_name():
    with pytest.raises(TypeError, match="'loss' takes numbers .* got str"):
        MetricLogger().update(loss="low")
    with pytest.raises(ValueError, match=r"'loss' takes single numbers, got a tensor of shape \[2\]"):
        MetricLogger().update(loss=torch.zeros(2))


def test_an_added_meter_is_kept_and_a_missing_one_is_an_attribute_error():
    logger = MetricLogger()
    logger.add_meter("lr", SmoothedValue(window_size=1, fmt="{value:.6f}"))
    logger.update(lr=1e-4)
    assert str(copy.deepcopy(logger)) == "lr: 0.000100"
    with pytest.raises(AttributeError, match="'loss'"):
        _ = logger.loss


def test_only_the_requested_meters_are_shown():
    logger = MetricLogger(shown=["loss", "absent"])
    logger.update(loss=1, noise=2)
    assert str(logger) == "loss: 1.0000 (1.0000)"


def test_watch_only_meters_are_shown_but_are_not_results():
    logger = MetricLogger(shown=["loss"], watch_only=["grad_norm", "absent"])
    logger.update(loss=1, noise=2, grad_norm=3)
    logger.update(loss=2, noise=2, grad_norm=5)
    assert str(logger) == "loss: 1.0000 (1.5000)\tgrad_norm: 3.0000 (4.0000)"
    assert logger.averages() == {"loss": 1.5, "noise": 2.0}
    assert logger.watched() == {"grad_norm": 5.0}


def filled(logger, values):
    logger.add_meter("lr", SmoothedValue(window_size=1, fmt="{value:.6f}"))
    for value in values:
        logger.update(lr=value / 7, loss=value / 3, grad_norm=value * 0.1)
    return logger


def figures(logger):
    names = ("median", "avg", "global_avg", "max", "value")
    return {name: [getattr(meter, figure) for figure in names] for name, meter in logger.meters.items()}


@pytest.mark.parametrize("kept", [lambda state: state, lambda state: json.loads(json.dumps(state))])
def test_meters_continue_exactly_from_their_state(kept):
    values = torch.rand(70, generator=torch.Generator().manual_seed(0), dtype=torch.float64).tolist()
    whole = filled(MetricLogger(watch_only=["grad_norm"]), values)
    half = filled(MetricLogger(watch_only=["grad_norm"]), values[:33])
    restored = MetricLogger(watch_only=["grad_norm"])
    restored.add_meter("lr", SmoothedValue(window_size=1, fmt="{value:.6f}"))
    restored.load_state_dict(kept(half.state_dict()))
    assert figures(restored) == figures(half) and str(restored) == str(half)
    for value in values[33:]:
        restored.update(lr=value / 7, loss=value / 3, grad_norm=value * 0.1)
    assert figures(restored) == figures(whole) and str(restored) == str(whole)
    assert restored.averages() == whole.averages()


def test_a_state_is_a_copy():
    logger = filled(MetricLogger(), [1.0])
    state = logger.state_dict()
    kept = copy.deepcopy(state)
    logger.update(loss=5)
    other = MetricLogger()
    other.load_state_dict(state)
    other.update(loss=6)
    assert state == kept


@pytest.mark.parametrize(
    "state",
    [
        None,
        {},
        {"meters": []},
        {"meters": {}, "progress": {"seconds": "long"}},
        {"meters": {"loss": None}, "progress": {}},
        {"meters": {"loss": {"window": ["high"], "total": 0.0, "count": 0}}, "progress": {}},
        {"meters": {"loss": {"window": [], "total": 0.0}}, "progress": {}},
    ],
)
def test_an_invalid_state_is_refused(state):
    with pytest.raises(ValueError, match="state|progress"):
        MetricLogger().load_state_dict(state)


def test_accuracy_is_a_percentage_within_the_best_k():
    output = torch.tensor([[0.1, 0.7, 0.2], [0.5, 0.3, 0.2], [0.2, 0.3, 0.5], [0.4, 0.35, 0.25]])
    target = torch.tensor([1, 1, 2, 2])
    assert [value.item() for value in accuracy(output, target, topk=[1, 2, 3])] == [50.0, 75.0, 100.0]
    assert [value.item() for value in accuracy(output, target)] == [50.0]


def test_accuracy_of_nothing_is_zero():
    assert [v.item() for v in accuracy(torch.zeros(0, 3), torch.zeros(0, dtype=torch.long), topk=[1, 2])] == [0.0, 0.0]
