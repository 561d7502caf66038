"""Train on a SLURM cluster: `python run_with_submitit.py --nodes 4 --timeout 3000 --coco_path FOLDER`.

All flags of `main.py` are accepted. A job that reaches its time limit is saved, requeued and resumed:

1. SLURM sends SIGUSR2 to every process `--signal_delay` seconds before the limit (submitit's local executor: 30).
2. The signal asks training to stop: all processes finish the same step, the first one saves, all stop.
3. The first process has submitit requeue the job, which starts with `--resume auto`; the others end.
4. If the training has not stopped after three quarters of the notice, the job is requeued without saving and resumes
   from the previous checkpoint. The same happens if the job is still reading its data.

SIGTERM alone (`scancel`) saves and ends the job. If SLURM itself requeues the job, after a node failure, the training
also resumes with `--resume auto`.
"""

from __future__ import annotations

import argparse
import copy
import os
import re
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

import main
from training.time_limit import TimeLimit
from util.arguments import check_args, get_args_parser, given_flags
from util.dist import end_distributed_mode
from util.errors import one_sentence
from util.logging import get_logger
from util.signals import SAVE, STOP, CommandSignals, StopRequested

JOB_DIR = "outputs/submitit/%j"  # %j: the job's id
LOCAL_NOTICE = 30  # seconds; fixed in submitit's local executor
PORTS = range(20000, 32768)  # below the ephemeral ports of outgoing connections


def get_parser() -> argparse.ArgumentParser:
    """The flags of `main.py` and of the cluster."""
    parser = argparse.ArgumentParser(
        description="Train DETR on a SLURM cluster with submitit.",
        usage="%(prog)s [-h] [--flag VALUE ...]",
        parents=[get_args_parser()],
    )
    group = parser.add_argument_group("cluster")
    group.add_argument("--ngpus", type=int, help="GPUs per node, each with one process; default: 8, without SLURM all")
    group.add_argument("--nodes", type=int, help="number of nodes; default: 4, without SLURM 1")
    group.add_argument(
        "--timeout", default=60, type=int, help="time limit in minutes, at which the job is requeued (default: 60)"
    )
    group.add_argument(
        "--job_dir",
        default="",
        help=f"output folder of the run and the job's logs; %j is the job id; empty: {JOB_DIR}".replace("%", "%%"),
    )
    group.add_argument(
        "--cluster",
        default="auto",
        choices=["auto", "slurm", "local", "debug"],
        help="auto (the default): slurm if srun is found, otherwise local",
    )
    group.add_argument("--tasks_per_node", type=int, help="processes per node; default: --ngpus, at least 1")
    group.add_argument("--cpus_per_task", default=10, type=int, help="CPU cores per process (default: 10)")
    group.add_argument("--mem", type=float, help="memory per node in GB; default: 40 per process")
    group.add_argument(
        "--signal_delay", default=120, type=int, help="seconds before the time limit to save and stop (default: 120)"
    )
    group.add_argument(
        "--max_timeouts", default=200, type=int, help="how often the job may reach its time limit (default: 200)"
    )
    for name in ("partition", "constraint", "qos", "account", "comment"):
        group.add_argument(f"--{name}", help=f"SLURM's --{name}")
    return parser


class Task:
    """What each process of a job runs: `main.py`'s training in the job's folder.

    Args:
        args: `main.py`'s settings; `%j` in `output_dir` is the job id.
        notice: seconds between the signal and the time limit.
        attempt: how often the job has been requeued.
    """

    def __init__(self, args: argparse.Namespace, notice: float, attempt: int = 0):
        self.args = args
        self.notice = notice
        self.attempt = attempt

    def __call__(self) -> None:
        """Train; exits the process when the time limit is near.

        Raises:
            As `main.main` does, except StopRequested.
        """
        environment = import_submitit().JobEnvironment()
        restarts = int(os.environ.get("SLURM_RESTART_COUNT", 0))  # also counts requeueing by SLURM itself
        args = self._resumed_args() if self.attempt or restarts else copy.deepcopy(self.args)
        args.output_dir = str(self._folder())
        set_rank_variables(environment, self.attempt + restarts)
        try:
            with TimeLimit(signal_number(), self.notice) as limit, CommandSignals() as signals:
                signals.sentence, signals.advice = main.EVALUATION_STOPS if args.eval else main.TRAINING_STOPS
                try:
                    main.main(args)
                except StopRequested as stop:
                    get_logger().info(str(stop))
                    if limit.reached:
                        get_logger().info("the time limit is near: the job is requeued and resumes automatically")
                        limit.requeue()
        finally:
            end_distributed_mode()

    def checkpoint(self) -> Any:
        """The task to requeue, which resumes from the checkpoint; called by submitit."""
        return import_submitit().helpers.DelayedSubmission(
            type(self)(self._resumed_args(), self.notice, self.attempt + 1)
        )

    def _folder(self) -> Path:
        return Path(self.args.output_dir.replace("%j", import_submitit().JobEnvironment().job_id))

    def _resumed_args(self) -> argparse.Namespace:
        """The settings to resume with; until the first save, the user's `--resume PATH` still applies."""
        args = copy.deepcopy(self.args)
        if not args.eval and (not args.resume or any(self._folder().glob("checkpoint*.pth"))):
            args.resume = "auto"
        return args


def set_rank_variables(environment: Any, attempt: int) -> None:
    """Set torchrun's variables for `util.dist`: rank, number of processes and rendezvous. A single process needs none.

    Args:
        environment: submitit's `JobEnvironment`.
        attempt: gives each start of the job another port, so that no process meets one of an earlier start.
    """
    if environment.num_tasks == 1:
        return
    job = int(re.sub(r"\D", "", environment.job_id))
    sees_one_gpu = torch.cuda.device_count() == 1  # SLURM may show each process only its own
    os.environ.update(
        RANK=str(environment.global_rank),
        WORLD_SIZE=str(environment.num_tasks),
        LOCAL_RANK="0" if sees_one_gpu else str(environment.local_rank),
        MASTER_ADDR="127.0.0.1" if environment.num_nodes == 1 else environment.hostnames[0],
        MASTER_PORT=str(PORTS[(101 * job + attempt) % len(PORTS)]),
    )


def submit(args: argparse.Namespace) -> Any:
    """Submit a job.

    Args:
        args: the settings, from `get_parser`.

    Returns:
        submitit's job; with `--cluster debug` it runs when its result is requested.

    Raises:
        ImportError: submitit is not installed.
        ValueError: invalid settings.
    """
    submitit = import_submitit()
    resolve_cluster(args)
    names = vars(get_args_parser().parse_args([]))
    training = argparse.Namespace(**{name: getattr(args, name) for name in names}, given=getattr(args, "given", []))
    training.output_dir = str(Path(args.job_dir or args.output_dir or JOB_DIR).expanduser().absolute())
    if args.cluster != "slurm":  # without SLURM the id is a process id, which may be reused
        training.output_dir = training.output_dir.replace("%j", time.strftime("%Y%m%d-%H%M%S"))
    check_args(training)  # before the job waits in the queue

    on_slurm = args.cluster == "slurm"
    attempts = {} if args.cluster == "debug" else {f"{args.cluster}_max_num_timeout": args.max_timeouts}
    executor = submitit.AutoExecutor(training.output_dir, cluster=args.cluster, **attempts)
    executor.update_parameters(
        name="detr",
        nodes=args.nodes,
        tasks_per_node=args.tasks_per_node,
        gpus_per_node=args.ngpus,
        cpus_per_task=args.cpus_per_task,
        mem_gb=args.mem or 40 * args.tasks_per_node,
        timeout_min=args.timeout,
        slurm_partition=args.partition,
        slurm_constraint=args.constraint,
        slurm_qos=args.qos,
        slurm_account=args.account,
        slurm_comment=args.comment,
        slurm_signal_delay_s=args.signal_delay,
        slurm_additional_parameters={"requeue": True},
    )
    with submitit.helpers.clean_env():  # this process may itself be part of a job
        # The job must find these modules in any working directory.
        paths = [str(Path(__file__).resolve().parent), os.environ.get("PYTHONPATH", "")]
        with submitit.helpers.environment_variables(PYTHONPATH=os.pathsep.join(filter(None, paths))):
            return executor.submit(Task(training, args.signal_delay if on_slurm else LOCAL_NOTICE))


def resolve_cluster(args: argparse.Namespace) -> None:
    """Set the defaults that depend on the cluster, and check the settings.

    Raises:
        ValueError: a setting that the cluster does not support, with the flag to change.
    """
    has_slurm = shutil.which("srun") is not None
    if args.cluster == "auto":
        args.cluster = "slurm" if has_slurm else "local"
    on_slurm = args.cluster == "slurm"
    if on_slurm and not has_slurm:
        raise ValueError("--cluster slurm: srun was not found: run this on a login node, or use --cluster local")
    if args.nodes is None:
        args.nodes = 4 if on_slurm else 1
    if args.ngpus is None:
        args.ngpus = 8 if on_slurm else torch.cuda.device_count()
    if args.tasks_per_node is None:
        args.tasks_per_node = max(1, args.ngpus) if args.cluster != "debug" else 1
    for name, least in {"nodes": 1, "ngpus": 0, "tasks_per_node": 1, "timeout": 1, "signal_delay": 1}.items():
        if getattr(args, name) < least:
            raise ValueError(f"--{name} must be at least {least}, got {getattr(args, name)}")
    if not on_slurm and args.nodes > 1:
        raise ValueError(f"--cluster {args.cluster} runs on this machine only: use --nodes 1, got {args.nodes}")
    if args.cluster == "debug" and args.tasks_per_node > 1:
        raise ValueError("--cluster debug runs in one process: omit --tasks_per_node, or use --cluster local")
    if args.signal_delay >= 60 * args.timeout:
        raise ValueError(
            f"--signal_delay must be below --timeout, got {args.signal_delay} seconds and {args.timeout} minutes"
        )
    if args.job_dir and args.output_dir and args.job_dir != args.output_dir:
        raise ValueError(f"--job_dir {args.job_dir} and --output_dir {args.output_dir} set the same folder: pass one")
    if signal_number().name in (*STOP, *SAVE):
        raise ValueError(
            f"SUBMITIT_PREEMPT_SIGNAL={signal_number().name[3:]} is a signal that the training itself handles: "
            "unset the variable, or set it to USR2"
        )


def signal_number() -> signal.Signals:
    """The signal with which submitit announces the time limit."""
    return signal.Signals[f"SIG{import_submitit().JobEnvironment.USR_SIG}"]


def import_submitit() -> ModuleType:
    """Import submitit.

    Raises:
        ImportError: it is missing; the message says how to install it.
    """
    try:
        import submitit
    except ImportError as error:
        raise ImportError(
            "the package submitit is missing: install it with `python -m pip install submitit`"
        ) from error
    return submitit


def run(argv: Sequence[str] | None = None) -> int:
    """The command: submit, print where the results go, and turn an error that the user can fix into one sentence.

    Returns:
        The exit code.
    """
    parser = get_parser()
    args = parser.parse_args(argv)
    args.given = given_flags(parser, argv)
    try:
        job = submit(args)
        print(
            f"job {job.job_id} on {args.cluster}: {args.nodes} x {args.tasks_per_node} processes; checkpoints and logs "
            f"are in {job.paths.folder}"
        )
        if args.cluster == "debug":
            job.results()
    except (ValueError, OSError, ImportError, RuntimeError) as error:  # RuntimeError: sbatch failed
        print(f"error: {one_sentence(error)}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(run())
