"""Recomputed activations: the same losses, gradients and random numbers, and fewer tensors kept."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from models import build_model
from models.backbone import Backbone
from models.fast.recompute import recompute_activations
from models.transformer import Transformer
from tests.helpers.runs import parse
from tests.models.test_torchscript import assert_same_outputs, script
from util.nested_tensor import NestedTensor, nested_tensor_from_tensor_list
from util.rng import seed_everything

LAYERS = ["--enc_layers", "2", "--dec_layers", "2", "--dropout", "0.2"]
KINDS = {
    "post-norm": [],
    "pre-norm": ["--pre_norm"],
    "DC5": ["--dilation"],
    "masks": ["--masks", "--hidden_dim", "128", "--nheads", "8"],
    "masks on a frozen detector": ["--masks", "--hidden_dim", "128", "--nheads", "8", "--frozen_weights", "a file"],
    "batch norms": ["--backbone_norm", "bn"],
    "frozen norms": ["--backbone", "resnet18", "--backbone_norm", "frozen_bn", "--trainable_layers", "3"],
    "frozen backbone": ["--backbone", "resnet18", "--backbone_norm", "frozen_bn", "--lr_backbone", "0"],
}


def made_model(*flags: str) -> nn.Module:
    """In training mode, in float64."""
    seed_everything(0)
    return build_model(parse("", "--num_classes", "5", *LAYERS, *flags))[0].double().train()


def batch() -> NestedTensor:
    generator = torch.Generator().manual_seed(1)
    sizes = [(70, 90), (80, 50)]
    return nested_tensor_from_tensor_list([torch.rand(3, *size, generator=generator).double() for size in sizes])


def bytes_kept(module: nn.Module, *inputs: object) -> tuple[object, int]:
    """The module's outputs, and the bytes that it keeps for its backward pass besides its parameters and buffers."""
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        outputs = module(*inputs)
    own = {tensor.untyped_storage().data_ptr() for tensor in [*module.parameters(), *module.buffers()]}
    return outputs, sum(size for storage, size in kept.items() if storage not in own)


def step(model: nn.Module) -> tuple[list[Tensor], list[Tensor | None], Tensor]:
    """Outputs, gradients and the next random number of one training step."""
    seed_everything(3)
    outputs = model(batch())
    values = [outputs["pred_logits"], outputs["pred_boxes"], *(o["pred_boxes"] for o in outputs["aux_outputs"])]
    values += [outputs["pred_masks"]] if "pred_masks" in outputs else []
    sum(value.square().sum() for value in values).backward()
    buffers = [buffer.double() for buffer in model.buffers()]  # statistics of batch norms
    return values + buffers, [parameter.grad for parameter in model.parameters()], torch.rand(())


@pytest.mark.parametrize("flags", KINDS.values(), ids=KINDS)
def test_outputs_gradients_and_random_numbers_are_those_of_the_plain_form(flags):
    plain = step(made_model(*flags))
    recomputed = step(made_model("--checkpoint_activations", *flags))
    for one, other in zip(recomputed[0] + recomputed[1], plain[0] + plain[1], strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-14)
    assert torch.equal(recomputed[2], plain[2])


@pytest.fixture
def process_group(tmp_path):
    dist.init_process_group("gloo", f"file://{tmp_path}/meeting_point", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def test_a_model_that_all_processes_run_gets_the_same_gradients(process_group):
    plain = step(made_model())
    model = made_model("--checkpoint_activations")
    recomputed = step(DistributedDataParallel(model))
    for one, other in zip(recomputed[1], plain[1], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-14)


def test_the_transformer_keeps_only_what_enters_its_layers():
    transformer = Transformer(32, 2, 2, 2, 64, return_intermediate_dec=True).train()
    inputs = (
        torch.rand(1, 32, 6, 6),
        torch.zeros(1, 6, 6, dtype=torch.bool),
        torch.rand(4, 32),
        torch.rand(1, 32, 6, 6),
    )
    plain = bytes_kept(transformer, *inputs)[1]
    recompute_activations(transformer)
    assert bytes_kept(transformer, *inputs)[1] < 0.1 * plain
    recompute_activations(transformer, False)
    assert bytes_kept(transformer, *inputs)[1] == plain


@pytest.mark.parametrize("norm", ["frozen_bn", "bn", "gn"])
def test_the_backbone_keeps_little(norm):
    body = Backbone("resnet50", True, False, False, norm=norm, trainable_layers=4).body.train()
    image = torch.rand(1, 3, 64, 64)
    plain = bytes_kept(body, image)[1]
    recompute_activations(body)
    assert bytes_kept(body, image)[1] < 0.45 * plain


def test_nothing_is_recomputed_without_gradients():
    model = made_model("--checkpoint_activations").eval()
    calls = []
    for layer in model.transformer.encoder.layers:
        layer.register_forward_hook(lambda *_: calls.append(None))
    with torch.no_grad():
        model(batch())
    assert len(calls) == 2


def test_a_model_that_recomputes_scripts():
    model = made_model("--checkpoint_activations", "--no_aux_loss").float().eval()
    inputs = NestedTensor(batch().tensors.float(), batch().mask)
    assert_same_outputs(model, script(model), inputs)
