"""Damaged files are read or rejected; and the fuzzer finds it when they are not."""

import json
import multiprocessing
import os
import signal
import sys
from importlib import import_module

import pytest
import torch
from PIL import Image

from tools.reliability.fuzz import content_of, fuzz, run
from tools.reliability.fuzzing.oracle import MEMORY, fault_of_output
from tools.reliability.fuzzing.targets import DOWNLOADS, TARGETS, Target

BY_NAME = {target.name: target for target in (*TARGETS, DOWNLOADS)}
FEW = {
    "models": 25,
    "folders": 25,
    "downloads": 20,
    "voc": 40,
    "yolo": 40,
    "data_files": 40,
    "exports": 40,
}  # cases of the slow kinds
needs_fork = pytest.mark.skipif(
    "fork" not in multiprocessing.get_all_start_methods(), reason="patches of a test reach forked processes only"
)


@pytest.fixture(scope="module", autouse=True)
def imported():
    """What the readers import when they come to it: else every forked process does, and a time limit counts that."""
    for name in ("torch._dynamo", "matplotlib"):
        import_module(name)
    Image.init()


@pytest.fixture(autouse=True)
def without_threads(monkeypatch):
    """hotcoco's threads, once another test has started them, do not exist in a forked process."""
    monkeypatch.setattr("evaluation.hotcoco.unavailable_reason", lambda: "hotcoco cannot be forked")


def made_up(read, name="made up", expected_errors=(ValueError,)):
    return Target(name, ".bin", lambda rng: rng.randbytes(4), read, expected_errors)


@pytest.mark.parametrize("name", BY_NAME)
def test_damaged_files_are_read_or_rejected_with_our_own_errors(name):
    cases = FEW.get(name, 100)
    # pycocotools needs five seconds for an annotation file of 3,000 objects: of seed 0 there are three, of seed 1 one.
    report = fuzz(cases, seed=1 if name == "annotations" else 0, targets=(BY_NAME[name],))
    assert report.findings == []
    accepted = report.counts[name, "accepted"]
    assert cases / 20 < accepted < cases * 0.95, report.table()


def test_a_case_depends_only_on_seed_and_number():
    for target in BY_NAME.values():
        contents = [content_of(case, seed, target) for seed in (0, 1) for case in range(20)]
        assert contents == [content_of(case, seed, target) for seed in (0, 1) for case in range(20)]
        assert len(set(contents)) > 25, target.name


def careless_json(path, *args, **kwargs):
    return json.loads(path.read_bytes())


def careless_image(path, *args, **kwargs):
    return Image.open(path).convert("RGB")


def careless_checkpoint(path, **kwargs):
    return torch.load(path)


@needs_fork
@pytest.mark.parametrize(
    ("place", "careless", "name", "kind"),
    [
        ("datasets.annotations.instances.read_json", careless_json, "annotations", "JSONDecodeError"),
        ("tools.reliability.fuzzing.images.read_image", careless_image, "images", "OSError from"),
        (
            "tools.reliability.fuzzing.checkpoints.load_checkpoint",
            careless_checkpoint,
            "checkpoints",
            "UnpicklingError",
        ),
        ("tools.reliability.fuzzing.checkpoints.load_checkpoint", careless_checkpoint, "archives", "AssertionError"),
        ("models.load.load_weights", lambda *parts: {}["weight"], "models", "KeyError"),
        ("prediction.folder.PredictionFolder.has", lambda *args: {}["name"], "folders", "KeyError"),
        (
            "tools.reliability.fuzzing.downloads.load_checkpoint",
            lambda url: {"model": {}},
            "downloads",
            "AssertionError",
        ),
    ],
)
def test_a_planted_bug_is_found(monkeypatch, place, careless, name, kind):
    monkeypatch.setattr(place, careless)
    report = fuzz(15, seed=0, targets=(BY_NAME[name],), time_limit=1.0)  # some of these bugs wait for ever
    assert any(what.startswith(kind) for _, what, _ in report.findings), report.table()


def raise_key_error(path):
    raise KeyError("bbox")


def raise_from_a_library(path):
    json.loads("{")


def raise_from_compiled_code(path):
    int("no number")


def raise_without_a_word(path):
    raise ValueError


def raise_a_whole_file(path):
    raise ValueError(f"{path} is damaged: {'x' * 9000}")


def raise_for_lack_of_memory(path):
    try:
        raise MemoryError
    except MemoryError as error:
        raise ValueError(f"{path} is damaged: copy it again") from error


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
        (raise_a_whole_file, "finding: ValueError of more than 4,000 characters"),
        (raise_for_lack_of_memory, "finding: ValueError after it asked for too much memory"),
        (raise_a_sentence, "rejected: ValueError"),
        (lambda path: path.read_bytes(), "accepted"),
        (lambda path: print("cat\x1b[2J"), "finding: printed the character '\\x1b'"),
        (lambda path: print("cat\nerror: FORGED"), "finding: printed a forged line"),
        (lambda path: os.write(2, b"\xff"), "finding: printed text that is not UTF-8"),
        (lambda path: print("猫 \\x1b[2J"), "accepted"),
    ],
)
def test_only_our_own_errors_with_a_sentence_and_harmless_text_are_accepted(read, outcome):
    report = fuzz(3, seed=0, targets=(made_up(read),))
    assert report.counts == {("made up", outcome): 3}
    assert len(report.findings) == (3 if outcome.startswith("finding") else 0)


@pytest.mark.parametrize(
    "text", ["\u202ecat", "a\u2028b", "\x9b31m", "\x85", "\tcat", "Traceback (most recent call last)"]
)
def test_text_that_steers_a_terminal_is_a_fault(text):
    assert fault_of_output(f"class {text}\n".encode()) is not None


@needs_fork
@pytest.mark.skipif(sys.platform == "win32", reason="the system does not tell how much memory was used")
def test_a_case_that_takes_much_memory_is_found():
    report = fuzz(1, seed=0, targets=(made_up(lambda path: bytearray(MEMORY + 2**28)),))
    assert [what.partition(" ")[2] for _, what, _ in report.findings] == ["GB of memory"]


def hang(path):
    while True:
        pass


def wait(path):
    signal.pause()


@needs_fork
@pytest.mark.parametrize(("read", "what"), [(hang, "computing 0.2 s"), (wait, "waiting 1 s")])
def test_a_case_that_hangs_is_found_and_the_next_one_runs(read, what):
    report = fuzz(2, seed=0, targets=(made_up(read),), time_limit=0.2)
    assert report.findings == [(case, f"no answer after {what}", "") for case in (0, 1)]


@needs_fork
def test_a_case_that_kills_its_process_is_found_and_the_next_one_runs():
    targets = (made_up(lambda path: os._exit(7), "deadly"), made_up(lambda path: None, "harmless"))
    report = fuzz(4, seed=0, targets=targets)
    assert report.counts == {("deadly", "finding: the process died (7)"): 2, ("harmless", "accepted"): 2}


@needs_fork
@pytest.mark.parametrize("read", [raise_key_error, hang, lambda path: os._exit(7)], ids=["error", "hang", "crash"])
def test_the_files_of_findings_are_kept(tmp_path, read):
    target, other = made_up(read), made_up(lambda path: None)
    fuzz(3, seed=5, out=tmp_path / "found", targets=(other, target), time_limit=2.0 if read is hang else 60.0)
    assert (tmp_path / "found" / "1.bin").read_bytes() == content_of(1, 5, target)
    assert sorted(path.name for path in (tmp_path / "found").iterdir()) == ["1.bin", "1.txt"]


def test_the_traceback_of_a_finding_is_kept(tmp_path):
    fuzz(1, seed=5, out=tmp_path, targets=(made_up(raise_key_error),))
    told = (tmp_path / "0.txt").read_text()
    assert told.startswith("case 0 of seed 5, made up: KeyError") and "raise_key_error" in told


@needs_fork
def test_the_command_prints_a_table_and_fails_on_findings(tmp_path, capsys, monkeypatch):
    command = ["--cases", "3", "--seed", "3", "--kinds", "images", "archives", "--out", str(tmp_path / "found")]
    assert run(command) == 0
    assert "3 cases, 0 findings" in capsys.readouterr().out
    assert not (tmp_path / "found").exists()
    monkeypatch.setattr("tools.reliability.fuzzing.images.read_image", lambda *_: {}["no image"])
    assert run(command) == 1
    printed = capsys.readouterr().out
    assert "images       finding: KeyError" in printed and "case 0: KeyError" in printed
