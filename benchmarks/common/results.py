"""What is measured, as plain data that can be saved as JSON and turned into tables again."""

from __future__ import annotations

import json
import os
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Measurement:
    """One piece of code at one piece of work.

    Attributes:
        name: of the code, as the table shows it.
        rounds: for each fresh process, the seconds of each repetition.
        peaks: for each fresh process, the most memory that it ever held, in bytes; on CUDA, the most that tensors held.
        values: other numbers, name → value, such as the number of waits.
        check: some numbers of the result; two pieces of code that compute the same have nearly the same.
        problem: why there is no measurement, or an empty text.
        details: what else is worth knowing: device, versions, options.
    """

    name: str
    rounds: list[list[float]] = field(default_factory=list)
    peaks: list[int] = field(default_factory=list)
    values: dict[str, float] = field(default_factory=dict)
    check: list[float] = field(default_factory=list)
    problem: str = ""
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def seconds(self) -> float | None:
        """The median over rounds of the median over repetitions."""
        medians = self.medians()
        return statistics.median(medians) if medians else None

    @property
    def spread(self) -> float | None:
        """(largest − smallest) / median of the rounds' medians."""
        medians = self.medians()
        return (max(medians) - min(medians)) / statistics.median(medians) if medians else None

    @property
    def peak(self) -> float | None:
        """The median over rounds of the largest memory, in bytes."""
        return statistics.median(self.peaks) if self.peaks else None

    def medians(self) -> list[float]:
        """The median of each round."""
        return [statistics.median(seconds) for seconds in self.rounds if seconds]


@dataclass
class Row:
    """Measurements of the same work.

    Attributes:
        key: short name, as in `--only`.
        title: what the work is.
        baseline: names of the measurements that ratios are relative to.
        measurements: one for each piece of code.
        notes: lines below the table.
        headline: what the summary says of a row without baseline.
        raw: measurements in another form, only kept.
        machine: see `common.machine`.
    """

    key: str
    title: str
    baseline: list[str] = field(default_factory=list)
    measurements: list[Measurement] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    headline: str = ""
    raw: list[Any] = field(default_factory=list)
    machine: dict[str, Any] = field(default_factory=dict)

    def find(self, name: str) -> Measurement | None:
        """The measurement with this name, if there is one."""
        return next((found for found in self.measurements if found.name == name), None)


def row_of(content: Mapping[str, Any]) -> Row:
    """A row from its JSON form."""
    measurements = [Measurement(**entry) for entry in content.get("measurements", [])]
    return Row(**{**content, "measurements": measurements})


def read_rows(path: Path) -> list[Row]:
    """The rows of a file that `write_rows` wrote; none if there is no file."""
    if not path.exists():
        return []
    return [row_of(entry) for entry in json.loads(path.read_text(encoding="utf-8"))["rows"]]


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """Write rows as JSON; the file is complete at all times."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    content = {"rows": [asdict(row) for row in rows]}
    partial.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    os.replace(partial, path)
