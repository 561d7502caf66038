"""The number types of a forward: what autocast changes, the scale of the loss, and what a device is refused."""

from __future__ import annotations

import math
import types
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from util.compute.precision import MAX_SKIPPED, Precision, check_precision

CPU = torch.device("cpu")


def step(precision: Precision, size: float = 1 / 16) -> tuple[bool, torch.nn.Linear]:
    """One step of a layer with the gradient [0.5, 2] times `size`: (accepted, the layer)."""
    layer = torch.nn.Linear(2, 1)
    optimizer = torch.optim.SGD(layer.parameters(), lr=1)
    with precision.autocast():
        output = layer(torch.tensor([[0.5, 2.0]]))
    loss = output.float().sum() * size
    precision.scale(loss).backward()
    precision.unscale(optimizer)
    norm = torch.nn.utils.get_total_norm([p.grad for p in layer.parameters()])
    return precision.accepts(1.0, norm.item()), layer


@pytest.mark.parametrize(
    ("amp", "expected"), [("none", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)]
)
def test_a_forward_runs_in_its_type_and_weights_stay_float32(amp, expected):
    layer = torch.nn.Linear(2, 1)
    with Precision(amp).autocast():
        output = layer(torch.ones(1, 2))
    output.float().sum().backward()
    assert output.dtype == expected
    assert layer.weight.dtype == layer.weight.grad.dtype == torch.float32


@pytest.mark.parametrize("amp", ["none", "bf16", "fp16"])
def test_the_gradients_of_a_step_are_those_of_the_loss_itself(amp):
    accepted, layer = step(Precision(amp))
    assert accepted and layer.weight.grad.tolist() == [[0.5 / 16, 2.0 / 16]]


def test_gradients_too_small_for_float16_survive():
    _, layer = step(Precision("fp16"), 2.0**-26)  # float16 rounds it to 0
    assert layer.weight.grad.tolist() == [[0.5 * 2.0**-26, 2.0 * 2.0**-26]]


def test_an_overflow_skips_the_step_and_halves_the_scale(capsys):
    precision = Precision("fp16")
    assert not step(precision, math.inf)[0]
    assert precision.state_dict()["scale"] == 2.0**15
    assert "this step is skipped" in capsys.readouterr().out
    assert step(precision)[0] and precision.state_dict()["skipped"] == 0


def test_an_accepted_step_waits_for_the_device_no_more_than_in_float32():
    def waits(amp: str) -> int:
        precision = Precision(amp)
        step(precision)
        with Waits() as seen:
            step(precision)
        return seen.count

    assert waits("fp16") == waits("bf16") == waits("none") == 1  # the caller's own


class Waits(TorchDispatchMode):
    """Counts the operators that return a number to the host."""

    count = 0

    def __torch_dispatch__(self, operator: Any, classes: Any, given: Any = (), named: Any = None) -> Any:
        self.count += operator in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.is_nonzero.default)
        return operator(*given, **(named or {}))


def test_overflows_without_end_are_an_error():
    precision = Precision("fp16")
    for _ in range(MAX_SKIPPED):
        assert not step(precision, math.inf)[0]
    sentence = rf"norm inf in {MAX_SKIPPED + 1} steps in a row, with the loss scaled by 7\.6\d*e-06"
    with pytest.raises(FloatingPointError, match=sentence):
        step(precision, math.inf)


@pytest.mark.parametrize("amp", ["none", "bf16", "fp16"])
def test_a_loss_that_is_not_finite_is_an_error_in_every_type(amp):
    with pytest.raises(FloatingPointError, match="the loss is nan, the gradient's norm 1.0"):
        Precision(amp).accepts(math.nan, 1.0)


@pytest.mark.parametrize("amp", ["none", "bf16"])
def test_a_gradient_that_is_not_finite_is_an_error_where_no_scale_can_help(amp):
    with pytest.raises(FloatingPointError, match="the loss is 1.0, the gradient's norm inf"):
        step(Precision(amp), math.inf)


def test_the_scale_goes_on_where_it_was():
    precision, resumed = Precision("fp16"), Precision("fp16")
    step(precision, math.inf)
    step(precision)
    step(precision, math.inf)
    resumed.load_state_dict(precision.state_dict())
    for each in (precision, resumed):
        step(each)
        step(each, math.inf)
    assert resumed.state_dict() == precision.state_dict()
    assert resumed.state_dict()["scale"] == 2.0**13


def test_a_type_without_a_scale_has_no_state():
    assert Precision("bf16").state_dict() is None
    precision = Precision("fp16")
    precision.load_state_dict(None)  # of a run in another type
    assert precision.state_dict()["scale"] == 2.0**16


@pytest.mark.parametrize(
    "damage", [{"scale": 0.0}, {"scale": math.nan}, {"scale": "much"}, {"_growth_tracker": -1}, {"growth_factor": None}]
)
def test_a_scale_that_cannot_be_is_refused_by_name(damage):
    (name,) = damage
    state = step(precision := Precision("fp16")) and precision.state_dict()
    with pytest.raises(ValueError, match=f"^{name} of the loss's scale is"):
        Precision("fp16").load_state_dict(state | damage)


def processor(monkeypatch: pytest.MonkeyPatch, **features: bool) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: types.MappingProxyType(features), raising=False)


def test_emulated_bfloat16_is_warned_of_with_its_price(monkeypatch, capsys):
    processor(monkeypatch, avx2=True, avx512_bf16=False)
    check_precision("bf16", CPU)
    said = capsys.readouterr().out
    assert "about 5 times slower than float32 (18 against 119 GFLOP/s on an AVX2 processor)" in said
    assert said.count("\n") == 1


@pytest.mark.parametrize("feature", ["avx512_bf16", "amx_bf16", "bf16"])
def test_bfloat16_of_the_processor_is_not_warned_of(monkeypatch, capsys, feature):
    processor(monkeypatch, **{feature: True})
    check_precision("bf16", CPU)
    assert capsys.readouterr().out == ""


def test_an_earlier_torch_asks_the_system(monkeypatch, tmp_path, capsys):
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    monkeypatch.setattr("util.compute.precision.CPU_INFO", tmp_path / "cpuinfo")
    check_precision("bf16", CPU)
    assert "emulated" in capsys.readouterr().out
    (tmp_path / "cpuinfo").write_text("model name\t: one\nflags\t\t: fpu avx512_bf16 avx512_fp16 lahf_lm\n")
    check_precision("bf16", CPU)
    check_precision("fp16", CPU)
    assert capsys.readouterr().out == ""


def test_float16_is_refused_where_the_processor_has_none(monkeypatch):
    processor(monkeypatch, avx2=True, avx512_bf16=True)
    with pytest.raises(ValueError, match="--amp fp16: this processor has no float16 arithmetic: pass --amp none"):
        check_precision("fp16", CPU)
    processor(monkeypatch, avx512_fp16=True)
    check_precision("fp16", CPU)


def test_a_device_without_mixed_precision_is_refused():
    with pytest.raises(ValueError, match="--amp bf16: torch has no mixed precision for meta: pass --amp none"):
        check_precision("bf16", torch.device("meta"))


def test_float32_asks_nothing_of_a_device(monkeypatch, capsys):
    processor(monkeypatch)
    check_precision("none", torch.device("meta"))
    assert capsys.readouterr().out == ""
