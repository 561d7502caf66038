"""A training on each layout of COCO files, and the way of class ids and names through it to the predictions."""

import json

import pytest
import torch

import main
import predict
from tests.helpers.layouts import coco_layouts
from tests.helpers.layouts.coco_layouts import NAMES
from tests.helpers.layouts.voc_layouts import object_xml, write_picture, write_xml
from tests.helpers.runs import TINY

FLAGS = [*TINY, "--epochs", "1", "--max_steps", "1", "--batch_size", "2", "--seed", "3"]

SHARE = ["--val_share", "0.34", "--val_groups", "none"]


def train(data, out, *more):
    assert main.run([*FLAGS, "--data", str(data), "--output_dir", str(out), *more]) == 0
    return out / "checkpoint.pth"


@pytest.mark.parametrize(
    ("layout", "ids", "more"),
    [
        ("published", (0, 1), []),
        ("roboflow", (1, 2), []),
        ("cvat_subsets", (5, 90, 1000), []),
        ("label_studio_windows", (0, 1, 2), SHARE),
    ],
)
def test_ids_and_names_go_from_the_files_to_the_predictions(tmp_path, layout, ids, more):
    data = getattr(coco_layouts, layout)(tmp_path / "data", ids)
    file = train(data, tmp_path / "run", *more)
    checkpoint = torch.load(file, weights_only=True)
    classes = [{"id": label, "name": name} for label, name in zip(ids, NAMES)]
    assert checkpoint["categories"] == classes
    assert checkpoint["model"]["class_embed.weight"].shape[0] == max(ids) + 2
    assert main.run([*TINY, "--data", str(data), "--resume", str(file), "--eval"]) == 0

    images = next(path for path in sorted(data.rglob("*")) if path.suffix == ".png").parent
    flags = ["--threshold", "0", "--no_pictures", "--device", "cpu", "--top_k", "3"]
    assert predict.run([str(file), str(images), "--out", str(tmp_path / "out"), *flags]) == 0
    detections = json.loads((tmp_path / "out" / "detections.json").read_text())
    named = {category["id"]: category["name"] for category in detections["categories"]}
    assert {label: named[label] for label in ids} == {c["id"]: c["name"] for c in classes}
    assert {annotation["category_id"] for annotation in detections["annotations"]} <= set(range(max(ids) + 1))


def test_a_folder_in_any_layout_trains_as_the_published_one_does(tmp_path):
    """The same images under the same names and ids give the same weights, bit for bit."""
    weights = []
    for layout in ("published", "roboflow", "two_files"):
        data = getattr(coco_layouts, layout)(tmp_path / layout, (1, 2))
        weights.append(torch.load(train(data, tmp_path / f"run_{layout}"), weights_only=True)["model"])
    assert main.run([*FLAGS, "--coco_path", str(tmp_path / "published"), "--output_dir", str(tmp_path / "run")]) == 0
    reference = torch.load(tmp_path / "run" / "checkpoint.pth", weights_only=True)["model"]
    for each in weights:
        assert each.keys() == reference.keys()
        assert all(torch.equal(each[name], reference[name]) for name in reference)


def test_a_stopped_run_goes_on_exactly(tmp_path):
    data = coco_layouts.roboflow(tmp_path / "data", (1, 2))
    flags = ["--epochs", "3", "--eval_every", "9"]
    whole = torch.load(train(data, tmp_path / "whole", *flags, "--max_steps", "3"), weights_only=True)
    train(data, tmp_path / "stopped", *flags, "--max_steps", "1")
    resumed = train(data, tmp_path / "stopped", *flags, "--max_steps", "3", "--resume", "auto")
    resumed = torch.load(resumed, weights_only=True)
    assert all(torch.equal(resumed["model"][name], value) for name, value in whole["model"].items())


def test_what_was_recognised_is_said_in_one_line(tmp_path, capsys):
    train(coco_layouts.roboflow(tmp_path / "data", (1, 2)), tmp_path / "run")
    said = [line for line in capsys.readouterr().out.splitlines() if "Roboflow COCO in" in line]
    assert len(said) == 1
    assert said[0].endswith(
        "train 3 images, 6 objects; val 3 images, 6 objects; 2 classes (ein Apfel, plum #2); not read: test"
    )


def test_masks_are_learned_from_the_polygons_of_an_export(tmp_path):
    data = coco_layouts.roboflow(tmp_path / "data", (1, 2))
    out = tmp_path / "run"
    train(data, out, "--masks", "--hidden_dim", "128", "--nheads", "8")
    assert "test_coco_eval_masks" in json.loads((out / "log.txt").read_text().splitlines()[0])


def test_a_run_on_a_folder_without_a_validation_part_says_what_to_pass(tmp_path, capsys):
    data = coco_layouts.label_studio(tmp_path / "data", (0, 1))
    assert main.run([*FLAGS, "--data", str(data), "--output_dir", str(tmp_path / "run")]) == 1
    assert "pass --val_share 0.15" in capsys.readouterr().err


def test_an_evaluation_of_a_folder_without_parts_uses_all_of_it(tmp_path, capsys):
    file = train(coco_layouts.roboflow(tmp_path / "data", (0, 1)), tmp_path / "run")
    data = coco_layouts.label_studio(tmp_path / "other", (0, 1))
    assert main.run([*TINY, "--data", str(data), "--resume", str(file), "--eval"]) == 0
    assert "all 6 images, 12 objects" in capsys.readouterr().out


def test_ids_that_mean_other_classes_are_refused(tmp_path, capsys):
    file = train(coco_layouts.roboflow(tmp_path / "data", (0, 1)), tmp_path / "run")
    data = coco_layouts.roboflow(tmp_path / "other", (1, 0))
    assert main.run([*TINY, "--data", str(data), "--resume", str(file), "--eval"]) == 1
    assert "the ids mean other classes there" in capsys.readouterr().err


def test_voc_of_fewer_classes_is_evaluated_by_their_names(tmp_path, capsys):
    def write(root, *classes):
        for number, name in enumerate(classes):
            write_picture(root / "images" / f"{root.name} {number}.jpg")
            write_xml(root / "annotations" / f"{root.name} {number}.xml", object_xml(name))
        return root

    file = train(write(tmp_path / "train", "ape", "cat", "dog", "dog"), tmp_path / "run", *SHARE)
    data = write(tmp_path / "other", "cat", "dog")
    assert main.run([*TINY, "--data", str(data), "--resume", str(file), "--eval"]) == 0
    assert "all 2 images, 2 objects; 3 classes (ape, cat, dog)" in capsys.readouterr().out
