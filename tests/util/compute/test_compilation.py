"""The compiled network: equal to the plain one, whatever the sizes; what it needs is asked for."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from models import build_model
from tests.helpers.runs import parse
from util.compute import compilation
from util.compute.compilation import check_compiler, compiled
from util.nested_tensor import NestedTensor, nested_tensor_from_tensor_list

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def batch(images: int, height: int, width: int) -> NestedTensor:
    return nested_tensor_from_tensor_list([torch.rand(3, height - 8 * index, width) for index in range(images)])


def test_it_computes_the_same_and_is_compiled_once_for_all_sizes(monkeypatch):
    """Without a break in its graph, in which Python would run between the kernels."""
    monkeypatch.setattr(compilation, "BACKEND", "eager")  # traces, but calls no compiler
    torch.manual_seed(0)
    model, _, _ = build_model(
        parse("x", "--num_classes", "4", "--backbone_norm", "frozen_bn", "--enc_layers", "0", "--dec_layers", "1")
    )
    model.eval()
    graphs, breaks = (dict(torch._dynamo.utils.counters[name]) for name in ("stats", "graph_break"))
    together = compiled(model, True)
    for size in ((2, 64, 64), (2, 64, 96), (3, 80, 64)):
        samples = batch(*size)
        ours, plain = together(samples), model(samples)
        assert torch.equal(ours["pred_logits"], plain["pred_logits"]), size
        assert torch.equal(ours["pred_boxes"], plain["pred_boxes"]), size
    now = torch._dynamo.utils.counters
    assert now["stats"]["unique_graphs"] - graphs.get("unique_graphs", 0) == 1
    assert dict(now["graph_break"]) == breaks


def test_it_is_not_compiled_unless_wanted():
    model = torch.nn.Linear(2, 2)
    assert compiled(model, False) is model


def test_the_model_itself_keeps_its_names(monkeypatch):
    monkeypatch.setattr(compilation, "BACKEND", "eager")
    model = torch.nn.Sequential(torch.nn.Linear(2, 2))
    together = compiled(model, True)
    together(torch.ones(3, 2)).sum().backward()
    assert list(model.state_dict()) == ["0.weight", "0.bias"] and model[0].weight.grad is not None
    together.train(False)
    assert not model.training


def without_programs(monkeypatch: pytest.MonkeyPatch, folder: Path, *names: str) -> None:
    """As on a machine whose only programs are `names`."""
    for variable in ("CXX", "CC"):
        monkeypatch.delenv(variable, raising=False)
    for name in names:
        (folder / name).touch(mode=0o755)
    monkeypatch.setenv("PATH", str(folder))


def test_a_missing_compiler_is_named_with_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setattr("sys.platform", "linux")
    without_programs(monkeypatch, tmp_path, "gcc")
    sentence = r"--compile needs a C\+\+ compiler, and there is no g\+\+: install one .* or omit --compile"
    with pytest.raises(ValueError, match=sentence):
        check_compiler(CPU)
    without_programs(monkeypatch, tmp_path, "g++")
    check_compiler(CPU)


def test_a_compiler_that_a_variable_names_wrongly_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr("sys.platform", "linux")
    without_programs(monkeypatch, tmp_path, "g++")
    monkeypatch.setenv("CXX", "mine")
    with pytest.raises(ValueError, match="there is no mine, which the variable CXX names"):
        check_compiler(CPU)


def test_cuda_needs_triton_and_a_c_compiler(monkeypatch, tmp_path):
    monkeypatch.setattr("sys.platform", "linux")
    without_programs(monkeypatch, tmp_path)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match="--compile needs the package triton on cuda: install it"):
        check_compiler(CUDA)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    with pytest.raises(ValueError, match="--compile needs a C compiler, and there is no gcc"):
        check_compiler(CUDA)
    without_programs(monkeypatch, tmp_path, "cc")
    check_compiler(CUDA)
