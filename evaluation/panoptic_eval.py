"""Panoptic predictions in, panoptic quality out (PQ = SQ · RQ; Kirillov et al. 2019, paper section 4.4).

Predictions are kept in the official format, PNG bytes beside their segments, gathered on the main process and evaluated
there once at the end by hotcoco, which gives COCO's own numbers. Definitions: https://cocodataset.org/#panoptic-eval.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from datasets.annotations.panoptic import read_panoptic
from datasets.annotations.rules import Annotation, some
from datasets.coco_panoptic import check_maps
from evaluation import hotcoco
from evaluation.panoptic_predictions import Prediction, check_prediction, without_unknown
from util.dist import gather_to_main, run_on_main
from util.files import write_json
from util.logging import get_logger

GROUPS = ("All", "Things", "Stuff")


class PanopticEvaluator:
    """Collects a model's panoptic predictions and evaluates them as COCO does.

        evaluator.update(predictions)                   # for each batch
        evaluator.synchronize_between_processes()
        results = evaluator.summarize()
        results["All"]["pq"]                            # 0 to 1

    An image given again (a distributed sampler repeats some) counts once: the first one stays, lower ranks first. An
    image of which nothing was recognised has an all-zero PNG and no segments. Segments of categories that the ground
    truth does not have never match nor count; their pixels are taken for void.

    `synchronize_between_processes` gives all predictions to the main process. From then on it alone evaluates, and
    `summarize` is to be called on every process: the others wait and get the same results. Without it each process
    evaluates what it has been given.

    Segment ids are taken as COCO's evaluation takes them: those of predictions may begin at 0, which is then a segment
    like any other, though its pixels cannot be told from void ones.

    Args:
        ann_file: the panoptic JSON file of the ground truth.
        ann_folder: of its PNG files.
        output_dir: where `summarize` leaves the predictions in COCO's results format, a PNG for each image and
            predictions.json, and what came out, quality.json. Empty or None: nowhere.
        allow_missing: leave images without prediction out, with a warning, where `summarize` would refuse them.

    Raises:
        ImportError: hotcoco, which pycocotools cannot stand in for here, cannot be used.
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
        reason = hotcoco.reason_to_do_without()
        if reason is not None:
            raise ImportError(f'{reason}: panoptic quality needs it, run pip install "{hotcoco.REQUIREMENT}"')
        self.ann_folder = Path(ann_folder)
        self.output_dir = Path(output_dir) if output_dir else None
        self.allow_missing = allow_missing
        self.ground_truth = read_panoptic(ann_file)
        check_maps(self.ann_folder, [a["file_name"] for a in self.ground_truth.annotations.values()])
        self._category_ids = {category["id"] for category in self.ground_truth.categories}
        self.reset()

    def reset(self) -> None:
        """Forget all predictions and results; the ground truth stays."""
        self.results: dict[str, Any] | None = None
        self._predictions: dict[int, Prediction] = {}
        self._gathered = False
        self._warned_of_unknown = False

    def update(self, predictions: Iterable[Mapping[str, Any]]) -> None:
        """Take the predictions of some images, see `check_prediction`; they stay as they are.

        Raises:
            ValueError: a prediction that does not fit its image.
        """
        for given in predictions:
            if int(given["image_id"]) in self._predictions:
                continue
            checked = check_prediction(given, self.ground_truth.images)
            kept = without_unknown(checked, self._category_ids)
            if kept is not checked and not self._warned_of_unknown:
                self._warned_of_unknown = True
                get_logger().warning(
                    f"image {kept['image_id']} has predicted segments of categories that the ground truth does not "
                    "have: they do not count (said once)"
                )
            self._predictions[kept["image_id"]] = kept

    def synchronize_between_processes(self) -> None:
        """Give the main process the predictions of all; to be called on every process."""
        shares = gather_to_main(list(self._predictions.values()))
        self._gathered = True
        self._predictions = {}
        for share in shares or ():
            for prediction in share:
                self._predictions.setdefault(prediction["image_id"], prediction)

    def summarize(self) -> dict[str, Any]:
        """Evaluate, log the tables of groups and categories, and leave the predictions in `output_dir`.

        Where that cannot be written to, it is said, and the numbers come out all the same.

        Returns:
            "All", "Things", "Stuff": {"pq", "sq", "rq", "n"}, means over the n categories that occur in the ground
            truth or the predictions; "per_class": the same of each category id, with "iou" (sum over the matches),
            "tp", "fp", "fn". -1 stands for "nothing to measure". Kept as `results`.

        Raises:
            ValueError: images have no prediction, two share a file name, or a PNG contradicts its segments.
            OSError: not even temporary files can be written.
        """
        self.results = run_on_main(self._summarize) if self._gathered else self._summarize()
        return self.results

    def per_class(self) -> list[dict[str, Any]]:
        """Dicts of id, name, isthing, and PQ, SQ, RQ, by ascending id; -1 where there was nothing to measure.

        Raises:
            ValueError: `summarize` has not been called.
        """
        if self.results is None:
            raise ValueError("there are no numbers yet: call summarize() first")
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
            twice = next(name for name in names if names.count(name) > 1)
            raise ValueError(f"several predictions have the file_name {twice}: every image needs its own")
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
                get_logger().error(f"panoptic maps are not kept, {folder} cannot be written to: {error}")
                folder = Path(scratch)
                written = _write(predictions, folder)
            self.results = hotcoco.panoptic_quality(truth, written, self.ann_folder, folder)
            groups = {name: self.results[name] for name in GROUPS}
            write_json(folder / "quality.json", groups | {"per_class": self.per_class()})
        get_logger().info(f"Panoptic quality\n{format_panoptic(self.results, self.per_class())}")
        return self.results

    def _annotations_to_evaluate(self) -> list[Annotation]:
        """Those of images with a prediction, in the file's order, which fixes the order of all sums."""
        annotations = self.ground_truth.annotations
        without = [str(image_id) for image_id in annotations if image_id not in self._predictions]
        if without and (not self.allow_missing or not self._predictions):
            raise ValueError(
                f"{len(without)} of {len(annotations)} images have no prediction (image {some(without)}): call "
                "update() for every image of the ground truth, with no segments where nothing was recognised"
            )
        if without:
            get_logger().warning(f"evaluated without {len(without)} images that have no prediction ({some(without)})")
        return [annotation for image_id, annotation in annotations.items() if image_id in self._predictions]


def format_panoptic(results: Mapping[str, Any], per_class: Iterable[Mapping[str, Any]] = ()) -> str:
    """What `summarize` and `per_class` return as a table in per cent; a dash where there was nothing to measure."""
    rows = [(name, *(results[name][key] for key in ("pq", "sq", "rq")), results[name]["n"]) for name in GROUPS]
    rows += [(row["name"], *(row[key] for key in ("PQ", "SQ", "RQ")), "") for row in per_class]
    width = max(8, *(len(name) for name, *_ in rows)) + 1
    lines = [f"{'':<{width}}{'PQ':>6}{'SQ':>7}{'RQ':>7}{'N':>6}"]
    for name, *numbers, count in rows:
        cells = [f"{100 * number:.1f}" if number >= 0 else "-" for number in numbers]
        lines.append(f"{name:<{width}}{cells[0]:>6}{cells[1]:>7}{cells[2]:>7}{count:>6}".rstrip())
    return "\n".join(lines)


def _write(predictions: list[Prediction], folder: Path) -> dict[str, Any]:
    """The PNG files and predictions.json, https://cocodataset.org/#format-results; returns the latter's content."""
    folder.mkdir(parents=True, exist_ok=True)
    for prediction in predictions:
        (folder / prediction["file_name"]).write_bytes(prediction["png_string"])
    keys = ("image_id", "file_name", "segments_info")
    content = {"annotations": [{key: prediction[key] for key in keys} for prediction in predictions]}
    write_json(folder / "predictions.json", content)
    return content
