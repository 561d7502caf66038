"""Measurements as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from benchmarks.common.results import Measurement, Row

SAME = 1e-4  # relative difference up to which results count as the same


def markdown_of(row: Row) -> str:
    """A heading, a table with a line for each measurement, and notes."""
    table = _table(row) if row.measurements else []
    return "\n".join([f"### {row.title}", "", *table, *_notes(row), ""])


def summary_of(rows: Iterable[Row]) -> str:
    """One line for each row of our fastest form: its time, and how many times faster than each baseline it is."""
    lines = ["| work | ours | seconds | faster than | less memory than |", "|---|---|---|---|---|"]
    for row in rows:
        ours = [m for m in row.measurements if m.name not in row.baseline and m.seconds and not m.details.get("other")]
        if row.headline:
            lines.append(f"| [{row.title}](#{anchor(row.title)}) | | | {row.headline} | |")
        if not ours or not row.baseline:
            continue
        best = min(ours, key=lambda found: found.seconds)
        faster, leaner = _ratios(row, best, "seconds"), _ratios(row, best, "peak")
        cells = [f"[{row.title}](#{anchor(row.title)})", best.name, seconds_text(best.seconds), faster, leaner]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def replace_part(path: Path, begin: str, end: str, text: str, heading: str = "# Benchmarks") -> None:
    """Write `text` between two markers of a file, whose other parts stay; without markers it goes to the end."""
    content = path.read_text(encoding="utf-8") if path.exists() else f"{heading}\n"
    before, found, rest = content.partition(begin)
    if not found:
        before = f"{content.rstrip()}\n\n"
    after = rest.partition(end)[2].lstrip("\n")
    path.parent.mkdir(parents=True, exist_ok=True)
    parts = [f"{before}{begin}\n", text.strip("\n"), f"{end}\n", *([after] if after else [])]
    path.write_text("\n".join(parts), encoding="utf-8")


def anchor(title: str) -> str:
    """The link target that GitHub makes of a heading."""
    kept = "".join(letter for letter in title.lower() if letter.isalnum() or letter in " -_")
    return kept.replace(" ", "-")


def machine_of(rows: Sequence[Row]) -> str:
    """Where and with what the rows were measured; rows of different machines are told apart."""
    seen: dict[str, list[str]] = {}
    for row in rows:
        seen.setdefault(_machine_text(row), []).append(row.key)
    if len(seen) == 1:
        return next(iter(seen))
    return "\n".join(f"- {', '.join(keys)}: {text}" for text, keys in seen.items())


def seconds_text(seconds: float) -> str:
    """Three digits, in s or ms."""
    if seconds < 0.1:
        return f"{seconds * 1e3:.3g} ms"
    return f"{seconds:.3g} s" if seconds < 1000 else f"{seconds:.0f} s"


def _table(row: Row) -> list[str]:
    has_memory = any(m.peaks for m in row.measurements)
    extra = list(dict.fromkeys(name for m in row.measurements for name in m.values))
    baselines = [name for name in row.baseline if (found := row.find(name)) and found.seconds]
    head = ["code"]
    if any(m.rounds for m in row.measurements):
        head += ["time", "spread", *(f"faster than {name}" for name in baselines)]
    if has_memory:
        head += ["peak memory", *(f"of {name}'s" for name in baselines)]
    lines = [f"| {' | '.join([*head, *extra])} |", "|---" * (len(head) + len(extra)) + "|"]
    for found in row.measurements:
        if found.problem and not found.rounds:
            lines.append(f"| {found.name} | not measured: {found.problem} {'| ' * (len(head) + len(extra) - 2)}|")
            continue
        cells = [found.name]
        if "time" in head:
            cells += [seconds_text(found.seconds), f"{found.spread:.0%}"] if found.seconds else ["", ""]
            cells += [_ratio(row.find(name).seconds, found.seconds, "×") for name in baselines]
        if has_memory:
            cells.append(f"{found.peak / 1e9:.2f} GB" if found.peak else "")
            cells += [_ratio(found.peak, row.find(name).peak, "×") for name in baselines]
        cells += [f"{found.values[name]:.6g}" if name in found.values else "" for name in extra]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _notes(row: Row) -> list[str]:
    notes = list(row.notes)
    checked = [m for m in row.measurements if m.check]
    if row.find("plain") in checked:
        reference = row.find("plain").check
        largest = {m.name: _difference(m.check, reference) for m in checked if m.name != "plain"}
        shown = [f"{name} {value:.0e}" for name, value in largest.items() if value <= SAME]
        if shown:
            notes.append(f"Largest relative difference of sampled results from those of plain: {', '.join(shown)}.")
    return ["", *notes] if notes else []


def _difference(one: Sequence[float], other: Sequence[float]) -> float:
    if len(one) != len(other):
        return float("inf")
    return max((abs(a - b) / max(abs(b), 1e-12) for a, b in zip(one, other)), default=float("inf"))


def _ratio(one: float | None, other: float | None, sign: str) -> str:
    return f"{one / other:.2f}{sign}" if one and other else ""


def _ratios(row: Row, best: Measurement, what: str) -> str:
    parts = []
    for name in row.baseline:
        baseline = row.find(name)
        value = getattr(baseline, what) if baseline else None
        if value and getattr(best, what):
            ratio = value / getattr(best, what)
            parts.append(f"{name} {ratio:.2f}×" if what == "seconds" else f"{name} {1 / ratio:.2f}×")
    return ", ".join(parts)


def _machine_text(row: Row) -> str:
    machine = row.machine
    if not machine:
        return "machine unknown"
    versions = ", ".join(f"{name} {version}" for name, version in machine.get("versions", {}).items())
    devices = dict.fromkeys(m.details.get("device") for m in row.measurements if m.details.get("device"))
    others = [name for name in devices if name != "cpu"]
    device = f"{', '.join(others)}; " if others else ""
    threads = sorted({str(m.details["threads"]) for m in row.measurements if "threads" in m.details})
    return (
        f"{device}{machine['processor']}, {machine['cores']} cores, {', '.join(machine['features'])}; "
        f"{machine['memory_gb']} GB; {machine['system']}; Python {machine['python']}, {versions}"
        + (f"; threads: {', '.join(threads)}" if threads else "")
    )
