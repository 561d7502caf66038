"""The score threshold of each class, from a checkpoint's entry `thresholds`, which evaluation writes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from util.errors import CheckpointError
from util.files import is_count, is_number
from util.text import printable

FALLBACK = 0.5  # if no object was found in the evaluation
FEW = 10  # objects; below, a threshold is little more than chance
SHOWN = 20  # classes in the sentence


@dataclass(frozen=True)
class ClassThresholds:
    """The score from which a detection of each class counts.

    Attributes:
        by_class: class id → threshold, of the classes that the evaluation found.
        others: of all other classes: the best of all classes together, or `FALLBACK`.
        objects: class id → objects in the evaluation.
    """

    by_class: Mapping[int, float]
    others: float
    objects: Mapping[int, int]

    @classmethod
    def read(cls, checkpoint: Mapping[str, Any], source: str) -> ClassThresholds:
        """Those of a checkpoint.

        Raises:
            CheckpointError: it has none, or they are damaged; the message says how to get them.
        """
        entry = checkpoint.get("thresholds")
        if entry is None:
            raise CheckpointError(
                f"{source} has no thresholds, as its weights were not evaluated or it is of an earlier version: write "
                "a copy that has them with `python main.py --eval --resume CHECKPOINT --save_thresholds COPY.pth` and "
                "the flags of your data, or pass a number as the threshold, such as 0.5"
            )
        if not is_thresholds(entry):
            raise CheckpointError(f"`thresholds` of {source} is damaged: pass a number as the threshold, such as 0.5")
        classes = {one["id"]: one for one in entry["classes"]}
        return cls(
            {number: float(one["threshold"]) for number, one in classes.items() if one["threshold"] is not None},
            FALLBACK if entry["overall"] is None else float(entry["overall"]["threshold"]),
            {number: one["objects"] for number, one in classes.items()},
        )

    def reached(self, scores: Tensor, labels: Tensor) -> Tensor:
        """Whether each detection counts: bool [n]. In float64, as exact as the comparison that decided the thresholds.

        Args:
            scores: [n].
            labels: class ids [n].
        """
        least = [self.by_class.get(label, self.others) for label in labels.tolist()]
        return scores.double() >= torch.tensor(least, dtype=torch.float64, device=scores.device)

    def plain(self) -> dict[str, float]:
        """As plain data: class id → threshold, and `others`."""
        return {**{str(number): self.by_class[number] for number in sorted(self.by_class)}, "others": self.others}

    def sentence(self, names: Mapping[int, str]) -> str:
        """What is said about them: `thresholds from the validation set: RBC 0.43, WBC 0.71`.

        Args:
            names: class id → name, of the classes to speak of.
        """
        own = [number for number in sorted(names) if number in self.by_class]
        rest = len(names) - len(own)
        if not own:
            why = "best of all classes together" if self.by_class else "default, since no object was found in it"
            return f"thresholds from the validation set: {self.others:.3g} for every class, the {why}"
        parts = [f"{printable(names[number], 40)} {self.by_class[number]:.3g}{self._doubt(number)}" for number in own]
        shown = parts if len(parts) <= SHOWN + 1 else [*parts[:SHOWN], f"and {len(parts) - SHOWN} more"]
        text = f"thresholds from the validation set: {', '.join(shown)}"
        if rest:
            classes = "1 class that was" if rest == 1 else f"{rest} classes that were"
            text += f"; {self.others:.3g}, the best of all classes together, for {classes} not found in it"
        return text

    def _doubt(self, number: int) -> str:
        objects = self.objects.get(number, FEW)
        return f" (from {objects} object{'s' * (objects > 1)} only)" if objects < FEW else ""


def is_thresholds(value: Any) -> bool:
    """Whether a checkpoint's entry `thresholds` has the form that evaluation writes."""
    if not isinstance(value, dict) or not isinstance(value.get("classes"), list):
        return False
    overall = value.get("overall")
    return (overall is None or _has_score(overall)) and all(
        isinstance(one, dict)
        and is_count(one.get("id"))
        and is_count(one.get("objects"))
        and ("threshold" in one and one["threshold"] is None or _has_score(one))
        for one in value["classes"]
    )


def _has_score(value: Any) -> bool:
    return isinstance(value, dict) and is_number(value.get("threshold")) and 0 <= value["threshold"] <= 1
