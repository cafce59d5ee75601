"""SIGKILL in the middle of a run, four times: the same command goes on and ends with the same figures."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from pipeline_fixture import (
    DATA,
    PPO,
    SMALL,
    TRAINING,
    figures,
    kill_at,
    process,
    results,
    rows,
    tiny_hub_model,
    train,
)

RUN = [
    *SMALL,
    "finetune.save_every=20",  # of 90 steps
    "method.data_epochs=6",
    "method.prompts_per_batch=4",
    "method.updates_per_batch=2",
    "method.optim.save_every=4",  # of 12 updates
    "method.stop.attribution=null",
    "method.stop.unhealthy=1",  # weights are kept at each batch, but no answer is broken enough to stop
]
# Where to look in the store for the moment of the kill, in the order of the stages.
MOMENTS = {
    "fine-tuning": ".work/original/*/checkpoints/checkpoint-40/complete",
    "PPO, before its first checkpoint": ".work/unlearned/*/good.safetensors",
    "PPO, after a checkpoint": ".work/unlearned/*/checkpoints/checkpoint-4/complete",
    "evaluation": ".out/evaluation/*",  # the original is evaluated before PPO: this is the next model
}


def test_a_killed_run_ends_like_an_undisturbed_one(tmp_path: Path) -> None:
    store, folder = tmp_path / "killed-store", tmp_path / "killed"
    argv = ["train", *RUN, f"cache_dir={store}", f"run_dir={folder}"]
    told: dict[str, Any] = {}
    for moment, pattern in MOMENTS.items():
        mark = kill_at(pattern, store, *argv)
        assert not (folder / "results.json").exists(), moment
        if moment == "fine-tuning":
            told["seconds"] = json.loads((mark.parents[2] / "elapsed.json").read_text())["seconds"]
            assert not (store / "original").exists()
        if moment == "PPO, before its first checkpoint":
            assert (store / "attributor").is_dir() and not list(mark.parent.glob("checkpoints/*/complete"))
        if moment == "PPO, after a checkpoint":
            state = json.loads((mark.parent / "trainer_state.json").read_text())
            told["log"] = [row for row in state["log_history"] if "step" in row]
        if moment == "evaluation":
            assert len(list(store.glob("evaluation/*"))) < 3
    last = process(*argv)
    _, err = last.communicate(timeout=120)
    assert last.returncode == 0, err
    assert "original model from the store" in err and "unlearned by dareu from the store" in err

    undisturbed = train(tmp_path / "store", tmp_path / "run", *RUN, base=[])
    assert figures(results(folder)) == figures(undisturbed)
    assert undisturbed["outcome"] == {"steps": 12, "stopped": None, "stop_attribution": None}
    for name in ("original", "retrained", "unlearned"):
        records = [(f / "samples" / f"{name}.jsonl").read_bytes() for f in (folder, tmp_path / "run")]
        assert records[0] == records[1]

    # It went on, and did not begin anew: the first updates took the very time that the killed process noted.
    log = rows(folder / "training.jsonl")
    assert [row["step"] for row in log] == list(range(1, 13))
    assert [row["step_time"] for row in told["log"]] == [row["step_time"] for row in log[:4]]
    assert len({row["step_time"] for row in log}) > 6
    assert results(folder)["seconds"]["original"] > told["seconds"] > 0
    for left in (".out", ".work"):
        assert not [p for p in (store / left).rglob("*") if p.is_file()]


EPOCHS = ["method.optim.epochs=20", "method.optim.batch_size=4", "method.optim.save_every=2"]
QUICK = ["finetune.epochs=5", "attributor.optim.epochs=2", "retrain=false"]
HUB = ["model=hf", "model.max_length=256", *DATA, *TRAINING]
# Method → its settings, and where to look for the moment of the kill, in the store's `.work/unlearned/KEY`.
METHODS = {
    "fresh_adapter": ([*HUB, *EPOCHS], "checkpoints/checkpoint-4"),
    "counterfactual": ([*SMALL[1:], *EPOCHS], "checkpoints/checkpoint-4"),
    "dareu_warm": (
        [*SMALL[1:], *PPO, *(one.replace("method.", "method.warm_start.") for one in EPOCHS)],
        "teachers/checkpoints/checkpoint-4",
    ),
}


@pytest.mark.parametrize("method", METHODS)
def test_a_method_goes_on_after_a_kill(method: str, tmp_path: Path) -> None:
    """The same command again: the same figures, and the same weights bit for bit."""
    settings, moment = METHODS[method]
    argv = [f"method={method}", *settings, *QUICK]
    if settings[0] == "model=hf":
        argv.append(f"model.path={tiny_hub_model(tmp_path / 'hub', template=True, context=256)}")
    undisturbed = train(tmp_path / "store", tmp_path / "run", *argv, base=[])
    store, folder = tmp_path / "killed-store", tmp_path / "killed"
    shutil.copytree(
        tmp_path / "store", store, ignore=lambda at, names: {"unlearned", "evaluation", "audit"} & {*names}
    )
    command = ["train", *argv, f"cache_dir={store}", f"run_dir={folder}"]
    kill_at(f".work/unlearned/*/{moment}/complete", store, *command)
    assert not (store / "unlearned").exists()
    last = process(*command)
    _, err = last.communicate(timeout=240)
    assert last.returncode == 0, err
    assert figures(results(folder)) == figures(undisturbed)
    one, other = (at / "model" / model_file(at) for at in (folder, tmp_path / "run"))
    assert one.read_bytes() == other.read_bytes()


def model_file(run: Path) -> str:
    """The weights in the run's `model/`: an adapter's, or all."""
    [name] = [path.name for path in (run / "model").glob("*.safetensors")]
    return name


def test_the_moment_of_a_kill_is_really_looked_for(tmp_path: Path) -> None:
    """A process that ends before its moment is an error, not a kill."""
    with pytest.raises(AssertionError):
        kill_at("never", tmp_path, "--version")
