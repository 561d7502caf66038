"""The last part of a report: what was run, on what."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from util.pages.page import Page
from util.settings import SETTINGS

if TYPE_CHECKING:
    from training.report.page import RunFiles

PARTS = {"train": "training images", "val": "evaluated images"}


def add_settings(page: Page, files: RunFiles) -> None:
    """The command, the settings, the data and the versions."""
    run = files.run
    if run is None:
        return
    page.heading("Run")
    if run.get("command"):
        page.subheading("Command")
        page.code(run["command"])
    page.subheading("The same settings as flags")
    page.code(run["equal_command"])

    page.subheading("Data")
    columns = ("images", "objects", "classes", "fingerprint", "folder", "annotations")
    rows = [[PARTS.get(part, part), *(found.get(name) for name in columns)] for part, found in run["data"].items()]
    page.table(["", *columns], rows)

    page.subheading("Settings")
    settings = run["settings"]
    changed = {name: value for name, value in settings.items() if name in SETTINGS and value != SETTINGS[name].default}
    page.table(
        ["setting", "value", "default"],
        [[name, _shown(value), _shown(SETTINGS[name].default)] for name, value in changed.items()],
        "Settings other than the defaults",
    )
    with page.folded(f"All {len(settings)} settings"):
        page.facts({name: _shown(value) for name, value in settings.items()})
    page.subheading("Versions")
    page.facts({name: _shown(value) for name, value in run["versions"].items()})


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(map(_shown, value))
    if isinstance(value, bool):
        return "on" if value else "off"
    if value is None or value == "":
        return "–"
    return f"{value:g}" if isinstance(value, float) else str(value)
