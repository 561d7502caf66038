"""The logger, the log file and the line on the checkout."""

import json
import subprocess
from types import SimpleNamespace

import torch

from util import logging as util_logging
from util.logging import append_json_line, get_logger, get_sha


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


def test_get_sha_describes_the_checkout_or_says_that_it_cannot(monkeypatch):
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


def test_log_lines_are_appended_as_plain_json(tmp_path):
    log = tmp_path / "log.txt"
    append_json_line(log, {"epoch": 0, "test_coco_eval_bbox": torch.tensor([0.5, 0.25]), "folder": tmp_path})
    append_json_line(log, {"epoch": 1})
    first, second = map(json.loads, log.read_text().splitlines())
    assert first == {"epoch": 0, "test_coco_eval_bbox": [0.5, 0.25], "folder": str(tmp_path)}
    assert second == {"epoch": 1}


def test_a_line_cut_off_by_an_interruption_does_not_swallow_the_next(tmp_path):
    log = tmp_path / "log.txt"
    log.write_text('{"epoch": 0}\n{"epo')
    append_json_line(log, {"epoch": 1})
    assert log.read_text() == '{"epoch": 0}\n{"epo\n{"epoch": 1}\n'
