"""What a small checkpoint file must not do: become large, or endless, or be damaged without a word."""

import argparse
import pickle
import pickletools
import re
import struct
import tracemalloc
import warnings
import zipfile
from collections import Counter, OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.helpers.checkpoint_files import Canary, published_checkpoint, refusal, small_model
from util.checkpoint import CheckpointError, load_checkpoint
from util.loading import pickle_machine
from util.loading import survey as survey_module
from util.loading.archive import Damaged
from util.loading.survey import survey

FORMATS = pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])


def written(path, content, zipped=True):
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    return path


# ---- what is read ----


def everything():
    parameter = torch.nn.Parameter(torch.ones(3))
    named = torch.ones(2)
    named.note = "seen"
    return {
        "model": OrderedDict(a=parameter, b=torch.arange(10)[3:7], c=torch.ones(2, 3).t(), d=torch.zeros(())),
        "types": [torch.zeros(2, dtype=kind) for kind in (torch.int16, torch.bool, torch.bfloat16, torch.complex64)],
        "small": torch.zeros(1, 4).expand(1000, 4),
        "tied": [parameter] * 4,
        "named": named,
        "empty": torch.zeros(0, 4),
        "args": argparse.Namespace(lr=1e-4, path=Path("a/b"), betas=(0.9, 0.999)),
        "counts": Counter("aab"),
        "set": {1, 2, "three"},
        "numbers": [-5, 2**70, 1.5, float("nan"), 1j, True, None],
        "bytes": b"\x00\xff",
        "torch": [torch.float32, torch.device("cpu"), torch.Size([1, 2])],
    }


@FORMATS
def test_all_that_torch_reads_safely_is_read(tmp_path, zipped):
    loaded = load_checkpoint(written(tmp_path / "a.pth", everything(), zipped))
    assert loaded["set"] == {1, 2, "three"} and loaded["numbers"][1] == 2**70 and loaded["bytes"] == b"\x00\xff"
    assert loaded["counts"] == Counter("aab") and loaded["model"]["b"].tolist() == [3, 4, 5, 6]


def test_a_dtype_without_a_storage_class_of_its_own_is_read(tmp_path):
    numbers = torch.arange(5).to(torch.uint16)
    path = written(tmp_path / "a.pth", {"a": numbers, "b": torch.ones(3).to(torch.float8_e5m2)})
    assert torch.equal(load_checkpoint(path)["a"], numbers)


@FORMATS
def test_it_says_what_the_file_holds(tmp_path, zipped):
    content = published_checkpoint(small_model())
    contents = survey(written(tmp_path / "a.pth", content, zipped))
    assert contents.keys == content.keys()
    assert "argparse.Namespace" in contents.classes and "torch._utils._rebuild_tensor_v2" in contents.classes


def test_nothing_is_called(tmp_path):
    canary = tmp_path / "canary"
    assert "posix.mkdir" in survey(written(tmp_path / "a.pth", {"model": Canary(canary)})).classes
    assert not canary.exists()


def test_an_evaluation_file_of_the_published_code_is_read(tmp_path):
    content = {"params": argparse.Namespace(ids=[1]), "precision": np.zeros((10, 101, 3)), "when": np.float64(2)}
    classes = [
        np.ndarray,
        np.dtype,
        type(np.dtype("float64")),
        (np.empty(0).__reduce__()[0], "numpy.core.multiarray._reconstruct"),
    ]
    classes += [(np.empty(0).__reduce__()[0], "numpy._core.multiarray._reconstruct")]
    classes += [(np.float64().__reduce__()[0], f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")]
    loaded = load_checkpoint(written(tmp_path / "latest.pth", content), also_allowed=classes)
    assert loaded["precision"].shape == (10, 101, 3)


# ---- small files that would become large ----


def doubled(value, times, factor=2):
    for _ in range(times):
        value = [value] * factor
    return value


def itself():
    value = {}
    value["self"] = value
    return value


def deep(levels):
    value = "end"
    for _ in range(levels):
        value = (value,)
    return value


LARGE = {
    "lists shared in lists": (lambda: doubled("a", 9, 10), "would become more than 2,000,000 entries"),
    "dictionaries shared": (lambda: {"k": doubled({"a": 1}, 30)}, "would become more than 2,000,000 entries"),
    "a long text repeated": (lambda: ["x" * 10**6] * 200, "values are repeated"),
    "deep": (lambda: deep(70), "is nested more than 64 levels deep"),
    "very deep": (lambda: deep(300), "is nested more than 64 levels deep"),
    "a cycle": (itself, "contains itself"),
    "an expanded view": (lambda: torch.zeros(1, 4).expand(10**7, 4), "values are repeated"),
    "views of one tensor": (lambda: [torch.zeros(2**20)] * 100, "values are repeated"),
    "overlapping views": (lambda: torch.zeros(6000).as_strided((6000, 5000), (1, 0)), "values are repeated"),
    "keys with chosen hashes": (
        lambda: {k * (2**61 - 1): 0 for k in range(1, 1500)},
        "neither text nor small integers",
    ),
}


@FORMATS
@pytest.mark.parametrize("where", ["args", "record", "categories", "optimizer", "model"])
@pytest.mark.parametrize("kind", LARGE)
def test_a_small_file_does_not_become_large(tmp_path, kind, where, zipped):
    make, sentence = LARGE[kind]
    found = refusal(written(tmp_path / "a.pth", {"epoch": 0, where: make()}, zipped))
    assert re.search(sentence, found), found


def test_a_key_that_takes_for_ever_to_hash_is_refused(tmp_path):
    nested = b")" + b"q\x00h\x00\x86" * 100  # a tuple of two tuples of two tuples …
    rewrite_pickle(tmp_path / "a.pth", b"\x80\x02}" + nested + b"K\x00s.")
    assert "keys that are neither text nor small integers" in refusal(tmp_path / "a.pth")


def rewrite_pickle(path, content):
    """A file of torch.save whose pickle is `content`."""
    torch.save({}, path)
    with zipfile.ZipFile(path) as source:
        records = {name: source.read(name) for name in source.namelist()}
    with zipfile.ZipFile(path, "w") as target:
        for name, data in records.items():
            target.writestr(name, content if name.endswith("/data.pkl") else data)


@FORMATS
@pytest.mark.filterwarnings("ignore:.*")
@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)]), "holds a nested tensor"),
        (lambda: torch.zeros(3).to_sparse(), "holds a sparse tensor"),
        (lambda: torch.zeros(3, 3).to_sparse_csr(), "holds a sparse tensor"),
        (lambda: torch.zeros(3, device="meta"), "holds a tensor without values (device meta)"),
        (lambda: torch.quantize_per_tensor(torch.zeros(3), 1.0, 0, torch.qint8), "holds a quantized tensor"),
    ],
)
def test_a_tensor_of_another_kind_is_named(tmp_path, make, sentence, zipped):
    found = refusal(written(tmp_path / "a.pth", {"model": {"w": make()}}, zipped))
    assert f"{sentence} (in `model.w`)" in found


def test_a_pickle_that_is_nested_without_end_is_refused(tmp_path):
    rewrite_pickle(tmp_path / "a.pth", b"\x80\x02}X\x04\x00\x00\x00args)" + b"\x85" * 50_000 + b"s.")
    assert "is nested more than 64 levels deep" in refusal(tmp_path / "a.pth")


def test_levels_behind_a_shared_value_count_too(tmp_path):
    shared = deep(40)
    path = written(
        tmp_path / "a.pth", {"epoch": 0, "args": {"seen": shared, "below": [[shared]] * 2, "far": within(shared, 40)}}
    )
    assert "is nested more than 64 levels deep" in refusal(path)


def within(value, levels):
    for _ in range(levels):
        value = [value]
    return value


def test_a_pickle_of_very_many_instructions_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(pickle_machine, "MAX_STEPS", 1000)
    path = written(tmp_path / "a.pth", {"epoch": 0, "list": list(range(1001))})
    assert "holds a pickle of more than 1,000 instructions" in refusal(path)


def test_as_many_classes_as_the_rules_allow_stay_below_the_limits():
    classes = [{"id": number, "name": f"class {number}"} for number in range(100_000)]
    machine_steps = sum(1 for _ in pickletools.genops(pickle.dumps(classes, protocol=2)))
    assert machine_steps < pickle_machine.MAX_STEPS / 2
    survey_module.measure(classes, size=10**6)


def reduced(module, name, arguments):
    """A pickle that calls a function."""
    return b"\x80\x02}" + text("epoch") + f"c{module}\n{name}\n".encode() + arguments + b"Rs."


def text(value):
    return b"X" + struct.pack("<I", len(value)) + value.encode()


HUGE = b"\x8a\x05" + (10**11).to_bytes(5, "little")


@pytest.mark.parametrize(
    ("module", "name", "arguments"),
    [
        ("builtins", "bytearray", HUGE + b"\x85"),
        ("torch", "FloatTensor", HUGE + b"\x85"),
        ("torch", "Tensor", HUGE + b"\x85"),
        ("torch.storage", "TypedStorage", HUGE + b"\x85"),
        ("torch", "FloatStorage", HUGE + b"\x85"),
        ("numpy", "ndarray", HUGE + b"\x85\x85"),
    ],
)
def test_memory_is_not_asked_for_by_its_size_alone(tmp_path, module, name, arguments):
    rewrite_pickle(tmp_path / "a.pth", reduced(module, name, arguments))
    with pytest.raises(CheckpointError):
        load_checkpoint(tmp_path / "a.pth", also_allowed=[np.ndarray])


def test_a_legacy_file_cannot_claim_storage_that_it_lacks(tmp_path):
    whole = written(tmp_path / "a.pth", {"model": {"w": torch.zeros(77)}}, zipped=False).read_bytes()
    assert whole.count(b"K\x4d") == 2  # in the storage's size and in the tensor's shape
    (tmp_path / "a.pth").write_bytes(whole.replace(b"K\x4d", b"J\xff\xff\xff\x7f"))
    assert "cannot be read" in refusal(tmp_path / "a.pth")
    with pytest.raises(Damaged, match="its tensors have 8,589,934,588 bytes"):
        survey(tmp_path / "a.pth")  # before torch asks for that memory


def test_a_tensor_cannot_reach_past_its_values(tmp_path):
    whole = written(tmp_path / "a.pth", {"model": {"w": torch.zeros(77)}})
    with zipfile.ZipFile(whole) as source:
        content = next(source.read(name) for name in source.namelist() if name.endswith("/data.pkl"))
    first, second = content.index(b"K\x4d"), content.rindex(b"K\x4d")
    for place in (first, second):
        damaged = content[:place] + b"K\x4e" + content[place + 2 :]
        with zipfile.ZipFile(whole) as source, zipfile.ZipFile(tmp_path / "b.pth", "w") as target:
            for name in source.namelist():
                target.writestr(name, damaged if name.endswith("/data.pkl") else source.read(name))
        assert "is truncated or damaged" in refusal(tmp_path / "b.pth")
        with pytest.raises(Damaged, match=r"the storage 0 has 308 bytes of 312|shape \[78\] reaches past the end"):
            survey(tmp_path / "b.pth")  # torch may read past the end


def test_a_damaged_length_takes_no_memory(tmp_path):
    path = tmp_path / "a.pth"
    path.write_bytes(b"\x80\x02X" + struct.pack("<I", 2**31) + b"name")
    tracemalloc.start()
    try:
        refusal(path)
        assert tracemalloc.get_traced_memory()[1] < 2**26
    finally:
        tracemalloc.stop()


def test_a_damaged_text_is_not_printed_in_a_warning(tmp_path):
    path = tmp_path / "a.pth"
    path.write_bytes(b"\x80\x02S'\\\x01\xe2'\n.")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        refusal(path)
    assert not said
