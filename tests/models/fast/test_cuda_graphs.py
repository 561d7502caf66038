"""A replayed forward pass equals the model's; what cannot be replayed runs as usual."""

from __future__ import annotations

import pytest
import torch

from models.attention_maps import record_attention
from models.fast import cuda_graphs
from models.fast.inference import optimize_for_inference
from tests.helpers.broken_models import detector
from util.nested_tensor import NestedTensor

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.fixture(autouse=True)
def float32_throughout(monkeypatch):
    """Convolutions of other kinds or memory formats round alike only without TF32."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


def images(height: int = 64, width: int = 96, seed: int = 0, device: str = "cpu") -> NestedTensor:
    tensors = torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(seed))
    mask = torch.zeros(2, height, width, dtype=torch.bool)
    mask[1, :, width - 20 - seed :] = True
    return NestedTensor(tensors, mask).to(torch.device(device))


def assert_same(found: dict, expected: dict) -> None:
    for name in ("pred_logits", "pred_boxes"):
        torch.testing.assert_close(found[name], expected[name], rtol=1e-4, atol=1e-4)


def test_on_a_cpu_the_model_runs_as_usual():
    model = detector()[0].eval()
    graphed = optimize_for_inference(model, cuda_graphs=True)
    with torch.inference_mode():
        for _ in range(3):
            assert_same(graphed(images()), model(images()))
    assert not graphed.forward.recordings


def test_the_recordings_share_memory_only_while_one_of_them_has_some():
    """CUDA frees the memory with its last recording, and refuses it from then on."""

    class Graph:
        def pool(self):
            return (0, 1)

    forward = cuda_graphs.GraphedForward(detector()[0])
    assert forward._pool() is None
    forward.recordings = {"seen once": None, "recorded": cuda_graphs.Recording(Graph(), images(), {})}
    assert forward._pool() == (0, 1)
    del forward.recordings["recorded"]
    assert forward._pool() is None


@needs_cuda
def test_replayed_passes_equal_the_model(monkeypatch):
    monkeypatch.setattr(cuda_graphs, "KEPT_SIZES", 2)
    model = detector()[0].eval().cuda()
    graphed = optimize_for_inference(model, cuda_graphs=True)
    results = []
    for round_, (height, width) in enumerate([(64, 96)] * 4 + [(96, 64)] * 3 + [(64, 64), (64, 96), (64, 96)]):
        samples = images(height, width, round_, "cuda")
        with torch.inference_mode() if round_ % 2 else torch.no_grad():
            results.append((graphed(samples), model(samples)))
    for found, expected in results:  # compared last: later passes leave earlier results alone
        assert_same(found, expected)
    assert len(graphed.forward.recordings) == 2 and any(graphed.forward.recordings.values())


@needs_cuda
def test_half_precision_has_recordings_of_its_own():
    model = detector()[0].eval().cuda()
    graphed, samples = optimize_for_inference(model, cuda_graphs=True), images(device="cuda")
    for amp in [False, True] * 4:
        with torch.inference_mode(), torch.autocast("cuda", torch.bfloat16, enabled=amp):
            found, expected = graphed(samples), model(samples)
        torch.testing.assert_close(found["pred_boxes"].float(), expected["pred_boxes"].float(), rtol=0, atol=0.05)
    assert len(graphed.forward.recordings) == 2


@needs_cuda
def test_a_recording_leaves_no_constants_of_its_own_in_the_norms():
    """They would be overwritten by the next replay, and the passes that are not replayed read them."""
    model = detector()[0].eval().cuda()
    graphed = optimize_for_inference(model, cuda_graphs=True)
    with torch.inference_mode():
        for amp in [False, True] * 3:
            with torch.autocast("cuda", torch.bfloat16, enabled=amp):
                graphed(images(device="cuda"))
        for size in (96, 128):
            assert_same(graphed(images(size, size, device="cuda")), model(images(size, size, device="cuda")))


@needs_cuda
def test_hooks_and_gradients_are_served_by_the_model():
    model = optimize_for_inference(detector()[0].eval().cuda(), cuda_graphs=True)
    samples = images(device="cuda")
    with torch.no_grad():
        for _ in range(3):
            model(samples)
        with record_attention(model) as maps:
            model(samples)
    assert len(maps.decoder) == len(model.transformer.decoder.layers)
    samples.tensors.requires_grad_()
    model(samples)["pred_boxes"].sum().backward()
    assert samples.tensors.grad is not None
