"""A run of two processes (gloo) against the same run of one; and what happens when one of the two ends.

The file is its own worker: `python test_run_processes.py FOLDER` trains by each method below and writes what it saw.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path
from subprocess import Popen
from typing import Any

import pytest
from pipeline_fixture import DATA, MODEL, PPO, TRAINING, figures, results, tiny_hub_model
from processes_fixture import TIMEOUT, start_two, two_processes

from dareu.cli import commands, terminal
from dareu.config.compose import compose
from dareu.errors import ConfigError
from dareu.workflow.validate import check_processes

WORK = [
    *DATA, *TRAINING, "data.pairs=5", "finetune.epochs=10", "finetune.save_every=5",
    "attributor.optim.epochs=3", "evaluation.batch_size=4", "evaluation.samples=2",
]  # fmt: skip
SHARED = [*WORK, *MODEL]
OPTIM = ["method.optim.batch_size=4", "method.optim.epochs=2", "method.optim.save_every=1"]
METHODS = {
    "npo": ["method=npo", *OPTIM],  # five rows, four in a batch: the last one is uneven
    "scurenewton": ["method=scurenewton", "method.outer_steps=2", "method.inner_steps=2", "method.micro_batch_size=4"],
    "dareu": ["method=dareu", *PPO, "method.rollouts_per_update=2", "method.optim.save_every=1"],
    # `min_steps` would cut batches to one row, which two processes cannot share.
    "counterfactual": ["method=counterfactual", *OPTIM, "method.optim.min_steps=0"],
    "dareu_warm": [
        "method=dareu_warm", *PPO, "method.rollouts_per_update=2",
        *(one.replace("method.", "method.warm_start.") for one in OPTIM), "method.warm_start.optim.min_steps=0",
    ],
    "fresh_adapter": ["method=fresh_adapter", *OPTIM],
}  # fmt: skip
ADAPTED = ("fresh_adapter",)  # of a LoRA fine-tune of the model that lies beside the store


def settings(name: str, folder: Path) -> list[str]:
    """The overrides of a run of the method, whose store and run folder lie in `folder`."""
    model = ["model=hf", f"model.path={folder / 'hub'}", "model.max_length=256", "model.lora.dropout=0"]
    base = [*model, *WORK] if name in ADAPTED else SHARED
    return [*base, *METHODS[name], f"cache_dir={folder / 'store'}", f"run_dir={folder / name}"]


def run_all(folder: Path) -> dict[str, Any]:
    """Results and retain rows by method."""
    from dareu.training.samplers import RetainSampler
    from dareu.workflow.console import Console
    from dareu.workflow.experiment import train

    found: dict[str, Any] = {}
    walk = RetainSampler.batch
    with pytest.MonkeyPatch.context() as patch:
        for name in METHODS:
            rows: list[list[int]] = []

            def noting(sampler: Any, *args: Any, rows: list[list[int]] = rows) -> Any:
                picked = walk(sampler, *args)
                rows.append([sampler.rows.index(row) for row in picked])
                return picked

            patch.setattr(RetainSampler, "batch", noting)
            tree = train(compose(settings(name, folder)), console=Console(silent=True))
            found[name] = {"results": figures(json.loads(json.dumps(tree, default=str))), "rows": rows}
    return found


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, dict[str, Any], list[dict[str, Any]]]:
    """(folder of one process, folder of two, what the one found, what each of the two found)."""
    alone, shared = tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("two")
    for folder in (alone, shared):
        tiny_hub_model(folder / "hub", template=True, context=256)
    with two_processes(__file__, shared):
        one = run_all(alone)
    return alone, shared, one, [json.loads((shared / f"{rank}.json").read_text()) for rank in range(2)]


def differences(a: Any, b: Any, path: str = "") -> list[str]:
    """Paths of the figures that differ by more than a thousandth."""
    if isinstance(a, dict) and isinstance(b, dict):
        return [line for key in {**a, **b} for line in differences(a.get(key), b.get(key), f"{path}.{key}")]
    if isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        return [
            line
            for i, pair in enumerate(zip(a, b, strict=True))
            for line in differences(*pair, f"{path}[{i}]")
        ]
    if isinstance(a, int | float) and isinstance(b, int | float):
        return [] if a == pytest.approx(b, abs=1e-3, rel=1e-3) else [f"{path}: {a} {b}"]
    return [] if a == b else [f"{path}: {a} {b}"]


@pytest.mark.parametrize("name", METHODS)
def test_two_processes_find_what_one_finds(seen: Any, name: str) -> None:
    alone, shared, one, two = seen
    expected, written = figures(results(alone / name)), figures(results(shared / name))
    assert not differences(expected["models"], written["models"])
    assert not differences(expected["outcome"], written["outcome"])
    assert two[0][name]["results"] == two[1][name]["results"]  # process 1 is told what process 0 wrote
    assert sorted(p.name for p in (alone / name).iterdir()) == sorted(
        p.name for p in (shared / name).iterdir()
    )


def test_weights_agree_and_nothing_is_left_behind(seen: Any) -> None:
    from safetensors.torch import load_file

    alone, shared, *_ = seen
    models = sorted((alone / "store").glob("*/*/*/model.safetensors"))
    adapters = sorted((alone / "store").glob("*/*/*/adapter_model.safetensors"))
    stages = ["attributor", "attributor", "base", "original", "retrained", *["unlearned"] * 5]
    assert [path.parts[-4] for path in models] == stages
    assert [path.parts[-4] for path in adapters] == ["original", "retrained", "unlearned"]
    for path in models + adapters:
        mine, theirs = load_file(path), load_file(shared / path.relative_to(alone))
        # Muon's steps are of one length, however small the gradient: they scale rounding up.
        most = 1e-3 if '"muon"' in (path.parents[1] / "manifest.json").read_text() else 1e-4
        assert max(float((mine[name] - theirs[name]).abs().max()) for name in mine) < most, path
    for left in (".out", ".work"):
        assert not [p for p in (shared / "store" / left).rglob("*") if p.is_file()]


def test_retain_rows_differ_from_process_to_process(seen: Any) -> None:
    """Together the two meet what the one meets, each its own half."""
    *_, two = seen
    for name in ("npo", "dareu", "counterfactual"):
        first, second = (found[name]["rows"] for found in two)
        assert len(first) == len(second) > 2
        assert any(set(a) != set(b) for a, b in zip(first, second, strict=True))


def kill_one_of(command: list[str], unfinished: Path) -> list[Popen[str]]:
    """Start the command twice, kill process 1 once `unfinished` has a whole checkpoint, and wait for the other."""
    pair = start_two("-m", "dareu", *command)
    try:
        end = time.monotonic() + TIMEOUT
        while not next(unfinished.glob("*/checkpoints/*/complete"), None):
            assert time.monotonic() < end and pair[1].poll() is None, pair[1].communicate()
            time.sleep(0.002)
        pair[1].send_signal(signal.SIGKILL)
        pair[1].communicate()
        pair[0].wait(TIMEOUT)
    finally:
        for process in pair:
            process.kill()
    return pair


def test_a_process_that_is_killed_ends_the_other_and_the_command_goes_on(tmp_path: Path) -> None:
    """The killed pair leaves a checkpoint; the next pair starts from it and ends where an undisturbed run ends."""
    command = [
        "finetune", *SHARED, "method=npo", "retrain=false", "finetune.epochs=40", f"cache_dir={tmp_path / 'store'}"
    ]  # fmt: skip
    pair = kill_one_of(command, tmp_path / "store" / ".work" / "original")
    out, err = pair[0].communicate(timeout=TIMEOUT)
    assert pair[0].returncode == 1 and out == ""
    assert err.count("dareu: Another process of this run has ended.") == 1 and "Traceback" not in err
    assert "The same command continues from here." in err

    again = start_two("-m", "dareu", *command)
    told = [process.communicate(timeout=TIMEOUT) for process in again]
    assert [process.returncode for process in again] == [0, 0], told
    assert "original: " in told[0][0] and told[1][0] == ""  # one of them prints
    [manifest] = (tmp_path / "store").glob("original/*/manifest.json")
    log = (manifest.parent / "training.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in log] == list(range(5, json.loads(log[-1])["step"] + 1, 5))


@pytest.mark.parametrize("name", ["npo", "dareu"])
def test_unlearning_goes_on_where_a_process_was_killed(seen: Any, name: str, tmp_path: Path) -> None:
    """A loss, and PPO with critic and rollouts: the same command ends with the weights of an undisturbed run."""
    from safetensors.torch import load_file

    _, undisturbed, *_ = seen
    store = tmp_path / "store"
    shutil.copytree(
        undisturbed / "store", store, ignore=lambda folder, names: {"unlearned", "evaluation"} & {*names}
    )
    overrides = settings(name, tmp_path)
    pair = kill_one_of(["train", *overrides], store / ".work" / "unlearned")
    assert pair[0].returncode == 1
    assert next((store / ".work" / "unlearned").glob("*/checkpoints/*/complete"), None)

    again = start_two("-m", "dareu", "train", *overrides)
    told = [process.communicate(timeout=TIMEOUT) for process in again]
    assert [process.returncode for process in again] == [0, 0], told
    [path] = (store / "unlearned").glob("*/model/model.safetensors")
    mine, expected = load_file(path), load_file(undisturbed / "store" / path.relative_to(store))
    assert max(float((mine[key] - expected[key]).abs().max()) for key in mine) < 1e-4


def test_a_mistake_is_reported_once(tmp_path: Path) -> None:
    pair = start_two("-m", "dareu", "train", *SHARED, "forget.count=null", "forget.owners=[Nobody]")
    told = [process.communicate(timeout=TIMEOUT) for process in pair]
    err = "".join(err for _, err in told)
    assert [process.returncode for process in pair] == [2, 2], told
    assert err.count("dareu: ") == 1 and "Nobody" in err and "Traceback" not in err


@pytest.mark.parametrize("command", [["tune"], ["train", "-m", "seed=1,2"]])
def test_commands_of_one_process(
    command: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(terminal, "PAUSE", 0.0)
    for rank, lines in (("0", 2), ("1", 0)):
        monkeypatch.setenv("WORLD_SIZE", "2")
        monkeypatch.setenv("RANK", rank)
        assert commands.main(command) == 2
        err = capsys.readouterr().err
        assert len(err.splitlines()) == lines and ("is one process" in err) == bool(lines)


def test_processes_do_not_share_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="all 2 processes on one device"):
        check_processes(compose(["device=cuda:1"]))


if __name__ == "__main__":
    import conftest  # noqa: F401  one thread, no hub

    out = Path(sys.argv[1])
    (out / f"{os.environ['RANK']}.json").write_text(json.dumps(run_all(out), default=str))
