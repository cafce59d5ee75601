"""A mistake gets one message with cause and cure and exit code 2, and leaves nothing behind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from mistakes_fixture import COLUMNS, Case, local, people, small, told
from pipeline_fixture import (
    LOSS,
    SMALL,
    figures,
    folk,
    process,
    results,
    snapshot,
    store,
    tiny_hub_model,
    train,
    write_lines,
)

from dareu.cli.commands import main
from dareu.methods import registry

__all__ = ["store"]


def hub(folder: Path, **options: Any) -> list[str]:
    """A run on a model folder, which `options` describe."""
    model = tiny_hub_model(folder / "hub", template=True, **options)
    write_lines(folder / "mine.jsonl", folk())
    return [
        "data=local",
        f"data.path={folder / 'mine.jsonl'}",
        *COLUMNS,
        "model=hf",
        f"model.path={model}",
        "forget.count=1",
    ]


def without_weights(folder: Path) -> list[str]:
    overrides = hub(folder)
    (folder / "hub" / "model.safetensors").unlink()
    return overrides


def below_a_file(key: str) -> Case:
    def case(folder: Path) -> list[str]:
        (folder / "file").write_text("")
        return [*SMALL, f"{key}={folder / 'file' / 'below'}"]

    return case


def broken_line(path: Path) -> None:
    write_lines(path, folk())
    path.write_text(path.read_text().replace('"answer"', "answer", 7).replace("answer", '"answer"', 6))


def not_utf8(path: Path) -> None:
    write_lines(path, folk())
    path.write_bytes(path.read_bytes().replace(b"keeps bells", b"k\xe9\xe9ps bells", 1))


CASES: dict[str, tuple[Case, tuple[str, ...]]] = {
    "nobody to forget": (local(people()), ("No owner to forget was named", "forget.owners=", "Owners: Ada, Bo, Cy")),
    "unknown owner": (local(people(), "forget.owners=[Boo]"), ("'Boo'", "Nearest: Bo")),
    "an infinite answer": (local(people(answer=float("inf"))), ("line 1 of mine.jsonl holds a float, not text: inf",)),
    "a device as data": (lambda folder: ["data=local", "data.path=/dev/null"], ("is a device or a pipe",)),
    "empty forget set": (local(people(), "forget.owners=[]"), ("selects none of the",)),
    "empty forget share": (small("~forget.count", "forget.fraction=0.01"), ("selects none of the",)),
    "everything forgotten": (local(people(), "forget.count=3"), ("all 3 owners", "forget.count=1")),
    "unknown owner in a round": (local(people(), "rounds=[[Ada],[Boo]]"), ("Round 2", "'Boo'", "Nearest: Bo")),
    "an owner in two rounds": (local(people(), "rounds=[[Ada],[Bo,Ada]]"), ("'Ada' in round 1 and in round 2", "once")),
    "rounds that leave nobody": (local(people(), "rounds=[[Ada],[Bo],[Cy]]"), ("all 3 owners", "at most 2")),
    "rounds beside forget": (small("rounds.count=2"), ("rounds and forget.count contradict", "give one of them")),
    "a round too small for the batches": (
        small("~forget.count", "rounds.count=2", "method.optim.micro_batch_size=3"),
        ("4 rollouts", "micro-batches of 3", "divisor"),
    ),
    "no such file": (lambda folder: ["data=local", f"data.path={folder / 'nope.jsonl'}"], ("There is no file",)),
    "missing column": (local(people(), "data.columns.response=anwer"), ("no column 'anwer'", "Nearest: answer")),
    "one column for both": (
        local(people(), "data.columns.response=question"), ("prompt and response both name the column question",)
    ),
    "signs that stand for another key": (
        local(people(), "forget.owners=['A${env:HOME}']"), ("cannot be composed", "write \\${…}")
    ),
    "empty file": (local(lambda path: path.write_text("")), ("is empty",)),
    "broken JSON line": (local(broken_line), ("line 7 of mine.jsonl",)),
    "not UTF-8": (local(not_utf8), ("not UTF-8", "line 2", "Save the file as UTF-8.")),
    "empty response": (local(people(answer=" ")), ("line 1 of mine.jsonl", "is empty")),
    "one owner": (local(people(person="Ada")), ("one owner only: Ada",)),
    "response beyond max_length": (
        local(people(answer="maps and bells " * 30), "forget.count=1", "model.max_length=64"),
        ("more than model.max_length=64", "Raise model.max_length"),
    ),
    "response beyond the context": (lambda folder: hub(folder, context=16), ("the model's context has 16", "Shorten")),
    "unknown method": (small("method=dreu"), ("There is no method 'dreu'", "Nearest: dareu")),
    "unknown key": (small("method.rewrd.kl=1"), ("unknown key 'method.rewrd'", "Nearest: method.reward")),
    "unknown loss": (small("method=npo", "method.loss=npoo"), ("There is no loss 'npoo'", "Nearest: npo")),
    "unknown parameter": (small("method=npo", "method.params.bta=1"), ("no parameter 'bta'", "Nearest: beta")),
    "batches that do not fit": (
        small("method.optim.micro_batch_size=3"),
        ("4 rollouts", "micro-batches of 3", "divisor"),
    ),
    "a hub id that cannot be reached": (
        lambda folder: [*hub(folder), "model.path=nobody/nothing"], ("nobody/nothing", "hub id", "network")
    ),
    "unknown source": (small("data.name=autors"), ("There is no data source 'autors'", "Nearest: authors")),
    "unknown device": (small("device=quantum"), ("There is no device 'quantum'", "device=auto")),
    "unwritable run folder": (below_a_file("run_dir"), ("file is a file", "another run_dir")),
    "unwritable store": (below_a_file("cache_dir"), ("file is a file", "Set cache_dir")),
    "model folder without weights": (without_weights, ("holds no weights", "save_pretrained")),
    "no model folder": (lambda folder: ["model=hf", f"model.path={folder / 'hub'}"], ("There is no model folder",)),
    "classifier's folder without weights": (
        lambda folder: [*SMALL, f"attributor.backbone.path={folder}"], ("has no config.json",)
    ),
}  # fmt: skip


def test_finetune_tells_of_a_folder_before_the_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    overrides = [*below_a_file("run_dir")(tmp_path), f"cache_dir={tmp_path / 'cache'}"]
    assert main(["finetune", *overrides]) == 2
    assert "Give another run_dir." in told(capsys)
    assert not (tmp_path / "cache").exists()


def test_a_checkpoint_without_a_tokenizer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = tiny_hub_model(tmp_path / "hub", template=False)
    for file in model.glob("tokenizer*"):
        file.unlink()
    before = snapshot(tmp_path)
    where = [f"{key}={tmp_path / key}" for key in ("run_dir", "cache_dir")]
    assert main(["evaluate", str(model), *SMALL, *where]) == 2
    assert "No tokenizer could be loaded" in told(capsys)
    assert snapshot(tmp_path) == before


def test_layers_that_lora_does_not_find(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Seen only once the base is loaded, so the run has its folder, which says why it failed."""
    where = [f"{key}={tmp_path / key}" for key in ("run_dir", "cache_dir")]
    assert (
        main(["train", *hub(tmp_path), "model.max_length=64", "model.lora.target_modules=[queries]", *where])
        == 2
    )
    assert (
        "No LoRA adapter could be added" in told(capsys) and (tmp_path / "run_dir" / "failure.json").is_file()
    )


@pytest.mark.parametrize("name", CASES)
def test_a_mistake_is_told_and_nothing_is_written(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    case, words = CASES[name]
    monkeypatch.chdir(tmp_path)
    overrides = case(tmp_path)
    defaults = [f"{key}={tmp_path / key}" for key in ("run_dir", "cache_dir")]
    before = snapshot(tmp_path)
    assert main(["train", *defaults, *overrides]) == 2
    message = told(capsys)
    assert all(word in message for word in words), message
    assert snapshot(tmp_path) == before


def test_no_stack_trace_in_a_process_of_its_own(tmp_path: Path) -> None:
    run = process(
        "train",
        *SMALL,
        "forget.owners=[Nobody]",
        "~forget.count",
        f"cache_dir={tmp_path / 'c'}",
        cwd=tmp_path,
    )
    out, err = run.communicate(timeout=120)
    assert run.returncode == 2 and out == ""
    assert err.startswith("dareu: forget.owners names 'Nobody'") and len(err.splitlines()) == 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["evaluate", "nowhere"], ("There is no model folder nowhere",)),
        (["compare", "nowhere"], ("There is no folder nowhere",)),
        (["compare", "."], (". holds no results.json",)),
        (["attribute", "--file", "nowhere.txt"], ("There is no file nowhere.txt",)),
        (["train", "--colour"], ("Unknown option --colour", "dareu train --help")),
        (["compare", ".", "--colour"], ("Unknown option --colour", "dareu compare --help")),
        (["train", "-m", "method=dareu,npoo"], ("There is no method 'npoo'",)),
        (["train", "-m", "finetune.lr=1,fast"], ("'finetune.lr'", "(got 'fast')")),
        (["train", "--config-dir=nowhere"], ("There is no folder nowhere",)),
    ],
)  # fmt: skip
def test_mistakes_of_other_commands(
    command: list[str],
    words: tuple[str, ...],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DAREU_CACHE_DIR", str(tmp_path / "cache"))
    assert main(command) == 2
    message = told(capsys)
    assert all(word in message for word in words)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_holds_another_run(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    train(store, run, "method=npo", *LOSS)
    capsys.readouterr()
    before = snapshot(run, store)
    other = [*SMALL, f"cache_dir={store}", f"run_dir={run}", "method=gradient_ascent", *LOSS]
    assert main(["train", *other]) == 2
    assert "already holds another run" in told(capsys)
    assert snapshot(run, store) == before
    assert main(["train", *other, "overwrite=true"]) == 0 and results(run)["method"] == "gradient_ascent"


def test_a_folder_with_other_files_is_never_touched(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "letters.txt").write_text("mine")
    before = snapshot(tmp_path)
    assert main(["train", *SMALL, f"cache_dir={store}", f"run_dir={tmp_path}", "overwrite=true"]) == 2
    assert "holds files, but no run" in told(capsys)
    assert snapshot(tmp_path) == before


def test_a_loss_that_is_not_finite_stops_and_goes_on_from_the_last_good_checkpoint(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disturbed step 6 of 8, checkpoints at every second: exit code 3, checkpoint 4 kept, and taken up again."""
    method = ["method=npo", "method.optim.steps=8", "method.optim.save_every=2"]
    undisturbed = train(store, tmp_path / "whole", *method)
    [artifact] = [
        p for p in (store / "unlearned").iterdir() if p.name == unlearned_key(store, tmp_path / "whole")
    ]
    for folder in (artifact, *(store / "evaluation").iterdir()):
        folder.rename(tmp_path / f"{folder.parent.name}-{folder.name}")
    row, calls = registry.find_method("npo"), []

    def disturbed(**tensors: Any) -> Any:
        calls.append(1)
        return row.loss(**tensors) * (float("nan") if len(calls) == 6 else 1.0)

    run = [*SMALL, *method, f"cache_dir={store}", f"run_dir={tmp_path / 'run'}"]
    monkeypatch.setattr("dareu.methods.npo.METHOD", registry.LossMethod(disturbed, row.reads))
    monkeypatch.setattr("dareu.methods.loss_method.check_loss", lambda row, method: None)
    capsys.readouterr()
    assert main(["train", *run]) == 3
    err = capsys.readouterr().err
    assert (
        "The loss is not finite at step 5" in err
        and "Lower the learning rate" in err
        and "Traceback" not in err
    )
    kept = store / ".work" / "unlearned" / artifact.name / "checkpoints" / "checkpoint-4"
    assert str(kept) in err and (kept / "complete").is_file()
    assert json.loads((tmp_path / "run" / "failure.json").read_text())["reason"].startswith(
        "The loss is not finite"
    )
    assert not artifact.exists() and not (tmp_path / "run" / "results.json").exists()
    monkeypatch.undo()
    assert main(["train", *run]) == 0
    assert figures(results(tmp_path / "run")) == figures(undisturbed)


def unlearned_key(store: Path, run: Path) -> str:
    """The key of the unlearned model that lies in a run folder."""
    weights = (run / "model" / "model.safetensors").read_bytes()
    [key] = [
        p.name
        for p in (store / "unlearned").iterdir()
        if (p / "model" / "model.safetensors").read_bytes() == weights
    ]
    return key


def test_a_step_far_too_large_is_noticed(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wild = [
        "method=gradient_ascent",
        "method.optim.lr=10",  # and with the decay weights grow a hundredfold a step
        "method.optim.weight_decay=10",
        "method.optim.steps=30",
        f"run_dir={tmp_path / 'run'}",
    ]
    assert main(["train", *SMALL, *wild, f"cache_dir={store}"]) == 3
    err = capsys.readouterr().err
    assert "not finite" in err and "There was no checkpoint yet." in err and "Traceback" not in err
    assert not (tmp_path / "run" / "results.json").exists()
