"""The loop in docs/training.md runs as it stands, and what it saves keeps its class names."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

import main
from prediction.predictor import Predictor
from tests.helpers.paths import REPOSITORY
from util.checkpoint import load_checkpoint

NAMES = {1: "circle", 2: "square", 3: "triangle"}


@pytest.fixture(scope="module")
def folder(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the documented loop has run once."""
    text = (REPOSITORY / "docs/training.md").read_text(encoding="utf-8")
    loop = re.search(r"```python\n(import torch\n.*?)```", text, re.DOTALL)[1]
    assert len([line for line in loop.splitlines() if line and "import" not in line]) <= 15
    folder = tmp_path_factory.mktemp("loop")
    (folder / "shapes").symlink_to(shapes)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        exec(compile(loop, "docs/training.md", "exec"), {})
    return folder


def test_the_checkpoint_predicts_with_names(folder, shapes):
    predictor = Predictor(folder / "mine.pth")
    assert predictor.names == NAMES
    picture = next((shapes / "val2017").iterdir())
    found = predictor(str(picture), threshold=0)
    assert set(found.names) <= set(NAMES.values()) | {"class 0"} and len(found.names) == 100


def test_names_also_come_from_a_plain_file_of_torch(folder, tmp_path):
    content = load_checkpoint(folder / "mine.pth")
    torch.save({name: content[name] for name in ("model", "args", "categories")}, tmp_path / "plain.pth")
    assert Predictor(tmp_path / "plain.pth").names == NAMES


def test_a_run_starts_from_it_and_is_evaluated(folder, shapes, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("training.validation.write_evaluation", lambda *args, **more: None)
    data = ["--coco_path", str(shapes), "--device", "cpu", "--num_workers", "0", "--val_size", "64", "--max_size", "64"]
    assert main.run([*data, "--resume", str(folder / "mine.pth"), "--eval"]) == 0
    start = ["--init_from", str(folder / "mine.pth"), "--train_sizes", "64", "--max_steps", "1"]
    assert main.run([*data, *start, "--output_dir", str(tmp_path)]) == 0
    assert "class_embed (all 4 classes)" in capsys.readouterr().out
    assert [c["name"] for c in load_checkpoint(tmp_path / "checkpoint.pth")["categories"]] == list(NAMES.values())


def test_a_network_that_the_checkpoint_does_not_have_is_named(folder, shapes, capsys):
    start = ["--init_from", str(folder / "mine.pth"), "--hidden_dim", "64", "--enc_layers", "3"]
    assert main.run(["--coco_path", str(shapes), *start]) == 1
    said = capsys.readouterr().err
    assert (
        "--enc_layers 3 and --hidden_dim 64 contradict" in said and "--enc_layers 2 and with --hidden_dim 256" in said
    )
