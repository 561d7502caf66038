"""Every golden figure is tested or excluded by name with a reason."""

import importlib
from fnmatch import fnmatchcase
from pathlib import Path

from tests.helpers.golden_rules import ALL_KEYS, ARRAYS, COVERED, EXCLUDED, is_excluded

TESTS = Path(__file__).resolve().parent


def test_every_figure_is_covered_or_excluded():
    for path in sorted(TESTS.glob("test_*.py")):
        importlib.import_module(f"tests.golden.{path.stem}")  # importing a module registers what its tests cover
    assert [key for key in ALL_KEYS if key not in COVERED and not is_excluded(key)] == []


def test_no_figure_is_both_covered_and_excluded():
    assert [key for key in COVERED if is_excluded(key)] == []


def test_the_golden_files_are_complete():
    assert len(ARRAYS) == 175
    assert len(ALL_KEYS) == len(set(ALL_KEYS))


def test_every_exclusion_matches_a_figure_and_has_a_reason():
    unused = [pattern for pattern in EXCLUDED if not any(fnmatchcase(key, pattern) for key in ALL_KEYS)]
    assert unused == []
    assert all(EXCLUDED.values())
