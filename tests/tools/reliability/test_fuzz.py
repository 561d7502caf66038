"""Damaged files are read or rejected; and the fuzzer finds it when they are not."""

import json
import multiprocessing
import os

import pytest
import torch
from PIL import Image

from tools.reliability.fuzz import content_of, fuzz, run
from tools.reliability.fuzz_targets import TARGETS, Target

ANNOTATIONS, IMAGES, CHECKPOINTS = TARGETS
needs_fork = pytest.mark.skipif(
    "fork" not in multiprocessing.get_all_start_methods(), reason="patches of a test reach forked processes only"
)


@pytest.fixture(autouse=True)
def without_threads(monkeypatch):
    """hotcoco's threads, once another test has started them, do not exist in a forked process."""
    monkeypatch.setattr("evaluation.hotcoco.unavailable_reason", lambda: "hotcoco cannot be forked")


def made_up(read, name="made up", expected_errors=(ValueError,)):
    return Target(name, ".bin", lambda rng: rng.randbytes(4), read, expected_errors)


def test_damaged_files_are_read_or_rejected_with_our_own_errors():
    report = fuzz(300, seed=0)
    assert report.findings == []
    for target in TARGETS:
        outcomes = {what: n for (name, what), n in report.counts.items() if name == target.name}
        assert outcomes["accepted"] > 10, target.name
        assert sum(n for what, n in outcomes.items() if what.startswith("rejected")) > 30, target.name


def test_a_case_depends_only_on_seed_and_number():
    for target in TARGETS:
        contents = [content_of(case, seed, target) for seed in (0, 1) for case in range(20)]
        assert contents == [content_of(case, seed, target) for seed in (0, 1) for case in range(20)]
        assert len(set(contents)) > 30


@needs_fork
@pytest.mark.parametrize(
    ("place", "careless", "target", "kind"),
    [
        (
            "datasets.annotations.instances.read_json",
            lambda path: json.loads(path.read_bytes()),
            ANNOTATIONS,
            "JSONDecodeError",
        ),
        (
            "tools.reliability.fuzz_targets.read_image",
            lambda path, _: Image.open(path).convert("RGB"),
            IMAGES,
            "OSError from",
        ),
        (
            "tools.reliability.fuzz_targets.load_checkpoint",
            lambda path: torch.load(path),
            CHECKPOINTS,
            "UnpicklingError",
        ),
    ],
)
def test_a_planted_bug_is_found(monkeypatch, place, careless, target, kind):
    monkeypatch.setattr(place, careless)
    report = fuzz(100, seed=0, targets=(target,))
    assert any(what.startswith(kind) for _, what, _ in report.findings), report.table()


def raise_key_error(path):
    raise KeyError("bbox")


def raise_from_a_library(path):
    json.loads("{")


def raise_from_compiled_code(path):
    int("no number")


def raise_without_a_word(path):
    raise ValueError


def raise_a_sentence(path):
    raise ValueError(f"{path} is damaged: copy it again")


@needs_fork
@pytest.mark.parametrize(
    ("read", "outcome"),
    [
        (raise_key_error, "finding: KeyError"),
        (raise_from_a_library, "finding: JSONDecodeError from decoder.py"),
        (raise_from_compiled_code, "finding: ValueError from test_fuzz.py"),
        (raise_without_a_word, "finding: ValueError without a sentence"),
        (raise_a_sentence, "rejected: ValueError"),
        (lambda path: path.read_bytes(), "accepted"),
    ],
)
def test_only_our_own_errors_with_a_sentence_are_accepted(read, outcome):
    report = fuzz(3, seed=0, targets=(made_up(read),))
    assert report.counts == {("made up", outcome): 3}
    assert len(report.findings) == (3 if outcome.startswith("finding") else 0)


def hang(path):
    while True:
        pass


@needs_fork
def test_a_case_that_hangs_is_found_and_the_next_one_runs():
    report = fuzz(2, seed=0, targets=(made_up(hang),), time_limit=0.2)
    assert report.findings == [(0, "no answer in 0.2 s", ""), (1, "no answer in 0.2 s", "")]


@needs_fork
def test_a_case_that_kills_its_process_is_found_and_the_next_one_runs():
    targets = (made_up(lambda path: os._exit(7), "deadly"), made_up(lambda path: None, "harmless"))
    report = fuzz(4, seed=0, targets=targets)
    assert report.counts == {("deadly", "finding: the process died (7)"): 2, ("harmless", "accepted"): 2}


@needs_fork
@pytest.mark.parametrize("read", [raise_key_error, hang, lambda path: os._exit(7)], ids=["error", "hang", "crash"])
def test_the_files_of_findings_are_kept(tmp_path, read):
    target, other = made_up(read), made_up(lambda path: None)
    limit = 2.0 if read is hang else 60.0  # a busy machine must not make the harmless one hang
    fuzz(3, seed=5, out=tmp_path / "found", targets=(other, target), time_limit=limit)
    assert (tmp_path / "found" / "1.bin").read_bytes() == content_of(1, 5, target)
    assert sorted(path.name for path in (tmp_path / "found").iterdir()) == ["1.bin", "1.txt"]


def test_the_traceback_of_a_finding_is_kept(tmp_path):
    fuzz(1, seed=5, out=tmp_path, targets=(made_up(raise_key_error),))
    told = (tmp_path / "0.txt").read_text()
    assert told.startswith("case 0 of seed 5, made up: KeyError") and "raise_key_error" in told


@needs_fork
def test_the_command_prints_a_table_and_fails_on_findings(tmp_path, capsys, monkeypatch):
    command = ["--cases", "3", "--seed", "3", "--out", str(tmp_path / "found")]
    assert run(command) == 0
    assert "3 cases, 0 findings" in capsys.readouterr().out
    assert not (tmp_path / "found").exists()
    monkeypatch.setattr("tools.reliability.fuzz_targets.read_image", lambda *_: {}["no image"])
    assert run(command) == 1
    printed = capsys.readouterr().out
    assert "images       finding: KeyError" in printed and "case 1: KeyError" in printed
