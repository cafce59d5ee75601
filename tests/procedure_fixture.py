"""Short trainings by the methods whose trainer is their own."""

from __future__ import annotations

import copy
from functools import cache
from pathlib import Path
from typing import Any

import torch
from loss_fixture import train
from ppo_fixture import make_tokenizer, original, with_lora
from transformers import LlamaConfig, LlamaForCausalLM

from dareu.models.load import freeze_original
from dareu.training.common import Work

RMU = {"layer": 1, "blocks": 1, "modules": ["mlp.down_proj"], "coefficient": 3.0}
PDU = {"epsilon": 0.2, "step_size": 2.0, "warmup_epochs": 0}
SCRUB = {"max_epochs": 2, "alpha": 0.5, "gamma": 1.0}
RUNS: dict[str, dict[str, Any]] = {
    "rmu": {"params": RMU, "retain": "own", "retain_weight": 5.0},
    "pdu": {"params": PDU, "retain": "nll", "retain_batch_size": 2},
    "scrub": {"params": SCRUB, "retain": "own", "retain_batch_size": 2},
}


@cache
def deep() -> Any:
    """An untrained Llama of three blocks."""
    tokenizer = make_tokenizer()
    torch.manual_seed(0)
    shape = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=32, num_hidden_layers=3,
        num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=64, bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    return LlamaForCausalLM(shape).eval()


def run(
    folder: Path, name: str, policy: Any = None, adapter: bool = False, **options: Any
) -> tuple[Any, Work]:
    """`name` on a copy of a model, its reference beside it."""
    if policy is None:
        base = deep() if name == "rmu" else original()[0]
        policy = with_lora(base, dropout=0.1) if adapter else copy.deepcopy(base)
    given = RUNS[name] | options
    return train(folder, name, policy=policy, reference=freeze_original(policy), **given)
