"""Exported files from addresses and from strangers: checked, and none runs code or reads other files."""

import hashlib
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from prediction.predictor import Predictor
from tests.prediction.exported.toy_detector import SUFFIXES, write_toy
from util.checkpoint import CheckpointError
from util.loading import download

pytest.importorskip("onnxruntime", reason="onnxruntime runs the exported file")
pytest.importorskip("onnxscript", reason="onnxscript writes it")
pytest_plugins = ["tests.helpers.file_server"]  # the fixture `server`
needs_openvino = pytest.mark.skipif(".xml" not in SUFFIXES, reason="needs openvino")
WHITE = np.full((96, 96, 3), 255, np.uint8)


@pytest.fixture(scope="module")
def toy(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("toy")
    write_toy(folder)
    return folder


# ---- addresses ----


@pytest.fixture
def served(server, toy) -> tuple[str, Path, list[str]]:
    """(address, served folder, requests so far)"""
    address, folder, requests = server
    shutil.copytree(toy, folder, dirs_exist_ok=True)
    return address, folder, requests


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_address_gives_the_same_as_the_file_and_is_loaded_once(served, toy, suffix):
    address, _, requests = served
    for _ in range(2):
        found = Predictor(f"{address}/toy{suffix}?version=1#here")(WHITE).to_dicts()
        assert found == Predictor(toy / f"toy{suffix}")(WHITE).to_dicts() != []
    files = {".xml": ["/toy.xml?version=1", "/toy.bin?version=1"]}.get(suffix, [f"/toy{suffix}?version=1"])
    assert sorted(set(requests)) == sorted(files)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_hash_in_the_name_is_checked(served, suffix):
    address, folder, _ = served
    digest = hashlib.sha256((folder / f"toy{suffix}").read_bytes()).hexdigest()[:8]
    for file in folder.glob("toy.*"):
        shutil.copy(file, folder / f"toy-{digest}{file.suffix}")
        shutil.copy(file, folder / f"toy-{'0' * 8}{file.suffix}")
    assert Predictor(f"{address}/toy-{digest}{suffix}").is_exported
    with pytest.raises(CheckpointError, match=r"toy-0{8}\.\w+ does not match the hash in its name"):
        Predictor(f"{address}/toy-{'0' * 8}{suffix}")


@needs_openvino
def test_an_xml_takes_only_the_weights_that_it_was_written_with(served, toy, tmp_path):
    address, folder, _ = served
    weights = bytearray((toy / "toy.bin").read_bytes())
    weights[3] ^= 1
    (folder / "toy.bin").write_bytes(weights)
    for source, name in ((f"{address}/toy.xml", f"{address}/toy.bin"), (folder / "toy.xml", str(folder / "toy.bin"))):
        with pytest.raises(CheckpointError, match=rf"{name} is not the file that toy.* was written with: copy both"):
            Predictor(source)
    shutil.copy(toy / "toy.bin", folder)
    assert Predictor(f"{address}/toy.xml").is_exported  # the copies of before are forgotten


@needs_openvino
def test_a_missing_bin_is_said_with_its_address(served):
    address, folder, _ = served
    (folder / "toy.bin").unlink()
    with pytest.raises(CheckpointError, match=rf"{address}/toy.bin could not be downloaded .*404.*download both"):
        Predictor(f"{address}/toy.xml")


def test_a_damaged_file_is_named_by_its_address_and_loaded_again(served, toy):
    address, folder, _ = served
    (folder / "toy.onnx").write_bytes((toy / "toy.onnx").read_bytes()[:3000])
    with pytest.raises(
        CheckpointError, match=f"the exported file {address}/toy.onnx cannot be used .* download it again"
    ):
        Predictor(f"{address}/toy.onnx")
    assert not download.cache_path(f"{address}/toy.onnx").exists()
    shutil.copy(toy / "toy.onnx", folder)
    assert Predictor(f"{address}/toy.onnx").is_exported


def test_a_checkpoint_at_an_address_may_be_named_pt2(server, tmp_path):
    address, folder, _ = server
    shutil.copy(Path(__file__).parents[3] / "weights" / "detr_tiny_shapes.pth", folder / "weights.pt2")
    assert not Predictor(f"{address}/weights.pt2", "cpu").is_exported


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.onnx", b"<!DOCTYPE html><html></html>", "an HTML page, not an exported file: .* download the file itself"),
        ("a.xml", b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer.*git lfs pull"),
        ("a.onnx", b"", "is empty, not an exported file"),
        ("a.onnx", b"PK\x03\x04" + bytes(100), "a ZIP archive, .* the name of a checkpoint ends in .pth"),
        ("a.xml", b"\x08\x07", "cannot be used .it is no XML.: copy it and its .bin again"),
    ],
)
def test_other_files_are_recognised(tmp_path, name, content, words):
    if name.endswith(".xml"):
        pytest.importorskip("openvino", reason="openvino reads it")
    (tmp_path / name).write_bytes(content)
    (tmp_path / "a.bin").write_bytes(b"x")
    with pytest.raises(CheckpointError, match=words):
        Predictor(tmp_path / name)


# ---- .onnx ----


@pytest.mark.parametrize("location", ["secret.bin", "../secret.bin", "/etc/passwd"])
@pytest.mark.parametrize("place", ["initializer", "constant", "function"])
def test_an_onnx_file_reads_no_other_file(toy, tmp_path, monkeypatch, location, place):
    import onnx

    for folder in (tmp_path, tmp_path / "in"):
        folder.mkdir(exist_ok=True)
        (folder / "secret.bin").write_bytes(b"s" * 16)
    monkeypatch.chdir(tmp_path / "in")
    model = onnx.load(toy / "toy.onnx")
    stolen = onnx.TensorProto(name="stolen", data_type=onnx.TensorProto.UINT8, dims=[16])
    stolen.data_location = onnx.TensorProto.EXTERNAL
    stolen.external_data.add(key="location", value=location)
    if place == "initializer":
        model.graph.initializer.append(stolen)
    else:
        node = onnx.helper.make_node("Constant", [], ["stolen"], value=stolen)
        (model.graph if place == "constant" else model.functions.add(name="f", domain="d")).node.append(node)
    (tmp_path / "in" / "toy.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(CheckpointError, match="takes weights from other files, which are not read"):
        Predictor("toy.onnx")


@pytest.mark.parametrize("shape", [[2**40, 2**20], [-5], [2**62, 8]])
def test_absurd_sizes_in_an_onnx_file_are_one_sentence(toy, tmp_path, capfd, shape):
    import onnx

    model = onnx.load(toy / "toy.onnx")
    model.graph.initializer.append(onnx.TensorProto(name="big", data_type=1, dims=shape))
    model.graph.node.append(onnx.helper.make_node("Identity", ["big"], ["more"]))
    model.graph.output.append(onnx.helper.make_tensor_value_info("more", 1, shape))
    (tmp_path / "toy.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(CheckpointError, match="the exported file .*toy.onnx cannot be used"):
        Predictor(tmp_path / "toy.onnx")
    assert capfd.readouterr().err == ""  # ONNX Runtime's log


# ---- .xml ----


@needs_openvino
def test_entities_of_an_xml_are_not_read(toy, tmp_path):
    text = (toy / "toy.xml").read_text()
    (tmp_path / "secret").write_text("SECRET")
    entity = f'<!DOCTYPE net [<!ENTITY stolen SYSTEM "file://{tmp_path}/secret">]>'
    assert "&quot;cat&quot;" in text
    changed = text.replace("?>", f"?>{entity}", 1).replace("&quot;cat&quot;", "&quot;&stolen;&quot;")
    (tmp_path / "toy.xml").write_text(changed)
    shutil.copy(toy / "toy.bin", tmp_path)
    assert Predictor(tmp_path / "toy.xml").names[1] == "&stolen;"


@needs_openvino
@pytest.mark.parametrize(
    ("name", "value"), [("offset", "99999999999"), ("size", "18446744073709551000"), ("shape", "9, 9")]
)
def test_weights_beyond_the_bin_are_one_sentence(toy, tmp_path, name, value):
    text = (toy / "toy.xml").read_text()
    changed = re.sub(
        rf'(<data element_type="f32" shape="[\d, ]+" [^>]*?|<data element_type="f32" ){name}="[\d, ]*"',
        rf'\1{name}="{value}"',
        text,
        count=1,
    )
    assert changed != text
    (tmp_path / "toy.xml").write_text(changed)
    shutil.copy(toy / "toy.bin", tmp_path)
    with pytest.raises(CheckpointError, match="the exported file .*toy.xml cannot be used"):
        Predictor(tmp_path / "toy.xml")
