"""`predict.py` with videos among its inputs: sorts them, fetches pictures from addresses, and does the videos."""

from __future__ import annotations

import argparse
import errno
import re
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from datasets.image_files import image_suffixes
from prediction.predictor import Predictor
from prediction.slicing.predictor import SlicedPredictor
from prediction.sources.address import receive
from prediction.tracking.line import Line
from prediction.tracking.tracker import Tracker
from prediction.video.job import VideoJob
from prediction.video.opening import import_av
from prediction.video.sources import Source, address_source
from prediction.video.window import Window
from util.errors import one_sentence
from util.loading.transfer import Head, Refused
from util.output.folder_lock import FolderLock, locks_released
from util.signals import StopRequested, StopSignals
from util.text import printable

NOT_FOR_VIDEOS = ("resume", "count", "save_crops", "attention")
LOCK = ".predict_video.lock"
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}


def fetch(addresses: Sequence[str], folder: Path) -> tuple[list[Path], list[Source], int]:
    """Download pictures into `folder`; returns them, the addresses that are videos, and the number of failures."""
    pictures, videos, failed = [], [], 0
    for number, address in enumerate(addresses):
        name = PurePosixPath(unquote(urlsplit(address).path)).name
        name = re.sub(r"[^\w.-]+", "_", name)[-100:].lstrip(".") or "picture"
        named = Path(name).suffix.lower() in image_suffixes()
        loaded = folder / f"{number}.part"
        try:
            head = receive(address, loaded, wanted=lambda head, named=named: named or _is_picture(head))
        except (Refused, OSError, ValueError) as error:
            place = address_source(address).name
            print(f"skipped: {printable(place)} cannot be fetched ({printable(str(error), 300)})", file=sys.stderr)
            failed += 1
            continue
        if not (named or _is_picture(head)):
            videos.append(address_source(address))
            continue
        if not named:
            name += "." + re.sub(r"\W.*", "", head.kind.removeprefix("image/"))
        place = folder / str(number) / name if any(path.name == name for path in pictures) else folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        pictures.append(loaded.rename(place))
    return pictures, videos, failed


@locks_released()
def predict_videos(options: argparse.Namespace, sources: Sequence[Source]) -> int:
    """Do the videos, one after another; returns the number of those that could not be done wholly.

    Raises:
        CheckpointError, ValueError, OSError: nothing can be done.
        StopRequested: a signal requested a stop; what is written plays.
    """
    import_av()
    without = [f"--{name}" for name in NOT_FOR_VIDEOS if getattr(options, name)]
    if without:
        print(f"videos are predicted without {', '.join(without)}, which are for images", file=sys.stderr)
    if options.show:
        Window("predict.py").close()  # says that there is no display before anything is written
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
    """0 if a video was done wholly, else 1.

    Raises:
        OSError: the next video could not be written either.
    """
    try:
        return int(run(source) > 0)
    except (OSError, ValueError) as error:
        if getattr(error, "errno", None) in FULL:
            raise OSError(f"the results of {source.name} cannot be written ({error.strerror}): make room") from error
        print(f"skipped: {printable(one_sentence(error), 500)}", file=sys.stderr)
        return 1


def _is_picture(head: Head) -> bool:
    return bool(head.kind) and head.kind.startswith("image/")
