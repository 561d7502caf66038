"""Files of `tools.export`: for any batch and size their outputs are the model's, and in the place of a checkpoint their
classes, sizes, thresholds and results are the checkpoint's.

Writing the three forms takes most of a minute, so all tests share one detector, with a mask head, in one file.
"""

import json
import shutil
import zipfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import predict
import tools.export
from datasets.coco import make_coco_transforms
from models import build_model
from models.load import load_detector
from prediction.exported import detector as exported_detector
from prediction.exported.forms import Runs, load_form
from prediction.predictor import Predictor, load_predictor
from tests.helpers.runs import parse
from tools import onnx_example
from tools.export import ImageAndMask, load_exportable, run
from util.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from util.rng import seed_everything

onnx = pytest.importorskip("onnx", reason="onnx describes the exported file")
onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime runs the exported file")
pytest.importorskip("onnxscript", reason="onnxscript writes it")
SUFFIXES = (".onnx", ".pt2", ".xml") if find_spec("openvino") else (".onnx", ".pt2")
THRESHOLDS = {
    "classes": [{"id": 1, "objects": 20, "threshold": 0.25}, {"id": 2, "objects": 20, "threshold": 0.999}],
    "overall": {"threshold": 0.9},
}


CATEGORIES = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog\x1b[31m"}]


def saved_detector(path: Path, *flags: str, categories: list[dict]) -> Path:
    """An untrained detector whose scores differ between queries."""
    seed_everything(0)
    small = "--backbone tiny --backbone_norm bn --enc_layers 1 --dec_layers 1 --hidden_dim 128 --nheads 8"
    args = parse("", *small.split(), "--val_size", "96", "--max_size", "128", "--num_queries", "5", *flags)
    model = build_model(args)[0]
    with torch.no_grad():
        getattr(model, "detr", model).class_embed.weight *= 20
    entries = {"model": model.state_dict(), "args": args, "categories": categories, "thresholds": THRESHOLDS}
    save_checkpoint(path, entries)
    return path


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> tuple[Path, dict[str, Runs]]:
    """A checkpoint beside which its exported forms lie, and what ran each of them in the command's own check."""
    path = tmp_path_factory.mktemp("exported") / "tiny.pth"
    saved_detector(path, "--num_classes", "3", "--masks", categories=CATEGORIES)
    loaded = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tools.export, "load_form", lambda file: loaded.setdefault(file.suffix, load_form(file)))
        assert run([str(path), *(str(path.with_suffix(suffix)) for suffix in SUFFIXES)]) == 0
    return path, loaded


@pytest.fixture(scope="module")
def checkpoint(written) -> Path:
    return written[0]


@pytest.fixture(scope="module")
def original(checkpoint) -> Predictor:
    return Predictor(checkpoint, "cpu")


@pytest.fixture(scope="module")
def model(checkpoint) -> ImageAndMask:
    return load_exportable(load_checkpoint(checkpoint), "here")[0]


@pytest.fixture(scope="module")
def session(checkpoint):
    return onnxruntime.InferenceSession(checkpoint.with_suffix(".onnx"))


def inputs(batch: int, height: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Images and their mask, the last image padded on its right."""
    mask = torch.zeros(batch, height, width, dtype=torch.bool)
    mask[-1, :, width // 2 :] = True
    return torch.randn(batch, 3, height, width), mask


def pictures() -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [random.integers(0, 255, (*size, 3), dtype=np.uint8) for size in ((90, 120), (90, 120), (200, 180))]


# ---- the files alone ----


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_each_form_takes_any_batch_and_size(written, model, suffix):
    runs = written[1][suffix]
    for image, mask in (inputs(1, 64, 200), inputs(3, 130, 70)):
        with torch.no_grad():
            expected = model(image, mask)
        found = runs(image, mask)
        assert len(found) == len(expected) == 3  # logits, boxes, masks
        for output, wanted in zip(found, expected):
            torch.testing.assert_close(output, wanted, rtol=0, atol=1e-3)


def test_the_onnx_file_reads_the_mask_and_has_opset_18(checkpoint, session):
    image, mask = inputs(1, 64, 96)
    one, other = (session.run(["logits"], {"image": image.numpy(), "mask": m.numpy()})[0] for m in (mask, ~mask))
    assert np.abs(one - other).max() > 1e-3
    opsets = onnx.load(checkpoint.with_suffix(".onnx")).opset_import
    assert {opset.domain: opset.version for opset in opsets}[""] >= 18


def test_the_onnx_file_names_its_classes_and_sizes(session):
    about = json.loads(session.get_modelmeta().custom_metadata_map["detr"])
    classes = {str(one["id"]): one["name"] for one in CATEGORIES}
    assert about == {"classes": classes, "size": 96, "max_size": 128, "thresholds": THRESHOLDS}


@pytest.mark.parametrize("size", [(150, 110), (90, 300), (96, 96)])
def test_the_example_finds_the_boxes_that_the_model_finds(session, checkpoint, size):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (*size, 3), dtype=np.uint8))
    found = onnx_example.detect(session, image, threshold=0.001)
    detector = load_detector(checkpoint, "cpu")
    detector.model.eval()
    tensor, _ = make_coco_transforms("val", val_size=96, max_size=128)(image, None)
    with torch.no_grad():
        outputs = detector.model(tensor[None])
    result = detector.postprocessors["bbox"](outputs, torch.tensor([[image.height, image.width]]))[0]
    order = result["scores"].argsort(descending=True)
    order = order[result["scores"][order] > 0.001]
    assert len(found) == len(order) > 0
    names = {0: "0", **{one["id"]: one["name"] for one in CATEGORIES}}
    for (name, score, box), query in zip(found, order.tolist()):
        assert name == names[result["labels"][query].item()]
        assert score == pytest.approx(result["scores"][query].item(), abs=1e-3)
        assert box == pytest.approx(result["boxes"][query].tolist(), abs=0.3)


def test_the_example_draws_a_picture(checkpoint, tmp_path, monkeypatch, capsys):
    Image.new("RGB", (120, 90), "white").save(tmp_path / "in.png")
    onnx_file = str(checkpoint.with_suffix(".onnx"))
    arguments = [onnx_file, str(tmp_path / "in.png"), str(tmp_path / "out.png"), "--threshold", "0.01"]
    monkeypatch.setattr("sys.argv", ["onnx_example.py", *arguments])
    onnx_example.main()
    assert len(capsys.readouterr().out.splitlines()) == 5  # one for each query
    assert (np.asarray(Image.open(tmp_path / "out.png")) != 255).any()


# ---- in the place of a checkpoint ----


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_exported_file_gives_the_results_of_its_checkpoint(checkpoint, original, suffix):
    exported = load_predictor(checkpoint.with_suffix(suffix), "cpu")
    assert exported.is_exported and not original.is_exported
    assert exported.categories == original.categories and exported.resized((640, 480)) == original.resized((640, 480))
    assert exported.class_thresholds() == original.class_thresholds()
    pairs = zip(exported(pictures(), threshold=0.01), original(pictures(), threshold=0.01), strict=True)
    for found, expected in pairs:
        assert len(found) == len(expected) > 0
        torch.testing.assert_close(found.scores, expected.scores, rtol=0, atol=1e-3)
        torch.testing.assert_close(found.boxes, expected.boxes, rtol=0, atol=0.3)
        assert found.masks.shape == expected.masks.shape
        assert (found.masks != expected.masks).sum() <= 1e-3 * found.masks.numel()


def in_place_of_a_file(path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The model itself runs where the exported file would, since writing another file takes long."""
    loaded = load_checkpoint(checkpoint)
    model, found = load_exportable(loaded, "here")
    entry = json.dumps(tools.export._about(found, loaded["thresholds"]))
    monkeypatch.setattr(exported_detector, "load_with_entry", lambda *_, **__: (model.__call__, entry))
    path.touch()
    return path


def test_panoptic_maps_are_those_of_the_checkpoint(tmp_path, monkeypatch):
    kinds = [{**one, "isthing": int(one["id"] == 1)} for one in CATEGORIES]
    flags = ("--num_classes", "3", "--masks", "--dataset_file", "coco_panoptic")
    path = saved_detector(tmp_path / "panoptic.pth", *flags, categories=kinds)
    exported = Predictor(in_place_of_a_file(tmp_path / "panoptic.onnx", path, monkeypatch))
    original = Predictor(path, "cpu")
    assert exported.is_panoptic and exported.categories == original.categories
    assert exported.predicted() == original.predicted() == {1: "cat"}
    settings = {"threshold": 0.01, "panoptic_threshold": 0.0}
    for one, other in zip(exported(pictures(), **settings), original(pictures(), **settings), strict=True):
        assert one.names == other.names
        assert (one.panoptic.ids != other.panoptic.ids).mean() < 1e-3


def test_a_detector_without_a_mask_head_gives_boxes_alone(tmp_path, monkeypatch):
    path = saved_detector(tmp_path / "boxes.pth", "--num_classes", "3", categories=CATEGORIES)
    exported = Predictor(in_place_of_a_file(tmp_path / "boxes.onnx", path, monkeypatch))
    pairs = zip(exported(pictures(), threshold=0.01), Predictor(path, "cpu")(pictures(), threshold=0.01), strict=True)
    for found, expected in pairs:
        assert len(found) == len(expected) > 0 and found.masks is None
        torch.testing.assert_close(found.boxes, expected.boxes, rtol=0, atol=0.3)


def test_best_means_the_checkpoints_thresholds(checkpoint, original):
    exported = Predictor(checkpoint.with_suffix(".onnx"), threshold="best")
    wanted = [prediction.names for prediction in original(pictures(), threshold="best")]
    assert [prediction.names for prediction in exported(pictures())] == wanted
    assert wanted != [prediction.names for prediction in original(pictures(), threshold=0.0)]


def test_predict_writes_the_results_of_the_checkpoint(checkpoint, tmp_path):
    (tmp_path / "in").mkdir()
    Image.fromarray(pictures()[0]).save(tmp_path / "in" / "a.png")
    Image.fromarray(pictures()[0][:8]).save(tmp_path / "in" / "flat.png")  # 8 pixels after resizing
    found = {}
    for file, code in ((checkpoint, 0), (checkpoint.with_suffix(".onnx"), 1)):
        out = tmp_path / f"out{file.suffix}"
        command = [str(file), str(tmp_path / "in"), "--out", str(out), "--threshold", "0.01", "--device", "cpu"]
        assert predict.run(command) == code
        results = json.loads((out / "detections.json").read_text())
        found[file.suffix] = [one for one in results["annotations"] if one["image_id"] == 1]
        assert results["categories"][1]["name"] == "dog\x1b[31m"
    assert [one["category_id"] for one in found[".onnx"]] == [one["category_id"] for one in found[".pth"]] != []
    for one, other in zip(found[".onnx"], found[".pth"]):
        assert one["bbox"] == pytest.approx(other["bbox"], abs=0.3)


def test_what_an_exported_file_cannot_give_is_refused_before_anything_is_written(checkpoint, tmp_path, capsys):
    onnx = str(checkpoint.with_suffix(".onnx"))
    Image.fromarray(pictures()[0]).save(tmp_path / "a.png")
    assert predict.run([onnx, str(tmp_path / "a.png"), "--out", str(tmp_path / "out"), "--attention"]) == 1
    assert predict.run([onnx, "--fps"]) == 1
    errors = capsys.readouterr().err
    assert "no attention: use the checkpoint" in errors
    assert "tools.export --time" in errors
    with pytest.raises(ValueError, match="no attention: use the checkpoint"):
        Predictor(onnx).attention(Predictor(onnx)(pictures()[0]))


def test_another_device_is_refused(checkpoint):
    with pytest.raises(ValueError, match="exported files run on the CPU|not a device|cannot be used"):
        Predictor(checkpoint.with_suffix(".onnx"), "meta")


def test_damaged_missing_and_foreign_files_are_named(checkpoint, tmp_path):
    cut = tmp_path / "cut.onnx"
    cut.write_bytes(checkpoint.with_suffix(".onnx").read_bytes()[:5000])
    model = onnx.load(checkpoint.with_suffix(".onnx"))
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "plain.onnx")
    entry = model.metadata_props.add()
    entry.key, entry.value = "detr", '{"classes": {"1": 5}, "size": 96, "max_size": 128}'
    onnx.save(model, tmp_path / "wrong.onnx")
    for path, words in (
        (cut, "cut.onnx cannot be used"),
        (tmp_path / "none.onnx", "there is no file .*none.onnx"),
        (tmp_path / "plain.onnx", "no classes and sizes in its metadata"),
        (tmp_path / "wrong.onnx", "metadata of .* are damaged"),
    ):
        with pytest.raises(CheckpointError, match=words):
            Predictor(path)


@pytest.mark.skipif(".xml" not in SUFFIXES, reason="needs openvino")
def test_the_weights_of_an_xml_are_missed_by_name(checkpoint, tmp_path):
    shutil.copy(checkpoint.with_suffix(".xml"), tmp_path)
    with pytest.raises(CheckpointError, match="there is no file .*tiny.bin .*keeps its weights beside it"):
        Predictor(tmp_path / "tiny.xml")


def test_a_pt2_file_with_other_records_is_not_unpickled(checkpoint, tmp_path):
    hostile = tmp_path / "hostile.pt2"
    shutil.copy(checkpoint.with_suffix(".pt2"), hostile)
    with zipfile.ZipFile(hostile, "a") as archive:
        root = archive.namelist()[0].split("/")[0]
        archive.writestr(f"{root}/data/constants/opaque_obj_0", b"cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(CheckpointError, match="opaque_obj_0, which may be code"):
        Predictor(hostile)


def test_a_checkpoint_may_be_named_pt2(checkpoint, tmp_path):
    shutil.copy(checkpoint, tmp_path / "weights.pt2")
    assert not Predictor(tmp_path / "weights.pt2", "cpu").is_exported
