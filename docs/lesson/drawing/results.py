"""Figures of the chapters on results: scores, attention maps, masks."""

from __future__ import annotations

import contextlib
import io
from functools import cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image
from pycocotools.coco import COCO
from torch import Tensor

from datasets.coco import make_coco_transforms
from datasets.shapes import draw_sample
from docs.lesson.drawing.look import BLUE, COLORS, FAINT, GREEN, GREY, HEAT, INK, ORANGE, RED, blank, card, figure
from evaluation.coco_eval import CocoEvaluator
from models.attention_maps import AttentionMaps, record_attention
from models.load import Detector, load_detector
from prediction.attention_pictures import heat_over
from util.nested_tensor import nested_tensor_from_tensor_list

SIZE = 96  # pixels of an image
PLACES = 6  # of the feature map, in each direction
CLASS_COLORS = {1: RED, 2: BLUE, 3: ORANGE, 4: GREEN, 5: COLORS[5], 6: COLORS[4]}

Sample = tuple[Image.Image, dict[str, Tensor]]


@cache
def _detector(name: str) -> Detector:
    return load_detector(f"weights/{name}.pth", "cpu")


@cache
def _samples(count: int) -> tuple[list[Sample], Tensor]:
    """Pictures of the validation split with their targets, and the model's input [count, 3, SIZE, SIZE]."""
    transform = make_coco_transforms("val", val_size=SIZE, max_size=SIZE)
    samples = [draw_sample(index) for index in range(count)]
    return samples, torch.stack([transform(image, None)[0] for image, _ in samples])


@torch.no_grad()
def _results(detector: Detector, images: Tensor) -> list[dict[str, Tensor]]:
    return detector.postprocessors["bbox"](detector.model(images), torch.tensor([(SIZE, SIZE)] * len(images)))


def _deaf_results(detector: Detector, images: Tensor) -> list[dict[str, Tensor]]:
    """What is detected if the decoder's queries do not attend to each other."""
    layers = detector.model.transformer.decoder.layers
    silent = [
        layer.self_attn.register_forward_hook(lambda module, inputs, output: (torch.zeros_like(output[0]), None))
        for layer in layers
    ]
    results = _results(detector, images)
    for hook in silent:
        hook.remove()
    return results


def _precision(results: list[dict[str, Tensor]], samples: list[Sample], categories: list[dict[str, Any]]) -> np.ndarray:
    """COCO's precision [IoU thresholds, recall levels, classes]."""
    annotations = []
    for index, (_, target) in enumerate(samples):
        for (x0, y0, x1, y1), label in zip(target["boxes"].tolist(), target["labels"].tolist()):
            box = {"bbox": [x0, y0, x1 - x0, y1 - y0], "area": (x1 - x0) * (y1 - y0), "iscrowd": 0}
            annotations.append({"id": len(annotations) + 1, "image_id": index, "category_id": label, **box})
    truth = COCO()
    images = [{"id": index, "width": SIZE, "height": SIZE} for index in range(len(samples))]
    truth.dataset = {"images": images, "categories": categories, "annotations": annotations}
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
    evaluator = CocoEvaluator(truth, ["bbox"])
    evaluator.update(dict(enumerate(results)))
    evaluator.accumulate()
    return evaluator.coco_eval["bbox"].eval["precision"][..., 0, -1]


def _picture(axes: Axes, image: Image.Image | np.ndarray, **options: Any) -> None:
    blank(axes).imshow(image, extent=(0, SIZE, SIZE, 0), **options)


def _box(axes: Axes, box: Tensor, color: str, width: float = 1.8) -> None:
    x0, y0, x1, y1 = box.tolist()
    for edge, line in ((INK, width + 1.4), (color, width)):
        axes.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor=edge, linewidth=line))


# --- 13: scores -----------------------------------------------------------------------------------------------------


@figure("scores-precision-recall")
def precision_recall() -> Figure:
    """Left: hit, miss, hit, miss of three objects. Right: the triangles at two IoU thresholds."""
    sheet, (left, right) = card(7.6, 3.0, 1, 2, sharey=True)
    hits = np.array([1, 0, 1, 0])
    recall, precision = np.cumsum(hits) / 3, np.cumsum(hits) / np.arange(1, 5)
    left.fill_between([0, 1 / 3, 1 / 3, 2 / 3, 2 / 3, 1], [1, 1, 2 / 3, 2 / 3, 0, 0], color=FAINT)
    left.plot([0, 1 / 3, 1 / 3, 2 / 3, 2 / 3, 1], [1, 1, 2 / 3, 2 / 3, 0, 0], color=BLUE, linewidth=2, zorder=3)
    left.plot(recall, precision, color=GREY, linewidth=1, linestyle=":", zorder=2)
    for number, (x, y, hit) in enumerate(zip(recall, precision, hits), start=1):
        left.plot(x, y, "o" if hit else "X", color=GREEN if hit else RED, markersize=9, zorder=4, clip_on=False)
        left.annotate(str(number), (x, y), (7, 4), textcoords="offset points", color=INK)
    left.set_xticks([0, 1 / 3, 2 / 3, 1], ["0", "1/3", "2/3", "1"])
    left.set_yticks([0, 1 / 2, 2 / 3, 1], ["0", "1/2", "2/3", "1"])

    detector, (samples, images) = _detector("detr_tiny_shapes"), _samples(40)
    curves = _precision(_results(detector, images), samples, detector.categories)
    levels = np.linspace(0, 1, 101)
    for threshold, color in ((0, BLUE), (5, ORANGE)):
        right.plot(levels, curves[threshold, :, 2], color=color, linewidth=2, label=f"{0.5 + 0.05 * threshold:.2f}")
        right.fill_between(levels, curves[threshold, :, 2], color=color, alpha=0.12, linewidth=0)
    right.set_xticks([0, 0.5, 1])
    right.legend(loc="lower left")
    for axes in (left, right):
        axes.set(xlim=(0, 1.03), ylim=(0, 1.08), xlabel="R")
    left.set_ylabel("P")
    return sheet


@figure("scores-duplicates")
def duplicates() -> Figure:
    """Boxes above 0.5 of four pictures; above as trained, below without attention among the queries."""
    detector, (samples, images) = _detector("detr_tiny_shapes"), _samples(40)
    both = _results(detector, images), _deaf_results(detector, images)
    counts = [[int((result["scores"] > 0.5).sum()) for result in results] for results in both]
    objects = [len(target["labels"]) for _, target in samples]
    clear = [index for index in range(40) if counts[0][index] == objects[index] > 1]
    shown = sorted(clear, key=lambda index: counts[0][index] - counts[1][index])[:5]
    sheet, axes = card(7.0, 2.9, 2, 5)
    for row, results in enumerate(both):
        for column, index in enumerate(shown):
            panel, result = axes[5 * row + column], results[index]
            _picture(panel, samples[index][0])
            for place in result["scores"].argsort().tolist():
                if result["scores"][place] > 0.5:
                    _box(panel, result["boxes"][place], CLASS_COLORS[int(result["labels"][place])], 1.5)
    return sheet


# --- 14: attention maps ---------------------------------------------------------------------------------------------


@cache
def _attention(count: int) -> tuple[AttentionMaps, list[dict[str, Tensor]], Tensor]:
    """The maps, the detections, and the score of the best shape of every query [count, Q]."""
    detector, (_, images) = _detector("detr_tiny_shapes_panoptic"), _samples(count)
    with torch.no_grad(), record_attention(detector.model) as maps:
        outputs = detector.model(images)
    results = detector.postprocessors["bbox"](outputs, torch.tensor([(SIZE, SIZE)] * count))
    return maps, results, outputs["pred_logits"].softmax(-1)[..., 1:4].amax(-1)


@figure("attention-sheet")
def attention_maps() -> Figure:
    """For three pictures: what was found, three maps of the decoder, two of the encoder."""
    (samples, _), (maps, results, scores) = _samples(24), _attention(24)
    shown = [index for index in range(24) if (scores[index] > 0.9).sum() >= 3][:3]
    sheet, axes = card(6.8, 3.5, 3, 6)
    for row, index in enumerate(shown):
        panels, image = axes[6 * row : 6 * row + 6], samples[index][0]
        queries = scores[index].argsort(descending=True)[:3].tolist()
        boxes = results[index]["boxes"]
        _picture(panels[0], image)
        for query, color, panel in zip(queries, (RED, BLUE, ORANGE), panels[1:4]):
            _box(panels[0], boxes[query], color, 1.5)
            _picture(panel, heat_over(image, maps.decoder[-1][index, query]))
            _box(panel, boxes[query], color, 1.5)
        for query, panel in zip(queries, panels[4:]):
            x, y = ((boxes[query][:2] + boxes[query][2:]) / 2).tolist()
            place = int(y * PLACES / SIZE), int(x * PLACES / SIZE)
            _picture(panel, heat_over(image, maps.encoder[-1][index, place[0], place[1]]))
            panel.plot(x, y, "o", markersize=7, markerfacecolor="none", markeredgecolor="white", markeredgewidth=1.6)
    return sheet


@figure("attention-effect")
def attention_and_effect() -> Figure:
    """A picture and its box, the query's map, what covering each place does to the box, and the mask."""
    detector, (samples, images) = _detector("detr_tiny_shapes_panoptic"), _samples(24)
    maps, results, scores = _attention(24)
    with torch.no_grad():
        outputs = detector.model(images[:8])
    sheet, axes = card(7.6, 3.9, 2, 4)
    for row, index in enumerate((1, 4)):
        panels, query = axes[4 * row : 4 * row + 4], int(scores[index].argmax())
        covered = images[index].repeat(PLACES**2, 1, 1, 1)
        for place in range(PLACES**2):
            y, x = (16 * part for part in divmod(place, PLACES))
            covered[place, :, y : y + 16, x : x + 16] = 0
        with torch.no_grad():
            boxes = detector.model.detr(covered)["pred_boxes"][:, query]
        effect = (boxes - outputs["pred_boxes"][index, query]).abs().sum(-1).unflatten(0, (PLACES, PLACES))
        mask = F.interpolate(outputs["pred_masks"][index, query][None, None], size=(SIZE, SIZE), mode="bilinear")[0, 0]
        _picture(panels[0], samples[index][0])
        _picture(panels[1], maps.decoder[-1][index, query].numpy(), cmap=HEAT)
        _picture(panels[2], effect.numpy(), cmap=HEAT)
        _picture(panels[3], (mask > 0).numpy(), cmap=HEAT)
        for panel in panels:
            _box(panel, results[index]["boxes"][query], RED, 1.5)
    return sheet


# --- 15: masks ------------------------------------------------------------------------------------------------------


@figure("masks-ladder")
@torch.no_grad()
def ladder() -> Figure:
    """Above: a picture and the eight attention maps of two queries. Below: the mask of the first of them with 0 to 3
    levels, and the true one."""
    detector, (samples, images) = _detector("detr_tiny_shapes_panoptic"), _samples(8)
    model, index, queries = detector.model, 0, (9, 1)
    found = model.detr.detect(nested_tensor_from_tensor_list(images[[index]]))
    attention = model.bbox_attention(found.queries, found.memory, found.mask)
    levels = [found.features[i].tensors for i in (2, 1, 0)]
    sheet = Figure((7.6, 3.7), layout="constrained")
    above, below = sheet.subfigures(2, 1, height_ratios=(2, 1.65))
    panels = list(above.subplots(2, 9).flat)
    for row, query in enumerate(queries):
        _picture(panels[9 * row], samples[index][0])
        for panel, weights in zip(panels[9 * row + 1 : 9 * row + 9], attention[0, query]):
            _picture(panel, weights.numpy(), cmap=HEAT, vmin=0, vmax=float(attention[0, query].max()))
    for panel, query in zip(panels[::9], queries):
        box = found.outputs["pred_boxes"][0, query]
        _box(panel, SIZE * torch.cat([box[:2] - box[2:] / 2, box[:2] + box[2:] / 2]), RED, 1.2)
    panels = list(below.subplots(1, 5))
    for count, panel in enumerate(panels[:4]):
        finer = [level * (number < count) for number, level in enumerate(levels)]
        logits = model.mask_head(found.projected, attention, finer)[queries[0], 0]  # [H/4, W/4]
        _picture(panel, logits.sigmoid().numpy(), cmap=HEAT, vmin=0, vmax=1)
    truth = samples[index][1]
    _picture(panels[4], truth["masks"][int((truth["labels"] == 3).nonzero()[0])].numpy(), cmap=HEAT)
    return sheet


@figure("masks-panoptic")
def panoptic() -> Figure:
    """Two pictures, their masks above 0.5, and their panoptic maps."""
    detector, (samples, images) = _detector("detr_tiny_shapes_panoptic"), _samples(8)
    with torch.no_grad():
        outputs = detector.model(images)
    postprocess = detector.postprocessors["panoptic"]
    maps = postprocess(outputs, [(SIZE, SIZE)] * 8)
    labels, kept = postprocess.kept(outputs["pred_logits"])
    sheet, axes = card(7.6, 1.3, 1, 6)
    for number, index in enumerate((0, 4)):
        panels = axes[3 * number : 3 * number + 3]
        own = F.interpolate(outputs["pred_masks"][[index]][:, kept[index]], size=(SIZE, SIZE), mode="bilinear")[0] > 0
        ids = np.asarray(Image.open(io.BytesIO(maps[index]["png_string"])))[..., 0]
        segments = {segment["id"]: segment["category_id"] for segment in maps[index]["segments_info"]}
        masks = [(mask.numpy(), label) for mask, label in zip(own, labels[index][kept[index]].tolist())]
        _picture(panels[0], samples[index][0])
        _picture(panels[1], _painted(masks))
        _picture(panels[2], _painted([(ids == key, label) for key, label in segments.items()]))
    return sheet


def _painted(masks: list[tuple[np.ndarray, int]]) -> np.ndarray:
    """Masks with the colours of their classes; white where there is none."""
    canvas = np.ones((SIZE, SIZE, 3))
    for mask, label in masks:
        canvas[mask] = to_rgb(CLASS_COLORS[label])
    return canvas
