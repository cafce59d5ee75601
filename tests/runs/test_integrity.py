"""Artifacts and checkpoints that were damaged on disk are noticed, said, and made again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dareu.cli.commands import main
from dareu.errors import RunError
from dareu.runs.checkpoints import COMPLETE, last_checkpoint, mark_complete
from dareu.runs.integrity import checksum, damage, file_table
from dareu.runs.store import MANIFEST, ArtifactStore, artifact_damage


def test_checksums_by_hand(tmp_path: Path) -> None:
    """SHA-256 and CRC-32 of "abc", and of nothing."""
    (tmp_path / "a").write_bytes(b"abc")
    (tmp_path / "b").write_bytes(b"")
    assert (
        checksum(tmp_path / "a").startswith("ba7816bf8f01cfea")
        and checksum(tmp_path / "a", "crc32") == "352441c2"
    )
    assert (
        checksum(tmp_path / "b").startswith("e3b0c44298fc1c14")
        and checksum(tmp_path / "b", "crc32") == "00000000"
    )


def test_a_file_that_cannot_be_read_is_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    table = file_table(tmp_path)

    def unreadable(path: Path, kind: str) -> str:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("dareu.runs.integrity.checksum", unreadable)
    assert damage(tmp_path, table) == "a cannot be read: Input/output error"


def made(store: ArtifactStore, text: str = "weights") -> Path:
    with store.building("original", "key") as build:
        if not build.done:
            (build.out / "model").mkdir()
            (build.out / "model" / "model.safetensors").write_text(text)
            (build.out / "summary.json").write_text("{}")
            build.finish()
    return build.path


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-2])


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("name", ["model/model.safetensors", "summary.json", MANIFEST])
@pytest.mark.parametrize("harm", [Path.unlink, cut, empty])
def test_a_damaged_artifact_is_made_again(
    name: str, harm: object, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = ArtifactStore(tmp_path)
    path = made(store)
    assert store.find("original", "key") == path
    harm(path / name)  # type: ignore[operator]
    assert store.find("original", "key") is None
    made(store, "weights, again")
    assert (path / "model" / "model.safetensors").read_text() == "weights, again"
    assert artifact_damage(path, checksums=True) is None
    said = capsys.readouterr().err
    assert said.count("is damaged") == (0 if (name, harm) == (MANIFEST, Path.unlink) else 1)


@pytest.mark.parametrize(
    "files", [None, [], {"summary.json": None}, {"summary.json": ["2"]}, {"summary.json": 2}]
)
def test_a_manifest_of_other_types_is_damage(files: object, tmp_path: Path) -> None:
    """JSON it is, and no table of sizes and checksums."""
    store = ArtifactStore(tmp_path)
    path = made(store)
    manifest = json.loads((path / MANIFEST).read_text())
    (path / MANIFEST).write_text(json.dumps(manifest | {"files": files}))
    assert artifact_damage(path) == f"{MANIFEST} cannot be read"
    made(store)
    assert artifact_damage(path, checksums=True) is None


@pytest.mark.parametrize("link", [False, True])
def test_a_file_in_place_of_an_artifact_gives_way(tmp_path: Path, link: bool) -> None:
    store = ArtifactStore(tmp_path / "store")
    path = made(store)
    elsewhere = path.rename(tmp_path / "elsewhere")
    if link:
        (elsewhere / MANIFEST).unlink()
        path.symlink_to(elsewhere)
    else:
        path.write_text("no folder")
    assert store.find("original", "key") is None
    assert made(store, "again") == path and not path.is_symlink()
    assert (path / "model" / "model.safetensors").read_text() == "again"
    assert (elsewhere / "model" / "model.safetensors").read_text() == "weights"


def test_a_file_in_place_of_a_stage_is_named(tmp_path: Path) -> None:
    (tmp_path / "original").write_text("")
    with pytest.raises(RunError, match=r"/original is a file\..*Move that file away"):
        made(ArtifactStore(tmp_path))


def test_flipped_bytes_of_a_small_file_are_found_at_each_read(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    path = made(store)
    (path / "summary.json").write_bytes(bytes(reversed((path / "summary.json").read_bytes())))
    assert artifact_damage(path) == "summary.json has other bytes than were written"
    assert store.find("original", "key") is None


def test_flipped_bytes_of_a_large_file_are_found_by_checksums_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dareu.runs.integrity.SMALL", 1)
    path = made(ArtifactStore(tmp_path))
    (path / "model" / "model.safetensors").write_text("weightz")
    assert artifact_damage(path) is None
    assert (
        artifact_damage(path, checksums=True) == "model/model.safetensors has other bytes than were written"
    )


def test_artifacts_of_older_versions_have_no_table(tmp_path: Path) -> None:
    path = made(ArtifactStore(tmp_path))
    tree = json.loads((path / MANIFEST).read_text())
    del tree["files"]
    (path / MANIFEST).write_text(json.dumps(tree))
    assert artifact_damage(path, checksums=True) is None


def test_time_that_was_cut_off_does_not_stop_a_run(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    with store.building("original", "key") as build:
        build.tick()
    (build.work / "elapsed.json").write_text('{"seconds": 1')
    assert made(store).is_dir()


def checkpoint(folder: Path, step: int) -> Path:
    path = folder / f"checkpoint-{step}"
    path.mkdir(parents=True)
    for name in ("model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json"):
        (path / name).write_text(f"{name} {step}")
    mark_complete(path)
    return path


@pytest.mark.parametrize("name", ["optimizer.pt", "scheduler.pt", "rng_state.pth", "model.safetensors"])
def test_the_newest_whole_checkpoint_is_taken(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    older, newer = checkpoint(tmp_path, 9), checkpoint(tmp_path, 10)
    assert last_checkpoint(tmp_path) == newer
    text = (newer / name).read_text()
    for harm in (text[:-1], text[:-1] + "x", None):
        (newer / name).unlink() if harm is None else (newer / name).write_text(harm)
        assert last_checkpoint(tmp_path) == older
        assert name in capsys.readouterr().err
        (newer / name).write_text(text)
    (newer / COMPLETE).write_text("{")
    assert last_checkpoint(tmp_path) == older
    (older / COMPLETE).unlink()
    assert last_checkpoint(tmp_path) is None


def test_tables_do_not_depend_on_where_a_folder_lies(tmp_path: Path) -> None:
    table = file_table(checkpoint(tmp_path / "a", 1), leave_out=(COMPLETE,))
    (tmp_path / "a").rename(tmp_path / "b")
    assert damage(tmp_path / "b" / "checkpoint-1", table, "sha256") is None and len(table) == 5


def test_the_command_verifies_the_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = made(ArtifactStore(tmp_path))
    assert main(["store", "verify", str(tmp_path)]) == 0
    assert "1 artifacts" in capsys.readouterr().out
    (path / "model" / "model.safetensors").write_text("weightz")
    assert main(["store", "verify", str(tmp_path), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["damaged"] == {
        str(path): "model/model.safetensors has other bytes than were written"
    }
