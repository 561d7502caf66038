"""The page of a run, from the files in its folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from training.report import classes, curves, errors, settings
from training.run_folder import LOG
from util.logging import get_logger
from util.pages.page import Page
from util.pictures.run_log import Log, read_log

REPORT = "report.html"
FILES = ("per_class", "f1", "errors", "run")


class RunFiles:
    """What a run's folder holds.

    Args:
        folder: of the run.
        images: the folder of the evaluated images, if it is not where the run found them.

    Attributes:
        log: the records of `log.txt`, one per epoch; empty without it.
        per_class, f1, errors, run: the files of that name in `eval/`; None without them.
        quality: `panoptic_eval/quality.json`, if the run evaluates panoptic maps.

    Raises:
        ValueError: the folder holds neither a log nor an evaluation, or a file is damaged.
    """

    def __init__(self, folder: Path, images: Path | None = None) -> None:
        self.folder, self._images = folder, images
        self.per_class, self.f1, self.errors, self.run = (_read(folder / "eval" / f"{name}.json") for name in FILES)
        has_maps = self.run is None or "panoptic" in self.run.get("evaluates", ())
        self.quality = _read(folder / "panoptic_eval" / "quality.json") if has_maps else None
        log = folder / LOG
        self.log: Log = read_log(log) if log.is_file() and log.stat().st_size else []
        if not self.log and self.per_class is None:
            raise ValueError(f"{folder} holds neither {LOG} nor an evaluation: pass the --output_dir of a run")

    @property
    def images(self) -> Path | None:
        """The folder of the evaluated images; None if it is unknown."""
        if self._images is not None:
            return self._images
        found = ((self.run or {}).get("data") or {}).get("val", {}).get("folder")
        return Path(found) if found else None

    def picture(self, name: str) -> bytes | None:
        """The content of a picture in `eval/`."""
        path = self.folder / "eval" / name
        return path.read_bytes() if path.is_file() else None


def build_report(folder: Path, images: Path | None = None) -> Page:
    """The page of the run in `folder`; see `RunFiles` for the arguments and errors.

    A part that cannot be made, as from a damaged file, is replaced by a note.
    """
    files = RunFiles(Path(folder), images)
    page = Page(f"Report of {Path(folder).resolve().name}", _subtitle(files))
    parts: dict[str, Callable[[Page, RunFiles], None]] = {
        "the numbers": curves.add_numbers,
        "the curves": curves.add_curves,
        "the errors": errors.add_errors,
        "the classes": classes.add_classes,
        "precision and confusion": classes.add_pictures,
        "panoptic quality": classes.add_panoptic,
        "the settings": settings.add_settings,
    }
    for what, add in parts.items():
        try:
            add(page, files)
        except Exception as error:
            sentence = f"{what} could not be shown ({type(error).__name__}: {error})"
            get_logger().warning(f"{Path(folder) / REPORT}: {sentence}")
            page.note(sentence, "warning")
    return page


def _subtitle(files: RunFiles) -> str:
    evaluated = files.per_class or {}
    epoch = evaluated.get("epoch")
    parts = [
        f"evaluated after epoch {epoch}" if epoch is not None else "",
        f"batch size {evaluated['batch_size']}" if "batch_size" in evaluated else "",
        str((files.run or {}).get("written", "")),
    ]
    return " · ".join(part for part in parts if part)


def _read(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged ({error}): evaluate again") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} is damaged (it holds no object): evaluate again")
    return content
