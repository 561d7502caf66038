"""The network compiled into fused kernels by `torch.compile` (`--compile`)."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys

import torch
from torch import nn

BACKEND = "inductor"


def compiled(model: nn.Module, wanted: bool) -> nn.Module:
    """`model`, wrapped so that its forward and backward are compiled at the first call; unchanged if not `wanted`.

    Batches differ in size, so the heights, widths and numbers of images are variables of the compiled code from the
    first batch on. It is compiled again only for another mode (training, evaluation), for a batch of one image, and for
    other types under autocast.

    The weights are those of `model`, whose `state_dict` keeps its names; the wrapper's have a prefix. Several processes
    wrap the compiled model in DistributedDataParallel. The graph is not cut where they exchange gradients, since torch
    (2.14) cannot do that where sizes are variables: so they exchange them after the backward, not during it.

    A module's class may name methods in `never_compiled` that run as they are.
    """
    if not wanted:
        return model
    import torch._dynamo
    from torch.fx.experimental import _config

    torch._dynamo.config.optimize_ddp = False
    _config.use_duck_shape = False  # if the first batch is square, height and width are variables of their own still
    for module in model.modules():
        for name in getattr(module, "never_compiled", ()):
            torch.compiler.disable(getattr(type(module), name), recursive=False)  # what it calls is compiled
    return torch.compile(model, backend=BACKEND, dynamic=True)


def check_compiler(device: torch.device) -> None:
    """Refuse `--compile` where torch finds none of the programs that it calls.

    Raises:
        ValueError: names what is missing and how to install it.
    """
    if BACKEND != "inductor":
        return
    if device.type == "cuda" and importlib.util.find_spec("triton") is None:
        raise ValueError(
            "--compile needs the package triton on cuda: install it (pip install triton), or omit --compile"
        )
    variable, usual = _compiler(device.type)
    named = os.environ.get(variable)
    if not any(shutil.which(name) for name in ([named] if named else usual)):
        missing = f"there is no {named}, which the variable {variable} names" if named else f"there is no {usual[0]}"
        language = "C" if variable == "CC" else "C++"
        raise ValueError(
            f"--compile needs a {language} compiler, and {missing}: install one (such as apt install g++), name it in "
            f"{variable}, or omit --compile"
        )


def _compiler(device_type: str) -> tuple[str, list[str]]:
    """(the variable that names the compiler, the programs that torch looks for without it)."""
    if sys.platform == "win32":
        return "CXX", ["cl"]
    if device_type == "cuda":  # triton compiles its launchers
        return "CC", ["gcc", "clang", "cc"]
    return "CXX", ["clang++"] if sys.platform == "darwin" else ["g++"]
