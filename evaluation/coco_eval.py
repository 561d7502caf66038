"""Detections in, COCO's numbers out.

Batches are kept as plain arrays, gathered on the main process and evaluated there once at the end: by hotcoco if it is
installed, otherwise by pycocotools. Both give exactly the same precision, recall and score curves.
Definitions: https://cocodataset.org/#detection-eval. Boxes are in pixels of the original image.
"""

import io
from collections.abc import Iterable, Sequence
from contextlib import redirect_stdout
from copy import copy, deepcopy
from datetime import datetime
from functools import cache
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from evaluation import hotcoco
from evaluation.crowding import more_than_the_limit
from evaluation.detections import (
    Detections,
    Predictions,
    concatenate,
    keep_categories,
    pack,
    to_columns,
    to_results,
    unpack,
)
from evaluation.ground_truth import copy_ground_truth
from evaluation.summary import SummarizedCOCOeval, checked_limits, summary_of
from evaluation.tables import rows_to_show
from util.dist import gather_to_main, get_world_size, run_on_main
from util.logging import get_logger
from util.text import Lines, column_width, fit

BACKENDS = ("auto", "hotcoco", "pycocotools")
MANY_CATEGORIES = 500  # above, what needs memory for each category is kept only for those that occur
KINDS = {"bbox": "bbox", "segm": "segmentation", "keypoints": "keypoints"}  # kind -> key of an annotation
RENUMBERED = (
    "the ground truth has annotations with duplicate ids or ids below 1, which COCO's matching would confuse: "
    "they are renumbered for the evaluation"
)


class CocoEvaluator:
    """Collects a model's detections and evaluates them as COCO does.

        evaluator.update({image_id: result, ...})       # for each batch
        evaluator.synchronize_between_processes()
        evaluator.accumulate()
        evaluator.summarize()
        evaluator.coco_eval["bbox"].stats               # the 12 numbers, float64

    The evaluated images are those passed to `update`, on all processes together. An image without detections counts. A
    repeated image (a distributed sampler repeats some) is ignored: the first one, from the lowest rank, is kept.

    `synchronize_between_processes` sends all detections to the main process. From then on only the main process
    evaluates. `accumulate` and `summarize` must still be called on every process: the others wait and receive `stats`,
    nothing else. Without synchronization each process evaluates its own detections.

    `coco_eval[kind]` is a pycocotools `COCOeval`. Its `params` may be changed before `accumulate`; AP is that at the
    largest of `params.maxDets`. Afterwards `eval` holds the curves; only pycocotools fills `evalImgs`. Keypoints, which
    DETR does not predict, are always evaluated by pycocotools.

    If the ground truth has more than 500 categories, the curves hold only those with objects in the evaluated images,
    `eval["params"].catIds`. The others have no ground truth, so that the numbers are the same.

    `reset` starts the next evaluation. The ground truth is copied and prepared only once.

    Args:
        coco_gt: ground truth; what the evaluation needs is copied, the original is not changed.
        iou_types: list or tuple of "bbox", "segm", "keypoints".
        backend: "hotcoco", "pycocotools", or "auto" for hotcoco if a supported version is installed.

    Raises:
        ImportError: hotcoco is requested by name and cannot be used.
        ValueError: an unknown backend or kind, or ground truth that cannot be evaluated.
    """

    def __init__(self, coco_gt: COCO, iou_types: Sequence[str], *, backend: str = "auto") -> None:
        if isinstance(iou_types, str) or not iou_types or not set(iou_types) <= set(KINDS):
            raise ValueError(f"iou_types must be a list or tuple of {', '.join(KINDS)}; got {iou_types!r}")
        self.backend = _choose_backend(backend)
        self.iou_types = list(iou_types)
        self.coco_gt, renumbered = copy_ground_truth(coco_gt, {KINDS[kind] for kind in self.iou_types} | {"bbox"})
        if renumbered:
            _log_once(RENUMBERED)
        with redirect_stdout(io.StringIO()):
            self.coco_eval: dict[str, COCOeval] = {
                kind: SummarizedCOCOeval(self.coco_gt, iouType=kind) for kind in self.iou_types
            }
        self._hotcoco_gt: Any = None  # loaded once, when first needed, on the process that evaluates
        self._seen: dict[int, Detections] = {}
        self._gathered = False
        self._limits_told: set[int] = set()  # whose warning was given
        self._per_class: dict[str, list[dict[str, Any]]] = {}

    def reset(self) -> None:
        """Forget all detections and results, but keep the ground truth and the `params`.

        `coco_eval` gets new `COCOeval`s, so that results of the last evaluation stay valid where they are still used.
        """
        for kind, last in self.coco_eval.items():
            with redirect_stdout(io.StringIO()):
                self.coco_eval[kind] = SummarizedCOCOeval(self.coco_gt, iouType=kind)
            self.coco_eval[kind].params = deepcopy(last.params)
        self._seen, self._gathered, self._per_class = {}, False, {}

    @property
    def img_ids(self) -> list[int]:
        """Ids of the images so far, ascending."""
        return sorted(self._seen)

    @property
    def detections(self) -> Detections:
        """All detections of categories in the ground truth, by ascending image id."""
        return keep_categories(self.all_detections, list(self.coco_gt.cats))

    @property
    def all_detections(self) -> Detections:
        """All detections, also of classes that are no category of the ground truth, by ascending image id."""
        return concatenate(self._seen[image_id] for image_id in self.img_ids)

    def update(self, predictions: Predictions) -> None:
        """Add the detections of some images.

        Args:
            predictions: image id -> {"boxes": [n, 4] xyxy, "scores": [n], "labels": [n] category ids, and for "segm"
                "masks": [n, h, w] or [n, 1, h, w], above 0.5 inside the object}; tensors on any device. Boxes are
                needed only if "bbox" is evaluated. Detections whose label is not a category of the ground truth are
                ignored.

        Raises:
            ValueError: an image is not in the ground truth, or tensors do not fit together.
            FloatingPointError: a box or a score is not finite.
        """
        new = {int(image_id): result for image_id, result in predictions.items() if int(image_id) not in self._seen}
        self._seen.update(to_columns(new, self.iou_types, self.coco_gt.imgs))

    def prepare(self, predictions: Predictions, iou_type: str) -> list[dict[str, Any]]:
        """The detections in COCO's results format, one dict each. See `update` for the argument."""
        if iou_type not in KINDS:
            raise ValueError(f"unknown kind of evaluation {iou_type!r}: choose from {', '.join(KINDS)}")
        columns = to_columns({int(k): v for k, v in predictions.items()}, [iou_type], self.coco_gt.imgs)
        return to_results(concatenate(columns.values()), iou_type)

    def prepare_for_coco_detection(self, predictions: Predictions) -> list[dict[str, Any]]:
        """Results with `bbox` [x, y, width, height]."""
        return self.prepare(predictions, "bbox")

    def prepare_for_coco_segmentation(self, predictions: Predictions) -> list[dict[str, Any]]:
        """Results with `segmentation`, a compressed RLE whose counts are a string."""
        return self.prepare(predictions, "segm")

    def prepare_for_coco_keypoint(self, predictions: Predictions) -> list[dict[str, Any]]:
        """Results with `keypoints`, the [n, J, 3] tensor of x, y, visibility, flattened to 3 J numbers each."""
        return self.prepare(predictions, "keypoints")

    def synchronize_between_processes(self) -> None:
        """Send the detections of all processes to the main one; must be called on every process."""
        self._gathered = True
        if get_world_size() == 1:
            return
        gathered = gather_to_main(pack(self._seen))
        if gathered is not None:
            merged: dict[int, Detections] = {}
            for packed in gathered:
                merged = unpack(packed) | merged
            self._seen = merged

    def accumulate(self) -> None:
        """Match detections to ground truth and fill `coco_eval[kind].eval`.

        Raises:
            ValueError: no image was passed to `update`.
        """
        if self._gathered:
            run_on_main(self._accumulate)
        else:
            self._accumulate()

    def _accumulate(self) -> None:
        if not self._seen:
            raise ValueError("nothing to evaluate: call update() with the detections of at least one image")
        self._per_class = {}
        detections = self.detections
        if self.backend == "hotcoco" and self._hotcoco_gt is None:
            self._hotcoco_gt = hotcoco.load_ground_truth(self.coco_gt.dataset)
        for kind, coco_eval in self.coco_eval.items():
            params = coco_eval.params
            params.imgIds = self.img_ids
            params.catIds = sorted({int(category_id) for category_id in params.catIds})
            params.maxDets = checked_limits(params.maxDets)
            self._warn_of_objects_beyond(params.maxDets[-1])
            coco_eval.params = self._without_absent_categories(params)
            try:
                self._match(kind, coco_eval, detections)
            finally:
                coco_eval.params = params

    def _match(self, kind: str, coco_eval: COCOeval, detections: Detections) -> None:
        if self.backend == "pycocotools" or kind == "keypoints":
            with redirect_stdout(io.StringIO()):
                results = to_results(detections, kind)
                coco_eval.cocoDt = self.coco_gt.loadRes(results) if results else COCO()
                coco_eval.evaluate()
                coco_eval.accumulate()
            return
        curves = hotcoco.accumulate(self._hotcoco_gt, kind, coco_eval.params, detections.rows, detections.masks)
        coco_eval.eval = {
            "params": coco_eval.params,
            "counts": list(curves["precision"].shape),
            "date": f"{datetime.now():%Y-%m-%d %H:%M:%S}",
            **curves,
        }

    def _without_absent_categories(self, params: Any) -> Any:
        """`params`; of many categories only those with ground truth in the evaluated images."""
        if len(params.catIds) <= MANY_CATEGORIES or not params.useCats:
            return params
        present = {a["category_id"] for image_id in params.imgIds for a in self.coco_gt.imgToAnns.get(image_id, ())}
        reduced = copy(params)
        # At least one: for pycocotools an empty list means all.
        reduced.catIds = [category_id for category_id in params.catIds if category_id in present] or params.catIds[:1]
        return reduced

    def _warn_of_objects_beyond(self, limit: int) -> None:
        if limit not in self._limits_told:
            self._limits_told.add(limit)
            sentence = more_than_the_limit(self.coco_gt, self.img_ids, limit)
            if sentence is not None:
                get_logger().warning(sentence)

    def summarize(self) -> None:
        """Fill `coco_eval[kind].stats` and log COCO's summary, 12 lines for boxes and for masks, with the kind's name.

        With either backend the numbers are pycocotools' means of the curves, at the limits of `params.maxDets`; -1
        means "no ground truth".
        """
        stats = run_on_main(self._summarize) if self._gathered else self._summarize()
        for kind, numbers in stats.items():
            self.coco_eval[kind].stats = numbers

    def _summarize(self) -> dict[str, np.ndarray]:
        stats = {}
        for kind, coco_eval in self.coco_eval.items():
            stats[kind], lines = summary_of(coco_eval)
            get_logger().info(Lines("\n".join([f"IoU metric: {kind}", *lines])))
        return stats

    def per_class(self, kind: str = "bbox") -> list[dict[str, Any]]:
        """The metrics of each category, by ascending id; call it after `accumulate`, on the main process.

        Returns:
            Dicts of `id`, `name`, `AP` (mean over all IoU thresholds), `AP50`, `AR` (with the largest number of
            detections per image that `params` allows, 100 by default). Categories without ground truth in the
            evaluated images have -1, as in `stats`.

        Raises:
            ValueError: this process has no curves.
        """
        if kind not in self.coco_eval or not self.coco_eval[kind].eval:
            raise ValueError(
                f"there are no {kind} curves: pass {kind} in iou_types and call accumulate() first; with several "
                "processes only the main one has the curves"
            )
        if kind not in self._per_class:
            self._per_class[kind] = self._compute_per_class(kind)
        return [dict(row) for row in self._per_class[kind]]

    def _compute_per_class(self, kind: str) -> list[dict[str, Any]]:
        curves, params = self.coco_eval[kind].eval, self.coco_eval[kind].params
        precision = curves["precision"][:, :, :, 0, -1]  # [T, R, K]: any size, most detections
        recall = curves["recall"][:, :, 0, -1]  # [T, K]
        at_50 = np.isclose(params.iouThrs, 0.5)  # [T]
        columns = (
            {int(category_id): k for k, category_id in enumerate(curves["params"].catIds)} if params.useCats else {}
        )
        rows = []
        for category_id in map(int, params.catIds):
            k = columns.get(category_id)
            rows.append(
                {
                    "id": category_id,
                    "name": str(self.coco_gt.cats.get(category_id, {}).get("name", category_id)),
                    "AP": -1.0 if k is None else _mean(precision[:, :, k]),
                    "AP50": -1.0 if k is None else _mean(precision[at_50, :, k]),
                    "AR": -1.0 if k is None else _mean(recall[:, k]),
                }
            )
        return rows


def format_per_class(rows: Iterable[dict[str, Any]]) -> str:
    """`CocoEvaluator.per_class` as a text table of the categories with ground truth; a last line counts the others.

    Of more than 100 categories, those with the highest and the lowest AP are shown, the highest first.
    """
    absent = "have no ground truth in these images"
    shown, notes = rows_to_show(list(rows), "AP", absent, "eval/per_class.json")
    width = column_width(["category", *(row["name"] for row in shown if row)])
    lines = [f"{'id':>6}  {'category':<{width}}  {'AP':>6}  {'AP50':>6}  {'AR':>6}"] if shown else []
    for row in shown:
        if row is None:
            lines.append(f"{'…':>6}")
            continue
        values = "  ".join(f"{row[key]:6.3f}" if row[key] >= 0 else f"{'-':>6}" for key in ("AP", "AP50", "AR"))
        lines.append(f"{row['id']:>6}  {fit(row['name'], width)}  {values}")
    return "\n".join(lines + notes)


def _choose_backend(name: str) -> str:
    if name not in BACKENDS:
        raise ValueError(f"unknown evaluator {name!r}: choose from {', '.join(BACKENDS)}")
    if name == "pycocotools":
        return name
    reason = hotcoco.unavailable_reason()
    if reason is None:
        return "hotcoco"
    remedy = f'pip install "{hotcoco.REQUIREMENT}"'
    if name == "hotcoco":
        raise ImportError(f"{reason}: run {remedy}, or choose pycocotools or auto")
    _log_once(f"{reason}: evaluating with pycocotools, which is slower but gives equal results ({remedy})")
    return "pycocotools"


@cache
def _log_once(message: str) -> None:
    # A process may build many evaluators of the same ground truth.
    get_logger().info(message)


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if values.size else -1.0
