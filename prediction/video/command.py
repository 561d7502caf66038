"""`predict.py` with videos among its inputs: sorts them, fetches pictures from addresses, and does the videos."""

from __future__ import annotations

import argparse
import re
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from urllib.parse import quote, unquote, urlsplit

from datasets.image_files import image_suffixes
from prediction.predictor import Predictor
from prediction.slicing.predictor import SlicedPredictor
from prediction.tracking.line import Line
from prediction.tracking.tracker import Tracker
from prediction.video.job import VideoJob
from prediction.video.reader import import_av
from prediction.video.sources import Source, address_source
from util.errors import one_sentence
from util.output.folder_lock import FolderLock, locks_released
from util.signals import StopRequested, StopSignals
from util.text import printable

SILENCE = 15.0  # seconds that a server may take
MAX_BYTES = 64 * 2**20  # of a picture
LOCK = ".predict_video.lock"


def fetch(addresses: Sequence[str], folder: Path) -> tuple[list[Path], list[Source], int]:
    """Download pictures into `folder`; returns them, the addresses that are videos, and the number of failures."""
    pictures, videos, failed = [], [], 0
    for number, address in enumerate(addresses):
        try:
            content, kind = _get(address)
        except (OSError, ValueError) as error:
            place = address_source(address).name
            print(f"skipped: {printable(place)} cannot be fetched ({printable(_reason(error), 300)})", file=sys.stderr)
            failed += 1
            continue
        if content is None:
            videos.append(address_source(address))
            continue
        name = PurePosixPath(unquote(urlsplit(address).path)).name
        name = re.sub(r"[^\w.-]+", "_", name)[-100:].lstrip(".") or "picture"
        if Path(name).suffix.lower() not in image_suffixes():
            name += "." + re.sub(r"\W.*", "", kind.removeprefix("image/"))
        place = folder / str(number) / name if any(path.name == name for path in pictures) else folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
        pictures.append(place)
    return pictures, videos, failed


@locks_released()
def predict_videos(options: argparse.Namespace, sources: Sequence[Source]) -> int:
    """Do the videos, one after another; returns the number of those that could not be done wholly.

    Raises:
        CheckpointError, ValueError, OSError: nothing can be done.
        StopRequested: a signal requested a stop; what is written plays.
    """
    import_av()
    line = Line(tuple(options.line)) if options.line else None
    FolderLock(options.out, LOCK, "predict.py", "--out").acquire()
    predictor = Predictor(options.checkpoint, options.device, max_pixels=options.max_pixels)
    if options.slice:
        predictor = SlicedPredictor(predictor, options.slice, options.overlap)
    settings = {"threshold": options.threshold, "top_k": options.top_k, "classes": options.classes}
    if options.panoptic_threshold is not None:
        settings["panoptic_threshold"] = options.panoptic_threshold
    detect = partial(predictor, **settings, batch_size=options.batch_size)
    detect([])  # rejects bad settings before anything is written
    track = partial(Tracker, predictor.names, line=line) if options.track else None
    if track:
        track(30.0)  # says that its package is missing before anything is written
    failed = 0
    with StopSignals() as signals:
        job = VideoJob(
            detect,
            options.out,
            batch_size=options.batch_size,
            every=options.every or 1,
            start=options.start,
            end=options.end,
            retries=3 if options.retries is None else options.retries,
            overlay=options.fps,
            pictures=not options.no_pictures,
            show=options.show,
            tracker=track,
            stopped=lambda: signals.stop,
            say=lambda text: print(text, file=sys.stderr, flush=True),
        )
        for source in sources:
            failed += _done(job.run, source)
            if signals.stop:
                raise StopRequested("stopped; what is written until then plays", 130)
    if failed:
        print(f"{failed} of {len(sources)} videos not done wholly, see the messages above", file=sys.stderr)
    return failed


def _done(run: Callable[[Source], int], source: Source) -> int:
    """0 if a video was done wholly, else 1."""
    try:
        return int(run(source) > 0)
    except (OSError, ValueError) as error:
        print(f"skipped: {printable(one_sentence(error), 500)}", file=sys.stderr)
        return 1


def _get(address: str) -> tuple[bytes | None, str]:
    """The content and type of a picture; None for what is no picture."""
    safe = quote(address, safe="%/:=&?~#+!$,;'@()*[]")
    request = urllib.request.Request(safe, headers={"User-Agent": "detr"})
    with urllib.request.urlopen(request, timeout=SILENCE) as answer:
        if urlsplit(answer.url).scheme not in ("http", "https"):
            raise ValueError("it is redirected elsewhere")
        kind = answer.headers.get_content_type()
        is_picture = kind.startswith("image/")
        if not is_picture and Path(urlsplit(address).path).suffix.lower() not in image_suffixes():
            return None, kind
        content = answer.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise ValueError(f"it has more than {MAX_BYTES // 2**20} MiB")
    return content, kind if is_picture else ""


def _reason(error: BaseException) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"the server answers with status {error.code}"
    return str(getattr(error, "reason", "") or error)
