"""Whether two folders hold the same weights: files, tensors, an adapter's base and scale."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from dareu.models.same_weights import same_weights


def folder(path: Path, files: dict[str, dict[str, float]], settings: dict[str, object] | None = None) -> Path:
    path.mkdir()
    for name, tensors in files.items():
        save_file({key: torch.full((2,), value) for key, value in tensors.items()}, path / name)
    if settings:
        (path / "adapter_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return path


def test_tensors_count_and_not_how_they_are_cut_into_files(tmp_path: Path) -> None:
    one = folder(tmp_path / "one", {"model.safetensors": {"a": 1.0, "b": 2.0}})
    cut = folder(tmp_path / "cut", {"model-1.safetensors": {"a": 1.0}, "model-2.safetensors": {"b": 2.0}})
    other = folder(tmp_path / "other", {"model.safetensors": {"a": 1.0, "b": 2.5}})
    less = folder(tmp_path / "less", {"model.safetensors": {"a": 1.0}})
    empty = folder(tmp_path / "empty", {})
    assert same_weights(one, cut)
    assert not any(same_weights(one, each) for each in (other, less, empty)) and not same_weights(empty, empty)


@pytest.mark.parametrize(
    ("changed", "same"),
    [
        ({}, True),
        ({"lora_dropout": 0.1}, True),
        ({"lora_alpha": 1}, False),
        ({"use_rslora": True}, False),
        ({"alpha_pattern": {"q_proj": 2}}, False),
        ({"base_model_name_or_path": "another"}, False),
    ],
)
def test_of_adapters_base_and_scale_count(tmp_path: Path, changed: dict[str, object], same: bool) -> None:
    settings = {"peft_type": "LORA", "base_model_name_or_path": "base", "r": 2, "lora_alpha": 16, "alpha_pattern": {}}
    weights = {"adapter_model.safetensors": {"lora_A": 1.0}}
    one = folder(tmp_path / "one", weights, settings)
    assert same_weights(one, folder(tmp_path / "other", weights, settings | changed)) == same
