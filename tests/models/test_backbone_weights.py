"""Weights of the backbone: torchvision's, a local file or none; which of them `build_backbone` loads."""

import argparse
import hashlib
import pickle
from pathlib import Path

import pytest
import torch
import torchvision

import models.backbone as backbone_module
from models.backbone import Backbone, build_backbone, group_norm
from models.resnet import build_resnet
from util.nested_tensor import nested_tensor_from_tensor_list

pytest_plugins = ["tests.helpers.file_server"]  # the fixture `server`


def backbone_args(**changes) -> argparse.Namespace:
    published = {
        "backbone": "resnet18",
        "lr_backbone": 1e-5,
        "masks": False,
        "dilation": False,
        "hidden_dim": 32,
        "position_embedding": "sine",
    }
    return argparse.Namespace(**{**published, **changes})


@pytest.fixture
def hub_cache(server, tmp_path, monkeypatch) -> Path:
    """The download folder of an empty torch.hub cache, whose ImageNet weights come from a server on this machine."""
    monkeypatch.setattr(backbone_module, "IMAGENET_URL", f"{server[0]}/")
    return tmp_path / "hub" / "checkpoints"


def serve(server, monkeypatch, state: dict, digest: str | None = None) -> Path:
    """Serve a resnet18 state as the ImageNet file, with its hash (or `digest`) in its name."""
    folder = server[1]
    draft = folder / "draft.pth"
    torch.save(state, draft)
    digest = digest or hashlib.sha256(draft.read_bytes()).hexdigest()[:8]
    served = draft.rename(folder / f"resnet18-{digest}.pth")
    monkeypatch.setitem(backbone_module.IMAGENET_FILES, "resnet18", served.name)
    return served


@pytest.fixture
def imagenet_state() -> dict:
    torch.manual_seed(5)
    return torchvision.models.resnet18(weights=None).state_dict()


def test_imagenet_files_are_torchvisions_v1():
    for name, filename in backbone_module.IMAGENET_FILES.items():
        weights = torchvision.models.get_model_weights(name).IMAGENET1K_V1
        assert backbone_module.IMAGENET_URL + filename == weights.url


@pytest.mark.parametrize("norm", ["frozen_bn", "bn"])
def test_imagenet_weights_are_downloaded_once(norm, server, monkeypatch, hub_cache, imagenet_state):
    imagenet_state["bn1.running_mean"] += 3
    served = serve(server, monkeypatch, imagenet_state)
    first = Backbone("resnet18", True, False, False, norm=norm, weights="imagenet").state_dict()
    assert (hub_cache / served.name).is_file()
    served.unlink()
    second = Backbone("resnet18", True, False, False, norm=norm, weights="imagenet").state_dict()
    for key in first:
        expected = imagenet_state[key.removeprefix("body.")]
        assert torch.equal(first[key], expected) and torch.equal(second[key], expected)


def test_imagenet_weights_without_counters_fit_batch_norm(server, monkeypatch, hub_cache, imagenet_state):
    state = {key: value for key, value in imagenet_state.items() if not key.endswith("num_batches_tracked")}
    serve(server, monkeypatch, state)
    backbone = Backbone("resnet18", True, False, False, norm="bn", weights="imagenet")
    assert torch.equal(backbone.body.conv1.weight, state["conv1.weight"])


def test_wrong_hash_is_refused(server, monkeypatch, hub_cache, imagenet_state):
    served = serve(server, monkeypatch, imagenet_state, digest="00000000")
    with pytest.raises(RuntimeError, match=f"{served.name} does not match the hash in its name"):
        Backbone("resnet18", True, False, False, weights="imagenet")
    assert not (hub_cache / served.name).exists()


def test_the_offline_error_contains_file_folder_and_flag(monkeypatch, hub_cache):
    monkeypatch.setattr(backbone_module, "IMAGENET_URL", "http://127.0.0.1:9/")
    with pytest.raises(RuntimeError) as caught:
        Backbone("resnet50", True, False, False, weights="imagenet")
    for part in ("resnet50-0676ba61.pth", str(hub_cache), "--backbone_weights none"):
        assert part in str(caught.value)


@pytest.mark.parametrize("damage", [b"", b"<html>not found</html>"])
def test_a_damaged_file_in_the_cache_is_downloaded_again(damage, server, monkeypatch, hub_cache, imagenet_state):
    served = serve(server, monkeypatch, imagenet_state)
    hub_cache.mkdir(parents=True)
    (hub_cache / served.name).write_bytes(damage)
    backbone = Backbone("resnet18", True, False, False, weights="imagenet")
    assert torch.equal(backbone.body.conv1.weight, imagenet_state["conv1.weight"])


@pytest.mark.parametrize("fault", ["missing", "unknown", "shape"])
def test_weights_that_do_not_fit_are_an_error_with_the_keys(fault, tmp_path, imagenet_state):
    if fault == "missing":
        key = "layer3.0.bn2.running_var"
        del imagenet_state[key]
    elif fault == "unknown":
        key = "layer5.weight"
        imagenet_state[key] = torch.zeros(1)
    else:
        key = "layer1.0.conv1.weight"
        imagenet_state[key] = torch.zeros(64, 64, 1, 1)
    path = tmp_path / "weights.pth"
    torch.save(imagenet_state, path)
    with pytest.raises(RuntimeError, match=f"weights.pth do not fit.*{key}"):
        Backbone("resnet18", True, False, False, weights=str(path))


def test_weights_from_a_local_file(tmp_path):
    source = build_resnet("tiny", norm_layer=group_norm)
    torch.save(source.state_dict(), tmp_path / "tiny.pth")
    backbone = Backbone("tiny", True, False, False, norm="gn", weights=str(tmp_path / "tiny.pth"))
    for key, value in source.state_dict().items():
        assert torch.equal(backbone.state_dict()[f"body.{key}"], value)


def test_a_missing_local_file_is_an_error_with_its_name(tmp_path):
    with pytest.raises(FileNotFoundError, match="absent.pth.*--backbone_weights"):
        Backbone("tiny", True, False, False, weights=str(tmp_path / "absent.pth"))


class Intruder:
    def __reduce__(self):
        return (Path.touch, (Path("intruder_was_here"),))


def test_local_file_that_runs_code_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"conv1.weight": Intruder()}, tmp_path / "evil.pth", pickle_module=pickle)
    with pytest.raises(RuntimeError, match="evil.pth"):
        Backbone("tiny", True, False, False, weights="evil.pth")
    assert not (tmp_path / "intruder_was_here").exists()


def test_only_the_main_process_reads_weights(tmp_path, monkeypatch, no_network):
    monkeypatch.setattr(backbone_module, "is_main_process", lambda: False)
    Backbone("tiny", True, False, False, weights=str(tmp_path / "absent.pth"))
    Backbone("resnet18", True, False, False, weights="imagenet")


@pytest.mark.parametrize("weights", [None, "none"])
def test_without_weights_there_is_no_download_and_no_warning(weights, no_network, recwarn):
    Backbone("resnet18", True, False, False, weights=weights)
    assert not recwarn.list


def test_tiny_has_no_imagenet_weights():
    with pytest.raises(ValueError, match="tiny.*--backbone_weights none"):
        Backbone("tiny", True, False, False, weights="imagenet")


def test_group_norm_has_no_imagenet_weights():
    with pytest.raises(ValueError, match="--backbone_norm gn.*--backbone_weights none"):
        Backbone("resnet18", True, False, False, norm="gn", weights="imagenet")


# --- build_backbone ---


def test_build_loads_imagenet_weights_by_default(server, monkeypatch, hub_cache, imagenet_state):
    serve(server, monkeypatch, imagenet_state)
    model = build_backbone(backbone_args())
    assert torch.equal(model[0].body.conv1.weight, imagenet_state["conv1.weight"])
    assert model.num_channels == 512


@pytest.mark.parametrize("flag", ["resume", "init_from", "frozen_weights"])
def test_build_loads_nothing_if_a_checkpoint_follows(flag, no_network, recwarn):
    build_backbone(backbone_args(**{flag: "run/checkpoint.pth"}))
    build_backbone(backbone_args(backbone="tiny", backbone_weights="none", **{flag: "run/checkpoint.pth"}))
    assert not recwarn.list


@pytest.mark.parametrize("changes", [{}, {"trainable_layers": 4}, {"trainable_layers": 5, "lr_backbone": 0}])
def test_build_warns_of_random_frozen_layers_and_keeps_them(changes):
    args = backbone_args(backbone="tiny", backbone_weights="none", **changes)
    with pytest.warns(UserWarning, match="random weights.*--trainable_layers 5"):
        model = build_backbone(args)
    assert not model[0].body.conv1.weight.requires_grad


def test_build_from_scratch_with_all_layers_does_not_warn(recwarn):
    model = build_backbone(
        backbone_args(backbone="tiny", backbone_weights="none", trainable_layers=5, backbone_norm="gn")
    )
    assert not recwarn.list
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_build_freezes_all_layers_at_learning_rate_zero():
    with pytest.warns(UserWarning):
        model = build_backbone(backbone_args(backbone="tiny", backbone_weights="none", lr_backbone=0))
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_build_returns_all_levels_for_masks_and_dilates():
    with pytest.warns(UserWarning):
        model = build_backbone(backbone_args(backbone="tiny", backbone_weights="none", masks=True, dilation=True))
    features, positions = model(nested_tensor_from_tensor_list([torch.zeros(3, 64, 64)]))
    assert [feature.tensors.shape[-1] for feature in features] == [16, 8, 4, 4]
    assert all(position.shape[1] == 32 for position in positions)
