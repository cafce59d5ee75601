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
    assert not any(same_weights(one, each) for each in (other, less, empty)) and not same_weights(
        empty, empty
    )


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
    settings = {
        "peft_type": "LORA",
        "base_model_name_or_path": "base",
        "r": 2,
        "lora_alpha": 16,
        "alpha_pattern": {},
    }
    weights = {"adapter_model.safetensors": {"lora_A": 1.0}}
    one = folder(tmp_path / "one", weights, settings)
    assert same_weights(one, folder(tmp_path / "other", weights, settings | changed)) == same


def model_of(path: Path, dtype: torch.dtype, seed: int = 0, **more: torch.Tensor) -> Path:
    """Weights of all sizes, in this type."""
    draw = torch.Generator().manual_seed(seed)
    weight = torch.randn(64, 8, generator=draw) * 10.0 ** torch.randint(-4, 3, (64, 8), generator=draw)
    path.mkdir()
    save_file(
        {"w": weight.to(dtype), **{k: t.to(dtype) for k, t in more.items()}}, path / "model.safetensors"
    )
    return path


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_a_copy_in_another_type_has_the_same_weights(tmp_path: Path, dtype: torch.dtype) -> None:
    one = model_of(tmp_path / "one", torch.float32)
    copy = model_of(tmp_path / "copy", dtype)
    other = model_of(tmp_path / "other", dtype, seed=1)
    assert same_weights(one, copy) and same_weights(copy, one)
    assert not same_weights(one, other) and not same_weights(other, one)


def test_one_step_in_the_last_digit_of_bfloat16_is_another_weight(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir(), (tmp_path / "other").mkdir()
    save_file({"w": torch.tensor([1.0, 2.0])}, tmp_path / "one" / "model.safetensors")
    moved = torch.tensor([1.0, 2.0 + 2**-6], dtype=torch.bfloat16)
    save_file({"w": moved}, tmp_path / "other" / "model.safetensors")
    assert not same_weights(tmp_path / "one", tmp_path / "other")
    # a float32 that bfloat16 rounds away is the same weight
    save_file({"w": torch.tensor([1.0, 2.0 + 2**-6 - 2**-20])}, tmp_path / "one" / "model.safetensors")
    assert same_weights(tmp_path / "one", tmp_path / "other")


def test_a_tied_head_that_is_saved_too_is_no_other_weight(tmp_path: Path) -> None:
    one = model_of(tmp_path / "one", torch.float32, embed=torch.ones(4, 2))
    both = model_of(tmp_path / "both", torch.float32, embed=torch.ones(4, 2), head=torch.ones(4, 2))
    apart = model_of(tmp_path / "apart", torch.float32, embed=torch.ones(4, 2), head=torch.zeros(4, 2))
    assert same_weights(one, both) and same_weights(both, one) and not same_weights(one, apart)


def adapter(path: Path, base: Path | str, b: float, a: float = 1.0, **more: object) -> Path:
    place = "base_model.model.layers.0.q_proj"
    path.mkdir()
    tensors = {
        f"{place}.lora_A.weight": torch.full((2, 4), a),
        f"{place}.lora_B.weight": torch.full((4, 2), b),
    }
    extra = more.pop("tensors", {})
    save_file(tensors | extra, path / "adapter_model.safetensors")  # type: ignore[operator]
    settings = {"peft_type": "LORA", "base_model_name_or_path": str(base), "r": 2, "lora_alpha": 4, **more}
    (path / "adapter_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return path


def test_an_adapter_that_adds_nothing_has_the_weights_of_its_base(tmp_path: Path) -> None:
    base = model_of(tmp_path / "base", torch.float32)
    copy, other = model_of(tmp_path / "copy", torch.bfloat16), model_of(tmp_path / "other", torch.float32, 1)
    empty = adapter(tmp_path / "empty", base, b=0.0)
    assert same_weights(empty, base) and same_weights(copy, empty) and not same_weights(empty, other)
    again = adapter(tmp_path / "again", copy, b=0.0, a=3.0)  # another A, and the base's copy
    assert same_weights(empty, again)
    assert same_weights(adapter(tmp_path / "embedding", base, b=1.0, a=0.0), base)
    full = adapter(tmp_path / "full", base, b=0.5)
    assert not same_weights(full, base) and not same_weights(full, empty)
    assert same_weights(full, adapter(tmp_path / "moved", copy, b=0.5))  # the same on the base's copy
    dora = {"base_model.model.layers.0.q_proj.lora_magnitude_vector": torch.ones(4)}
    assert not same_weights(adapter(tmp_path / "dora", base, b=0.0, use_dora=True, tensors=dora), base)
    assert not same_weights(adapter(tmp_path / "pissa", base, b=0.0, init_lora_weights="pissa_niter_4"), base)
    bias = {
        "base_model.model.layers.0.q_proj.lora_B.bias": torch.zeros(4)
    }  # 0 itself, beside matrices that add
    assert not same_weights(adapter(tmp_path / "bias", base, b=0.5, lora_bias=True, tensors=bias), base)
    assert not same_weights(adapter(tmp_path / "hub", "some/model", b=0.0), base)  # its base is not here
