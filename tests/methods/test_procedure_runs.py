"""Whole runs of RMU, PDU, SCRUB, task vectors and Newton steps: artifacts, keys, a kill, bad input."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pipeline_fixture import (  # noqa: F401
    SMALL,
    figures,
    kill_at,
    process,
    results,
    rows,
    store,
    tiny_hub_model,
    train,
)

from dareu.cli.commands import main
from dareu.config.compose import compose
from dareu.errors import ConfigError
from dareu.workflow.prepare import prepare
from dareu.workflow.stages import Stages

QUICK = {
    "rmu": ["method.optim.steps=2", "method.params.layer=1"],
    "pdu": ["method.optim.steps=2"],
    "scrub": ["method.optim.steps=2"],
    "task_vector": ["method.optim.steps=2"],
    "scurenewton": ["method.outer_steps=1", "method.inner_steps=1"],
}


@pytest.mark.parametrize("name", QUICK)
def test_a_run_makes_its_model_and_its_log(store: Path, tmp_path: Path, name: str) -> None:  # noqa: F811
    found = train(store, tmp_path / "run", f"method={name}", *QUICK[name])
    assert found["method"] == name and found["outcome"]["stopped"] is None
    log = rows(tmp_path / "run" / "training.jsonl")
    assert [row["step"] for row in log] == list(range(1, found["outcome"]["steps"] + 1))
    assert {"pdu": "dual", "scurenewton": "curvature"}.get(name, "loss") in log[0]
    if name == "task_vector":
        assert found["outcome"]["vector_length"] > 0
    assert (tmp_path / "run" / "model" / "model.safetensors").is_file()


@pytest.mark.parametrize(
    ("method", "change"),
    [
        ("rmu", "method.params.coefficient=3"),
        ("rmu", "method.params.modules=[mlp.up_proj]"),
        ("pdu", "method.params.epsilon=0.4"),
        ("scrub", "method.params.max_epochs=1"),
        ("task_vector", "method.scale=0.7"),
        ("task_vector", "method.optim.lr=0.5"),
        ("scurenewton", "method.cubic=7"),
        ("scurenewton", "method.hessian_batch_size=3"),
        ("scurenewton", "seed=99"),
    ],
)
def test_what_changes_a_result_changes_its_key(method: str, change: str) -> None:
    one, other = (
        Stages(prepare(compose([*SMALL, f"method={method}", *more]))).unlearned.key()
        for more in ([], [change])
    )
    assert one != other


def test_the_space_that_is_searched_changes_no_key() -> None:
    one = compose([*SMALL, "method=task_vector"])
    other = one.model_copy(update={"method": one.method.model_copy(update={"search": {}})})
    assert (
        one.method.search and Stages(prepare(one)).unlearned.key() == Stages(prepare(other)).unlearned.key()
    )


def test_a_killed_run_of_pdu_ends_like_an_undisturbed_one(tmp_path: Path) -> None:
    argv = [
        "train", *SMALL, "method=pdu", "method.optim.epochs=30", "method.optim.batch_size=2", "method.optim.lr=0.01",
        "method.optim.save_every=4", "method.params.warmup_epochs=1", "method.params.epsilon=0.1",
    ]  # fmt: skip
    killed, run = tmp_path / "killed-store", tmp_path / "killed"
    mark = kill_at(
        ".work/unlearned/*/checkpoints/checkpoint-8/complete",
        killed,
        *argv,
        f"cache_dir={killed}",
        f"run_dir={run}",
    )
    state = json.loads((mark.parent / "dual.json").read_text())
    last = process(*argv, f"cache_dir={killed}", f"run_dir={run}")
    assert last.communicate(timeout=400) and last.returncode == 0
    undisturbed = train(tmp_path / "store", tmp_path / "run", *argv[1:], base=[])
    assert figures(results(run)) == figures(undisturbed)
    log = rows(run / "training.jsonl")
    assert log == rows(tmp_path / "run" / "training.jsonl") and len(log) == 60
    assert log[7]["dual"] == state["dual"] != log[-1]["dual"]


# --- told before anything is written ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["method=rmu", "method.params.layer=2"], "The model has no layer 2 .* It has the layers 0 to 1"),
        (["method=rmu", "method.params.layer=1.5"], "'method.params.layer'.*got 1.5"),
        (
            ["method=rmu", "method.params.modules=[mlp.dwon_proj]"],
            "'mlp.dwon_proj'.*They have: .*mlp.down_proj",
        ),
        (["method=rmu", "+method.params.layr=1"], "no parameter 'layr'.*Nearest: layer"),
        (["method=rmu", "~method.params.coefficient"], "'method.params.coefficient' is not set"),
        (["method=rmu", "method.retain=js"], "method.retain"),
        (
            ["method=pdu", "method.retain=none", "method.retain_weight=1"],
            "'pdu' does not go with method.retain=none.*nll or kl",
        ),
        (["method=pdu", "method.params.epsilon=-1"], "'method.params.epsilon'.*got -1"),
        (["method=scrub", "method.retain=nll"], "'scrub' does not go with method.retain=nll.*retain=own"),
        (["method=npo", "method.retain=own"], "'npo' does not go with method.retain=own.*none or nll or kl"),
        (["method=task_vector", "method.scale=-1"], "'method.scale' must be a number from 0"),
        (["method=scurenewton", "method.cubic=0"], "'method.cubic' must be a number above 0"),
        (["method=scurenewton", "method.retain_weight=0", "method.forget_weight=0"], "are both 0"),
        (["method=scurenewton", "+method.optim.lr=1"], "unknown key 'method.optim"),
    ],
)
def test_bad_input(
    overrides: list[str], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import re

    run, cache = tmp_path / "run", tmp_path / "cache"
    assert main(["train", *SMALL, *overrides, f"run_dir={run}", f"cache_dir={cache}"]) == 2
    err = " ".join(capsys.readouterr().err.split())
    assert re.search(told, err), err
    assert "Traceback" not in err and list(tmp_path.iterdir()) == []


def test_layers_of_a_model_from_elsewhere_are_looked_up_in_its_config(tmp_path: Path) -> None:
    folder = tiny_hub_model(tmp_path / "hub", template=True)
    hub = ["model=hf", f"model.path={folder}", "method=rmu"]
    with pytest.raises(ConfigError, match="no layer 2 .*the layers 0 to 1"):
        prepare(compose([*SMALL[:4], *hub, "method.params.layer=2"]))


def test_a_loss_that_is_not_finite(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:  # noqa: F811
    grown = ["method.optim.lr=10", "method.optim.weight_decay=10", "method.optim.steps=30"]
    wild: dict[str, list[Any]] = {
        "task_vector": grown,
        "rmu": [*grown, "method.params.layer=1"],
    }
    for name, overrides in wild.items():
        run = tmp_path / name
        argv = ["train", *SMALL, f"method={name}", *overrides, f"cache_dir={store}", f"run_dir={run}"]
        assert main(argv) == 3
        assert "not finite" in json.loads((run / "failure.json").read_text())["reason"]
        assert "Traceback" not in capsys.readouterr().err
