"""The evaluation of a model on one data set: outputs in, COCO's numbers and panoptic quality out."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from pycocotools.coco import COCO
from torch import Tensor, nn

from evaluation.coco_eval import CocoEvaluator
from evaluation.crowding import more_than_the_queries
from evaluation.panoptic_eval import PanopticEvaluator
from util.dist import is_main_process
from util.logging import get_logger

COCO_STATS = {"bbox": "coco_eval_bbox", "segm": "coco_eval_masks"}  # kind → name in the stats and log.txt
MAX_DETS = 100  # COCO's rule
PANOPTIC_STATS = {"PQ_all": "All", "PQ_th": "Things", "PQ_st": "Stuff"}  # name in the stats → group of the evaluator


class Evaluation:
    """The evaluation of a model on one data set; built once and used after every epoch.

        evaluation.reset()
        evaluation.update(outputs, targets, padded_size)    # for each batch
        stats = evaluation.finish()

    The ground truth is read, checked and prepared once, for all evaluations.

    Args:
        postprocessors: `bbox` turns outputs into boxes; `segm` adds masks, and `panoptic` adds panoptic maps.
        base_ds: COCO's ground truth, crowds included.
        dataset: the data set that the batches come from, a `CocoPanoptic` (`ann_file`, `ann_folder`,
            `skip_bad_images`); needed for panoptic maps only.
        backend: what computes AP, see `CocoEvaluator`.
        output_dir: panoptic maps are written to `panoptic_eval/` in it; empty to write none.
        max_dets: detections per image and class that AP counts.

    Raises:
        ImportError: hotcoco is needed and cannot be used.
        OSError, ValueError: the ground truth cannot be read or evaluated.
    """

    def __init__(
        self,
        postprocessors: dict[str, nn.Module],
        base_ds: COCO,
        dataset: Any = None,
        *,
        backend: str = "auto",
        output_dir: str = "",
        max_dets: int = MAX_DETS,
    ) -> None:
        self.postprocessors = postprocessors
        self.kinds = [kind for kind in COCO_STATS if kind in postprocessors]
        self.coco = CocoEvaluator(base_ds, self.kinds, backend=backend)
        for coco_eval in self.coco.coco_eval.values():
            coco_eval.params.maxDets = [*(min(limit, max_dets) for limit in coco_eval.params.maxDets[:-1]), max_dets]
        self._queries: int | None = None  # of the model
        self._queries_told = False  # whether images with more objects than that were looked for
        self.panoptic: PanopticEvaluator | None = None
        if "panoptic" in postprocessors:
            if dataset is None:
                raise ValueError("panoptic maps are evaluated against the files of a data set: pass `dataset`")
            self.panoptic = PanopticEvaluator(
                dataset.ann_file,
                dataset.ann_folder,
                output_dir=os.path.join(output_dir, "panoptic_eval") if output_dir else "",
                allow_missing=dataset.skip_bad_images,
            )

    def reset(self) -> None:
        """Forget the predictions and results of the last evaluation, but keep the ground truth."""
        self.coco.reset()
        if self.panoptic is not None:
            self.panoptic.reset()

    def update(
        self, outputs: dict[str, Any], targets: Sequence[dict[str, Tensor]], padded_size: tuple[int, int]
    ) -> None:
        """Post-process a batch on its device and keep the results.

        Args:
            outputs: of the model.
            targets: one dict for each image, with `image_id`, `size` and `orig_size` ((height, width), without and
                before resizing).
            padded_size: (height, width) of the batch with its padding.

        Raises:
            FloatingPointError: a box or a score is not finite.
            ValueError: an image is not in the ground truth.
        """
        if "pred_logits" in outputs:
            self._queries = outputs["pred_logits"].shape[1]  # [B, Q, C+1]
        image_ids = [int(target["image_id"]) for target in targets]
        originals, sizes = (torch.stack([target[name] for target in targets]) for name in ("orig_size", "size"))
        results = self.postprocessors["bbox"](outputs, originals)  # both sizes [B, 2]
        if "segm" in self.postprocessors:
            results = self.postprocessors["segm"](results, outputs, originals, sizes, padded_size)
        self.coco.update(dict(zip(image_ids, results)))
        if self.panoptic is not None:
            maps = self.postprocessors["panoptic"](outputs, sizes, originals, padded_size)
            names = [{"image_id": image_id, "file_name": f"{image_id:012d}.png"} for image_id in image_ids]
            self.panoptic.update([name | panoptic_map for name, panoptic_map in zip(names, maps)])

    def finish(self) -> dict[str, Any]:
        """Gather the results of all processes, evaluate them and log the tables; must be called on every process.

        Returns:
            Of what is evaluated: `coco_eval_bbox` and `coco_eval_masks`, the 12 numbers of each; `PQ_all`, `PQ_th` and
            `PQ_st`, each {"pq", "sq", "rq", "n"}.

        Raises:
            ValueError: no image was passed to `update`, or panoptic predictions are missing.
        """
        self.coco.synchronize_between_processes()
        self._warn_of_few_queries()
        self.coco.accumulate()
        self.coco.summarize()
        stats: dict[str, Any] = {COCO_STATS[kind]: self.coco.coco_eval[kind].stats.tolist() for kind in self.kinds}
        if self.panoptic is not None:
            self.panoptic.synchronize_between_processes()
            results = self.panoptic.summarize()
            stats |= {name: results[group] for name, group in PANOPTIC_STATS.items()}
        return stats

    def _warn_of_few_queries(self) -> None:
        if self._queries_told or self._queries is None or not is_main_process():
            return
        self._queries_told = True
        sentence = more_than_the_queries(self.coco.coco_gt, self.coco.img_ids, self._queries)
        if sentence is not None:
            get_logger().warning(sentence)


def score(stats: Mapping[str, Any]) -> float:
    """The number that decides which checkpoint is the best: PQ if there is one, else AP of masks, else AP of boxes."""
    if "PQ_all" in stats:
        return stats["PQ_all"]["pq"]
    return stats.get("coco_eval_masks", stats["coco_eval_bbox"])[0]
