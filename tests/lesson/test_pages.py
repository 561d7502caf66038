"""The snippets of every page run, offline, and print what the page shows.

Chinese and English pages have the same snippets (`test_sync.py`), so those of one language run.
"""

import random

import matplotlib
import numpy as np
import pytest
import torch

from tests.helpers.paths import REPOSITORY
from tests.lesson.pages import CHAPTERS, LESSON, run_page


@pytest.fixture
def reader(monkeypatch, no_network):
    """A reader's Python: in the root of the repository, without a screen; what a page changes is undone."""
    monkeypatch.chdir(REPOSITORY)
    matplotlib.use("agg")
    state, kind = torch.get_rng_state(), torch.get_default_dtype()
    plain, arrays = random.getstate(), np.random.get_state()
    with torch.enable_grad(), matplotlib.rc_context():
        yield
    torch.set_rng_state(state)
    torch.set_default_dtype(kind)
    random.setstate(plain)
    np.random.set_state(arrays)


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_snippets_run(chapter, reader):
    run_page(LESSON / "en" / f"{chapter}.md")
