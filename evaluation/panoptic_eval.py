"""Panoptic predictions in, panoptic quality out (PQ = SQ · RQ; Kirillov et al. 2019, paper section 4.4).

Predictions are kept in the official format, PNG bytes and a list of segments, gathered on the main process and
evaluated there once at the end by hotcoco, which gives COCO's numbers. The PNG bytes are written as they come from the
postprocessor, not decoded or encoded again. Definitions: https://cocodataset.org/#panoptic-eval.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from datasets.annotations.panoptic import read_panoptic
from datasets.annotations.rules import Annotation, preview
from datasets.coco_panoptic import check_maps
from evaluation import hotcoco
from evaluation.panoptic_predictions import Prediction, check_prediction, without_unknown
from evaluation.tables import rows_to_show
from util.dist import gather_to_main, run_on_main
from util.files import write_json
from util.logging import get_logger
from util.text import Lines, column_width, fit

GROUPS = ("All", "Things", "Stuff")


class PanopticEvaluator:
    """Collects a model's panoptic predictions and evaluates them as COCO does.

        evaluator.update(predictions)                   # for each batch
        evaluator.synchronize_between_processes()
        results = evaluator.summarize()
        results["All"]["pq"]                            # 0 to 1

    A repeated image (a distributed sampler repeats some) is ignored: the first one, from the lowest rank, is kept.
    An image without segments has an all-zero PNG. Segments of categories that are not in the ground truth are ignored;
    their pixels become void.

    `synchronize_between_processes` sends all predictions to the main process. From then on only the main process
    evaluates. `summarize` must still be called on every process: the others wait and receive the same results. Without
    synchronization each process evaluates its own predictions.

    Segment ids are interpreted as in COCO's evaluation: those of predictions may start at 0, which is then a segment
    like any other, although its pixels cannot be distinguished from void pixels.

    `reset` starts the next evaluation. The ground truth is read and checked only once.

    Args:
        ann_file: the panoptic JSON file of the ground truth.
        ann_folder: the folder of its PNG files.
        output_dir: where `summarize` writes the predictions in COCO's results format (a PNG for each image and
            predictions.json) and the results (quality.json). Empty or None to write nothing.
        allow_missing: leave out images without a prediction, with a warning, instead of raising an error.

    Raises:
        ImportError: hotcoco cannot be used; pycocotools has no panoptic evaluation.
        FileNotFoundError, OSError, ValueError: see `read_panoptic`; PNG files are missing.
    """

    def __init__(
        self,
        ann_file: str | Path,
        ann_folder: str | Path,
        output_dir: str | Path | None = "panoptic_eval",
        *,
        allow_missing: bool = False,
    ) -> None:
        reason = hotcoco.unavailable_reason()
        if reason is not None:
            raise ImportError(f'{reason}: it is needed for panoptic quality, run pip install "{hotcoco.REQUIREMENT}"')
        self.ann_folder = Path(ann_folder)
        self.output_dir = Path(output_dir) if output_dir else None
        self.allow_missing = allow_missing
        self.ground_truth = read_panoptic(ann_file)
        check_maps(self.ann_folder, [a["file_name"] for a in self.ground_truth.annotations.values()])
        self._category_ids = {category["id"] for category in self.ground_truth.categories}
        self.reset()

    def reset(self) -> None:
        """Forget all predictions and results, but keep the ground truth."""
        self.results: dict[str, Any] | None = None
        self._predictions: dict[int, Prediction] = {}
        self._gathered = False
        self._warned_of_unknown = False

    def update(self, predictions: Iterable[Mapping[str, Any]]) -> None:
        """Add the predictions of some images, see `check_prediction`; they are not modified.

        Raises:
            ValueError: a prediction does not fit its image.
        """
        for given in predictions:
            if int(given["image_id"]) in self._predictions:
                continue
            checked = check_prediction(given, self.ground_truth.images)
            kept = without_unknown(checked, self._category_ids)
            if kept is not checked and not self._warned_of_unknown:
                self._warned_of_unknown = True
                get_logger().warning(
                    f"image {kept['image_id']} has predicted segments of categories that are not in the ground truth: "
                    "such segments are ignored (logged once)"
                )
            self._predictions[kept["image_id"]] = kept

    def synchronize_between_processes(self) -> None:
        """Send the predictions of all processes to the main one; must be called on every process."""
        gathered = gather_to_main(list(self._predictions.values()))
        self._gathered = True
        self._predictions = {}
        for predictions in gathered or ():
            for prediction in predictions:
                self._predictions.setdefault(prediction["image_id"], prediction)

    def summarize(self) -> dict[str, Any]:
        """Evaluate, log the table of groups and categories, and write the predictions to `output_dir`.

        If `output_dir` cannot be written to, an error is logged and the numbers are still computed.

        Returns:
            "All", "Things", "Stuff": {"pq", "sq", "rq", "n"}, means over the n categories that occur in the ground
            truth or the predictions; "per_class": the same of each category id, with "iou" (sum over the matches),
            "tp", "fp", "fn". -1 means "nothing to measure". Also kept as `results`.

        Raises:
            ValueError: images have no prediction, two share a file name, or a PNG contradicts its segments.
            OSError: temporary files cannot be written either.
        """
        self.results = run_on_main(self._summarize) if self._gathered else self._summarize()
        return self.results

    def per_class(self) -> list[dict[str, Any]]:
        """Dicts of id, name, isthing, PQ, SQ and RQ, by ascending id; -1 where there was nothing to measure.

        Raises:
            ValueError: `summarize` has not been called.
        """
        if self.results is None:
            raise ValueError("there are no results yet: call summarize() first")
        numbers = self.results["per_class"]
        return [
            {key: category[key] for key in ("id", "name", "isthing")}
            | {key.upper(): numbers[category["id"]][key] for key in ("pq", "sq", "rq")}
            for category in self.ground_truth.categories
        ]

    def _summarize(self) -> dict[str, Any]:
        annotations = self._annotations_to_evaluate()
        predictions = [self._predictions[annotation["image_id"]] for annotation in annotations]
        names = [prediction["file_name"] for prediction in predictions]
        if len(set(names)) < len(names):
            duplicate = next(name for name in names if names.count(name) > 1)
            raise ValueError(f"several predictions have the file_name {duplicate}: file names must be unique")
        truth = {
            "images": list(self.ground_truth.images.values()),
            "annotations": annotations,
            "categories": self.ground_truth.categories,
        }
        with tempfile.TemporaryDirectory() as scratch:
            folder = self.output_dir or Path(scratch)
            try:
                written = _write(predictions, folder)
            except OSError as error:
                if self.output_dir is None:
                    raise
                get_logger().error(f"panoptic maps are not saved: {folder} cannot be written to ({error})")
                folder = Path(scratch)
                written = _write(predictions, folder)
            self.results = hotcoco.panoptic_quality(truth, written, self.ann_folder, folder)
            groups = {name: self.results[name] for name in GROUPS}
            write_json(folder / "quality.json", groups | {"per_class": self.per_class()})
        get_logger().info(Lines(f"Panoptic quality\n{format_panoptic(self.results, self.per_class())}"))
        return self.results

    def _annotations_to_evaluate(self) -> list[Annotation]:
        """The annotations of images with a prediction, in the file's order, which fixes the order of all sums."""
        annotations = self.ground_truth.annotations
        without = [str(image_id) for image_id in annotations if image_id not in self._predictions]
        if without and (not self.allow_missing or not self._predictions):
            raise ValueError(
                f"predictions are missing for {len(without)} of {len(annotations)} images (image {preview(without)}): "
                "call update() for every image of the ground truth, with an empty segments_info if nothing is found"
            )
        if without:
            get_logger().warning(f"images without a prediction are not evaluated: {len(without)} ({preview(without)})")
        return [annotation for image_id, annotation in annotations.items() if image_id in self._predictions]


def format_panoptic(results: Mapping[str, Any], per_class: Iterable[Mapping[str, Any]] = ()) -> str:
    """What `summarize` and `per_class` return as a table in percent, with a dash where there was nothing to measure.

    Categories that do not occur are counted in a line below it; of more than 100 others, the best and the worst are
    shown.
    """
    shown, notes = rows_to_show(
        list(per_class), "PQ", "occur neither in these images nor in the results", "quality.json"
    )
    rows = [(name, *(results[name][key] for key in ("pq", "sq", "rq")), results[name]["n"]) for name in GROUPS]
    rows += [(row["name"], row["PQ"], row["SQ"], row["RQ"], "") if row else ("…",) for row in shown]
    width = max(8, column_width(name for name, *_ in rows)) + 1
    lines = [f"{'':<{width}}{'PQ':>6}{'SQ':>7}{'RQ':>7}{'N':>6}"]
    for name, *numbers in rows:
        if not numbers:
            lines.append(name)
            continue
        *numbers, count = numbers
        cells = [f"{100 * number:.1f}" if number >= 0 else "-" for number in numbers]
        lines.append(f"{fit(name, width - 1)} {cells[0]:>6}{cells[1]:>7}{cells[2]:>7}{count:>6}".rstrip())
    return "\n".join(lines + notes)


def _write(predictions: list[Prediction], folder: Path) -> dict[str, Any]:
    """Write the PNG files and predictions.json (https://cocodataset.org/#format-results); returns its content."""
    folder.mkdir(parents=True, exist_ok=True)
    for prediction in predictions:
        (folder / prediction["file_name"]).write_bytes(prediction["png_string"])
    keys = ("image_id", "file_name", "segments_info")
    content = {"annotations": [{key: prediction[key] for key in keys} for prediction in predictions]}
    write_json(folder / "predictions.json", content)
    return content
