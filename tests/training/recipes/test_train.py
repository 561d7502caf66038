"""Training from Python: the same run as the command's, and what it returns."""

from __future__ import annotations

import json

import pytest

import main
from models import build_model
from tests.helpers.runs import flags
from tests.training.test_resume import assert_same_run
from training import train

TINY = {  # `tests.helpers.runs.TINY` as keywords
    "backbone": "tiny",
    "backbone_weights": "none",
    "trainable_layers": 5,
    "backbone_norm": "gn",
    "hidden_dim": 16,
    "nheads": 2,
    "dim_feedforward": 32,
    "enc_layers": 1,
    "dec_layers": 2,
    "num_queries": 6,
    "dropout": 0,
    "train_sizes": (64,),
    "max_size": 64,
    "val_size": 64,
    "no_crop": True,
    "device": "cpu",
    "batch_size": 4,
    "num_workers": 0,
}


@pytest.fixture(autouse=True)
def no_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.validation.write_evaluation", lambda *args, **more: None)


def test_the_run_is_that_of_the_command(shapes, tmp_path):
    more = ["--epochs", "2", "--lr", "1e-3", "--no_aux_loss", "--output_dir", str(tmp_path / "command")]
    assert main.run(flags(shapes, *more)) == 0
    found = train(coco_path=shapes, epochs=2, lr=1e-3, no_aux_loss=True, output_dir=tmp_path / "python", **TINY)
    assert_same_run(tmp_path / "command", tmp_path / "python")
    last = json.loads((tmp_path / "python/log.txt").read_text().splitlines()[-1])
    assert found.last == last and (found.epochs, found.steps) == (2, 4)
    assert found.folder == tmp_path / "python" and found.last_checkpoint == found.folder / "checkpoint.pth"
    assert found.best_checkpoint == found.folder / "checkpoint_best.pth"
    assert found.best_score >= last["test_coco_eval_bbox"][0]


def test_without_a_folder_there_is_a_score_and_no_checkpoint(shapes):
    found = train(coco_path=shapes, max_steps=1, epochs=1, **TINY)
    assert (found.folder, found.best_checkpoint, found.last_checkpoint, found.steps) == (None, None, None, 1)
    assert 0 <= found.best_score <= 1


def test_the_checks_are_those_of_the_command(shapes, tmp_path):
    with pytest.raises(TypeError, match="there is no setting 'epoch': did you mean epochs"):
        train(coco_path=shapes, epoch=3)
    with pytest.raises(ValueError, match="--val_size 900 exceeds --max_size 64"):
        train(coco_path=shapes, **TINY | {"val_size": 900})
    with pytest.raises(ValueError, match="train.. trains: pass --eval to main.py"):
        train(coco_path=shapes, eval=True)
    train(coco_path=shapes, max_steps=1, output_dir=tmp_path, **TINY)
    with pytest.raises(ValueError, match="holds a run already"):
        train(coco_path=shapes, max_steps=1, output_dir=tmp_path, **TINY)


def test_a_second_call_resumes(shapes, tmp_path):
    train(coco_path=shapes, epochs=1, output_dir=tmp_path / "two", **TINY)
    found = train(coco_path=shapes, epochs=2, output_dir=tmp_path / "two", resume="auto", **TINY)
    train(coco_path=shapes, epochs=2, output_dir=tmp_path / "one", **TINY)
    assert_same_run(tmp_path / "one", tmp_path / "two")
    assert (found.epochs, found.steps) == (2, 4)


def test_a_model_takes_settings_as_keywords(no_network):
    network = {name: TINY[name] for name in ("backbone", "backbone_norm", "hidden_dim", "nheads", "trainable_layers")}
    model, criterion, postprocessors = build_model(num_classes=7, backbone_weights="none", **network)
    assert model.class_embed.out_features == 8 and criterion.num_classes == 7 and set(postprocessors) == {"bbox"}
    with pytest.raises(ValueError, match="--hidden_dim 30 must be a multiple of --nheads 8"):
        build_model(num_classes=7, hidden_dim=30)
    with pytest.raises(TypeError, match="did you mean num_classes"):
        build_model(num_clases=7)
    with pytest.raises(TypeError, match="args or keywords, not both"):
        build_model(main.get_args_parser().parse_args([]), num_classes=7)
