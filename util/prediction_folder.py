"""What is predicted for an image, and the folder that the predictions for many go to.

FOLDER/pictures/NAME      the image with its boxes
FOLDER/crops/CLASS/NAME-1 on request: what is inside of each box
FOLDER/attention/NAME     on request: where the model looked
FOLDER/detections.json    all of it in COCO's format, written when all images are done
FOLDER/progress.jsonl     an image a line as it is done, behind a line with the settings: what a resumed job reads
"""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from PIL import Image
from torch import Tensor

from util.checkpoint import write_atomically, write_json
from util.fonts import unknown_letters
from util.logging import append_json_line
from util.visualize import color_of, draw_boxes

LONGEST = 28  # letters of a class name on a picture: its score has to fit behind it
JPEG, PNG = (".jpg", ".jpeg", ".jpe"), (".png",)


@dataclass(frozen=True)
class Prediction:
    """The objects found in one image, best first.

    Attributes:
        image: the image as it was looked at, RGB and upright.
        boxes: float32 [n, 4], xyxy in pixels of `image`; as predicted, so that they may end a little outside of it.
        scores: float32 [n].
        labels: int64 [n], category ids as they are in the annotations that the model was trained on.
        names: n class names.
        queries: int64 [n], which of the model's object queries found it.
    """

    image: Image.Image
    boxes: Tensor
    scores: Tensor
    labels: Tensor
    names: list[str]
    queries: Tensor

    def __len__(self) -> int:
        return len(self.names)

    def draw(self, min_side: int = 384) -> Image.Image:
        """A copy of the image with the boxes, class names and scores; see `util.visualize.draw_boxes`."""
        labels = self.labels.tolist()
        # A name in letters that no font here has would be a row of empty frames.
        names = [class_name(label, {}) if unknown_letters(name) else name for name, label in zip(self.names, labels)]
        texts = [f"{_cut(name)} {_before_number(name)}{score:.0%}" for name, score in zip(names, self.scores.tolist())]
        colors = [color_of(label) for label in labels]
        return draw_boxes(self.image, self.boxes, texts, colors, min_side=min_side)

    def resized(self, image: Image.Image) -> Prediction:
        """The same on another copy of the image, which may be of another size."""
        across, down = image.width / self.image.width, image.height / self.image.height
        return replace(self, image=image, boxes=self.boxes * self.boxes.new_tensor([across, down, across, down]))

    def crop(self, index: int) -> Image.Image:
        """What is inside box `index`, in whole pixels, at least one."""
        x0, y0, x1, y1 = self.boxes[index].tolist()
        width, height = self.image.size
        left, top = min(max(math.floor(x0), 0), width - 1), min(max(math.floor(y0), 0), height - 1)
        right, bottom = max(min(math.ceil(x1), width), left + 1), max(min(math.ceil(y1), height), top + 1)
        return self.image.crop((left, top, right, bottom))

    def results(self) -> list[dict[str, Any]]:
        """COCO's results without the image's id: category_id, bbox (x, y, width, height) and score."""
        rows = zip(self.boxes.tolist(), self.scores.tolist(), self.labels.tolist())
        return [
            {"category_id": label, "bbox": [x0, y0, x1 - x0, y1 - y0], "score": score}
            for (x0, y0, x1, y1), score, label in rows
        ]


class PredictionFolder:
    """Writes predictions so that a job can be cut off anywhere and go on: every file is whole or not there.

    Args:
        path: the folder; made with the first file.
        settings: all that the predictions depend on, as plain data.
        resume: go on with the job that was begun there, if any, in place of beginning anew.
        pictures, crops: write those.

    Raises:
        ValueError: the job to go on with was begun with other settings.
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
        for leftover in path.rglob(".*.tmp"):  # of a write that was killed
            leftover.unlink(missing_ok=True)
        if not lines:
            (path / "detections.json").unlink(missing_ok=True)  # it belongs to another job
            write_json(self._progress, {"settings": settings})

    def has(self, name: str, file: Path) -> bool:
        """True if this image was done before."""
        return name in self._done and self._done[name]["file"] == str(file)

    def save(self, name: str, file: Path, prediction: Prediction, attention: Image.Image | None = None) -> None:
        """Write what belongs to one image.

        Raises:
            OSError: it cannot be written; the image does not count as done.
        """
        if self.pictures:
            _save_picture(self.path / "pictures" / picture_name(name), prediction.draw())
        if attention is not None:
            _save_picture(self.path / "attention" / picture_name(name), attention)
        if self.crops:
            for index, class_name in enumerate(prediction.names):
                inner = PurePosixPath(picture_name(name))
                inner = inner.with_name(f"{inner.stem}-{index + 1}{inner.suffix}")
                _save_picture(self.path / "crops" / _file_safe(class_name) / inner, prediction.crop(index))
        width, height = prediction.image.size
        record = {"name": name, "file": str(file), "width": width, "height": height, "results": prediction.results()}
        append_json_line(self._progress, record)
        self._done[name] = record

    def finish(self, names: Iterable[str], categories: Sequence[Mapping[str, Any]]) -> Path:
        """Write `detections.json` with those of the named images that are done.

        It holds `images`, `annotations` and `categories`, so that pycocotools' `COCO` loads it; the annotations are
        COCO's results with an id, an area and "iscrowd" 0 besides. Images are counted from 1 in the order of `names`.
        """
        images, annotations = [], []
        for name in names:
            if name not in self._done:
                continue
            record = self._done[name]
            images.append({"id": len(images) + 1, "file_name": name} | {k: record[k] for k in ("width", "height")})
            for result in record["results"]:
                area = result["bbox"][2] * result["bbox"][3]
                own = {"id": len(annotations) + 1, "image_id": len(images), "area": area, "iscrowd": 0}
                annotations.append(own | result)
        known = {category["id"] for category in categories}
        unnamed = sorted({result["category_id"] for result in annotations} - known)
        categories = [*categories, *({"id": number, "name": class_name(number, {})} for number in unnamed)]
        target = self.path / "detections.json"
        write_json(target, {"images": images, "annotations": annotations, "categories": categories})
        return target

    def counts(self, names: Iterable[str]) -> tuple[Counter[int], Counter[int]]:
        """By category id: objects in, and images with some among, those of the named images that are done."""
        objects: Counter[int] = Counter()
        images: Counter[int] = Counter()
        for name in names:
            labels = [result["category_id"] for result in self._done.get(name, {}).get("results", [])]
            objects.update(labels)
            images.update(set(labels))
        return objects, images


def class_name(label: int, names: Mapping[int, str]) -> str:
    """The name of a class; of one without, its id."""
    return names.get(label, f"class {label}")


def _cut(name: str) -> str:
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 1].rstrip()}…"


def _before_number(name: str) -> str:
    """A mark that keeps a per cent sign behind its number where the name before it is written from right to left."""
    return "\u200e" if any(unicodedata.bidirectional(letter) in ("R", "AL") for letter in name) else ""


def picture_name(name: str) -> str:
    """What the picture of an image is called: JPEG stays JPEG, PNG stays PNG, and all else becomes PNG."""
    return name if PurePosixPath(name).suffix.lower() in (*JPEG, *PNG) else f"{name}.png"


def _save_picture(path: Path, image: Image.Image) -> None:
    if path.suffix.lower() in JPEG:
        how = {"format": "JPEG", "quality": 92, "subsampling": 0}  # colour at full resolution, or thin lines fade
    else:
        how = {"format": "PNG", "compress_level": 3}
    write_atomically(path, lambda file: image.save(file, **how))


def _file_safe(text: str) -> str:
    """A class name as the name of a folder on any system."""
    return re.sub(r'[\x00-\x1f<>:"/\\|?*]', "_", text).strip(" .")[:80] or "_"


def _read_lines(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a log; one that was cut off is left out."""
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
    other = [f"{key} {before.get(key)!r} (now {value!r})" for key, value in now.items() if before.get(key) != value]
    if other:
        raise ValueError(
            f"{progress} was begun with other settings, {', '.join(other)}: go on with those, or leave --resume out to "
            "begin anew"
        )
