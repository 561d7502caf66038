"""The output folder of `predict.py`.

FOLDER/pictures/NAME           the image with its boxes, and masks if the model draws them
FOLDER/crops/CLASS/NAME-1      on request: the content of each box
FOLDER/attention/NAME          on request: where the model looked
FOLDER/panoptic/NAME.png       panoptic models: the map in COCO's colours, id = R + 256 G + 65536 B, 0 for void
FOLDER/panoptic_pictures/NAME  panoptic models: the image under that map, with a legend
FOLDER/detections.json         all detections in COCO's annotation format, written when all images are done
FOLDER/results.json            the same detections as a list in COCO's results format, for `COCO.loadRes`
FOLDER/segmentations.json      with masks: the same without boxes, from which `COCO.loadRes` takes the masks' areas
FOLDER/panoptic.json           panoptic models: the segments of all maps in COCO's format, written when all are done
FOLDER/progress.jsonl          what is done, see `prediction.job_record`; read on --resume, and by the next job
"""

from __future__ import annotations

import errno
import io
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from PIL import Image

from prediction.job_record import (
    FOLDERS,
    PROGRESS,
    SUMMARIES,
    JobRecord,
    Record,
    is_unchanged,
    read_record,
    remove_files,
    state_of,
)
from prediction.output_check import check_same_settings, refuse_others
from prediction.output_names import JPEG, class_folder, crop_name, map_name, own_names, picture_name
from prediction.panoptic_map import panoptic_json
from prediction.result import Prediction, class_name
from util.files import append_json_line, remove_leftovers, to_json, write_atomically, write_json
from util.text import printable

# Errors that the next image would meet as well; any other concerns a single file.
_LASTING = {
    getattr(errno, name)
    for name in "ENOSPC EDQUOT EROFS EIO ENODEV ENXIO ESTALE ENOTCONN EMFILE ENFILE ENOMEM".split()
    if hasattr(errno, name)
}


class ImageNotWritten(OSError):
    """The results of one image could not be written; those of others can."""


class PredictionFolder:
    """Writes predictions so that a job can be interrupted at any moment and resumed: every file is complete or absent.

    Files of earlier jobs that this one does not continue are removed, and no other file is ever replaced.

    Args:
        path: the folder; created if needed.
        settings: everything the predictions depend on, as plain data.
        resume: continue the job in the folder, if there is one; otherwise a new job starts.
        pictures, crops: whether to write these.
        files: all images, name → file; by default those of the job that is resumed.
        classes: category id → name.

    Attributes:
        notes: sentences for the user: what was removed, and what is done again.

    Raises:
        ValueError: the job to resume was started with other settings, or the folder holds files of another origin
            under the names of this job's.
        OSError: the folder cannot be written to.
    """

    def __init__(
        self,
        path: Path,
        settings: Mapping[str, Any],
        *,
        resume: bool = False,
        pictures: bool = True,
        crops: bool = False,
        files: Mapping[str, Path] | None = None,
        classes: Mapping[int, str] | None = None,
    ):
        self.path = path
        self.pictures, self.crops = pictures, crops
        self.notes: list[str] = []
        self._progress = path / PROGRESS
        settings = json.loads(to_json({**settings, "pictures": pictures, "crops": crops}))  # as it is read again
        earlier = read_record(path) or JobRecord()
        if resume and earlier.settings is not None:
            check_same_settings(settings, earlier.settings, self._progress)
        self._done = self._kept(earlier, files) if resume else {}
        self._pictures = own_names(files or (), picture_name, self._names_in_use("picture"))
        self._maps = own_names(files or (), map_name, self._names_in_use("map_name"))
        self._classes: dict[int, str] = {}
        for label, name in sorted((classes or {}).items()):
            self._classes[label] = class_folder(label, name, self._classes)
        refuse_others(path, self._planned(files or (), settings), earlier)
        path.mkdir(parents=True, exist_ok=True)
        self._clear(earlier, resume)
        content = [{"settings": settings}, *self._done.values()]
        self._guarded(
            self._progress, write_atomically, lambda file: file.writelines(f"{to_json(c)}\n".encode() for c in content)
        )

    def has(self, name: str, file: Path) -> bool:
        """True if an earlier run finished this image."""
        return name in self._done and self._done[name]["file"] == str(file)

    def save(
        self,
        name: str,
        file: Path,
        prediction: Prediction,
        attention: Image.Image | None = None,
        state: list[int] | None = None,
    ) -> None:
        """Write the results of one image.

        Args:
            name, file: the image.
            prediction: its results.
            attention: a picture of where the model looked.
            state: that of the file when it was read, from `state_of`; without it, the image is done again on resuming.

        Raises:
            ImageNotWritten: a file cannot be written, which does not concern other images; none of this one is left.
            OSError: a file cannot be written, and the next image's could not either.
        """
        picture = self._name(self._pictures, name, picture_name)
        parts: dict[str, Callable[[], Image.Image]] = {}
        if self.pictures:
            parts[f"pictures/{picture}"] = prediction.draw
            if prediction.panoptic:
                parts[f"panoptic_pictures/{picture}"] = prediction.draw_panoptic
        if attention is not None:
            parts[f"attention/{picture}"] = lambda: attention
        if self.crops:
            for index, label in enumerate(prediction.labels.tolist()):
                folder = self._class_folder(label, prediction.names[index])
                parts[f"crops/{folder}/{crop_name(picture, index + 1)}"] = lambda index=index: prediction.crop(index)
        width, height = prediction.image.size
        record: Record = {"name": name, "file": str(file), "width": width, "height": height, "picture": picture}
        record |= {"results": prediction.results(), "best_score": prediction.best_score, "input": state}
        if prediction.panoptic:
            own_map = self._name(self._maps, name, map_name)
            record |= {"map_name": own_map, "segments": prediction.panoptic.segments_info()}
            parts[f"panoptic/{own_map}"] = prediction.panoptic.picture
        self._append({"begun": name, "files": list(parts)})
        try:
            record["files"] = {part: self._write(part, make) for part, make in parts.items()}
        except BaseException:
            with suppress(OSError):
                remove_files(self.path, parts)
            raise
        self._append(record)
        self._done[name] = record

    def finish(
        self,
        names: Iterable[str],
        categories: Sequence[Mapping[str, Any]],
        image_ids: Mapping[str, int] | None = None,
    ) -> Path:
        """Write the files about all images, for the named ones that are done.

        `detections.json` holds `images`, `annotations` and `categories`, so pycocotools' `COCO` can load it; the
        annotations are COCO results with an id and "iscrowd" 0. `results.json` is the list of results that
        `COCO.loadRes` takes, and `segmentations.json` the same without boxes, if there are masks. `panoptic.json`, if
        there are maps, holds COCO panoptic annotations of the files in panoptic/.

        Args:
            names: the images, in the order of the files.
            categories: the classes, {"id", "name"}.
            image_ids: image → its id in these files; by default ids count from 1 in the order of `names`.

        Returns:
            The path of `detections.json`.
        """
        records = self.records(names)
        images, annotations, results = [], [], []
        for number, record in enumerate(records, start=1):
            number = number if image_ids is None else image_ids[record["name"]]
            size = {key: record[key] for key in ("width", "height")}
            images.append({"id": number, "file_name": record["name"]} | size)
            for result in record["results"]:
                annotations.append({"id": len(annotations) + 1, "image_id": number, "iscrowd": 0} | result)
                results.append({"image_id": number} | {key: result[key] for key in result if key != "area"})
        target = self.path / "detections.json"
        kinds = _with_unnamed(categories, annotations)
        self._guarded(target, write_json, {"images": images, "annotations": annotations, "categories": kinds})
        self._guarded(self.path / "results.json", write_json, results)
        if any("segmentation" in result for result in results):
            masks = [{key: result[key] for key in result if key != "bbox"} for result in results]
            self._guarded(self.path / "segmentations.json", write_json, masks)
        if any("segments" in record for record in records):
            kinds = _with_unnamed(categories, [segment for record in records for segment in record["segments"]])
            kinds = [{"isthing": 0} | category for category in kinds]
            self._guarded(self.path / "panoptic.json", write_json, panoptic_json(records, images, kinds))
        return target

    def counts(self, names: Iterable[str]) -> tuple[Counter[int], Counter[int]]:
        """Objects, and images with at least one, by category id, over the named images that are done."""
        objects: Counter[int] = Counter()
        images: Counter[int] = Counter()
        for record in self.records(names):
            labels = [result["category_id"] for result in record["results"]]
            objects.update(labels)
            images.update(set(labels))
        return objects, images

    def records(self, names: Iterable[str]) -> list[Record]:
        """The records of the named images that are done: name, file, size, results, best_score."""
        return [self._done[name] for name in names if name in self._done]

    def _kept(self, earlier: JobRecord, files: Mapping[str, Path] | None) -> dict[str, Record]:
        """The records that still hold, for the images of this job."""
        kept, again = {}, {"its file has changed": [], "a result is missing or was changed": []}
        for name, record in earlier.done.items() if earlier.settings is not None else ():
            file = Path(record["file"]) if files is None else files.get(name)
            if file is None or str(file) != record["file"]:
                continue
            if not is_unchanged(file, record.get("input")):
                again["its file has changed"].append(name)
            elif not all(is_unchanged(self.path / part, state) for part, state in record.get("files", {"": 0}).items()):
                again["a result is missing or was changed"].append(name)
            else:
                kept[name] = record
        for reason, names in again.items():
            if names:
                what = "1 image is" if len(names) == 1 else f"{len(names)} images are"
                self.notes.append(
                    f"{what} done again because {reason}: {printable(names[0])}" + ", …" * (len(names) > 1)
                )
        if earlier.damaged or (earlier.settings is None and earlier.done):
            damaged = earlier.damaged or 1
            lost = "those images are" if earlier.settings is not None else "all images are"
            self.notes.append(f"{self._progress} has {damaged} damaged line{'s' * (damaged > 1)}: {lost} done again")
        return kept

    def _names_in_use(self, key: str) -> dict[str, str]:
        return {name: record[key] for name, record in self._done.items() if isinstance(record.get(key), str)}

    def _planned(self, files: Iterable[str], settings: Mapping[str, Any]) -> Iterable[str]:
        """The files that this job will write, except crops."""
        kinds = ["pictures"] * self.pictures + ["attention"] * bool(settings.get("attention"))
        panoptic = "panoptic_threshold" in settings
        kinds += ["panoptic_pictures"] * (panoptic and self.pictures)
        for name in files:
            if name not in self._done:
                yield from (f"{kind}/{self._pictures[name]}" for kind in kinds)
                yield from [f"panoptic/{self._maps[name]}"] * panoptic

    def _clear(self, earlier: JobRecord, resume: bool) -> None:
        """Remove what this job does not continue. The record of it is replaced later, so that a kill loses nothing."""
        remove_leftovers(self.path.glob(".*.tmp"))
        remove_leftovers(file for name in FOLDERS for file in (self.path / name).rglob(".*.tmp"))
        if earlier.settings is None and not earlier.done and not earlier.files:
            return
        for summary in SUMMARIES:
            (self.path / summary).unlink(missing_ok=True)
        kept = {file for record in self._done.values() for file in record["files"]}
        removed = remove_files(self.path, earlier.files - kept)
        dropped = len(earlier.done.keys() - self._done.keys())
        if removed and not resume:
            files = "1 file" if removed == 1 else f"{removed} files"
            self.notes.append(f"removed {files} of an earlier job from {printable(self.path)}")
        elif removed and dropped:
            images = "1 image that is" if dropped == 1 else f"{dropped} images that are"
            self.notes.append(f"removed earlier results of {images} done again or not among the inputs")

    def _name(self, names: dict[str, str], name: str, form: Callable[[str], str]) -> str:
        if name not in names:
            names.update(own_names([name], form, names))
        return names[name]

    def _class_folder(self, label: int, name: str) -> str:
        if label not in self._classes:  # the checkpoint names no such class
            self._classes[label] = class_folder(label, name, self._classes)
        return self._classes[label]

    def _write(self, part: str, make: Callable[[], Image.Image]) -> list[int]:
        """Write one picture; returns its state."""
        path = self.path / part
        if os.path.lexists(path):
            raise ImageNotWritten(f"{path} exists and is not from this job: remove it, or choose another folder")

        def write(file: BinaryIO) -> None:
            content = io.BytesIO()  # Pillow does not notice if only a part fits on the disk
            if path.suffix.lower() in JPEG:  # full colour resolution keeps thin lines sharp
                make().save(content, format="JPEG", quality=92, subsampling=0)
            else:
                make().save(content, format="PNG", compress_level=3)
            file.write(content.getbuffer())

        self._guarded(path, write_atomically, write)
        return state_of(path)

    def _append(self, entry: Mapping[str, Any]) -> None:
        self._guarded(self._progress, append_json_line, entry)

    def _guarded(self, path: Path, write: Callable[..., None], content: Any) -> None:
        """`write(path, content)`, with errors that name the file."""
        try:
            write(path, content)
        except (OSError, ValueError) as error:
            cause = getattr(error, "strerror", None) or str(error)
            if getattr(error, "errno", None) in _LASTING or path.parent == self.path:
                raise OSError(
                    f"{path} cannot be written ({cause}): the images before it are done; free some space or correct "
                    "it, then run the same command with --resume"
                ) from error
            raise ImageNotWritten(f"{path} cannot be written ({cause})") from error


def _with_unnamed(
    categories: Sequence[Mapping[str, Any]], entries: Iterable[Mapping[str, Any]]
) -> list[Mapping[str, Any]]:
    """The categories, and an unnamed one for each further category id among the entries."""
    unnamed = {entry["category_id"] for entry in entries} - {category["id"] for category in categories}
    return [*categories, *({"id": number, "name": class_name(number, {})} for number in sorted(unnamed))]
