"""OpenVINO's form: any batch size and image size, computed by the two files alone; nothing is sent anywhere."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import tools.export
from models import build_model
from models.load import load_detector
from prediction.exported.forms import load_form
from prediction.exported.openvino import OPTIONS, import_openvino
from tests.helpers.paths import REPOSITORY
from tests.helpers.runs import parse
from tools.export import ImageAndMask, run
from tools.exporting.forms import check_output, put_in_place
from util.checkpoint import save_checkpoint
from util.rng import seed_everything

HOSTILE = '\x1b[31m<a>&"cat"'  # what neither XML nor a terminal should take for its own

needs_openvino = pytest.mark.skipif(find_spec("openvino") is None, reason="needs openvino")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    """An untrained detector that sees an object of the second class with every query."""
    seed_everything(0)
    args = parse("", "--num_classes", "3", "--val_size", "96", "--max_size", "128", "--dec_layers", "1")
    model = build_model(args)[0]
    with torch.no_grad():
        model.class_embed.bias[1] += 5.0
    path = tmp_path_factory.mktemp("openvino") / "tiny.pth"
    categories = [{"id": 1, "name": HOSTILE}, {"id": 2, "name": "dog"}]
    save_checkpoint(path, {"model": model.state_dict(), "args": args, "categories": categories})
    return path


@pytest.fixture(scope="module")
def xml_file(checkpoint) -> Path:
    path = checkpoint.with_suffix(".xml")
    assert run([str(checkpoint), str(path)]) == 0
    return path


@pytest.fixture(scope="module")
def model(checkpoint) -> ImageAndMask:
    detector = load_detector(checkpoint, "cpu").model
    detector.aux_loss = False
    return ImageAndMask(detector).eval()


def inputs(batch: int, height: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Images and their mask, the last image padded on its right."""
    mask = torch.zeros(batch, height, width, dtype=torch.bool)
    mask[-1, :, width // 2 :] = True
    generator = torch.Generator().manual_seed(batch)
    return torch.randn(batch, 3, height, width, generator=generator), mask


@needs_openvino
@pytest.mark.parametrize(("shape", "is_fixed"), [((1, 64, 200), False), ((3, 130, 64), False), ((2, 70, 96), True)])
def test_the_file_takes_any_batch_and_size_or_is_compiled_for_one(xml_file, model, shape, is_fixed):
    runs = load_form(xml_file, threads=1, size=shape if is_fixed else None)
    with torch.no_grad():
        expected = model(*inputs(*shape))
    for output, wanted in zip(runs(*inputs(*shape)), expected, strict=True):
        torch.testing.assert_close(output, wanted, rtol=0, atol=1e-3)


@needs_openvino
def test_padding_is_left_out(xml_file):
    runs = load_form(xml_file)
    image, mask = inputs(1, 64, 96)
    changed = image.masked_fill(mask[:, None], 5.0)
    for other, is_equal in (((changed, mask), False), ((image, mask), True), ((image, ~mask), False)):
        differs = max((one - two).abs().max().item() for one, two in zip(runs(image, mask), runs(*other)))
        assert (differs == 0) if is_equal else differs > 1e-3


@needs_openvino
def test_the_lines_in_the_documents_run_alone_and_in_float32(xml_file, model, tmp_path):
    """In a process that has neither torch nor this library, with the files under another name."""
    text = (REPOSITORY / "docs" / "export.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?openvino.*?)```", text, re.DOTALL)
    for suffix in (".xml", ".bin"):
        (tmp_path / f"detr{suffix}").write_bytes(xml_file.with_suffix(suffix).read_bytes())
    image, mask = inputs(1, 480, 640)
    mask[:] = False
    np.save(tmp_path / "image.npy", image.numpy())
    closing = """
import sys
np.savez("found.npz", logits=found["logits"], boxes=found["boxes"])
open("classes.json", "w").write(json.dumps(about["classes"]))
assert not {"torch", "models", "tools"} & set(sys.modules)
assert detector.get_property("INFERENCE_PRECISION_HINT").to_string() == "f32"
"""
    code = (
        'import sys\nsys.modules["openvino_telemetry"] = None\nimport numpy as np\nimage = np.load("image.npy")\n'
        + code
    )
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(p for p in sys.path if "packages" in p)}
    command = [sys.executable, "-c", code + closing]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "classes.json").read_text()) == {"1": HOSTILE, "2": "dog"}
    found = np.load(tmp_path / "found.npz")
    with torch.no_grad():
        logits, boxes = model(image, mask)
    torch.testing.assert_close(torch.from_numpy(found["logits"]), logits, rtol=0, atol=1e-3)
    torch.testing.assert_close(torch.from_numpy(found["boxes"]), boxes, rtol=0, atol=1e-3)


@needs_openvino
def test_the_weights_are_kept_in_float32_and_the_file_names_classes_and_sizes(xml_file, checkpoint):
    model = import_openvino().Core().read_model(xml_file)
    about = json.loads(model.get_rt_info(["detr"]).astype(str))
    checksum = hashlib.sha256(xml_file.with_suffix(".bin").read_bytes()).hexdigest()
    assert about == {"classes": {"1": HOSTILE, "2": "dog"}, "size": 96, "max_size": 128, "weights": checksum}
    weights = sum(tensor.numel() for tensor in load_detector(checkpoint, "cpu").model.state_dict().values())
    assert xml_file.with_suffix(".bin").stat().st_size > 3.5 * weights
    assert OPTIONS["INFERENCE_PRECISION_HINT"] == "f32"


@needs_openvino
@pytest.mark.skipif(find_spec("nncf") is None, reason="needs nncf")
def test_int8_gives_a_smaller_file_that_finds_the_same_objects(xml_file, checkpoint, tmp_path, monkeypatch, capsys):
    (tmp_path / "images").mkdir()
    for number in range(4):
        pixels = np.random.default_rng(number).integers(0, 255, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / f"{number}.png")

    def write_again(program, path, about):  # tracing anew would give the same file
        for suffix in (".xml", ".bin"):
            shutil.copy(xml_file.with_suffix(suffix), path.with_suffix(suffix))

    monkeypatch.setattr(tools.export, "_trace", lambda model: None)
    monkeypatch.setattr(tools.export, "write_form", write_again)
    out = tmp_path / "int8.xml"
    assert run([str(checkpoint), str(out), "--int8", "--calibrate", str(tmp_path / "images")]) == 0
    assert "in int8, 12 of the model's 12 objects are found again" in capsys.readouterr().out
    model = import_openvino().Core().read_model(out)
    assert json.loads(model.get_rt_info(["detr"]).astype(str))["classes"]["2"] == "dog"
    kinds = [node.get_type_name() for node in model.get_ops()]
    assert kinds.count("FakeQuantize") >= kinds.count("Convolution") / 2 > 0
    assert out.with_suffix(".bin").stat().st_size < 0.8 * xml_file.with_suffix(".bin").stat().st_size
    assert {path.name for path in tmp_path.iterdir()} == {"images", "int8.xml", "int8.bin"}


@needs_openvino
def test_importing_openvino_reports_nothing_and_leaves_nothing_in_the_home_folder(tmp_path):
    code = """
import socket, sys
from prediction.exported.openvino import import_openvino
def refuse(*args, **kwargs): raise AssertionError("asked for a host")
socket.getaddrinfo = refuse
import_openvino().convert_model
assert sys.modules["openvino_telemetry"] is None
"""
    environment = {**os.environ, "HOME": str(tmp_path), "PYTHONPATH": os.pathsep.join([str(REPOSITORY), *sys.path])}
    for name in ("CI", "TF_BUILD", "JENKINS_URL"):  # these alone silence it
        environment.pop(name, None)
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.rglob("*openvino*")) == []


def test_without_openvino_the_extra_is_named_before_anything_is_read(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "openvino", None)
    assert run([str(tmp_path / "none.pth"), str(tmp_path / "detr.xml")]) == 1
    error = capsys.readouterr().err
    assert error.count("pip install") == 1 and 'pip install ".[openvino]"' in error


def test_weights_of_another_origin_and_the_checkpoint_are_not_replaced(tmp_path):
    foreign = tmp_path / "pytorch_model.bin"
    foreign.write_bytes(b"weights")
    for checkpoint, message in ((foreign, "is the input itself"), (tmp_path / "a.pth", "no part of an earlier export")):
        with pytest.raises(ValueError, match=message):
            check_output(foreign.with_suffix(".xml"), checkpoint)
    assert foreign.read_bytes() == b"weights"


def test_an_interrupted_replacement_leaves_no_mixture_of_two_exports(tmp_path, monkeypatch):
    for folder in ("old", "new"):
        (tmp_path / folder).mkdir()
        for suffix in (".xml", ".bin"):
            (tmp_path / folder / f"detr{suffix}").write_text(folder)
    replace = os.replace

    def stop_before_the_graph(source, target):
        if str(target).endswith(".xml"):
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(os, "replace", stop_before_the_graph)
    written, out = tmp_path / "new" / "detr.xml", tmp_path / "old" / "detr.xml"
    with pytest.raises(KeyboardInterrupt):
        put_in_place(written, out)
    assert not out.exists()
    monkeypatch.setattr(os, "replace", replace)
    (tmp_path / "new" / "detr.bin").write_text("new")
    put_in_place(written, out)
    assert out.read_text() == out.with_suffix(".bin").read_text() == "new"
