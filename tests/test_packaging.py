"""`pip install .`: the dependencies, the optional extras, and no modules that clash with other projects."""

import os
import shutil
import subprocess
import sys
import zipfile
from email import message_from_bytes
from email.message import Message
from pathlib import Path

import pytest

from tests.helpers.paths import REPOSITORY

EXTRAS = ("convert", "export", "fonts", "int8", "openvino", "submitit", "tensorboard", "track", "video", "web")


def requirements(name: str) -> set[str]:
    """The requirements in a file, without references to other files."""
    lines = (REPOSITORY / name).read_text(encoding="utf-8").split()
    return {canonical(line) for line in lines if line[0].isalpha()}


def canonical(requirement: str) -> str:
    """A requirement independent of the order of its bounds: `a<2,>=1` and `a>=1,<2` are equal."""
    start = next((place for place, sign in enumerate(requirement) if sign in "<>="), len(requirement))
    return requirement[:start] + ",".join(sorted(requirement[start:].split(",")))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel that pip builds, from a copy of the repository's files."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("pyproject.toml", "requirements.txt", "README.md", "LICENSE", "main.py", "hubconf.py"):
        shutil.copy(REPOSITORY / name, folder)
    for room in ("models", "datasets", "util"):
        shutil.copytree(REPOSITORY / room, folder / room, ignore=shutil.ignore_patterns("__pycache__"))
    build = "from setuptools.build_meta import build_wheel; print(build_wheel('.'))"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    result = subprocess.run([sys.executable, "-c", build], cwd=folder, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    with zipfile.ZipFile(folder / Path(result.stdout.split()[-1])) as file:
        yield file


def metadata(wheel: zipfile.ZipFile) -> Message:
    return message_from_bytes(next(wheel.read(name) for name in wheel.namelist() if name.endswith("/METADATA")))


def test_nothing_but_metadata_is_installed(wheel: zipfile.ZipFile):
    assert {name.split("/")[0] for name in wheel.namelist()} == {"detr_faithful-0.1.0.dist-info"}


def test_the_requirements_are_installed(wheel: zipfile.ZipFile):
    required = [line for line in metadata(wheel).get_all("Requires-Dist") if "extra ==" not in line]
    assert set(map(canonical, required)) == requirements("requirements.txt")


def test_each_extra_is_tested_with_the_same_versions(wheel: zipfile.ZipFile):
    extras = [line.split(";") for line in metadata(wheel).get_all("Requires-Dist") if "extra ==" in line]
    assert {marker.split('"')[1] for _, marker in extras} == set(EXTRAS)
    assert {canonical(requirement) for requirement, _ in extras} <= requirements("requirements-dev.txt")
