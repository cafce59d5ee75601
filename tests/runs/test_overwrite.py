"""`overwrite=true` deletes a run's own files in a run folder, and nothing else."""

from __future__ import annotations

import json
import pickle
import threading
import time
from pathlib import Path

import pytest
from pipeline_fixture import LOSS, SMALL, results, store, train

from dareu.cli.commands import main
from dareu.errors import RunError
from dareu.report.receipt import write_receipt
from dareu.runs.folder import RunFolder, copy_into, held, input_paths
from dareu.runs.owned import check_inputs, own_files

__all__ = ["store"]

# What a person may have beside a run, some of it under folders that the run has made itself.
THEIRS = [
    "paper.tex", ".git/HEAD", ".git/objects/ab/cdef", "samples/notes.txt", "model/paper.md", "model/thesis.pdf",
    "logs/diary.txt", "results.json.bak", "runs/notes.md", "data/train.jsonl", "method/mine.yaml", "config/run.json",
]  # fmt: skip


def fill(folder: Path) -> dict[str, str]:
    for name in THEIRS:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"mine: {name}")
    (folder / "model" / "link.json").symlink_to(folder / "paper.tex")
    (folder / "empty").mkdir()
    return {name: f"mine: {name}" for name in THEIRS}


def still_there(folder: Path) -> dict[str, str]:
    return {name: (folder / name).read_text() for name in THEIRS if (folder / name).is_file()}


def test_a_paper_and_a_repository_survive(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    train(store, Path("."), "method=npo", *LOSS)
    foreign = {p for p in tmp_path.rglob("*") if p.is_file()} - set(own_files(tmp_path))
    assert not foreign, "a new file of a run has no pattern in runs/owned.py"
    before = fill(tmp_path)
    other = ["train", *SMALL, f"cache_dir={store}", "run_dir=.", "method=gradient_ascent", *LOSS]
    assert main(other) == 2
    assert still_there(tmp_path) == before
    assert main([*other, "overwrite=true"]) == 0
    assert still_there(tmp_path) == before
    assert (tmp_path / "empty").is_dir() and (tmp_path / "model" / "link.json").is_symlink()
    assert results(tmp_path)["method"] == "gradient_ascent"
    assert json.loads((tmp_path / "samples" / "unlearned.jsonl").read_text().splitlines()[0])


@pytest.mark.parametrize("more", [[], ["overwrite=true"], ["--dry-run"]])
def test_a_folder_of_other_files_is_refused_before_anything_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, more: list[str]
) -> None:
    monkeypatch.setattr("dareu.workflow.experiment.prepare", lambda *args: 1 / 0)
    (tmp_path / "paper.tex").write_text("x")
    assert main(["train", "data=authors", f"run_dir={tmp_path}", *more]) == 2
    assert "holds files, but no run" in capsys.readouterr().err


def test_what_a_run_reads_is_never_in_the_folder_that_it_empties(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    train(store, run, "method=npo", *LOSS)
    (run / "owners.txt").write_text("nobody\n")
    (run / "mine" / "method").mkdir(parents=True)
    files = {p: p.read_bytes() for p in run.rglob("*") if p.is_file()}
    rest = [f"cache_dir={store}", f"run_dir={run}", "overwrite=true"]
    small = [*SMALL, "method=gradient_ascent", *LOSS]
    commands = [
        ["train", *small, f"original={run / 'model'}", "retrain=false", *rest],
        ["evaluate", str(run / "model"), *SMALL, *rest],
        ["train", f"--config-dir={run / 'mine'}", *small, *rest],
    ]
    for command in commands:
        assert main(command) == 2
        assert "is not overwritten: this run reads" in capsys.readouterr().err
        assert {p: p.read_bytes() for p in run.rglob("*") if p.is_file()} == files


def test_every_kind_of_input_is_looked_at() -> None:
    tree = {
        "original": "a", "data": {"path": "b", "test_path": ["c", "d"]}, "forget": {"file": "e"},
        "model": {"path": "f"}, "attributor": {"backbone": {"path": "g"}}, "method": {"refusals": "h", "name": "npo"},
        "run_dir": "x/y", "cache_dir": "x/z", "data2": {"folder": "i/j"}, "seed": 3,
    }  # fmt: skip
    assert input_paths(tree) == ["a", "b", "c", "d", "e", "f", "g", "h", "i/j"]


@pytest.mark.parametrize("inside", ["", "model", "rounds/1"])
def test_an_input_in_the_folder_or_the_folder_itself(tmp_path: Path, inside: str) -> None:
    RunFolder.open(tmp_path, "key1", "one")
    (tmp_path / inside).mkdir(parents=True, exist_ok=True)
    with pytest.raises(RunError, match="this run reads"):
        RunFolder.open(tmp_path, "key2", "two", True, [tmp_path / inside])
    assert json.loads((tmp_path / "run.json").read_text()) == {"key": "key1"}
    assert RunFolder.open(tmp_path, "key1", "one", True, [tmp_path / inside])  # the same run goes on


def test_what_an_input_leads_to_counts(tmp_path: Path) -> None:
    """An adapter's base, and the file that a link stands for."""
    run, adapter, linked = tmp_path / "run", tmp_path / "adapter", tmp_path / "linked"
    RunFolder.open(run, "key1", "one")
    for folder in (run / "model", adapter, linked):
        folder.mkdir()
    (run / "model" / "config.json").write_text("{}")
    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(linked)}))
    RunFolder.open(run, "key1", "one", True, [adapter])
    (linked / "config.json").symlink_to(run / "model" / "config.json")
    for read in (linked, adapter):
        with pytest.raises(RunError, match="this run reads .*linked/config.json"):
            RunFolder.open(run, "key2", "two", True, [read])
    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(run / "model")}))
    with pytest.raises(RunError, match="this run reads .*run/model"):
        RunFolder.open(run, "key2", "two", True, [adapter])


def test_adapters_that_name_each_other_as_their_base(tmp_path: Path) -> None:
    for name, base in (("one", "two"), ("two", "one")):
        (tmp_path / name).mkdir()
        text = json.dumps({"base_model_name_or_path": str(tmp_path / base)})
        (tmp_path / name / "adapter_config.json").write_text(text)
    check_inputs(tmp_path / "run", [tmp_path / "one"])
    with pytest.raises(RunError, match="lies in it"):
        check_inputs(tmp_path / "two", [tmp_path / "one"])


def test_somebody_elses_run_json(tmp_path: Path) -> None:
    for text in ('{"name": "my marathon"}', "[]", '{"key": ["a"]}', '{"key'):
        (tmp_path / "run.json").write_text(text)
        with pytest.raises(RunError, match="not that of a run"):
            RunFolder.open(tmp_path, "key2", "two", True)
        assert (tmp_path / "run.json").read_text() == text


def test_a_folder_that_another_run_has_taken(tmp_path: Path) -> None:
    """Between two steps of a notebook, which holds the folder in each of them alone."""
    first = RunFolder.open(tmp_path, "key1", "one")
    first.release()
    RunFolder.open(tmp_path, "key2", "two", True)
    with pytest.raises(RunError, match="Another run has taken the folder"), first.working():
        pytest.fail("the folder is another run's")


def test_a_folder_where_a_command_is_at_work_is_not_emptied(tmp_path: Path) -> None:
    first = RunFolder.open(tmp_path, "key1", "one")
    (tmp_path / "results.json").write_text("{}")
    with first.working():
        for wait in (True, False):
            with pytest.raises(RunError, match="Another command is working in"):
                RunFolder.open(tmp_path, "key2", "two", True, wait=wait)
        assert first.finished
    RunFolder.open(tmp_path, "key2", "two", True)
    assert not (tmp_path / "results.json").exists()


def test_no_command_writes_into_a_folder_where_another_is_at_work(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two `dareu finetune` at once would leave the original model of one and the retrained model of the other."""
    models = ["finetune", *SMALL, f"cache_dir={store}", f"run_dir={tmp_path}", "overwrite=true"]
    with held(tmp_path):
        assert main(models) == 2
        assert "Another command is working in" in capsys.readouterr().err
        with pytest.raises(RunError, match="Another command is working in"):
            write_receipt(tmp_path)
        with pytest.raises(RunError, match="Another command is working in"):
            RunFolder.open(tmp_path, "key", "one")
        assert [p.name for p in tmp_path.iterdir()] == [".lock"]
    assert main(models) == 0
    assert {p.name for p in tmp_path.iterdir()} == {".lock", "original", "retrained"}


def test_the_same_run_waits_for_the_command_at_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("dareu.runs.folder.PATIENCE", 0.05)
    first = RunFolder.open(tmp_path, "key1", "one")
    with pytest.raises(RunError, match="Another command is working in"):
        RunFolder.open(tmp_path, "key1", "one", wait=False)
    found: list[RunFolder] = []
    second = threading.Thread(target=lambda: found.append(RunFolder.open(tmp_path, "key1", "one")))
    second.start()
    time.sleep(0.3)
    said = capsys.readouterr().err  # a note: `dareu:` begins the reason of a failure
    assert not found and said == f"! Another process is working on this run in {tmp_path}; waiting for it.\n"
    first.release()
    second.join(10)
    assert found == [first]
    assert pickle.loads(pickle.dumps(first)) == first  # as processes of one run send it to each other


def test_a_model_copy_is_replaced_file_by_file(tmp_path: Path) -> None:
    for name, files in (("one", ("config.json", "old.json")), ("two", ("config.json",))):
        (tmp_path / name).mkdir()
        for file in files:
            (tmp_path / name / file).write_text(name)
    target = copy_into(tmp_path / "one", tmp_path / "out")
    (target / "paper.tex").write_text("mine")
    copy_into(tmp_path / "two", target, overwrite=True)
    assert {p.name: p.read_text() for p in target.iterdir() if p.name[0] != "."} == {
        "config.json": "two",
        "paper.tex": "mine",
    }
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "config.json").write_text("somebody's model")
    with pytest.raises(RunError, match="no copy of a model of this library"):
        copy_into(tmp_path / "two", foreign, overwrite=True)


def test_own_files_are_told_by_their_whole_path(tmp_path: Path) -> None:
    for name in ("results.json", "papers/results.json", ".results.json.77.tmp", "rounds/2/samples/a.jsonl"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    found = {p.relative_to(tmp_path).as_posix() for p in own_files(tmp_path)}
    assert found == {"results.json", ".results.json.77.tmp", "rounds/2/samples/a.jsonl"}
