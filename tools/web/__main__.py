"""`python -m tools.web CKPT`: the detector on a page in the browser."""

from __future__ import annotations

import sys

if __name__ == "__main__":  # before the imports below, which take seconds
    from tools.web.arguments import missing_packages, parse
    from util.start_up.command import begin

    begin(parse)
    if missing_packages():
        sys.exit(missing_packages())

import argparse
import socket
import warnings
from collections.abc import Sequence

from prediction.predictor import Predictor
from tools.web.app import build_app
from tools.web.arguments import is_loopback, parse
from tools.web.looking import Detector
from tools.web.server import listen, make_server
from tools.web.turns import Turns
from tools.web.upload import Uploads
from util.errors import FIXABLE, lack_of_memory, lack_of_open_files, sentence_or_raise
from util.signals import CommandSignals, StopRequested
from util.text import printable


def main(options: argparse.Namespace) -> int:
    """Serve until a signal comes; returns the exit code.

    Raises:
        CheckpointError, ValueError, OSError: the checkpoint, the device or the port cannot be used.
    """
    warnings.filterwarnings("ignore", module="PIL")  # about damaged pictures; their sender is answered
    with listen(options.host, options.port) as listening:  # what fails at once comes before the model is loaded
        port = listening.getsockname()[1]
        names = list(options.trusted_hosts)
        if not is_loopback(options.host):
            names += [options.host, socket.gethostname()]
            print(_warning(options.host), file=sys.stderr)
        detector = Detector(
            Predictor(options.checkpoint, options.device), options.max_pixels, options.panoptic_threshold
        )
        uploads, turns = Uploads(round(options.max_mb * 1e6)), Turns(options.queue)
        app = build_app(detector, uploads, turns, names=names, threshold=options.threshold)
        print(f"the page: {_address(options.host, port)}   Ctrl-C stops it", flush=True)
        try:
            make_server(app).run(sockets=[listening])
        except StopRequested:
            print("stopped", file=sys.stderr)
    return 0


def _warning(host: str) -> str:
    return (
        f"warning: with --host {printable(host, 200)}, everyone who reaches this machine over the network can use the "
        "detector: there is no password, and pictures travel unencrypted"
    )


def _address(host: str, port: int) -> str:
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://{f'[{host}]' if ':' in host else printable(host, 200)}:{port}"


def run(argv: Sequence[str] | None = None) -> int:
    """The command; returns the exit code: 0 when a signal ended it, 1 after an error."""
    options = parse(argv)
    try:
        with CommandSignals():
            return main(options)
    except StopRequested as stop:
        print(stop, file=sys.stderr)
        return stop.code
    except Exception as error:
        memory = lack_of_memory(error, "close other programs, or use --device cpu")
        sentence = sentence_or_raise(error, FIXABLE, memory, lack_of_open_files(error))
        print(f"error: {sentence}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(run())
