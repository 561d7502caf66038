"""Checkpoints of wrappers and of other libraries: read where only names differ, recognised otherwise."""

import gzip
import io
import os
import sys
import tarfile
import types
import zipfile

import pytest
import torch

from util.checkpoint import CheckpointError, load_checkpoint, load_weights, save_checkpoint
from util.loading.checkpoint_entries import count_classes, model_of

WEIGHTS = {
    name: torch.ones(2, 2) * i
    for i, name in enumerate(("class_embed.weight", "query_embed.weight", "input_proj.weight", "b"))
}
SEGMENTER = {f"detr.{name}": value for name, value in WEIGHTS.items()} | {"mask_head.lay1.weight": torch.zeros(1)}


def prefixed(prefix, weights=WEIGHTS):
    return {prefix + name: value for name, value in weights.items()}


def loaded(tmp_path, content):
    save_checkpoint(tmp_path / "a.pth", content)
    return load_checkpoint(tmp_path / "a.pth")


def refusal(path):
    with pytest.raises(CheckpointError) as caught:
        model_of(load_checkpoint(path), str(path))
    return str(caught.value)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
def test_a_wrappers_prefix_is_removed_and_this_is_said(tmp_path, capsys, prefix):
    found = loaded(tmp_path, {"model": prefixed(prefix), "epoch": 3})
    assert list(found["model"]) == list(WEIGHTS) and found["epoch"] == 3
    assert capsys.readouterr().out.count(f"without the prefix `{prefix}`") == 1


@pytest.mark.parametrize("model", [WEIGHTS, SEGMENTER, {**prefixed("module."), "b": torch.zeros(1)}])
def test_names_without_a_common_prefix_stay(tmp_path, capsys, model):
    assert list(loaded(tmp_path, {"model": model})["model"]) == list(model)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("weights", [WEIGHTS, SEGMENTER], ids=["detector", "segmenter"])
@pytest.mark.parametrize(
    ("group", "prefix"),
    [("state_dict", "model."), ("state_dict", ""), ("state_dict", "model._orig_mod."), ("model_state_dict", "module.")]
    + [("ema_state_dict", "module."), ("net", ""), ("state_dict", "module.model.")],
)
def test_a_detector_under_another_programs_key_is_read(tmp_path, capsys, group, prefix, weights):
    found = loaded(tmp_path, {group: prefixed(prefix, weights), "epoch": 7, "global_step": 100})
    assert list(found) == ["model"]  # what else is in it means something else there
    assert list(found["model"]) == list(weights)
    out = capsys.readouterr().out
    assert out.count(f"are read from `{group}`") == 1 and (not prefix or f"prefix `{prefix}`" in out)


def test_parts_beside_the_detector_are_left_out_and_counted(tmp_path, capsys):
    found = loaded(tmp_path, {"state_dict": prefixed("model.") | {"criterion.empty_weight": torch.zeros(2)}})
    assert list(found["model"]) == list(WEIGHTS)
    assert "1 entries of other parts left out" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ({"class_labels_classifier.weight": 1, "model.query_position_embeddings.weight": 1}, "tools.convert FOLDER"),
        ({"model.backbone.conv_encoder.model.conv1.weight": 1}, "tools.convert FOLDER"),
        ({"state_dict": {"backbone.conv1.weight": 1, "bbox_head.fc_cls.weight": 1}, "meta": {}}, "mmdetection"),
        ({"backbone.body.conv1.weight": 1, "roi_heads.box_head.fc6.weight": 1}, "torchvision"),
        ({"conv1.weight": 1, "layer1.0.conv1.weight": 1, "fc.weight": 1}, "--backbone_weights"),
        ({"class_embed.weight": 1}, "these look like bare weights: save them under the key `model`"),
        ({"epoch": 1}, "pass another file"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_another_librarys_weights_are_named(tmp_path, content, sentence):
    def tensors(value):
        return {n: tensors(v) if isinstance(v, dict) else torch.zeros(1) for n, v in value.items()}

    save_checkpoint(tmp_path / "a.pth", content if "epoch" in content else tensors(content))
    assert sentence in refusal(tmp_path / "a.pth")


@pytest.mark.parametrize(
    ("names", "program"),
    [
        (["transformer.level_embed", "class_embed.0.weight"], "Deformable DETR"),
        (["class_embed.0.weight"], "Deformable DETR"),
        (["backbone.bottom_up.stem.conv1.weight"], "detectron2"),
        (["backbone.0.body.layer1.0.conv1.weight"], "pass another file"),
    ],
)
def test_what_is_not_a_detr_is_named(names, program):
    with pytest.raises(CheckpointError, match=f"a.pth is not a DETR .*{program}"):
        count_classes(dict.fromkeys(names, torch.zeros(1)), "a.pth")


def test_a_relative_of_detr_is_named_when_its_weights_do_not_fit():
    state = {"weight": torch.zeros(2, 2), "transformer.decoder.ref_point_head.layers.0.weight": torch.zeros(1)}
    with pytest.raises(CheckpointError, match="Conditional or DAB-DETR"):
        load_weights(torch.nn.Linear(2, 2, bias=False), state, "a.pth")


@pytest.mark.parametrize(
    ("package", "program"),
    [
        ("ultralytics", "YOLO"),
        ("pytorch_lightning", "Lightning"),
        ("mmengine", "mmdetection"),
        ("own", ""),
    ],
)
def test_classes_of_another_library_are_named(tmp_path, monkeypatch, package, program):
    module = types.ModuleType(package)
    module.Thing = type("Thing", (), {"__module__": package})
    monkeypatch.setitem(sys.modules, package, module)
    torch.save({"model": module.Thing()}, tmp_path / "a.pth")
    sentence = refusal(tmp_path / "a.pth")
    assert f"contains {package}.Thing, and code from a checkpoint is not run" in sentence
    assert ("looks like a" in sentence and program in sentence) if program else "looks like" not in sentence


def test_a_whole_model_is_recognised(tmp_path):
    torch.save(torch.nn.Linear(2, 2), tmp_path / "a.pth")
    assert "a whole model that was pickled: save its state_dict()" in refusal(tmp_path / "a.pth")


def packed(kind, content):
    buffer = io.BytesIO()
    if kind == "gzip":
        return gzip.compress(content)
    if kind == "zip":
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr("run/checkpoint.pth", content)
    else:
        with tarfile.open(fileobj=buffer, mode="w:gz" if kind == "tar.gz" else "w") as archive:
            entry = tarfile.TarInfo("checkpoint.pth")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["gzip", "zip", "tar", "tar.gz"])
def test_an_archive_given_as_checkpoint_is_named(tmp_path, kind):
    save_checkpoint(tmp_path / "whole.pth", {"model": WEIGHTS})
    (tmp_path / "a.pth").write_bytes(packed(kind, (tmp_path / "whole.pth").read_bytes()))
    sentence = refusal(tmp_path / "a.pth")
    assert "archive" in sentence and "unpack it and pass the file in it" in sentence


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"\x40\x00\x00\x00\x00\x00\x00\x00" + b'{"w":{"dtype":"F32"}}', "is a safetensors file.*tools.convert FOLDER"),
        (b"\x89PNG\r\n\x1a\n" + bytes(50), "since it is a PNG image"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "is text .*git lfs pull"),
        (b'{"model": 1}', "is text .it begins with '{"),
        (b"\x1b[2J\x1b]0;owned\x07", r"is text .it begins with '\\x1b\[2J"),
        (bytes(1000), "nothing but zeros"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_a_file_of_another_kind_is_named(tmp_path, content, sentence):
    (tmp_path / "a.pth").write_bytes(content)
    with pytest.raises(CheckpointError, match=sentence) as caught:
        load_checkpoint(tmp_path / "a.pth")
    assert "\x1b" not in str(caught.value)


def test_a_folder_of_hugging_face_is_recognised(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(CheckpointError, match="python -m tools.convert FOLDER checkpoint.pth"):
        load_checkpoint(tmp_path)


def test_an_address_of_another_kind_and_a_pipe_are_refused(tmp_path):
    with pytest.raises(CheckpointError, match="only http.s. is downloaded"):
        load_checkpoint("s3://bucket/checkpoint.pth")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(CheckpointError, match="is not a regular file"):
        load_checkpoint(tmp_path / "pipe")
