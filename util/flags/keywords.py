"""The settings of a run as keywords, for Python code: the names and checks of the flags of `main.py`."""

from __future__ import annotations

import argparse
import difflib
import os
from collections.abc import Mapping
from typing import Any

from util.flags.setting import Setting
from util.settings import SETTINGS

FLAGS = {setting.flag: setting for setting in SETTINGS.values() if setting.flag}  # of switches that turn something off


def args_of(keywords: Mapping[str, Any]) -> argparse.Namespace:
    """What `util.arguments.parse` returns for the flags that have these names and values.

    A switch takes True or False, as `no_crop=True`; a setting with several values a list. Numbers may be NumPy's, paths
    `pathlib.Path`. What is not named has its default; `given` lists what is.

    Raises:
        TypeError: there is no such flag; the message names the closest one.
        ValueError: a value that the flag does not take.
    """
    args = argparse.Namespace(**{name: _default(setting) for name, setting in SETTINGS.items()}, given=[])
    for keyword, value in keywords.items():
        setting = SETTINGS.get(keyword) or FLAGS.get(keyword)
        if setting is None:
            close = difflib.get_close_matches(keyword, [*SETTINGS, *FLAGS], 1)
            hint = f": did you mean {close[0]}?" if close else "; `python main.py --help` lists them all"
            raise TypeError(f"there is no setting {keyword!r}{hint}")
        if setting.name in args.given:
            raise TypeError(f"{setting.name} and {setting.flag} are one setting: pass only one of them")
        value = _plain(value, setting)
        if keyword == setting.flag and isinstance(value, bool):
            value = not value
        setting.check_saved(value)
        setattr(args, setting.name, value)
        args.given.append(setting.name)
    return args


def _default(setting: Setting) -> Any:
    return list(setting.default) if isinstance(setting.default, list) else setting.default


def _plain(value: Any, setting: Setting) -> Any:
    """The value as the parser would give it, where that is clear."""
    if isinstance(value, list | tuple):
        return [_plain(one, setting) for one in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:  # a NumPy number
        value = value.item()
    if setting.kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    return value
