"""The network, its matching, its losses and its post-processing; `build_model` builds them all."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import wraps
from typing import Any

from torch import nn

from models.detr import build
from util.arguments import check_detector
from util.flags.keywords import args_of

Parts = tuple[nn.Module, nn.Module, dict[str, nn.Module]]


def _or_settings(function: Callable[[argparse.Namespace], Parts]) -> Callable[..., Parts]:
    """Let a function of parsed settings take keywords instead; its signature stays the published one."""

    @wraps(function)
    def build_from(args: argparse.Namespace | None = None, **settings: Any) -> Parts:
        if args is None:
            args = args_of(settings)
            check_detector(args)
        elif settings:
            raise TypeError(f"build_model takes args or keywords, not both: set args.{next(iter(settings))} instead")
        return function(args)

    return build_from


@_or_settings
def build_model(args: argparse.Namespace) -> Parts:
    """(model, criterion, postprocessors) for the command line's settings, see `models.detr.build`.

    Args:
        args: all settings, as parsed. Instead of them, keywords give those that differ from the defaults, named as the
            flags are: `build_model(num_classes=7, backbone="resnet18", backbone_weights="none")`.

    Raises:
        TypeError: both, or a setting that does not exist.
        ValueError: a value that the flag does not take, or settings that cannot be combined.
    """
    return build(args)
