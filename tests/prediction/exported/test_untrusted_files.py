"""Exported files from addresses and from strangers: checked, and none runs code or reads other files."""

import hashlib
import json
import pickle
import re
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from prediction.exported.torch_graph import unsafe_text
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


# ---- .pt2 ----


def rewritten(
    source: Path, target: Path, change: Callable[[dict], None], compression: int = zipfile.ZIP_STORED
) -> Path:
    """A .pt2 file whose graph is changed."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", compression) as new:
        for name in old.namelist():
            content = old.read(name)
            if name.endswith("models/model.json"):
                graph = json.loads(content)
                change(graph)
                content = json.dumps(graph).encode()
            new.writestr(name, content)
    return target


def in_a_size(graph: dict, code: str) -> None:
    graph["graph_module"]["graph"]["tensor_values"]["image"]["sizes"][0]["as_expr"]["expr_str"] = code


def in_a_size_of_a_tensor_named_metadata(graph: dict, code: str) -> None:
    values = graph["graph_module"]["graph"]["tensor_values"]
    values["metadata"] = json.loads(json.dumps(values["image"]))
    values["metadata"]["sizes"][0]["as_expr"]["expr_str"] = code


def in_a_guard(graph: dict, code: str) -> None:
    graph["guards_code"] = [f"{code} == 0"]


def in_a_name(graph: dict, code: str) -> None:
    graph["graph_module"]["graph"]["inputs"][0]["as_tensor"]["name"] = f"x={code}"


def in_a_call(graph: dict, code: str) -> None:
    node = graph["graph_module"]["graph"]["nodes"][0]
    node["target"] = "torch.os.system"
    node["inputs"] = [{"name": "command", "arg": {"as_string": "true"}, "kind": 1}]


def in_the_structure_of_inputs(graph: dict, code: str) -> None:
    enum = '{"__enum__": true, "fqn": "antigravity:a", "name": "b"}'
    signature = graph["graph_module"]["module_call_graph"][0]["signature"]
    signature["in_spec"] = signature["in_spec"].replace('"null"', enum, 1)


PLACES = [
    *(in_a_size, in_a_size_of_a_tensor_named_metadata, in_a_guard, in_a_name, in_a_call, in_the_structure_of_inputs),
]


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.__name__)
def test_code_in_a_graph_is_refused_and_not_run(toy, tmp_path, place):
    proof = tmp_path / "proof"
    code = f"__import__('pathlib').Path({str(proof)!r}).touch()"
    file = rewritten(toy / "toy.pt2", tmp_path / "hostile.pt2", lambda graph: place(graph, code))
    with pytest.raises(CheckpointError, match="in its graph, which may be code, and code from a file is not run"):
        Predictor(file)
    assert not proof.exists()


def test_an_untouched_graph_is_taken(toy, tmp_path):
    assert Predictor(rewritten(toy / "toy.pt2", tmp_path / "same.pt2", lambda graph: None)).is_exported


class Opens:
    """Unpickled, it touches a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize(
    ("record", "words"),
    [
        ("data/sample_inputs/model.pt", "more than tensors in its sample inputs, which may be code"),
        ("data/weights/weight_0", "pickled weights, which may be code"),
    ],
)
def test_pickles_in_the_records_of_an_archive_are_not_loaded(toy, tmp_path, record, words):
    with zipfile.ZipFile(toy / "toy.pt2") as old, zipfile.ZipFile(tmp_path / "a.pt2", "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name.endswith("weights_config.json") and "weights" in record:
                content = content.replace(b'"use_pickle": false', b'"use_pickle": true')
                assert b"true" in content
            new.writestr(name, pickle.dumps(Opens(tmp_path / "proof")) if name.endswith(record) else content)
    with pytest.raises(CheckpointError, match=words):
        Predictor(tmp_path / "a.pt2")
    assert not (tmp_path / "proof").exists()


def test_an_archive_that_two_readers_may_read_differently_is_refused(toy, tmp_path):
    compressed = rewritten(toy / "toy.pt2", tmp_path / "a.pt2", lambda graph: None, zipfile.ZIP_DEFLATED)
    twice = Path(shutil.copy(toy / "toy.pt2", tmp_path / "b.pt2"))
    with zipfile.ZipFile(twice, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr("toy/models/model.json", b"{}")
    after = tmp_path / "c.pt2"
    after.write_bytes(b"MZ" + (toy / "toy.pt2").read_bytes())
    for file in (compressed, twice, after):
        with pytest.raises(CheckpointError, match="in another form than torch.export writes"):
            Predictor(file)


@pytest.mark.parametrize(
    "text",
    [
        "Add(FloorDiv(Add(Symbol('s64', positive=True, integer=True), Integer(-1)), Integer(2)), Integer(1))",
        "((1 + (((-1) + L['image'].size()[2]) // 16)) % (1 + L['image'].size()[3])) != 0",
        "Mul(Integer(8), Pow(Symbol('s6', positive=True, integer=True), Integer(2)))",
        "L['mask'].size()[1]**2 > 3",
        "torch.sym_min(128, 128*L['image'].size()[3]) > 4 and not s0 == 3",
    ],
)
def test_sizes_and_conditions_are_arithmetic(text):
    assert unsafe_text(json.dumps({"expr_str": text}).encode()) is None


@pytest.mark.parametrize(
    "text",
    [
        "torch.load('a')",
        "L['image'].__class__",
        "(lambda: 0)()",
        "[x for x in L]",
        "9**9**9**9",
        "((9**4)**4)**4",
        "(Pow or Add)(s0, 5)",
        "s0**5",
        "Pow(s0, s1)",
        "Pow(Pow(s0, Integer(4)), Integer(4))",
        "Pow(s0, Integer(2), 3)",
        "L['a b']",
        "Symbol.subs",
        "eval('1')",
        "s1; s2",
        "(s0 := 1)",
        "f'{s0}'",
        "b'a'",
    ],
)
def test_anything_else_is_not(text):
    assert unsafe_text(json.dumps({"guards_code": [text]}).encode()) == text


@pytest.mark.parametrize(
    ("target", "is_safe"),
    [
        ("torch.ops.aten.conv2d.default", True),
        ("_operator.getitem", True),
        ("torch.sym_max", True),
        ("torch.ops.aten.from_file.default", False),
        ("torch.ops.mine.conv2d.default", False),
        ("torch.load", False),
        ("_operator.methodcaller", False),
        ("#torch", False),
    ],
)
def test_only_operations_on_tensors_and_numbers_are_called(target, is_safe):
    assert (unsafe_text(json.dumps({"nodes": [{"target": target}]}).encode()) is None) == is_safe


def test_objects_and_names_of_attributes_are_refused():
    assert unsafe_text(b'{"arg": {"as_custom_obj": {"name": "x"}}}') == "as_custom_obj"
    assert unsafe_text(b'{"parameter_name": "forward.__globals__.x"}') == "forward.__globals__.x"
