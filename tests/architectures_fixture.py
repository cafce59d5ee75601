"""Small models of several architectures, with or without blocks that hand on hidden states alone."""

from __future__ import annotations

from typing import Any

import torch

from dareu.config import LoraConfig
from dareu.models.load import add_lora

PAD = 9


def other(kind: str, target: str, **settings: Any) -> Any:
    """A model of another architecture, four blocks deep, below a new adapter; in training mode."""
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    own = {"bos_token_id": 0, "eos_token_id": PAD, "pad_token_id": PAD}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, vocab_size=16, **own, **settings))
    for weight in model.parameters():
        if weight.dim() > 1:
            torch.nn.init.normal_(weight, std=0.3)
    return add_lora(model, LoraConfig(r=2, target_modules=[target])).train()


WIDTHS = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2, "num_key_value_heads": 2}
GPT2 = {"n_embd": 16, "n_layer": 4, "n_head": 2}
SHARED = {  # the upper two blocks read keys and values of the lower two
    **WIDTHS, "num_hidden_layers": 4, "head_dim": 8, "sliding_window": 2, "num_kv_shared_layers": 2,
    "layer_types": ["sliding_attention", "full_attention"] * 2, "hidden_size_per_layer_input": 4,
    "vocab_size_per_layer_input": 16,
}  # fmt: skip
STILL = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
KINDS: dict[str, tuple[bool, tuple[str, str], dict[str, Any]]] = {
    "GPT-2": (True, ("gpt2", "c_attn"), GPT2 | STILL),
    "Pythia": (True, ("gpt_neox", "query_key_value"), WIDTHS | {"num_hidden_layers": 4}),
    "windows": (True, ("gemma3_text", "q_proj"), {k: v for k, v in SHARED.items() if "shared" not in k}),
    "tuples": (False, ("gptj", "q_proj"), GPT2 | STILL | {"rotary_dim": 4}),
    "shared keys": (False, ("gemma4_text", "q_proj"), SHARED),
    "four streams": (False, ("gemma3n_text", "q_proj"), SHARED | {"activation_sparsity_pattern": [0.0] * 4}),
}
