"""Reading pictures: the same answers from any number of processes, in order, whatever the files do."""

from __future__ import annotations

import os

import pytest

from datasets.splits.near_duplicates import perceptual_hash
from tests.tools.checking.planted import SIZE, noise_picture
from tools.checking import scan as module
from tools.checking.scan import Wanted, default_workers, look_at, scan


@pytest.fixture
def wanted(tmp_path):
    found = []
    for seed in range(40):
        path = tmp_path / f"{seed}.png"
        noise_picture(seed).save(path)
        found.append(Wanted(str(path), SIZE, 10**6))
    (tmp_path / "7.png").write_bytes(b"no picture")
    return found


def test_any_number_of_processes_gives_the_same_in_order(wanted):
    steps = []
    here = scan(wanted, 0, steps.append)
    assert scan(wanted, 2) == here
    assert sum(steps) == 40
    assert [index for index, one in enumerate(here) if one.error] == [7]
    assert len({one.digest for one in here if not one.error}) == 39


def test_what_is_seen_of_a_picture(wanted):
    one = look_at(wanted[3])
    assert one.size == SIZE and one.header.orientation == 1 and not one.is_blank
    assert one.hash == perceptual_hash(noise_picture(3))


def test_a_file_that_ends_its_process_is_named_and_the_others_are_read(wanted, monkeypatch):
    usual = look_at

    def crash(one):
        if one.path.endswith("/17.png"):
            os._exit(9)
        return usual(one)

    monkeypatch.setattr(module, "look_at", crash)
    seen = scan(wanted, 2)
    assert [index for index, one in enumerate(seen) if one.error] == [7, 17]
    assert "ends the process" in seen[17].error


def test_too_many_pixels_are_an_error_and_not_decoded(wanted):
    assert "more than the limit of 100" in look_at(wanted[0]._replace(max_pixels=100)).error


def test_processes_are_as_many_as_processors(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(64)), raising=False)
    assert default_workers() == 8
