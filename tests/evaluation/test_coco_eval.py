import copy
import json
import logging
import os
import pickle
import sys
from argparse import Namespace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.distributed as dist

from evaluation import coco_eval, hotcoco
from evaluation.coco_eval import CocoEvaluator, format_per_class
from tests.helpers import processes
from tests.helpers.coco_samples import (
    HEIGHT,
    WIDTH,
    assert_same_bits,
    both_backends,
    coco_of,
    evaluated,
    made_ground_truth,
    perturbed,
)
from util.dist import init_distributed_mode
from util.logging import get_logger
from util.text import text_width


@pytest.fixture(autouse=True)
def log_again():
    coco_eval._log_once.cache_clear()


@pytest.fixture
def log_messages():
    """The messages logged during a test."""
    messages = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())
    get_logger().addHandler(handler)
    yield messages
    get_logger().removeHandler(handler)


@both_backends
def test_images_without_predictions_count_but_unseen_images_do_not(backend):
    coco = made_ground_truth()
    first, second = [i for i in coco.imgs if any(not a["iscrowd"] for a in coco.imgToAnns[i])][:2]
    truth = {"boxes": [], "labels": []}
    for annotation in coco.imgToAnns[first]:
        x, y, w, h = annotation["bbox"]
        truth["boxes"].append([x, y, x + w, y + h])
        truth["labels"].append(annotation["category_id"])
    found = {key: torch.tensor(value) for key, value in truth.items()} | {"scores": torch.ones(len(truth["labels"]))}
    assert evaluated(coco, {first: found}, backend).coco_eval["bbox"].stats[0] == pytest.approx(1)
    both = evaluated(coco, {first: found, second: {}}, backend)
    assert both.coco_eval["bbox"].stats[0] < 0.99
    assert both.img_ids == sorted([first, second])


@both_backends
def test_a_repeated_image_is_ignored(backend):
    coco = made_ground_truth()
    predictions = perturbed(coco)
    once = evaluated(coco, predictions, backend)
    twice = CocoEvaluator(coco, ["bbox"], backend=backend)
    twice.update(predictions)
    shifted = {i: {**result, "boxes": result["boxes"] + 20} for i, result in predictions.items()}
    twice.update(shifted)
    twice.accumulate()
    twice.summarize()
    assert_same_bits(twice.coco_eval["bbox"], once.coco_eval["bbox"])


def made_for_two():
    coco = made_ground_truth(images=13)
    return coco, perturbed(coco, most=110, masks=True)


def one_of_two(rank: int, folder: str) -> None:
    """What each process of the fixture `pair` does; it saves its results."""
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": str(rank)}
    init_distributed_mode(Namespace(device="cpu", dist_url=f"file://{folder}/meeting_point"))
    coco, predictions = made_for_two()
    ids = list(predictions)
    share = ids[0::2] if rank == 0 else [*ids[1::2], ids[2]]  # a sampler repeats an image to fill the last batch
    found = {}
    for backend in ("hotcoco", "pycocotools") if hotcoco.unavailable_reason() is None else ("pycocotools",):
        evaluator = CocoEvaluator(coco, ["bbox", "segm"], backend=backend)
        evaluator.update({i: predictions[i] for i in share})
        if rank == 1:
            evaluator._seen[ids[2]].rows[:, 1:3] += 20  # the second process's detections of it are ignored
        evaluator.synchronize_between_processes()
        evaluator.accumulate()
        evaluator.summarize()
        found[backend] = {kind: (part.eval, part.stats) for kind, part in evaluator.coco_eval.items()}
    empty = CocoEvaluator(coco, ["bbox"])
    empty.synchronize_between_processes()
    try:
        empty.accumulate()
    except ValueError as error:
        found["error"] = str(error)
    Path(folder, f"results_of_{rank}.pickle").write_bytes(pickle.dumps(found))
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """The results of two processes that evaluate together."""
    folder = tmp_path_factory.mktemp("pair")
    assert processes.wait(processes.start(one_of_two, [(rank, str(folder)) for rank in (0, 1)])) == [0, 0]
    return [pickle.loads((folder / f"results_of_{rank}.pickle").read_bytes()) for rank in (0, 1)]


@both_backends
def test_two_processes_get_the_numbers_of_one(backend, pair):
    alone = evaluated(*made_for_two(), backend, ("bbox", "segm"))
    for kind, part in alone.coco_eval.items():
        curves, stats = pair[0][backend][kind]
        assert_same_bits(SimpleNamespace(eval=curves, stats=stats), part)


@both_backends
def test_the_other_processes_get_only_the_12_numbers(backend, pair):
    for (_, expected), (curves, stats) in zip(pair[0][backend].values(), pair[1][backend].values(), strict=True):
        assert curves == {} and stats.dtype == np.float64
        np.testing.assert_array_equal(stats, expected)


def test_nothing_to_evaluate_is_an_error_on_all_processes(pair):
    assert "nothing to evaluate" in pair[0]["error"] and pair[1]["error"] == pair[0]["error"]


@both_backends
def test_annotations_with_ids_of_zero_or_duplicate_ids_match_like_others(backend, log_messages):
    coco = made_ground_truth()
    predictions = perturbed(coco)
    expected = evaluated(coco, predictions, backend)
    log_messages.clear()
    for renumber in (lambda number: number, lambda number: 1 + number // 2):
        coco_eval._log_once.cache_clear()
        odd = copy.deepcopy(coco.dataset)
        for number, annotation in enumerate(odd["annotations"]):
            annotation["id"] = renumber(number)
        assert_same_bits(evaluated(coco_of(odd), predictions, backend).coco_eval["bbox"], expected.coco_eval["bbox"])
    assert sum("they are renumbered" in message for message in log_messages) == 2


@both_backends
def test_the_ground_truth_is_not_modified(backend):
    coco = made_ground_truth(images=6)
    before = copy.deepcopy(coco.dataset)
    evaluated(coco, perturbed(coco, masks=True), backend, ("bbox", "segm"))
    assert coco.dataset == before


def test_missing_area_and_iscrowd_are_filled_in():
    coco = made_ground_truth()
    bare = copy.deepcopy(coco.dataset)
    for annotation, whole in zip(bare["annotations"], coco.dataset["annotations"], strict=True):
        del annotation["area"]
        if not annotation["iscrowd"]:
            del annotation["iscrowd"]
        whole["area"] = whole["bbox"][2] * whole["bbox"][3]
    predictions = perturbed(coco)
    filled, given = (evaluated(c, predictions, "pycocotools").coco_eval["bbox"] for c in (coco_of(bare), coco))
    assert_same_bits(filled, given)


@both_backends
def test_keypoints_are_evaluated(backend):
    points = [5.0 * number for number in range(34)]
    points = [value for x, y in zip(points[::2], points[1::2], strict=True) for value in (x, y, 2.0)]
    annotation = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 170, 170], "area": 28900, "iscrowd": 0}
    coco = coco_of(
        {
            "images": [{"id": 1, "height": HEIGHT, "width": WIDTH}],
            "categories": [{"id": 1, "name": "person"}],
            "annotations": [{**annotation, "keypoints": points, "num_keypoints": 17}],
        }
    )
    found = {"labels": torch.tensor([1]), "scores": torch.tensor([0.5])}
    found["keypoints"] = torch.tensor(points).view(1, -1, 3)
    evaluator = evaluated(coco, {1: found}, backend, ("keypoints",))
    assert evaluator.coco_eval["keypoints"].stats[0] == pytest.approx(1)
    assert evaluator.prepare_for_coco_keypoint({1: found}) == [
        {"image_id": 1, "category_id": 1, "keypoints": points, "score": 0.5}
    ]


@both_backends
def test_per_class_agrees_with_the_summary_and_shows_missing_classes(backend):
    coco = made_ground_truth()
    evaluator = evaluated(coco, perturbed(coco, jitter=0.1), backend)
    rows = evaluator.per_class()
    stats = evaluator.coco_eval["bbox"].stats
    assert [(row["id"], row["name"]) for row in rows] == [(i, f"class {i}") for i in (1, 3, 5, 7, 90)]
    assert rows[2] == {"id": 5, "name": "class 5", "AP": -1.0, "AP50": -1.0, "AR": -1.0}
    for key, total in (("AP", stats[0]), ("AP50", stats[1]), ("AR", stats[8])):
        assert np.mean([row[key] for row in rows if row["id"] != 5]) == pytest.approx(total, abs=1e-12)
    assert json.loads(json.dumps(rows)) == rows
    table = format_per_class(rows).splitlines()
    assert [line.split()[0] for line in table[:-1]] == ["id", "1", "3", "7", "90"]
    assert len({len(line) for line in table[:-1]}) == 1
    assert table[-1] == "1 of 5 categories have no ground truth in these images: left out"
    assert f"{rows[0]['AP']:.3f}" in table[1]


@both_backends
def test_only_the_summary_is_logged(backend, log_messages, capfd):
    coco = made_ground_truth(images=6)
    predictions = perturbed(coco, masks=True)
    capfd.readouterr()
    evaluated(coco, predictions, backend, ("bbox", "segm"))
    lines = "\n".join(log_messages).splitlines()
    assert lines[0] == "IoU metric: bbox" and lines[13] == "IoU metric: segm" and len(lines) == 26
    assert lines[1].startswith(" Average Precision  (AP) @[ IoU=0.50:0.95 | area=   all | maxDets=100 ] = ")
    out, err = capfd.readouterr()
    assert out.splitlines() == lines and err == ""


def test_without_hotcoco_auto_logs_once_that_it_uses_pycocotools(monkeypatch, log_messages):
    monkeypatch.setitem(sys.modules, "hotcoco", None)
    coco = made_ground_truth(images=2)
    assert [CocoEvaluator(coco, ["bbox"]).backend for _ in range(2)] == ["pycocotools"] * 2
    assert (
        len(log_messages) == 1
        and "pycocotools" in log_messages[0]
        and 'pip install "hotcoco>=1.3,<2"' in log_messages[0]
    )
    with pytest.raises(ImportError, match='cannot be imported.*pip install "hotcoco>=1.3,<2"'):
        CocoEvaluator(coco, ["bbox"], backend="hotcoco")


def test_unknown_backends_and_kinds_are_refused():
    coco = made_ground_truth(images=2)
    with pytest.raises(ValueError, match="unknown evaluator 'fast': choose from auto, hotcoco, pycocotools"):
        CocoEvaluator(coco, ["bbox"], backend="fast")
    for kinds in ("bbox", ["boxes"], []):
        with pytest.raises(ValueError, match="iou_types must be a list or tuple of bbox, segm, keypoints"):
            CocoEvaluator(coco, kinds)
    with pytest.raises(ValueError, match="unknown kind of evaluation 'boxes'"):
        CocoEvaluator(coco, ["bbox"]).prepare({}, "boxes")


def test_nothing_to_evaluate_is_an_error():
    evaluator = CocoEvaluator(made_ground_truth(images=2), ["bbox"])
    with pytest.raises(ValueError, match="nothing to evaluate"):
        evaluator.accumulate()
    with pytest.raises(ValueError, match="call accumulate.* only the main one has the curves"):
        evaluator.per_class()
    with pytest.raises(ValueError, match="no segm curves: pass segm in iou_types"):
        evaluator.per_class("segm")


def test_ground_truth_that_cannot_be_evaluated_names_the_annotation():
    dataset = made_ground_truth().dataset
    del dataset["annotations"][0]["segmentation"]
    CocoEvaluator(coco_of(dataset), ["bbox"])
    with pytest.raises(ValueError, match="annotation 100 of image .* has no segmentation"):
        CocoEvaluator(coco_of(dataset), ["bbox", "segm"])
    dataset["annotations"][1]["bbox"] = [0, 0, float("nan"), 5]
    with pytest.raises(ValueError, match="annotation 101 of image .* has bbox"):
        CocoEvaluator(coco_of(dataset), ["bbox"])


def test_a_name_can_neither_forge_a_row_nor_fill_the_table():
    rows = [
        {"id": 1, "name": name, "AP": 0.5, "AP50": 0.5, "AR": 0.5} for name in ("cat", "\x1b[2J\nerror:", "日" * 10**6)
    ]
    table = format_per_class(rows).split("\n")
    assert len(table) == 4 and all(row.isprintable() for row in table)
    assert {text_width(row) for row in table} == {6 + 2 + 60 + 3 * 8}
