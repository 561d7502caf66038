"""Fixtures for all tests."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import torch

from datasets.shapes import write_shapes
from evaluation import report
from training import start
from training.report import facts
from util.loading import download
from util.logging import get_sha

# One thread, since the models are tiny. DETR_TEST_THREADS=2 shows which results depend on the number of threads. The
# processes that tests start follow OMP_NUM_THREADS.
os.environ["OMP_NUM_THREADS"] = os.environ.get("DETR_TEST_THREADS", "1")
torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))

# Files that take 15 seconds or more, the longest first.
LONG = """
    lesson/test_pages prediction/exported/test_exported tools/reliability/test_fuzz test_run_with_submitit
    tools/reliability/test_torture training/test_resume test_main training/switches/test_compile
    tools/exporting/test_openvino_form util/test_signals golden/test_trajectory training/device/test_waits
    training/switches/test_accumulate training/data/test_layouts evaluation/test_processes tools/test_convert
    training/switches/test_average
""".split()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files come first, so that no process waits at the end while another one begins a long file."""
    places = {Path(__file__).parent / f"{name}.py": place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: places.get(item.path, len(LONG)))


@pytest.fixture(scope="session", autouse=True)
def no_evaluation_pictures() -> Iterator[None]:
    """Evaluations draw no pictures, which take longer than a tiny training; `drawing` in tests.helpers.runs draws."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "draw_evaluation", lambda *parts: None)
        yield


@pytest.fixture(scope="session", autouse=True)
def git_asked_once() -> Iterator[None]:
    """The checkout that trainings name does not change meanwhile: git starts once, not six times for each training."""
    ask = cache(get_sha)
    with pytest.MonkeyPatch.context() as patch:
        for module in (start, facts):
            patch.setattr(module, "get_sha", ask)
        yield


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight training and five validation pictures of 64 pixels, drawn once."""
    folder = tmp_path_factory.mktemp("data") / "shapes"
    write_shapes(folder, train=8, val=5, size=64, seed=3)
    return folder


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever would download weights fails the test."""

    def refuse(host: str, *args, **kwargs):
        pytest.fail(f"asked for {host}")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(download, "transfer", refuse)
