"""Train on a SLURM cluster: `python run_with_submitit.py --nodes 4 --timeout 3000 --coco_path FOLDER`.

All flags of `main.py` pass through. A job that reaches its time limit is saved, queued again, and goes on:

1. `--signal_delay` seconds ahead SLURM sends SIGUSR2 to every process (so does submitit's local executor, 30 ahead).
2. Each process takes it for a stop of its training: all finish the same step, the first one saves, all stop.
3. Then the first process has submitit queue the job again, which starts with `--resume auto`; the others end.
4. A training that has not stopped when three quarters of the notice are over is queued again as it is, and goes on
   from the checkpoint before. So is a job that is still reading its data.

SIGTERM alone (`scancel`) saves and ends. SLURM's own requeueing, after a node failed, goes on with `--resume auto` too.
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
from util.errors import one_sentence
from util.logging import get_logger
from util.signals import SAVE, STOP, StopRequested

JOB_DIR = "outputs/submitit/%j"  # %j: the job's id
LOCAL_NOTICE = 30  # seconds; fixed by submitit's local executor
PORTS = range(20000, 32768)  # below those that systems hand out to outgoing connections


def get_parser() -> argparse.ArgumentParser:
    """`main.py`'s flags and the cluster's."""
    parser = argparse.ArgumentParser(
        description="Train DETR on a cluster, with submitit.",
        parents=[get_args_parser()],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    group = parser.add_argument_group("cluster")
    group.add_argument("--ngpus", type=int, help="GPUs, and so processes, a node; default: 8, off SLURM all there are")
    group.add_argument("--nodes", type=int, help="default: 4, off SLURM 1")
    group.add_argument("--timeout", default=60, type=int, help="minutes until the job is saved and queued again")
    group.add_argument(
        "--job_dir",
        default="",
        help=f"--output_dir of the run, with the job's logs; %j stands for its id; empty: {JOB_DIR}".replace("%", "%%"),
    )
    group.add_argument("--cluster", default="auto", choices=["auto", "slurm", "local", "debug"])
    group.add_argument("--tasks_per_node", type=int, help="processes a node; default: --ngpus, at least 1")
    group.add_argument("--cpus_per_task", default=10, type=int)
    group.add_argument("--mem", type=float, help="memory a node, GB; default: 40 for each process")
    group.add_argument("--signal_delay", default=120, type=int, help="seconds before the time limit to save and stop")
    group.add_argument("--max_timeouts", default=200, type=int, help="give up after reaching the limit so often")
    for name in ("partition", "constraint", "qos", "account", "comment"):
        group.add_argument(f"--{name}", help=f"SLURM's --{name}")
    return parser


class Task:
    """What each process of a job runs: the training of `main.py` in the job's folder.

    Args:
        args: `main.py`'s settings; `%j` in `output_dir` stands for the job's id.
        notice: seconds between the signal and the time limit.
        attempt: how often the job was queued again.
    """

    def __init__(self, args: argparse.Namespace, notice: float, attempt: int = 0):
        self.args = args
        self.notice = notice
        self.attempt = attempt

    def __call__(self) -> None:
        """Train; ends the process when the time is up.

        Raises:
            As `main.main` does, but for StopRequested.
        """
        environment = import_submitit().JobEnvironment()
        restarts = int(os.environ.get("SLURM_RESTART_COUNT", 0))  # counts SLURM's own requeueing as well
        args = self._continued() if self.attempt or restarts else copy.deepcopy(self.args)
        args.output_dir = str(self._folder())
        introduce(environment, self.attempt + restarts)
        try:
            with TimeLimit(signal_number(), self.notice) as limit:
                try:
                    main.main(args)
                except StopRequested as stop:
                    get_logger().info(str(stop))
                    if limit.reached:
                        get_logger().info("the time limit is near: the job is queued again and goes on by itself")
                        limit.requeue()
        finally:
            if torch.distributed.is_available() and torch.distributed.is_initialized():
                torch.distributed.destroy_process_group()

    def checkpoint(self) -> Any:
        """For submitit, which calls it before it queues the job again: the same task, going on from its checkpoint."""
        return import_submitit().helpers.DelayedSubmission(type(self)(self._continued(), self.notice, self.attempt + 1))

    def _folder(self) -> Path:
        return Path(self.args.output_dir.replace("%j", import_submitit().JobEnvironment().job_id))

    def _continued(self) -> argparse.Namespace:
        """The settings to go on with; where nothing was saved yet, a `--resume PATH` of the user's still counts."""
        args = copy.deepcopy(self.args)
        if not args.eval and (not args.resume or any(self._folder().glob("checkpoint*.pth"))):
            args.resume = "auto"
        return args


def introduce(environment: Any, attempt: int) -> None:
    """Tell `util.dist`, in torchrun's variables, who this process is and where all meet; one alone needs none.

    Args:
        environment: submitit's `JobEnvironment`.
        attempt: gives each start of the job a port of its own, so that none meets what is left of the one before.
    """
    if environment.num_tasks == 1:
        return
    job = int(re.sub(r"\D", "", environment.job_id))
    sees_one_gpu = torch.cuda.device_count() == 1  # where SLURM shows each process its own only
    os.environ.update(
        RANK=str(environment.global_rank),
        WORLD_SIZE=str(environment.num_tasks),
        LOCAL_RANK="0" if sees_one_gpu else str(environment.local_rank),
        MASTER_ADDR="127.0.0.1" if environment.num_nodes == 1 else environment.hostnames[0],
        MASTER_PORT=str(PORTS[(101 * job + attempt) % len(PORTS)]),
    )


def submit(args: argparse.Namespace) -> Any:
    """Hand a job to submitit.

    Args:
        args: of `get_parser`.

    Returns:
        submitit's job; with `--cluster debug` it runs when its result is asked for.

    Raises:
        ImportError: submitit is not installed.
        ValueError: settings that no job can have.
    """
    submitit = import_submitit()
    settle_cluster(args)
    names = vars(get_args_parser().parse_args([]))
    training = argparse.Namespace(**{name: getattr(args, name) for name in names}, given=getattr(args, "given", []))
    training.output_dir = str(Path(args.job_dir or args.output_dir or JOB_DIR).expanduser().absolute())
    if args.cluster != "slurm":  # elsewhere the id is a process's, which may come again
        training.output_dir = training.output_dir.replace("%j", time.strftime("%Y%m%d-%H%M%S"))
    check_args(training)  # now, not after an hour in the queue

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
    with submitit.helpers.clean_env():  # this process may itself run in a job
        # The job imports these files, wherever it is started.
        paths = [str(Path(__file__).resolve().parent), os.environ.get("PYTHONPATH", "")]
        with submitit.helpers.environment_variables(PYTHONPATH=os.pathsep.join(filter(None, paths))):
            return executor.submit(Task(training, args.signal_delay if on_slurm else LOCAL_NOTICE))


def settle_cluster(args: argparse.Namespace) -> None:
    """Put numbers where the defaults depend on the cluster.

    Raises:
        ValueError: what the cluster cannot do, with the flag to change.
    """
    slurm_is_here = shutil.which("srun") is not None
    if args.cluster == "auto":
        args.cluster = "slurm" if slurm_is_here else "local"
    on_slurm = args.cluster == "slurm"
    if on_slurm and not slurm_is_here:
        raise ValueError("--cluster slurm: srun is not found here; run this where jobs are submitted, or on local")
    if args.nodes is None:
        args.nodes = 4 if on_slurm else 1
    if args.ngpus is None:
        args.ngpus = 8 if on_slurm else torch.cuda.device_count()
    if args.tasks_per_node is None:
        args.tasks_per_node = max(1, args.ngpus) if args.cluster != "debug" else 1
    for name, least in {"nodes": 1, "ngpus": 0, "tasks_per_node": 1, "timeout": 1, "signal_delay": 1}.items():
        if getattr(args, name) < least:
            raise ValueError(f"--{name} {getattr(args, name)} makes no sense: use a number of {least} or more")
    if not on_slurm and args.nodes > 1:
        raise ValueError(f"--nodes {args.nodes} with --cluster {args.cluster}, which is this machine: use --nodes 1")
    if args.cluster == "debug" and args.tasks_per_node > 1:
        raise ValueError("--cluster debug runs in one process: leave --tasks_per_node out, or use --cluster local")
    if args.signal_delay >= 60 * args.timeout:
        raise ValueError(f"--signal_delay {args.signal_delay} leaves nothing of --timeout {args.timeout} minutes")
    if args.job_dir and args.output_dir and args.job_dir != args.output_dir:
        raise ValueError(f"--job_dir {args.job_dir} and --output_dir {args.output_dir} mean the same: pass one of them")
    if signal_number().name in (*STOP, *SAVE):
        raise ValueError(
            f"SUBMITIT_PREEMPT_SIGNAL={signal_number().name[3:]}, but the training listens to that signal itself: "
            "unset the variable, or set it to USR2"
        )


def signal_number() -> signal.Signals:
    """The signal that submitit announces the time limit with."""
    return signal.Signals[f"SIG{import_submitit().JobEnvironment.USR_SIG}"]


def import_submitit() -> ModuleType:
    """The package, or ImportError with the command that installs it."""
    try:
        import submitit
    except ImportError as error:
        raise ImportError(
            "the package submitit is missing: install it with `python -m pip install submitit`"
        ) from error
    return submitit


def run(argv: Sequence[str] | None = None) -> int:
    """The command: submit, say where to look, and turn what a user can mend into one sentence.

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
            f"in {job.paths.folder}"
        )
        if args.cluster == "debug":
            job.results()
    except (ValueError, OSError, ImportError, RuntimeError) as error:  # the last: what sbatch refuses
        print(f"error: {one_sentence(error)}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(run())
