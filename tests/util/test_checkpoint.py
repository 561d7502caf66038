"""Checkpoints: what is written, what is read, and what is refused."""

import argparse
import io
import warnings
import zipfile

import numpy as np
import pytest
import torch
from torch import nn

from tests.helpers.checkpoint_files import Canary, published_checkpoint, small_model
from util.checkpoint import (
    CheckpointError,
    load_checkpoint,
    load_weights,
    save_checkpoint,
)

FORMATS = pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])


@pytest.fixture
def model():
    return small_model()


def assert_equal_states(a, b):
    assert list(a) == list(b)
    for name in a:
        assert torch.equal(a[name], b[name]), name


# ---- reading ----


@FORMATS
def test_a_published_checkpoint_loads_with_its_namespace_as_plain_data(tmp_path, model, zipped):
    saved = published_checkpoint(model)
    torch.save(saved, tmp_path / "detr.pth", _use_new_zipfile_serialization=zipped)
    loaded = load_checkpoint(tmp_path / "detr.pth")
    assert loaded["args"] == {"lr": 1e-4, "output_dir": "out/run", "betas": (0.9, 0.999), "resume": ""}
    assert type(loaded["args"]) is dict and type(loaded["args"]["output_dir"]) is str
    assert loaded["epoch"] == 7 and loaded["lr_scheduler"] == saved["lr_scheduler"]
    assert_equal_states(loaded["model"], saved["model"])
    torch.optim.AdamW(model.parameters()).load_state_dict(loaded["optimizer"])


@pytest.mark.parametrize(
    ("module", "name", "parts", "expected"),
    [
        ("pathlib", "WindowsPath", ("C:\\", "runs", "a"), "C:\\runs\\a"),
        ("pathlib", "PosixPath", ("/", "runs", "a"), "/runs/a"),
        ("pathlib._local", "PosixPath", ("runs/a",), "runs/a"),
    ],
)
def test_paths_of_other_systems_and_python_versions_load(tmp_path, module, name, parts, expected):
    content = b"\x80\x02}" + pickled("args") + b"}" + pickled("out") + f"c{module}\n{name}\n(".encode()
    rewrite_pickle(tmp_path / "a.pth", content + b"".join(map(pickled, parts)) + b"tRss.")
    assert load_checkpoint(tmp_path / "a.pth") == {"args": {"out": expected}}


def pickled(text):
    return b"X" + len(text).to_bytes(4, "little") + text.encode()


def rewrite_pickle(path, content):
    """A file of torch.save whose pickle is `content`."""
    buffer = io.BytesIO()
    torch.save({}, buffer)
    with zipfile.ZipFile(buffer) as source, zipfile.ZipFile(path, "w") as target:
        for name in source.namelist():
            target.writestr(name, content if name.endswith("/data.pkl") else source.read(name))


@FORMATS
def test_a_checkpoint_that_would_run_code_is_refused_and_does_not_run_it(tmp_path, model, zipped):
    canary = tmp_path / "canary"
    content = published_checkpoint(model, extra=Canary(canary))
    torch.save(content, tmp_path / "evil.pth", _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match=r"evil\.pth contains (posix|nt)\.mkdir, and code .* is not run"):
        load_checkpoint(tmp_path / "evil.pth")
    assert not canary.exists()
    torch.load(tmp_path / "evil.pth", weights_only=False)
    assert canary.exists()  # the file was armed


def test_an_environment_variable_cannot_turn_the_safety_off(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    torch.save({"model": Canary(tmp_path / "canary")}, tmp_path / "evil.pth")
    with pytest.raises(CheckpointError, match="is not run"):
        load_checkpoint(tmp_path / "evil.pth")
    assert not (tmp_path / "canary").exists()


def test_a_class_beyond_the_allow_list_is_named(tmp_path):
    torch.save({"lr_scheduler": {"last_lr": np.float64(0.1)}}, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match=r"contains numpy\._?core\.multiarray\.scalar"):
        load_checkpoint(tmp_path / "a.pth")


def broken_files(folder):
    torch.save({"model": {"w": torch.zeros(1000)}}, folder / "whole.pth")
    whole = (folder / "whole.pth").read_bytes()
    torch.save({"model": {"w": torch.zeros(1000)}}, folder / "legacy.pth", _use_new_zipfile_serialization=False)
    torch.save([1, 2], folder / "list.pth")
    legacy = (folder / "legacy.pth").read_bytes()
    return {
        "empty.pth": (b"", "is empty.*copy it again"),
        "cut.pth": (whole[: len(whole) // 2], "is truncated or damaged.*copy or download it again"),
        "old_cut.pth": (legacy[: len(legacy) // 2], "cannot be read"),
        "noise.pth": (bytes(range(128, 256)) * 20, "cannot be read"),
        "page.pth": (b"<!DOCTYPE html>\n<html>", "is text .it begins with '<!DOCTYPE html>'.*download it again"),
        "list.pth": ((folder / "list.pth").read_bytes(), "contains a list, not a dictionary"),
    }


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("name", ["empty.pth", "cut.pth", "old_cut.pth", "noise.pth", "page.pth", "list.pth"])
def test_a_broken_file_is_named_with_cause_and_advice(tmp_path, name):
    content, message = broken_files(tmp_path)[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=message) as caught:
        load_checkpoint(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_damaged_pickle_is_explained(tmp_path):
    rewrite_pickle(tmp_path / "a.pth", b"\x80\x02}q\x00\xe9")
    with pytest.raises(CheckpointError, match=r"a\.pth is truncated or damaged \(Unsupported operand 233\)") as caught:
        load_checkpoint(tmp_path / "a.pth")
    assert "weights_only" not in str(caught.value)  # as torch advises


def test_a_missing_file_and_a_folder_are_errors_that_help(tmp_path):
    with pytest.raises(CheckpointError, match="there is no checkpoint .*nowhere.pth"):
        load_checkpoint(tmp_path / "nowhere.pth")
    save_checkpoint(tmp_path / "checkpoint.pth", {"epoch": 1})
    with pytest.raises(CheckpointError, match="is a folder, .* such as checkpoint.pth"):
        load_checkpoint(tmp_path)


# ---- writing ----


def test_what_is_saved_needs_no_allow_list_and_loads_unchanged(tmp_path, model):
    saved = published_checkpoint(model, classes=[{"id": np.int64(1), "name": "cell"}], order=np.arange(3))
    save_checkpoint(tmp_path / "checkpoint.pth", saved)
    raw = torch.load(tmp_path / "checkpoint.pth", weights_only=True)
    assert raw["args"] == {"lr": 1e-4, "output_dir": "out/run", "betas": (0.9, 0.999), "resume": ""}
    loaded = load_checkpoint(tmp_path / "checkpoint.pth")
    assert loaded["classes"] == [{"id": 1, "name": "cell"}] and torch.equal(loaded["order"], torch.arange(3))
    assert loaded["optimizer"]["param_groups"] == saved["optimizer"]["param_groups"]
    assert_equal_states(loaded["model"], saved["model"])
    assert loaded["model"]._metadata == saved["model"]._metadata


def test_what_cannot_be_converted_is_named_by_its_keys_and_nothing_is_written(tmp_path):
    with pytest.raises(TypeError, match=r"args\.hooks\[1\] is a builtins\.function, .*store its state"):
        save_checkpoint(tmp_path / "run" / "a.pth", {"args": argparse.Namespace(hooks=[1, lambda: 0])})
    assert not list(tmp_path.iterdir())


def fails(error):
    def failing(*_, **__):
        raise error

    return failing


@pytest.mark.parametrize("step", ["torch.save", "os.replace", "os.fsync"])
@pytest.mark.parametrize("error", [OSError("no space left"), KeyboardInterrupt()], ids=["full disk", "interrupt"])
def test_an_interrupted_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, step, error):
    save_checkpoint(tmp_path / "checkpoint.pth", {"epoch": 1})
    monkeypatch.setattr(step, fails(error))
    with pytest.raises(type(error)):
        save_checkpoint(tmp_path / "checkpoint.pth", {"epoch": 2})
    monkeypatch.undo()
    assert load_checkpoint(tmp_path / "checkpoint.pth") == {"epoch": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.pth"]


# ---- weights into a model ----


def test_fitting_weights_are_loaded(model):
    state = {name: torch.ones_like(value) for name, value in model.state_dict().items()}
    load_weights(model, state, "a.pth")
    assert all((value == 1).all() for value in model.state_dict().values())


def test_mismatches_are_named_with_the_flags_and_nothing_is_loaded(model):
    state = {name: torch.ones_like(value) for name, value in model.state_dict().items()}
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state["class_embed.weight"] = torch.ones(9, 4)
    del state["input_proj.bias"]
    state |= {f"transformer.encoder.layers.{i}.weight": torch.ones(1) for i in range(5)}
    with pytest.raises(CheckpointError) as caught:
        load_weights(model, state, "a.pth")
    message = str(caught.value)
    for part in (
        "the weights of a.pth do not fit the model",
        "1 missing (input_proj.bias)",
        "5 not in the model (transformer.encoder.layers.0.weight, ",
        "1 of a different shape (class_embed.weight is [9, 4] in the file and [5, 4] in the model)",
        "--num_classes",
        "--enc_layers",
        "--backbone",
    ):
        assert part in message
    assert "layers.3" not in message
    assert_equal_states(model.state_dict(), before)


@pytest.mark.parametrize(
    ("wrap", "hint"),
    [
        (lambda state: {"model": state, "epoch": 1}, "pass its `model` entry"),
        (lambda state: {f"module.{name}": value for name, value in state.items()}, "DistributedDataParallel"),
        (lambda state: {f"detr.{name}": value for name, value in state.items()}, "--masks"),
    ],
    ids=["whole checkpoint", "DDP", "masks"],
)
def test_common_mix_ups_are_recognised(model, wrap, hint):
    with pytest.raises(CheckpointError, match=hint):
        load_weights(model, wrap(model.state_dict()), "a.pth")


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        (torch.full((5, 4), float("nan")), "contains non-finite values"),
        (torch.full((5, 4), 1e300, dtype=torch.float64), "contains non-finite values"),  # in float32
        (torch.zeros(5, 4, dtype=torch.int64), "has type torch.int64 instead of torch.float32"),
        (torch.zeros(5, 4, dtype=torch.complex64), "has type torch.complex64"),
        (torch.zeros(5, 4, device="meta"), "is not a plain dense tensor"),
        (torch.zeros(5, 4).to_sparse(), "is not a plain dense tensor"),
        (torch.quantize_per_tensor(torch.zeros(5, 4), 1.0, 0, torch.qint8), "is not a plain dense tensor"),
        (torch.nested.nested_tensor([torch.zeros(4), torch.zeros(2)]), "is not a plain dense tensor"),
        ([[0.0] * 4] * 5, "is a list"),
        (None, "is a NoneType"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*quantize", "ignore:.*nested tensors")
def test_unusable_weights_are_named_and_nothing_is_loaded(model, value, fault):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = {name: torch.ones_like(value) for name, value in model.state_dict().items()}
    state["class_embed.weight"] = value
    with pytest.raises(CheckpointError, match=rf"a\.pth cannot be loaded: 1 unusable \(class_embed\.weight {fault}"):
        load_weights(model, state, "a.pth")
    assert_equal_states(model.state_dict(), before)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_weights_of_another_precision_are_loaded(model, dtype):
    floating = {name: torch.ones_like(v) for name, v in model.state_dict().items() if v.is_floating_point()}
    load_weights(model, model.state_dict() | {name: value.to(dtype) for name, value in floating.items()}, "a.pth")
    loaded = model.state_dict()
    assert all(loaded[name].dtype == torch.float32 and (loaded[name] == 1).all() for name in floating)


@pytest.mark.parametrize("state", [None, [], "weights", torch.zeros(3)])
def test_weights_that_are_not_a_dictionary_are_refused(model, state):
    with pytest.raises(CheckpointError, match="the weights of a.pth are not a dictionary"):
        load_weights(model, state, "a.pth")


def test_names_that_are_not_strings_are_not_in_the_model(model):
    with pytest.raises(CheckpointError, match=r"1 not in the model \(7\)"):
        load_weights(model, {**model.state_dict(), 7: torch.zeros(1)}, "a.pth")


def test_long_and_hostile_names_are_cut_and_escaped(model):
    with pytest.raises(CheckpointError, match=r"1 not in the model \(\\x1b\[31mx+…\)") as raised:
        load_weights(model, {**model.state_dict(), "\x1b[31m" + "x" * 10**5: torch.zeros(1)}, "a.pth")
    assert len(str(raised.value)) < 1000


def test_weights_without_any_name_of_a_detector_seem_to_belong_to_another_model():
    with pytest.raises(CheckpointError, match=r"1 missing \(weight\).*another model"):
        load_weights(nn.Linear(2, 2, bias=False), {}, "a.pth")


def test_saving_and_loading_are_quiet(tmp_path, model):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        save_checkpoint(tmp_path / "a.pth", published_checkpoint(model))
        load_weights(model, load_checkpoint(tmp_path / "a.pth")["model"], "a.pth")
