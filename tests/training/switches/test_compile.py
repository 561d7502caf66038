"""`--compile` in a run: the same files as without it, and one sentence where it cannot work."""

from __future__ import annotations

import argparse
import copy
import shutil
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

import main
from tests.helpers.processes import start, wait
from tests.helpers.runs import flags
from util.checkpoint import load_checkpoint
from util.compute import compilation
from util.dist import distribute

RUN = ["--batch_size", "4", "--epochs", "1", "--dropout", "0", "--enc_layers", "0", "--dec_layers", "1"]


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """The network is traced, and the traced operators run as they are: no compiler, the same numbers."""
    monkeypatch.setattr(compilation, "BACKEND", "eager")
    monkeypatch.setattr("training.validation.write_evaluation", lambda *args, **more: None)


def test_a_run_is_the_same_and_so_are_the_names_in_its_checkpoint(shapes: Path, tmp_path: Path, eager):
    """With everything that runs the model otherwise: the check before a save, and an average of the weights."""
    for name, more in (("plain", []), ("compiled", ["--compile"])):
        assert main.run(flags(shapes, *RUN, "--ema", "0.9", "--output_dir", str(tmp_path / name), *more)) == 0
    plain, same = (load_checkpoint(tmp_path / name / "checkpoint.pth") for name in ("plain", "compiled"))
    for entry in ("model", "model_ema"):
        assert list(plain[entry]) == list(same[entry])
        assert all(torch.equal(value, same[entry][name]) for name, value in plain[entry].items())
    assert (tmp_path / "plain" / "log.txt").read_text() == (tmp_path / "compiled" / "log.txt").read_text()


class TwoBuckets(torch.nn.Module):
    """Too large for one exchange of gradients, with an operator that takes a size of the batch."""

    def __init__(self):
        super().__init__()
        self.first, self.second = torch.nn.Linear(8, 600), torch.nn.Linear(600, 600)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, 1, h, 8] → [B, 1, h, 600]."""
        half = F.interpolate(self.first(x), size=(x.shape[-2] // 2, 600))
        return self.second(F.interpolate(half, size=(x.shape[-2], 600)).relu())


def gradients(model: torch.nn.Module, rank: int) -> list[torch.Tensor]:
    """Of batches of two sizes, the rank's own."""
    torch.manual_seed(rank)
    for height in (4, 6):
        model(torch.rand(2, 1, height, 8)).square().sum().backward()
    return [parameter.grad for parameter in model.parameters()]


def train_together(rank: int, folder: Path) -> None:
    compilation.BACKEND = "eager"
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    torch.manual_seed(0)
    together = distribute(compilation.compiled(TwoBuckets(), True), argparse.Namespace(distributed=True, gpu=None))
    torch.save(gradients(together, rank), folder / f"rank{rank}.pt")
    torch.distributed.destroy_process_group()


def test_processes_exchange_the_gradients_of_a_compiled_model(tmp_path: Path):
    assert wait(start(train_together, [(rank, tmp_path) for rank in range(2)])) == [0, 0]
    torch.manual_seed(0)
    model = TwoBuckets()
    alone = [gradients(copy.deepcopy(model), rank) for rank in range(2)]
    for rank in range(2):
        found = torch.load(tmp_path / f"rank{rank}.pt")
        for gradient, *own in zip(found, *alone, strict=True):
            torch.testing.assert_close(gradient, sum(own) / 2)


def test_a_missing_compiler_is_one_sentence(shapes: Path, tmp_path: Path, monkeypatch, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert main.run(flags(shapes, *RUN, "--compile", "--output_dir", str(tmp_path / "out"))) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: --compile needs a C") and "no-such-compiler" in error and error.count("\n") == 1
    assert not (tmp_path / "out" / "checkpoint.pth").exists()


@pytest.mark.skipif(sys.platform == "win32" or not shutil.which("g++"), reason="there is no g++ to compile with")
def test_compiled_kernels_compute_the_same(tmp_path: Path, monkeypatch):
    """One fused kernel, through the real compiler: that takes seconds."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    layer = torch.nn.Sequential(torch.nn.ReLU(), torch.nn.Hardtanh(0, 0.5))
    together = compilation.compiled(layer, True)
    for rows in (2, 3):
        x = torch.randn(rows, 4)
        torch.testing.assert_close(together(x), layer(x))
