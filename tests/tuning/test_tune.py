"""`dareu tune` on a small bench: what it leaves, going on, failed trials, other launchers, mistakes."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from pipeline_fixture import SETTINGS, dig, process, results, snapshot, store

from dareu.cli.commands import main
from dareu.config.compose import compose, options
from dareu.methods.loss_method import LossMethod
from dareu.tuning.options import read
from dareu.tuning.search_space import overrides_of
from dareu.tuning.tuner import methods_of

__all__ = ["store"]

Capture = pytest.CaptureFixture[str]
# Fast, so that a trial takes about a second; keys that are set are not searched.
FAST = ["method.optim.epochs=2", "batch=2"]
ASKED = ["methods=[gradient_ascent,grad_diff]", "trials=3", "seeds=[41]", *FAST]


def tuned(store: Path, folder: Path, *more: str) -> int:
    return main(["tune", *SETTINGS, f"cache_dir={store}", f"run_dir={folder}", *more])


def trials(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "trials.jsonl").read_text().splitlines()]


def without_time(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if not k.endswith("seconds")} for row in rows]


@pytest.fixture(scope="module")
def folder(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("tuned") / "tune"
    assert tuned(store, made, *ASKED) == 0
    return made


def test_the_folder_tells_of_every_trial_and_of_the_choice(folder: Path) -> None:
    rows = trials(folder)
    assert [(r["method"], r["number"]) for r in rows] == [
        (m, n) for m in ("gradient_ascent", "grad_diff") for n in (1, 2, 3)
    ]
    for method in ("gradient_ascent", "grad_diff"):
        own = [r for r in rows if r["method"] == method]
        assert own[0]["setting"]["optim.lr"] == compose([f"method={method}"]).method.optim.lr
        top = max(own, key=lambda r: r["objective"])
        assert [r["best"] for r in own] == [r is top for r in own]
        chosen = yaml.safe_load((folder / "chosen.yaml").read_text())[method]
        assert (chosen["trial"], chosen["setting"]) == (top["number"], top["setting"])
        run = results(folder / "runs" / f"{method}-seed41")
        assert dig(run, "tuning.objective") == top["objective"] >= own[0]["objective"]
        assert dig(run, "tuning.setting") == top["setting"] and dig(run, "tuning.trials") == 3
        assert dig(run, "unlearn_config.optim.lr") == top["setting"]["optim.lr"]
    table = list(csv.DictReader((folder / "trials.csv").read_text().splitlines()))
    assert [float(r["objective"]) for r in table] == [r["objective"] for r in rows]
    leaderboard = (folder / "leaderboard.md").read_text()
    assert all(
        f"| {name} |" in leaderboard for name in ("original", "retrained", "gradient_ascent", "grad_diff")
    )
    assert "untuned" not in leaderboard and "Peak memory" in leaderboard


def test_trials_and_reports_see_other_samples(folder: Path, store: Path) -> None:
    run = folder / "runs" / "grad_diff-seed41"
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["evaluation"]["part"] == results(run)["data"]["part"] == "report"
    shown = {
        json.loads(line)["id"] for line in (run / "samples" / "unlearned.jsonl").read_text().splitlines()
    }
    tried = set()
    for manifest in (store / "evaluation").glob("*/manifest.json"):
        tree = json.loads(manifest.read_text())
        if tree["config"]["evaluation"].get("part") == "validation" and tree["seed"] == 51:
            lines = (manifest.parent / "samples.jsonl").read_text().split("\n")
            tried |= {json.loads(line)["id"] for line in lines if line}
    assert tried and shown and not tried & shown


def test_a_trials_figure_is_that_of_the_run(folder: Path, store: Path, tmp_path: Path) -> None:
    """Trial 2 as an ordinary run on the validation part comes to the same figure; its model was not kept."""
    row = trials(folder)[1]
    given = ["method.optim.epochs=2", "seed=51", "evaluation.part=validation", *overrides_of(row["setting"])]
    where = [f"cache_dir={store}", f"run_dir={tmp_path}", "method=gradient_ascent"]
    assert main(["train", *SETTINGS, *where, *given]) == 0
    assert results(tmp_path)["retrain_similarity"] == row["objective"] == row["figures"]["retrain_similarity"]
    assert results(tmp_path)["tuning"] is None


def test_the_same_command_changes_nothing_and_more_go_on(folder: Path, store: Path, capsys: Capture) -> None:
    before, rows = snapshot(folder / "runs"), trials(folder)
    assert tuned(store, folder, *ASKED) == 0
    assert snapshot(folder / "runs") == before and trials(folder) == rows
    told = capsys.readouterr()
    assert not re.search(r"trial \d", told.err) and "grad_diff" in told.out
    assert tuned(store, folder, "methods=[grad_diff]", "trials=4", "seeds=[41,42]", *FAST) == 0
    assert len(re.findall(r"trial \d", capsys.readouterr().err)) == 1
    assert without_time(trials(folder)[:3]) == without_time(
        [r | {"best": t["best"]} for r, t in zip(rows[3:], trials(folder), strict=False)]
    )
    assert {p.name for p in (folder / "runs").iterdir()} >= {"grad_diff-seed41", "grad_diff-seed42"}


def test_killed_in_the_middle_it_goes_on(folder: Path, store: Path, tmp_path: Path) -> None:
    """Killed after its first trial, then given again: the trials of the whole run, and the first not made twice."""
    asked = [*ASKED, "sampler_seed=1"]
    assert tuned(store, tmp_path / "whole", *asked) == 0
    one = process("tune", *SETTINGS, *asked, f"cache_dir={store}", f"run_dir={tmp_path / 'cut'}")
    log = tmp_path / "cut" / "tune.log"
    end = time.monotonic() + 120
    while time.monotonic() < end and not (log.exists() and "trial 1/3" in log.read_text()):
        time.sleep(0.05)
    os.kill(one.pid, signal.SIGKILL)
    one.communicate()
    assert not (tmp_path / "cut" / "chosen.yaml").exists()
    assert tuned(store, tmp_path / "cut", *asked) == 0
    lines = log.read_text().splitlines()
    assert sum("gradient_ascent trial 1/3" in line for line in lines) == 1
    assert without_time(trials(tmp_path / "cut")) == without_time(trials(tmp_path / "whole"))


def test_two_processes_propose_and_find_the_same(folder: Path, store: Path, tmp_path: Path) -> None:
    assert tuned(store, tmp_path / "two", *ASKED, "workers=2") == 0
    of_one = [r for r in trials(folder) if r["number"] <= 3]
    of_two = {(r["method"], r["number"]): (r["setting"], r["objective"]) for r in trials(tmp_path / "two")}
    assert of_one
    for row in of_one:
        assert of_two[row["method"], row["number"]] == (row["setting"], row["objective"])


def test_a_failed_trial_stays_in_the_table(store: Path, tmp_path: Path, capsys: Capture) -> None:
    """A learning rate that no loss survives, beside the defaults."""
    (tmp_path / "my" / "method").mkdir(parents=True)
    (tmp_path / "my" / "method" / "wild.yaml").write_text(
        "# Either the defaults, or far too large.\nname: wild\nkind: loss\nloss: gradient_ascent\n"
        "optim: {lr: 1.0e-4, weight_decay: 10, steps: 30, batch_size: 4}\nsearch: {optim.lr: 'choice(1e-4, 10.0)'}\n"
    )
    given = [f"--config-dir={tmp_path / 'my'}", "methods=[wild]", "trials=2", "seeds=[41]"]
    assert tuned(store, tmp_path / "a", *given) == 0
    good, bad = trials(tmp_path / "a")
    assert good["best"] and not good["failed"]
    assert "not finite" in bad["failed"] and bad["objective"] is None and not bad["best"]
    told = capsys.readouterr()
    assert "✗ wild trial 2/2: lr=10: The loss is not finite" in told.err and "wild" in told.out

    given[1] = "methods=[wild,gradient_ascent]"
    lost = ["method.optim.lr=10", "method.optim.steps=30", "method.optim.epochs=choice", "trials=1"]
    assert (
        tuned(store, tmp_path / "b", *given, lost[0], lost[1], "trials=1") == 2
    )  # nothing is left to search
    assert "sets every key" in capsys.readouterr().err


def test_a_method_that_always_fails_is_named(
    store: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = LossMethod.run

    def buggy(self: LossMethod, context: Any) -> Any:
        if context.config.method.name == "grad_diff":
            raise ZeroDivisionError("none left")
        return real(self, context)

    monkeypatch.setattr(LossMethod, "run", buggy)
    assert tuned(store, tmp_path / "a", *ASKED) == 3
    told = capsys.readouterr()
    assert (
        "dareu: grad_diff: all 3 trials failed, the first because: ZeroDivisionError: none left" in told.err
    )
    assert "failed" in told.out and "gradient_ascent" in told.out
    leaderboard = (tmp_path / "a" / "leaderboard.md").read_text()
    assert "| grad_diff | " in leaderboard and "evaluation.part" not in leaderboard
    assert list(yaml.safe_load((tmp_path / "a" / "chosen.yaml").read_text())) == ["gradient_ascent"]


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ([], "needs methods. Set methods=dareu,npo, or methods=all"),
        (["methods=[npoo]"], "There is no method 'npoo'. Nearest: npo"),
        (["methods=range(3)"], "'methods=range(3)' cannot be read. Write methods=dareu,npo"),
        (["methods=npo", "trials=1,2"], "'trials' must be a whole number from 1 to 1000000 (got [1, 2])"),
        (["methods=[npo"], "'methods=[npo' cannot be read"),
        (["methods=npo", "trials=0"], "'trials' must be a whole number from 1 to 1000000 (got 0)"),
        (["methods=npo", "seeds=[]"], "'seeds' must be a list (not empty) of whole numbers (got [])"),
        (
            ["methods=npo", "objective=rouge"],
            "'objective': there is no objective 'rouge'; there are knowledge_left_worst, tug_of_war",
        ),
        (["methods=npo", "seed=3"], "does not accept seed=…. Set seeds=…"),
        (["methods=npo", "method=npo"], "does not accept method=…"),
        (["methods=npo", "retrain=false"], "does not accept retrain=…"),
        (["methods=npo", "rounds.count=2"], "does not accept rounds"),
        (["methods=npo", "evaluation.part=all"], "does not accept evaluation.part=…"),
        (["methods=npo", "finetune.lrr=3"], "unknown key 'finetune.lrr'"),
        (["methods=npo", "hydra/launcher=nothing"], "The configuration cannot be composed"),
        (["methods=npo", "evaluation.validation_share=1"], "'evaluation.validation_share'"),
        (["methods=npo", "data.pairs=1"], "cannot be cut into a validation and a report part"),
    ],
)
def test_mistakes_are_told_before_anything_is_written(
    asked: list[str], told: str, store: Path, tmp_path: Path, capsys: Capture
) -> None:
    assert tuned(store, tmp_path / "run", *asked) == 2
    err = capsys.readouterr().err
    assert told in " ".join(err.split()), err
    assert not list(tmp_path.rglob("trials*")) and not list(tmp_path.rglob("runs"))


@pytest.mark.parametrize(
    ("module", "asked", "extra"),
    [
        ("optuna", [], "dareu[tune]"),
        ("hydra_plugins.hydra_joblib_launcher", ["workers=2"], "dareu[joblib]"),
        ("hydra_plugins.hydra_submitit_launcher", ["hydra/launcher=submitit_slurm"], "dareu[submitit]"),
    ],
)
def test_a_missing_package_is_told_with_its_extra(
    module: str, asked: list[str], extra: str, store: Path, tmp_path: Path, capsys: Capture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    from dareu.tuning import options as tune_options

    real = tune_options.find_spec
    for place in ("dareu.errors.find_spec", "dareu.tuning.options.find_spec"):
        monkeypatch.setattr(place, lambda name: None if name == module else real(name))
    assert tuned(store, tmp_path / "run", "methods=npo", *asked) == 2
    assert f"pip install '{extra}'" in capsys.readouterr().err and not (tmp_path / "run").exists()


def test_lists_may_be_written_either_way() -> None:
    forms = [["methods=[npo,dareu]", "seeds=[3,4]"], ["methods=npo,dareu", "seeds=3,4"]]
    assert read(forms[0]) == read(forms[1])
    assert read(forms[1]).tune.methods == ["npo", "dareu"] and read(forms[1]).tune.seeds == [3, 4]
    one = read(["methods=npo,npo", "seeds=5", "workers=3", "finetune.lr=1e-3", "method.optim.lr=1e-3"])
    assert one.tune.methods == ["npo"] and one.tune.seeds == [5] and one.fixed == {"optim.lr"}
    assert one.hydra == ["hydra/launcher=joblib", "hydra.launcher.n_jobs=3"] and len(one.overrides) == 2
    everything = set(options()["method"])  # but for variants, whose search is that of another method
    assert set(read(["methods=all"]).tune.methods) == everything - {
        "dareu_long",
        "dareu_levels",
        "dareu_whole",
    }


def test_a_folder_of_another_tuning_is_refused(folder: Path, store: Path, capsys: Capture) -> None:
    before = snapshot(folder)
    assert tuned(store, folder, *ASKED, "objective=tug_of_war") == 2
    assert "already holds another run" in capsys.readouterr().err and snapshot(folder) == before


def test_print_shows_what_would_be_searched(
    capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["tune", "methods=all", "--print", "trials=2"]) == 0
    tree = yaml.safe_load(capsys.readouterr().out)
    assert tree["tune"]["trials"] == 2 and set(tree["search"]) == set(tree["tune"]["methods"])
    assert tree["search"]["npo"]["params.beta"]["default"] == 0.1
    rated = {name for name, space in tree["search"].items() if "optim.lr" in space}
    assert len(rated) > 20 and "scurenewton" not in rated
    # a key of the command line is searched for nobody; a method that does not have it says so
    rate = "method.optim.lr=1e-3"
    assert main(["tune", f"methods=[{','.join(sorted(rated))}]", "--print", rate]) == 0
    tree = yaml.safe_load(capsys.readouterr().out)
    assert set(tree["search"]) == rated and not any("optim.lr" in space for space in tree["search"].values())
    assert main(["tune", "methods=all", "--print", rate]) == 2
    assert "unknown key 'method.optim' where method.kind=newton" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("objective", "scored"), [("tug_of_war", False), ("knowledge_left_worst", True)])
def test_trials_have_likelihoods_where_the_objective_reads_them(objective: str, scored: bool) -> None:
    (method,) = methods_of(read(["methods=npo", f"objective={objective}"]))
    assert (method.config.evaluation.likelihoods, method.config.evaluation.part) == (scored, "validation")
