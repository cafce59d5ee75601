"""An original that is an adapter: its settings are recorded, and keys that differ are named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from dareu.config.compose import compose
from dareu.models.files import ADAPTER, ADAPTER_WEIGHTS
from dareu.workflow.given_adapter import settings_of, with_given_adapter

NAMES = ("base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight",)
HAS = {
    "r": 4,
    "lora_alpha": 32,
    "use_dora": True,
    "target_modules": ["v_proj", "q_proj"],
    "lora_dropout": 0.0,
}


def adapter(folder: Path, names: tuple[str, ...] = NAMES, **settings: Any) -> Path:
    folder.mkdir()
    tree = {"peft_type": "LORA", "bias": "none", "base_model_name_or_path": "base", **HAS, **settings}
    (folder / ADAPTER).write_text(json.dumps(tree))
    save_file({name: np.zeros((2, 2), dtype=np.float32) for name in names}, folder / ADAPTER_WEIGHTS)
    return folder


def told(folder: Path, *more: str) -> tuple[dict[str, Any], list[str]]:
    """The settings of adapters that are recorded, and the notes."""
    config, notes = with_given_adapter(
        compose(["model=hf", "model.path=base", f"original={folder}", "method=npo", *more])
    )
    return config.model_dump()["model"]["lora"], notes


def test_what_the_adapter_has_is_recorded_where_nothing_was_set(tmp_path: Path) -> None:
    found, notes = told(adapter(tmp_path / "a"))
    modules = ["q_proj", "v_proj"]
    assert found == {
        "r": 4, "alpha": 32, "dropout": 0.0, "target_modules": modules, "dora": True, "rslora": False
    }  # fmt: skip
    assert notes == []


def test_a_key_that_was_set_and_differs_is_named(tmp_path: Path) -> None:
    """It holds for a retrained model that is trained here, and for nothing where there is none."""
    folder = adapter(tmp_path / "a")
    found, notes = told(folder, "model.lora.r=16", "model.lora.alpha=32")
    assert (found["r"], found["alpha"], found["dora"]) == (16, 32, True)
    assert notes == [
        "The original is an adapter with r=4, which unlearning goes on with; model.lora.r=16 holds for the retrained "
        "model alone."
    ]
    found, notes = told(folder, "model.lora.r=16", "retrain=false")
    assert found["r"] == 4 and len(notes) == 1 and notes[0].endswith("model.lora.r=16 is not used.")
    assert told(folder, "model.lora.r=4", "model.lora.target_modules=all-linear")[1] == []


@pytest.mark.parametrize(
    "other",
    [
        {"peft_type": "IA3"},
        {"bias": "all"},
        {"names": (*NAMES, "base_model.model.model.embed_tokens.lora_embedding_A")},
        {"names": (*NAMES, "base_model.model.lm_head.lora_A.weight")},
        {"names": (*NAMES, "base_model.model.lm_head.weight")},
    ],
)
def test_an_adapter_that_is_folded_into_its_base_gives_no_settings(tmp_path: Path, other: Any) -> None:
    """A new adapter with the settings of `model.lora` stands on it."""
    assert settings_of(adapter(tmp_path / "a", **other)) is None
    assert told(tmp_path / "a", "model.lora.r=16") == (
        {"r": 16, "alpha": 16, "dropout": 0.05, "target_modules": "all-linear", "dora": False, "rslora": False}, []
    )  # fmt: skip


def test_full_models_and_runs_without_a_given_one_stay_as_they_are(tmp_path: Path) -> None:
    config = compose(["model=hf", "model.path=base", "model.lora.r=2", "method=npo"])
    assert with_given_adapter(config) == (config, [])
    assert told(tmp_path, "model.lora.r=2")[1] == []
