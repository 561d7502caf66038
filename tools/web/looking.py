"""The bytes of a picture file → what the page draws."""

from __future__ import annotations

import base64
import io
import time
from typing import Any

from PIL import Image, UnidentifiedImageError
from torch import nn

from datasets.image_decoding import orientation, upright_rgb
from datasets.image_files import pixel_limit, raster_formats
from models.attention_maps import record_attention
from prediction.predictor import Predictor
from prediction.result import Prediction
from tools.web.refusal import Refused
from tools.web.segments import segments_of
from util.errors import lack_of_memory, one_sentence
from util.pictures.boxes import color_of
from util.text import printable

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "AVIF")  # those that browsers show
MIN_SCORE = 0.05  # the page's slider begins here
MASK_PIXELS = 300_000_000  # of the masks of one picture together, a byte each in memory
MAX_OBJECTS = 300
MAX_SCANS = 200  # of a JPEG: each one decodes the whole picture again, and cameras write about ten
NAME_LETTERS = 60


class Detector:
    """What the page asks for, of one picture at a time.

    Args:
        predictor: the detector.
        max_pixels: pictures with more are refused before they are decoded.
        panoptic_threshold: see `Predictor`.

    Raises:
        ValueError: a panoptic threshold out of range, or one for a model that is not panoptic.
    """

    def __init__(self, predictor: Predictor, max_pixels: int, panoptic_threshold: float | None = None) -> None:
        self.predictor, self.max_pixels, self.panoptic_threshold = predictor, max_pixels, panoptic_threshold
        self.map_threshold = 1.0  # above it, a mask enters the panoptic map
        if panoptic_threshold is not None:
            predictor([], panoptic_threshold=panoptic_threshold)  # rejects it before the page opens
            self.map_threshold = panoptic_threshold
        elif getattr(predictor, "is_panoptic", False):
            self.map_threshold = predictor.postprocessors["panoptic"].threshold
        self.min_score = min(MIN_SCORE, self.map_threshold)  # so that the map's things are among the objects
        model = getattr(predictor, "model", None)
        self.has_attention = isinstance(model, nn.Module) and hasattr(getattr(model, "detr", model), "transformer")

    def about(self) -> dict[str, Any]:
        """The classes, each with the colour of `predict.py`'s pictures, and what the model can do."""
        predicted = self.predictor.predicted()
        categories = [
            {
                **category,
                "predicted": category["id"] in predicted,
                "label": printable(category["name"], NAME_LETTERS),
                "color": "#{:02x}{:02x}{:02x}".format(*color_of(category["id"])),
            }
            for category in self.predictor.categories
        ]
        return {
            "categories": categories,
            "attention": self.has_attention,
            "device": str(self.predictor.device),
            "panoptic": self.map_threshold if getattr(self.predictor, "is_panoptic", False) else None,
            "min_score": self.min_score,
        }

    def detect(self, content: bytes) -> dict[str, Any]:
        """The objects with scores of at least `min_score`, the segments of a panoptic map, and how long each step took.

        Returns:
            width, height: of the upright picture.
            turn: the orientation by which the page has to turn it, since browsers do not; 1: it need not.
            objects: COCO results as `Prediction.results` gives them, each with its `query`.
            segments: of the map, if the model is panoptic, see `segments_of`.
            milliseconds: of decoding, the model, and writing the results.

        Raises:
            Refused: the picture cannot be used.
        """
        times = [time.perf_counter()]
        image, turn = decode(content, self.max_pixels)
        times.append(time.perf_counter())
        prediction = self._predict(image)
        times.append(time.perf_counter())
        found = zip(prediction.results(), prediction.queries.tolist())
        objects = [result | {"query": query} for result, query in found]
        panoptic = prediction.panoptic is not None
        segments = {"segments": segments_of(prediction, self.map_threshold)} if panoptic else {}
        times.append(time.perf_counter())
        steps = zip(("decode", "model", "write"), times[:-1], times[1:])
        return {
            "width": image.width,
            "height": image.height,
            "turn": turn,
            "objects": objects,
            **segments,
            "milliseconds": {name: round(1000 * (after - before), 2) for name, before, after in steps},
        }

    def attention(self, content: bytes) -> dict[str, Any]:
        """Where the query of each object looked in the last decoder layer.

        Returns:
            width, height: of the maps, in cells.
            maps: query → its map, row by row, a byte a cell in base64; 255 is its highest weight.

        Raises:
            Refused: the picture cannot be used, or the model does not tell.
        """
        if not self.has_attention:
            raise Refused(404, "no_attention", "this model does not tell where it looks: use a checkpoint")
        image, _ = decode(content, self.max_pixels)
        with record_attention(self.predictor.model, encoder_layers=0) as maps:
            prediction = self._predict(image)
        weights = maps.decoder[-1][0][prediction.queries.to(maps.decoder[-1].device)].float()  # [n, h, w]
        peaks = weights.amax(dim=(1, 2), keepdim=True).clamp(min=1e-30)
        cells = (weights / peaks * 255).round().byte().cpu().numpy()
        coded = {
            query: base64.b64encode(cell.tobytes()).decode() for query, cell in zip(prediction.queries.tolist(), cells)
        }
        return {"width": maps.size[1], "height": maps.size[0], "maps": coded}

    def _predict(self, image: Image.Image) -> Prediction:
        has_masks = "segm" in getattr(self.predictor, "postprocessors", {})
        room = MASK_PIXELS // (image.width * image.height) if has_masks else MAX_OBJECTS
        try:
            return self.predictor(
                image,
                threshold=self.min_score,
                top_k=min(max(room, 1), MAX_OBJECTS),
                panoptic_threshold=self.panoptic_threshold,
            )
        except Exception as error:
            memory = lack_of_memory(error, "send a smaller picture")
            if memory:
                raise Refused(503, "memory", memory) from error
            if isinstance(error, ValueError | OSError | FloatingPointError):
                raise Refused(422, "model", one_sentence(error)) from error
            raise


def decode(content: bytes, max_pixels: int) -> tuple[Image.Image, int]:
    """The picture as RGB, upright, and the turn that is left to the page. It is measured before it is decoded.

    Raises:
        Refused: it is no picture (415), has too many pixels (413), or is damaged (422).
    """
    if content.startswith(b"\xff\xd8") and content.count(b"\xff\xda") > MAX_SCANS:
        raise Refused(422, "damaged", f"the JPEG has more than {MAX_SCANS} scans: save it again without them")
    too_many = f"the picture has more than the limit of {max_pixels:,} pixels: make it smaller"
    try:
        with (
            pixel_limit(max_pixels),
            Image.open(io.BytesIO(content), formats=[name for name in FORMATS if name in raster_formats()]) as image,
        ):
            if image.width * image.height > max_pixels:
                raise Refused(413, "too_many_pixels", too_many)
            turn = (orientation(image) or 1) if image.format == "WEBP" else 1
            return upright_rgb(image, note=lambda kind, sentence: None), turn
    except Refused:
        raise
    except UnidentifiedImageError:
        kinds = "JPEG, PNG, WebP, GIF, BMP or AVIF"
        raise Refused(415, "no_picture", f"the bytes are no picture that can be read: send a {kinds} file") from None
    except Image.DecompressionBombError:
        raise Refused(413, "too_many_pixels", too_many) from None
    except MemoryError as error:
        raise Refused(503, "memory", "out of memory: send a smaller picture") from error
    except Exception as error:  # the decoder can raise almost any type on damaged files
        cause = printable(str(error) or type(error).__name__, 200)
        raise Refused(422, "damaged", f"the picture cannot be read ({cause}): send another one") from error
