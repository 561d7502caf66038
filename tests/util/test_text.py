"""Text from files as it may be printed."""

import io
import sys

import pytest

from util.text import (
    LINE_LIMIT,
    column_width,
    escape,
    fit,
    print_any_script,
    printable,
    printable_lines,
    shorten,
    text_width,
)

LEGITIMATE = [
    "traffic light",
    "C:\\data\\new",
    "Straße, naïve café, e\u0301te\u0301",
    "日本語のクラス",
    "मानक हिन्दी क्ष\u200dत्र",
    "می\u200cخواهم",
    "שלום\u200f!",
    "👩\u200d👩\u200d👧 👍🏽",
    "\U0001f3f4\U000e0067\U000e0062\U000e0073\U000e0063\U000e0074\U000e007f",
    "ประเทศไทย",
    "\ue000",
]


@pytest.mark.parametrize("name", LEGITIMATE, ids=ascii)
def test_names_in_any_script_stay(name):
    assert printable(name) == escape(name) == printable_lines(name) == name


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\x1b[2Jb", "a\\x1b[2Jb"),
        ("a\nerror: forged", "a\\nerror: forged"),
        ("a\r\tb\x00\x7f", "a\\r\\tb\\x00\\x7f"),
        ("\x85\x9b31m", "\\x85\\x9b31m"),
        ("a\u2028b\u2029c", "a\\u2028b\\u2029c"),
        ("exe\u202egpj.\u2066\u061c", "exe\\u202egpj.\\u2066\\u061c"),
        ("ca\u200bt\ufeff\u2060\u00ad", "ca\\u200bt\\ufeff\\u2060\\xad"),
        ("cat\U000e0041\U000e0042", "cat\\U000e0041\\U000e0042"),
        ("a\udcffb", "a\\udcffb"),
    ],
    ids=ascii,
)
def test_what_steers_hides_or_forges_becomes_visible(text, shown):
    assert printable(text) == escape(text) == shown
    shown.encode()  # a lone surrogate could not be printed


def test_anything_is_printable():
    assert printable(None) == "None" and printable(["a\n"]) == "['a\\n']"
    assert printable(10**5000) == "a int too long to print"


@pytest.mark.parametrize("letter", ["a", "\n", "日", "\x1b"])
@pytest.mark.parametrize("length", [9, 10, 11, 10**6])
def test_long_text_is_cut_to_the_limit_and_marked(letter, length):
    text = printable(letter * length, limit=10)
    assert len(text) <= 10
    assert (text == escape(letter) * length) or text.endswith("…")
    whole = text.removesuffix("…")
    assert whole == escape(letter) * (len(whole) // len(escape(letter)))  # no escape is cut


def test_a_cut_leaves_no_joiner_at_the_end():
    assert printable("👩\u200d👩", limit=3) == "👩\u200d👩"
    assert printable("👩\u200d👩\u200d👧", limit=3) == "👩…"


def test_lines_of_our_own_stay_lines_and_lose_their_middle_when_long():
    assert printable_lines("a\tb\nc\x1b[0m") == "a\tb\nc\\x1b[0m"
    start, end = "start " + "x" * 10**6, "x" * 10**6 + " pass --flag"
    line = printable_lines(f"{start}{end}\nnext").split("\n")
    assert len(line[0]) == LINE_LIMIT and line[0].startswith("start x") and line[0].endswith("x pass --flag")
    assert " … " in line[0] and line[1] == "next"
    assert shorten("x" * 30, 30) == "x" * 30 and len(shorten("x" * 31, 30)) == 30


def test_a_terminal_that_lacks_a_letter_gets_its_escape(monkeypatch):
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii"))
    print_any_script()
    print("日本 …", flush=True)
    assert written.getvalue() == b"\\u65e5\\u672c \\u2026\n"


@pytest.mark.parametrize(
    ("text", "columns"), [("abc", 3), ("日本", 4), ("e\u0301", 1), ("👍", 2), ("می\u200cخ", 3), ("क्ष", 2), ("", 0)]
)
def test_widths_are_those_of_a_terminal(text, columns):
    assert text_width(text) == columns


@pytest.mark.parametrize(
    ("text", "width", "shown"),
    [
        ("cat", 5, "cat  "),
        ("cat", 3, "cat"),
        ("cats", 3, "ca…"),
        ("日本語", 6, "日本語"),
        ("日本語", 5, "日本…"),
        ("日本語", 4, "日… "),
        ("e\u0301te\u0301s", 3, "e\u0301t…"),
        ("a   b", 5, "a b  "),
        ("\nerror: x", 12, "\\nerror: x  "),  # a line break must not vanish, so that the name looks like our message
        ("a\x1bb", 6, "a\\x1bb"),
        ("cat", 0, ""),
    ],
)
def test_a_cell_has_exactly_its_width(text, width, shown):
    assert fit(text, width) == shown


def test_a_column_is_as_wide_as_its_widest_name_up_to_a_limit():
    assert column_width([]) == 0 and column_width(["a", "日本"]) == 4 and column_width(["\x1b"]) == 4
    assert column_width(["x" * 10**6], widest=10) == 10


@pytest.mark.parametrize("letter", ["A", "日", "\u0301", "\x1b", " ", "👩\u200d"])
def test_a_very_long_name_is_cut_to_a_cell(letter):
    cell = fit(letter * 10**6, 44)
    assert text_width(cell) == 44 and len(cell) < 600
