"""F1, thresholds and the confusion matrix, compared with plain loops and with the evaluator's own curves."""

import numpy as np
import pytest
import torch
from pycocotools.coco import COCO

from evaluation.findings import (
    THRESHOLDS,
    ScoredMatches,
    best_threshold,
    confusion_matrix,
    count_at_thresholds,
    label_detections,
    merge_classes,
    read_objects,
    summarize_matches,
)
from tests.helpers.coco_samples import coco_of, evaluated, made_ground_truth, perturbed
from tests.helpers.paths import SHARED_DATA


def matches_of(evaluator, **limits) -> list[ScoredMatches]:
    ids = [int(i) for i in evaluator.coco_eval["bbox"].params.catIds]
    objects = read_objects(evaluator.coco_gt, evaluator.img_ids, ids)
    return label_detections(evaluator.detections, objects, ids, **limits)


def curve_of(matches: ScoredMatches) -> np.ndarray:
    """Precision at 101 recalls as COCO computes it, from true and false positives by falling score."""
    if matches.objects == 0:
        return np.full(101, -1.0)
    right = np.cumsum(matches.true_positive)
    precision = right / (np.cumsum(~matches.true_positive) + right + np.spacing(1))
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    at = np.searchsorted(right / matches.objects, np.linspace(0, 1, 101), side="left")
    return np.append(precision, 0)[np.minimum(at, len(precision))]


def assert_same_curves(evaluator) -> None:
    expected = evaluator.coco_eval["bbox"].eval["precision"][0, :, :, 0, -1]  # [R, K] at IoU 0.5
    for k, matches in enumerate(matches_of(evaluator)):
        np.testing.assert_array_equal(curve_of(matches), expected[:, k])


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_true_and_false_positives_give_exactly_the_evaluators_curves(seed):
    coco = made_ground_truth(seed)
    assert_same_curves(evaluated(coco, perturbed(coco, seed + 1), "auto"))


def test_real_annotations_give_exactly_the_evaluators_curves():
    path = SHARED_DATA / "bccd" / "annotations" / "instances_val2017.json"
    if not path.exists():
        pytest.skip("bccd is not available")
    coco = COCO(str(path))
    assert_same_curves(evaluated(coco, perturbed(coco, jitter=0.08), "auto"))


def test_only_the_best_detections_of_an_image_and_class_count():
    box = {"boxes": torch.tensor([[0.0, 0, 10, 10]] * 103), "labels": torch.ones(103, dtype=torch.int64)}
    annotation = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 10, 10], "area": 100, "iscrowd": 0}
    data = {"images": [{"id": 1}], "categories": [{"id": 1, "name": "a"}], "annotations": [annotation]}
    evaluator = evaluated(coco_of(data), {1: {**box, "scores": torch.linspace(0.9, 0.1, 103)}}, "auto")
    assert [len(matches.scores) for matches in matches_of(evaluator)] == [100]
    assert summarize_matches(evaluator).classes[0].counts.detections[0] == 100
    assert matches_of(evaluator, max_detections=5)[0].true_positive.tolist() == [True, False, False, False, False]


@pytest.fixture(scope="module")
def by_class() -> list[ScoredMatches]:
    coco = made_ground_truth()
    return matches_of(evaluated(coco, perturbed(coco), "auto"))


def counted_by_loops(one: ScoredMatches, threshold: float) -> tuple[int, int]:
    kept = [right for score, right in zip(one.scores.tolist(), one.true_positive.tolist()) if score >= threshold]
    return len(kept), sum(kept)


def test_counts_and_rates_equal_loops_over_the_detections(by_class):
    for one in [*by_class, merge_classes(by_class)]:
        counts = count_at_thresholds(one)
        for place, threshold in enumerate(THRESHOLDS.tolist()):
            kept, right = counted_by_loops(one, threshold)
            assert (counts.detections[place], counts.true_positives[place]) == (kept, right)
            precision = right / kept if kept else np.nan
            recall = right / one.objects if one.objects else np.nan
            total = precision + recall
            f1 = 2 * precision * recall / total if total > 0 else np.nan if np.isnan(recall) else 0
            found = [counts.precision[place], counts.recall[place], counts.f1[place]]
            np.testing.assert_allclose(found, [precision, recall, f1], rtol=1e-12)


def test_merged_classes_have_the_summed_counts(by_class):
    together = merge_classes(by_class)
    assert together.objects == sum(one.objects for one in by_class) > 0
    assert (np.diff(together.scores) <= 0).all()
    counts, parts = count_at_thresholds(together), [count_at_thresholds(one) for one in by_class]
    np.testing.assert_array_equal(counts.true_positives, sum(part.true_positives for part in parts))
    np.testing.assert_array_equal(counts.detections, sum(part.detections for part in parts))


def test_the_best_threshold_has_the_highest_f1_and_is_not_a_score(by_class):
    for one in [*by_class, merge_classes(by_class)]:
        if not one.true_positive.any():
            assert best_threshold(one) is None
            continue
        best = best_threshold(one)
        f1 = {t: 2 * right / (kept + one.objects) for t in one.scores for kept, right in [counted_by_loops(one, t)]}
        kept, right = counted_by_loops(one, best)
        assert 2 * right / (kept + one.objects) == max(f1.values())
        assert best not in one.scores and best < max(t for t in f1 if f1[t] == max(f1.values()))


@pytest.mark.parametrize(
    ("scores", "expected"),
    [([0.9, 0.3], 0.6), ([0.4123, 0.4121], 0.4122), ([0.7], 0.35), ([0.5, np.nextafter(0.5, 0)], 0.5), ([-1, -3], -2)],
)
def test_the_best_threshold_has_as_few_digits_as_possible(scores, expected):
    assert best_threshold(ScoredMatches(np.array(scores), np.arange(len(scores)) == 0, 1)) == expected


def confusion_by_loops(detections, objects, ids, threshold) -> np.ndarray:
    k = len(ids)
    matrix = np.zeros((k + 1, k + 1), dtype=int)
    for image_id in set(detections.rows[:, 0]) | set(objects.images):
        rows = [r for r in detections.rows.tolist() if r[0] == image_id and r[5] >= threshold and r[6] in ids]
        free = [g for g in np.flatnonzero(objects.images == image_id) if not objects.crowd[g]]
        crowds = np.flatnonzero((objects.images == image_id) & objects.crowd)
        for row in sorted(rows, key=lambda r: -r[5]):
            x, y, w, h = row[1:5]

            def overlap(g, crowd=False, box=(x, y, w, h)):
                x, y, w, h = box
                u, v, p, q = objects.boxes[g]
                inside = max(0, min(x + w, u + p) - max(x, u)) * max(0, min(y + h, v + q) - max(y, v))
                return inside / (w * h if crowd else w * h + p * q - inside)

            best = max(free, key=lambda g: (overlap(g), g), default=None)
            if best is not None and overlap(best) >= 0.5:
                matrix[objects.classes[best], ids.index(row[6])] += 1
                free.remove(best)
            elif not any(overlap(g, crowd=True) >= 0.5 for g in crowds):
                matrix[k, ids.index(row[6])] += 1
        for g in free:
            matrix[objects.classes[g], k] += 1
    return matrix


@pytest.mark.parametrize("threshold", [0.0, 0.45, 2.0])
def test_the_confusion_matrix_equals_loops(threshold):
    coco = made_ground_truth()
    evaluator = evaluated(coco, perturbed(coco, jitter=0.1), "auto")
    ids = sorted(coco.cats)
    objects = read_objects(coco, evaluator.img_ids, ids)
    matrix = confusion_matrix(evaluator.detections, objects, ids, threshold)
    np.testing.assert_array_equal(matrix, confusion_by_loops(evaluator.detections, objects, ids, threshold))
    np.testing.assert_array_equal(matrix[:-1].sum(axis=1), np.bincount(objects.classes[~objects.crowd], minlength=5))
    if threshold == 0:
        assert (matrix - np.diag(np.diag(matrix)))[:-1, :-1].any()  # some are predicted as another class


def scene(annotations: list[tuple], detections: list[tuple], names: tuple = ("cat", "dog", "eel")):
    """An evaluator of one image: annotations (class, box, crowd), detections (class, box, score); boxes x, y, w, h."""
    annotations = [
        {"id": n, "image_id": 5, "category_id": c, "bbox": box, "area": box[2] * box[3], "iscrowd": crowd}
        for n, (c, box, crowd) in enumerate(annotations, start=1)
    ]
    categories = [{"id": n, "name": name} for n, name in enumerate(names, start=1)]
    coco = coco_of({"images": [{"id": 5}], "categories": categories, "annotations": annotations})
    boxes = torch.tensor([box for _, box, _ in detections], dtype=torch.float32).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    labels = torch.tensor([c for c, _, _ in detections], dtype=torch.int64)
    scores = torch.tensor([score for _, _, score in detections])
    return evaluated(coco, {5: {"boxes": boxes, "labels": labels, "scores": scores}}, "auto")


def test_a_scene_counted_by_hand():
    truth = [(1, [0, 0, 10, 10], 0), (2, [50, 0, 10, 10], 0), (2, [0, 50, 10, 10], 0), (3, [100, 100, 80, 80], 1)]
    found = [
        (1, [0, 0, 10, 10], 0.9),  # a cat found
        (1, [50, 0, 10, 9], 0.8),  # a dog predicted as a cat
        (2, [0, 0, 10, 10], 0.7),  # a false positive: the cat is matched already
        (3, [110, 110, 9, 9], 0.6),  # in a crowd region: ignored
        (2, [0, 50, 10, 10], 0.1),  # a dog found, below the threshold
    ]
    summary = summarize_matches(scene(truth, found))
    assert summary.overall.best == {"threshold": 0.05, "f1": 4 / 7, "precision": 0.5, "recall": 2 / 3}
    assert summary.matrix.tolist() == [[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0], [0, 1, 0, 0]]
    matrix = confusion_matrix(summary.detections, summary.objects, summary.ids, 0.5)
    assert matrix.tolist() == [[1, 0, 0, 0], [1, 0, 0, 1], [0, 0, 0, 0], [0, 1, 0, 0]]
    cat, dog, eel = summary.classes
    assert cat.best == {"threshold": 0.85, "f1": 1.0, "precision": 1.0, "recall": 1.0}
    assert dog.best == {"threshold": 0.05, "f1": 0.5, "precision": 0.5, "recall": 0.5}
    assert eel.best is None and np.isnan(eel.counts.f1).all() and eel.counts.detections[0] == 0
    overall = summary.overall.counts
    assert (overall.detections[0], overall.true_positives[0], overall.objects) == (4, 2, 3)


def test_without_true_positives_there_is_no_best_threshold():
    lone = [(1, [0, 0, 10, 10], 0.9)]
    for truth, found, recall in (([], lone, np.nan), ([(1, [50, 50, 9, 9], 0)], lone, 0), ([], [], np.nan)):
        summary = summarize_matches(scene(truth, found))
        assert summary.overall.best is None and summary.threshold == 0.5
        np.testing.assert_array_equal(summary.overall.counts.recall, np.full(101, recall))
        assert summary.matrix[-1, 0] == len(found) and summary.matrix[0, -1] == len(truth)


def test_annotations_of_other_images_and_categories_do_not_count():
    coco = made_ground_truth()
    some = list(coco.imgs)[2:9]
    evaluator = evaluated(coco, {i: p for i, p in perturbed(coco).items() if i in some}, "auto")
    expected = [a for i in some for a in coco.imgToAnns[i]]
    objects = read_objects(coco, some, [7, 3])
    assert len(objects.images) == sum(a["category_id"] in (3, 7) for a in expected) > 0
    assert summarize_matches(evaluator).overall.counts.objects == sum(not a["iscrowd"] for a in expected)
