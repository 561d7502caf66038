"""The command tail that all tools share."""

import ast
import os
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

import pytest

from tests.helpers.paths import REPOSITORY
from tools.command import ToolError, refuse_existing, refuse_input, run_tool, say, tool_parser
from util.errors import CheckpointError


def run(main, *argv: str, **settings) -> int:
    parser = tool_parser("A tool.\n\nSecond paragraph.", allow_abbrev=False)
    parser.add_argument("--count", type=int, default=1)
    return run_tool(parser, main, argv, **settings)


def test_the_help_names_the_command_that_was_started(monkeypatch):
    started = ModuleType("__main__")
    started.__spec__ = ModuleSpec("tools.ship", None)
    monkeypatch.setitem(sys.modules, "__main__", started)
    assert tool_parser("A tool.").format_usage() == "usage: python -m tools.ship [-h]\n"


@pytest.mark.parametrize(("result", "code"), [(None, 0), (0, 0), (1, 1)])
def test_the_exit_code_is_that_of_the_work(result, code):
    assert run(lambda options: result) == code


@pytest.mark.parametrize("kind", [ValueError, OSError, CheckpointError, ToolError])
def test_an_expected_error_is_one_sentence(kind, capsys):
    def fail(options):
        raise kind("the file\nis damaged")

    assert run(fail) == 1
    assert capsys.readouterr().err == "error: the file is damaged\n"


def test_any_other_error_is_raised():
    with pytest.raises(KeyError):
        run(lambda options: {}["a bug"])


def test_a_missing_package_is_named_with_its_command(capsys):
    def fail(options):
        raise ImportError("No module named 'onnx'")

    assert run(fail, packages="onnx onnxruntime") == 1
    assert capsys.readouterr().err == "error: No module named 'onnx': pip install onnx onnxruntime\n"
    with pytest.raises(ImportError):
        run(fail)


def test_what_a_tool_says_cannot_steer_the_terminal(capsys):
    say("two\nlines, \x1b[31mred")
    assert capsys.readouterr().out == "two\nlines, \\x1b[31mred\n"


def test_an_output_that_is_an_input_is_refused(tmp_path):
    (tmp_path / "in").write_text("")
    os.link(tmp_path / "in", tmp_path / "other name")
    os.symlink(tmp_path / "in", tmp_path / "link")
    for out in ("in", "other name", "link"):
        with pytest.raises(ValueError, match="is the input itself and would be overwritten"):
            refuse_input(tmp_path / out, tmp_path / "absent", tmp_path / "in")
    refuse_input(tmp_path / "new", tmp_path / "in", "https://example.org/a.pth")


def test_an_existing_output_is_refused(tmp_path):
    os.symlink(tmp_path / "absent", tmp_path / "link")
    for path in (tmp_path, tmp_path / "link"):
        with pytest.raises(ValueError, match="already exists: choose a new folder"):
            refuse_existing(path, "folder")
    refuse_existing(tmp_path / "new", "folder")


def test_training_flags_are_collected_only_on_request():
    seen = []
    assert run(seen.append, "--count", "2", "--lr", "0.1", training_flags=True) == 0
    assert (seen[0].count, seen[0].training_flags) == (2, ["--lr", "0.1"])
    with pytest.raises(SystemExit) as stopped:
        run(seen.append, "--lr", "0.1")
    assert stopped.value.code == 2


def commands() -> list[Path]:
    """The files in tools/ that are commands, relative to the repository."""
    files = sorted((REPOSITORY / "tools").rglob("*.py"))
    return [file.relative_to(REPOSITORY) for file in files if 'if __name__ == "__main__"' in file.read_text()]


@pytest.mark.parametrize("file", commands(), ids=str)
def test_the_help_of_each_tool_has_an_example(file):
    """The help shows the docstring, of which the example is a part."""
    module = file.parent if file.name == "__main__.py" else file.with_suffix("")
    called = f"python -m {'.'.join(module.parts)} "
    copied = f"python {file.name} "  # a file that users copy elsewhere
    files = (REPOSITORY / file, REPOSITORY / file.with_name("arguments.py"))
    sources = [path.read_text() for path in files if path.exists()]
    helps = [ast.get_docstring(ast.parse(source)) for source in sources if "=__doc__" in source or "(__doc__" in source]
    assert any(call in text for call in (called, copied) for text in helps)
