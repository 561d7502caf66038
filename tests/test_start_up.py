"""What commands load: torch once they have read the command line, packages that take long where they are used."""

import os
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


@pytest.fixture
def start(tmp_path):
    """Runs a command in a process whose `import torch` ends it with a sentence."""
    (tmp_path / "torch.py").write_text("raise SystemExit('torch is imported')")
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    return lambda *command: subprocess.run(
        [sys.executable, *command], cwd=REPOSITORY, env=environment, capture_output=True, text=True
    )


@pytest.mark.parametrize(
    ("command", "code", "words"),
    [
        (["main.py", "--help"], 0, "--coco_path"),
        (["main.py", "--lr", "much"], 2, "invalid float value: 'much'"),
        (["predict.py", "--help"], 0, "--threshold"),
        (["predict.py", "model.pth"], 2, "IMAGES and --out FOLDER are required"),
    ],
)
def test_help_and_a_wrong_command_line_need_no_torch(command, code, words, start):
    done = start(*command)
    assert done.returncode == code
    assert words in done.stdout + done.stderr


@pytest.mark.parametrize("command", [["main.py"], ["predict.py", "model.pth", "--fps"]])
def test_a_right_command_line_goes_on_to_torch(command, start):
    assert start(*command).stderr.strip() == "torch is imported"
