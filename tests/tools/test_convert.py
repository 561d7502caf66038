"""Converting to Hugging Face's DETR and back: equal outputs, class names, unsupported settings."""

import json

import pytest
import torch
from PIL import Image

import predict
from models import build_model
from tests.helpers.predict_parts import write_picture
from tests.helpers.runs import parse
from tools.convert import run
from util.checkpoint import load_checkpoint, save_checkpoint
from util.nested_tensor import NestedTensor
from util.rng import seed_everything

transformers = pytest.importorskip("transformers", reason="transformers is needed to convert")
safetensors = pytest.importorskip("safetensors.torch", reason="safetensors is needed to convert")

NORM = ("--backbone_norm", "frozen_bn")
NAMES = [{"id": 1, "name": "cat"}, {"id": 3, "name": "dog"}]


def shake(model: torch.nn.Module) -> None:
    """Change every weight and statistic, so that an entry that is not converted is noticed."""
    seed_everything(1)
    for name, value in model.state_dict().items():
        if value.is_floating_point():
            spread = 0.3 if value.ndim == 2 else 0.01  # uniform attention would hide swapped parts
            value.add_(torch.rand_like(value) * 0.5 if "var" in name else torch.randn_like(value) * spread)


@pytest.fixture
def checkpoint(tmp_path):
    def write(*flags: str):
        args = parse("", "--num_classes", "5", *NORM, *flags)
        model = build_model(args)[0]
        shake(model)
        path = tmp_path / "ours.pth"
        save_checkpoint(path, {"model": model.state_dict(), "args": args, "categories": NAMES})
        return path

    return write


def huggingface_folder(folder, **settings):
    sizes = {"embedding_size": 32, "hidden_sizes": [32, 64, 128, 160], "depths": [1, 1, 1, 1], "layer_type": "basic"}
    parts = {
        "use_timm_backbone": False,
        "backbone_config": transformers.ResNetConfig(**sizes, out_features=["stage4"]),
        "use_pretrained_backbone": False,
        "d_model": 16,
        "encoder_layers": 2,
        "decoder_layers": 2,
        "encoder_attention_heads": 4,
        "decoder_attention_heads": 4,
        "encoder_ffn_dim": 24,
        "decoder_ffn_dim": 24,
        "num_queries": 5,
        "id2label": {0: "N/A", 1: "cat", 2: "dog"},
    }
    model = transformers.DetrForObjectDetection(transformers.DetrConfig(**(parts | settings))).eval()
    shake(model)
    model.save_pretrained(folder)
    return model


@pytest.mark.parametrize(
    "flags", [(), ("--position_embedding", "learned", "--enc_layers", "2"), ("--backbone_norm", "bn")]
)
def test_a_checkpoint_survives_the_round_trip(checkpoint, tmp_path, flags, capsys):
    path = checkpoint(*flags)
    assert run([str(path), str(tmp_path / "hf")]) == 0
    assert run([str(tmp_path / "hf"), str(tmp_path / "back.pth")]) == 0
    assert "agree within" in capsys.readouterr().out
    ours, back = load_checkpoint(path), load_checkpoint(tmp_path / "back.pth")
    weights = {name: value for name, value in ours["model"].items() if not name.endswith("num_batches_tracked")}
    assert back["model"].keys() == weights.keys()
    assert all(torch.equal(back["model"][name], value) for name, value in weights.items())
    assert back["categories"] == NAMES
    assert back["args"]["nheads"] == 2 and back["args"]["num_classes"] == 5


def test_thresholds_survive_the_round_trip_of_the_weights_that_they_belong_to(checkpoint, tmp_path):
    path = checkpoint()
    found = {"iou": 0.5, "overall": None, "classes": [{"id": 3, "objects": 20, "threshold": 0.4, "f1": 0.5}]}
    save_checkpoint(path, {**load_checkpoint(path), "thresholds": found})
    assert run([str(path), str(tmp_path / "hf")]) == 0
    assert run([str(tmp_path / "hf"), str(tmp_path / "back.pth")]) == 0
    assert load_checkpoint(tmp_path / "back.pth")["thresholds"] == found
    model = transformers.DetrForObjectDetection.from_pretrained(tmp_path / "hf")
    shake(model)  # as training does
    model.save_pretrained(tmp_path / "trained")
    assert run([str(tmp_path / "trained"), str(tmp_path / "trained.pth")]) == 0
    assert "thresholds" not in load_checkpoint(tmp_path / "trained.pth")


def test_the_round_trip_finds_the_same_objects_at_the_same_sizes(checkpoint, tmp_path):
    path = checkpoint("--val_size", "80", "--max_size", "100")
    assert run([str(path), str(tmp_path / "hf")]) == 0
    assert run([str(tmp_path / "hf"), str(tmp_path / "back.pth")]) == 0
    image = write_picture(tmp_path / "a.png", (120, 50))
    first, second = (predict.Predictor(file, "cpu")(image, threshold=0) for file in (path, tmp_path / "back.pth"))
    assert torch.equal(first.boxes, second.boxes) and torch.equal(first.scores, second.scores)
    assert first.names == second.names and {"cat", "dog"} & set(first.names)
    settings = load_checkpoint(tmp_path / "back.pth")["args"]
    assert (settings["val_size"], settings["max_size"]) == (80, 100)


def test_hugging_faces_processor_prepares_the_same_image(checkpoint, tmp_path):
    path = checkpoint("--val_size", "80", "--max_size", "200")
    assert run([str(path), str(tmp_path / "hf")]) == 0
    image = Image.open(write_picture(tmp_path / "a.png", (120, 100))).convert("RGB")
    ours = predict.Predictor(path, "cpu").transforms(image, None)[0]
    exact = transformers.DetrImageProcessorPil.from_pretrained(tmp_path / "hf")
    theirs = exact(images=image, return_tensors="pt")["pixel_values"][0]
    assert theirs.shape == ours.shape == (3, 80, 96)
    torch.testing.assert_close(theirs, ours, rtol=0, atol=1e-5)
    usual = transformers.AutoImageProcessor.from_pretrained(tmp_path / "hf")
    theirs = usual(images=image, return_tensors="pt")["pixel_values"][0]
    torch.testing.assert_close(theirs, ours, rtol=0, atol=1.5 / 255 / 0.224)


ODD_NAMES = ["N/A", "cat", "cat", "LABEL_3", "LABEL_9", "", "7", "6", "犬", "\x1b[31m", "a\nb", "\ud800", " x "]


def test_class_names_of_any_kind_survive(checkpoint, tmp_path):
    odd = [{"id": 1 + 2 * k, "name": name, "isthing": 1} for k, name in enumerate(ODD_NAMES)]
    path = checkpoint("--num_classes", "30")
    save_checkpoint(path, load_checkpoint(path) | {"categories": odd})
    assert run([str(path), str(tmp_path / "hf")]) == 0
    config = transformers.DetrConfig.from_pretrained(tmp_path / "hf")
    assert [config.id2label[k] for k in range(4)] == ["N/A", "N/A", "N/A", "cat"] and config.num_labels == 30
    assert config.label2id["cat"] == 3  # the first of two
    assert run([str(tmp_path / "hf"), str(tmp_path / "back.pth")]) == 0
    assert load_checkpoint(tmp_path / "back.pth")["categories"] == odd


def changed(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_names_that_were_changed_afterwards_count(checkpoint, tmp_path):
    assert run([str(checkpoint()), str(tmp_path / "hf")]) == 0
    names = {"0": "N/A", "1": "LABEL_1", "2": "LABEL_5", "3": "N/A or not", "4": "wolf"}
    changed(tmp_path / "hf" / "config.json", id2label=names)
    assert run([str(tmp_path / "hf"), str(tmp_path / "back.pth")]) == 0
    assert load_checkpoint(tmp_path / "back.pth")["categories"] == [
        {"id": 2, "name": "LABEL_5"},
        {"id": 3, "name": "N/A or not"},
        {"id": 4, "name": "wolf"},
    ]


@pytest.mark.parametrize("own", [[{"id": 9, "name": "far"}], [{"id": 1, "name": "cat"}] * 2, [1], {}, [{"id": "1"}]])
def test_categories_that_this_converter_did_not_write_do_not_count(tmp_path, own):
    huggingface_folder(tmp_path / "hf")
    changed(tmp_path / "hf" / "config.json", detr_categories=own)
    assert run([str(tmp_path / "hf"), str(tmp_path / "ours.pth")]) == 0
    assert [category["name"] for category in load_checkpoint(tmp_path / "ours.pth")["categories"]] == ["cat", "dog"]


@pytest.mark.parametrize(
    ("processing", "sizes"),
    [
        ({"size": {"shortest_edge": 320, "longest_edge": 500}}, (320, 500)),
        ({"size": 320, "max_size": 500, "do_normalize": True}, (320, 500)),  # of early versions
        ({"size": {"shortest_edge": 320}}, (320, 1333)),
        ({}, (800, 1333)),
        (None, (800, 1333)),
    ],
)
def test_sizes_are_read_from_the_image_processor(tmp_path, processing, sizes):
    huggingface_folder(tmp_path / "hf")
    if processing is not None:
        (tmp_path / "hf" / "preprocessor_config.json").write_text(json.dumps(processing))
    assert run([str(tmp_path / "hf"), str(tmp_path / "ours.pth")]) == 0
    settings = load_checkpoint(tmp_path / "ours.pth")["args"]
    assert (settings["val_size"], settings["max_size"]) == sizes


@pytest.mark.parametrize(
    "processing",
    [
        {"size": {"height": 640, "width": 640}},
        {"size": {"shortest_edge": "800"}},
        {"size": {"shortest_edge": -1}},
        {"image_mean": [0.5, 0.5, 0.5]},
        {"image_std": None},
        {"do_normalize": False},
        {"do_resize": False},
        {"rescale_factor": 1},
        {"resample": 3},
    ],
)
def test_images_that_are_prepared_otherwise_are_refused_by_name(tmp_path, processing, capsys):
    huggingface_folder(tmp_path / "hf")
    (tmp_path / "hf" / "preprocessor_config.json").write_text(json.dumps(processing))
    assert run([str(tmp_path / "hf"), str(tmp_path / "ours.pth")]) == 1
    message = capsys.readouterr().err
    assert "preprocessor_config.json prepares images in another way" in message and next(iter(processing)) in message
    assert not (tmp_path / "ours.pth").exists()


@pytest.mark.parametrize("encoding", ["sine", "learned"])
def test_a_hugging_face_folder_becomes_a_checkpoint(tmp_path, encoding):
    theirs = huggingface_folder(tmp_path / "hf", position_embedding_type=encoding)
    assert run([str(tmp_path / "hf"), str(tmp_path / "ours.pth")]) == 0
    converted = load_checkpoint(tmp_path / "ours.pth")
    model = build_model(parse("", *(f"--{k}={v}" for k, v in converted["args"].items() if k != "dilation")))[0].eval()
    model.load_state_dict(converted["model"])
    padding = torch.zeros(1, 64, 96, dtype=torch.bool)
    padding[:, :, 70:] = True
    with torch.no_grad():
        images = torch.randn(1, 3, 64, 96)
        expected = theirs(images, (~padding).long())
        outputs = model(NestedTensor(images, padding))
    torch.testing.assert_close(outputs["pred_logits"], expected.logits, rtol=0, atol=1e-4)
    torch.testing.assert_close(outputs["pred_boxes"], expected.pred_boxes, rtol=0, atol=1e-4)
    assert converted["categories"] == [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]


def test_timm_names_are_written_and_read(checkpoint, tmp_path):
    pytest.importorskip("timm", reason="timm builds the backbone")
    path = checkpoint("--backbone", "resnet18")
    assert run([str(path), str(tmp_path / "hf"), "--timm"]) == 0
    names = safetensors.load_file(tmp_path / "hf" / "model.safetensors").keys()
    assert "model.backbone.conv_encoder.model.layer1.0.conv1.weight" in names
    assert run([str(tmp_path / "hf"), str(tmp_path / "back.pth")]) == 0
    ours, back = load_checkpoint(path)["model"], load_checkpoint(tmp_path / "back.pth")["model"]
    assert all(torch.equal(back[name], value) for name, value in ours.items())


def test_a_model_that_computes_something_else_is_not_written(checkpoint, tmp_path, monkeypatch, capsys):
    def swapped(state, timm):
        theirs = convert(state, timm)
        theirs["bbox_predictor.layers.0.bias"] += 1
        return theirs

    import tools.convert

    convert = tools.convert.to_huggingface
    monkeypatch.setattr(tools.convert, "to_huggingface", swapped)
    assert run([str(checkpoint()), str(tmp_path / "hf")]) == 1
    assert "gives different results" in capsys.readouterr().err
    assert [file.name for file in tmp_path.iterdir()] == ["ours.pth"]


@pytest.mark.parametrize(
    ("flags", "word"),
    [
        (("--pre_norm",), "--pre_norm"),
        (("--masks", "--hidden_dim", "128", "--nheads", "8"), "--masks: only boxes"),
        (("--pos_temperature", "20"), "--pos_temperature 20"),
        (("--backbone_norm", "gn"), "--backbone_norm gn"),
        (("--dilation",), "--dilation with tiny"),
        (("--dilation", "--backbone", "resnet50"), "pass --timm"),
    ],
)
def test_settings_that_hugging_face_lacks_are_named(checkpoint, tmp_path, flags, word, capsys):
    assert run([str(checkpoint(*flags)), str(tmp_path / "hf")]) == 1
    assert word in capsys.readouterr().err
    assert not (tmp_path / "hf").exists()


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"decoder_attention_heads": 2}, "encoder_attention_heads and decoder_attention_heads differ"),
        ({"activation_function": "gelu"}, "activation_function is 'gelu'"),
        ({"model_type": "conditional_detr"}, "only DetrForObjectDetection of model_type detr"),
        ({"architectures": ["DetrForSegmentation"]}, "only DetrForObjectDetection of model_type detr"),
        ({"id2label": {"1": "cat", "2": "dog", "3": "eel"}}, "names class 3, but a model with 3 labels"),
        ({"d_model": "wide"}, "transformers cannot read"),
        ({"id2label": {}}, "the weights are those of another configuration"),
        ({"id2label": [1]}, "transformers cannot read"),
        ({"backbone_config": None, "backbone": "resnet9"}, "the backbone in config.json is resnet9"),
        ({"backbone_config": {"model_type": "resnet", "depths": [1, 2, 1, 1]}}, "with other widths or depths"),
    ],
)
def test_settings_that_this_library_lacks_are_named(tmp_path, change, word, capsys):
    huggingface_folder(tmp_path / "hf")
    config = json.loads((tmp_path / "hf" / "config.json").read_text())
    (tmp_path / "hf" / "config.json").write_text(json.dumps(config | change))
    assert run([str(tmp_path / "hf"), str(tmp_path / "ours.pth")]) == 1
    assert word in capsys.readouterr().err
    assert not (tmp_path / "ours.pth").exists()


def test_an_existing_folder_is_not_touched(checkpoint, tmp_path, capsys):
    (tmp_path / "hf").mkdir()
    assert run([str(checkpoint()), str(tmp_path / "hf")]) == 1
    assert "exists" in capsys.readouterr().err and not list((tmp_path / "hf").iterdir())


def test_an_existing_file_is_not_touched(tmp_path, capsys):
    huggingface_folder(tmp_path / "hf")
    for out in (tmp_path / "hf" / "model.safetensors", tmp_path / "hf" / "config.json"):
        before = out.read_bytes()
        assert run([str(tmp_path / "hf"), str(out)]) == 1
        assert "already exists: choose a new file" in capsys.readouterr().err and out.read_bytes() == before
