"""`Evaluation`: the numbers of the evaluators used by hand, every time, with ground truth that is prepared once."""

import math
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import ImageFile
from pycocotools.coco import COCO

from evaluation import coco_eval, hotcoco, panoptic_eval, panoptic_predictions
from evaluation.coco_eval import CocoEvaluator, format_per_class
from evaluation.evaluation import Evaluation, score
from evaluation.panoptic_eval import PanopticEvaluator
from evaluation.report import write_evaluation
from models import panoptic as models_panoptic
from models.panoptic import PostProcessPanoptic
from models.postprocess import PostProcess, PostProcessSegm
from tests.helpers.coco_files import annotation, captured_warnings
from tests.helpers.coco_samples import assert_same_bits, both_backends, coco_of, needs_hotcoco
from tests.helpers.panoptic_files import CATEGORIES, HEIGHT, WIDTH, segment, write_panoptic

PADDED = (2 * HEIGHT + 4, 2 * WIDTH + 16)  # of a batch whose images are twice their original size
FIRST, SECOND = (0, ((1, 2, 3), (4, 5))), (1, ((6, 4), (5, 2, 1)))  # an evaluation: seed, image ids of its batches


class Truth(SimpleNamespace):
    """`base_ds` and `dataset`, as `Evaluation` takes them."""


@pytest.fixture
def truth(tmp_path) -> Truth:
    """Six images of a stuff segment and two things each, as boxes with masks and as panoptic maps."""
    random, samples, annotations = np.random.default_rng(0), {}, []
    for image_id in range(1, 7):
        ids, segments = np.zeros((HEIGHT, WIDTH), dtype=np.int32), []
        for number, category_id in enumerate((2, 7, 7), start=1):
            w, h = random.integers(12, 20, 2).tolist()
            x, y = int(random.integers(0, WIDTH - w)), int(random.integers(0, HEIGHT - h))
            ids[y : y + h, x : x + w] = number
            annotations.append(annotation(len(annotations) + 1, image_id, [x, y, w, h], category_id=category_id))
            segments.append((number, category_id))
        visible = [(number, key, int((ids == number).sum())) for number, key in segments]
        samples[image_id] = ids, [segment(n, category_id=key, area=area) for n, key, area in visible if area]
    _, maps, ann_file = write_panoptic(tmp_path / "truth", samples)
    images = [{"id": image_id, "height": HEIGHT, "width": WIDTH} for image_id in samples]
    base_ds = coco_of({"images": images, "categories": CATEGORIES, "annotations": annotations})
    return Truth(base_ds=base_ds, dataset=Truth(ann_file=ann_file, ann_folder=maps, skip_bad_images=True))


def postprocessors(*names: str) -> dict[str, torch.nn.Module]:
    things = {label: label == 7 for label in range(10)}
    known = {"bbox": PostProcess(), "segm": PostProcessSegm(), "panoptic": PostProcessPanoptic(things)}
    return {name: known[name] for name in names}


def outputs_of(base_ds: COCO, image_ids: tuple[int, ...], seed: int) -> dict[str, torch.Tensor]:
    """What a fair model might say: most objects, a little off, with a score between one third and nearly one."""
    random, queries = np.random.default_rng((seed, *image_ids)), 5
    logits = torch.full((len(image_ids), queries, 11), -4.0)
    logits[:, :, -1] = 4
    boxes = torch.rand(len(image_ids), queries, 4, generator=torch.Generator().manual_seed(seed)) / 4 + 0.3
    masks = torch.full((len(image_ids), queries, PADDED[0] // 2, PADDED[1] // 2), -6.0)
    for place, image_id in enumerate(image_ids):
        for query, known in enumerate(base_ds.imgToAnns[image_id]):
            if random.random() < 0.15:
                continue
            logits[place, query, known["category_id"]] = 4 + float(random.uniform(-0.5, 5))
            x, y, w, h = np.maximum(np.array(known["bbox"]) + random.integers(-1, 2, 4), 0).tolist()
            box = [(x + w / 2) / WIDTH, (y + h / 2) / HEIGHT, w / WIDTH, h / HEIGHT]
            boxes[place, query] = torch.tensor(box)
            masks[place, query, y : y + h, x : x + w] = 6 + query
    return {"pred_logits": logits, "pred_boxes": boxes, "pred_masks": masks}


def batches_of(base_ds: COCO, seed: int, batches: tuple[tuple[int, ...], ...]):
    """(outputs, targets) of each batch."""
    sizes = {"orig_size": torch.tensor([HEIGHT, WIDTH]), "size": torch.tensor([2 * HEIGHT, 2 * WIDTH])}
    for image_ids in batches:
        yield outputs_of(base_ds, image_ids, seed), [{"image_id": torch.tensor([i]), **sizes} for i in image_ids]


def evaluate(evaluation: Evaluation, base_ds: COCO, seed: int, batches: tuple[tuple[int, ...], ...]) -> dict:
    """As the loop in the engine does."""
    evaluation.reset()
    for outputs, targets in batches_of(base_ds, seed, batches):
        evaluation.update(outputs, targets, PADDED)
    with captured_warnings():  # images without a panoptic prediction
        return evaluation.finish()


def by_hand(truth: Truth, backend: str, seed: int, batches: tuple[tuple[int, ...], ...], output_dir: Path | None):
    """The evaluators of one evaluation, with the published use of the postprocessors."""
    post = postprocessors("bbox", "segm", "panoptic")
    coco = CocoEvaluator(truth.base_ds, ["bbox", "segm"], backend=backend)
    panoptic = PanopticEvaluator(truth.dataset.ann_file, truth.dataset.ann_folder, output_dir, allow_missing=True)
    for outputs, targets in batches_of(truth.base_ds, seed, batches):
        originals = torch.stack([target["orig_size"] for target in targets])
        sizes = torch.stack([target["size"] for target in targets])
        results = post["segm"](post["bbox"](outputs, originals), outputs, originals, sizes, PADDED)
        coco.update({target["image_id"].item(): result for target, result in zip(targets, results)})
        for target, found in zip(targets, post["panoptic"](outputs, sizes, originals, PADDED)):
            image_id = target["image_id"].item()
            panoptic.update([{"image_id": image_id, "file_name": f"{image_id:012d}.png", **found}])
    coco.synchronize_between_processes()
    coco.accumulate()
    coco.summarize()
    with captured_warnings():
        return coco, panoptic.summarize()


@needs_hotcoco  # for panoptic quality
@both_backends
def test_every_evaluation_gives_the_numbers_of_new_evaluators_used_by_hand(truth, tmp_path, backend):
    parts = postprocessors("bbox", "segm", "panoptic")
    evaluation = Evaluation(parts, truth.base_ds, truth.dataset, backend=backend, output_dir=str(tmp_path / "run"))
    assert evaluation.kinds == ["bbox", "segm"] and evaluation.coco.backend == backend
    for seed, batches in (FIRST, SECOND, FIRST):
        stats = evaluate(evaluation, truth.base_ds, seed, batches)
        coco, panoptic = by_hand(truth, backend, seed, batches, tmp_path / "hand")
        for kind, name in (("bbox", "coco_eval_bbox"), ("segm", "coco_eval_masks")):
            assert_same_bits(evaluation.coco.coco_eval[kind], coco.coco_eval[kind])
            assert stats[name] == coco.coco_eval[kind].stats.tolist() and 0.1 < stats[name][0] < 0.9
            assert evaluation.coco.per_class(kind) == coco.per_class(kind)
        assert evaluation.coco.img_ids == sorted(i for batch in batches for i in batch)
        assert list(stats) == ["coco_eval_bbox", "coco_eval_masks", "PQ_all", "PQ_th", "PQ_st"]
        for name, group in (("PQ_all", "All"), ("PQ_th", "Things"), ("PQ_st", "Stuff")):
            assert stats[name] == panoptic[group] and 0.1 < stats[name]["pq"] < 0.95
        assert evaluation.panoptic.results == panoptic
        for path in (tmp_path / "hand").iterdir():
            assert (tmp_path / "run" / "panoptic_eval" / path.name).read_bytes() == path.read_bytes(), path.name
    assert stats["coco_eval_bbox"] != evaluate(evaluation, truth.base_ds, *SECOND)["coco_eval_bbox"]


def test_boxes_only(truth, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    evaluation = Evaluation(postprocessors("bbox"), truth.base_ds)
    assert evaluation.kinds == ["bbox"] and evaluation.panoptic is None
    assert list(evaluate(evaluation, truth.base_ds, *FIRST)) == ["coco_eval_bbox"]


@needs_hotcoco
def test_without_an_output_folder_panoptic_maps_are_not_kept(truth, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    evaluate(Evaluation(postprocessors("bbox", "panoptic"), truth.base_ds, truth.dataset), truth.base_ds, *FIRST)
    assert list((tmp_path / "here").iterdir()) == []


def test_panoptic_maps_without_a_data_set_are_refused(truth):
    with pytest.raises(ValueError, match="pass `dataset`"):
        Evaluation(postprocessors("bbox", "panoptic"), truth.base_ds)


@needs_hotcoco
@pytest.mark.parametrize(("skip_bad_images", "refused"), [(True, False), (False, True)])
def test_images_may_be_missing_if_the_data_set_skips_bad_ones(truth, skip_bad_images, refused):
    truth.dataset.skip_bad_images = skip_bad_images
    evaluation = Evaluation(postprocessors("bbox", "panoptic"), truth.base_ds, truth.dataset)
    if refused:
        with pytest.raises(ValueError, match="predictions are missing for 1 of 6 images"):
            evaluate(evaluation, truth.base_ds, *FIRST)
    else:
        evaluate(evaluation, truth.base_ds, *FIRST)


# --- Once -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def calls(monkeypatch) -> Counter:
    """How often work that should be done once is done."""
    counter: Counter = Counter()

    def count(owner: object, name: str) -> None:
        work = getattr(owner, name)

        def counted(*args, **kwargs):
            counter[name] += 1
            return work(*args, **kwargs)

        monkeypatch.setattr(owner, name, counted)

    count(coco_eval, "copy_ground_truth")
    count(hotcoco, "load_ground_truth")
    count(panoptic_eval, "read_panoptic")
    count(panoptic_eval, "check_maps")
    count(CocoEvaluator, "_compute_per_class")
    count(models_panoptic, "encode_png")
    count(panoptic_predictions, "encode_png")
    count(panoptic_predictions, "decode_segment_map")
    count(ImageFile.ImageFile, "load")
    return counter


@needs_hotcoco
def test_ground_truth_is_read_and_prepared_once_for_all_evaluations(truth, calls):
    parts = postprocessors("bbox", "segm", "panoptic")
    evaluation = Evaluation(parts, truth.base_ds, truth.dataset, backend="hotcoco")
    for seed, batches in (FIRST, SECOND):
        evaluate(evaluation, truth.base_ds, seed, batches)
    once = ("copy_ground_truth", "load_ground_truth", "read_panoptic", "check_maps")
    assert {name: calls[name] for name in once} == dict.fromkeys(once, 1)


def test_per_class_results_are_computed_once_for_each_evaluation(truth, calls, tmp_path, monkeypatch):
    monkeypatch.setattr("evaluation.report.draw_evaluation", lambda *parts: parts[1].per_class())
    evaluation = Evaluation(postprocessors("bbox", "segm"), truth.base_ds)
    for number, (seed, batches) in enumerate((FIRST, SECOND), start=1):
        evaluate(evaluation, truth.base_ds, seed, batches)
        tables = [format_per_class(evaluation.coco.per_class(kind)) for kind in evaluation.kinds]
        write_evaluation(tmp_path, evaluation.coco, epoch=number, batch_size=3)
        evaluation.coco.per_class()[0].clear()  # the caller's own copy
        evaluation.coco.per_class().clear()
        assert format_per_class(evaluation.coco.per_class()) == tables[0]
        assert calls["_compute_per_class"] == 2 * number


def test_another_accumulate_gives_its_own_per_class_results(truth):
    evaluation = Evaluation(postprocessors("bbox"), truth.base_ds)
    evaluate(evaluation, truth.base_ds, *FIRST)
    before = evaluation.coco.per_class()
    outputs, targets = next(batches_of(truth.base_ds, 3, ((6,),)))
    outputs["pred_logits"][:] = 0  # nothing is found in this image
    evaluation.update(outputs, targets, PADDED)
    evaluation.finish()
    assert evaluation.coco.per_class() != before


@needs_hotcoco
def test_each_panoptic_png_is_encoded_once_and_written_as_it_is(truth, calls, tmp_path):
    evaluation = Evaluation(postprocessors("bbox", "panoptic"), truth.base_ds, truth.dataset, output_dir=str(tmp_path))
    seed, batches = FIRST
    evaluate(evaluation, truth.base_ds, seed, batches)
    images = sum(len(batch) for batch in batches)
    assert (calls["encode_png"], calls["decode_segment_map"], calls["load"]) == (images, 0, 0)
    made = {}
    for outputs, targets in batches_of(truth.base_ds, seed, batches):
        sizes = [tuple(target["size"].tolist()) for target in targets]
        maps = postprocessors("panoptic")["panoptic"](outputs, sizes, [(HEIGHT, WIDTH)] * len(sizes), PADDED)
        made |= {f"{target['image_id'].item():012d}.png": each["png_string"] for target, each in zip(targets, maps)}
    assert {path.name: path.read_bytes() for path in (tmp_path / "panoptic_eval").glob("*.png")} == made


# --- Reset ------------------------------------------------------------------------------------------------------------


@both_backends
def test_reset_keeps_parameters_and_the_last_results_for_those_who_hold_them(truth, backend):
    evaluation = Evaluation(postprocessors("bbox"), truth.base_ds, backend=backend)
    evaluation.coco.coco_eval["bbox"].params.maxDets = [1, 10, 20]
    evaluate(evaluation, truth.base_ds, *FIRST)
    last = evaluation.coco.coco_eval["bbox"]
    curves, stats, image_ids = last.eval["precision"].copy(), last.stats.copy(), list(last.params.imgIds)
    evaluate(evaluation, truth.base_ds, *SECOND)
    assert evaluation.coco.coco_eval["bbox"].params.maxDets == [1, 10, 20]
    np.testing.assert_array_equal(last.eval["precision"], curves)
    np.testing.assert_array_equal(last.stats, stats)
    assert list(last.params.imgIds) == list(last.eval["params"].imgIds) == image_ids


@needs_hotcoco
def test_after_a_reset_there_are_no_results(truth):
    evaluation = Evaluation(postprocessors("bbox", "panoptic"), truth.base_ds, truth.dataset)
    evaluate(evaluation, truth.base_ds, *FIRST)
    evaluation.reset()
    assert evaluation.coco.img_ids == [] and evaluation.panoptic.results is None
    with pytest.raises(ValueError, match="no bbox curves"):
        evaluation.coco.per_class()
    with pytest.raises(ValueError, match="no results yet"):
        evaluation.panoptic.per_class()
    with pytest.raises(ValueError, match="nothing to evaluate"):
        evaluation.finish()


# --- Score ------------------------------------------------------------------------------------------------------------


def test_images_with_more_objects_than_queries_are_counted_and_said_once(truth):
    evaluation = Evaluation(postprocessors("bbox"), truth.base_ds)
    few = [
        ({name: value[:, :2] for name, value in outputs.items()}, targets)
        for outputs, targets in batches_of(truth.base_ds, *FIRST)
    ]
    with captured_warnings() as warnings:
        for batches in (few, few):
            evaluation.reset()
            for outputs, targets in batches:
                evaluation.update(outputs, targets, PADDED)
            evaluation.finish()
    assert len(warnings) == 1
    assert warnings[0].startswith("5 images have more objects than the model has queries (2)")
    assert "image 1 has 3" in warnings[0] and "--num_queries 3" in warnings[0]


def test_the_score_is_pq_before_mask_ap_before_box_ap():
    stats = {"loss": math.nan, "coco_eval_bbox": [0.1, 0.9]}
    assert score(stats) == 0.1
    stats["coco_eval_masks"] = [0.2, 0.9]
    assert score(stats) == 0.2
    assert score(stats | {"PQ_all": {"pq": 0.3}, "PQ_th": {"pq": 0.8}}) == 0.3
