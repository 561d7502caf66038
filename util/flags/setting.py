"""One setting of a run: its flag, type and bounds, and how a value is checked and spelled."""

from __future__ import annotations

import argparse
import math
import reprlib
import sys
from dataclasses import dataclass
from typing import Any

from util.text import printable

# What a setting touches, and so what becomes of it where a run starts from a checkpoint:
DETECTOR = "detector"  # what the network computes: the checkpoint's value. Another one is refused
INPUT = "input"  # how the network is fed and read: the checkpoint's value, unless the flag is given
TRAINING = "training"  # what is learned from which samples: the same, but only of a resumed or evaluated run
SCHEDULE = "schedule"  # what the optimizer and its schedule carry: the same, but only of a resumed run
RUN = "run"  # how the run is carried out: never from a checkpoint

LARGEST = sys.float_info.max  # a whole number can be larger
MAX_VALUES = 1000  # of a setting that is a list, in a file


@dataclass(frozen=True)
class Setting:
    """One setting.

    Attributes:
        name: in `args`, and of its flag unless `flag` is set.
        default: without the flag. False or True makes a switch that takes no value.
        kind: type of the value; of each value, if the default is a list.
        help: one line for `--help`, which adds the default.
        touches: DETECTOR, INPUT, TRAINING, SCHEDULE or RUN.
        at_least, at_most: the smallest and the largest value allowed. Values must be finite too.
        below, above: exclusive bounds.
        choices: the allowed values, which the parser checks.
        known: the allowed values, where the message of the published command is not the parser's.
        flag: of a switch that turns something off.
        adapts: a run that starts from a checkpoint's weights (`--init_from`) may have another value.
        trains: used only in training, so that an evaluation does not look at it.
    """

    name: str
    default: Any
    kind: type | None
    help: str
    touches: str
    at_least: float | None = None
    at_most: float | None = None
    below: float | None = None
    above: float | None = None
    choices: tuple[Any, ...] | None = None
    known: tuple[str, ...] | None = None
    flag: str | None = None
    metavar: str | None = None
    adapts: bool = False
    trains: bool = False

    def add_to(self, parser: argparse._ActionsContainer) -> None:
        """Add the flag to a parser."""
        flag = f"--{self.flag or self.name}"
        if isinstance(self.default, bool):
            action = "store_false" if self.default else "store_true"
            parser.add_argument(flag, dest=self.name, action=action, help=self.help)
            return
        several = isinstance(self.default, list)
        default = list(self.default) if several else self.default  # parsers must not share a list
        options = {
            "type": self.kind,
            "choices": self.choices,
            "metavar": self.metavar,
            "nargs": "+" if several else None,
        }
        given = {name: value for name, value in options.items() if value is not None}
        shown = " ".join(map(str, default)) if several else default
        says_default = "default:" in self.help or shown in (None, "")
        text = self.help if says_default else f"{self.help} (default: {shown})"
        parser.add_argument(flag, default=default, help=text, **given)

    def check(self, value: Any) -> None:
        """Refuse a value out of bounds: ValueError with the flag, the bounds and the value. None passes."""
        if self.known and value not in self.known:
            given = printable(str(value), 60)
            raise ValueError(f"--{self.name} {given} is unknown: use {', '.join(self.known[:-1])} or {self.known[-1]}")
        if (self.at_least, self.at_most, self.below, self.above) == (None, None, None, None) or value is None:
            return
        least = -math.inf if self.at_least is None else self.at_least
        above = -math.inf if self.above is None else self.above
        below = math.inf if self.below is None else self.below
        for number in value if isinstance(value, list | tuple) else [value]:
            if self.at_most is not None and self.at_most < number < math.inf:
                raise ValueError(f"--{self.flag or self.name} must be at most {self.at_most:,}, got {_shown(number)}")
            if not (least <= number <= LARGEST and above < number < below):  # NaN compares as False
                raise ValueError(f"--{self.flag or self.name} must be {self._bounds()}, got {_shown(number)}")

    def check_saved(self, value: Any) -> None:
        """Refuse a value that no command line could have set: ValueError with the name, what it must be and the value.

        Unlike `check`, also looks at the type, which the command line's parser takes care of.
        """
        if value is None and self.default is None:
            return
        several = isinstance(self.default, list)
        values = value if several and isinstance(value, list | tuple) else [value]
        if not values or several != isinstance(value, list | tuple) or not all(map(self._has_type, values)):
            raise ValueError(f"{self.name} must be {self._kind()}, got {_shown(value)}")
        if len(values) > MAX_VALUES:
            raise ValueError(f"{self.name} must have at most {MAX_VALUES} values, got {len(values):,}")
        if self.choices and value not in self.choices:
            raise ValueError(f"{self.name} must be one of {', '.join(map(str, self.choices))}, got {_shown(value)}")
        self.check(value)

    def spell(self, value: Any) -> str:
        """The value as on the command line: `--nheads 8`, `--dilation`, or `without --dilation`."""
        flag = f"--{self.flag or self.name}"
        if isinstance(self.default, bool):
            return f"without {flag}" if value == self.default else flag
        values = value if isinstance(value, list | tuple) else [value]
        return f"{flag} {' '.join(f'{v:g}' if isinstance(v, float) else str(v) for v in values)}"

    def _has_type(self, value: Any) -> bool:
        if isinstance(self.default, bool):
            return isinstance(value, bool)
        if self.kind in (int, float):
            return isinstance(value, int if self.kind is int else int | float) and not isinstance(value, bool)
        return isinstance(value, str)

    def _kind(self) -> str:
        if isinstance(self.default, bool):
            return "true or false"
        kind = {int: "a whole number", float: "a number"}.get(self.kind, "a text")
        return f"a list, each {kind}" if isinstance(self.default, list) else kind

    def _bounds(self) -> str:
        if self.below is not None:
            return f"in [{self.at_least:g}, {self.below:g})"
        return f"finite and {f'above {self.above:g}' if self.above is not None else f'at least {self.at_least:g}'}"


def _shown(value: Any) -> str:
    """A value of any size, for a message."""
    if isinstance(value, int) and value.bit_length() > 100:  # Python refuses to print very long numbers
        return f"a number of {value.bit_length():,} bits"
    return reprlib.repr(value)
