"""Fixtures for all tests."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from datasets.shapes import write_shapes

torch.set_num_threads(1)  # tiny models: more threads only wait for each other


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight training and five validation pictures of 64 pixels, drawn once."""
    folder = tmp_path_factory.mktemp("data") / "shapes"
    write_shapes(folder, train=8, val=5, size=64, seed=3)
    return folder


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever would download weights fails the test."""

    def refuse(url: str, *args, **kwargs):
        pytest.fail(f"asked for {url}")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", refuse)
    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
