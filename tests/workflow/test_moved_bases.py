"""A stored adapter finds its base by content, not by path."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from models_fixture import PROMPTS, inputs, loud, make_folder

from dareu.config import HFConfig
from dareu.models.load import load_base, load_model, save_model
from dareu.workflow.keys import folder_key
from dareu.workflow.loading import base_folder, load_run_model, note_base


def context(base: Path, store: Path) -> Any:
    config = SimpleNamespace(model=HFConfig(path=str(base)), device="cpu")
    return SimpleNamespace(
        config=config, base={"content": folder_key(base)}, store=SimpleNamespace(root=store)
    )


@pytest.fixture()
def stored(tmp_path: Path) -> tuple[Path, Path]:
    """A base, and an adapter on it in a store."""
    base = make_folder(tmp_path / "base")
    model, tokenizer = load_base(HFConfig(path=str(base)), "cpu")
    adapter = tmp_path / "store" / "original" / "0123" / "model"
    save_model(model, tokenizer, adapter)
    note_base(context(base, tmp_path / "store"), adapter)
    return base, adapter


def logits(model: Any, tokenizer: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(**inputs(tokenizer, PROMPTS)).logits  # type: ignore[no-any-return]


def test_a_base_that_moved_is_found_by_its_content(stored: tuple[Path, Path], tmp_path: Path) -> None:
    base, adapter = stored
    before = logits(*load_model(adapter))
    moved = Path(shutil.move(base, tmp_path / "moved"))
    make_folder(base)
    model, _ = load_model(base)
    loud(model, seed=9).save_pretrained(base)  # another model lies in its place
    assert not torch.allclose(logits(*load_model(adapter)), before, atol=1e-2)
    now = context(moved, tmp_path / "store")
    assert base_folder(now, adapter) == str(moved)
    assert torch.equal(logits(*load_run_model(now, adapter)), before)
    other = context(base, tmp_path / "store")  # of other content: what the adapter's config says
    assert base_folder(other, adapter) is None


def test_a_base_in_a_store_that_moved_is_found(stored: tuple[Path, Path], tmp_path: Path) -> None:
    """An adapter on an original that was given as a full model, which lies in the store itself."""
    base, adapter = stored
    inside = tmp_path / "store" / "original" / "4567" / "model"
    shutil.copytree(base, inside)
    settings = json.loads((adapter / "adapter_config.json").read_text())
    settings["base_model_name_or_path"] = str(inside)
    (adapter / "adapter_config.json").write_text(json.dumps(settings))
    (adapter / "dareu_base.json").unlink()
    moved = Path(shutil.move(tmp_path / "store", tmp_path / "elsewhere"))
    found = base_folder(context(base, moved), moved / "original" / "0123" / "model")
    assert found == str(moved / "original" / "4567" / "model")


def test_an_adapters_key_covers_its_base(stored: tuple[Path, Path]) -> None:
    base, adapter = stored
    before = folder_key(adapter)
    assert folder_key(adapter) == before
    model, _ = load_model(base)
    loud(model, seed=9).save_pretrained(base)
    assert folder_key(adapter) != before


def test_what_is_merged_is_loaded_with_all_bits(
    stored: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, adapter = stored
    run = context(base, tmp_path / "store")
    run.config.model = HFConfig(path=str(base), quantization="nf4")
    asked = []
    monkeypatch.setattr(
        "dareu.models.load.load_model",
        lambda folder, **more: (asked.append(more["quantization"]), load_model(folder))[1],
    )
    load_run_model(run, adapter)
    load_run_model(run, adapter, to_merge=True)
    assert asked == ["nf4", None]
