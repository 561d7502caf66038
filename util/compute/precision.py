"""The number types of a network's forward: float32 throughout, or half types where torch's autocast chooses them.

Only the forward runs in half types. Weights, gradients, optimizer and checkpoints stay float32, and matching, boxes and
losses raise what they are given to float32.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from util.files import is_count, is_number
from util.logging import get_logger

HALF_TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
CPU_INFO = Path("/proc/cpuinfo")
MAX_SKIPPED = 32  # steps in a row; each halves the scale, which starts at 2**16


class Precision:
    """The number types of a forward and, for float16, the scale of the loss.

    Small gradients vanish in float16. So the loss is multiplied by a scale before the backward, and the gradients are
    divided by it afterwards. A scale that is too large makes gradients overflow: such a step is skipped and halves the
    scale, 2000 steps without an overflow double it (`torch.amp.GradScaler`). Whether a step is skipped is decided by
    the gradient's norm, which the caller reads anyway, so that the host waits for the device no more often than in
    float32, except in the skipped steps.

    Args:
        amp: bf16, fp16, or none for float32 throughout.
        device: where the network runs. `check_precision` says what it is good at.
    """

    def __init__(self, amp: str = "none", device: torch.device | str = "cpu"):
        self.dtype, self.device = HALF_TYPES.get(amp), torch.device(device)
        self._scaler = torch.amp.GradScaler(self.device.type) if amp == "fp16" else None
        self._skipped = 0  # steps in a row

    def autocast(self) -> AbstractContextManager[None]:
        """The context of a forward."""
        return nullcontext() if self.dtype is None else torch.autocast(self.device.type, self.dtype)

    def scale(self, loss: Tensor) -> Tensor:
        """The loss to call `backward` on."""
        return loss if self._scaler is None else self._scaler.scale(loss)

    def unscale(self, optimizer: torch.optim.Optimizer) -> None:
        """Make the gradients those of the loss itself; once, after the last `backward` before a step."""
        if self._scaler is not None:
            self._scaler.unscale_(optimizer)

    def accepts(self, loss: float, grad_norm: float) -> bool:
        """Whether the optimizer is to take the step, once for each `unscale`; sets the scale of the next step.

        Args:
            loss: without the scale.
            grad_norm: of the unscaled gradients. Both are equal on all processes.

        Raises:
            FloatingPointError: the loss is not finite; or the norm is not, and a smaller scale cannot help: there is
                none, or each of the last steps has lowered it.
        """
        numbers = f"the loss is {loss}, the gradient's norm {grad_norm}"
        if not math.isfinite(loss):
            raise FloatingPointError(numbers)
        finite = math.isfinite(grad_norm)
        if self._scaler is None:
            if not finite:
                raise FloatingPointError(numbers)
            return True
        self._skipped = 0 if finite else self._skipped + 1
        self._scaler.update()
        if not finite:
            scale = f"{self._scaler.get_scale():g}"
            if self._skipped > MAX_SKIPPED:
                raise FloatingPointError(
                    f"{numbers} in {self._skipped} steps in a row, with the loss scaled by {scale}"
                )
            get_logger().info(f"a gradient overflows: this step is skipped, and the loss of the next scaled by {scale}")
        return finite

    def state_dict(self) -> dict[str, Any] | None:
        """What a resumed run continues from; None without a scale."""
        return None if self._scaler is None else {**self._scaler.state_dict(), "skipped": self._skipped}

    def load_state_dict(self, state: Mapping[str, Any] | None) -> None:
        """Continue from the result of `state_dict`; None, of a run without a scale, changes nothing.

        Raises:
            ValueError: names the entry that cannot be used.
        """
        if self._scaler is None or state is None:
            return
        for name, value in self._scaler.state_dict().items():
            found = state.get(name)
            fits = is_count(found) if isinstance(value, int) else is_number(found) and 0 < found < math.inf
            if not fits:
                raise ValueError(f"{name} of the loss's scale is {found!r:.80}")
        self._scaler.load_state_dict(dict(state))
        self._skipped = state["skipped"] if is_count(state.get("skipped")) else 0


FLOAT32 = Precision()


def check_precision(amp: str, device: torch.device) -> None:
    """Refuse a type that `device` has no arithmetic for, and warn of one that it emulates.

    Raises:
        ValueError: names the device and what to pass instead.
    """
    if amp == "none":
        return
    if not torch.amp.is_autocast_available(device.type):
        raise ValueError(f"--amp {amp}: torch has no mixed precision for {device.type}: pass --amp none")
    if device.type == "cpu" and amp == "fp16" and not _processor_has("avx512_fp16", "amx_fp16", "fp16_arith"):
        raise ValueError("--amp fp16: this processor has no float16 arithmetic: pass --amp none, or use a cuda device")
    if device.type == "cpu" and amp == "bf16" and not _processor_has("avx512_bf16", "amx_bf16", "bf16"):
        get_logger().warning(
            "--amp bf16: bfloat16 is emulated on this processor: about 5 times slower than float32 (18 against "
            "119 GFLOP/s on an AVX2 processor); pass --amp none"
        )
    if device.type == "cuda" and amp == "bf16" and not torch.cuda.is_bf16_supported(including_emulation=False):
        get_logger().warning(
            f"--amp bf16: bfloat16 is emulated on {torch.cuda.get_device_name(device)}, which is slow; it has float16: "
            "pass --amp fp16"
        )


def _processor_has(*features: str) -> bool:
    if hasattr(torch.cpu, "get_capabilities"):
        found = {name for name, has in torch.cpu.get_capabilities().items() if has is True}
    else:  # before torch 2.10; Linux calls the features the same
        found = set(CPU_INFO.read_text().split()) if CPU_INFO.is_file() else set()
    return not found.isdisjoint(features)
