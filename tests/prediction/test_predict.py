"""`Predictor`: images in, detections in their pixels out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from datasets.coco import CocoDetection, make_coco_transforms
from models import build_model
from models.attention_maps import record_attention
from models.load import load_detector
from models.segmentation import DETRsegm
from predict import Predictor
from prediction import predictor as prediction_predictor
from prediction import result as prediction_result
from prediction.inputs import read_upright_rgb
from tests.helpers.predict_parts import CATEGORIES, write_detector, write_picture
from tests.helpers.runs import parse
from util.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from util.pictures import fonts


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_detector(tmp_path_factory.mktemp("detector") / "checkpoint.pth")


@pytest.fixture(scope="module")
def predictor(checkpoint: Path) -> Predictor:
    return Predictor(checkpoint, "cpu")


def same(one, other) -> None:
    torch.testing.assert_close(one.boxes, other.boxes, atol=1e-3, rtol=0)
    torch.testing.assert_close(one.scores, other.scores, atol=1e-5, rtol=0)
    assert one.labels.tolist() == other.labels.tolist() and one.names == other.names


def test_predictions_equal_those_of_validation(predictor: Predictor, shapes: Path):
    dataset = CocoDetection(
        shapes / "val2017",
        shapes / "annotations/instances_val2017.json",
        make_coco_transforms("val", val_size=64, max_size=64),
        False,
    )
    image, target = dataset[0]
    with torch.no_grad():
        expected = predictor.postprocessors["bbox"](predictor.model(image[None]), target["orig_size"][None])[0]
    found = predictor(sorted((shapes / "val2017").iterdir())[0], threshold=0)
    order = expected["scores"].argsort(descending=True)
    torch.testing.assert_close(found.boxes, expected["boxes"][order])
    torch.testing.assert_close(found.scores, expected["scores"][order])
    assert found.labels.tolist() == expected["labels"][order].tolist() and len(found) == 6


def test_every_kind_of_input_gives_the_same_result(predictor: Predictor, tmp_path: Path):
    path = write_picture(tmp_path / "a.png")
    pixels = np.array(Image.open(path))
    tensor = torch.from_numpy(pixels).permute(2, 0, 1)
    expected = predictor(path, threshold=0)
    assert len(expected) == 6
    for image in (str(path), Image.open(path), pixels, tensor, tensor / 255):
        same(predictor(image, threshold=0), expected)


def test_boxes_are_in_pixels_of_the_image(predictor: Predictor, tmp_path: Path):
    small = predictor(write_picture(tmp_path / "s.png", (60, 40)), threshold=0)
    large = predictor(write_picture(tmp_path / "l.png", (600, 400)), threshold=0)
    torch.testing.assert_close(large.boxes, small.boxes * 10, atol=30, rtol=0)
    assert large.image.size == (600, 400)


def test_the_first_number_of_a_box_scales_with_the_width(predictor: Predictor, tmp_path: Path):
    path = write_picture(tmp_path / "a.png", (90, 40))
    found = predictor(path, threshold=0)
    with torch.no_grad():
        outputs = predictor.model(predictor.transforms(read_upright_rgb(path), None)[0][None])
    cx, cy, w, h = outputs["pred_boxes"][0, found.queries].unbind(1)
    expected = torch.stack([(cx - w / 2) * 90, (cy - h / 2) * 40, (cx + w / 2) * 90, (cy + h / 2) * 40], dim=1)
    torch.testing.assert_close(found.boxes, expected, atol=1e-3, rtol=0)


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_results_are_the_same_at_any_batch_size(predictor: Predictor, tmp_path: Path, batch_size: int):
    sizes = [(60, 40), (40, 60), (60, 40), (50, 50), (60, 40), (120, 80)]
    paths = [write_picture(tmp_path / f"{i}.png", size, seed=i) for i, size in enumerate(sizes)]
    together = predictor(paths, threshold=0, batch_size=batch_size)
    assert [found.image.size for found in together] == sizes
    for path, found in zip(paths, together):
        same(found, predictor(path, threshold=0))


def test_no_batch_is_padded_or_larger_than_requested(predictor: Predictor, tmp_path: Path, monkeypatch):
    shapes_seen, forward = [], predictor.model.forward
    monkeypatch.setattr(predictor.model, "forward", lambda x: shapes_seen.append(x.shape) or forward(x))
    sizes = [(60, 40), (40, 60), (60, 40), (120, 80)]
    predictor([write_picture(tmp_path / f"{i}.png", size) for i, size in enumerate(sizes)], batch_size=2)
    assert sorted(tuple(shape) for shape in shapes_seen) == [
        (1, 3, 43, 64),
        (1, 3, 64, 43),
        (2, 3, 43, 64),
    ]


def test_threshold_top_k_and_classes_choose_the_best(predictor: Predictor, tmp_path: Path):
    path = write_picture(tmp_path / "a.png")
    everything = predictor(path, threshold=0)
    scores = everything.scores.tolist()
    assert scores == sorted(scores, reverse=True)
    assert predictor(path, threshold=scores[2]).scores.tolist() == scores[:3]
    assert predictor(path, threshold=0, top_k=2).scores.tolist() == scores[:2]
    assert len(predictor(path, threshold=1)) == 0
    for category in CATEGORIES:
        expected = [s for s, label in zip(scores, everything.labels.tolist()) if label == category["id"]]
        found = predictor(path, threshold=0, classes=[category["name"].upper()])
        assert found.scores.tolist() == expected and set(found.names) <= {category["name"]}
    with pytest.raises(ValueError, match="has no class 'cube'; its classes are circle, Square, triangle"):
        predictor(path, classes=["circle", "cube"])


def test_a_name_shared_by_several_ids_selects_all_of_them(tmp_path: Path):
    loaded = dict(load_checkpoint(write_detector(tmp_path / "checkpoint.pth")))
    loaded["categories"] = [{"id": 1, "name": "Cat"}, {"id": 4, "name": "cat"}, {"id": 5, "name": "dog"}]
    assert Predictor(loaded, "cpu").class_ids(["CAT"]) == [1, 4]


def test_names_follow_the_category_ids(predictor: Predictor, tmp_path: Path):
    names = {category["id"]: category["name"] for category in CATEGORIES}
    paths = [write_picture(tmp_path / f"{i}.png", seed=i) for i in range(4)]
    for found in predictor(paths, threshold=0):
        assert found.names == [names.get(label, f"class {label}") for label in found.labels.tolist()]


def test_an_empty_list_gives_an_empty_list(predictor: Predictor):
    assert predictor([]) == []


@pytest.mark.parametrize(
    ("image", "fault"),
    [
        (np.zeros((4, 5), np.uint8), r"\[H, W, 3\] of uint8, RGB, got \[4, 5\] of uint8"),
        (np.zeros((4, 5, 3)), "got .* of float64"),
        (torch.zeros(4, 5, 3, dtype=torch.uint8), r"\[3, H, W\] of uint8 or floats, got \[4, 5, 3\]"),
        (torch.full((3, 4, 5), -1.5), r"colours in \[0, 1\], not normalised"),
        ("no such file.png", "image file no such file.png does not exist"),
    ],
)
def test_unsupported_images_are_rejected(predictor: Predictor, image, fault: str):
    with pytest.raises((ValueError, OSError), match=fault):
        predictor(image)


@pytest.mark.parametrize("choice", [{"threshold": 50}, {"top_k": 0}, {"batch_size": 0}])
def test_settings_out_of_range_are_rejected(predictor: Predictor, choice: dict):
    with pytest.raises(ValueError, match=next(iter(choice))):
        predictor([], **choice)


def test_outputs_that_are_not_finite_are_an_error(checkpoint: Path, tmp_path: Path):
    broken = Predictor(checkpoint, "cpu")
    torch.nn.init.constant_(broken.model.class_embed.bias, float("nan"))
    with pytest.raises(FloatingPointError, match="not finite"):
        broken(write_picture(tmp_path / "a.png"))


@pytest.mark.parametrize("tag", range(1, 9))
def test_files_are_rotated_by_their_exif_tag(tmp_path: Path, tag: int):
    exif = Image.Exif()
    exif[0x0112] = tag
    path = write_picture(tmp_path / "a.png", exif=exif)
    with Image.open(path) as image:
        assert read_upright_rgb(path).tobytes() == ImageOps.exif_transpose(image).tobytes()


# --- prediction


def test_a_prediction_draws_and_crops_its_own_image(predictor: Predictor, tmp_path: Path):
    found = predictor(write_picture(tmp_path / "a.png"), threshold=0)
    plain = found.image.resize(found.draw().size, Image.Resampling.BICUBIC)
    assert found.draw().size == (600, 400) and found.draw().tobytes() != plain.tobytes()
    assert found.draw(min_side=0).size == found.image.size
    found.boxes[0] = torch.tensor([-5.0, 3.2, 20.7, 900.0])
    assert found.crop(0).tobytes() == found.image.crop((0, 3, 21, 40)).tobytes()
    found.boxes[1] = torch.tensor([70.0, 50.0, 80.0, 60.0])
    assert found.crop(1).size == (1, 1)
    found.boxes[2] = torch.tensor([2.7, 4.0, 2.9, 4.0])
    assert found.crop(2).tobytes() == found.image.crop((2, 4, 3, 5)).tobytes()
    found.boxes[3] = torch.tensor([7.0, 0.0, 7.0, 9.0])
    assert found.crop(3).tobytes() == found.image.crop((7, 0, 8, 9)).tobytes()


def test_attention_comes_from_the_last_layers_and_this_image(predictor: Predictor, tmp_path: Path, monkeypatch):
    shown = []
    monkeypatch.setattr(prediction_predictor, "attention_sheet", lambda *parts: shown.extend(parts))
    path = write_picture(tmp_path / "a.png", (40, 90))
    found = predictor(path, threshold=0)
    predictor.attention(found, [(1, 2)])
    with torch.no_grad(), record_attention(predictor.model) as maps:
        predictor.model(predictor.transforms(read_upright_rgb(path), None)[0][None])
    assert shown[0] is found and shown[3] == [(1, 2)]
    torch.testing.assert_close(shown[1], maps.decoder[1][0])
    torch.testing.assert_close(shown[2], maps.encoder[0][0])


def test_letters_without_glyphs_become_escapes(predictor: Predictor, tmp_path: Path, monkeypatch):
    texts = []
    monkeypatch.setattr(prediction_result, "draw_boxes", lambda image, boxes, labels, *_, **__: texts.extend(labels))
    letter = "\ue0d1"  # of private use: no font has it
    monkeypatch.setattr(fonts, "_font_for", lambda letter: None if letter == "\ue0d1" else fonts._dejavu())
    fonts.visible.cache_clear()
    found = predictor(write_picture(tmp_path / "a.png"), threshold=0, top_k=3)
    found.names[:] = ["a", f"{letter}b", "דם"]
    found.draw()
    numbers = [f"{score:.0%}" for score in found.scores.tolist()]
    mark = "\u200e"  # otherwise the per cent sign changes sides
    assert texts == [f"a {numbers[0]}", f"\\ue0d1b {numbers[1]}", f"דם {mark}{numbers[2]}"]


def test_a_long_name_leaves_room_for_its_score(predictor: Predictor, tmp_path: Path, monkeypatch):
    texts = []
    monkeypatch.setattr(prediction_result, "draw_boxes", lambda image, boxes, labels, *_, **__: texts.extend(labels))
    found = predictor(write_picture(tmp_path / "a.png"), threshold=0, top_k=2)
    found.names[:] = ["x" * 28, "a long name that does not seem to end"]
    found.draw()
    numbers = [f"{score:.0%}" for score in found.scores.tolist()]
    assert texts == [f"{'x' * 28} {numbers[0]}", f"a long name that does not s… {numbers[1]}"]


# --- checkpoints


def test_a_loaded_checkpoint_gives_the_same_result(predictor: Predictor, checkpoint: Path, tmp_path: Path):
    path = write_picture(tmp_path / "a.png")
    same(Predictor(load_checkpoint(checkpoint), "cpu")(path, threshold=0), predictor(path, threshold=0))


def test_published_weights_get_coco_names(tmp_path: Path):
    path = write_detector(tmp_path / "a.pth", "--num_classes", "91", keep=("args",))
    names = Predictor(path, "cpu").names
    assert len(names) == 80 and (names[1], names[90]) == ("person", "toothbrush")
    assert Predictor(write_detector(tmp_path / "b.pth", keep=("args",)), "cpu").names == {}


RESNET = "--backbone resnet18 --backbone_norm frozen_bn --hidden_dim 32 --nheads 8 --dec_layers 3".split()


def test_bare_weights_are_built_by_their_shapes(tmp_path: Path):
    name, flags = "detr-r18-dc5-0123.pth", [*RESNET, "--pre_norm", "--dilation"]
    alone = load_detector(write_detector(tmp_path / name, *flags, keep=()), "cpu")
    full = load_detector(write_detector(tmp_path / "full.pth", *flags), "cpu")
    for setting in ("backbone", "dilation", "enc_layers", "dec_layers", "hidden_dim", "num_queries", "pre_norm"):
        assert getattr(alone.args, setting) == getattr(full.args, setting), setting
    assert alone.args.dim_feedforward == 32 and not alone.model.training
    image = torch.rand(1, 3, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        found, expected = (detector.model.double()(image)["pred_boxes"] for detector in (alone, full))
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


MASKS = ("--masks", "--hidden_dim", "128", "--nheads", "8")


def write_masks(path: Path, *more: str, **entries) -> Path:
    torch.manual_seed(0)
    args = parse("nowhere", "--num_classes", "8", *MASKS, *more)
    save_checkpoint(path, {"model": build_model(args)[0].state_dict(), "args": args} | entries)
    return path


def test_a_model_with_masks_is_loaded_with_its_postprocessors(tmp_path: Path):
    detector = load_detector(write_masks(tmp_path / "masks.pth", "--frozen_weights", "gone.pth"), "cpu")
    assert isinstance(detector.model, DETRsegm) and not detector.model.freeze_detr and not detector.model.training
    assert list(detector.postprocessors) == ["bbox", "segm"]


def test_things_and_stuff_follow_the_categories(tmp_path: Path):
    categories = [{"id": 2, "name": "cat", "isthing": 1}, {"id": 5, "name": "sky", "isthing": 0}]
    path = write_masks(tmp_path / "masks.pth", "--dataset_file", "coco_panoptic", categories=categories)
    things = load_detector(path, "cpu").postprocessors["panoptic"].is_thing_map
    assert [label for label, thing in things.items() if thing] == [2] and len(things) == 8


def test_published_panoptic_weights_are_recognised_by_their_shapes(tmp_path: Path):
    flags = [*RESNET, *MASKS, "--num_classes", "250"]
    torch.manual_seed(0)
    model = build_model(parse("nowhere", *flags))[0]
    save_checkpoint(tmp_path / "detr-r18-panoptic.pth", {"model": model.state_dict()})
    detector = load_detector(tmp_path / "detr-r18-panoptic.pth", "cpu")
    assert list(detector.postprocessors) == ["bbox", "segm", "panoptic"] and detector.args.hidden_dim == 128
    names = {category["id"]: category["name"] for category in detector.categories}
    assert (names[1], names[200], len(names)) == ("person", "rug-merged", 133)
    things = detector.postprocessors["panoptic"].is_thing_map
    assert things[90] and not things[92]
    with torch.no_grad():
        image = torch.rand(1, 3, 64, 64, dtype=torch.float64)
        found, expected = (network.double().eval()(image)["pred_masks"] for network in (detector.model, model))
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def test_checkpoints_without_a_detector_are_rejected(tmp_path: Path):
    alone = write_detector(tmp_path / "tiny.pth", keep=())
    with pytest.raises(CheckpointError, match="has no settings"):
        load_detector(alone)
    with pytest.raises(CheckpointError, match="is not a DETR|check first --masks"):
        load_detector(write_detector(tmp_path / "masks.pth", "--hidden_dim", "128", "--nheads", "8", prefix="detr."))
    with pytest.raises(CheckpointError, match="no class_embed"):
        load_detector({"model": {"weight": torch.zeros(3)}})
    other = load_checkpoint(write_detector(tmp_path / "other.pth"))
    with pytest.raises(CheckpointError, match="nheads 5"):
        load_detector(other | {"args": other["args"] | {"nheads": 5}}, "cpu")


def test_nothing_is_downloaded(checkpoint: Path, no_network: None):
    loaded = load_checkpoint(checkpoint)
    loaded["args"] |= {"backbone_weights": "imagenet", "resume": "", "device": "cuda:7"}
    assert load_detector(loaded, "cpu").args.device == "cpu"
