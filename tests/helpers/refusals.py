"""What the tests of bad input share: a finished run, and the command that must refuse and leave nothing behind."""

import hashlib

import pytest

import main
from tests.helpers.runs import flags


@pytest.fixture(scope="session")
def finished(shapes, tmp_path_factory):
    """The output folder of one epoch."""
    out = tmp_path_factory.mktemp("run") / "out"
    assert main.run(flags(shapes, "--output_dir", str(out), "--epochs", "1")) == 0
    return out


@pytest.fixture
def refused(tmp_path, capsys):
    """Runs the command and returns its one sentence; nothing may be left of the run."""

    def run(data, *more, out=None):
        out = out or tmp_path / "out"
        before = contents(out)
        capsys.readouterr()
        assert main.run(flags(data, "--output_dir", str(out), *map(str, more))) == 1
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1 and lines[0].startswith("error: "), lines
        assert len(lines[0]) > 40
        assert contents(out) == before
        return lines[0]

    return run


def contents(folder):
    """Every file below `folder` with its hash; None if there is no such folder."""
    if not folder.exists():
        return None
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
