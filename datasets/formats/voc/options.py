"""What a user decides about Pascal VOC, because its files do not say it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class VocOptions:
    """How VOC's files are read.

    Attributes:
        difficult: what becomes of objects that are marked difficult. "ignore": they are crowd regions, which training
            leaves out and COCO's evaluation counts neither as found nor as missed, as VOC's does; "keep": they are
            objects as any other; "drop": they are left out, so that finding them is a mistake.
        origin: 1, as in VOC: pixels are counted from 1 and a box includes its last one, so that x is xmin - 1 and the
            width xmax - xmin + 1. 0: corners are coordinates, as some tools write them, and the width is xmax - xmin.
    """

    difficult: str = "ignore"
    origin: int = 1
