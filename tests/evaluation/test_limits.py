"""Other limits on detections than 1, 10, 100; images with more objects than can be counted; very many categories."""

import json
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from pycocotools.cocoeval import COCOeval

from evaluation import coco_eval, findings, pictures
from evaluation.coco_eval import CocoEvaluator, format_per_class
from evaluation.evaluation import Evaluation
from evaluation.findings import summarize_matches
from evaluation.panoptic_eval import format_panoptic
from evaluation.report import write_evaluation
from evaluation.summary import checked_limits, metric_names
from tests.helpers.coco_samples import both_backends, coco_of, evaluated, made_ground_truth, perturbed
from tests.helpers.runs import drawing
from util.checkpoint import load_checkpoint
from util.coco_names import COCO_METRICS
from util.logging import get_logger
from util.pictures.figure_parts import new_figure
from util.text import text_width


@pytest.fixture
def warnings():
    """The warnings logged during a test."""
    messages = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: messages.append(record.getMessage())
    get_logger().addHandler(handler)
    yield messages
    get_logger().removeHandler(handler)


def grid(images: int = 1, objects: int = 150):
    """Ground truth of many small cells, and detections that are perfect."""
    boxes = np.array([[10.0 * (k % 20), 10.0 * (k // 20), 8, 8] for k in range(objects)])
    annotations = [
        {"id": 1 + k + objects * i, "image_id": i, "category_id": 1, "bbox": box.tolist(), "area": 64, "iscrowd": 0}
        for i in range(1, images + 1)
        for k, box in enumerate(boxes)
    ]
    entries = [{"id": i, "width": 200, "height": 200, "file_name": f"\x1b{i}.png"} for i in range(1, images + 1)]
    coco = coco_of({"images": entries, "categories": [{"id": 1, "name": "cell"}], "annotations": annotations})
    found = {
        "boxes": torch.tensor(np.concatenate([boxes[:, :2], boxes[:, :2] + 8], axis=1)),
        "scores": torch.linspace(0.5, 0.9, objects),
        "labels": torch.ones(objects, dtype=torch.int64),
    }
    return coco, {i: dict(found) for i in coco.imgs}


def evaluated_at(coco, predictions, limits, backend) -> CocoEvaluator:
    evaluator = CocoEvaluator(coco, ["bbox"], backend=backend)
    evaluator.coco_eval["bbox"].params.maxDets = limits
    evaluator.update(predictions)
    evaluator.synchronize_between_processes()
    evaluator.accumulate()
    evaluator.summarize()
    return evaluator


@both_backends
@pytest.mark.parametrize("limits", [[1, 10, 300], [300], [10, 300], [300, 10, 1], np.array([1, 10, 100, 300])])
def test_ap_is_that_at_the_largest_limit(backend, limits):
    evaluator = evaluated_at(*grid(), limits, backend)
    stats = evaluator.coco_eval["bbox"].stats
    assert stats[[0, 1, 2, 3, 8, 9]].tolist() == [1] * 6 and stats[[4, 5, 10, 11]].tolist() == [-1] * 4
    assert stats[6] == pytest.approx(min(limits) / 150 if min(limits) < 150 else 1)
    assert evaluator.per_class() == [{"id": 1, "name": "cell", "AP": 1.0, "AP50": 1.0, "AR": 1.0}]


@both_backends
def test_the_recall_of_each_limit_is_pycocotools(backend):
    coco = made_ground_truth()
    predictions = perturbed(coco, jitter=0.1)
    ours = evaluated_at(coco, predictions, [2, 5, 7], backend)
    theirs = COCOeval(coco, coco.loadRes(ours.prepare_for_coco_detection(predictions)), "bbox")
    theirs.params.maxDets = [2, 5, 7]
    theirs.evaluate()
    theirs.accumulate()
    theirs.summarize()
    np.testing.assert_array_equal(ours.coco_eval["bbox"].stats[1:], theirs.stats[1:])  # [0] is theirs at 100: -1
    precision = theirs.eval["precision"][:, :, :, 0, 2]
    assert ours.coco_eval["bbox"].stats[0] == np.mean(precision[precision > -1]) > 0.1 > theirs.stats[0]


def test_with_the_published_limits_the_summary_is_pycocotools_word_for_word(capsys):
    coco = made_ground_truth()
    ours = evaluated(coco, perturbed(coco), "pycocotools").coco_eval["bbox"]
    capsys.readouterr()
    ours.summarize()
    own, stats = capsys.readouterr().out, ours.stats
    COCOeval.summarize(ours)
    assert own == capsys.readouterr().out
    np.testing.assert_array_equal(stats, ours.stats)


@pytest.mark.parametrize("limits", [[], 100, [0, 10], [1, 2.5], None, ["a"], [float("nan")]])
def test_limits_that_are_no_whole_numbers_are_refused(limits):
    with pytest.raises(ValueError, match="params.maxDets must be a list of whole numbers"):
        evaluated_at(*grid(objects=2), limits, "pycocotools")


def test_the_numbers_are_named_after_the_limits():
    assert metric_names([1, 10, 100]) == list(COCO_METRICS)
    assert metric_names([5, 300])[6:9] == ["AR5", "AR300", "AR300"]
    assert checked_limits((100, 1)) == [1, 100]


@pytest.mark.parametrize("limits", [[1, 10, 300], [300]])
def test_the_report_names_the_limits(tmp_path, limits, warnings):
    evaluator = evaluated_at(*grid(), limits, "auto")
    with drawing():
        write_evaluation(tmp_path, evaluator, epoch=1, batch_size=1)
    numbers = json.loads((tmp_path / "eval" / "per_class.json").read_text())["numbers"]
    assert numbers["AR300"] == numbers["AP"] == 1 and "AR100" not in numbers
    best = json.loads((tmp_path / "eval" / "f1.json").read_text())["overall"]["best"]
    assert best["f1"] == 1  # the 150 detections count here too
    assert (tmp_path / "eval" / "per_class.png").is_file() and warnings == []


@both_backends
def test_images_with_more_objects_of_a_class_than_the_limit_are_counted_and_said_once(backend, warnings):
    coco, found = grid(images=3)
    evaluator = CocoEvaluator(coco, ["bbox"], backend=backend)
    for limits in ([1, 10, 100], [1, 10, 100], [1, 10, 150]):
        evaluator.reset()
        evaluator.coco_eval["bbox"].params.maxDets = limits
        evaluator.update({i: found[i] for i in (2, 3)})
        evaluator.accumulate()
    assert len(warnings) == 1
    assert warnings[0].startswith("2 images have more than 100 objects of one class")
    assert "image 2 (\\x1b2.png) has 150 of class cell" in warnings[0] and "--max_dets 150" in warnings[0]


@pytest.mark.parametrize(("most", "limits"), [(100, [1, 10, 100]), (300, [1, 10, 300]), (5, [1, 5, 5])])
def test_an_evaluation_counts_as_many_detections_as_it_is_told(most, limits):
    coco, found = grid()
    evaluation = Evaluation({"bbox": lambda outputs, sizes: [found[1]]}, coco, max_dets=most)
    for _ in range(2):
        evaluation.reset()
        evaluation.update(
            {}, [{"image_id": torch.tensor(1), "orig_size": torch.ones(2), "size": torch.ones(2)}], (1, 1)
        )
        stats = evaluation.finish()["coco_eval_bbox"]
        assert evaluation.coco.coco_eval["bbox"].params.maxDets == limits
        assert stats[8] == pytest.approx(min(most, 150) / 150)


def test_crowds_and_objects_of_several_classes_are_within_the_limit(warnings):
    coco, found = grid()
    coco.dataset["categories"].append({"id": 2, "name": "other"})
    for annotation in coco.dataset["annotations"][:50]:
        annotation["category_id"] = 2
    evaluated(coco_of(coco.dataset), found, "auto")
    for annotation in coco.dataset["annotations"]:
        annotation |= {"category_id": 1, "iscrowd": int(annotation["id"] > 100)}
    evaluated(coco_of(coco.dataset), found, "auto")
    assert warnings == []


def with_absent_categories(coco, count: int):
    categories = [{"id": 1000 + k, "name": f"absent {k}"} for k in range(count)]
    return coco_of(coco.dataset | {"categories": coco.dataset["categories"] + categories})


@both_backends
def test_categories_that_do_not_occur_take_no_room_and_change_no_number(backend, monkeypatch, tmp_path):
    coco = made_ground_truth()
    predictions = perturbed(coco)
    few = evaluated(coco, predictions, backend)
    predictions[10]["labels"][0] = 1003  # a false positive of a category without ground truth
    monkeypatch.setattr(coco_eval, "MANY_CATEGORIES", 5)
    many = evaluated(with_absent_categories(coco, 2000), predictions, backend)
    monkeypatch.setattr(coco_eval, "MANY_CATEGORIES", 10**6)
    plain = evaluated(with_absent_categories(coco, 40), predictions, backend)
    curves = many.coco_eval["bbox"].eval
    assert curves["precision"].shape == (10, 101, 4, 4, 3) and curves["params"].catIds == [1, 3, 7, 90]
    np.testing.assert_array_equal(many.coco_eval["bbox"].stats, plain.coco_eval["bbox"].stats)
    assert many.coco_eval["bbox"].stats[0] == pytest.approx(few.coco_eval["bbox"].stats[0], abs=0.02)
    assert many.per_class()[:45] == plain.per_class() and len(many.per_class()) == 2005
    assert many.coco_eval["bbox"].params.catIds == sorted(many.coco_gt.cats)


@pytest.fixture
def many(monkeypatch) -> CocoEvaluator:
    """An evaluation with 2005 categories, 4 of them with ground truth and 2 more with detections."""
    monkeypatch.setattr(coco_eval, "MANY_CATEGORIES", 5)
    monkeypatch.setattr(findings, "MANY_CATEGORIES", 5)
    coco = made_ground_truth()
    predictions = perturbed(coco)
    predictions[13]["labels"][0], predictions[13]["scores"][0] = 1003, 0.99
    return evaluated(with_absent_categories(coco, 2000), predictions, "auto")


def test_the_confusion_matrix_of_many_categories_is_sparse_and_has_the_same_counts(many, monkeypatch):
    sparse = summarize_matches(many)
    assert sparse.ids == [1, 3, 5, 7, 90, 1003] and sparse.absent == 1999
    monkeypatch.setattr(findings, "MANY_CATEGORIES", 10**6)
    whole = summarize_matches(many)
    kept = [*map(whole.ids.index, sparse.ids), len(whole.ids)]
    np.testing.assert_array_equal(sparse.matrix.toarray(), whole.matrix[np.ix_(kept, kept)])
    assert whole.matrix.sum() == sparse.matrix.sum() > 100 and whole.overall.best == sparse.overall.best


def test_the_files_of_many_categories_hold_those_that_occur(many, tmp_path, warnings):
    with drawing():
        write_evaluation(tmp_path, many, epoch=1, batch_size=1)
    summary = summarize_matches(many)
    folder = tmp_path / "eval"
    confusion, f1 = (json.loads((folder / f"{name}.json").read_text()) for name in ("confusion", "f1"))
    assert [row["id"] for row in confusion["classes"]] == [*summary.ids, None] and "matrix" not in confusion
    matrix = np.zeros((7, 7), dtype=int)
    for truth, predicted, count in confusion["counts"]:
        matrix[truth, predicted] = count
    np.testing.assert_array_equal(matrix, summary.matrix.toarray())
    assert confusion["categories_that_do_not_occur"] == f1["categories_that_do_not_occur"] == 1999
    assert [row["id"] for row in f1["per_class"]] == summary.ids
    assert load_checkpoint(folder / "latest.pth")["category_ids"] == [1, 3, 7, 90]
    assert len(json.loads((folder / "per_class.json").read_text())["per_class"]) == 2005
    assert warnings == [] and all(
        (folder / f"{n}.png").is_file() for n in ("confusion", "per_class", "pr_curves", "f1")
    )


def test_the_curves_of_many_categories_are_drawn_under_their_names(many, monkeypatch, tmp_path):
    drawn = []
    monkeypatch.setattr(pictures, "draw_precision_recall", lambda *parts: drawn.append(parts) or new_figure(1, 1))
    with drawing():
        write_evaluation(tmp_path, many, epoch=1, batch_size=1)
    labels, _, precision, _ = drawn[0]
    assert labels == ["class 1", "class 3", "class 5", "class 7", "class 90", "absent 3"]
    rows = {row["name"]: row["AP"] for row in many.per_class()}
    for label, curve in zip(labels, precision.transpose(2, 0, 1)):
        assert np.isnan(curve).all() if rows[label] < 0 else curve.mean() == pytest.approx(rows[label])


def rows_of(aps, names=None) -> list[dict]:
    names = names or [f"class {k}" for k in range(len(aps))]
    return [{"id": k, "name": name, "AP": ap, "AP50": ap, "AR": ap} for k, (ap, name) in enumerate(zip(aps, names))]


def test_the_table_lists_categories_with_ground_truth_and_counts_the_others():
    lines = format_per_class(rows_of([0.5, -1.0, 0.25, -1.0])).splitlines()
    assert [line.split()[0] for line in lines] == ["id", "0", "2", "2"]
    assert lines[-1] == "2 of 4 categories have no ground truth in these images: left out"
    assert format_per_class(rows_of([-1.0])) == "1 of 1 categories have no ground truth in these images: left out"
    assert format_per_class([]) == ""


def test_a_long_table_shows_the_best_and_the_worst():
    lines = format_per_class(rows_of([k / 1000 for k in range(250)])).splitlines()
    assert len(lines) == 1 + 100 + 1 + 1
    assert [int(line.split()[0]) for line in lines[1:51]] == list(range(249, 199, -1))
    assert [int(line.split()[0]) for line in lines[52:102]] == list(range(49, -1, -1))
    assert lines[51].strip() == "…" and lines[-1].startswith("150 categories between are left out: eval/per_class.json")


def test_the_panoptic_table_lists_what_occurs_and_counts_the_rest():
    groups = dict.fromkeys(("All", "Things", "Stuff"), {"pq": 0.5, "sq": 0.5, "rq": 0.5, "n": 3})
    rows = [{"name": f"c{k}", "PQ": k / 1000 - 0.001, "SQ": 0.5, "RQ": 0.5} for k in range(151)]
    lines = format_panoptic(groups, [*rows, rows[0]]).splitlines()
    assert [line.split()[0] for line in lines[4:54]] == [f"c{k}" for k in range(150, 100, -1)]
    assert lines[54] == "…" and [line.split()[0] for line in lines[55:105]] == [f"c{k}" for k in range(50, 0, -1)]
    assert lines[105:] == [
        "2 of 152 categories occur neither in these images nor in the results: left out",
        "50 categories between are left out: quality.json has all",
    ]


def test_names_of_any_kind_keep_the_columns_of_the_table():
    names = ["cat", "犬" * 100, "\x1b[31mred\nerror: forged", "W" * 1_000_000, "", "قطة", "👩‍🚀"]
    lines = format_per_class(rows_of([0.5] * len(names), names)).splitlines()
    assert len(lines) == 8 and all(line.endswith("   0.500   0.500   0.500") for line in lines[1:])
    assert all(len(line) < 120 for line in lines) and "\x1b" not in "".join(lines)
    assert "\\x1b[31mred" in lines[3]
    assert len({text_width(line) for line in lines}) == 1


def test_no_category_at_all_is_evaluated_too(monkeypatch, tmp_path: Path):
    monkeypatch.setattr(coco_eval, "MANY_CATEGORIES", 5)
    monkeypatch.setattr(findings, "MANY_CATEGORIES", 5)
    coco = with_absent_categories(coco_of(made_ground_truth().dataset | {"annotations": []}), 100)
    evaluator = evaluated(coco, {i: {} for i in coco.imgs}, "auto")
    assert evaluator.coco_eval["bbox"].stats.tolist() == [-1] * 12
    write_evaluation(tmp_path, evaluator, epoch=1, batch_size=1)
    assert json.loads((tmp_path / "eval" / "confusion.json").read_text())["categories_that_do_not_occur"] == 105
