"""When a run writes its report, and that this never stops it."""

from __future__ import annotations

import argparse
import time
from datetime import datetime
from pathlib import Path
from typing import Any

from datasets.annotated_images import AnnotatedImages
from training.report.facts import command_of, data_of, settings_of, typed_command, versions
from training.report.page import REPORT, build_report
from training.run_folder import RunFolder
from util.files import write_json
from util.logging import get_logger

SHARE = 0.05  # of the time that reports may take while a run trains


class RunReport:
    """Keeps `report.html` of a run up to date.

    Args:
        args: settings of the run.
        folder: its files; without a path nothing is written.
        val: the images that are evaluated.
        kinds: what is evaluated, such as bbox, segm, panoptic.
    """

    def __init__(self, args: argparse.Namespace, folder: RunFolder, val: AnnotatedImages, kinds: list[str]) -> None:
        self.args, self.folder, self.kinds = args, folder, kinds
        self._val, self._train, self._fingerprint = val, None, ""
        self._fixed: dict[str, Any] = {}  # what is the same in every report
        self._next = 0.0  # time from which the next one may be written

    def trains_on(self, dataset: AnnotatedImages, fingerprint: str) -> None:
        """Name the training images."""
        self._train, self._fingerprint = dataset, fingerprint

    def write(self, *, last: bool = True) -> None:
        """Write the report, on the main process. What goes wrong is a warning.

        Args:
            last: write in any case; otherwise only so often that reports take at most `SHARE` of the time.
        """
        if not self.folder.writes or (not last and time.monotonic() < self._next):
            return
        began = time.monotonic()
        path = self._path()
        try:
            if not self._fixed:
                self._fixed = self._facts()
                get_logger().info(f"the report of this run is {path}")
            now = f"{datetime.now().astimezone():%Y-%m-%d %H:%M %Z}"
            write_json(self.folder.path / "eval" / "run.json", {"written": now, **self._fixed})
            build_report(self.folder.path).write(path)
        except Exception as error:  # a page must not end a run
            get_logger().warning(f"{path} could not be written ({type(error).__name__}: {error})")
        took = time.monotonic() - began
        self._next = time.monotonic() + took / SHARE

    def _path(self) -> Path:
        """An evaluation in the folder of a training leaves that one's report as it is."""
        beside = self.args.eval and (self.folder.path / "log.txt").exists()
        return self.folder.path / "eval" / REPORT if beside else self.folder.path / REPORT

    def _facts(self) -> dict[str, Any]:
        settings = settings_of(self.args)
        train = {} if self._train is None else {"train": data_of(self._train, self._fingerprint)}
        return {
            "command": typed_command(),
            "equal_command": command_of(settings),
            "settings": settings,
            "evaluates": self.kinds,
            "data": train | {"val": data_of(self._val)},
            "versions": versions(self.args.device),
        }
