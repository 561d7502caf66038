"""What the commands load before they do anything: packages that take long are imported where they are used."""

import subprocess
import sys

import pytest

from tests.helpers.paths import REPOSITORY

# Each takes a tenth of a second to seconds. Some are optional.
HEAVY = {
    "hotcoco", "huggingface_hub", "matplotlib", "onnx", "onnxruntime", "openvino", "pandas", "scipy", "submitit",
    "sympy", "tensorboard", "torch._dynamo", "torch._inductor", "torchvision", "tqdm", "transformers", "triton",
}  # fmt: skip


def loaded(statement: str) -> set[str]:
    """Names of the modules that are loaded after `statement`, in a new process."""
    code = f"{statement}\nimport sys\nprint(*sys.modules)"
    command = [sys.executable, "-c", code]
    return set(subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout.split())


@pytest.fixture(scope="module")
def of_torch() -> set[str]:
    """What torch loads by itself, which differs between its versions."""
    return loaded("import torch")


@pytest.mark.parametrize("module", ["main", "predict", "hubconf", "tools.demo"])
def test_heavy_packages_are_imported_only_where_they_are_used(module, of_torch):
    modules = loaded(f"import {module}")
    assert module in modules
    assert (modules - of_torch) & HEAVY == set()
