"""`--compile` in a run: the same files as without it, and one sentence where it cannot work."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
import torch

import main
from tests.helpers.processes import run_together
from tests.helpers.runs import flags
from util.checkpoint import load_checkpoint
from util.compute import compilation

RUN = ["--batch_size", "4", "--epochs", "1", "--dropout", "0.1", "--dec_layers", "1", "--hidden_dim", "8"]


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


def use_eager_backend() -> None:
    """Trace the network, and run the traced operators as they are: no compiler, the same numbers."""
    compilation.BACKEND = "eager"


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(folder / "checkpoint.pth")["model"]


def test_two_processes_train_the_same_together(shapes: Path, tmp_path: Path):
    for name, more in (("plain", []), ("compiled", ["--compile"])):
        command = flags(shapes, *RUN, "--batch_size", "2", "--output_dir", str(tmp_path / name), *more)
        ((first, second),) = run_together(2, [command], tmp_path / f"work_{name}", use_eager_backend)
        assert (first[0], second[0]) == (0, 0), first[1] + second[1]
    plain, same = weights(tmp_path / "plain"), weights(tmp_path / "compiled")
    assert list(plain) == list(same)
    for name, value in plain.items():  # other buckets of gradients may be summed in another order
        torch.testing.assert_close(same[name], value, rtol=1e-5, atol=1e-6)


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
