"""TorchScript of the encodings, the backbone, the detector, and a wrapper that takes a list of images."""

import io
import warnings

import pytest
import torch
from torch import Tensor, nn

from models import build_model
from models.backbone import NORM_LAYERS, Backbone
from models.detr import DETR
from models.position_encoding import PositionEmbeddingLearned, PositionEmbeddingSine
from tests.helpers.runs import parse
from util.nested_tensor import NestedTensor, nested_tensor_from_tensor_list
from util.rng import seed_everything


class TakesList(nn.Module):
    """A typical wrapper for deployment, which takes images of different sizes."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, images: list[Tensor]) -> dict[str, Tensor]:
        return self.model(nested_tensor_from_tensor_list(images))


def detector(*flags: str) -> DETR:
    seed_everything(0)
    return build_model(parse("", "--no_aux_loss", "--num_classes", "5", *flags))[0].eval()


def images() -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.rand(3, 60, 90, generator=generator), torch.rand(3, 80, 50, generator=generator)]


def script(module: nn.Module) -> torch.jit.ScriptModule:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript's deprecation
        return torch.jit.script(module)


def assert_same_outputs(model: nn.Module, scripted: nn.Module, inputs) -> None:
    """Bit for bit equal in the first call, within 1e-5 after the executor has optimised the graph."""
    with torch.no_grad():
        expected = model(inputs)
        for call in range(4):
            outputs = scripted(inputs)
            assert outputs.keys() == expected.keys()
            for name, value in outputs.items():
                torch.testing.assert_close(value, expected[name], rtol=0, atol=1e-5 if call else 0)


@pytest.mark.parametrize("encoding", [PositionEmbeddingSine(), PositionEmbeddingLearned()])
def test_position_encodings_script(encoding):
    batch = nested_tensor_from_tensor_list([image[:, 40:, 10:50] for image in images()])
    assert torch.equal(script(encoding)(batch), encoding(NestedTensor(batch.tensors, batch.mask)))


@pytest.mark.parametrize("norm", NORM_LAYERS)
def test_the_backbone_scripts_and_returns_features_with_masks(norm):
    backbone = Backbone("tiny", True, True, False, norm=norm).eval()
    batch = nested_tensor_from_tensor_list(images())
    expected, outputs = backbone(batch), script(backbone)(batch)
    assert list(outputs) == list(expected) == ["0", "1", "2", "3"]
    for level, feature in outputs.items():
        tensors, mask = feature.decompose()
        assert torch.equal(tensors, expected[level].tensors)
        assert torch.equal(mask, expected[level].mask)


@pytest.mark.parametrize("flags", [(), ("--position_embedding", "learned"), ("--pre_norm",), ("--dilation",)])
def test_the_detector_scripts(flags):
    model = detector(*flags)
    assert_same_outputs(model, script(model), nested_tensor_from_tensor_list(images()))


def test_a_wrapper_that_takes_a_list_scripts():
    model = TakesList(detector())
    assert_same_outputs(model, script(model), images())


def test_a_scripted_detector_can_be_saved_and_loaded():
    model = TakesList(detector())
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(script(model), file)
        file.seek(0)
        loaded = torch.jit.load(file)
    assert_same_outputs(model, loaded, images())


def test_scripting_keeps_the_errors_of_invalid_batches():
    scripted = script(TakesList(detector()))
    with pytest.raises(torch.jit.Error, match="image 1 of the batch has shape"):
        scripted([torch.rand(3, 64, 64), torch.rand(1, 64, 64)])
    with pytest.raises(torch.jit.Error, match="at least one image"):
        scripted([])


def test_the_eager_model_takes_a_batch_a_tensor_and_a_list():
    model, pictures = detector(), torch.stack([torch.rand(3, 64, 64), torch.rand(3, 64, 64)])
    with torch.no_grad():
        expected = model(nested_tensor_from_tensor_list(list(pictures)))
        for samples in (pictures, list(pictures), tuple(pictures)):
            outputs = model(samples)
            assert all(torch.equal(outputs[name], expected[name]) for name in expected)


@pytest.mark.parametrize("query_chunk", [None, 4])
def test_the_panoptic_model_scripts(query_chunk):
    flags = "--masks --hidden_dim 128 --nheads 8 --dataset_file coco_panoptic".split()
    model = detector(*flags)
    model.mask_head.query_chunk = query_chunk
    batch = nested_tensor_from_tensor_list(images())
    assert_same_outputs(model, script(model), batch)
    assert "pred_masks" in model(batch)


def test_the_panoptic_model_scripts_inside_a_module_that_takes_a_list():
    model = TakesList(detector("--masks", "--hidden_dim", "128", "--nheads", "8"))
    assert_same_outputs(model, script(model), images())
