"""Data sets as they lie on disk, in any of several formats, read into COCO's form in memory."""

from datasets.formats.find import find_data
from datasets.formats.part import FoundData, Part

__all__ = ["FoundData", "Part", "find_data"]
