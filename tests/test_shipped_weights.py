"""The weights in the repository: they load without network and find what they were trained to find."""

from pathlib import Path

import pytest
import torch
from PIL import Image
from pycocotools.coco import COCO
from torchvision.transforms.functional import to_tensor

import hubconf
from datasets.coco_eval import CocoEvaluator
from datasets.shapes import THINGS, write_shapes
from datasets.transforms import Normalize
from models.load import load_detector
from util.checkpoint import CheckpointError, load_checkpoint
from util.visualize import IMAGENET_MEAN, IMAGENET_STD

FILE = Path(hubconf.__file__).with_name("weights") / "detr_tiny_shapes.pth"


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """Twelve pictures that no training has seen, normalised [12, 3, 96, 96], and their ground truth."""
    folder = tmp_path_factory.mktemp("fresh") / "shapes"
    write_shapes(folder, train=1, val=12, seed=77)
    truth = COCO(folder / "annotations" / "instances_val2017.json")
    paths = [folder / "val2017" / truth.imgs[image_id]["file_name"] for image_id in sorted(truth.imgs)]
    normalize = Normalize(IMAGENET_MEAN, IMAGENET_STD)
    return torch.stack([normalize(to_tensor(Image.open(path)), None)[0] for path in paths]), truth


@pytest.fixture
def no_network(monkeypatch):
    def refuse(url: str, *args, **kwargs):
        pytest.fail(f"asked for {url}")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", refuse)
    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)


def test_the_shapes_of_fresh_pictures_are_found(drawn, no_network):
    images, truth = drawn
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
        expected, outputs = described(drawn[0][:2]), ours(drawn[0][:2])
    torch.testing.assert_close(outputs["pred_logits"], expected["pred_logits"], rtol=0, atol=1e-5)
    torch.testing.assert_close(outputs["pred_boxes"], expected["pred_boxes"], rtol=0, atol=1e-5)
    assert [(entry["id"], entry["name"]) for entry in categories] == [(thing["id"], thing["name"]) for thing in THINGS]
    assert (args.val_size, args.max_size) == (96, 96)


def test_without_pretrained_the_weights_are_random(no_network):
    states = [hubconf.detr_tiny_shapes().state_dict()["query_embed.weight"] for _ in range(2)]
    assert not torch.equal(*states)


def test_the_file_is_small_and_holds_nothing_of_the_training_but_its_settings():
    assert FILE.stat().st_size <= 12 * 2**20
    checkpoint = load_checkpoint(FILE)
    assert set(checkpoint) <= {"model", "args", "categories", "epoch", "best_ap", "versions"}
    assert not {"coco_path", "output_dir", "device"} & set(checkpoint["args"])
    assert checkpoint["best_ap"] > 0.5


def test_a_missing_file_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(hubconf, "SHIPPED", tmp_path)
    with pytest.raises(CheckpointError, match="there is no checkpoint .*detr_tiny_shapes.pth"):
        hubconf.detr_tiny_shapes(pretrained=True)
