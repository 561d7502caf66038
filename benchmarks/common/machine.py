"""The machine and the software that a measurement was made with."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path

PACKAGES = ("torch", "torchvision", "transformers", "timm", "onnxruntime", "openvino", "numpy", "scipy", "pycocotools")
FEATURES = (  # of x86 and of Arm processors; those that decide how fast matrix products are
    *("avx2", "fma", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_bf16", "amx_int8", "avx512_fp16"),
    *("asimd", "asimdhp", "sve", "bf16", "i8mm"),
)
BFLOAT16 = {"avx512_bf16", "amx_bf16", "bf16"}


def describe_machine() -> dict[str, object]:
    """Processor with its features, cores, memory, system, Python and packages."""
    return {
        "processor": processor_name(),
        "features": [name for name in FEATURES if name in processor_features()],
        "cores": usable_cores(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": versions(),
    }


def usable_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processor_name() -> str:
    """The name that the processor gives itself; with family and model, where the name says little."""
    found = _cpu_info()
    name = found.get("model name") or platform.processor() or platform.machine()
    where = [f"{key} {found[key]}" for key in ("cpu family", "model", "stepping") if key in found]
    return f"{name} ({', '.join(where)})" if where else name


def processor_features() -> set[str]:
    """Names of all instruction sets."""
    found = _cpu_info()
    return set((found.get("flags") or found.get("Features") or "").split())


def has_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16 numbers itself."""
    return bool(BFLOAT16 & processor_features())


def versions() -> dict[str, str]:
    """Package → version, of those that are installed."""
    return {name: version for name in PACKAGES if (version := package_version(name))}


def package_version(name: str) -> str | None:
    """The version of a package, without importing it; None if it is not installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _cpu_info() -> dict[str, str]:
    """The entries of the first processor in /proc/cpuinfo."""
    try:
        first = Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n\n")[0]
    except OSError:
        return {}
    pairs = (line.split(":", 1) for line in first.splitlines() if ":" in line)
    return {key.strip(): value.strip() for key, value in pairs}
