"""Weights in the store that changed on disk are noticed before a model is made from them or evaluated."""

from __future__ import annotations

from pathlib import Path

import pytest
from pipeline_fixture import LOSS, SMALL

from dareu.config.compose import compose
from dareu.runs.integrity import checksum
from dareu.runs.store import MANIFEST
from dareu.workflow.prepare import prepare
from dareu.workflow.stages import Stages

RUN = [*SMALL, "method=npo", *LOSS, "retrain=false"]


def stages(store: Path, *overrides: str) -> Stages:
    return Stages(prepare(compose([*RUN, *overrides, f"cache_dir={store}"])))


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def test_a_flipped_byte_of_large_weights_is_found_when_they_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("dareu.runs.integrity.SMALL", 1)  # as if the weights were large
    first = stages(tmp_path)
    weights = first.original.get().model / "model.safetensors"
    before, unlearned = checksum(weights), first.unlearned.get().model / "model.safetensors"
    kept = checksum(unlearned)
    flip(weights)
    again = stages(tmp_path)
    assert again.unlearned.get().path == unlearned.parents[1]  # nothing is read: it is in the store
    assert again.original.get() and checksum(weights) != before
    other = stages(tmp_path, "method.optim.lr=0.002")
    other.unlearned.get()
    assert f"{weights.parents[1]} is damaged (model/model.safetensors has other bytes" in "".join(
        capsys.readouterr().err.split("\n")
    ).replace("  ", " ")
    assert checksum(weights) == before  # made again, and equal
    flip(unlearned)
    final = stages(tmp_path)
    final.evaluation(final.unlearned, "unlearned").get()
    assert checksum(unlearned) == kept


def test_what_another_process_has_made_again_meanwhile_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = stages(tmp_path).original.get().path
    (path / "kept").touch()
    seen = iter(["the bytes before", None])  # damaged; whole again once the lock is held
    monkeypatch.setattr(
        "dareu.workflow.stages.base.artifact_damage", lambda path, checksums=False: next(seen)
    )
    assert stages(tmp_path).original.whole().path == path
    assert (path / MANIFEST).is_file() and (path / "kept").is_file()
