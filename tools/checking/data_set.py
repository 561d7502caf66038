"""A data set's folder → what was read of it, and everything that was found."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from datasets.formats.faults import Fault, collected_faults
from datasets.formats.find import find_data
from datasets.formats.part import FoundData
from tools.checking.amounts import amount_findings
from tools.checking.boxes import box_findings
from tools.checking.classes import class_findings
from tools.checking.duplicates import duplicate_findings
from tools.checking.entries import PartData, relative, usable_entries
from tools.checking.findings import Finding, Level, Place, counted, finding, in_order
from tools.checking.masks import mask_findings
from tools.checking.model import ModelFacts
from tools.checking.overlaps import overlap_findings
from tools.checking.pictures import fill_in_sizes, missing_rows, picture_findings, unlisted_findings, wanted_of
from tools.checking.scan import Seen, scan
from util.logging import get_logger

ORDER = ("train", "val", "test")
DOUBT = re.compile(r"\bwrong\b|have no image")  # in what a reader logs: something is lost, or in the wrong place
Step = Callable[[int], object]


@dataclass
class Checked:
    """What was read and found.

    Attributes:
        sentence: the format, with counts.
        parts: those that could be read, in the order train, val, test.
        seen: for each part: row of the picture → what its file says; missing files are left out.
        findings: the worst first.
        complete: every part's annotations could be read.
    """

    sentence: str
    parts: list[PartData]
    seen: list[dict[int, Seen]]
    findings: list[Finding]
    complete: bool


def check(folder: Path, facts: ModelFacts, workers: int, start: Callable[[int], Step] | None = None) -> Checked:
    """Check a data set's folder against what the model will see.

    Args:
        folder: of any format that `find_data` recognises.
        facts: of the model.
        workers: processes that read pictures.
        start: called with the number of pictures to read; returns what is called with the number of those just read.

    Raises:
        FileNotFoundError, OSError, ValueError: the folder is not recognised.
    """
    data = find_data(folder)
    parts, findings = read_parts(data)
    missing = [missing_rows(part) for part in parts]
    wanted = [wanted_of(part, rows, facts) for part, rows in zip(parts, missing, strict=True)]
    every = [(p, row) for p, rows in enumerate(wanted) for row in rows]
    step = start(len(every)) if start else lambda count: None
    found = scan([wanted[p][row] for p, row in every], workers, step)
    seen: list[dict[int, Seen]] = [{} for _ in parts]
    for (p, row), one in zip(every, found, strict=True):
        seen[p][row] = one
    for part, of_part in zip(parts, seen, strict=True):
        fill_in_sizes(part, of_part)
    findings += _everything(parts, missing, seen, facts, data)
    return Checked(data.sentence(), parts, seen, in_order(findings), len(parts) == len(data.parts) + len(data.unusable))


def read_parts(data: FoundData) -> tuple[list[PartData], list[Finding]]:
    """The parts that can be read, and findings about what cannot."""
    parts, findings = [], []
    with collected_faults() as faults:
        for name in sorted(data.parts, key=lambda name: (ORDER.index(name) if name in ORDER else len(ORDER), name)):
            part = data.parts[name]
            source = relative(part.source, data.root)
            with captured_warnings() as remarks:
                try:
                    read, found = usable_entries(name, part.read(), part.images, part.source, data.root)
                except (OSError, ValueError) as error:
                    findings.append(_unreadable(name, source, error))
                else:
                    parts.append(read)
                    findings += found
            findings += _remarks(name, source, remarks)
    findings += [_unusable(name, data.root, fault) for name, fault in data.unusable.items()]
    if faults:
        findings.append(_left_out(faults, data.root))
    return parts, findings


@contextmanager
def captured_warnings() -> Iterator[list[str]]:
    """Context in which the logger's messages are collected instead of printed."""
    collected: list[str] = []

    def keep(record: logging.LogRecord) -> bool:
        collected.append(record.getMessage())
        return False

    logger = get_logger()
    logger.addFilter(keep)
    try:
        yield collected
    finally:
        logger.removeFilter(keep)


def _left_out(faults: Sequence[Fault], root: Path) -> Finding:
    places = [Place("", relative(fault.path, root), str(fault.error)) for fault in faults]
    count = len({place.file for place in places})
    return finding(
        "annotation-file-unreadable",
        Level.STOPS,
        f"{counted(count, 'annotation file')} cannot be used",
        "Training stops at the first. Correct the files, or remove them with their pictures; the rest of this report "
        "leaves out what is wrong in them.",
        places,
        count=count,
        weight=2,
    )


def _remarks(name: str, source: str, sentences: Sequence[str]) -> Iterator[Finding]:
    """What the reader logged: a finding that hurts if it says that something may be wrong, else a note."""
    for level, hurts in ((Level.HURTS, True), (Level.NOTE, False)):
        said = [sentence for sentence in sentences if bool(DOUBT.search(sentence)) == hurts]
        if said:
            yield finding(
                "reading",
                level,
                f"reading the annotations of {name} left {counted(len(said), 'remark')}"
                + (": objects may be lost, or in the wrong place" if hurts else ""),
                "See the remark for what to do." if hurts else "Nothing to do, if what was read is what was meant.",
                [Place(name, source, sentence) for sentence in said],
                weight=1.2 if hurts else 0.3,
            )


def _unreadable(name: str, source: str, error: Exception) -> Finding:
    return finding(
        "annotations-unreadable",
        Level.STOPS,
        f"the annotations of {name} cannot be read",
        "Nothing else about this part could be checked. Correct the file, and check again.",
        [Place(name, source, str(error))],
        weight=4,
    )


def _unusable(name: str, root: Path, fault: str) -> Finding:
    advice = "Correct what is named, and check again."
    if name == "val":
        advice += " To train without it, pass --val_share 0.15, which splits off a share of the training pictures."
    return finding(
        "part-unusable",
        Level.STOPS,
        f"the {name} part cannot be used",
        advice,
        [Place(name, str(root), fault)],
        weight=4,
    )


def _everything(
    parts: Sequence[PartData],
    missing: Sequence[Sequence[int]],
    seen: Sequence[dict[int, Seen]],
    facts: ModelFacts,
    data: FoundData,
) -> Iterator[Finding]:
    for part, absent, of_part in zip(parts, missing, seen, strict=True):
        yield from picture_findings(part, absent, of_part)
        yield from box_findings(part, facts)
        yield from overlap_findings(part)
        yield from mask_findings(part, facts)
    if parts:
        yield from unlisted_findings(parts)
        yield from class_findings(parts, facts)
        yield from duplicate_findings(parts, seen)
        yield from amount_findings(parts, facts, data)
