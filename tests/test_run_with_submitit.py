"""Jobs: what is requested from SLURM, the variables of each process, and resuming after the time limit."""

from __future__ import annotations

import json
import os
import pickle
import signal
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import main
import run_with_submitit
import training.run
from evaluation import report
from run_with_submitit import Task, get_parser, resolve_cluster, set_rank_variables, submit
from tests.helpers.runs import flags
from util.checkpoint import load_checkpoint
from util.signals import StopRequested

submitit = pytest.importorskip("submitit", reason="submitit is not installed")
cloudpickle = pytest.importorskip("cloudpickle")  # comes with submitit

FAKE_SBATCH = """#!/bin/sh
env > "$(dirname "$0")/environment"
echo Submitted batch job 71
"""


def parse(data, *more):
    args = get_parser().parse_args(flags(data, *more))
    args.given = []
    return args


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """A folder with commands that look like SLURM's, first on the path."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("srun", "sbatch"):
        (folder / name).write_text(FAKE_SBATCH)
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
    return folder


@pytest.fixture
def job(tmp_path, monkeypatch):
    """This process as the only one of a local job, number 7; returns the job's folder."""
    for name, value in {"EXECUTOR": "local", "LOCAL_JOB_ID": "7", "LOCAL_NTASKS": "1"}.items():
        monkeypatch.setenv(f"SUBMITIT_{name}", value)
    monkeypatch.delenv("SLURM_RESTART_COUNT", raising=False)
    (tmp_path / "7").mkdir()
    return tmp_path / "7"


def task(job, *more, **named):
    return Task(parse("data", "--output_dir", str(job.parent / "%j"), *more), 30, **named)


def test_a_job_requests_from_slurm_what_the_flags_say(slurm, tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "3")
    more = ["--timeout", "2800", "--partition", "big", "--account", "us", "--constraint", "a100", "--mem", "200"]
    submitted = submit(parse("data", "--job_dir", str(tmp_path / "jobs" / "%j"), "--epochs", "7", *more))
    folder = tmp_path / "jobs" / "71"
    script = (folder / "71_submission.sh").read_text()
    wanted = "nodes=4 ntasks-per-node=8 gpus-per-node=8 cpus-per-task=10 time=2800 mem=200GB signal=USR2@120 "
    for flag in (wanted + "partition=big account=us constraint=a100 requeue job-name=detr").split():
        assert f"#SBATCH --{flag}\n" in script
    assert "qos" not in script and "comment" not in script
    environment = dict(line.split("=", 1) for line in (slurm / "environment").read_text().splitlines() if "=" in line)
    assert environment["PYTHONPATH"].split(os.pathsep)[0] == str(Path(main.__file__).parent)
    assert "RANK" not in environment
    delayed = submitted.submission()
    assert delayed._timeout_countdown == 200
    training = delayed.function.args
    assert training.epochs == 7 and training.output_dir == str(tmp_path / "jobs" / "%j")
    assert not hasattr(training, "timeout") and delayed.function.notice == 120


def test_an_error_of_sbatch_is_printed(slurm, tmp_path, capsys):
    (slurm / "sbatch").write_text("#!/bin/sh\necho sbatch: invalid partition: big >&2\nexit 1\n")
    assert run_with_submitit.run(flags("data", "--job_dir", str(tmp_path), "--partition", "big")) == 1
    assert capsys.readouterr().err.splitlines()[-1] == "error: sbatch: invalid partition: big"


def test_defaults_without_slurm_are_those_of_this_machine(monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    args = parse("data")
    resolve_cluster(args)
    assert (args.cluster, args.nodes, args.ngpus, args.tasks_per_node) == ("local", 1, 3, 3)
    args = parse("data", "--cluster", "local", "--ngpus", "0")
    resolve_cluster(args)
    assert args.tasks_per_node == 1


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (["--cluster", "slurm"], "srun was not found"),
        (["--cluster", "local", "--nodes", "2"], "use --nodes 1"),
        (["--cluster", "debug", "--tasks_per_node", "2"], "--cluster debug runs in one process"),
        (["--nodes", "0"], "--nodes must be at least 1, got 0"),
        (["--tasks_per_node", "0"], "--tasks_per_node must be at least 1, got 0"),
        (["--timeout", "2"], "--signal_delay must be below --timeout, got 120 seconds and 2 minutes"),
        (["--job_dir", "a", "--output_dir", "b"], "set the same folder: pass one"),
        (["--dropout", "2"], "--dropout must be"),  # main.py's flags are checked before the job waits in the queue
        (["--job_dir", __file__ + "/below"], "cannot be created"),
    ],
)
def test_invalid_settings_are_rejected_in_one_sentence(monkeypatch, capsys, wrong, sentence):
    monkeypatch.setenv("PATH", "")
    assert run_with_submitit.run(flags("data", *wrong)) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ") and sentence in error and error.count("\n") == 1


def test_a_signal_that_the_training_handles_is_rejected(monkeypatch):
    monkeypatch.setattr(submitit.JobEnvironment, "USR_SIG", "USR1")
    with pytest.raises(ValueError, match="SUBMITIT_PREEMPT_SIGNAL=USR1"):
        resolve_cluster(parse("data"))


def test_without_submitit_the_command_says_how_to_install_it(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "submitit", None)
    assert run_with_submitit.run(flags("data")) == 1
    assert "python -m pip install submitit" in capsys.readouterr().err


def test_the_help_lists_the_flags_of_training_and_cluster(capsys):
    with pytest.raises(SystemExit):
        run_with_submitit.run(["--help"])
    text = capsys.readouterr().out
    assert all(flag in text for flag in ("--ngpus", "--nodes", "--timeout", "--job_dir", "--lr_backbone", "%j"))


def test_a_requeued_job_resumes_from_its_own_checkpoint(job):
    first = task(job, "--init_from", "weights.pth")
    again = pickle.loads(cloudpickle.dumps(first.checkpoint())).function
    assert (again.attempt, again.notice, again.args.resume) == (1, 30, "auto")
    assert again.args.init_from == "weights.pth"  # needed by `auto` until the first save
    assert first.args.resume == "" and again.checkpoint().function.attempt == 2


def test_a_job_requeued_before_its_first_save_keeps_its_resume_path(job):
    resumed = task(job, "--resume", "old.pth")
    assert resumed.checkpoint().function.args.resume == "old.pth"
    (job / "checkpoint.pth").touch()
    assert resumed.checkpoint().function.args.resume == "auto"


def test_a_requeued_evaluation_evaluates_the_same_weights(job):
    (job / "checkpoint.pth").touch()
    assert task(job, "--eval", "--resume", "old.pth").checkpoint().function.args.resume == "old.pth"


@pytest.fixture
def trained(monkeypatch):
    """The settings that `main.main` was called with."""
    seen = []
    monkeypatch.setattr(main, "main", seen.append)
    return seen


def test_a_task_trains_in_the_folder_of_its_job(job, trained):
    task(job)()
    assert trained[0].output_dir == str(job) and trained[0].resume == ""


def test_a_job_requeued_by_slurm_resumes(job, trained, monkeypatch):
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    task(job)()
    assert trained[0].resume == "auto"


def test_a_stop_before_the_time_limit_ends_the_job(job, monkeypatch, capsys):
    def stopped(args):
        raise StopRequested("saved, all is well")

    monkeypatch.setattr(main, "main", stopped)
    task(job)()
    assert "all is well" in capsys.readouterr().out


def rank_variables(monkeypatch, attempt=0, gpus=8, **named):
    """The variables that `set_rank_variables` sets."""
    facts = {"num_tasks": 16, "num_nodes": 2, "global_rank": 11, "local_rank": 3, "job_id": "4711_2"} | named
    environment: dict[str, str] = {}
    monkeypatch.setattr(run_with_submitit.os, "environ", environment)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    set_rank_variables(SimpleNamespace(**facts, hostnames=["node7", "node9"]), attempt)
    return environment


def test_processes_get_their_rank_and_rendezvous(monkeypatch):
    environment = rank_variables(monkeypatch)
    assert 20000 <= int(environment.pop("MASTER_PORT")) < 32768
    assert environment == {"RANK": "11", "WORLD_SIZE": "16", "LOCAL_RANK": "3", "MASTER_ADDR": "node7"}


def test_one_machine_needs_no_host_name(monkeypatch):
    assert rank_variables(monkeypatch, num_nodes=1)["MASTER_ADDR"] == "127.0.0.1"


def test_a_process_that_sees_one_gpu_takes_it(monkeypatch):
    assert rank_variables(monkeypatch, gpus=1)["LOCAL_RANK"] == "0"


def test_a_single_process_needs_no_rendezvous(monkeypatch):
    assert rank_variables(monkeypatch, num_tasks=1) == {}


def test_every_start_and_every_job_has_its_own_port(monkeypatch):
    starts = [{"attempt": attempt, "job_id": str(job)} for attempt in range(5) for job in range(5)]
    ports = {rank_variables(monkeypatch, **start)["MASTER_PORT"] for start in starts}
    assert len(ports) == 25


class TimesOut(Task):
    """A task whose first attempt reaches its time limit in the first step."""

    def __call__(self):
        report.draw_evaluation = lambda *parts: None  # pictures take longer than the training
        if self.attempt == 0:
            begin = training.run.set_epoch

            def reach_the_limit(*args):
                os.kill(os.getpid(), signal.SIGUSR2)  # as SLURM and submitit do, to every process
                begin(*args)

            training.run.set_epoch = reach_the_limit
        super().__call__()


def test_two_processes_save_at_the_time_limit_and_resume(shapes, tmp_path, monkeypatch):
    monkeypatch.setattr(run_with_submitit, "Task", TimesOut)
    cloudpickle.register_pickle_by_value(sys.modules[__name__])  # the job cannot import tests
    more = ["--batch_size", "2", "--epochs", "2", "--eval_every", "2", "--cluster", "local", "--ngpus", "0"]
    job = submit(parse(shapes, *more, "--tasks_per_node", "2", "--job_dir", str(tmp_path)))
    try:
        assert job.results() == [None, None]
    finally:
        cloudpickle.unregister_pickle_by_value(sys.modules[__name__])
    logs = [job.task(rank).stdout() for rank in (0, 1)]
    assert logs[0].count("saved epoch 0, step 1 of 2") == 1 and logs[0].count("Requeued job") == 1
    assert logs[0].count("2 processes joined") == 2 and "Requeued" not in logs[1]
    assert [json.loads(line)["epoch"] for line in (tmp_path / "log.txt").read_text().splitlines()] == [0, 1]
    assert load_checkpoint(tmp_path / "checkpoint.pth")["step"] == 4  # no step is done twice or skipped


def test_one_process_trains_alone(shapes, tmp_path):
    job = submit(parse(shapes, "--max_steps", "1", "--cluster", "local", "--ngpus", "0", "--job_dir", str(tmp_path)))
    assert job.result() is None
    assert load_checkpoint(tmp_path / "checkpoint.pth")["epoch"] == 0
    assert " joined (" not in job.stdout()
