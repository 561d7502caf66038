"""From evidence to the likeliest cause of a run that does not learn.

Each check looks for one cause and gives a sentence only where the evidence tells it apart from the others.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from training.diagnosis.evidence import DataFacts, Found

# The names of the causes, for scripts
RATE_ZERO = "learning_rate_zero"
RATE_HIGH = "learning_rate_too_high"
RATE_LOW = "learning_rate_too_low"
LABELS = "labels_shifted"
CORNERS = "boxes_as_corners"
QUERIES = "too_few_queries"
TINY = "objects_too_small"
FROZEN = "frozen_random_backbone"
STEPS = "too_few_steps"
UNKNOWN = "unknown"

UNCHANGED = 1e-5  # relative change of weights that is as good as none
INVISIBLE = 3.0  # pixels at the model's input: below, an object is a pixel or two
READABLE = 8  # pixels that the advice aims at
MOST = 0.5  # share of objects, of all or of one class, that count as most
AGREEING = 0.8  # share of objects with one offset between class and prediction
PAIRS = 5  # found objects that are needed to tell an offset
FAR = 0.1  # share of boxes that reach far beyond their image
LOWER = 0.9  # a loss lower than this share of another one is clearly lower
FELL = 0.9  # a loss that ends below this share of its beginning has fallen
FEW_STEPS = 100  # in fewer, nothing is learned from scratch
USUAL_RATE, ABSURD_RATE = 1e-3, 1e-2  # DETR is hardly ever trained with more than the one, never with the other


class Cause(NamedTuple):
    """A cause by its name, and a sentence that begins in lower case: what was seen, and what to do."""

    name: str
    sentence: str


@dataclass
class Trial:
    """The same few steps with all learning rates multiplied by `factor`.

    Attributes:
        loss, usual: at the end of these steps, with the other rates and with the run's own.
    """

    factor: float
    steps: int
    loss: float
    usual: float

    @property
    def is_better(self) -> bool:
        return self.loss < LOWER * self.usual


@dataclass
class Evidence:
    """What is known of a run. What is not known keeps its default and tells nothing.

    Attributes:
        queries, lr, lr_backbone, size: the settings; `size` is the short side in pixels.
        steps: taken in all.
        data: its pictures.
        classes: ids of the classes with objects, in training and in evaluation, if they are different pictures.
        names: class id → name.
        found: what the last evaluation's detections have found.
        found_before: the same for the detector that the run starts from, before the first step.
        frozen: parts of the backbone that stay random.
        changes: relative change of the weights that train, by part.
        losses: of the steps or epochs, in order.
        fault: what was not finite; empty if nothing was.
        trials: of other learning rates.
    """

    queries: int
    lr: float
    lr_backbone: float
    size: int
    steps: int = 0
    data: DataFacts | None = None
    classes: tuple[set[int], set[int]] | None = None
    names: Mapping[int, str] = field(default_factory=dict)
    found: Found | None = None
    found_before: Found | None = None
    frozen: Sequence[str] = ()
    changes: Mapping[str, float] = field(default_factory=dict)
    losses: Sequence[float] = ()
    fault: str = ""
    trials: Sequence[Trial] = ()


def find_causes(evidence: Evidence) -> list[Cause]:
    """The causes that the evidence shows, the likeliest first; empty if it shows none."""
    found = ((name, check(evidence)) for name, check in CHECKS.items())
    return [Cause(name, sentence) for name, sentence in found if sentence]


def find_oddities(evidence: Evidence) -> list[Cause]:
    """What is wrong with the data although a model can learn them: labels and boxes that mean something else."""
    return [cause for cause in find_causes(evidence) if cause.name in (LABELS, CORNERS)]


def otherwise(evidence: Evidence) -> Cause:
    """What to say where no cause was found."""
    if evidence.fault:
        return Cause(UNKNOWN, f"{evidence.fault}, also with lower learning rates: look for bad values in the data")
    first, last = _ends(evidence.losses)
    if last < FELL * first or evidence.steps < FEW_STEPS:
        return Cause(
            STEPS,
            f"none of the other causes was found, and the loss went from {first:.3g} to {last:.3g}: the steps were "
            "probably too few; raise --max_steps (and --overfit_minutes), or start from a detector with --init_from",
        )
    return Cause(
        UNKNOWN,
        f"none of the known causes was found; the loss went from {first:.3g} to {last:.3g}: look at the boxes in "
        "eval/detections.png",
    )


def _ends(losses: Sequence[float]) -> tuple[float, float]:
    """The mean of the first tenth and of the last tenth of the losses; NaN if there are none."""
    part = max(1, len(losses) // 10)
    return (float(np.mean(losses[:part])), float(np.mean(losses[-part:]))) if len(losses) else (math.nan, math.nan)


def _rate_zero(evidence: Evidence) -> str:
    still = [part for part, change in evidence.changes.items() if change <= UNCHANGED]
    if evidence.lr == 0 and not evidence.changes:
        still = ["transformer"]
    if "transformer" not in still:
        return ""
    whose = "no weight" if len(still) >= len(evidence.changes) else "no weight of the transformer"
    return f"{whose} has changed, since the learning rate is {evidence.lr:g}: pass a higher --lr, such as 1e-4"


def _labels_shifted(evidence: Evidence) -> str:
    data = evidence.data
    if data is not None and (offset := _common_offset(data.offsets)):
        return (
            f"{data.offsets[offset]} of {data.offsets.total()} labels that the model is taught are shifted by "
            f"{offset:+d} from the ids in the annotations: correct what changes the labels between reading and training"
        )
    if evidence.classes is not None and (sentence := _compare_parts(*evidence.classes)):
        return sentence
    for found, whose in (
        (evidence.found_before, "the detector that the run starts from"),
        (evidence.found, "the trained model"),
    ):
        sentence = _shift_of(found, evidence.names, whose) if found is not None else ""
        if sentence:
            return sentence
    if data is not None and data.background:
        return (
            f"{data.background}, which a detector has no class for: the ids are probably shifted by one; correct "
            "`category_id` of the annotations, or the names of the categories"
        )
    return ""


def _common_offset(offsets: Counter[int]) -> int:
    """The offset other than 0 that nearly all objects share; 0 if there is none."""
    if not offsets:
        return 0
    offset, count = offsets.most_common(1)[0]
    return offset if count >= AGREEING * offsets.total() else 0


def _compare_parts(train: set[int], val: set[int]) -> str:
    """A sentence if the classes of the two parts are the same but for a constant, or have nothing in common."""
    if not train or not val:
        return ""
    offset = min(val) - min(train)
    shifted = offset and val == {label + offset for label in train}
    if not shifted and train & val:
        return ""
    ids = [", ".join(map(str, sorted(some)[:4])) + (", …" if len(some) > 4 else "") for some in (train, val)]
    seen = f"the objects have the class ids {ids[0]} in training and {ids[1]} in evaluation"
    what = f"shifted by {offset:+d}" if shifted else "those of other classes"
    return f"{seen}, {what}: write the same ids and names in both annotation files"


def _shift_of(found: Found, names: Mapping[int, str], whose: str) -> str:
    """A sentence if the predicted classes are those of the annotations under other ids, for two classes at least.

    With one class only, that cannot be told from a class that the model has not learned yet.
    """
    usual = {  # class → the one that is predicted most often for it
        int(label): Counter(found.predicted[found.truth == label].tolist()).most_common(1)[0][0]
        for label in np.unique(found.truth)
    }
    agrees = np.array([usual[label] for label in found.truth.tolist()], dtype=np.int64) == found.predicted
    offsets = Counter(usual[label] - label for label in found.truth.tolist())
    moved = found.truth != found.predicted
    one_to_one = len(set(usual.values())) == len(usual) >= 2
    if len(agrees) < PAIRS or not one_to_one or min(agrees.mean(), moved.mean()) < AGREEING:
        return ""
    offset = offsets.most_common(1)[0][0]
    example = min(label for label in usual if usual[label] - label == offset)
    quoted = [f"{k} ({names[k]!r})" if k in names else str(k) for k in (usual[example], example)]
    how = f"that is shifted by {offset:+d}" if len(offsets) == 1 else "that belongs to another one"
    shifted = int((moved & agrees).sum())
    return (
        f"{whose} finds {len(agrees)} of {found.objects} objects and gives {shifted} of them a class id {how}, such as "
        f"{quoted[0]} for {quoted[1]}: the labels are probably shifted; compare `category_id` of the annotations with "
        "the ids in `categories`"
    )


def _boxes_as_corners(evidence: Evidence) -> str:
    data = evidence.data
    remedy = "if the annotations are corners, write [x0, y0, x1 - x0, y1 - y0] as `bbox`"
    if data is not None:
        total = data.forms.total()
        for form, meaning in (("corners", "corners [x0, y0, x1, y1]"), ("raw", "[x, y, width, height]")):
            if total and data.forms[form] >= AGREEING * total:
                return (
                    f"{data.forms[form]} of {total} boxes reach the model as {meaning} instead of centre and size: "
                    "convert them to [centre x, centre y, width, height], in fractions of the image"
                )
        if data.far >= max(2, FAR * data.annotations) and data.fitting == data.far:
            everything = data.corner_like == data.annotations
            if everything or data.far >= MOST * data.annotations:
                return (
                    f"{data.far} of {data.annotations} boxes reach far beyond their image when read as [x, y, width, "
                    f"height], and all of these fit into it as corners [x0, y0, x1, y1]: {remedy}"
                )
    before = evidence.found_before
    if before is not None and before.as_corners >= max(PAIRS, 2 * len(before.truth)):
        return (
            f"the detector that the run starts from finds {len(before.truth)} of {before.objects} boxes when they are "
            f"read as [x, y, width, height], but {before.as_corners} when they are read as corners [x0, y0, x1, y1]: "
            f"{remedy}"
        )
    return ""


def _too_few_queries(evidence: Evidence) -> str:
    if evidence.data is None or not (evidence.data.objects > evidence.queries).any():
        return ""
    objects = evidence.data.objects
    reachable = np.minimum(objects, evidence.queries).sum() / objects.sum()
    over, most = int((objects > evidence.queries).sum()), int(objects.max())
    return (
        f"{over} of {len(objects)} pictures {'has' if over == 1 else 'have'} more objects (up to {most}) than the "
        f"model has queries ({evidence.queries}), so that it can find {100 * reachable:.0f}% of the objects at most: "
        f"pass --num_queries {most} or more"
    )


def _objects_too_small(evidence: Evidence) -> str:
    data = evidence.data
    if data is None or not len(data.sides):
        return ""
    sides = np.sqrt(data.sides.prod(axis=1))  # [n], of squares of the same area
    small = sides < INVISIBLE
    hidden = [label for label in np.unique(data.labels).tolist() if small[data.labels == label].mean() > MOST]
    if small.mean() > MOST:
        chosen, of = np.ones(len(sides), dtype=bool), ""
    elif hidden:
        chosen = data.labels == hidden[0]
        name = evidence.names.get(hidden[0])
        of = f" of class {hidden[0]}" + (f" ({name!r})" if name else "")
    else:
        return ""
    median = float(np.median(sides[chosen]))
    stored = float(np.median(np.sqrt(data.stored[chosen].prod(axis=1))))
    found = (
        f"{int(small[chosen].sum())} of {int(chosen.sum())} objects{of} are hardly visible: they are about "
        f"{median:.2g} pixels wide at the model's input (short side {evidence.size})"
    )
    if stored < READABLE:
        return f"{found}, and {stored:.2g} in the image file: cut the pictures into tiles and enlarge these"
    wanted = math.ceil(evidence.size * READABLE / median / 32) * 32
    return f"{found}: pass larger sizes, such as --val_size {wanted} --train_sizes {wanted} and --max_size to match"


def _rate_high(evidence: Evidence) -> str:
    better = [trial for trial in evidence.trials if trial.factor < 1 and trial.is_better]
    if not better:
        if evidence.trials or evidence.lr == 0:
            return ""
        first, last = _ends(evidence.losses)
        seen = evidence.fault
        if evidence.lr >= ABSURD_RATE or (evidence.lr > USUAL_RATE and last >= first):
            seen = seen or f"the loss went from {first:.3g} to {last:.3g}"
        advice = f"the learning rate is probably too high ({_rates(evidence, 1)}); pass a lower one, 1e-4 is usual"
        return f"{seen}: {advice}" if seen else ""
    best = min(better, key=lambda trial: trial.loss)
    usual = f"{best.usual:.3g}" if math.isfinite(best.usual) else "a number that is not finite"
    return (
        f"the learning rate is too high ({_rates(evidence, 1)}): in {best.steps} steps the loss comes to {usual}, but "
        f"to {best.loss:.3g} with {_rates(evidence, best.factor)}"
    )


def _rate_low(evidence: Evidence) -> str:
    better = [trial for trial in evidence.trials if trial.factor > 1 and trial.is_better]
    if not better:
        return ""
    best = min(better, key=lambda trial: trial.loss)
    return (
        f"the learning rate is low ({_rates(evidence, 1)}): in {best.steps} steps the loss comes to {best.usual:.3g}, "
        f"but to {best.loss:.3g} with {_rates(evidence, best.factor)}"
    )


def _rates(evidence: Evidence, factor: float) -> str:
    return f"--lr {evidence.lr * factor:g} --lr_backbone {evidence.lr_backbone * factor:g}"


def _frozen_backbone(evidence: Evidence) -> str:
    if not evidence.frozen:
        return ""
    parts = ", ".join(evidence.frozen)
    return (
        f"the backbone's frozen layers ({parts}) have random weights, so that little of the picture is left: train all "
        "of it with --trainable_layers 5 and a positive --lr_backbone, or give it weights (--init_from, "
        "--backbone_weights)"
    )


# In the order of likelihood: first what can be measured and explains a failure by itself.
CHECKS: dict[str, Callable[[Evidence], str]] = {
    RATE_ZERO: _rate_zero,
    LABELS: _labels_shifted,
    CORNERS: _boxes_as_corners,
    QUERIES: _too_few_queries,
    TINY: _objects_too_small,
    RATE_HIGH: _rate_high,
    FROZEN: _frozen_backbone,
    RATE_LOW: _rate_low,
}
