"""The first module whose inputs are finite and whose output is not."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from tests.helpers.broken_models import INF, NAN, Explode, batch, detector, spoil
from training.diagnosis.forensics import find_non_finite
from training.diagnosis.module_watch import ModuleWatch, count_non_finite, find_non_finite_tensor
from util.nested_tensor import NestedTensor


class Nested(nn.Module):
    """Passes dictionaries, tuples and NestedTensors between modules; `middle` is the module that a test breaks."""

    def __init__(self, middle: nn.Module | None = None):
        super().__init__()
        self.first, self.middle, self.last = nn.Linear(4, 4), middle or nn.Identity(), Wrap()

    def forward(self, x: Tensor) -> dict[str, list[NestedTensor]]:
        x = self.middle(self.first(x))
        return {"levels": [self.last({"x": (x, "not a number", None)})]}


class Wrap(nn.Module):
    def forward(self, x: dict[str, tuple]) -> NestedTensor:
        return NestedTensor(x["x"][0], None)


class Log(nn.Module):
    """Computes a NaN itself; the module inside only receives it."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner((-1 - x.abs()).log())


def test_a_finite_batch_gives_nothing():
    model, criterion = detector()
    finding = find_non_finite(model, *batch(), criterion)
    assert (finding.kind, finding.name) == ("nothing", "")


@pytest.mark.parametrize(
    ("parameter", "module"),
    [
        ("transformer.encoder.layers.0.linear1.weight", "transformer.encoder.layers.0.linear1 (Linear)"),
        ("transformer.decoder.layers.1.norm3.bias", "transformer.decoder.layers.1.norm3 (LayerNorm)"),
        ("backbone.0.body.layer3.0.conv1.weight", "backbone.0.body.layer3.0.conv1 (Conv2d)"),
        ("class_embed.bias", "class_embed (Linear)"),
        # A part that is not called as a module: the module that uses its weights is named.
        (
            "transformer.encoder.layers.0.self_attn.in_proj_weight",
            "transformer.encoder.layers.0.self_attn (MultiheadAttention)",
        ),
    ],
)
def test_a_broken_weight_is_named_with_its_module(parameter, module):
    model, criterion = detector()
    spoil(model.get_parameter(parameter))
    finding = find_non_finite(model, *batch(), criterion)
    assert (finding.kind, finding.name, finding.parameter) == ("output", module, parameter)
    assert f"its parameter {parameter.rsplit('.', 1)[1]} is not finite either (1 NaN of" in finding.sentence


def test_a_broken_buffer_of_a_frozen_norm_is_named():
    model, _ = detector("--backbone_norm", "frozen_bn")
    spoil(model.get_buffer("backbone.0.body.layer2.0.bn1.running_var"), INF)
    finding = find_non_finite(model, batch()[0])
    # An infinite variance silences the channel and leaves everything finite; a NaN does not.
    assert finding.kind == "nothing"
    spoil(model.get_buffer("backbone.0.body.layer2.0.bn1.running_var"))
    finding = find_non_finite(model, batch()[0])
    assert finding.name == "backbone.0.body.layer2.0.bn1 (FrozenBatchNorm2d)"
    assert (
        finding.parameter == "backbone.0.body.layer2.0.bn1.running_var" and "its buffer running_var" in finding.sentence
    )


def test_a_module_that_overflows_is_named_though_all_weights_are_finite():
    model, criterion = detector()
    layer = model.transformer.encoder.layers[0]
    layer.linear2 = nn.Sequential(layer.linear2, Explode())
    finding = find_non_finite(model, *batch(), criterion)
    assert (finding.name, finding.parameter) == ("transformer.encoder.layers.0.linear2.1 (Explode)", "")
    assert "infinite of" in finding.sentence and "NaN" not in finding.sentence
    assert "before it calls" not in finding.sentence, "it has no modules inside"


def test_the_innermost_module_in_any_container_is_named():
    assert find_non_finite(Nested(Explode()), torch.ones(2, 4)).name == "middle (Explode)"


def test_arithmetic_between_modules_is_attributed_to_the_outer_module():
    finding = find_non_finite(Nested(Log()), torch.ones(2, 4))
    assert (
        finding.name == "middle (Log)"
        and "computed by the module itself, before it calls middle.inner" in finding.sentence
    )


def test_arithmetic_of_the_model_itself_is_attributed_to_it():
    class Bare(Nested):
        def forward(self, x):
            return super().forward(x / 0)

    finding = find_non_finite(Bare(), torch.ones(2, 4))
    assert finding.name == "the model (Bare)" and "before it calls first" in finding.sentence


def test_an_in_place_module_is_seen_though_it_overwrites_its_input():
    class InPlace(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.mul_(INF)

    assert find_non_finite(Nested(InPlace()), torch.ones(2, 4)).name == "middle (InPlace)"


def test_a_model_that_fails_after_the_culprit_is_still_explained():
    class Refuse(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise ValueError("I refuse")

    assert find_non_finite(nn.Sequential(Explode(), Refuse()), torch.ones(2, 4)).name == "0 (Explode)"
    with pytest.raises(ValueError, match="I refuse"):
        find_non_finite(nn.Sequential(Refuse()), torch.ones(2, 4))


def test_infinities_that_do_not_reach_the_outputs_are_ignored():
    class Mask(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.full_like(x, -INF)

    class Masked(nn.Module):
        def __init__(self):
            super().__init__()
            self.mask = Mask()

        def forward(self, x: Tensor) -> Tensor:
            return self.mask(x).exp() + x

    assert find_non_finite(Masked(), torch.ones(2, 4)).kind == "nothing"


def test_a_wrapped_model_has_the_names_of_the_one_inside():
    model, criterion = detector()
    spoil(model.input_proj.bias)
    for wrapped in (nn.DataParallel(model), torch.compile(model, backend="eager")):
        assert find_non_finite(wrapped, *batch(), criterion).name == "input_proj (Conv2d)"


@pytest.mark.parametrize(
    "wrap",
    [
        lambda x: x,
        lambda x: [x],
        lambda x: (torch.ones(1), {"deep": [x]}),
        lambda x: NestedTensor(x, torch.zeros(1, dtype=torch.bool)),
        lambda x: {"levels": [NestedTensor(x, None)]},
        lambda x: [None, "text", 7, torch.ones(1, dtype=torch.int64), x.half()],
    ],
)
def test_tensors_are_found_in_every_container(wrap):
    bad = torch.tensor([1.0, NAN, INF])
    assert find_non_finite_tensor(wrap(torch.ones(3))) is None
    assert count_non_finite(find_non_finite_tensor(wrap(bad))) == "1 NaN, 1 infinite of 3 values"


def test_modules_are_listed_as_their_calls_end_and_hooks_are_removed_afterwards():
    model = Nested(Log())
    with ModuleWatch(model) as watch:
        model(torch.ones(2, 4))
    once = ["first", "middle.inner", "middle", "last", ""]
    assert watch.order == once
    model(torch.ones(2, 4))
    assert watch.order == once


def test_the_size_of_finite_inputs_is_reported():
    model = nn.Sequential(Explode())
    with ModuleWatch(model) as watch:
        model(torch.tensor([-300.0, 2.0]))
    assert watch.culprit == "0 (Explode)" and "(up to 300)" in watch.sentence
    assert watch.parameter == ""
