"""Which parts of a ResNet may run with their frozen norms folded into the convolutions, see `models.fast.conv_norm`.

Folding pays on a CPU. A GPU waits for Python at the usual sizes, and the plain form gives it fewer operations.
"""

from __future__ import annotations

import torch
from torch import nn

from models.frozen_batch_norm import FrozenBatchNorm2d

KNOWN = (nn.Conv2d, nn.ReLU, nn.Sequential, FrozenBatchNorm2d)


def can_fold(*parts: nn.Module) -> bool:
    """Whether the parts are known ones with frozen norms on a CPU, and no hook waits for one that the form skips."""
    modules = [module for part in parts for module in part.modules()]
    known = all(type(module) in KNOWN and is_plain(module) and not _is_watched(module) for module in modules)
    return known and all(_folds_on(module.weight.device) for module in modules if isinstance(module, nn.Conv2d))


def _folds_on(device: torch.device) -> bool:
    return device.type in ("cpu", "meta")


def is_plain(module: nn.Module) -> bool:
    """Whether a convolution, if it is one, has neither bias nor groups, and zeros as its padding."""
    if not isinstance(module, nn.Conv2d):
        return True
    return (
        module.bias is None and module.groups == 1 and module.padding_mode == "zeros" and type(module.padding) is tuple
    )


def _is_watched(module: nn.Module) -> bool:
    return bool(
        module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks
    )
