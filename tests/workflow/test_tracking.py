"""What trackers are told: the curves, the figures and the settings of a run, once each; and trackers that fail."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from pipeline_fixture import LOSS, SMALL, kill_at, results, rows, store, train
from tracker_fixture import Curves, tensorboard_run, trackio_run, wandb_run

from dareu.config import LoggingConfig, parse
from dareu.config.compose import compose
from dareu.errors import TrainingError
from dareu.workflow.tracking.content import HIDDEN, tracked_config, tracked_figures, without_secrets
from dareu.workflow.tracking.tracker import Tracker

__all__ = ["store"]
TRACKERS = ("tensorboard", "wandb", "trackio")
Run = tuple[Curves, dict[str, Any], dict[str, Any]]


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Whatever this process asks of any other machine fails; trackio's database is the test's."""
    connect = socket.socket.connect

    def local(self: socket.socket, address: Any) -> None:
        if self.family != socket.AF_UNIX and address[0] not in ("127.0.0.1", "localhost", "::1"):
            raise AssertionError(f"asked the network for {address}")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", local)
    for name in ("WANDB_MODE", "WANDB_DIR", "WANDB_PROJECT", "WANDB_SERVICE", "TRACKIO_SPACE_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    from trackio import sqlite_storage, utils

    for module in (sqlite_storage, utils):  # it is read once, where trackio is imported
        monkeypatch.setattr(module, "TRACKIO_DIR", tmp_path / "trackio")


def read(kind: str, logs: Path, name: str = "a run") -> Run:
    if kind == "trackio":
        return trackio_run("test", name)
    return (tensorboard_run if kind == "tensorboard" else wandb_run)(logs)


def tracker(kind: str) -> Tracker:
    return Tracker(LoggingConfig.model_validate({"report_to": kind, "project": "test"}))


def tell(
    kind: str, folder: Path, steps: range, fails: bool = False, curve: str = "original", name: str = "a run"
) -> None:
    """A run with some steps of a curve, and, unless it fails, its figures."""
    one = tracker(kind)
    with one.run(folder, name, lambda: {"seed": 41, "method": {"name": "npo", "lr": 0.5}}):
        told = one.curve(curve)
        for step in steps:
            told({"step": step, "loss": 1 / step})
        if fails:
            raise TrainingError("The loss is not finite.", "Lower it.")
        one.finish({"tug_of_war": 0.75, "knowledge_left_worst/metric": "rouge_l"})


# --- a run in each tracker ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", TRACKERS)
def test_an_interrupted_run_goes_on_and_tells_no_step_twice(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The second attempt, from the checkpoint at step 2, hears of all steps again."""
    logs = tmp_path / "logs"
    with pytest.raises(TrainingError, match="not finite"):
        tell(kind, logs, range(1, 4), fails=True)
    with (logs / "tracked.jsonl").open("a") as file:
        file.write('{"tracker": "')  # cut by a kill
        file.write("\n")
    tell(kind, logs, range(1, 6))
    curves, figures, config = read(kind, logs)
    wanted = [(1, 1.0), (2, 0.5), (3, pytest.approx(1 / 3)), (4, 0.25), (5, pytest.approx(0.2))]
    assert curves == {"original/loss": wanted}
    assert figures["tug_of_war"] == 0.75
    assert kind == "tensorboard" or figures["knowledge_left_worst/metric"] == "rouge_l"
    found = config["method"]["lr"] if kind == "wandb" else config["method.lr"]
    assert found == 0.5 and config["seed"] == 41
    if kind == "wandb":
        keys = {file.name for file in logs.glob("wandb/offline-run-*/*.wandb")}
        assert len(list(logs.glob("wandb/offline-run-*"))) == len(keys) == 1  # the second has the whole run
    assert capsys.readouterr().out == ""


KILLED = """
import os, signal, sys
from pathlib import Path
from dareu.config import LoggingConfig
from dareu.workflow.tracking.tracker import Tracker
tracker = Tracker(LoggingConfig.model_validate({"report_to": sys.argv[1], "project": "test"}))
with tracker.run(Path(sys.argv[2]), "a run", dict):
    for curve, last in (("original", 3), ("unlearned", 2)):
        told = tracker.curve(curve)
        for step in range(1, last + 1):
            told({"step": step, "loss": 1 / step})
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("kind", TRACKERS)
def test_rows_that_a_kill_has_lost_are_told_again(kind: str, tmp_path: Path) -> None:
    """Trackers write late. The curve of a model that comes from the store now is whole too."""
    logs = tmp_path / "logs"
    assert subprocess.run([sys.executable, "-c", KILLED, kind, logs], capture_output=True).returncode == -9
    time.sleep(1.1)  # TensorBoard reads files by the second in their names; a run takes longer to begin again
    tell(kind, logs, range(1, 4), curve="unlearned")
    wanted = [(1, 1.0), (2, 0.5), (3, pytest.approx(1 / 3))]
    assert read(kind, logs)[0] == {"original/loss": wanted, "unlearned/loss": wanted}


@pytest.mark.parametrize("kind", TRACKERS)
def test_runs_of_a_sweep_are_apart(kind: str, tmp_path: Path) -> None:
    """One after another in this process: of two names, and of one name in two folders."""
    for folder, name, last in (("a", "one", 2), ("b", "two", 3)):
        tell(kind, tmp_path / folder, range(1, last), name=name)
    for folder, name, count in (("a", "one", 1), ("b", "two", 2)):
        curves, _, _ = read(kind, tmp_path / folder, name)
        assert [step for step, _ in curves["original/loss"]] == list(range(1, count + 1))
    if kind == "wandb":
        import wandb

        assert wandb.run is None
    if kind == "trackio":
        from trackio.sqlite_storage import SQLiteStorage

        tell(kind, tmp_path / "c", range(1, 2), name="one")
        assert len(SQLiteStorage.get_run_records("test")) == 3


def test_another_tracker_of_the_same_run_gets_the_whole_curve(tmp_path: Path) -> None:
    tell("trackio", tmp_path, range(1, 4))
    tell("tensorboard", tmp_path, range(1, 4))
    assert len(tensorboard_run(tmp_path)[0]["original/loss"]) == 3


def test_trackio_stays_on_this_machine_whatever_the_environment_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os

    monkeypatch.setenv("TRACKIO_SPACE_ID", "somebody/space")
    tell("trackio", tmp_path, range(1, 3))
    assert len(trackio_run("test", "a run")[0]["original/loss"]) == 2
    assert os.environ["TRACKIO_SPACE_ID"] == "somebody/space"


def test_nothing_is_told_outside_a_run_or_without_a_tracker(tmp_path: Path) -> None:
    one = tracker("tensorboard")
    one.curve("original")({"step": 1, "loss": 1.0})
    one.finish({"tug_of_war": 1.0})
    tell("none", tmp_path / "logs", range(1, 3))
    assert list(tmp_path.iterdir()) == []


# --- trackers that fail ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "good", "calls"), [("__init__", 0, 1), ("add_scalar", 3, 4), ("close", 0, 2), ("add_text", 1, 2)]
)
def test_a_tracker_that_fails_is_told_once_and_left_out(
    name: str, good: int, calls: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """At its beginning, in a curve, at its end, at its figures; a tracker that failed is closed, once."""
    from torch.utils.tensorboard import SummaryWriter

    made: list[str] = []
    given = getattr(SummaryWriter, name)

    def full(*args: Any, **kwargs: Any) -> Any:
        made.append(name)
        if len(made) > good:
            raise OSError("No space left on device")
        return given(*args, **kwargs)

    monkeypatch.setattr(SummaryWriter, name, full)
    tell("tensorboard", tmp_path, range(1, 9))
    told = [line for line in capsys.readouterr().err.splitlines() if "logging=" in line]
    assert len(told) == 1 and "logging=tensorboard failed (OSError: No space left on device)" in told[0]
    assert len(made) == (1 if name == "close" else calls)


def test_an_error_of_the_run_is_not_hidden_by_one_of_the_tracker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from dareu.workflow.tracking.backends import Wandb

    end = Wandb.end

    def fail(self: Wandb, failed: bool) -> None:
        end(self, failed)
        raise RuntimeError("the service is gone")

    monkeypatch.setattr(Wandb, "end", fail)
    with pytest.raises(TrainingError, match="not finite"):
        tell("wandb", tmp_path, range(1, 3), fails=True)
    assert "logging=wandb failed (RuntimeError: the service is gone)" in capsys.readouterr().err


# --- what is told ---------------------------------------------------------------------------------------------


def test_settings_name_nobody_who_is_forgotten() -> None:
    overrides = ["forget.owners=[Ada Bell, Bo]", "data=local", "data.path=/srv/ada_bell/rows.csv", "seed=43"]
    tree = tracked_config(parse(compose(overrides)), ("Ada Bell", "Bo"))
    assert tree["forget"]["owners"] == 2 and tree["seed"] == 43
    assert "Ada" not in json.dumps(tree) and "method" in tree
    rounds = tracked_config(parse(compose(["rounds=[[Ada],[Bo,Cy]]"])), ("Ada", "Bo", "Cy"))
    assert rounds["rounds"]["owners"] == [1, 2]
    assert tracked_config(parse(compose(["method=npo"])), ("npo",))["method"]["name"] == "npo"


def test_settings_hold_no_secrets() -> None:
    tree = {
        "hub_token": "abc", "params": {"api_key": "xyz", "url": "https://me:word@host/x", "n": ["hf_abcdefghijklmnop"]},
        "prompt_tokens": 16, "granularity": "token", "max_new_tokens": None, "top_k": "5",
    }  # fmt: skip
    assert without_secrets(tree) == {
        "hub_token": HIDDEN,
        "params": {"api_key": HIDDEN, "url": f"https://{HIDDEN}@host/x", "n": [HIDDEN]},
        "prompt_tokens": 16, "granularity": "token", "max_new_tokens": None, "top_k": "5",
    }  # fmt: skip


def test_figures_are_those_of_results_by_their_paths() -> None:
    left = {"rouge_l": {"value": -0.4, "low": -0.6, "high": -0.1, "n": 9}, "exact": {"value": None}}
    found = tracked_figures(
        {
            "data": {"forget_owners": ["Ada"]},
            "models": {
                "unlearned": {"forget": {"rouge_l": 0.25, "exact": None}, "intervals": {"forget": {"n": 3}}},
                "retrained": {"test": {"rouge_l": 0.5}, "by_owner": {"Ada": 1.0, "Cy": 0.5}},
            },
            "tug_of_war": 0.9,
            "forget_quality": {"p": 0.05, "log10_p": -1.3, "method": "exact"},
            "knowledge_left": left,
            "knowledge_left_worst": {"metric": "rouge_l", "value": -0.4},
            "damage": {"retain": {"value": 0.1, "low": float("nan")}},
            "seconds": {"unlearn": 3.5, "evaluate": None},
            "outcome": {"steps": 12, "stopped": "it is done", "unchanged": True},
            "peak_memory_mb": 512,
            "seed": 41,
        }
    )
    assert found == {
        "models/unlearned/forget/rouge_l": 0.25,
        "models/retrained/test/rouge_l": 0.5,
        "models/retrained/by_owner/Cy": 0.5,
        "tug_of_war": 0.9,
        "forget_quality/p": 0.05,
        "forget_quality/log10_p": -1.3,
        "knowledge_left/rouge_l/value": -0.4,
        "knowledge_left/rouge_l/low": -0.6,
        "knowledge_left/rouge_l/high": -0.1,
        "knowledge_left/rouge_l/n": 9,
        "knowledge_left_worst/metric": "rouge_l",
        "knowledge_left_worst/value": -0.4,
        "knowledge_left_worst/low": -0.6,
        "knowledge_left_worst/high": -0.1,
        "damage/retain/value": 0.1,
        "seconds/unlearn": 3.5,
        "outcome/steps": 12,
        "peak_memory_mb": 512,
    }


# --- whole runs -----------------------------------------------------------------------------------------------


def logged(log: Path, curve: str) -> Curves:
    """The curves of a `training.jsonl`."""
    found: Curves = {}
    for row in rows(log):
        for key in row.keys() - {"step"}:
            found.setdefault(f"{curve}/{key}", []).append((row["step"], pytest.approx(row[key], rel=1e-6)))
    return found


def test_a_killed_run_has_every_curve_once_and_the_figures_of_results(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The fine-tuning of both models and unlearning, which a kill cuts; then what the store has is not told again."""
    fresh, run = tmp_path / "store", tmp_path / "run"
    steps = [
        "logging=wandb",
        "method=npo",
        "method.optim.steps=8",
        "method.optim.save_every=2",
        "finetune.epochs=6",
    ]
    kill_at(
        ".work/unlearned/*/checkpoints/checkpoint-4/complete",
        fresh,
        "train",
        *SMALL,
        f"cache_dir={fresh}",
        f"run_dir={run}",
        *steps,
    )
    found = train(fresh, run, *steps)
    curves, figures, config = wandb_run(run / "logs")
    wanted = logged(run / "training.jsonl", "unlearned")
    for model in ("original", "retrained"):
        [log] = fresh.glob(f"{model}/*/training.jsonl")
        wanted |= logged(log, model)
    assert curves == wanted and len(curves["unlearned/loss"]) == 8
    assert figures == tracked_figures(results(run))
    assert (
        figures["tug_of_war"] == found["tug_of_war"]
        and figures["seconds/unlearn"] == found["seconds"]["unlearn"]
    )
    assert config["method"]["optim"]["steps"] == 8 and "Arjun" not in json.dumps(config)
    written = list((run / "logs").rglob("*"))
    for file in written:
        assert not file.is_file() or found["data"]["forget_owners"][0].encode() not in file.read_bytes()
    assert "has no curve" not in capsys.readouterr().err
    train(fresh, run, *steps)
    assert "logging=wandb writes nothing now." in capsys.readouterr().err
    assert list((run / "logs").rglob("*")) == written
    train(fresh, tmp_path / "another", *steps)
    assert "! logging=wandb has no curve of unlearning: the unlearned model comes from the store." in (
        capsys.readouterr().err
    )
    assert wandb_run(tmp_path / "another" / "logs")[0] == {}
    assert wandb_run(tmp_path / "another" / "logs")[1]["tug_of_war"] == found["tug_of_war"]


def test_rounds_have_curves_of_their_own(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run, rounds = tmp_path / "run", ["rounds={count: 2}", "forget.count=null"]
    train(store, run, "method=npo", "method.optim.lr=1.7e-4", *LOSS, *rounds, "logging=tensorboard")
    curves, figures, _ = tensorboard_run(run / "logs")
    wanted: Curves = {}
    for number in (1, 2):
        wanted |= logged(run / "rounds" / str(number) / "training.jsonl", f"rounds/{number}/unlearned")
    assert {k: v for k, v in curves.items() if k.startswith("rounds") and "unlearned" in k} == wanted
    assert figures["tug_of_war"] == pytest.approx(results(run)["tug_of_war"], rel=1e-6)
    assert [p.name for p in tmp_path.iterdir()] == ["run"]  # and nowhere else
