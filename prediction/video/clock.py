"""The times of a source → times on one clock that begins at 0 with the first frame and never goes back."""

from __future__ import annotations

import math

JUMP = 1.0  # seconds back that are more than rounding: the clock of the source has started again
INSTANT = 0.001  # seconds between two frames whose times in the source are equal


class Clock:
    """Counts on where a source has no times, repeats them, or starts its own clock again.

    Args:
        step: seconds from one frame to the next where the source does not say.
        longest: seconds that may lie between two frames; a longer step is a jump of the clock of the source.
    """

    def __init__(self, step: float, longest: float = math.inf) -> None:
        self._step, self._longest = step, longest
        self._offset: float | None = None  # time of the source at 0; None: known with its next time
        self._last: float | None = None
        self._jumped: tuple[float, float] | None = None  # times of the frame before, if it was a jump

    def restart(self) -> None:
        """The source begins anew: its next frame follows the last one by a step."""
        self._offset = self._jumped = None

    def frame(self, time: float | None) -> float:
        """The time of the next frame, in seconds; `time` is that in the source."""
        expected = 0.0 if self._last is None else self._last + self._step
        if time is None:
            moment = expected
        elif self._offset is None:
            self._offset, moment = time - expected, expected
        else:
            moment = self._after_last(time, expected)
        self._last = moment
        return moment

    def sound(self, time: float) -> float | None:
        """The time of sound, in seconds; None where it is not known."""
        if self._offset is None or self._last is None:
            return None
        moment = time - self._offset
        return moment if abs(moment - self._last) <= self._longest else None

    def _after_last(self, time: float, expected: float) -> float:
        moment = time - self._offset
        if -JUMP < moment - self._last <= self._longest:
            self._jumped = None
            return max(moment, self._last + INSTANT)
        if self._jumped is not None:  # the second one in a row: no single wrong time
            before, shown = self._jumped
            self._offset = before - shown
            moment = time - self._offset
            if not -JUMP < moment - self._last <= self._longest:
                self._offset, moment = time - expected, expected
            self._jumped = None
            return max(moment, self._last + INSTANT)
        self._jumped = time, expected
        return expected
