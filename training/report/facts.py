"""What a run is, for its report: command, settings, data, versions; kept in `eval/run.json`."""

from __future__ import annotations

import argparse
import platform
import shlex
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from datasets.annotated_images import AnnotatedImages
from datasets.loader import fingerprint
from util.dist import get_world_size
from util.logging import get_sha
from util.settings import SETTINGS

COMMANDS = ("main.py", "run_with_submitit.py")
PACKAGES = ("torch", "numpy", "pillow", "pycocotools", "hotcoco", "scipy")


def settings_of(args: argparse.Namespace) -> dict[str, Any]:
    """The settings by name, as plain data."""
    found = {name: getattr(args, name) for name in SETTINGS if hasattr(args, name)}
    return {name: value if _is_plain(value) else str(value) for name, value in found.items()}


def command_of(settings: dict[str, Any]) -> str:
    """A command that sets what differs from the defaults."""
    words = ["python", "main.py"]
    for name, value in settings.items():
        setting = SETTINGS[name]
        if value == setting.default:
            continue
        words.append(f"--{setting.flag or name}")
        if not isinstance(setting.default, bool):
            words += [f"{v:g}" if isinstance(v, float) else str(v) for v in (value if _is_list(value) else [value])]
    return shlex.join(words)


def typed_command() -> str | None:
    """The command line of this process; None if it is not one of ours, such as in a notebook."""
    return shlex.join(["python", *sys.argv]) if Path(sys.argv[0]).name in COMMANDS else None


def data_of(dataset: AnnotatedImages, known_fingerprint: str = "") -> dict[str, Any]:
    """Where a data set lies, how large it is, and its fingerprint, see `datasets.loader.fingerprint`."""
    return {
        "images": len(dataset.ids),
        "objects": int(dataset.objects_per_image.sum()),
        "classes": len(dataset.categories),
        "folder": str(dataset.img_folder),
        "annotations": str(getattr(dataset, "ann_file", "")),
        "fingerprint": known_fingerprint or fingerprint(dataset),
    }


def versions(device: str) -> dict[str, Any]:
    """Of Python and the packages that decide the numbers; the machine and the state of the checkout."""
    found: dict[str, Any] = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    on_gpu = device.startswith("cuda") and torch.cuda.is_available()
    return found | {
        "system": platform.platform(),
        "device": f"{device} ({torch.cuda.get_device_name(torch.device(device))})" if on_gpu else device,
        "threads": torch.get_num_threads(),
        "processes": get_world_size(),
        "git": get_sha(),
    }


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple)


def _is_plain(value: Any) -> bool:
    if _is_list(value):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, bool | int | float | str)
