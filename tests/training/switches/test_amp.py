"""`--amp` in a run: it goes on to the bit, follows the checkpoint, and is refused where it cannot work."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
import torch

import main
from tests.helpers.runs import flags, signal_at
from tools.reliability.tiny_run import differences
from util.checkpoint import load_checkpoint, save_checkpoint

RUN = ["--batch_size", "2", "--dropout", "0.1", "--epochs", "2"]  # four steps an epoch


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without reports, which take longer than the trainings here; with float16 on any processor."""
    monkeypatch.setattr("training.validation.write_evaluation", lambda *args, **more: None)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True, "avx512_fp16": True})


def train(data: Path, out: Path, *more: str) -> int:
    return main.run(flags(data, *RUN, "--output_dir", str(out), *more))


@pytest.mark.parametrize("amp", ["bf16", "fp16"])
def test_a_stop_goes_on_to_the_bit(shapes, tmp_path, monkeypatch, amp):
    assert train(shapes, tmp_path / "whole", "--amp", amp) == 0
    with monkeypatch.context() as patch:
        signal_at(patch, 3, signal.SIGTERM)
        assert train(shapes, tmp_path / "halves", "--amp", amp) == 0
    stopped = load_checkpoint(tmp_path / "halves" / "checkpoint.pth")
    assert stopped["step"] == 3 and (stopped["scaler"] is None) == (amp == "bf16")
    assert train(shapes, tmp_path / "halves", "--amp", amp, "--resume", "auto") == 0
    assert differences(tmp_path / "halves", tmp_path / "whole") == []
    saved = load_checkpoint(tmp_path / "whole" / "checkpoint.pth")
    assert {weight.dtype for weight in saved["model"].values()} == {torch.float32}


def test_the_scale_of_the_loss_goes_on(shapes, tmp_path):
    assert train(shapes, tmp_path, "--amp", "fp16", "--epochs", "1") == 0
    saved = load_checkpoint(tmp_path / "checkpoint.pth")
    scaler = saved["scaler"] | {"scale": 8.0, "_growth_tracker": 70}
    save_checkpoint(tmp_path / "checkpoint.pth", saved | {"scaler": scaler})
    assert train(shapes, tmp_path, "--resume", "auto") == 0  # the type follows the checkpoint
    scaler = load_checkpoint(tmp_path / "checkpoint.pth")["scaler"]
    assert (scaler["scale"], scaler["_growth_tracker"]) == (8.0, 74)


def test_an_evaluation_repeats_that_of_the_training(shapes, tmp_path, capsys):
    assert train(shapes, tmp_path / "run", "--amp", "bf16", "--epochs", "1") == 0
    checkpoint = str(tmp_path / "run" / "checkpoint.pth")
    of_the_training = [line for line in capsys.readouterr().out.splitlines() if "Test:" in line and "loss:" in line][-1]

    def losses(*more: str) -> str:
        assert main.run(flags(shapes, "--batch_size", "2", "--eval", "--resume", checkpoint, *more)) == 0
        lines = [line for line in capsys.readouterr().out.splitlines() if "Test:" in line and "loss:" in line]
        return lines[-1].split("loss:")[1]

    assert losses() == losses("--amp", "bf16") == of_the_training.split("loss:")[1]
    assert losses("--amp", "none") != losses()


def test_a_scale_that_is_damaged_is_one_sentence(shapes, tmp_path, capsys):
    assert train(shapes, tmp_path, "--amp", "fp16", "--epochs", "1") == 0
    saved = load_checkpoint(tmp_path / "checkpoint.pth")
    save_checkpoint(tmp_path / "checkpoint.pth", saved | {"scaler": saved["scaler"] | {"scale": -1.0}})
    assert train(shapes, tmp_path, "--resume", str(tmp_path / "checkpoint.pth")) == 1
    error = capsys.readouterr().err
    assert "scale of the loss's scale is -1.0" in error and error.count("\n") == 1


def test_float16_on_a_processor_without_it_is_one_sentence(shapes, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True})
    assert train(shapes, tmp_path / "out", "--amp", "fp16") == 1
    error = capsys.readouterr().err
    assert error.startswith("error: --amp fp16: this processor has no float16") and error.count("\n") == 1
