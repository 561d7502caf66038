"""Masks that are computed when they are read: equal to those of a forward pass that computes all, and no more work."""

import copy
import pickle
from collections.abc import Sequence

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from models.fast.masks_on_demand import MasksOnDemand, masks_of
from models.panoptic import PostProcessPanoptic
from models.segmentation import DETRsegm
from tests.helpers.golden_cases import weighted_sum
from tests.helpers.golden_rules import targets
from tests.models.test_segmentation import SIZES, build, images
from training.diagnosis.forensics import find_non_finite
from util.compute import compilation
from util.nested_tensor import nested_tensor_from_tensor_list


@pytest.fixture
def model() -> DETRsegm:
    return build()[0].train()


def at_once(model: DETRsegm) -> dict[str, Tensor]:
    """Outputs of the published way, which computes all masks in the forward pass."""
    model.defer_masks = False
    outputs = model(images())
    model.defer_masks = True
    assert not isinstance(outputs, MasksOnDemand)
    return outputs


def decoded(model: DETRsegm) -> list[int]:
    """Filled with the number of masks of each call of the mask head's layers."""
    calls: list[int] = []
    model.mask_head.lay2.register_forward_pre_hook(lambda module, args: calls.append(len(args[0])))
    return calls


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5 * expected.abs().max().item())


# --- The outputs ------------------------------------------------------------------------------------------------------


def test_no_mask_is_computed_before_it_is_read(model):
    calls = decoded(model)
    outputs = model(images())
    assert outputs["pred_logits"].shape == (2, 7, 6) and "pred_masks" in outputs and outputs.get("nothing") is None
    assert calls == []
    close(outputs["pred_masks"], at_once(model)["pred_masks"])
    count = len(calls)
    assert outputs["pred_masks"] is outputs["pred_masks"] and len(calls) == count, "computed once"


@pytest.mark.parametrize(
    "read",
    [
        lambda outputs: dict(outputs),
        lambda outputs: {**outputs},
        lambda outputs: outputs | {},
        lambda outputs: {} | outputs,
        lambda outputs: outputs.copy(),
        lambda outputs: dict(outputs.items()),
        lambda outputs: {"pred_masks": list(outputs.values())[-1]},
        lambda outputs: {name: outputs.get(name) for name in outputs.keys()},  # noqa: SIM118  the method is tested
        lambda outputs: {"pred_masks": outputs.pop("pred_masks")},
        lambda outputs: {"pred_masks": outputs.get("pred_masks")},
    ],
)
def test_whoever_asks_gets_all_masks(model, read):
    with torch.no_grad():
        found = read(model(images()))
        close(found["pred_masks"], at_once(model)["pred_masks"])


@pytest.mark.parametrize("clone", [copy.copy, copy.deepcopy, lambda outputs: pickle.loads(pickle.dumps(outputs))])
def test_copies_are_plain_outputs(model, clone):
    with torch.no_grad():
        outputs = model(images())
        copied = clone(outputs)
    assert type(copied) is dict and list(copied) == list(outputs) and len(outputs) == 4
    assert torch.equal(copied["pred_masks"], outputs["pred_masks"])


def test_an_unknown_output_is_missing(model):
    with pytest.raises(KeyError, match="pred_mask$|'pred_mask'"):
        model(images())["pred_mask"]


@pytest.mark.parametrize("read_before", [False, True])
def test_masks_of_some_queries(model, read_before):
    queries = [torch.tensor([6, 0]), torch.tensor([3])]
    with torch.no_grad():
        outputs, plain = model(images()), at_once(model)
        if read_before:
            outputs["pred_masks"]
        expected = torch.stack([plain["pred_masks"][0, 6], plain["pred_masks"][0, 0], plain["pred_masks"][1, 3]])
        close(masks_of(outputs, queries), expected)
        assert torch.equal(masks_of(plain, queries), expected)
        nothing = [torch.zeros(0, dtype=torch.int64)] * 2
        assert masks_of(outputs, nothing).shape == masks_of(plain, nothing).shape == (0, 20, 24)


def test_evaluation_computes_masks_at_once_and_on_demand_when_asked(model):
    model.eval()
    with torch.no_grad():
        found, plain = model.on_demand(images()), model(images())
        assert isinstance(found, MasksOnDemand) and not isinstance(plain, MasksOnDemand)
        close(found["pred_masks"], plain["pred_masks"])
        one = model.on_demand(torch.stack([images()[0]]))
        assert one["pred_masks"].shape == (1, 7, 16, 24)


def test_masks_keep_the_autocast_and_the_gradient_mode_of_the_forward_pass(model):
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        outputs = model(images())
    assert outputs["pred_masks"].dtype == torch.bfloat16 and not outputs["pred_masks"].requires_grad
    outputs = model(images())
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        assert outputs["pred_masks"].dtype == torch.float32 and outputs["pred_masks"].requires_grad


def test_the_masks_of_a_compiled_model_are_on_demand_too(model, monkeypatch):
    """The detector is compiled, once for all sizes."""
    graphs: list[torch.fx.GraphModule] = []

    def backend(graph: torch.fx.GraphModule, _: list[Tensor]) -> torch.fx.GraphModule:
        graphs.append(graph)
        return graph

    monkeypatch.setattr(compilation, "BACKEND", backend)
    compiled = compilation.compiled(model, True)
    for size in [(64, 96), (80, 64), (71, 93)]:
        batch = nested_tensor_from_tensor_list([torch.rand(3, *size), torch.rand(3, *size)])
        outputs = compiled(batch)
        assert isinstance(outputs, MasksOnDemand) and len(graphs) == 1
        close(outputs["pred_masks"], model(batch)["pred_masks"])


def test_an_export_sees_a_plain_forward_pass(model, monkeypatch):
    monkeypatch.setattr(torch.compiler, "is_exporting", lambda: True)
    outputs = model(images())
    assert type(outputs) is dict and "pred_masks" in outputs


def test_a_panoptic_map_computes_the_masks_that_enter_it():
    model = build("--dataset_file coco_panoptic")[0].double()
    samples = [image.double() for image in images()]  # so that rounding decides no pixel
    with torch.no_grad():
        plain = model(samples)
        scores = plain["pred_logits"].softmax(-1).max(-1).values.flatten()
        postprocess = PostProcessPanoptic({label: label < 3 for label in range(6)}, scores.median().item())
        kept = postprocess.kept(plain["pred_logits"])[1].sum(1).tolist()
        assert 0 < sum(kept) < 14
        calls = decoded(model)
        found = postprocess(model.on_demand(samples), SIZES)
    assert calls == [count for count in kept if count]
    assert found == postprocess(plain, SIZES)


# --- Training ---------------------------------------------------------------------------------------------------------


def gradients(model: DETRsegm, criterion: nn.Module, objects: Sequence[int]) -> tuple[dict[str, Tensor], list[Tensor]]:
    model.zero_grad()
    samples = [image.double() for image in images()]
    truth = targets("on_demand", list(objects), 5, SIZES)
    truth = [target | {"boxes": target["boxes"].double()} for target in truth]
    losses = criterion(model(samples), truth)
    weighted_sum(losses, criterion.weight_dict).backward()
    return losses, [parameter.grad for parameter in model.parameters()]


@pytest.mark.parametrize("objects", [(2, 3), (0, 4), (0, 0)])
def test_losses_and_gradients_equal_those_of_all_masks(objects):
    model, criterion = build()
    model.double().train()
    losses, found = gradients(model, criterion, objects)
    model.defer_masks = False
    expected_losses, expected = gradients(model, criterion, objects)
    for name, value in expected_losses.items():
        torch.testing.assert_close(losses[name], value, rtol=1e-12, atol=1e-12)
    for (name, _), ours, theirs in zip(model.named_parameters(), found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12, msg=name)


def test_the_loss_computes_the_masks_of_matched_queries_only():
    model, criterion = build()
    calls = decoded(model.train())
    criterion(model(images()), targets("few", [2, 3], 5, SIZES))
    assert calls == [2, 3]
    calls.clear()
    criterion(model(images()), targets("few", [0, 3], 5, SIZES))
    assert calls == [3]


@pytest.fixture
def group(tmp_path):
    """A process group of this process alone."""
    dist.init_process_group("gloo", f"file://{tmp_path}/meeting_point", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.parametrize("find_unused_parameters", [False, True])
def test_distributed_training_reduces_every_gradient(group, find_unused_parameters):
    """Its reducer refuses the next forward pass if a gradient of the step before did not arrive, or arrived twice."""
    model, criterion = build()
    model.double().train()
    wrapped = DistributedDataParallel(model, find_unused_parameters=find_unused_parameters)
    for objects in [(2, 3), (0, 0), (1, 0)]:
        _, found = gradients(wrapped, criterion, objects)
        found = [gradient.clone() for gradient in found]
        _, expected = gradients(copy.deepcopy(model), criterion, objects)
        for ours, theirs in zip(found, expected, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_the_diagnosis_of_a_training_step_looks_into_the_mask_head(model):
    with torch.no_grad():
        model.mask_head.lay4.weight[0, 0, 0, 0] = torch.nan
    finding = find_non_finite(model, nested_tensor_from_tensor_list(images()))
    assert (finding.kind, finding.parameter) == ("output", "mask_head.lay4.weight")
