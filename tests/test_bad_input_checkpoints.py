"""Bad checkpoints given to the command: one sentence that names the file, exit code 1, no file left, no code run."""

import pytest
import torch

from tests.helpers.checkpoint_files import Canary, serve

# The fixtures `server`, `finished` and `refused`.
pytest_plugins = ["tests.helpers.file_server", "tests.helpers.refusals"]


def damaged(whole, damage, path):
    """Write a damaged copy of a checkpoint; its path."""
    content = torch.load(whole, weights_only=True)
    if isinstance(damage, bytes):
        path.write_bytes(damage)
    elif damage == "truncated":
        path.write_bytes(whole.read_bytes()[:5000])
    else:
        torch.save(damage(content), path)
    return path


def without(content, *names):
    return {name: value for name, value in content.items() if name not in names}


def with_nan(content):
    content["model"]["class_embed.weight"].view(-1)[0] = torch.nan
    return content


NO_CHECKPOINTS = {
    "truncated": ("truncated", "is truncated or damaged"),
    "empty": (b"", "is empty"),
    "text": (b"version https://git-lfs.github.com/spec/v1\n", "is text"),
    "image": (b"\x89PNG\r\n\x1a\n" + bytes(300), "cannot be read"),
    "nothing in it": (lambda content: {}, "has no weights under `model`"),
    "a list": (lambda content: [content], "contains a list"),
    "bare weights": (lambda content: content["model"], "`model`"),
    "model missing": (lambda content: without(content, "model"), "`model`"),
    "model a list": (lambda content: content | {"model": [1, 2]}, "`model`"),
    "not finite": (with_nan, "class_embed.weight contains non-finite values"),
}


@pytest.mark.parametrize("flag", ["--resume", "--init_from"])
@pytest.mark.parametrize("case", NO_CHECKPOINTS)
def test_a_file_that_is_no_checkpoint(refused, shapes, finished, tmp_path, flag, case):
    damage, sentence = NO_CHECKPOINTS[case]
    path = damaged(finished / "checkpoint.pth", damage, tmp_path / "bad.pth")
    error = refused(shapes, flag, path, "--epochs", 2)
    assert str(path) in error and sentence in error


@pytest.mark.parametrize(
    "change",
    [
        {"epoch": "0"},
        {"epoch": -7},
        {"optimizer": [1]},
        {"optimizer": {"state": {}, "param_groups": []}},
        {"lr_scheduler": "step"},
        {"lr_scheduler": {"last_epoch": "1"}},
        {"lr_scheduler": {"last_epoch": 1, "step": 5}},
        {"args": "lr"},
        {"args": {"lr": "fast"}},
        {"categories": [1, 2]},
        {"best_ap": "best"},
        {"rng": [5]},
        {"progress": {"step": "2"}},
    ],
    ids=str,
)
def test_a_checkpoint_with_an_entry_of_another_kind(refused, shapes, finished, tmp_path, change):
    path = damaged(finished / "checkpoint.pth", lambda content: content | change, tmp_path / "bad.pth")
    assert str(path) in refused(shapes, "--resume", path, "--epochs", 2)


def test_an_optimizer_state_that_would_fail_in_the_first_step(refused, shapes, finished, tmp_path):
    def shrink(content):
        content["optimizer"]["state"][3]["exp_avg"] = torch.zeros(2)
        return content

    path = damaged(finished / "checkpoint.pth", shrink, tmp_path / "bad.pth")
    assert str(path) in refused(shapes, "--resume", path, "--epochs", 2)


@pytest.mark.parametrize("flag", ["--resume", "--init_from"])
def test_a_checkpoint_of_another_architecture(refused, shapes, finished, flag):
    path = finished / "checkpoint.pth"
    for other in ("--hidden_dim 32", "--enc_layers 2", "--pre_norm", "--backbone resnet18"):
        error = refused(shapes, flag, path, "--epochs", 2, *other.split())
        assert str(path) in error and other.split()[0] in error


@pytest.mark.parametrize("flag", ["--resume", "--init_from", "--backbone_weights"])
def test_a_pickle_that_would_run_code_does_not_run_it(refused, shapes, tmp_path, flag):
    canary, path = tmp_path / "canary", tmp_path / "evil.pth"
    torch.save({"model": Canary(canary), "epoch": 0}, path)
    error = refused(shapes, flag, path)
    assert str(path) in error and "is not run" in error
    assert not canary.exists()
    torch.load(path, weights_only=False)
    assert canary.exists()  # the file was armed


def test_a_checkpoint_that_is_not_there_or_a_folder(refused, shapes, finished, tmp_path):
    for flag in ("--resume", "--init_from"):
        assert "nowhere.pth" in refused(shapes, flag, tmp_path / "nowhere.pth")
        assert str(finished) in refused(shapes, flag, finished)


def test_a_download_whose_hash_is_wrong(refused, shapes, finished, server, tmp_path):
    address, folder, _ = server
    name = serve(folder, torch.load(finished / "checkpoint.pth", weights_only=True), good_hash=False)
    for flag in ("--resume", "--init_from"):
        error = refused(shapes, flag, f"{address}/{name}", "--epochs", 2)
        assert f"{address}/{name}" in error and "hash" in error
    assert not list((tmp_path / "hub").rglob("*.pth"))
