"""Exported detectors: any batch size and image size, compared with the model; and the stand-alone example."""

import ast
import io
import json
import warnings
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import tools.export
from datasets.coco import make_coco_transforms
from models import build_model
from models.load import load_detector
from prediction.exported.forms import load_form
from tests.helpers.runs import parse
from tools import onnx_example
from tools.export import ImageAndMask, run
from util.checkpoint import CheckpointError, save_checkpoint
from util.nested_tensor import NestedTensor
from util.rng import seed_everything

onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime runs the exported file")
pytest.importorskip("onnxscript", reason="onnxscript writes it")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    """An untrained detector whose outputs differ between images."""
    seed_everything(0)
    args = parse("", "--num_classes", "3", "--val_size", "96", "--max_size", "128", "--dec_layers", "1")
    path = tmp_path_factory.mktemp("export") / "tiny.pth"
    categories = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    save_checkpoint(path, {"model": build_model(args)[0].state_dict(), "args": args, "categories": categories})
    return path


@pytest.fixture(scope="module")
def onnx_file(checkpoint) -> Path:
    path = checkpoint.with_name("tiny.onnx")
    assert run([str(checkpoint), str(path), str(path.with_suffix(".pt2"))]) == 0
    return path


@pytest.fixture(scope="module")
def model(checkpoint) -> ImageAndMask:
    detector = load_detector(checkpoint, "cpu").model
    detector.aux_loss = False
    return ImageAndMask(detector).eval()


def inputs(batch: int, height: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    mask = torch.zeros(batch, height, width, dtype=torch.bool)
    mask[-1, :, width // 2 :] = True
    return torch.randn(batch, 3, height, width), mask


def test_the_onnx_file_takes_any_batch_and_size(onnx_file, model):
    session = onnxruntime.InferenceSession(onnx_file)
    for image, mask in (inputs(1, 64, 200), inputs(3, 130, 64)):
        outputs = session.run(["logits", "boxes"], {"image": image.numpy(), "mask": mask.numpy()})
        with torch.no_grad():
            for output, expected in zip(outputs, model(image, mask)):
                torch.testing.assert_close(torch.from_numpy(output), expected, rtol=0, atol=1e-3)


def test_the_onnx_file_reads_the_mask_and_has_opset_18(onnx_file):
    import onnx

    session = onnxruntime.InferenceSession(onnx_file)
    image, mask = inputs(1, 64, 96)
    one, other = (session.run(["logits"], {"image": image.numpy(), "mask": m.numpy()})[0] for m in (mask, ~mask))
    assert np.abs(one - other).max() > 1e-3
    assert {opset.domain: opset.version for opset in onnx.load(onnx_file).opset_import}[""] >= 18


def test_a_pt2_file_written_by_the_same_command_computes_the_same(onnx_file, model):
    path = onnx_file.with_suffix(".pt2")
    image, mask = inputs(1, 70, 100)
    with torch.no_grad():
        for output, expected in zip(torch.export.load(path).module()(image, mask), model(image, mask)):
            torch.testing.assert_close(output, expected, rtol=0, atol=1e-3)


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


@pytest.mark.parametrize("size", [(150, 110), (90, 300), (96, 96)])
def test_the_example_finds_the_boxes_that_the_model_finds(onnx_file, checkpoint, size):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (*size, 3), dtype=np.uint8))
    found = onnx_example.detect(onnxruntime.InferenceSession(onnx_file), image, threshold=0.05)

    detector = load_detector(checkpoint, "cpu")
    transforms = make_coco_transforms("val", max_size=128, val_size=96)
    tensor = transforms(image, {})[0]
    with torch.no_grad():
        outputs = detector.model(tensor[None])
    result = detector.postprocessors["bbox"](outputs, torch.tensor([[image.height, image.width]]))[0]
    order = result["scores"].argsort(descending=True)
    order = order[result["scores"][order] > 0.05]
    assert len(found) == len(order) > 0
    names = {0: "0", 1: "cat", 2: "dog"}
    for (name, score, box), query in zip(found, order.tolist()):
        assert name == names[result["labels"][query].item()]
        assert score == pytest.approx(result["scores"][query].item(), abs=1e-3)
        assert box == pytest.approx(result["boxes"][query].tolist(), abs=0.3)


def test_the_example_draws_a_picture(onnx_file, tmp_path, monkeypatch, capsys):
    Image.new("RGB", (120, 90), "white").save(tmp_path / "in.png")
    arguments = [str(onnx_file), str(tmp_path / "in.png"), str(tmp_path / "out.png"), "--threshold", "0.01"]
    monkeypatch.setattr("sys.argv", ["onnx_example.py", *arguments])
    onnx_example.main()
    assert len(capsys.readouterr().out.splitlines()) == 6  # one for each query
    assert (np.asarray(Image.open(tmp_path / "out.png")) != 255).any()


def test_the_example_needs_only_numpy_pillow_and_onnxruntime():
    tree = ast.parse(Path(onnx_example.__file__).read_text(encoding="utf-8"))
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert names == {"argparse", "json", "os", "numpy", "onnxruntime", "PIL"}


def test_the_file_names_the_classes_and_sizes(onnx_file):
    about = json.loads(onnxruntime.InferenceSession(onnx_file).get_modelmeta().custom_metadata_map["detr"])
    assert about == {"classes": {"1": "cat", "2": "dog"}, "size": 96, "max_size": 128}


def test_a_model_with_a_mask_head_gives_masks_in_every_form(tmp_path, monkeypatch):
    loaded = {}  # reading a file with masks takes seconds: once for the command's own check and for this one

    def load(path, *options):
        return loaded.setdefault(path.suffix, load_form(path, *options))

    monkeypatch.setattr(tools.export, "load_form", load)
    seed_everything(0)
    flags = "--num_classes 3 --dec_layers 1 --masks --hidden_dim 128 --nheads 8 --num_queries 3".split()
    args = parse("", *flags)
    model = build_model(args)[0].eval()
    save_checkpoint(tmp_path / "masks.pth", {"model": model.state_dict(), "args": args})
    paths = [tmp_path / f"masks{ending}" for ending in (".onnx", ".pt2", ".xml")[: 3 if find_spec("openvino") else 2]]
    assert run([str(tmp_path / "masks.pth"), *map(str, paths)]) == 0
    image, mask = inputs(2, 70, 130)
    with torch.no_grad():
        expected = model(NestedTensor(image, mask))["pred_masks"]
        for path in paths:
            assert path.is_file()
            torch.testing.assert_close(loaded[path.suffix](image, mask)[2], expected, rtol=0, atol=1e-3)
