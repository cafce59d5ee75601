"""Atomic files, content keys, the artifact store under killed and rival processes, run folders."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from dareu.config import LoraConfig
from dareu.errors import RunError
from dareu.runs import files as atomic
from dareu.runs import store
from dareu.runs.folder import RunFolder, copy_into, default_run_dir
from dareu.runs.manifest import Manifest, content_key, file_digest, git_revision, peak_memory_mb, versions
from dareu.runs.store import ArtifactStore

# --- atomic files ---------------------------------------------------------------------------------


def test_json_keeps_every_digit_and_writes_null_for_nan(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.json"
    atomic.write_json(
        path, {"third": 1 / 3, "lost": [math.nan, math.inf], "array": np.array([0.1, np.nan]), "ü": "é"}
    )
    assert atomic.read_json(path) == {"third": 1 / 3, "lost": [None, None], "array": [0.1, None], "ü": "é"}
    assert list(path.parent.iterdir()) == [path]


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.txt"
    atomic.write_text(path, "old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match="disk is full.*a.txt"):
        atomic.write_text(path, "new")
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_unwritable_and_unreadable_places_are_run_errors(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("{")
    with pytest.raises(RunError) as caught:
        atomic.write_json(tmp_path / "file" / "a.json", {})
    assert caught.value.cure
    for name in ("file", "missing"):
        with pytest.raises(RunError):
            atomic.read_json(tmp_path / name)


# --- content keys ---------------------------------------------------------------------------------

TREE = {"lr": 0.0001, "layers": [1, 2], "model": {"name": "tiny", "dropout": None}, "on": True}


def test_content_key_is_the_hash_of_canonical_json() -> None:
    # printf '{"a":1,"b":[0.1,null]}' | sha256sum
    assert content_key({"b": (0.1, None), "a": 1.0}) == "e4a9ad4b96810689"
    assert content_key(TREE) == content_key(json.loads(json.dumps(dict(reversed(TREE.items())))))


@pytest.mark.parametrize(
    "change",
    [
        {"lr": math.nextafter(0.0001, 1)},
        {"lr": "0.0001"},
        {"layers": [2, 1]},
        {"model": {"name": "tiny"}},
        {"on": 1},
        {"more": None},
    ],
)
def test_content_key_feels_every_change(change: dict[str, object]) -> None:
    assert content_key(TREE | change) != content_key(TREE)


def test_content_key_of_models_and_of_what_has_no_content() -> None:
    assert content_key(LoraConfig()) == content_key(LoraConfig().model_dump()) != content_key(LoraConfig(r=4))
    assert content_key(LoraConfig()) == content_key(LoraConfig(alpha=16.0))  # the default is the integer 16
    with pytest.raises(TypeError):
        content_key({"path": Path("a")})


def test_file_digest(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert file_digest(tmp_path / "a") == "ba7816bf8f01cfea"  # FIPS 180-2, example 1
    with pytest.raises(RunError):
        file_digest(tmp_path / "b")


def test_manifest_says_what_a_result_was_made_with() -> None:
    found = versions()
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))
    assert found["torch"] and set(found) >= {"dareu", "transformers", "trl", "peft", "datasets", "accelerate"}
    assert 10 < peak_memory_mb() < 100_000
    manifest = Manifest("s", "k", {"a": 1}, found, None, 3, 1.5, math.nan, {"b": 2})
    again = Manifest.from_json(json.loads(json.dumps(manifest.to_json())) | {"peak_memory_mb": None})
    assert again.extra == {"b": 2} and math.isnan(again.peak_memory_mb)
    with pytest.raises(RunError):
        Manifest.from_json({"stage": "s"})


def test_git_revision_of_a_checkout_and_not_of_what_lies_in_one(tmp_path: Path) -> None:
    def git(*args: str) -> str:
        who = ["-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"]
        done = subprocess.run(
            ["git", "-C", str(tmp_path), *who, *args], check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    package, installed = tmp_path / "src", tmp_path / ".venv"
    for folder in (package, installed):
        folder.mkdir()
        (folder / "__init__.py").write_text("")
    assert git_revision(package) is None
    git("init", "-q")
    git("add", "src")
    git("commit", "-qm", "first")
    assert git_revision(package) == git("rev-parse", "HEAD")
    assert git_revision(installed) is None
    (package / "__init__.py").write_text("changed = 1")
    assert git_revision(package) == git("rev-parse", "HEAD") + "-dirty"


# --- the artifact store ---------------------------------------------------------------------------


def test_a_stage_is_built_once_and_found_afterwards(tmp_path: Path) -> None:
    shelf = ArtifactStore(tmp_path)
    assert shelf.find("original", "k1") is None
    with shelf.building("original", "k1", config={"lr": 0.1}, seed=3) as build:
        assert not build.done and not build.resumed
        (build.out / "weights").write_text("w")
        build.finish(steps=7)
        assert build.done
    assert shelf.find("original", "k1") == build.path == tmp_path / "original" / "k1"
    assert shelf.find("original", "k2") is None and shelf.find("retrained", "k1") is None
    assert sorted(p.name for p in build.path.iterdir()) == ["manifest.json", "weights"]
    assert not build.work.exists() and not build.out.exists()
    with shelf.building("original", "k1") as again:
        assert again.done and (again.path / "weights").read_text() == "w"
    manifest = again.manifest
    assert (manifest.stage, manifest.key, manifest.config, manifest.seed) == (
        "original",
        "k1",
        {"lr": 0.1},
        3,
    )
    assert manifest.extra == {"steps": 7} and manifest.versions == versions() and manifest.peak_memory_mb > 10


def test_an_error_keeps_the_work_and_drops_the_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr(store.time, "perf_counter", lambda: clock[0])
    shelf = ArtifactStore(tmp_path)
    with pytest.raises(ZeroDivisionError), shelf.building("s", "k") as build:
        (build.out / "half").write_text("")
        (build.work / "checkpoint").write_text("1")
        clock[0] += 5
        build.tick()
        clock[0] += 1000  # lost with what was done after the last tick
        raise ZeroDivisionError
    assert shelf.find("s", "k") is None and not build.out.exists()
    with pytest.raises(RunError):
        _ = build.manifest
    with shelf.building("s", "k") as build:
        assert build.resumed and (build.work / "checkpoint").read_text() == "1"
        clock[0] += 2
        build.finish()
    assert build.manifest.seconds == 7.0  # 5 before the tick, 2 in the second attempt


def test_where_the_store_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAREU_CACHE_DIR", str(tmp_path / "named"))
    assert ArtifactStore().root == tmp_path / "named"
    assert ArtifactStore(tmp_path / "given").root == tmp_path / "given"
    monkeypatch.delenv("DAREU_CACHE_DIR")
    assert ArtifactStore().root.name == "dareu"


def test_a_folder_without_manifest_is_no_artifact(tmp_path: Path) -> None:
    shelf = ArtifactStore(tmp_path)
    (tmp_path / "s" / "k").mkdir(parents=True)
    (tmp_path / "s" / "k" / "torn").write_text("")
    assert shelf.find("s", "k") is None
    with shelf.building("s", "k") as build:
        assert not build.done
        build.finish()
    assert [p.name for p in build.path.iterdir()] == ["manifest.json"]


def test_a_store_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(RunError, match="cannot be written") as caught,
        ArtifactStore(tmp_path / "file").building("s", "k"),
    ):
        pass
    assert "cache_dir" in caught.value.cure


BUILDER = """
import sys, time
from pathlib import Path
from dareu.runs import store
root, mode = Path(sys.argv[1]), sys.argv[2]
store.PATIENCE = 0.2
with store.ArtifactStore(root).building("s", "k") as build:
    if not build.done:
        with (root / "log").open("a") as log:
            log.write(f"built resumed={build.resumed} out={len(list(build.out.iterdir()))}\\n")
        (build.out / "half").write_text("")
        (build.work / "checkpoint").write_text("1")
        if mode == "slow":
            print("holding", flush=True)
            while not (root / "go").exists():
                time.sleep(0.01)
        build.tick()
        if mode == "hang":
            print("ready", flush=True)
            time.sleep(60)
        build.finish(by=mode)
print(build.manifest.extra["by"])
"""


def _builder(root: Path, mode: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", BUILDER, str(root), mode]
    return subprocess.Popen(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_of_two_processes_one_builds_and_the_other_waits(tmp_path: Path) -> None:
    with _builder(tmp_path, "slow") as first:
        assert first.stdout is not None and first.stdout.readline() == "holding\n"
        with _builder(tmp_path, "second") as second:
            assert second.stderr is not None and "waiting for it" in second.stderr.readline()
            (tmp_path / "go").touch()
            out, _ = second.communicate(timeout=60)
            assert first.communicate(timeout=60)[0] == "slow\n"
    assert (first.returncode, second.returncode) == (0, 0)
    assert out == "slow\n"
    assert (tmp_path / "log").read_text() == "built resumed=False out=0\n"
    assert not (tmp_path / ".work" / "s" / "k").exists()


def test_a_killed_process_is_gone_on_from(tmp_path: Path) -> None:
    with _builder(tmp_path, "hang") as killed:
        assert killed.stdout is not None and killed.stdout.readline() == "ready\n"
        killed.send_signal(signal.SIGKILL)
        killed.wait(timeout=60)
    shelf = ArtifactStore(tmp_path)
    assert shelf.find("s", "k") is None
    spent = tmp_path / ".work" / "s" / "k" / "elapsed.json"
    atomic.write_json(spent, {"seconds": 1000.0, "peak_memory_mb": 1e6})
    start = time.monotonic()
    with _builder(tmp_path, "next") as after:
        assert after.communicate(timeout=60) == ("next\n", "")
    path = shelf.find("s", "k")
    assert path is not None
    manifest = Manifest.from_json(atomic.read_json(path / "manifest.json"))
    assert 1000 < manifest.seconds < 1000 + time.monotonic() - start and manifest.peak_memory_mb == 1e6
    assert (tmp_path / "log").read_text() == "built resumed=False out=0\nbuilt resumed=True out=0\n"
    assert not (tmp_path / ".work" / "s" / "k").exists()


def test_work_of_a_process_killed_after_the_rename_is_cleaned_by_the_next(tmp_path: Path) -> None:
    shelf = ArtifactStore(tmp_path)
    with shelf.building("s", "k") as build:
        build.finish()
    build.work.mkdir(parents=True)
    (build.work / "checkpoint").write_text("gigabytes")
    with shelf.building("s", "k") as again:
        assert again.done and not again.work.exists()


# --- run folders ----------------------------------------------------------------------------------


def _tree(folder: Path) -> dict[str, str]:
    files = (p for p in folder.rglob("*") if p.is_file() and p.name != ".lock")
    return {str(p.relative_to(folder)): p.read_text() for p in files}


def test_a_run_folder_is_made_and_reopened(tmp_path: Path) -> None:
    path = tmp_path / "runs" / "a"
    run = RunFolder.open(path, "key1", "seed: 1\n", False)
    assert not run.finished and (path / "config.yaml").read_text() == "seed: 1\n"
    run.release()
    (path / "results.json").write_text("{}")
    before = _tree(path)
    for overwrite in (False, True):
        assert RunFolder.open(path, "key1", "seed: 2\n", overwrite).finished
    assert _tree(path) == before
    assert default_run_dir("npo", 41, "0123456789abcdef") == Path("runs/npo-seed41-01234567")


def test_another_run_is_kept_unless_overwritten(tmp_path: Path) -> None:
    RunFolder.open(tmp_path / "a", "key1", "one", False)
    (tmp_path / "a" / "model").mkdir()
    (tmp_path / "a" / "model" / "model.safetensors").write_text("w")
    (tmp_path / "a" / "results.json").write_text("{}")
    before = _tree(tmp_path)
    with pytest.raises(RunError, match="already holds another run") as caught:
        RunFolder.open(tmp_path / "a", "key2", "two", False)
    assert "overwrite=true" in caught.value.cure and _tree(tmp_path) == before
    assert not RunFolder.open(tmp_path / "a", "key2", "two", True).finished
    assert _tree(tmp_path / "a") == {"config.yaml": "two", "run.json": '{\n  "key": "key2"\n}\n'}


def test_what_is_no_run_is_never_touched(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("")
    for place in (tmp_path, tmp_path / "thesis.tex", tmp_path / "thesis.tex" / "below" / "it"):
        with pytest.raises(RunError):
            RunFolder.open(place, "key1", "", True)
    assert _tree(tmp_path) == {"thesis.tex": ""}


def test_a_folder_without_the_right_to_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    RunFolder.open(tmp_path, "key1", "", False)
    before = _tree(tmp_path)
    monkeypatch.setattr(os, "access", lambda *_: False)  # the superuser may write anywhere
    for key, place in (("key1", tmp_path), ("key2", tmp_path), ("key2", tmp_path / "new" / "b")):
        with pytest.raises(RunError, match="cannot be written to"):
            RunFolder.open(place, key, "", True)
    assert _tree(tmp_path) == before


def test_copying_a_model_out_of_the_store(tmp_path: Path) -> None:
    for name, text in (("one", "1"), ("two", "2")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(text)
    target = tmp_path / "out" / "original"
    assert copy_into(tmp_path / "one", target) == target
    assert (target / "config.json").read_text() == "1"
    stamp = target.stat().st_mtime_ns
    assert copy_into(tmp_path / "one", target) == target and target.stat().st_mtime_ns == stamp
    with pytest.raises(RunError, match="another model"):
        copy_into(tmp_path / "two", target)
    copy_into(tmp_path / "two", target, overwrite=True)
    marker = '{\n  "files": [\n    "config.json"\n  ]\n}\n'
    assert _tree(tmp_path / "out") == {"original/config.json": "2", "original/.dareu.json": marker}
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("")
    with pytest.raises(RunError):
        copy_into(tmp_path / "one", tmp_path / "mine", overwrite=True)
