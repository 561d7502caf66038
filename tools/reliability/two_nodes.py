"""Kill one of two nodes: two torchrun agents with one process each, connected by a socket, act as two machines.

python -m tools.reliability.two_nodes --out outputs/two_nodes

If network namespaces can be created (Linux, root, iproute2), each agent has its own network, and a virtual cable
connects the two; otherwise both use the loopback device. A training run of a few seconds is first left undisturbed.
Then it is repeated, and in the middle of an epoch SIGKILL ends the second agent and its worker. The first agent sees
its worker fail and waits; the second one is restarted with the same command, and both resume from the checkpoint
(`--resume auto`). Weights, training state and log must then be bit for bit those of the undisturbed run. Exit code 1 if
anything fails.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tools.command import ToolError, run_tool, tool_parser
from tools.reliability.tiny_run import REPOSITORY, differences, fresh_folder, tiny_run

EPOCHS = 4
# Without this, agents of the previous round do not give a restarted one the master address (torch 2.14 and 2.15).
SHARING = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
TIME_LIMIT = 600  # seconds for one run; starting Python on a busy core is slow
RESUMED = re.compile(r"resuming from \S+: epoch (\d+)")


@dataclass
class Node:
    """One agent: where it runs, and the log of its current process."""

    name: str
    address: str
    hosts_rendezvous: bool
    prefix: list[str]
    variables: dict[str, str]
    log: Path = Path()
    agent: subprocess.Popen | None = None
    starts: int = 0

    def start(self, endpoint: str, command: list[str], folder: Path) -> None:
        """Start or restart the agent, with `main.py` and its flags."""
        self.starts += 1
        self.log = folder / f"{self.name}{self.starts}.txt"
        rendezvous = ["--rdzv_backend", "c10d", "--rdzv_endpoint", endpoint, "--rdzv_id", "two_nodes"]
        # torch does not recognise an address in a namespace as its own, so the host is named explicitly.
        rendezvous += ["--rdzv_conf", f"is_host={int(self.hosts_rendezvous)}"]
        sizes = ["--nnodes", "2", "--nproc_per_node", "1", "--max_restarts", "3", "--local_addr", self.address]
        program = [sys.executable, "-m", "torch.distributed.run", *sizes, *rendezvous]
        with self.log.open("w") as file:
            self.agent = subprocess.Popen(
                [*self.prefix, *program, str(REPOSITORY / "main.py"), *command],
                stdout=file,
                stderr=subprocess.STDOUT,
                env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1", **SHARING, **self.variables},
                start_new_session=True,
            )

    def kill(self) -> int:
        """Send SIGKILL to the agent and its descendants; returns the number of processes."""
        if self.agent.poll() is not None:
            return 0
        processes = descendants(self.agent.pid)
        for pid in processes:
            with suppress(ProcessLookupError):  # it has ended
                os.kill(pid, signal.SIGKILL)
        self.agent.wait()
        return len(processes)


def descendants(pid: int) -> list[int]:
    """The process and its descendants, parents first (Linux: read from /proc)."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue  # it has ended
        children.setdefault(parent, []).append(int(stat.parent.name))
    found = [pid]
    for member in found:
        found.extend(children.get(member, []))
    return found


class Network:
    """The networks of two nodes, created on entry and removed on exit; `kind` says which kind was possible.

    Args:
        loopback: create no networks, use the loopback device.
    """

    def __init__(self, loopback: bool) -> None:
        self.loopback = loopback
        self.kind = "two agents on the loopback device"
        self.spaces: list[str] = []

    def __enter__(self) -> list[Node]:
        if not self.loopback:
            try:
                return self._namespaces()
            except (OSError, subprocess.CalledProcessError) as error:
                self.__exit__()
                reason = getattr(error, "stderr", "") or error
                print(f"network namespaces cannot be created ({str(reason).strip()})")
        variables = {"GLOO_SOCKET_IFNAME": "lo"}
        return [Node(name, "127.0.0.1", name == "first", [], variables) for name in ("first", "second")]

    def __exit__(self, *_: object) -> None:
        for space in self.spaces:
            subprocess.run(["ip", "netns", "delete", space], capture_output=True)
        self.spaces = []

    def _namespaces(self) -> list[Node]:
        own = os.getpid()
        subnet = f"10.213.{own % 256}"
        nodes = []
        for number, name in enumerate(("first", "second"), start=1):
            space, cable = f"detr{own}{name}", f"detr{number}"
            _ip("netns", "add", space)
            self.spaces.append(space)
            variables = {"GLOO_SOCKET_IFNAME": cable}
            nodes.append(Node(name, f"{subnet}.{number}", number == 1, ["ip", "netns", "exec", space], variables))
        first, second = self.spaces
        _ip("link", "add", "detr1", "netns", first, "type", "veth", "peer", "name", "detr2", "netns", second)
        for number, node in enumerate(nodes, start=1):
            _ip("-n", self.spaces[number - 1], "address", "add", f"{node.address}/24", "dev", f"detr{number}")
            for device in ("lo", f"detr{number}"):
                _ip("-n", self.spaces[number - 1], "link", "set", device, "up")
        self.kind = f"two network namespaces, {nodes[0].address} and {nodes[1].address}, connected by a virtual cable"
        return nodes


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)


def train(nodes: list[Node], folder: Path, flags: list[str], kill_in: int | None = None) -> list[str]:
    """Train on both nodes; if `kill_in` is given, kill the second one in the middle of that epoch.

    Returns:
        The events, as sentences.

    Raises:
        ToolError: an agent failed, or the time limit was exceeded.
    """
    folder.mkdir(parents=True)
    command = [*flags, "--output_dir", str(folder / "run"), "--resume", "auto"]
    with socket.socket() as probe:
        probe.bind(("", 0))
        endpoint = f"{nodes[0].address}:{probe.getsockname()[1]}"
    events, start, killed_at = [], time.monotonic(), None
    try:
        for node in nodes:
            node.start(endpoint, command, folder)
        while any(node.agent.poll() is None for node in nodes):
            if time.monotonic() - start > TIME_LIMIT:
                raise ToolError(f"not finished after {TIME_LIMIT} seconds")
            if kill_in is not None and killed_at is None and f"Epoch: [{kill_in}]  [1/" in _logs(nodes):
                killed = nodes[1].kill()
                killed_at = time.monotonic()
                events.append(f"SIGKILL to the second agent and its worker ({killed} processes) in epoch {kill_in}")
                nodes[1].start(endpoint, command, folder)
            time.sleep(0.05)
        for node in nodes:
            if node.agent.returncode != 0:
                raise ToolError(f"the {node.name} agent ended with exit code {node.agent.returncode}")
    except ToolError:
        for node in nodes:
            print(f"--- the end of {node.log}\n{node.log.read_text()[-3000:]}", file=sys.stderr)
        raise
    finally:
        for node in nodes:
            if node.agent is not None:
                node.kill()
    if killed_at is not None:
        resumed = RESUMED.findall(_logs(nodes))
        if not resumed:
            raise ToolError(f"the training did not resume from a checkpoint, see {folder}")
        seconds = time.monotonic() - killed_at
        events.append(f"second agent restarted; both resumed with epoch {resumed[-1]}, finished {seconds:.0f} s later")
    return events


def _logs(nodes: list[Node]) -> str:
    return "".join(node.log.read_text() for node in nodes if node.agent is not None)


def main(options: argparse.Namespace) -> int:
    """Run the trial and print what happened; returns 1 if the runs differ."""
    out = options.out.absolute()
    network = Network(options.loopback)
    fresh_folder(out, "two_nodes")
    flags = tiny_run(out, "--batch_size", "2", "--epochs", str(EPOCHS), "--print_freq", "1", train=16)
    with network as nodes:
        print(network.kind)
        train(nodes, out / "undisturbed", flags)
        print(f"undisturbed: {EPOCHS} epochs on two nodes with one process each")
        for event in train(nodes, out / "killed", flags, kill_in=2):
            print(event)
    found = differences(out / "killed" / "run", out / "undisturbed" / "run")
    for difference in found:
        print(f"error: {difference}", file=sys.stderr)
    if not found:
        print("weights, training state and log are bit for bit those of the undisturbed run")
    return 1 if found else 0


def run(argv: Sequence[str] | None = None) -> int:
    """The command; returns the exit code."""
    parser = tool_parser(__doc__)
    parser.add_argument("--out", type=Path, default=Path("outputs/two_nodes"), help="folder for both runs")
    parser.add_argument("--loopback", action="store_true", help="use the loopback device, do not create networks")
    return run_tool(parser, main, argv)


if __name__ == "__main__":
    sys.exit(run())
