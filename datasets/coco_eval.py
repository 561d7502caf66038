"""The published import path of the COCO evaluator."""

from evaluation.coco_eval import CocoEvaluator
from evaluation.detections import convert_to_xywh

__all__ = ["CocoEvaluator", "convert_to_xywh"]
