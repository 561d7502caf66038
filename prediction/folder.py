"""The output folder of `predict.py`.

FOLDER/pictures/NAME           the image with its boxes, and masks if the model draws them
FOLDER/crops/CLASS/NAME-1      on request: the content of each box
FOLDER/attention/NAME          on request: where the model looked
FOLDER/panoptic/NAME.png       panoptic models: the map in COCO's colours, id = R + 256 G + 65536 B, 0 for void
FOLDER/panoptic_pictures/NAME  panoptic models: the image under that map, with a legend
FOLDER/detections.json         all detections in COCO's format, written when all images are done
FOLDER/panoptic.json           panoptic models: the segments of all maps in COCO's format, written when all are done
FOLDER/progress.jsonl          a line with the settings, then a line per finished image; read on --resume
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from PIL import Image

from prediction.panoptic_map import panoptic_json
from prediction.result import Prediction, class_name
from util.files import append_json_line, remove_leftovers, write_atomically, write_json

FOLDERS = ("pictures", "crops", "attention", "panoptic", "panoptic_pictures")
JPEG, PNG = (".jpg", ".jpeg", ".jpe"), (".png",)


class PredictionFolder:
    """Writes predictions so that a job can be interrupted at any moment and resumed: every file is complete or absent.

    Args:
        path: the folder; created if needed.
        settings: everything the predictions depend on, as plain data.
        resume: continue the job in the folder, if there is one; otherwise a new job starts.
        pictures, crops: whether to write these.

    Raises:
        ValueError: the job to resume was started with other settings.
    """

    def __init__(
        self,
        path: Path,
        settings: Mapping[str, Any],
        *,
        resume: bool = False,
        pictures: bool = True,
        crops: bool = False,
    ):
        self.path = path
        self.pictures, self.crops = pictures, crops
        self._progress = path / "progress.jsonl"
        self._done: dict[str, dict[str, Any]] = {}
        settings = {**settings, "pictures": pictures, "crops": crops}
        lines = _read_lines(self._progress) if resume else []
        if lines:
            _check_same(settings, lines[0].get("settings", {}), self._progress)
            self._done = {line["name"]: line for line in lines[1:]}
        path.mkdir(parents=True, exist_ok=True)
        remove_leftovers(path.glob(".*.tmp"))
        remove_leftovers(file for name in FOLDERS for file in (path / name).rglob(".*.tmp"))
        if not lines:
            for summary in ("detections.json", "panoptic.json"):
                (path / summary).unlink(missing_ok=True)  # from another job
            write_json(self._progress, {"settings": settings})

    def has(self, name: str, file: Path) -> bool:
        """True if an earlier run finished this image."""
        return name in self._done and self._done[name]["file"] == str(file)

    def save(self, name: str, file: Path, prediction: Prediction, attention: Image.Image | None = None) -> None:
        """Write the results of one image.

        Raises:
            OSError: a file cannot be written; the image is not marked as done.
        """
        if self.pictures:
            _save_picture(self.path / "pictures" / picture_name(name), prediction.draw())
            if prediction.panoptic:
                _save_picture(self.path / "panoptic_pictures" / picture_name(name), prediction.draw_panoptic())
        if attention is not None:
            _save_picture(self.path / "attention" / picture_name(name), attention)
        if self.crops:
            for index, class_name in enumerate(prediction.names):
                crop = PurePosixPath(picture_name(name))
                crop = crop.with_name(f"{crop.stem}-{index + 1}{crop.suffix}")
                _save_picture(self.path / "crops" / _file_safe(class_name) / crop, prediction.crop(index))
        width, height = prediction.image.size
        record = {"name": name, "file": str(file), "width": width, "height": height, "results": prediction.results()}
        if prediction.panoptic:
            record |= {"map_name": map_name(name), "segments": prediction.panoptic.segments_info()}
            _save_picture(self.path / "panoptic" / map_name(name), prediction.panoptic.picture())
        append_json_line(self._progress, record)
        self._done[name] = record

    def finish(self, names: Iterable[str], categories: Sequence[Mapping[str, Any]]) -> Path:
        """Write `detections.json`, and `panoptic.json` if there are maps, for the named images that are done.

        The first holds `images`, `annotations` and `categories`, so pycocotools' `COCO` can load it; the annotations
        are COCO results with an id and "iscrowd" 0. The second holds COCO panoptic annotations of the files in
        panoptic/. In both, image ids count from 1 in the order of `names`.

        Returns:
            The path of `detections.json`.
        """
        records = [self._done[name] for name in names if name in self._done]
        images, annotations = [], []
        for number, record in enumerate(records, start=1):
            size = {key: record[key] for key in ("width", "height")}
            images.append({"id": number, "file_name": record["name"]} | size)
            for result in record["results"]:
                annotations.append({"id": len(annotations) + 1, "image_id": number, "iscrowd": 0} | result)
        target = self.path / "detections.json"
        kinds = _with_unnamed(categories, annotations)
        write_json(target, {"images": images, "annotations": annotations, "categories": kinds})
        if any("segments" in record for record in records):
            kinds = _with_unnamed(categories, [segment for record in records for segment in record["segments"]])
            kinds = [{"isthing": 0} | category for category in kinds]
            write_json(self.path / "panoptic.json", panoptic_json(records, images, kinds))
        return target

    def counts(self, names: Iterable[str]) -> tuple[Counter[int], Counter[int]]:
        """Objects, and images with at least one, by category id, over the named images that are done."""
        objects: Counter[int] = Counter()
        images: Counter[int] = Counter()
        for name in names:
            labels = [result["category_id"] for result in self._done.get(name, {}).get("results", [])]
            objects.update(labels)
            images.update(set(labels))
        return objects, images


def _with_unnamed(
    categories: Sequence[Mapping[str, Any]], entries: Iterable[Mapping[str, Any]]
) -> list[Mapping[str, Any]]:
    """The categories, and an unnamed one for each further category id among the entries."""
    unnamed = {entry["category_id"] for entry in entries} - {category["id"] for category in categories}
    return [*categories, *({"id": number, "name": class_name(number, {})} for number in sorted(unnamed))]


def picture_name(name: str) -> str:
    """The file name of an image's picture: JPEG stays JPEG, PNG stays PNG, everything else becomes PNG."""
    return name if PurePosixPath(name).suffix.lower() in (*JPEG, *PNG) else f"{name}.png"


def map_name(name: str) -> str:
    """The file name of an image's panoptic map, a PNG."""
    return name if PurePosixPath(name).suffix.lower() in PNG else f"{name}.png"


def _save_picture(path: Path, image: Image.Image) -> None:
    if path.suffix.lower() in JPEG:
        options = {"format": "JPEG", "quality": 92, "subsampling": 0}  # full colour resolution keeps thin lines sharp
    else:
        options = {"format": "PNG", "compress_level": 3}
    write_atomically(path, lambda file: image.save(file, **options))


def _file_safe(text: str) -> str:
    """Make a class name usable as a folder name on any system."""
    return re.sub(r'[\x00-\x1f<>:"/\\|?*]', "_", text).strip(" .")[:80] or "_"


def _read_lines(path: Path) -> list[dict[str, Any]]:
    """The complete lines of a progress file; a truncated last line is ignored."""
    lines = []
    for line in path.read_bytes().splitlines() if path.exists() else []:
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict) and ("settings" in entry) == (not lines):
            lines.append(entry)
    return lines


def _check_same(now: Mapping[str, Any], before: Mapping[str, Any], progress: Path) -> None:
    changes = [f"{key} {before.get(key)!r} (now {value!r})" for key, value in now.items() if before.get(key) != value]
    if changes:
        raise ValueError(
            f"{progress} was started with other settings, {', '.join(changes)}: use those, or omit --resume"
        )
