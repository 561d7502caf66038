"""The command tail that all tools share."""

import pytest

from tools.command import ToolError, run_tool, tool_parser
from util.errors import CheckpointError


def run(main, *argv: str, **settings) -> int:
    parser = tool_parser("A tool.\n\nSecond paragraph.", allow_abbrev=False)
    parser.add_argument("--count", type=int, default=1)
    return run_tool(parser, main, argv, **settings)


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


def test_training_flags_are_collected_only_on_request():
    seen = []
    assert run(seen.append, "--count", "2", "--lr", "0.1", training_flags=True) == 0
    assert (seen[0].count, seen[0].training_flags) == (2, ["--lr", "0.1"])
    with pytest.raises(SystemExit) as stopped:
        run(seen.append, "--lr", "0.1")
    assert stopped.value.code == 2
