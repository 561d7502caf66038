"""Ranks, collectives and the process group: in a single process, and in two gloo processes."""

import json
import os
import socket
import time
from argparse import Namespace
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

import util.dist
from tests.helpers.processes import HANGS
from util.dist import (
    all_gather,
    check_rendezvous,
    end_distributed_mode,
    gather_to_main,
    get_rank,
    get_world_size,
    init_distributed_mode,
    is_dist_avail_and_initialized,
    is_main_process,
    reduce_dict,
    run_on_main,
    save_on_master,
)
from util.errors import CheckpointError, ProcessGroupError
from util.logging import get_logger
from util.meters import MetricLogger, SmoothedValue

LAUNCHERS = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "SLURM_PROCID", "SLURM_LOCALID", "SLURM_STEP_NUM_TASKS", "MASTER_ADDR")
RENDEZVOUS = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}


@pytest.fixture(autouse=True)
def no_launcher(monkeypatch):
    for name in (*LAUNCHERS, "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)


def refuse(error: Exception, rank: int) -> None:
    raise error if rank == 0 else AssertionError("only the main process may call it")


def groups_made_under_nccl() -> list[list[str]]:
    """The results of three collectives with nccl as the default backend, and the backends of the groups they create."""
    made = []
    get_backend, new_group = dist.get_backend, dist.new_group
    dist.get_backend = lambda group=None: "nccl"
    dist.new_group = lambda **how: made.append(new_group(**how)) or made[-1]
    try:
        results = [gather_to_main(number) for number in range(2)] + [run_on_main(lambda: 5)]
    finally:
        dist.get_backend, dist.new_group = get_backend, new_group
    return [results, [dist.get_backend(group) for group in made]]


def one_of_two(rank: int, folder: str) -> None:
    """The work of each process of the fixture below; it writes what it observes as JSON."""
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": str(rank)}
    args = Namespace(device="cpu", dist_url=f"file://{folder}/meeting_point")
    init_distributed_mode(args)
    facts = {"args": vars(args), "rank": get_rank(), "world_size": get_world_size(), "main": is_main_process()}

    facts["gathered"] = all_gather({"rank": rank, "boxes": [0.5] * (1 + 1000 * rank)})
    facts["on_main"] = gather_to_main({"rank": rank, "boxes": [0.5] * (1 + 1000 * rank)})
    facts["run"] = [run_on_main(lambda: f"by {get_rank()}")]
    for error in (ValueError("no images"), CheckpointError("no weights")):
        try:
            run_on_main(partial(refuse, error, rank))
        except (ValueError, RuntimeError) as raised:
            facts["run"].append([type(raised).__name__, str(raised)])
    facts["groups"] = groups_made_under_nccl()

    values = {"loss": torch.tensor(1.0 + rank), "error": torch.tensor(10.0 * rank)}
    reordered = dict(sorted(values.items(), reverse=rank == 0))
    facts["mean"] = {name: value.item() for name, value in reduce_dict(reordered).items()}
    facts["sum"] = {name: value.item() for name, value in reduce_dict(reordered, average=False).items()}

    logger = MetricLogger()
    for value in [1.0] if rank == 0 else [4.0, 4.0, 7.0]:
        logger.update(loss=value)
    if rank == 1:
        logger.update(only_here=3.0)
    exchanges = []
    gather = dist.all_gather_object
    dist.all_gather_object = lambda *arguments: (exchanges.append(1), gather(*arguments))
    logger.synchronize_between_processes()
    facts["exchanges"] = len(exchanges)
    facts["meters"] = {name: [meter.count, meter.global_avg] for name, meter in logger.meters.items()}
    meter = SmoothedValue()
    meter.update(float(rank), n=1 + rank)
    meter.synchronize_between_processes()
    facts["meter"] = [meter.count, meter.total, meter.value]

    save_on_master(torch.tensor(rank), f"{folder}/saved_by_{rank}.pth")
    with open(f"{folder}/said_by_{rank}.txt", "w") as said, redirect_stdout(said):
        get_logger().info("news")
        get_logger().warning("trouble")
        list(logger.log_every([1, 2], 1, "Epoch: [0]"))
    end_distributed_mode()
    facts["left"] = [is_dist_avail_and_initialized(), util.dist._cpu_group]
    Path(folder, f"facts_{rank}.json").write_text(json.dumps(facts))


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """(facts of rank 0, facts of rank 1, their folder) after two processes have run."""
    folder = tmp_path_factory.mktemp("pair")
    processes = mp.spawn(one_of_two, args=(str(folder),), nprocs=2, join=False)
    deadline = time.monotonic() + HANGS
    while not processes.join(timeout=5):
        if time.monotonic() > deadline:
            for process in processes.processes:
                process.terminate()
            pytest.fail(f"the two processes did not finish within {HANGS} seconds: they are waiting for each other")
    return *(json.loads((folder / f"facts_{rank}.json").read_text()) for rank in (0, 1)), folder


def test_a_single_process_gets_its_own_input_back():
    losses = {"loss": torch.tensor(2.0)}
    assert (get_rank(), get_world_size(), is_main_process()) == (0, 1, True)
    assert not is_dist_avail_and_initialized()
    assert all_gather({"a": 1}) == [{"a": 1}]
    assert gather_to_main({"a": 1}) == [{"a": 1}]
    assert run_on_main(lambda: 3) == 3
    with pytest.raises(KeyError):
        run_on_main(dict().popitem)
    assert reduce_dict(losses) is losses


def test_joining_fills_in_the_arguments(pair):
    for rank, facts in enumerate(pair[:2]):
        assert facts["args"] == {
            "device": "cpu",
            "dist_url": facts["args"]["dist_url"],
            "distributed": True,
            "rank": rank,
            "world_size": 2,
            "gpu": None,
            "dist_backend": "gloo",
        }
        assert (facts["rank"], facts["world_size"], facts["main"]) == (rank, 2, rank == 0)


def test_leaving_drops_every_group(pair):
    assert pair[0]["left"] == pair[1]["left"] == [False, None]


def test_objects_of_unequal_size_are_gathered_in_rank_order(pair):
    expected = [{"rank": 0, "boxes": [0.5]}, {"rank": 1, "boxes": [0.5] * 1001}]
    assert pair[0]["gathered"] == pair[1]["gathered"] == expected


def test_objects_of_unequal_size_are_gathered_on_the_main_process_only(pair):
    assert pair[0]["on_main"] == [{"rank": 0, "boxes": [0.5]}, {"rank": 1, "boxes": [0.5] * 1001}]
    assert pair[1]["on_main"] is None


def test_what_the_main_process_returns_or_raises_reaches_all(pair):
    assert pair[0]["run"] == ["by 0", ["ValueError", "no images"], ["CheckpointError", "no weights"]]
    assert pair[1]["run"] == ["by 0", ["ValueError", "no images"], ["RuntimeError", "CheckpointError: no weights"]]


def test_with_nccl_the_main_process_gathers_over_one_group_of_gloo(pair):
    assert pair[0]["groups"] == [[[0, 0], [1, 1], 5], ["gloo"]]
    assert pair[1]["groups"] == [[None, None, 5], ["gloo"]]


def test_reduce_dict_matches_values_by_name_whatever_their_order(pair):
    for facts in pair[:2]:
        assert facts["mean"] == {"loss": 1.5, "error": 5.0}
        assert facts["sum"] == {"loss": 3.0, "error": 10.0}


def test_meters_agree_after_one_exchange_even_where_a_process_lacks_one(pair):
    for facts in pair[:2]:
        assert facts["meters"] == {"loss": [4, 4.0], "only_here": [1, 3.0]}
        assert facts["exchanges"] == 1


def test_a_meter_synchronises_count_and_total_but_keeps_its_window(pair):
    assert pair[0]["meter"] == [3, 2.0, 0.0]
    assert pair[1]["meter"] == [3, 2.0, 1.0]


def test_only_the_main_process_saves_and_reports(pair):
    folder = pair[2]
    assert (folder / "saved_by_0.pth").exists() and not (folder / "saved_by_1.pth").exists()
    assert (folder / "said_by_1.txt").read_text() == "trouble\n"
    said = (folder / "said_by_0.txt").read_text()
    assert said.startswith("news\ntrouble\n") and "Total time" in said


def test_without_a_launcher_there_is_a_single_process():
    args = Namespace(device="cpu", world_size=1, dist_url="env://")
    init_distributed_mode(args)
    assert (args.distributed, args.rank, args.world_size, args.gpu) == (False, 0, 1, None)
    assert not is_dist_avail_and_initialized()


def test_a_world_size_without_a_launcher_is_an_error_that_names_torchrun():
    with pytest.raises(ValueError, match="torchrun --nproc_per_node 4"):
        init_distributed_mode(Namespace(device="cpu", world_size=4))


@pytest.mark.parametrize(("tasks", "world_size"), [("2", 1), (None, 2)])
def test_slurm_tasks_are_recognised_and_need_a_rendezvous_address(monkeypatch, tasks, world_size):
    monkeypatch.setenv("SLURM_PROCID", "1")
    if tasks:
        monkeypatch.setenv("SLURM_STEP_NUM_TASKS", tasks)
    with pytest.raises(ValueError, match="process 1 of 2 has no rendezvous address"):
        init_distributed_mode(Namespace(device="cpu", world_size=world_size, dist_url="env://"))


def test_a_single_slurm_task_is_a_single_process(monkeypatch):
    monkeypatch.setenv("SLURM_PROCID", "0")
    args = Namespace(device="cpu", world_size=1)
    init_distributed_mode(args)
    assert not args.distributed


def join(monkeypatch: pytest.MonkeyPatch, url: str = "env://", **environment: str) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    init_distributed_mode(Namespace(device="cpu", dist_url=url))


@pytest.mark.parametrize("environment", [{"RANK": "x", "WORLD_SIZE": "2"}, {"RANK": "0", "WORLD_SIZE": "0"}])
def test_joining_refuses_invalid_numbers(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]):
    with pytest.raises(ValueError, match="(RANK must be .* got 'x'|WORLD_SIZE must be .* got '0')"):
        join(monkeypatch, **environment)


@pytest.mark.parametrize("name", ["SLURM_STEP_NUM_TASKS", "SLURM_PROCID"])
def test_joining_refuses_invalid_slurm_variables(monkeypatch: pytest.MonkeyPatch, name: str):
    with pytest.raises(ValueError, match=f"{name} must be an integer .* got 'many'"):
        join(monkeypatch, **({"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "2"} | {name: "many"}))


@pytest.mark.parametrize(
    ("rank", "url", "environment", "sentence"),
    [
        (2, "env://", RENDEZVOUS, r"RANK must be in 0\.\.1 as WORLD_SIZE is 2, got 2: start with torchrun"),
        (0, "env://", {}, r"has no rendezvous address \(MASTER_ADDR and MASTER_PORT not set\)"),
        (0, "env://", {"MASTER_ADDR": "127.0.0.1"}, r"\(MASTER_PORT not set\)"),
        (0, "env://", {**RENDEZVOUS, "MASTER_PORT": "http"}, "MASTER_PORT must be .* got 'http'"),
        (0, "nonsense", {}, "--dist_url nonsense is not a valid rendezvous address"),
        (0, "ftp://host:1", {}, "not a valid rendezvous address"),
        (0, "tcp://127.0.0.1", {}, "not a valid rendezvous address"),
        (0, "tcp://127.0.0.1:port", {}, "not a valid rendezvous address"),
        (0, "file:///no/such/folder/meeting", {}, "the folder /no/such/folder does not exist"),
    ],
)
def test_an_unusable_rendezvous_address_is_refused(rank: int, url: str, environment: dict[str, str], sentence: str):
    with pytest.raises(ValueError, match=sentence):
        check_rendezvous(rank, 2, url, environment)


def test_usable_rendezvous_addresses_are_accepted(tmp_path):
    for url in ("env://", "tcp://10.0.0.1:29500", f"file://{tmp_path}/meeting"):
        check_rendezvous(1, 2, url, RENDEZVOUS)


def test_a_port_in_use_is_named(monkeypatch: pytest.MonkeyPatch):
    with socket.socket() as other_run:
        other_run.bind(("127.0.0.1", 0))
        other_run.listen()
        port = str(other_run.getsockname()[1])
        with pytest.raises(
            ProcessGroupError, match=f"cannot listen on 127.0.0.1:{port}: the address is in use, .*--master_port"
        ):
            join(monkeypatch, RANK="0", WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
    assert not dist.is_initialized()
