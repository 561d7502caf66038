"""`python -m tools.web` as a command: fast help, one warning, one sentence for each error, a clean stop."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys

import pytest
from PIL import Image

pytest.importorskip("starlette", reason="the page needs the extra web")
pytest.importorskip("uvicorn", reason="the page needs the extra web")

import hubconf
from tests.helpers.paths import REPOSITORY
from tests.tools.web.serving import ask, encoded, scene
from tools.web import __main__ as command
from tools.web import arguments

FILE = str(hubconf.SHIPPED / "detr_tiny_shapes.pth")
START = [sys.executable, "-m", "tools.web"]


def test_a_host_for_others_warns_and_ctrl_c_ends_with_success():
    flags = [
        "--device",
        "cpu",
        "--host",
        "0.0.0.0",
        "--port",
        "0",
        "--max_mb",
        "0.05",
        "--max_pixels",
        "10000",
        "--trusted_hosts",
        "detector.lan",
    ]
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "cwd": REPOSITORY}
    process = subprocess.Popen([*START, FILE, *flags], **options)
    try:
        said = process.stdout.readline()
        port = int(re.search(r"http://127\.0\.0\.1:(\d+)", said)[1])
        assert ask(port, body=scene())[2]["objects"]
        assert ask(port, body=bytes(50_001))[0] == 413
        assert ask(port, body=encoded(Image.new("L", (101, 100))))[2]["error"] == "too_many_pixels"
        assert ask(port, "/", Host=f"detector.lan:{port}")[0] == ask(port, "/", Host=socket.gethostname())[0] == 200
        assert ask(port, "/", Host="evil.example")[0] == 400
    finally:
        process.send_signal(signal.SIGINT)
        _, complaints = process.communicate(timeout=120)
    assert process.returncode == 0
    warning, stopped = complaints.strip().splitlines()
    assert warning.startswith("warning: with --host 0.0.0.0, everyone") and stopped == "stopped"


def test_help_comes_without_torch():
    script = "import sys, tools.web.arguments as a\ntry: a.parse(['--help'])\nfinally: print('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=REPOSITORY)
    assert result.stdout.endswith("False\n") and "--max_mb" in result.stdout


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch):
    assert arguments.missing_packages() == ""
    monkeypatch.setattr(arguments, "find_spec", lambda name: None)
    assert arguments.missing_packages().startswith("error: starlette and uvicorn cannot be imported: pip install")


@pytest.mark.parametrize(
    ("flags", "word"),
    [
        (["--port", "99999"], "65535"),
        (["--max_mb", "0"], "0.001"),
        (["--max_mb", "nan"], "0.001"),
        (["--max_pixels", "0"], "at least 1"),
        (["--queue", "-1"], "0 to 1000"),
        (["--threshold", "2"], "from 0 to 1"),
    ],
    ids=str,
)
def test_wrong_flags_are_refused(flags: list[str], word: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as end:
        command.run([FILE, *flags])
    assert end.value.code == 2 and word in capsys.readouterr().err


def test_a_port_in_use_and_a_missing_checkpoint_are_one_sentence(capsys: pytest.CaptureFixture[str]):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert command.run([FILE, "--port", str(taken.getsockname()[1])]) == 1
    assert "choose another --port" in capsys.readouterr().err
    assert command.run(["nothing.pth", "--port", "0"]) == 1
    assert command.run([FILE, "--port", "0", "--host", "no.such.host.invalid"]) == 1
    complaints = capsys.readouterr().err.strip().splitlines()
    assert "nothing.pth" in complaints[0] and "no.such.host.invalid" in complaints[-1]


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_this_machine_is_recognised(host: str):
    assert arguments.is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.org", ""])
def test_others_are_recognised(host: str):
    assert not arguments.is_loopback(host)
