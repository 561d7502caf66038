"""The logger and the state of the checkout."""

import subprocess
from types import SimpleNamespace

from util import logging as util_logging
from util.logging import get_logger, get_sha
from util.text import LINE_LIMIT, Lines


def test_the_logger_prints_bare_messages_once_to_the_current_stdout(capsys):
    get_logger()
    get_logger().info("hello")
    get_logger().debug("whisper")
    assert capsys.readouterr().out == "hello\n"


def test_other_ranks_print_warnings_only(capsys, monkeypatch):
    monkeypatch.setattr(util_logging, "is_main_process", lambda: False)
    get_logger().info("news")
    get_logger().warning("trouble")
    assert capsys.readouterr().out == "trouble\n"


def test_get_sha_describes_the_checkout_or_gives_na(monkeypatch):
    answers = {
        "rev-parse HEAD": "0123abcd\n",
        "diff-index HEAD": ":100644 util/a.py\n",
        "rev-parse --abbrev-ref HEAD": "x\n",
    }

    def git(command, **_):
        return SimpleNamespace(stdout=answers[" ".join(command[1:])])

    monkeypatch.setattr(subprocess, "run", git)
    assert get_sha() == "sha: 0123abcd, status: has uncommitted changes, branch: x"
    answers["diff-index HEAD"] = ""
    assert get_sha() == "sha: 0123abcd, status: clean, branch: x"

    def no_git(*_, **__):
        raise FileNotFoundError("git")

    monkeypatch.setattr(subprocess, "run", no_git)
    assert get_sha() == "sha: N/A, status: N/A, branch: N/A"


def test_text_from_files_can_neither_steer_the_terminal_nor_fill_it(capsys):
    get_logger().warning("class %s of %s", "\x1b[2J\u202e\nerror: forged", "x" * 10**6)
    line, end = capsys.readouterr().out.split("\n")
    assert line.startswith("class \\x1b[2J\\u202e\\nerror: forged of xxx") and len(line) == LINE_LIMIT and end == ""


def test_our_own_lines_stay_lines(capsys):
    get_logger().info(Lines("a table\n\x1b[2J\n" + "x" * 10**6))
    first, second, third, _ = capsys.readouterr().out.split("\n")
    assert (first, second, len(third)) == ("a table", "\\x1b[2J", LINE_LIMIT)


def test_a_logged_traceback_stays_readable(capsys):
    try:
        raise ValueError("a\x1b[2J")
    except ValueError:
        get_logger().exception("failed")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "failed" and lines[1].startswith("Traceback") and lines[-1] == "ValueError: a\\x1b[2J"
