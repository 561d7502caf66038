"""The published import path of the plots of training and evaluation."""

from util.pictures.run_curves import plot_logs, plot_precision_recall

__all__ = ["plot_logs", "plot_precision_recall"]
