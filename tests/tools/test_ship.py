"""Checkpoints reduced to what inference needs."""

import hashlib

import pytest
import torch

from models import build_model
from models.load import load_detector
from tests.helpers.runs import parse
from tools.ship import run, ship
from util.checkpoint import load_checkpoint, save_checkpoint
from util.errors import CheckpointError
from util.settings import GROUPS

CATEGORIES = [{"id": 1, "name": "circle"}, {"id": 2, "name": "square"}]


@pytest.fixture
def trained(tmp_path):
    """A checkpoint of a tiny model as `main.py` writes it: the file and its content."""
    args = parse("/machine/data", "--num_classes", "3", "--output_dir", "/machine/run", "--backbone_norm", "bn")
    model = build_model(args)[0].to(memory_format=torch.channels_last)
    paths = [setting.name for setting in GROUPS["data"] if setting.kind is str and setting.default is None]
    vars(args).update(dict.fromkeys(paths, "/machine/other"))
    checkpoint = {
        "model": model.state_dict(),
        "optimizer": {"state": {0: {"exp_avg": torch.zeros(100_000)}}, "param_groups": []},
        "lr_scheduler": {"last_epoch": 7},
        "epoch": 7,
        "args": args,
        "categories": CATEGORIES,
        "best_ap": 0.5,
        "rng": [torch.get_rng_state()],
        "versions": {"torch": "2.6"},
    }
    save_checkpoint(tmp_path / "trained.pth", checkpoint)
    return tmp_path / "trained.pth", checkpoint


def test_only_what_inference_needs_is_shipped(trained, tmp_path):
    ship(trained[0], tmp_path / "out.pth")
    shipped = load_checkpoint(tmp_path / "out.pth")
    assert set(shipped) == {"model", "args", "categories", "epoch", "best_ap", "versions"}
    assert (shipped["epoch"], shipped["categories"], shipped["versions"]) == (7, CATEGORIES, {"torch": "2.6"})
    assert shipped["args"]["val_size"] == 64 and shipped["args"]["hidden_dim"] == 16
    assert "/machine" not in str(shipped["args"]), "nothing of the machine it was trained on"


def test_the_thresholds_are_shipped_with_the_weights_that_they_belong_to(trained, tmp_path):
    path, checkpoint = trained
    found = {"overall": None, "classes": [{"id": 1, "objects": 20, "threshold": 0.4, "f1": 0.5}]}
    save_checkpoint(path, {**checkpoint, "thresholds": found})
    for how in ({}, {"raw_weights": True}):
        ship(path, tmp_path / "out.pth", **how)
        assert load_checkpoint(tmp_path / "out.pth")["thresholds"] == found
    save_checkpoint(path, {**checkpoint, "thresholds": found, "model_ema": checkpoint["model"]})
    ship(path, tmp_path / "out.pth")
    assert load_checkpoint(tmp_path / "out.pth")["thresholds"] == found
    ship(path, tmp_path / "out.pth", raw_weights=True)
    assert "thresholds" not in load_checkpoint(tmp_path / "out.pth"), "they are those of the average"


def test_the_shipped_model_finds_what_the_checkpoint_finds(trained, tmp_path):
    ship(trained[0], tmp_path / "out.pth")
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        before, after = (load_detector(path, "cpu").model(image) for path in (trained[0], tmp_path / "out.pth"))
    assert torch.equal(before["pred_logits"], after["pred_logits"])
    assert torch.equal(before["pred_boxes"], after["pred_boxes"])


def test_floats_are_shipped_as_float32_and_integers_unchanged(trained, tmp_path):
    path, checkpoint = trained
    halves = {name: value.half() if value.is_floating_point() else value for name, value in checkpoint["model"].items()}
    halves["query_embed.weight"] = halves["query_embed.weight"].repeat(1000, 1)[:6]  # a view into far more
    halves["backbone.0.body.bn1.num_batches_tracked"] = torch.tensor(2**40 + 1)
    save_checkpoint(path, checkpoint | {"model": halves})
    size, _ = ship(path, tmp_path / "out.pth")
    shipped = load_checkpoint(tmp_path / "out.pth")["model"]
    counters = {name: shipped.pop(name) for name in list(shipped) if name.endswith("num_batches_tracked")}
    assert counters["backbone.0.body.bn1.num_batches_tracked"] == 2**40 + 1
    assert {value.dtype for value in shipped.values()} == {torch.float32}
    assert all(torch.equal(value, halves[name].float()) for name, value in shipped.items())
    assert size < 4 * sum(value.numel() for value in shipped.values()) + 100_000


def test_size_and_hash_are_printed(trained, tmp_path, capsys):
    assert run([str(trained[0]), str(tmp_path / "weights" / "out.pth")]) == 0
    content = (tmp_path / "weights" / "out.pth").read_bytes()
    said = capsys.readouterr().out
    assert f"{len(content):,} bytes" in said and hashlib.sha256(content).hexdigest() in said


def test_a_checkpoint_with_few_entries_is_shipped_too(trained, tmp_path):
    path, checkpoint = trained
    save_checkpoint(path, {"model": checkpoint["model"], "args": checkpoint["args"]})
    ship(path, tmp_path / "out.pth")
    assert set(load_checkpoint(tmp_path / "out.pth")) == {"model", "args"}


def test_what_builds_no_detector_is_not_shipped(trained, tmp_path):
    path, checkpoint = trained
    for broken in (
        {"model": {**checkpoint["model"], "query_embed.weight": torch.zeros(3, 16)}, "args": checkpoint["args"]},
        {"optimizer": {}},
    ):
        save_checkpoint(path, broken)
        with pytest.raises(CheckpointError):
            ship(path, tmp_path / "out.pth")
        assert not (tmp_path / "out.pth").exists()


def test_the_checkpoint_itself_is_not_overwritten(trained, capsys):
    before = trained[0].read_bytes()
    assert run([str(trained[0]), str(trained[0])]) == 1
    assert "is the checkpoint itself" in capsys.readouterr().err
    assert trained[0].read_bytes() == before


def test_a_missing_checkpoint_is_one_sentence(tmp_path, capsys):
    assert run([str(tmp_path / "none.pth"), str(tmp_path / "out.pth")]) == 1
    assert capsys.readouterr().err.startswith("error: there is no checkpoint")
