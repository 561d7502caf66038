"""The files of an evaluation: their content, and that they are written for unusual data too."""

import copy
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools.cocoeval import COCOeval

from evaluation import pictures, report
from evaluation.coco_eval import CocoEvaluator
from evaluation.findings import confusion_matrix, summarize_matches
from evaluation.report import write_evaluation
from tests.helpers.coco_files import captured_warnings
from tests.helpers.coco_samples import assert_same_bits, coco_of, evaluated, made_ground_truth, perturbed
from tests.helpers.runs import drawing
from util.checkpoint import load_checkpoint
from util.pictures.figure_parts import new_figure
from util.pictures.run_curves import plot_precision_recall

NUMBERS = {"per_class.json", "f1.json", "confusion.json", "detections.json", "errors.json"}
PICTURES = {"per_class.png", "pr_curves.png", "f1.png", "confusion.png"}


def read_strict_json(path: Path):
    """JSON without NaN and infinity, which other programs cannot read."""

    def refuse(name: str) -> None:
        raise ValueError(f"{name} in {path}")

    return json.loads(path.read_text(), parse_constant=refuse)


def files_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module", autouse=True)
def drawn() -> Iterator[None]:
    with drawing():
        yield


@pytest.fixture(scope="module")
def coco():
    return made_ground_truth()


@pytest.fixture(scope="module")
def evaluator(coco) -> CocoEvaluator:
    return evaluated(coco, perturbed(coco), "auto")


@pytest.fixture(scope="module")
def written(evaluator, tmp_path_factory) -> tuple[Path, dict]:
    folder = tmp_path_factory.mktemp("run")
    return folder, write_evaluation(folder, evaluator, epoch=100, batch_size=3)


def test_training_writes_its_files(written):
    curves = {"eval/latest.pth", "eval/100.pth"}
    assert files_in(written[0]) == curves | {f"eval/{name}" for name in NUMBERS | PICTURES}
    for name in PICTURES:
        with Image.open(written[0] / "eval" / name) as image:
            assert image.format == "PNG" and min(image.size) > 300 and len(np.unique(image.convert("L"))) > 20


@pytest.mark.parametrize(
    ("how", "curves"),
    [
        ({"epoch": 30}, {"eval/latest.pth"}),
        ({"epoch": 0}, {"eval/latest.pth", "eval/000.pth"}),
        ({"epoch": 50, "training": False}, {"eval.pth"}),
        ({"epoch": None, "training": False}, {"eval.pth"}),
    ],
)
def test_precision_and_recall_are_kept_every_50_epochs_and_in_another_file_when_not_training(
    evaluator, tmp_path, monkeypatch, how, curves
):
    monkeypatch.setattr(report, "draw_evaluation", lambda *parts: None)
    write_evaluation(tmp_path, evaluator, batch_size=2, **how)
    assert files_in(tmp_path) - {f"eval/{name}" for name in NUMBERS} == curves


def test_precision_and_recall_are_the_evaluators_and_can_be_plotted(written, evaluator):
    saved = load_checkpoint(written[0] / "eval" / "latest.pth")
    expected = evaluator.coco_eval["bbox"].eval
    assert list(saved) == ["precision", "recall", "scores", "counts"] and saved["counts"] == expected["counts"]
    for name in ("precision", "recall", "scores"):
        np.testing.assert_array_equal(saved[name].numpy(), expected[name])
    plot_precision_recall([written[0] / "eval" / "latest.pth"])


def test_the_12_numbers_are_written_as_a_list_and_by_name(written, evaluator):
    saved = read_strict_json(written[0] / "eval" / "per_class.json")
    assert saved["epoch"] == 100 and saved["batch_size"] == 3
    assert saved["stats"] == evaluator.coco_eval["bbox"].stats.tolist() == list(saved["numbers"].values())
    assert list(saved["numbers"]) == "AP AP50 AP75 APs APm APl AR1 AR10 AR100 ARs ARm ARl".split()
    assert saved["per_class"] == evaluator.per_class()


def test_the_errors_are_written(written, evaluator):
    saved = read_strict_json(written[0] / "eval" / "errors.json")
    assert saved["epoch"] == 100 and saved["threshold"] == written[1]["threshold"]
    assert saved["AP50"] == pytest.approx(evaluator.coco_eval["bbox"].stats[1], rel=1e-12)
    assert {row["kind"] for row in saved["kinds"]} > {"missed", "duplicate"} and saved["pictures"]


def test_f1_and_its_best_threshold_are_written_overall_and_for_each_class(written, evaluator):
    saved, summary = read_strict_json(written[0] / "eval" / "f1.json"), summarize_matches(evaluator)
    assert saved["iou"] == 0.5 and saved["epoch"] == 100 and saved["batch_size"] == 3
    assert saved["thresholds"] == [k / 100 for k in range(101)]
    assert saved["overall"]["best"] == summary.overall.best == written[1]
    assert [(row["id"], row["name"]) for row in saved["per_class"]] == [(i, f"class {i}") for i in (1, 3, 5, 7, 90)]
    for row, (counts, best) in zip([saved["overall"], *saved["per_class"]], [summary.overall, *summary.classes]):
        assert row["best"] == best and row["objects"] == counts.objects
        assert row["detections"] == counts.detections.tolist() and row["right"] == counts.true_positives.tolist()
        for name in ("f1", "precision", "recall"):
            values = np.array([np.nan if value is None else value for value in row[name]])
            np.testing.assert_array_equal(values, getattr(counts, name))
    assert saved["per_class"][2]["best"] is None and saved["per_class"][2]["f1"] == [None] * 101


def test_the_confusion_matrix_is_that_of_the_best_threshold(written, evaluator):
    saved, summary = read_strict_json(written[0] / "eval" / "confusion.json"), summarize_matches(evaluator)
    assert saved["threshold"] == written[1]["threshold"] and saved["iou"] == 0.5
    assert [row["name"] for row in saved["classes"]] == [*summary.names, "background"]
    assert [row["id"] for row in saved["classes"]] == [*summary.ids, None]
    expected = confusion_matrix(summary.detections, summary.objects, summary.ids, saved["threshold"])
    assert saved["matrix"] == expected.tolist() and expected[:-1, :-1].trace() > 10


def test_the_detections_file_gives_exactly_the_same_numbers(written, evaluator):
    truth = made_ground_truth()
    file = written[0] / "eval" / "detections.json"
    again = COCOeval(truth, truth.loadRes(str(file)), "bbox")
    again.params.imgIds = evaluator.img_ids
    again.evaluate()
    again.accumulate()
    again.summarize()
    assert_same_bits(again, evaluator.coco_eval["bbox"])
    saved = read_strict_json(file)
    assert len(saved) == len(evaluator.detections.rows) > 500
    assert {tuple(entry) for entry in saved} == {("image_id", "category_id", "bbox", "score")}
    assert {entry["category_id"] for entry in saved} <= set(truth.cats)


def test_the_file_of_masks_gives_exactly_the_same_numbers(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "CHUNK", 7)
    monkeypatch.setattr(report, "draw_evaluation", lambda *parts: None)
    truth = made_ground_truth(images=9)
    for entries, key in (("images", "id"), ("annotations", "image_id")):
        for entry in truth.dataset[entries]:
            entry[key] = 2**53 - entry[key]  # the largest ids
    for category in truth.dataset["categories"]:
        category["id"] -= 1  # the first one is 0
    for annotation in truth.dataset["annotations"]:
        annotation["category_id"] -= 1
    truth = coco_of(truth.dataset)
    evaluator = evaluated(truth, perturbed(truth, most=20, masks=True), "auto", ("bbox", "segm"))
    write_evaluation(tmp_path, evaluator, epoch=1, batch_size=1)
    for kind, name in (("bbox", "detections"), ("segm", "segmentations")):
        again = COCOeval(truth, truth.loadRes(str(tmp_path / "eval" / f"{name}.json")), kind)
        again.evaluate()
        again.accumulate()
        again.summarize()
        assert_same_bits(again, evaluator.coco_eval[kind])
        assert again.stats[0] > 0.1
    masks = read_strict_json(tmp_path / "eval" / "per_class.json")["masks"]
    assert list(masks["numbers"].values()) == evaluator.coco_eval["segm"].stats.tolist()
    assert masks["per_class"] == evaluator.per_class("segm")


def test_detections_are_written_in_chunks(evaluator, tmp_path, monkeypatch):
    monkeypatch.setattr(report, "CHUNK", 7)
    monkeypatch.setattr(report, "draw_evaluation", lambda *parts: None)
    write_evaluation(tmp_path, evaluator, epoch=1, batch_size=1)
    rows = [
        [entry["image_id"], *entry["bbox"], entry["score"], entry["category_id"]]
        for entry in read_strict_json(tmp_path / "eval" / "detections.json")
    ]
    np.testing.assert_array_equal(rows, evaluator.detections.rows)


def changed(coco, **parts):
    return coco_of({**copy.deepcopy(coco.dataset), **parts})


def without_names(coco):
    return changed(coco, categories=[{"id": category["id"]} for category in coco.dataset["categories"]])


@pytest.mark.parametrize(
    ("truth_of", "some"),
    [
        pytest.param(lambda coco: coco, lambda found: {i: {} for i in found}, id="no detections"),
        pytest.param(lambda coco: changed(coco, annotations=[]), lambda found: found, id="no ground truth"),
        pytest.param(lambda coco: changed(coco, annotations=[]), lambda found: {i: {} for i in found}, id="neither"),
        pytest.param(lambda coco: coco, lambda found: dict(list(found.items())[2:3]), id="one image"),
        pytest.param(without_names, lambda found: found, id="no names"),
        pytest.param(lambda coco: changed(coco, annotations=[], categories=[]), lambda found: found, id="no classes"),
    ],
)
def test_unusual_data_are_reported_too(coco, tmp_path, truth_of, some):
    with captured_warnings() as warnings:
        evaluator = evaluated(truth_of(coco), some(perturbed(coco)), "auto")
        best = write_evaluation(tmp_path, evaluator, epoch=None, batch_size=1)
    assert files_in(tmp_path / "eval") == NUMBERS | PICTURES | {"latest.pth"} and warnings == []
    saved = {name: read_strict_json(tmp_path / "eval" / name) for name in NUMBERS}
    assert set(best) == {"threshold", "f1", "precision", "recall"}
    assert saved["confusion.json"]["threshold"] == (best["threshold"] or 0.5)
    names = [row["name"] for row in saved["per_class.json"]["per_class"]]
    assert names in ([], [f"class {i}" for i in (1, 3, 5, 7, 90)], ["1", "3", "5", "7", "90"])


def test_pictures_are_drawn_with_class_names_of_any_kind(coco, tmp_path):
    names = ["$\\frac{1}$", "_", "a\nb" * 40, "猫", ""]
    categories = [{"id": i, "name": name} for i, name in zip((1, 3, 5, 7, 90), names)]
    evaluator = evaluated(changed(coco, categories=categories), perturbed(coco), "auto")
    with captured_warnings() as warnings:
        write_evaluation(tmp_path, evaluator, epoch=1, batch_size=1)
    assert warnings == [] and files_in(tmp_path / "eval") >= PICTURES
    assert [row["name"] for row in read_strict_json(tmp_path / "eval" / "f1.json")["per_class"]] == names


def test_a_picture_that_fails_only_causes_a_warning(evaluator, tmp_path, monkeypatch):
    def fail(*parts):
        raise RuntimeError("cannot draw")

    for name in ("draw_per_class", "draw_precision_recall", "draw_confusion"):
        monkeypatch.setattr(pictures, name, lambda *parts: new_figure(1, 1))
    monkeypatch.setattr(pictures, "draw_f1", fail)
    with captured_warnings() as warnings:
        write_evaluation(tmp_path, evaluator, epoch=1, batch_size=1)
    assert files_in(tmp_path / "eval") == NUMBERS | PICTURES - {"f1.png"} | {"latest.pth"}
    assert len(warnings) == 1 and "f1.png" in warnings[0] and "RuntimeError: cannot draw" in warnings[0]


def test_a_full_disk_is_an_error_and_leaves_no_partial_file(evaluator, tmp_path, monkeypatch):
    def full(path, write):
        raise OSError("No space left on device")

    monkeypatch.setattr(pictures, "draw_per_class", lambda *parts: new_figure(1, 1))
    monkeypatch.setattr(pictures, "write_atomically", full)
    with pytest.raises(OSError, match="No space left"):
        write_evaluation(tmp_path, evaluator, epoch=1, batch_size=1)
    assert files_in(tmp_path / "eval") == NUMBERS | {"latest.pth"}


def test_an_evaluator_that_has_not_evaluated_is_refused_before_anything_is_written(coco, tmp_path):
    for kind in ("bbox", "segm"):
        with pytest.raises(ValueError, match="no bbox curves"):
            write_evaluation(tmp_path, CocoEvaluator(coco, [kind]), epoch=1, batch_size=1)
    assert files_in(tmp_path) == set()


def test_only_the_main_process_writes(coco, tmp_path, monkeypatch):
    monkeypatch.setattr(report, "is_main_process", lambda: False)
    assert write_evaluation(tmp_path, CocoEvaluator(coco, ["bbox"]), epoch=1, batch_size=1) == {}
    assert files_in(tmp_path) == set()
