"""Parts of a report: the kinds of errors with what each costs, and the worst images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from training.report.drawing import COLORS, draw_errors
from util.logging import get_logger
from util.pages.charts import bars
from util.pages.markup import Html, text_html
from util.pages.page import Page
from util.pages.pictures import jpeg_uri

if TYPE_CHECKING:
    from training.report.page import RunFiles

MEANINGS = {
    "classification": "a box around an object, with another class (IoU ≥ 0.5)",
    "localisation": "the right class, but the box fits badly (IoU 0.1 to 0.5)",
    "both": "another class, and the box fits badly",
    "duplicate": "a second box around an object that is found already",
    "background": "a box where no object is (IoU < 0.1)",
    "missed": "an object that no detection is about",
}
GROUPS = {
    "missed": ("Missed", "objects that no detection finds"),
    "invented": ("Invented", "boxes where no object is, and second boxes around one object"),
    "mislabelled": ("Mislabelled", "boxes with another object's class"),
    "misplaced": ("Misplaced", "boxes of the right class that fit badly"),
}
BUDGET = 3_000_000  # bytes of the page up to which images are added
SIDE, QUALITY = 480, 76  # pixels of an image's longer side; of JPEG


def add_errors(page: Page, files: RunFiles) -> None:
    """The errors of the last evaluation."""
    found = files.errors
    if found is None:
        return
    page.heading("Errors")
    kinds = found["kinds"]
    wrong = found["detections"] - found["found"]
    page.paragraph(
        f"At score ≥ {found['threshold']:.3g}, where F1 is best, {found['found']:,} of {found['objects']:,} objects "
        f"are found, and {wrong:,} of {found['detections']:,} detections are wrong."
    )
    costs = {row["kind"]: None if row["AP_cost"] is None else round(row["AP_cost"], 3) for row in kinds}
    known = {kind: cost for kind, cost in costs.items() if cost}
    if known and found["AP50"] is not None:
        worst = max(known, key=known.__getitem__)
        page.paragraph(f"AP50 is {found['AP50']:.3f}; most of what is lacking is lost to errors of this kind: {worst}.")
    page.charts(bars(list(costs), {"AP50": list(costs.values())}, title="AP50 that each kind of errors costs"))
    page.table(
        ["kind", "costs AP50", "at this score", "what it is"],
        [[row["kind"], costs[row["kind"]], row["count"], MEANINGS.get(row["kind"], "")] for row in kinds],
    )
    page.paragraph(
        "The kinds and their costs are those of TIDE (Bolya et al. 2020): a cost is how much AP50 would rise if the "
        "errors of this kind alone were corrected. Costs do not add up, and they are those of detections of all "
        "scores: an object that is missed at the score above may be found at a lower one."
    )
    _add_images(page, files, found["pictures"])


def _add_images(page: Page, files: RunFiles, pictures: list[dict[str, Any]]) -> None:
    page.heading("Worst images")
    if not pictures:
        page.paragraph("At this score there is no error to show.")
        return
    names = {k: row["name"] or f"class {row['id']}" for k, row in enumerate(files.errors["per_class"])}
    page.add(_legend())
    unreadable, left_out = [], 0
    for group, (title, meaning) in GROUPS.items():
        chosen = [picture for picture in pictures if picture["group"] == group]
        if not chosen:
            continue
        page.subheading(f"{title}: {meaning}")
        for picture in chosen:
            said = _caption(picture, names)
            if page.size > BUDGET:
                left_out += 1
                page.paragraph(f"{picture['file_name']}: {said}")
                continue
            drawn = draw_errors(files.images, picture, names, SIDE) if files.images is not None else None
            if drawn is None:
                unreadable.append(str(picture["file_name"]))
                page.paragraph(f"{picture['file_name']}: {said} (the image could not be read)")
                continue
            page.add(_pair([jpeg_uri(image, SIDE, QUALITY) for image in drawn], str(picture["file_name"]), said))
    if unreadable:
        sentence = f"{len(unreadable)} of these images could not be read, first {unreadable[0]}"
        get_logger().warning(f"report: {sentence} in {files.images}")
        page.note(f"{sentence}: to show them, run python -m tools.report RUN --images FOLDER", "warning")
    if left_out:
        page.paragraph(f"{left_out} images are not shown, to keep this page small.")


def _pair(uris: list[Html], name: str, said: str) -> Html:
    """Truth and prediction beside each other, or below each other on a phone."""
    images = "".join(
        f'<img src="{uri}" alt="{what}" title="{what}">' for uri, what in zip(uris, ("ground truth", "prediction"))
    )
    return Html(
        f'<figure class="picture pair"><div>{images}</div><figcaption><b>{text_html(name, 200)}</b> {text_html(said)}'
        "</figcaption></figure>"
    )


def _legend() -> Html:
    words = {
        "correct": "found",
        "missed": "missed",
        "invented": "invented",
        "mislabelled": "mislabelled",
        "misplaced": "misplaced",
        "crowd": "crowd region",
    }
    chips = "".join(
        f'<span><i style="background:rgb{COLORS[name]}"></i>{text_html(word)}</span>' for name, word in words.items()
    )
    return Html(f'<p>The truth comes first, then the detections.</p><div class="legend">{chips}</div>')


def _caption(picture: dict[str, Any], names: dict[int, str]) -> str:
    """The errors in words, such as "2 missed (cat, dog); mislabelled: dog 0.93 is a cat"."""
    objects, parts = picture["objects"], []
    missed = [names[one["class"]] for one in objects if one["missed"]]
    if missed:
        parts.append(f"{len(missed)} missed ({_few(missed)})")
    said: dict[str, list[str]] = {}
    for one in picture["detections"]:
        what = f"{names[one['class']]} {one['score']:.2f}"
        place = one["object"]
        if one["kind"] in ("classification", "both") and place is not None:
            truth = names[objects[place]["class"]]
            said.setdefault("mislabelled", []).append(f"{what} is {truth}, IoU {one['iou']:.2f}")
        elif one["kind"] == "localisation":
            said.setdefault("misplaced", []).append(f"{what}, IoU {one['iou']:.2f}")
        elif one["kind"] == "duplicate":
            said.setdefault("found twice", []).append(what)
        elif one["kind"] != "correct":
            said.setdefault("invented", []).append(what)
    parts += [f"{len(found)} {kind} ({_few(found)})" for kind, found in said.items()]
    return "; ".join(parts)


def _few(words: list[str], most: int = 4) -> str:
    words = [word if len(word) <= 60 else word[:59] + "…" for word in words]
    return ", ".join(words[:most]) + (f" and {len(words) - most} more" if len(words) > most else "")
