"""Two machines in small: two torchrun agents of one process each, joined by a socket, of which one is killed.

python -m tools.reliability.two_nodes --out outputs/two_nodes

Where network namespaces can be made (Linux, root, iproute2) each agent has a network of its own and a virtual cable
joins the two; elsewhere both live on the loopback device. A training of seconds runs through once, undisturbed. Then it
runs again, and in the middle of an epoch the second agent and its worker are killed by SIGKILL. The first agent sees
its worker fail and waits; the second one is started again with the same command, and the two go on from the checkpoint
(`--resume auto`). In the end weights, training state and log must be equal to the bit. Exit code 1 if anything fails.
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
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tools.reliability.tiny_run import REPOSITORY, differences, fresh_folder, tiny_run

EPOCHS = 4
# Without this, an agent of the round before tells a newly started one no master address (torch 2.14 and 2.15).
SHARING = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
SECONDS = 600  # for one whole run; starting Python on a busy core takes its time
GOING_ON = re.compile(r"going on from \S+: epoch (\d+)")


@dataclass
class Node:
    """One agent: where it runs, and what it has said so far."""

    name: str
    address: str
    hosts: bool  # the rendezvous
    prefix: list[str]
    variables: dict[str, str]
    said: Path = Path()
    agent: subprocess.Popen | None = None
    starts: int = 0

    def start(self, endpoint: str, command: list[str], folder: Path) -> None:
        """Start, or start again, the agent with `main.py` and its flags."""
        self.starts += 1
        self.said = folder / f"{self.name}{self.starts}.txt"
        rendezvous = ["--rdzv_backend", "c10d", "--rdzv_endpoint", endpoint, "--rdzv_id", "two_nodes"]
        rendezvous += ["--rdzv_conf", f"is_host={int(self.hosts)}"]  # an address of a namespace is not recognised
        sizes = ["--nnodes", "2", "--nproc_per_node", "1", "--max_restarts", "3", "--local_addr", self.address]
        program = [sys.executable, "-m", "torch.distributed.run", *sizes, *rendezvous]
        with self.said.open("w") as file:
            self.agent = subprocess.Popen(
                [*self.prefix, *program, str(REPOSITORY / "main.py"), *command],
                stdout=file,
                stderr=subprocess.STDOUT,
                env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1", **SHARING, **self.variables},
                start_new_session=True,
            )

    def kill(self) -> int:
        """SIGKILL to the agent and all it has started; how many processes that were."""
        if self.agent.poll() is not None:
            return 0
        doomed = family(self.agent.pid)
        for pid in doomed:
            with suppress(ProcessLookupError):  # it may have ended meanwhile
                os.kill(pid, signal.SIGKILL)
        self.agent.wait()
        return len(doomed)


def family(pid: int) -> list[int]:
    """The process and all that descend from it, parents first (Linux: read from /proc)."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue  # it has ended meanwhile
        children.setdefault(parent, []).append(int(stat.parent.name))
    found = [pid]
    for member in found:
        found.extend(children.get(member, []))
    return found


class Network:
    """Two nodes' networks, made on entry and removed on exit; `kind` says which sort it became.

    Args:
        loopback: make none, use the loopback device.
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
                print(f"no network namespaces here ({str(reason).strip()})")
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
        self.kind = f"two network namespaces, {nodes[0].address} and {nodes[1].address}, joined by a virtual cable"
        return nodes


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)


def train(nodes: list[Node], folder: Path, flags: list[str], kill_in: int | None = None) -> list[str]:
    """One training by both nodes, the second of them killed in the middle of epoch `kill_in`, if given.

    Returns:
        What happened, as sentences.

    Raises:
        RuntimeError: an agent failed or the time was up.
    """
    folder.mkdir(parents=True)
    command = [*flags, "--output_dir", str(folder / "run"), "--resume", "auto"]
    with socket.socket() as probe:
        probe.bind(("", 0))
        endpoint = f"{nodes[0].address}:{probe.getsockname()[1]}"
    story, start, killed_at = [], time.monotonic(), None
    try:
        for node in nodes:
            node.start(endpoint, command, folder)
        while any(node.agent.poll() is None for node in nodes):
            if time.monotonic() - start > SECONDS:
                raise RuntimeError(f"not finished after {SECONDS} seconds")
            if kill_in is not None and killed_at is None and f"Epoch: [{kill_in}]  [1/" in _said(nodes):
                gone = nodes[1].kill()
                killed_at = time.monotonic()
                story.append(f"SIGKILL to the second agent and its worker ({gone} processes) in epoch {kill_in}")
                nodes[1].start(endpoint, command, folder)
            time.sleep(0.05)
        for node in nodes:
            if node.agent.returncode != 0:
                raise RuntimeError(f"the {node.name} agent ended with exit code {node.agent.returncode}")
    except RuntimeError as error:
        tails = "\n".join(f"--- {node.said}\n{node.said.read_text()[-3000:]}" for node in nodes)
        raise RuntimeError(f"{error}; the last it said:\n{tails}") from error
    finally:
        for node in nodes:
            if node.agent is not None:
                node.kill()
    if killed_at is not None:
        went_on = GOING_ON.findall(_said(nodes))
        if not went_on:
            raise RuntimeError(f"the training did not go on from a checkpoint, see {folder}")
        seconds = time.monotonic() - killed_at
        story.append(f"second agent started again; both went on with epoch {went_on[-1]}, done {seconds:.0f} s later")
    return story


def _said(nodes: list[Node]) -> str:
    return "".join(node.said.read_text() for node in nodes if node.agent is not None)


def main(argv: list[str] | None = None) -> int:
    """The command; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("outputs/two_nodes"), help="folder for both runs")
    parser.add_argument("--loopback", action="store_true", help="do not make networks, use the loopback device")
    options = parser.parse_args(argv)
    out = options.out.absolute()
    network = Network(options.loopback)
    try:
        fresh_folder(out, "two_nodes")
        flags = tiny_run(out, "--batch_size", "2", "--epochs", str(EPOCHS), "--print_freq", "1", train=16)
        with network as nodes:
            print(network.kind)
            train(nodes, out / "undisturbed", flags)
            print(f"undisturbed: {EPOCHS} epochs by two nodes of one process each")
            for sentence in train(nodes, out / "killed", flags, kill_in=2):
                print(sentence)
        found = differences(out / "killed" / "run", out / "undisturbed" / "run")
    except (OSError, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for difference in found:
        print(f"error: {difference}", file=sys.stderr)
    if not found:
        print("weights, training state and log are those of the undisturbed run, to the bit")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
