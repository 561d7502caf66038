"""The network, its matching, its losses and its post-processing; `build_model(args)` builds them all."""

from __future__ import annotations

import argparse

from torch import nn

from models.detr import build


def build_model(args: argparse.Namespace) -> tuple[nn.Module, nn.Module, dict[str, nn.Module]]:
    """(model, criterion, postprocessors) for the command line's settings, see `models.detr.build`."""
    return build(args)
