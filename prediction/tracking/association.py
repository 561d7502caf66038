"""Which detection of a frame is which object: ByteTrack (Zhang et al. 2022) of the package `trackers`, and what the
classes of a detector and the edges of a frame add to it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from util.text import printable

INSTALL = 'which --track needs: pip install ".[track]"'
PATIENCE = 1.0  # seconds that an object may be out of sight and keep its id, or
PATIENT_FRAMES = 3  # so many frames, if these take longer
CONFIRMED = 2  # successive frames with an object before it gets an id: a single false detection gets none
MIN_IOU = 0.1  # between a box and where the object is expected, to be the same one
OTHER_CLASS = 0.3  # what an IoU counts for an object that never had the class of the detection
NEAR = 1.0  # distance of centres, in sides of the box, within which a new object is one that has just been lost
HAD_CLASS = 0.2  # share of the votes of a lost object that the class of the new one has, to be the same
AT_EDGE = 0.4  # of a box's shorter side: a box that is nearer to an edge of the frame may leave it there
EDGE_PATIENCE = 0.2  # seconds after which an object that was lost at an edge of the frame has left


class Association:
    """Gives the detections of successive frames the ids of their objects, from 1.

    ByteTrack compares where objects are expected with the boxes of the frame. Added to that:

    - An IoU counts less for a class that the object has not had, so that neighbours of two classes are not exchanged.
    - Where an object is lost and a new one of its class begins beside it, they are one: a detector places the box of a
      covered object badly.
    - An object that is lost at the edge of the frame has left soon, and does not come back as the next one that enters.

    Args:
        rate: frames per second, about.

    Attributes:
        votes: id → class → sum of the scores with which it was detected.

    Raises:
        ValueError: the package is not installed; the message says how to install it.
    """

    def __init__(self, rate: float) -> None:
        try:
            import supervision
            import trackers
            from trackers.utils.iou import IoU
        except ImportError as error:
            raise ValueError(f"{printable(error, 300)}, {INSTALL}") from error
        self.votes: dict[int, Counter[int]] = defaultdict(Counter)
        self._ids: dict[int, int] = {}  # of ByteTrack → ours: two of it may be one object
        self._boxes: dict[int, np.ndarray] = {}  # id → its last box
        self._times: dict[int, float] = {}  # id → when it was seen last
        self._detections, self._iou = supervision.Detections, IoU()
        self._labels: Sequence[int] = ()
        self._byte_track = trackers.ByteTrackTracker(
            lost_track_buffer=round(30 * max(PATIENCE, PATIENT_FRAMES / rate)),
            frame_rate=rate,
            track_activation_threshold=0.5,  # of what is passed as confidence: whether it may begin a track
            high_conf_det_threshold=0.0,  # the caller's threshold has decided
            minimum_consecutive_frames=CONFIRMED,
            minimum_iou_threshold=MIN_IOU,
            iou=self,
        )

    def update(
        self,
        boxes: np.ndarray,
        scores: np.ndarray,
        labels: Sequence[int],
        may_begin: np.ndarray,
        time: float,
        size: tuple[int, int] | None = None,
    ) -> list[int | None]:
        """The id of each detection of the next frame; None for one that was not seen in the frame before.

        Args:
            boxes: float64 [n, 4], xyxy.
            scores, labels: [n].
            may_begin: bool [n], whether a detection that fits no object may be a new one.
            time: of the frame in seconds, later than that of the frame before.
            size: (w, h) of the frame, if it is known.
        """
        self._labels = labels
        if size:
            self._end([track for track in self._byte_track.tracks if self._has_left(track, time, size)])
        rows = np.arange(len(boxes))
        frame = self._detections(xyxy=boxes, confidence=may_begin.astype(float), data={"row": rows})
        tracked = self._byte_track.update(frame, timestamp=time)
        ids: list[int | None] = [None] * len(boxes)
        for row, number in zip(tracked.data.get("row", ()), tracked.tracker_id.tolist()):
            if number < 0:
                continue
            if number not in self._ids:
                lost = self._lost_beside(boxes[row], labels[row])
                self._ids[number] = len(self.votes) + 1 if lost is None else lost
            ids[row] = own = self._ids[number]
            self.votes[own][labels[row]] += float(scores[row])
            self._boxes[own], self._times[own] = boxes[row], time
        self._keep_those_that_live()
        return ids

    def _keep_those_that_live(self) -> None:
        """A stream may run for days: of objects that are gone, only the votes are kept."""
        living = {track.tracker_id for track in self._byte_track.tracks}
        self._ids = {number: own for number, own in self._ids.items() if number in living}
        ours = set(self._ids.values())
        self._boxes = {own: box for own, box in self._boxes.items() if own in ours}
        self._times = {own: seen for own, seen in self._times.items() if own in ours}

    def compute(self, expected: np.ndarray, boxes: np.ndarray) -> np.ndarray:
        """How well objects and detections fit, [n, m] in [0, 1]: what ByteTrack asks of its `iou`.

        All detections take part in its first round, so its rows are the tracks and its columns the detections.
        """
        overlap = self._iou.compute(expected, boxes)
        if not overlap.size:
            return overlap
        shares = [[self._share(track, label) for label in self._labels] for track in self._byte_track.tracks]
        return overlap * (OTHER_CLASS + (1 - OTHER_CLASS) * np.array(shares))

    def _share(self, track: Any, label: int) -> float:
        """Of the votes of a track, those for a class; 1 if it has no id yet."""
        votes = self.votes.get(self._ids.get(track.tracker_id, 0))
        return votes[label] / votes.total() if votes else 1.0

    def _lost_beside(self, box: np.ndarray, label: int) -> int | None:
        """The nearest object of this class that was lost beside a box; it goes on as that box."""
        centre, side = (box[:2] + box[2:]) / 2, np.sqrt(max(float(np.prod(box[2:] - box[:2])), 1e-9))
        found: list[tuple[float, int, Any]] = []
        for track in self._byte_track.tracks:
            number = self._ids.get(track.tracker_id)
            if number is None or track.time_since_update == 0 or self._share(track, label) < HAD_CLASS:
                continue
            places = (track.get_state_bbox(), self._boxes[number])  # where it should be, and where it was
            near = min(np.linalg.norm((place[:2] + place[2:]) / 2 - centre) / side for place in places)
            if near <= NEAR:
                found.append((float(near), number, track))
        if not found:
            return None
        _, number, track = min(found, key=lambda one: one[:2])
        self._end([track])
        return number

    def _has_left(self, track: Any, time: float, size: tuple[int, int]) -> bool:
        """Whether an object was lost at an edge of the frame, and does not come back."""
        number = self._ids.get(track.tracker_id)
        if number is None or track.time_since_update == 0:
            return False
        x0, y0, x1, y1 = self._boxes[number]
        at_edge = min(x0, y0, size[0] - x1, size[1] - y1) < AT_EDGE * min(x1 - x0, y1 - y0)
        return at_edge and time - self._times[number] > EDGE_PATIENCE

    def _end(self, tracks: Sequence[Any]) -> None:
        self._byte_track.tracks = [
            track for track in self._byte_track.tracks if all(track is not one for one in tracks)
        ]
