"""The weights in the repository: they load without network and find what they were trained to find."""

import json
import zlib
from pathlib import Path

import pytest
import torch
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torchvision.transforms.functional import to_tensor

import hubconf
import main
import predict
from datasets.shapes import CATEGORIES, THINGS, write_shapes
from datasets.transforms import IMAGENET_MEAN, IMAGENET_STD, Normalize
from evaluation.coco_eval import CocoEvaluator
from evaluation.findings import summarize_matches
from evaluation.panoptic_eval import PanopticEvaluator
from models.load import load_detector
from tests.helpers.processes import run_together
from training.run_folder import WRITTEN
from util.checkpoint import CheckpointError, load_checkpoint

FILE = Path(hubconf.__file__).with_name("weights") / "detr_tiny_shapes.pth"
PANOPTIC = FILE.with_name("detr_tiny_shapes_panoptic.pth")


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """Twelve pictures that no training has seen, normalised [12, 3, 96, 96], their boxes, and their folder."""
    folder = tmp_path_factory.mktemp("fresh") / "shapes"
    write_shapes(folder, train=2, val=12, seed=77)
    truth = COCO(folder / "annotations" / "instances_val2017.json")
    paths = [folder / "val2017" / truth.imgs[image_id]["file_name"] for image_id in sorted(truth.imgs)]
    normalize = Normalize(IMAGENET_MEAN, IMAGENET_STD)
    return torch.stack([normalize(to_tensor(Image.open(path)), None)[0] for path in paths]), truth, folder


def test_the_shapes_of_fresh_pictures_are_found(drawn, no_network):
    images, truth, _ = drawn
    model, postprocess = hubconf.detr_tiny_shapes(pretrained=True, return_postprocessor=True)
    with torch.no_grad():
        results = postprocess(model.eval()(images), torch.full((len(images), 2), 96))
    evaluator = CocoEvaluator(truth, ["bbox"])
    evaluator.update(dict(zip(sorted(truth.imgs), results)))
    evaluator.synchronize_between_processes()
    evaluator.accumulate()
    evaluator.summarize()
    assert evaluator.coco_eval["bbox"].stats[1] > 0.8, "AP50"


def test_the_entry_builds_the_model_that_the_file_describes(drawn, no_network):
    described, _, args, categories = load_detector(FILE, "cpu")
    ours = hubconf.detr_tiny_shapes(pretrained=True).eval()
    with torch.no_grad():
        expected, outputs = (model.double()(drawn[0][:2].double()) for model in (described, ours))
    torch.testing.assert_close(outputs["pred_logits"], expected["pred_logits"], rtol=0, atol=1e-9)
    torch.testing.assert_close(outputs["pred_boxes"], expected["pred_boxes"], rtol=0, atol=1e-9)
    assert [(entry["id"], entry["name"]) for entry in categories] == [(thing["id"], thing["name"]) for thing in THINGS]
    assert (args.val_size, args.max_size) == (96, 96)


def test_an_evaluation_needs_no_flags_but_the_data(drawn, no_network, tmp_path):
    run = ["--coco_path", str(drawn[2]), "--eval", "--resume", str(FILE), "--output_dir", str(tmp_path)]
    assert main.run([*run, "--device", "cpu", "--num_workers", "0"]) == 0
    assert json.loads((tmp_path / "eval" / "per_class.json").read_text())["stats"][1] > 0.8, "AP50"


def test_the_segments_of_fresh_pictures_are_found(drawn, no_network):
    images, truth, root = drawn
    model, postprocess = hubconf.detr_tiny_shapes_panoptic(pretrained=True, return_postprocessor=True)
    with torch.no_grad():
        maps = postprocess(model.eval()(images), [(96, 96)] * len(images))
    evaluator = PanopticEvaluator(root / "annotations" / "panoptic_val2017.json", root / "panoptic_val2017", None)
    ids = sorted(truth.imgs)
    evaluator.update([found | {"image_id": i, "file_name": f"{i}.png"} for i, found in zip(ids, maps)])
    results = evaluator.summarize()
    assert results["All"]["pq"] > 0.6 and results["Things"]["n"] == results["Stuff"]["n"] == 3


def test_the_panoptic_entry_builds_the_model_that_the_file_describes(drawn, no_network):
    described, postprocessors, _, categories = load_detector(PANOPTIC, "cpu")
    ours, postprocess = hubconf.detr_tiny_shapes_panoptic(pretrained=True, threshold=0.4, return_postprocessor=True)
    with torch.no_grad():
        expected, outputs = (model.double().eval()(drawn[0][:2].double()) for model in (described, ours))
    for name in ("pred_logits", "pred_boxes", "pred_masks"):
        torch.testing.assert_close(outputs[name], expected[name], rtol=0, atol=1e-9)
    assert postprocess.threshold == 0.4 and postprocess.is_thing_map == postprocessors["panoptic"].is_thing_map
    assert [entry["name"] for entry in categories] == [entry["name"] for entry in CATEGORIES]


def test_two_processes_find_what_one_finds_to_the_last_digit(tmp_path):
    """The command's evaluation of an odd number of pictures, one a batch: AP of boxes and masks, and PQ."""
    data = tmp_path / "data"
    write_shapes(data, train=1, val=5, seed=78)
    flags = "--dataset_file coco_panoptic --masks --val_size 96 --max_size 96 --train_sizes 96 --batch_size 1 --eval"
    flags += f" --device cpu --num_workers 0 --coco_path {data} --frozen_weights {PANOPTIC} --resume {PANOPTIC}"
    for processes in (1, 2):
        command = [*flags.split(), "--output_dir", str(tmp_path / f"out{processes}")]
        ((*outcomes,),) = run_together(processes, [command], tmp_path / f"by{processes}")
        assert [code for code, _ in outcomes] == [0] * processes, outcomes
    one, two = (tmp_path / f"out{processes}" for processes in (1, 2))
    quality = json.loads((one / "panoptic_eval" / "quality.json").read_text())
    boxes = json.loads((one / "eval" / "per_class.json").read_text())
    assert quality["All"]["pq"] > 0.5 and boxes["stats"][0] > 0.4
    for name in ("panoptic_eval/quality.json", "panoptic_eval/predictions.json", "eval/per_class.json"):
        assert (one / name).read_text() == (two / name).read_text(), name
    written = {file for pattern in WRITTEN for file in one.glob(pattern)}
    left = {file for file in one.rglob("*") if file.is_file() and not file.name.startswith(".")} - written
    assert left == set(), "--overwrite would leave these files of an earlier run"


@pytest.mark.parametrize(("file", "flags"), [(FILE, ()), (PANOPTIC, ("--dataset_file", "coco_panoptic"))])
def test_predictions_have_the_ap_of_the_evaluation(drawn, tmp_path, file, flags):
    """With every detection kept, and images that are not padded in a batch, which changes what DETR sees."""
    _, truth, folder = drawn
    ann = folder / "annotations" / "instances_val2017.json"
    own = ("--coco_path", folder, "--coco_panoptic_path", folder, "--resume", file, "--output_dir", tmp_path / "eval")
    flags = (*flags, *own, "--eval", "--batch_size", "1", "--num_workers", "0", "--device", "cpu")
    assert main.run([str(flag) for flag in flags]) == 0
    argv = (file, "--ann", ann, "--threshold", "0", "--no_pictures", "--count", "--device", "cpu", "--out", tmp_path)
    assert predict.run([str(part) for part in argv]) == 0
    pairs = [("bbox", "results.json", "detections.json")]
    pairs += [("segm", "segmentations.json", "segmentations.json")] if file == PANOPTIC else []
    for kind, ours, theirs in pairs:
        numbers = []
        for results in (tmp_path / ours, tmp_path / "eval/eval" / theirs):
            evaluation = COCOeval(truth, truth.loadRes(str(results)), kind)
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
            numbers.append(evaluation.stats)
        assert numbers[0] == pytest.approx(numbers[1], abs=1e-3) and numbers[0][0] > 0.6


def test_without_pretrained_the_weights_are_random(no_network):
    states = [hubconf.detr_tiny_shapes().state_dict()["query_embed.weight"] for _ in range(2)]
    assert not torch.equal(*states)


@pytest.mark.parametrize("file, megabytes", [(FILE, 12), (PANOPTIC, 16)])
def test_the_file_is_small_and_holds_nothing_of_the_training_but_its_settings(file, megabytes):
    assert file.stat().st_size <= megabytes * 2**20
    checkpoint = load_checkpoint(file)
    assert set(checkpoint) <= {"model", "args", "categories", "epoch", "best_ap", "thresholds", "versions"}
    assert not {"coco_path", "output_dir", "device", "frozen_weights"} & set(checkpoint["args"])
    assert checkpoint["best_ap"] > 0.5


@pytest.mark.parametrize("file, checksum", [(FILE, 0x4AD414E7), (PANOPTIC, 0xEF01A911)])
def test_the_weights_are_those_that_were_trained(file, checksum):
    found = 0
    for name, value in sorted(load_checkpoint(file)["model"].items()):
        found = zlib.crc32(value.contiguous().numpy(), zlib.crc32(name.encode(), found))
    assert found == checksum


@pytest.mark.parametrize("file", [FILE, PANOPTIC])
def test_at_its_own_thresholds_it_finds_most_and_invents_little(drawn, file):
    _, truth, folder = drawn
    pictures = [folder / "val2017" / truth.imgs[image_id]["file_name"] for image_id in sorted(truth.imgs)]
    found = predict.Predictor(file, "cpu", threshold="best")(pictures)
    evaluator = CocoEvaluator(truth, ["bbox"])
    evaluator.update({i: vars(one) for i, one in zip(sorted(truth.imgs), found)})
    evaluator.accumulate()
    evaluator.summarize()
    counts = summarize_matches(evaluator).overall.counts  # at score 0: all that were kept
    assert counts.f1[0] > 0.8


def test_a_missing_file_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(hubconf, "SHIPPED", tmp_path)
    with pytest.raises(CheckpointError, match="there is no checkpoint .*detr_tiny_shapes.pth"):
        hubconf.detr_tiny_shapes(pretrained=True)
