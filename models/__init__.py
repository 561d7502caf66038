"""The detector and its parts; `build_model(args)` puts them together."""

from __future__ import annotations

import argparse

from torch import nn

from models.detr import build


def build_model(args: argparse.Namespace) -> tuple[nn.Module, nn.Module, dict[str, nn.Module]]:
    """(model, criterion, postprocessors) of the command line; see `models.detr.build`."""
    return build(args)
