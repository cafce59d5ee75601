"""The estimate of memory: worked out by hand, and beside what a model really holds."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForCausalLM, Gemma4TextConfig, LlamaConfig, LlamaForCausalLM, MambaConfig

from dareu.errors import ConfigError
from dareu.models.memory import MIB, ModelSize, Work, available_mib, check_memory, estimate, size_of

SIZE = ModelSize(parameters=MIB, trainable=MIB // 4, layers=2, width=64, vocabulary=1024, cached=128)


def test_by_hand() -> None:
    """4 MiB of weights in float32; 8 rows × 16 tokens, 8 of them with logits."""
    parts = estimate(SIZE, Work(rows=8, length=16, answers=8, sampled=32))
    assert parts["weights"] == 4 and parts["reference"] == parts["gradients"] == 1 and parts["optimizer"] == 2
    assert parts["activations"] == pytest.approx(8 * 16 * 64 * 2 * 17 * 4 / MIB)
    assert parts["logits"] == 8 * 8 * 1024 * 12 / MIB == 0.75
    assert parts["sampling"] == 32 * 16 * 2 * 128 * 4 / MIB == 0.5
    assert parts["total"] == pytest.approx(8 + parts["activations"] + 0.75)


def test_a_base_beside_the_model() -> None:
    """Two models of 4 MiB where an update of an adapter takes less than the second."""
    adapter = replace(SIZE, trainable=1024)
    small = Work(rows=1, length=16, answers=8)
    assert estimate(adapter, small)["total"] < 5
    parts = estimate(adapter, replace(small, base=True))
    assert parts["base"] == 4 and parts["total"] == 8
    large = Work(rows=8, length=16, answers=8)  # all weights: what stays is larger than the second model
    assert estimate(SIZE, replace(large, base=True))["total"] == estimate(SIZE, large)["total"] > 8


def test_muon_keeps_one_moment_of_a_matrix() -> None:
    """Of a Llama's weights all but embedding, head and norms are matrices of hidden layers; of an adapter all are."""
    model = llama()
    vectors = 32 * (2 * 2 + 1)
    size = size_of(model, None)
    assert size.matrices == size.trainable - 2 * 100 * 32 - vectors
    adam, muon = (estimate(size, Work(8, 16, 8, muon=used))["optimizer"] for used in (False, True))
    assert adam == size.trainable * 8 / MIB and muon == pytest.approx(adam - size.matrices * 4 / MIB)
    adapted = size_of(model, 4)
    assert adapted.matrices == adapted.trainable
    assert estimate(adapted, Work(8, 16, 8, muon=True))["optimizer"] == adapted.trainable * 4 / MIB


def test_what_lowers_it() -> None:
    work = Work(rows=8, length=16, answers=8)
    whole = estimate(SIZE, work)
    assert estimate(SIZE, Work(8, 16, 8, checkpointing=True))["activations"] < whole["activations"]
    assert estimate(SIZE, Work(4, 16, 8))["activations"] == whole["activations"] / 2
    assert estimate(SIZE, Work(8, 16, 8, frozen=False))["reference"] == 0
    assert estimate(SIZE, Work(8, 16, 8, bf16=True))["activations"] == whole["activations"] / 2


def llama() -> LlamaForCausalLM:
    shape = LlamaConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        vocab_size=100, tie_word_embeddings=False,
    )  # fmt: skip
    with torch.device("meta"):
        return LlamaForCausalLM(shape)


def test_layers_that_differ_and_models_without_attention() -> None:
    """Gemma 4 has heads of two widths, Mamba has none; both configs refuse what a Llama's says."""
    shape = dict(vocab_size=100, hidden_size=32, num_hidden_layers=2)
    heads = dict(intermediate_size=64, num_attention_heads=4, num_key_value_heads=2, head_dim=16)
    gemma = Gemma4TextConfig(**shape, **heads, global_head_dim=48, hidden_size_per_layer_input=8)
    with torch.device("meta"):
        assert size_of(AutoModelForCausalLM.from_config(gemma), None).cached == 2 * 2 * (16 + 48) / 2
        assert size_of(AutoModelForCausalLM.from_config(MambaConfig(**shape)), None).cached == 0


def test_engines_share_the_model_among_processes() -> None:
    """Two processes; FSDP2 and ZeRO-3 hold half of the weights, and two of the two blocks while they work."""
    one, work = estimate(SIZE, Work(8, 16, 8)), {"rows": 8, "length": 16, "answers": 8, "processes": 2}
    assert estimate(SIZE, Work(**work)) == one
    zero2, fsdp = (estimate(SIZE, Work(**work, engine=name)) for name in ("zero2", "fsdp2"))
    for parts in (zero2, fsdp):
        assert (parts["gradients"], parts["optimizer"]) == (one["gradients"] / 2, one["optimizer"] / 2)
        assert parts["activations"] == one["activations"] and parts["reference"] == one["reference"]
    assert zero2["weights"] == one["weights"]
    assert fsdp["weights"] == pytest.approx(one["weights"] * (1 / 2 + 2 / SIZE.layers))


def test_sizes_are_the_models_own() -> None:
    model = llama()
    size = size_of(model, None)
    assert size.parameters == size.trainable == sum(p.numel() for p in model.parameters())
    assert (size.layers, size.width, size.vocabulary, size.cached) == (2, 32, 100, 2 * 2 * 8)


def test_trainable_weights_of_an_adapter_are_pefts() -> None:
    from peft import LoraConfig, get_peft_model

    model = llama()
    size = size_of(model, 4, "bfloat16")
    adapted = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"))
    assert size.trainable == sum(p.numel() for p in adapted.parameters() if p.requires_grad)
    assert size.parameters == sum(p.numel() for p in adapted.parameters()) and size.bytes == 2


KEYS = {
    "weights": ["model.adapter=lora"],
    "activations": ["rows"],
    "logits": ["rows"],
    "sampling": ["prompts"],
}


def test_what_cannot_fit_is_refused_and_the_keys_are_named() -> None:
    parts = estimate(SIZE, Work(rows=8, length=16, answers=8))
    assert check_memory(parts, None, KEYS) is None and check_memory(parts, 1000.0, KEYS) is None
    with pytest.raises(ConfigError, match="does not fit: weights, reference, gradients") as caught:
        check_memory(parts, 7.9, KEYS)
    assert "model.adapter=lora" in caught.value.cure
    told = check_memory(parts, 8.5, KEYS)
    assert told is not None and told.endswith("Keys to lower it: rows.")
    with pytest.raises(ConfigError, match="a base beside them") as caught:
        check_memory(
            estimate(SIZE, Work(1, 1, 1, base=True)) | {"base": 6.0, "total": 10.0}, 8.5, {"weights": []}
        )
    assert caught.value.cure == "Take a smaller model or a larger device."


def test_the_machine_has_memory() -> None:
    found = available_mib("cpu")
    assert found is None or found > 100


def test_dropout_of_adapters_keeps_masks_and_inputs() -> None:
    """Seven linear layers of a block read 6 × 32 + 64 numbers a token: twice that is 16 times the width of 32."""
    assert size_of(llama(), 4, dropout=True).dropped == 2 * (6 * 32 + 64) / 32 == 16
    assert size_of(llama(), 4).dropped == size_of(llama(), None, dropout=True).dropped == 0


def test_a_cpu_holds_more_than_its_tensors() -> None:
    work = Work(rows=8, length=16, answers=8)
    assert estimate(SIZE, work, "cpu")["total"] == pytest.approx(
        1.75 * estimate(SIZE, work, "cuda:0")["total"]
    )


def test_quantised_weights_take_half_a_byte() -> None:
    """Linear layers but the head: queries and output 2 × 32², keys and values 2 × 32 × 16, and 3 × 32 × 64, twice."""
    full, packed = (
        estimate(size_of(llama(), 4, "bfloat16", quantization=kind), Work(1, 8, 8)) for kind in (None, "nf4")
    )
    linear = 2 * (2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 64)
    assert (full["weights"] - packed["weights"]) * MIB == pytest.approx(linear * (2 - 0.52))
    assert full["activations"] == packed["activations"]
