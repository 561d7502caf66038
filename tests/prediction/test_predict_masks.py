"""Prediction with masks: masks in pixels of the image, panoptic maps, and the files written."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

import predict
from datasets.annotations.panoptic import read_panoptic
from datasets.annotations.segment_maps import decode_segment_map, read_segment_map
from evaluation.panoptic_eval import PanopticEvaluator
from predict import Predictor
from prediction.job_record import SUMMARIES
from prediction.panoptic_map import PanopticMap
from prediction.result import Prediction
from prediction.speed import measure
from tests.helpers.predict_parts import KINDS, command, write_detector, write_panoptic, write_picture, write_pictures

SIZES = {"a.jpg": (60, 40), "b.png": (40, 60), "in/d.JPG": (60, 40)}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_panoptic(tmp_path_factory.mktemp("detector") / "checkpoint.pth")


@pytest.fixture(scope="module")
def predictor(checkpoint: Path) -> Predictor:
    return Predictor(checkpoint, "cpu")


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return write_pictures(tmp_path / "images", SIZES)


@pytest.fixture
def run(checkpoint: Path, tmp_path: Path):
    return command(checkpoint, tmp_path / "out", "--panoptic_threshold", "0")


def files_in(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def read_json(path: Path) -> dict:
    return json.loads(path.read_text())


def answers(predictor: Predictor, picture: Path) -> tuple[list[dict], list[dict]]:
    """The detections of all queries with masks, and the panoptic map, from the postprocessors directly."""
    image = Image.open(picture).convert("RGB")
    tensor, size = predictor.transforms(image, None)[0], (image.height, image.width)
    with torch.no_grad():
        outputs = predictor.model(tensor[None])
    found = predictor.postprocessors["bbox"](outputs, torch.tensor([size]))
    seen = torch.tensor([tensor.shape[-2:]])
    found = predictor.postprocessors["segm"](found, outputs, torch.tensor([size]), seen)
    predictor.postprocessors["panoptic"].threshold, before = 0, predictor.postprocessors["panoptic"].threshold
    maps = predictor.postprocessors["panoptic"](outputs, seen, [size])
    predictor.postprocessors["panoptic"].threshold = before
    return found, maps


# --- the library


@pytest.mark.parametrize("size", [(60, 40), (300, 500)])
def test_masks_belong_to_the_kept_detections_in_image_pixels(predictor: Predictor, tmp_path: Path, size):
    path = write_picture(tmp_path / "a.png", size)
    expected = answers(predictor, path)[0][0]["masks"]  # [Q, 1, H, W]
    found = predictor(path, threshold=0, top_k=3)
    assert found.masks.dtype == torch.bool and found.masks.shape == (len(found), size[1], size[0])
    assert len(found) == 3 and torch.equal(found.masks, expected[found.queries, 0].bool())
    assert 0 < found.masks.float().mean() < 1
    assert predictor(path, threshold=1).masks.shape == (0, size[1], size[0])


def test_the_map_is_the_postprocessors_with_ids_from_one(predictor: Predictor, tmp_path: Path):
    path = write_picture(tmp_path / "a.png")
    expected = answers(predictor, path)[1][0]
    found = predictor(path, panoptic_threshold=0).panoptic
    np.testing.assert_array_equal(found.ids, decode_segment_map(expected["png_string"]) + 1)
    assert found.ids.dtype == np.int32
    names = {category["id"]: category["name"] for category in KINDS}
    assert len(found.segments) == len(expected["segments_info"]) > 1
    for own, theirs in zip(found.segments, expected["segments_info"]):
        assert own == theirs | {"id": theirs["id"] + 1, "name": names[theirs["category_id"]]}
        assert own["area"] == (found.ids == own["id"]).sum()


def test_masks_do_not_depend_on_other_images(predictor: Predictor, tmp_path: Path):
    sizes = [(60, 40), (40, 60), (60, 40), (50, 50)]
    paths = [write_picture(tmp_path / f"{i}.png", size, seed=i) for i, size in enumerate(sizes)]
    together = predictor(paths, threshold=0, panoptic_threshold=0)
    for path, found in zip(paths, together):
        alone = predictor(path, threshold=0, panoptic_threshold=0)
        assert found.queries.tolist() == alone.queries.tolist()
        assert (found.masks == alone.masks).float().mean() > 0.99  # rounding differs
        assert (found.panoptic.ids == alone.panoptic.ids).mean() > 0.99


def test_detections_are_things_unless_stuff_is_named(predictor: Predictor, tmp_path: Path):
    paths = [write_picture(tmp_path / f"{i}.png", seed=i) for i in range(3)]
    everything = [label for found in predictor(paths, threshold=0) for label in found.labels.tolist()]
    stuff = [label for found in predictor(paths, threshold=0, classes=["triangle"]) for label in found.labels.tolist()]
    assert set(everything) <= {1, 3} and set(stuff) <= {7}
    assert len(everything) + len(stuff) == 3 * 12 and everything and stuff


def test_other_classes_than_the_requested_ones_become_void(predictor: Predictor, tmp_path: Path):
    paths = [write_picture(tmp_path / f"{seed}.png", seed=seed) for seed in range(4)]
    wholes = [found.panoptic for found in predictor(paths, panoptic_threshold=0)]
    names_of = [{segment["name"] for segment in whole.segments} for whole in wholes]
    names, path = max(zip(names_of, paths), key=lambda entry: len(entry[0]))
    assert len(names) > 1
    whole = predictor(path, panoptic_threshold=0).panoptic  # alone, as below: a batch may round otherwise
    for name in names:
        part = predictor(path, panoptic_threshold=0, classes=[name]).panoptic
        kept = [segment["id"] for segment in whole.segments if segment["name"] == name]
        assert [segment["id"] for segment in part.segments] == list(range(1, len(kept) + 1))
        np.testing.assert_array_equal(part.ids > 0, np.isin(whole.ids, kept))


def test_the_map_has_its_own_threshold(predictor: Predictor, tmp_path: Path):
    path = write_picture(tmp_path / "a.png")
    whole = predictor(path, threshold=1, top_k=1, panoptic_threshold=0)
    assert len(whole) == 0 and len(whole.panoptic.segments) > 1
    empty = predictor(path, threshold=0, panoptic_threshold=1)
    assert len(empty) and empty.panoptic.segments == [] and not empty.panoptic.ids.any()
    scores = torch.cat([predictor(path, threshold=0, classes=[kind["name"]]).scores for kind in KINDS])
    default = predictor(path).panoptic
    assert bool(default.segments) == bool((scores > 0.85).any())
    again = predictor(path, panoptic_threshold=0.85).panoptic
    assert np.array_equal(default.ids, again.ids) and default.segments == again.segments
    with pytest.raises(ValueError, match=r"panoptic_threshold must be in \[0, 1\], got 85"):
        predictor(path, panoptic_threshold=85)


def test_a_model_without_masks_gives_neither_masks_nor_a_map(tmp_path: Path):
    predictor = Predictor(write_detector(tmp_path / "a.pth"), "cpu")
    found = predictor(write_picture(tmp_path / "a.png"), threshold=0)
    assert found.masks is None and found.panoptic is None and "segmentation" not in found.results()[0]
    with pytest.raises(ValueError, match="needs a model trained on panoptic data"):
        predictor([], panoptic_threshold=0.5)
    with pytest.raises(ValueError, match="trained on panoptic data"):
        found.draw_panoptic()


def test_a_model_that_is_not_panoptic_gives_no_map(tmp_path: Path):
    flags = ("--masks", "--hidden_dim", "128", "--nheads", "8")
    found = Predictor(write_detector(tmp_path / "a.pth", *flags), "cpu")(write_picture(tmp_path / "a.png"), threshold=0)
    assert found.masks.shape == (6, 40, 60) and found.panoptic is None


def test_only_masks_that_are_needed_are_computed(checkpoint: Path, tmp_path: Path):
    predictor, calls = Predictor(checkpoint, "cpu"), []
    predictor.model.mask_head.lay2.register_forward_pre_hook(lambda module, args: calls.append(len(args[0])))
    picture = write_picture(tmp_path / "a.png")
    everything = predictor(picture, threshold=0, panoptic_threshold=0.0)
    assert sum(calls) == 12, "all queries"
    for threshold, panoptic_threshold in [(0.0, 1.0), (1.0, 0.0)]:
        calls.clear()
        found = predictor([picture, picture], threshold=threshold, top_k=2, panoptic_threshold=panoptic_threshold)[1]
        assert sum(calls) == (2 * len(found) if panoptic_threshold else 2 * 12)
        differing = (found.masks != everything.masks[: len(found)]).sum().item()
        assert differing <= 0.01 * found.masks.numel(), "but for pixels that rounding decides"


def test_masks_that_are_not_finite_are_an_error(checkpoint: Path, tmp_path: Path):
    broken = Predictor(checkpoint, "cpu")
    torch.nn.init.constant_(broken.model.mask_head.out_lay.bias, float("nan"))
    with pytest.raises(FloatingPointError, match="not finite"):
        broken(write_picture(tmp_path / "a.png"))


# --- a prediction


def by_hand() -> Prediction:
    """A square of 20 x 20 pixels in an image of 60 x 40, one segment under it and one elsewhere."""
    masks = torch.zeros(1, 40, 60, dtype=torch.bool)
    masks[:, 10:30, 20:40] = True
    ids = np.zeros((40, 60), dtype=np.int32)
    ids[10:30, 20:40], ids[:, 59] = 1, 300
    segments = [
        {"id": 1, "category_id": 3, "isthing": True, "name": "Square", "area": 400},
        {"id": 300, "category_id": 7, "isthing": False, "name": "红", "area": 40},
    ]
    boxes, label = torch.tensor([[20.0, 10, 40, 30]]), torch.tensor([3])
    image = Image.new("RGB", (60, 40), (120, 120, 120))
    more = (["Square"], torch.tensor([0]), masks, PanopticMap(ids, segments))
    return Prediction(image, boxes, torch.tensor([0.9]), label, *more)


def test_results_hold_run_length_encodings_and_their_areas():
    (result,) = by_hand().results()
    assert result["area"] == 400 and result["segmentation"]["size"] == [40, 60]
    np.testing.assert_array_equal(coco_mask.decode(result["segmentation"]), by_hand().masks[0].numpy())


def test_a_map_in_colours_can_be_read_back(tmp_path: Path):
    by_hand().panoptic.picture().save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_segment_map(tmp_path / "a.png"), by_hand().panoptic.ids)


def test_segments_have_boxes_in_whole_pixels():
    assert [segment["bbox"] for segment in by_hand().panoptic.segments_info()] == [[20, 10, 20, 20], [59, 0, 1, 40]]


def test_a_smaller_copy_keeps_masks_and_map_in_place():
    small = by_hand().resized(Image.new("RGB", (30, 20)))
    assert small.masks.shape == (1, 20, 30) and small.masks[0, 5:15, 10:20].all() and small.masks.sum() == 100
    assert small.panoptic.ids.shape == (20, 30) and small.panoptic.segments[0]["area"] == 100
    tiny = by_hand().resized(Image.new("RGB", (3, 2))).panoptic
    assert [segment["id"] for segment in tiny.segments] == [1]


def test_a_prediction_draws_its_masks_and_its_map():
    found = by_hand()
    drawn = found.draw(min_side=0)
    assert drawn.size == (60, 40) and drawn.getpixel((30, 20)) != (120, 120, 120) == drawn.getpixel((5, 35))
    assert found.draw_panoptic(min_side=0).height > 40


# --- the command


def test_masks_and_maps_become_files(run, checkpoint: Path, images: Path, tmp_path: Path, capsys):
    assert run(images) == 0
    out = tmp_path / "out"
    pictures = {f"{folder}/{name}" for folder in ("pictures", "panoptic_pictures") for name in SIZES}
    maps = {"panoptic/a.jpg.png", "panoptic/b.png", "panoptic/in/d.JPG.png"}
    assert files_in(out) == pictures | maps | {*SUMMARIES, "progress.jsonl"}
    assert f"panoptic maps in {out / 'panoptic'}\n" in capsys.readouterr().out
    coco = COCO(out / "detections.json")
    areas = {number: annotation["area"] for number, annotation in coco.anns.items()}
    assert len(coco.loadRes(coco.dataset["annotations"]).anns) == len(coco.anns)  # loadRes changes areas
    found = Predictor(checkpoint, "cpu")(images / "b.png", threshold=0, panoptic_threshold=0)
    own = [coco.anns[number] for number in coco.getAnnIds(imgIds=[2])]
    assert len(own) == len(found) > 0
    for mask, annotation in zip(found.masks.numpy(), own):
        np.testing.assert_array_equal(coco.annToMask(annotation), mask)
        assert areas[annotation["id"]] == mask.sum() and isinstance(annotation["segmentation"]["counts"], str)
    np.testing.assert_array_equal(read_segment_map(out / "panoptic/b.png"), found.panoptic.ids)
    assert read_json(out / "panoptic.json")["categories"] == KINDS


def test_the_written_files_can_be_evaluated(run, images: Path, tmp_path: Path):
    """As ground truth and as prediction: the panoptic quality of a map with itself is 1."""
    assert run(images, "--no_pictures") == 0
    out = tmp_path / "out"
    truth = read_panoptic(out / "panoptic.json")
    assert [image["file_name"] for image in truth.images.values()] == list(SIZES)
    evaluator = PanopticEvaluator(out / "panoptic.json", out / "panoptic", output_dir=None)
    for annotation in read_json(out / "panoptic.json")["annotations"]:
        png = (out / "panoptic" / annotation["file_name"]).read_bytes()
        bare = annotation["file_name"].replace("/", "_")
        evaluator.update([annotation | {"file_name": bare, "png_string": png}])
    results = evaluator.summarize()
    assert results["All"]["pq"] == 1 and results["All"]["n"] > 1


def test_without_pictures_data_are_still_written(run, images: Path, tmp_path: Path):
    assert run(images / "b.png", "--no_pictures", "--save_crops", "--count", "--top_k", "1") == 0
    names = {name for name in files_in(tmp_path / "out") if not name.startswith("crops/")}
    assert names == {"panoptic/b.png", *SUMMARIES, "progress.jsonl"}
    assert len(files_in(tmp_path / "out/crops")) == 1


def test_attention_of_a_model_with_masks_is_drawn(run, images: Path, tmp_path: Path):
    assert run(images / "b.png", "--attention", "--top_k", "2") == 0
    assert Image.open(tmp_path / "out/attention/b.png").height > 448


def test_an_interrupted_job_resumes_with_its_masks(run, images: Path, tmp_path: Path, monkeypatch, capsys):
    assert run(images, "--out", tmp_path / "whole") == 0
    begun, picture = [], PanopticMap.picture

    def full(self):
        begun.append(1)
        if len(begun) == 2:
            raise OSError(28, "No space left on device")
        return picture(self)

    monkeypatch.setattr(PanopticMap, "picture", full)
    assert run(images) == 1
    assert "No space left on device" in capsys.readouterr().err
    assert not {"detections.json", "panoptic.json", "panoptic/b.png"} & files_in(tmp_path / "out")
    assert run(images, "--resume", "--panoptic_threshold", "0.5") == 1
    assert "panoptic_threshold 0.0 (now 0.5)" in capsys.readouterr().err
    assert run(images, "--resume") == 0
    assert len(begun) == 2 + 2
    for name in ("detections.json", "panoptic.json"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert files_in(tmp_path / "out") == files_in(tmp_path / "whole")


def test_the_speed_of_a_model_with_masks_is_measured(checkpoint: Path, monkeypatch, capsys):
    monkeypatch.setattr(predict, "measure", lambda *args, **more: measure(*args, **more, budget=0))
    assert predict.run([str(checkpoint), "--fps", "--device", "cpu", "--size", "32", "32"]) == 0
    assert "transformer" in capsys.readouterr().out


def test_the_list_of_maps_of_another_job_is_deleted(run, images: Path, tmp_path: Path):
    assert run(images / "b.png") == 0
    boxes = write_detector(tmp_path / "boxes.pth")
    argv = [boxes, images / "b.png", "--out", tmp_path / "out", "--device", "cpu"]
    assert predict.run([str(part) for part in argv]) == 0
    assert not (tmp_path / "out/panoptic.json").exists()


def test_the_panoptic_threshold_needs_a_panoptic_model(images: Path, tmp_path: Path, capsys):
    boxes = write_detector(tmp_path / "boxes.pth")
    argv = [boxes, images, "--out", tmp_path / "out", "--panoptic_threshold", "0.5", "--device", "cpu"]
    assert predict.run([str(part) for part in argv]) == 1
    assert (
        "panoptic_threshold needs a model trained on panoptic data" in capsys.readouterr().err
        and not (tmp_path / "out").exists()
    )


def test_attention_does_not_run_the_mask_head(predictor: Predictor, images: Path):
    found, asked = predictor(str(images / "b.png"), threshold=0), []
    handle = predictor.model.mask_head.register_forward_pre_hook(lambda module, inputs: asked.append(module))
    predictor.attention(found)
    handle.remove()
    assert asked == []
