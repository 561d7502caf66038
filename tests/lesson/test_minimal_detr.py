"""DETR on one page equals the real model."""

import ast

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from docs.lesson.minimal_detr import MinimalDETR, pad, sine_positions
from models.load import load_detector
from models.position_encoding import PositionEmbeddingSine
from models.resnet import build_resnet
from tests.helpers.paths import REPOSITORY
from tests.lesson.pages import CHAPTERS, LESSON, fences
from util.nested_tensor import NestedTensor, nested_tensor_from_tensor_list

SIZES = "num_classes hidden_dim nheads enc_layers dec_layers dim_feedforward num_queries".split()


@pytest.fixture(scope="module")
def models():
    """The shipped detector and the minimal one with its weights."""
    detector = load_detector(REPOSITORY / "weights" / "detr_tiny_shapes.pth", "cpu")
    sizes = {name: getattr(detector.args, name) for name in SIZES}
    trunk = build_resnet("tiny", norm_layer=nn.BatchNorm2d, dilation=True)
    minimal = MinimalDETR(trunk, **sizes, temperature=detector.args.pos_temperature).eval()
    minimal.load_detr(detector.model.state_dict())
    return detector.model, minimal


def images(dtype=torch.float32):
    """Three images that need padding to the right, below, and both."""
    generator = torch.Generator().manual_seed(0)
    return [torch.rand(3, h, w, generator=generator, dtype=dtype) * 2 - 1 for h, w in ((96, 70), (64, 128), (40, 40))]


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
@torch.no_grad()
def test_it_equals_the_real_model_on_a_padded_batch(models, dtype, tolerance):
    real, minimal = (model.to(dtype) for model in models)
    expected, got = real(images(dtype)), minimal(*pad(images(dtype)))
    assert len(got["aux_outputs"]) == 2
    assert_close(got, expected, rtol=tolerance, atol=tolerance)


def test_padding_equals_the_real_one():
    batch, mask = pad(images())
    expected = nested_tensor_from_tensor_list(images())
    assert torch.equal(batch, expected.tensors) and torch.equal(mask, expected.mask)


@pytest.mark.parametrize("temperature", [20, 10000])
def test_positions_equal_the_real_ones(temperature):
    _, mask = pad(images())
    encoding = PositionEmbeddingSine(32, temperature, normalize=True)
    assert_close(sine_positions(mask, 64, temperature), encoding(NestedTensor(mask, mask)), rtol=0, atol=1e-5)


def test_it_fits_on_one_page():
    lines = (LESSON / "minimal_detr.py").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 90


def definitions(code: str) -> dict[str, str]:
    """The syntax trees of a module's functions and classes, by name."""
    kinds = (ast.FunctionDef, ast.ClassDef)
    return {node.name: ast.dump(node) for node in ast.parse(code).body if isinstance(node, kinds)}


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_what_a_page_defines_under_the_same_name_is_the_same(chapter):
    path = LESSON / "en" / f"{chapter}.md"
    if not path.exists():
        pytest.skip("not yet written")
    original = definitions((LESSON / "minimal_detr.py").read_text(encoding="utf-8"))
    for fence in fences(path.read_text(encoding="utf-8")):
        if fence.kind == "python":
            for name, tree in definitions(fence.text).items():
                assert original.get(name, tree) == tree, f"{path}:{fence.line}: {name} is not that of minimal_detr.py"
