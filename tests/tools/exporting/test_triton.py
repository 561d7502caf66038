"""A model repository of Triton: its configuration agrees with the model, and versions follow one another."""

import io
import json
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tools.export import run
from tools.exporting.triton import check_config, config_of, parse_config, write_triton
from util.checkpoint import CheckpointError

onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime runs the exported file")
ENTRY = json.dumps({"classes": {"1": 'a "cat"\\', "2": "\x1b狗"}})


def detector(queries: int = 5) -> bytes:
    """A model with a detector's inputs and outputs: constants, and a mean of the image as masks."""

    def constant(name, shape):
        values = helper.make_tensor(name, TensorProto.FLOAT, shape, np.zeros(shape, np.float32).ravel())
        return helper.make_node("Constant", [], [name], value=values)

    info = helper.make_tensor_value_info
    nodes = [
        constant("one_logits", (1, queries, 4)),
        constant("one_boxes", (1, queries, 4)),
        helper.make_node("ReduceMean", ["image"], ["mean"], axes=[1, 2, 3], keepdims=1),
        helper.make_node("Squeeze", ["mean"], ["flat"], axes=[3]),
        helper.make_node("Add", ["one_logits", "flat"], ["logits"]),
        helper.make_node("Add", ["one_boxes", "flat"], ["boxes"]),
        helper.make_node("Cast", ["mask"], ["numbers"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["numbers"], ["masks"], axes=[1]),
    ]
    graph = helper.make_graph(
        nodes,
        "detector",
        [
            info("image", TensorProto.FLOAT, ["batch", 3, "height", "width"]),
            info("mask", TensorProto.BOOL, ["batch", "height", "width"]),
        ],
        [info(name, TensorProto.FLOAT, None) for name in ("logits", "boxes", "masks")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=8)
    file = io.BytesIO()
    onnx.save(model, file)
    return file.getvalue()


@pytest.fixture(scope="module")
def session():
    return onnxruntime.InferenceSession(detector())


def test_fixed_sizes_are_written_and_others_are_minus_one(session):
    config = parse_config(config_of(session, ENTRY))
    assert {one.name: list(one.dims) for one in config.input} == {"image": [3, -1, -1], "mask": [-1, -1]}
    assert {one.name: list(one.dims) for one in config.output} == {
        "logits": [5, 4],
        "boxes": [5, 4],
        "masks": [1, -1, -1],
    }
    assert config.backend == "onnxruntime" and config.max_batch_size == 8
    assert config.parameters["detr"].string_value == ENTRY


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ("[ 5, 4 ]", "[ 6, 4 ]", r"logits is TYPE_FP32 \[6, 4\] after the batch"),
        ("[ 3, -1, -1 ]", "[ 3, -1 ]", "image is TYPE_FP32"),
        ("[ 3, -1, -1 ]", "[ 3, 128, -1 ]", "with 2 x 171 x 97 pixels"),
        ("TYPE_BOOL", "TYPE_FP32", "mask is TYPE_FP32"),
        ('name: "boxes"', 'name: "bboxes"', "names .*bboxes"),
        ("max_batch_size: 8", "max_batch_size: 1", "after the batch"),
        ("max_batch_size", "batches", "cannot be read"),
    ],
)
def test_a_configuration_that_disagrees_is_refused(session, before, after, words):
    text = config_of(session, ENTRY)
    assert before in text
    with pytest.raises(CheckpointError, match=words):
        check_config(text.replace(before, after, 1), session)


def test_the_file_becomes_the_next_version_and_another_model_is_not_mixed_with_it(tmp_path):
    file, repository = tmp_path / "cells.onnx", tmp_path / "repository"
    file.write_bytes(detector())
    assert write_triton(file, repository, ENTRY) == repository / "cells" / "1" / "model.onnx"
    assert write_triton(file, repository, ENTRY).read_bytes() == detector()
    names = sorted(str(path.relative_to(repository)) for path in repository.rglob("*") if path.is_file())
    assert names == ["cells/1/model.onnx", "cells/2/model.onnx", "cells/config.pbtxt"]
    file.write_bytes(detector(queries=7))
    with pytest.raises(ValueError, match="config.pbtxt is the configuration of another model"):
        write_triton(file, repository, ENTRY)
    assert not (repository / "cells" / "3").exists()


def triton_server() -> str | None:
    """The program, on the path or in the package nvidia-pytriton."""
    package = find_spec("pytriton")
    inside = Path(package.origin).parent / "tritonserver" / "bin" / "tritonserver" if package and package.origin else ""
    return shutil.which("tritonserver") or shutil.which(inside)


@pytest.mark.skipif(triton_server() is None, reason="needs tritonserver, or pip install --no-deps nvidia-pytriton")
@pytest.mark.parametrize("before", ["", "TYPE_BOOL", "max_batch_size", "[ -1, -1 ]"])
def test_tritons_server_takes_the_configuration(tmp_path, before):
    """Without any backend, a good configuration is refused for want of one, and a bad one for what it says."""
    file, repository = tmp_path / "cells.onnx", tmp_path / "repository"
    file.write_bytes(detector())
    write_triton(file, repository, ENTRY)
    config = repository / "cells" / "config.pbtxt"
    config.write_text(config.read_text().replace(before, "[ -2, -1 ]", 1) if before else config.read_text())
    (tmp_path / "backends").mkdir()
    flags = ["--model-control-mode=explicit", "--load-model=cells", "--disable-auto-complete-config"]
    folders = [f"--model-repository={repository}", f"--backend-directory={tmp_path / 'backends'}"]
    silent = ["--allow-http=false", "--allow-grpc=false", "--allow-metrics=false"]
    done = subprocess.run([triton_server(), *flags, *folders, *silent], capture_output=True, timeout=120)
    said = (done.stdout + done.stderr).decode(errors="replace")
    assert done.returncode != 0
    assert ("unable to find backend library for backend 'onnxruntime'" in said) == (not before), said


@pytest.mark.parametrize("outs", [["detr.xml"], ["a.onnx", "b.onnx"]])
def test_only_one_onnx_goes_into_a_repository(tmp_path, outs, capsys):
    command = ["none.pth", *(str(tmp_path / out) for out in outs), "--triton", str(tmp_path / "repository")]
    assert run(command) == 1
    assert "--triton REPOSITORY needs one output, an .onnx" in capsys.readouterr().err
