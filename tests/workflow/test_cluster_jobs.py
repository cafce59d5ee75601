"""Jobs that submitit starts, by its launcher for this machine: the outcome of each, and a process that is gone."""

from __future__ import annotations

from pathlib import Path

import pytest

from dareu.errors import ConfigError, RunError
from dareu.workflow.jobs import Job, job_launcher, launcher_files

pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
LAUNCHER = ["hydra/launcher=submitit_local", "hydra.launcher.timeout_min=2"]
WORK = """
import os, signal

def seed(config, about, result, console):
    result["seed"] = config.seed
    if about["fails"]:
        raise ValueError("as asked")

def gone(config, about, result, console):
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a module that only the jobs' processes read."""
    (tmp_path / "work_of_jobs.py").write_text(WORK)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    return "work_of_jobs"


def test_each_job_reports_and_their_files_are_gone_at_the_end(work: str, tmp_path: Path) -> None:
    jobs = [Job(f"{work}:seed", [f"seed={n}"], f"seed {n}", {"fails": n == 8}) for n in (7, 8)]
    runs = tmp_path / "runs"
    with launcher_files(LAUNCHER, runs) as files, job_launcher(LAUNCHER, None, files) as launch:
        assert files.parent == runs  # which the nodes of a cluster see too
        fine, failed = launch(jobs)
    assert (fine.title, fine.result, fine.failed) == ("seed 7", {"seed": 7}, None)
    assert failed.result == {"seed": 8} and failed.failed is not None and "as asked" in failed.failed
    assert not list(runs.iterdir())


def test_a_job_whose_process_is_gone_is_one_message_and_its_log_stays(work: str, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    with (
        pytest.raises(RunError, match=r"ended without a result \(Job \d+") as error,
        launcher_files(LAUNCHER, runs) as files,
        job_launcher(LAUNCHER, None, files) as launch,
    ):
        launch([Job(f"{work}:gone", [], "gone")])
    assert "same command goes on" in error.value.cure
    assert list(runs.glob(".jobs-*/.submitit/*/*_log.out"))


@pytest.mark.parametrize(
    ("launcher", "error", "said"),
    [
        ("hydra/launcher=submitit_nowhere", ConfigError, "submitit_nowhere"),
        ("hydra/launcher=submitit_slurm", RunError, "Can the launcher start jobs here"),
    ],
)
def test_a_launcher_that_starts_no_job_leaves_no_folder(
    work: str, launcher: str, error: type[Exception], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))  # no srun
    runs = tmp_path / "runs"
    with (
        pytest.raises(error, match=said),
        launcher_files([launcher], runs) as files,
        job_launcher([launcher], None, files) as launch,
    ):
        launch([Job(f"{work}:seed", [], "seed", {"fails": False})])
    assert not list(runs.iterdir())
