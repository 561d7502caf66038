"""Which categories a table in the log shows: those that occur, and of very many the best and the worst."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

TABLE_ROWS = 100


def rows_to_show(
    rows: Sequence[dict[str, Any]], by: str, what_is_absent: str, file: str
) -> tuple[list[dict[str, Any] | None], list[str]]:
    """The rows of a table, and what to say below it.

    Args:
        rows: of all categories.
        by: the number that ranks them; below 0 for a category that does not occur.
        what_is_absent: said of the categories that do not occur, such as "have no ground truth".
        file: lists all categories.

    Returns:
        (the rows of the categories that occur, with None in place of a gap: of more than `TABLE_ROWS` the best and the
        worst are shown, the best first; lines about those left out).
    """
    shown = [row for row in rows if row[by] >= 0]
    notes = []
    if len(shown) < len(rows):
        notes.append(f"{len(rows) - len(shown):,} of {len(rows):,} categories {what_is_absent}: left out")
    if len(shown) <= TABLE_ROWS:
        return list(shown), notes
    half = TABLE_ROWS // 2
    notes.append(f"{len(shown) - 2 * half:,} categories between are left out: {file} has all")
    shown.sort(key=lambda row: -row[by])
    return [*shown[:half], None, *shown[-half:]], notes
