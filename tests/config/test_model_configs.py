"""Every YAML of a named model against transformers' config classes: nothing is downloaded.

The shapes are those of the models' own config.json; the number of parameters that follows from each is the published
one, which shows that the shape is right.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from dareu.config import HFConfig
from dareu.config.compose import compose, options
from dareu.errors import ConfigError
from dareu.models import cpu_matmul
from dareu.models.checks import check_decoder
from dareu.models.load import add_lora
from dareu.workflow.prepare import slow_bfloat16, unpinned


def shape(
    kind: str, hidden: int, inner: int, layers: int, heads: int, kv: int, vocab: int, **more: Any
) -> Any:
    sizes = {"hidden_size": hidden, "intermediate_size": inner, "num_hidden_layers": layers}
    sizes |= {"num_attention_heads": heads, "vocab_size": vocab}
    if kind != "gpt_neox":
        sizes["num_key_value_heads"] = kv
    return AutoConfig.for_model(kind, **sizes, **more)


def qwen3(hidden: int, inner: int, layers: int, heads: int, tied: bool) -> Any:
    more = {"head_dim": 128, "tie_word_embeddings": tied, "max_position_embeddings": 40960}
    return shape("qwen3", hidden, inner, layers, heads, 8, 151936, **more)


def llama3(hidden: int, inner: int, layers: int, heads: int, tied: bool) -> Any:
    more = {"tie_word_embeddings": tied, "max_position_embeddings": 131072}
    return shape("llama", hidden, inner, layers, heads, 8, 128256, **more)


def smollm2(hidden: int, inner: int, layers: int, heads: int, kv: int) -> Any:
    more = {"tie_word_embeddings": True, "max_position_embeddings": 8192}
    return shape("llama", hidden, inner, layers, heads, kv, 49152, **more)


# Option → (path, parameters as published, config).
MODELS = {
    "llama2_7b_chat": (
        "meta-llama/Llama-2-7b-chat-hf",
        6_738_415_616,
        lambda: shape("llama", 4096, 11008, 32, 32, 32, 32000, max_position_embeddings=4096),
    ),
    "llama3_1b": (
        "meta-llama/Llama-3.2-1B-Instruct",
        1_235_814_400,
        lambda: llama3(2048, 8192, 16, 32, True),
    ),
    "llama3_3b": (
        "meta-llama/Llama-3.2-3B-Instruct",
        3_212_749_824,
        lambda: llama3(3072, 8192, 28, 24, True),
    ),
    "llama3_8b": (
        "meta-llama/Llama-3.1-8B-Instruct",
        8_030_261_248,
        lambda: llama3(4096, 14336, 32, 32, False),
    ),
    "qwen3_0_6b": ("Qwen/Qwen3-0.6B", 596_049_920, lambda: qwen3(1024, 3072, 28, 16, True)),
    "qwen3_1_7b": ("Qwen/Qwen3-1.7B", 1_720_574_976, lambda: qwen3(2048, 6144, 28, 16, True)),
    "qwen3_4b": ("Qwen/Qwen3-4B", 4_022_468_096, lambda: qwen3(2560, 9728, 36, 32, True)),
    "qwen3_8b": ("Qwen/Qwen3-8B", 8_190_735_360, lambda: qwen3(4096, 12288, 36, 32, False)),
    "phi": (
        "microsoft/phi-1_5",
        1_418_270_720,
        lambda: shape("phi", 2048, 8192, 24, 32, 32, 51200, max_position_embeddings=2048),
    ),
    "gemma3": (
        "google/gemma-3-1b-it",
        999_885_952,
        lambda: shape("gemma3_text", 1152, 6912, 26, 4, 1, 262144, head_dim=256, tie_word_embeddings=True),
    ),
    "smollm2_135m": (
        "HuggingFaceTB/SmolLM2-135M-Instruct",
        134_515_008,
        lambda: smollm2(576, 1536, 30, 9, 3),
    ),
    "smollm2_360m": (
        "HuggingFaceTB/SmolLM2-360M-Instruct",
        361_821_120,
        lambda: smollm2(960, 2560, 32, 15, 5),
    ),
    "smollm2_1_7b": (
        "HuggingFaceTB/SmolLM2-1.7B-Instruct",
        1_711_376_384,
        lambda: smollm2(2048, 8192, 24, 32, 32),
    ),
    "pythia": (
        "EleutherAI/pythia-1.4b",
        1_414_647_808,
        lambda: shape("gpt_neox", 2048, 8192, 24, 16, 16, 50304, max_position_embeddings=2048),
    ),
}
CLASSIFIERS = {"llama2_7b_chat": "TinyLlama/TinyLlama-1.1B-Chat-v1.0", "qwen3_8b": "Qwen/Qwen3-0.6B"}


def test_every_named_model_is_looked_at() -> None:
    assert len(MODELS) == 14
    assert set(MODELS) == set(options()["model"]) - {"tiny", "hf"}


def test_template_options_go_by_their_name_in_other_tools_too() -> None:
    config = compose(["model=hf", "model.path=x", "model.chat_template_kwargs={enable_thinking: false}"])
    assert config.model.template_options == {"enable_thinking": False}
    both = compose(["model=qwen3_0_6b", "model.chat_template_kwargs={a: 1}"])
    assert both.model.template_options == {"enable_thinking": False, "a": 1}


@pytest.mark.parametrize("name", MODELS)
def test_a_named_model(name: str) -> None:
    path, parameters, made = MODELS[name]
    config = compose([f"model={name}"])
    model = config.model
    assert isinstance(model, HFConfig) and model.path == path
    found = made()
    check_decoder(found, path)
    assert model.max_length <= found.max_position_embeddings
    assert model.template_options == ({"enable_thinking": False} if name.startswith("qwen3") else {})
    assert config.attributor.backbone.path == CLASSIFIERS.get(name)
    assert unpinned(config) == []
    free = compose([f"model={name}", "model.revision=null", "attributor.backbone.revision=null"])
    assert [note.split(" ")[0] for note in unpinned(free)] == [path, *filter(None, [CLASSIFIERS.get(name)])]
    small = parameters < 500_000_000  # what a CPU is enough for is read in float32
    assert model.dtype == ("float32" if small or name.startswith("smollm2_3") else "bfloat16")
    with torch.device("meta"):
        base = AutoModelForCausalLM.from_config(found)
        assert sum(p.numel() for p in base.parameters()) == parameters
        adapted = add_lora(base, model.lora)
    adapters = [module for module, p in adapted.named_parameters() if "lora_A" in module]
    assert len(adapters) % found.num_hidden_layers == 0 and len(adapters) >= 4 * found.num_hidden_layers


@pytest.mark.parametrize(
    "option", ["model.lora.dora=true", "model.lora.rslora=true", "model.quantization=nf4"]
)
def test_kinds_of_adapters_by_keys(option: str) -> None:
    assert compose(["model=llama3_8b", option]) != compose(["model=llama3_8b"])


@pytest.mark.parametrize("source", ["tofu", "muse", "wmdp", "rwku", "waterdrum_arxiv"])
def test_hub_data_is_pinned(source: str) -> None:
    assert unpinned(compose([f"data={source}"])) == []


def test_what_is_not_pinned_is_said_and_a_folder_needs_no_pin(tmp_path: Path) -> None:
    [note] = unpinned(compose(["data=lume"]))
    assert "data=lume" in note and "data.revision" in note
    assert unpinned(compose(["data=lume", f"data.path={tmp_path}"])) == []
    assert unpinned(compose(["model=hf", f"model.path={tmp_path}"])) == []
    [note] = unpinned(compose(["model=hf", "model.path=some/where"]))
    assert note.startswith("some/where ") and "model.revision" in note


def test_bfloat16_on_a_cpu_without_instructions_for_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked = compose(["experiment=tofu_smollm2", f"model.path={tmp_path}", "method=dareu_warm", "device=cpu"])
    for supported in (True, False):
        monkeypatch.setattr(cpu_matmul, "bfloat16_is_emulated", lambda supported=supported: not supported)
        assert len(slow_bfloat16(asked)) == (not supported)
    [note] = slow_bfloat16(asked)
    cure = note.partition(": add ")[2].rstrip(".").split()
    assert "model.dtype=float32" in cure and "method.warm_start.optim.bf16=false" in cure
    cured = compose(
        ["experiment=tofu_smollm2", f"model.path={tmp_path}", "method=dareu_warm", "device=cpu", *cure]
    )
    assert slow_bfloat16(cured) == slow_bfloat16(compose(["device=cpu"])) == []


def test_template_options_that_are_no_mapping_are_a_message() -> None:
    given = ["model=hf", "model.path=x", "model.template_options=abc", "+model.chat_template_kwargs={a: 1}"]
    with pytest.raises(ConfigError, match="template_options"):
        compose(given)
