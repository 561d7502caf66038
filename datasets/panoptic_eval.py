"""The published import path of the panoptic evaluator."""

from evaluation.panoptic_eval import PanopticEvaluator

__all__ = ["PanopticEvaluator"]
