"""Exporting: what is refused, what is checked, and the plain export of the published tests."""

import ast
import io
import warnings
from pathlib import Path

import pytest
import torch

import tools.export
from models import build_model
from models.load import load_detector
from tests.helpers.runs import parse
from tools import onnx_example
from tools.export import ImageAndMask, run
from util.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from util.rng import seed_everything

onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime runs the exported file")
pytest.importorskip("onnxscript", reason="onnxscript writes it")

CATEGORIES = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    """An untrained detector whose outputs differ between images."""
    seed_everything(0)
    args = parse("", "--num_classes", "3", "--val_size", "96", "--max_size", "128", "--dec_layers", "1")
    path = tmp_path_factory.mktemp("export") / "tiny.pth"
    save_checkpoint(path, {"model": build_model(args)[0].state_dict(), "args": args, "categories": CATEGORIES})
    return path


@pytest.fixture(scope="module")
def model(checkpoint) -> ImageAndMask:
    detector = load_detector(checkpoint, "cpu").model
    detector.aux_loss = False
    return ImageAndMask(detector).eval()


def test_a_file_that_computes_something_else_is_deleted(checkpoint, tmp_path, monkeypatch, capsys):
    def runs_badly(path):
        return lambda image, mask: (torch.zeros(len(image), 6, 4), torch.zeros(len(image), 6, 4))

    monkeypatch.setattr(tools.export, "_trace", lambda model: None)
    monkeypatch.setattr(tools.export, "write_form", lambda program, path, about: path.write_bytes(b"wrong"))
    monkeypatch.setattr(tools.export, "load_form", runs_badly)
    assert run([str(checkpoint), str(tmp_path / "out.pt2")]) == 1
    assert "gives different results from the model" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_the_check_covers_two_sizes_and_two_batch_sizes(model):
    seen = []

    def runs(image, mask):
        seen.append(tuple(image.shape))
        logits, boxes = model(image, mask)
        return logits, boxes + (0.01 if len(seen) == 4 else 0)

    with torch.no_grad(), pytest.raises(CheckpointError, match="with 2 x 171 x 97"):
        tools.export.check(model, runs)
    assert {shape[0] for shape in seen} == {1, 2} and len({shape[2:] for shape in seen}) == 2


def test_another_suffix_is_rejected_before_anything_is_read(tmp_path, capsys):
    assert run([str(tmp_path / "none.pth"), str(tmp_path / "out.bin")]) == 1
    assert "must end in .onnx, .pt2 or .xml" in capsys.readouterr().err


def test_the_checkpoint_itself_is_not_overwritten(tmp_path, capsys):
    checkpoint = tmp_path / "model.pt2"
    checkpoint.write_bytes(b"weights")
    assert run([str(checkpoint), str(checkpoint)]) == 1
    assert "is the input itself" in capsys.readouterr().err and checkpoint.read_bytes() == b"weights"


def test_the_published_tests_plain_export_runs(checkpoint):
    detector = load_detector(checkpoint, "cpu").model
    detector.aux_loss = False
    image, file = torch.rand(1, 3, 64, 96), io.BytesIO()
    names = {"input_names": ["inputs"], "output_names": ["pred_logits", "pred_boxes"]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch raises the version that it is asked for, and says so
        torch.onnx.export(detector, image, file, do_constant_folding=True, opset_version=12, **names)
    outputs = onnxruntime.InferenceSession(file.getvalue()).run(None, {"inputs": image.numpy()})
    with torch.no_grad():
        expected = detector(image)
    for name, output in zip(names["output_names"], outputs):
        torch.testing.assert_close(torch.from_numpy(output), expected[name], rtol=0, atol=1e-3)


@pytest.mark.parametrize(("more", "largest"), [((), 1600), (("--dilation",), 800)])
def test_learned_positions_limit_the_size(tmp_path, more, largest):
    args = parse(
        "", "--num_classes", "3", "--enc_layers", "0", "--dec_layers", "1", "--position_embedding", "learned", *more
    )
    path = tmp_path / "learned.pth"
    save_checkpoint(path, {"model": build_model(args)[0].state_dict(), "args": args, "categories": CATEGORIES})
    program = tools.export._trace(tools.export.load_exportable(load_checkpoint(path), "here")[0])
    assert sorted(limits.upper for limits in program.range_constraints.values())[:2] == [largest, largest]


def test_the_example_needs_only_numpy_pillow_and_onnxruntime():
    tree = ast.parse(Path(onnx_example.__file__).read_text(encoding="utf-8"))
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert names == {"argparse", "json", "os", "numpy", "onnxruntime", "PIL"}
