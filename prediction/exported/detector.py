"""An exported file → a detector that `Predictor` uses as it uses one of a checkpoint."""

from __future__ import annotations

import os
import zlib
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import torch
from torch import Tensor, nn

from models.load import Detector
from models.panoptic import PostProcessPanoptic
from models.postprocess import PostProcess, PostProcessSegm
from prediction.exported.about import About
from prediction.exported.forms import MIN_SIDE, OUTPUTS, SUFFIXES, Runs, load_with_entry
from prediction.exported.torch_archive import is_torch_archive
from util.compute.device import resolve_device
from util.errors import CheckpointError
from util.loading.download import download, forget
from util.loading.file_kinds import START, advice_for, kind_of
from util.loading.transfer import is_address
from util.text import printable


class ExportedModel(nn.Module):
    """A detector that another runtime computes, on the CPU, without gradients and without attention maps.

    Args:
        runs: computes the file's outputs.
        files: what it consists of.
        name: its path or address, for messages.
    """

    def __init__(self, runs: Runs, files: Sequence[Path], name: str) -> None:
        super().__init__()
        self.runs, self.files, self.name = runs, files, name

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Images [B, 3, H, W] without padding → `pred_logits`, `pred_boxes` and, with a mask head, `pred_masks`.

        Raises:
            ValueError: the images are smaller than exported files allow, or the runtime fails.
        """
        height, width = images.shape[2:]
        if min(height, width) < MIN_SIDE:
            raise ValueError(
                f"the image is {width}x{height} pixels after resizing, and an exported detector needs {MIN_SIDE} on "
                "each side: use the checkpoint for it"
            )
        try:
            return self.outputs(images)
        except MemoryError:
            raise
        except Exception as error:  # each runtime has types of its own
            raise ValueError(
                f"{self.name} cannot be run on {len(images)} x {height} x {width} pixels "
                f"({_cause(error)}): use smaller batches or images, or the checkpoint"
            ) from error

    def outputs(self, images: Tensor) -> dict[str, Tensor]:
        """As `forward`, with the runtime's own errors."""
        mask = torch.zeros(len(images), *images.shape[2:], dtype=torch.bool)
        found = self.runs(images.contiguous(), mask)
        return {f"pred_{name}": output.clone() for name, output in zip(OUTPUTS, found)}  # no tensors of inference

    def checksum(self) -> int:
        """CRC-32 of the files, to recognise the model by."""
        checksum = 0
        for path in self.files:
            with path.open("rb") as file:
                while part := file.read(2**20):
                    checksum = zlib.crc32(part, checksum)
        return checksum


def is_exported(source: str) -> bool:
    """Whether a path or an address names a file of `tools.export`: by its suffix; a .pt2 file also by its content.

    Raises:
        CheckpointError: a .pt2 file cannot be downloaded.
    """
    suffix = Path(urlsplit(source).path if is_address(source) else source).suffix.lower()
    if suffix == ".pt2":
        return is_torch_archive(download(source, "file") if is_address(source) else Path(source))
    return suffix in SUFFIXES


def load_exported(source: str, device: str | torch.device = "auto") -> tuple[Detector, dict[str, Any] | None]:
    """Load a file that `tools.export` wrote, with its classes and sizes.

    Args:
        source: a path or an http(s) address; the weights of an .xml are beside it, in the .bin of the same name.
        device: auto or cpu: the forms run on the CPU.

    Returns:
        The detector, of whose `args` only the sizes and the device exist; and the checkpoint's `thresholds` or None.

    Raises:
        CheckpointError: the file is missing, damaged or no detector, or the package that runs it is not installed.
        ValueError: another device.
    """
    if str(device) != "auto" and resolve_device(device).type != "cpu":
        raise ValueError(f"--device {device}: exported files run on the CPU here: use --device cpu, or the checkpoint")
    shown = printable(source, 500)
    path, weights = _files_of(source)
    files = [path] if weights is None else [path, weights]
    try:
        runs, entry = load_with_entry(path, torch.get_num_threads(), weights=weights)
        about = About.read(entry, shown)
        model = ExportedModel(runs, files, shown).eval()
        num_classes, has_masks = _checked(model)
    except MemoryError:
        raise
    except Exception as error:  # a damaged file can raise almost any type
        message = _explained(error, source, files)
        if not isinstance(error.__cause__, ImportError):  # of a runtime: the file is not to blame
            _forget(source)
        raise CheckpointError(message) from error
    postprocessors: dict[str, nn.Module] = {"bbox": PostProcess()}
    if has_masks:
        postprocessors["segm"] = PostProcessSegm()
        if about.things is not None:
            is_thing = {label: label in about.things for label in range(num_classes)}
            postprocessors["panoptic"] = PostProcessPanoptic(is_thing)
    args = Namespace(val_size=about.size, max_size=about.max_size, device="cpu")
    return Detector(model, postprocessors, args, about.categories()), about.thresholds


def _files_of(source: str) -> tuple[Path, Path | None]:
    """The file on this machine and, for an .xml, its weights.

    Raises:
        CheckpointError: a file is missing or cannot be downloaded.
    """
    if is_address(source):
        path, address = download(source, "exported file"), _address_of_weights(source)
        if address is None:
            return path, None
        advice = "an .xml needs its .bin beside it; download both elsewhere, and pass the path of the .xml"
        return path, download(address, "weights of the exported file", advice, named_by_hash=False)
    path = Path(source)
    files = [path, path.with_suffix(".bin")] if path.suffix.lower() == ".xml" else [path]
    for file in files:
        if not os.path.isfile(file):
            why = " (an .xml keeps its weights beside it)" if file is not path else ""
            raise CheckpointError(f"there is no file {printable(file, 500)}{why}: check the path")
    return path, files[1] if len(files) > 1 else None


def _address_of_weights(source: str) -> str | None:
    """Of the .bin beside an .xml, whose checksum the .xml has; None for another form."""
    parts = urlsplit(source)
    if not parts.path.lower().endswith(".xml"):
        return None
    return urlunsplit(parts._replace(path=f"{parts.path[:-4]}.bin"))


def _forget(source: str) -> None:
    """Let the next try download the files of an address anew."""
    if is_address(source):
        forget(source)
        weights = _address_of_weights(source)
        if weights is not None:
            forget(weights, named_by_hash=False)


def _explained(error: Exception, source: str, files: Sequence[Path]) -> str:
    """The message for a file that cannot be used: the cause, and what to do. An address takes the place of its copy."""
    names = [printable(name, 500) for name in (source, _address_of_weights(source))[: len(files)] if name]
    if isinstance(error, CheckpointError):
        message = str(error)
        for file, name in zip(files, names if is_address(source) else ()):
            message = message.replace(printable(file, 300), name)
        return message
    with files[0].open("rb") as file:
        start = file.read(START)
    kind, suffix = kind_of(start) if start else "empty", files[0].suffix.lower()
    if kind not in (None, {".xml": "XML", ".pt2": "a ZIP archive"}.get(suffix)):
        advice = f"the name of a checkpoint ends in .pth, not in {suffix}" if "ZIP" in kind else advice_for(kind)
        return f"{names[0]} is {kind.rstrip(',')}, not an exported file: {advice}"
    both = f"it and its {files[-1].suffix}" if len(files) > 1 else "it"
    again = f"try again to download {both} again" if is_address(source) else f"copy {both} again, or export again"
    return f"the exported file {names[0]} cannot be used ({_cause(error)}): {again}"


@torch.inference_mode()
def _checked(model: ExportedModel) -> tuple[int, bool]:
    """The number of classes and whether there are masks, from the outputs for a small grey image.

    Raises:
        ValueError: the outputs are not a detector's.
    """
    outputs = model.outputs(torch.zeros(1, 3, MIN_SIDE, MIN_SIDE))
    shapes = {name: tuple(output.shape) for name, output in outputs.items()}
    logits, boxes, masks = (shapes.get(f"pred_{name}") for name in OUTPUTS)
    if not logits or len(logits) != 3 or boxes != (1, logits[1], 4) or logits[2] < 2:
        raise ValueError("its outputs are not a detector's logits and boxes")
    if masks and (len(masks) != 4 or masks[:2] != (1, logits[1])):
        raise ValueError("its third output is not the masks of its queries")
    return logits[2] - 1, masks is not None


def _cause(error: Exception) -> str:
    return printable(" ".join((str(error) or type(error).__name__).split()), 300)
