"""A .pt2 file from strangers runs no code: its records and the texts of its graph are checked before they are read."""

import json
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from prediction.exported.torch_graph import unsafe_text
from prediction.predictor import Predictor
from tests.prediction.exported.toy_detector import write_toy
from util.checkpoint import CheckpointError


@pytest.fixture(scope="module")
def toy(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("toy")
    write_toy(folder, suffixes=(".pt2",))
    return folder


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
