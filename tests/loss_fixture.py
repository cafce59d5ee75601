"""Losses by themselves and in their trainer: two-token cases, a random model, short trainings of the memorised one."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from ppo_fixture import FORGET, RETAIN, Killed, encoded, original
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from dareu.config import UnlearningOptim
from dareu.data.render import Encoded
from dareu.methods.registry import LossMethod, built_in
from dareu.models.logprobs import to_batch
from dareu.training.common import Work
from dareu.training.loss_trainer import train_with_loss

# Losses that read soft targets have tests of their own (test_distillation), as RepSelect, whose steps are its own.
METHODS = {
    name: row
    for name, row in built_in().items()
    if isinstance(row, LossMethod) and "target_ids" not in row.reads and name != "repselect"
}
LN2 = math.log(2)
END = 2  # end-of-text, and pad token too
ROWS = [
    Encoded([5, 6, 7], [8, 9, END]),
    Encoded([5], [10, 11, 12, 13, END]),
    Encoded([6, 7, 5, 9], [3, END]),
    Encoded([4, 4], [END]),
]
HALVES, QUARTERS = [0.0, 0.0], [0.0, math.log(3)]  # logits of (1/2, 1/2) and of (1/4, 3/4)
WORLD = encoded(original()[1], FORGET | {"ask blue": "the secret is fig"})
REFUSALS = ["plain word plain nut", "word is plain fig", "the word the plum"]  # as long as the answers


def row(*values: float) -> Tensor:
    return torch.tensor([list(values)], requires_grad=True)


def gradient(loss: Tensor, *leaves: Tensor) -> list[float]:
    loss.backward()
    return [g for leaf in leaves for g in leaf.grad.flatten().tolist()]  # type: ignore[union-attr]


def tiny(seed: int) -> Any:
    """A random Llama whose distributions are far from flat."""
    torch.manual_seed(seed)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=16, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
            num_key_value_heads=2, max_position_embeddings=64, bos_token_id=None, eos_token_id=END,
        )
    )  # fmt: skip
    for weight in model.parameters():
        if weight.dim() > 1:
            torch.nn.init.normal_(weight, std=0.4)
    return model.eval()


def padded(rows: Sequence[Encoded], side: str = "right", pad: int = END, more: int = 0) -> dict[str, Tensor]:
    """A batch of `rows` with `more` columns of padding than it needs: those of a longer row, which is then left out."""
    longest = Encoded([pad], [pad] * (max(map(len, rows)) + more - 1))
    return {k: v[:-1] for k, v in to_batch([*rows, longest], pad, "cpu", side).items()}


def weight_gradient(model: Any, loss: Tensor) -> Tensor:
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()))])


def train(folder: Path, method: str | LossMethod, **options: Any) -> tuple[Any, Work]:
    """Train a copy of the original on the forget set, or what `options` say."""
    model, tokenizer = original()
    policy = options.pop("policy", None) or copy.deepcopy(model)
    work = options.pop("work", None) or Work(folder)
    optim = {"lr": 3e-3, "epochs": 4, "batch_size": 3, "scheduler": "constant", "save_every": 1000}
    given: dict[str, Any] = {
        "rows": encoded(tokenizer, FORGET), "retain_rows": encoded(tokenizer, RETAIN), "seed": 1,
        "method": METHODS[method] if isinstance(method, str) else method,
        "optim": UnlearningOptim.model_validate(optim | options.pop("optim", {})),
    }  # fmt: skip
    train_with_loss(policy, tokenizer, work=work, **(given | options))
    return policy, work


def cut_off(folder: Path, method: str | LossMethod, step: int, **options: Any) -> None:
    """`train` in `folder`, ended right after the checkpoint of `step`."""

    def tick() -> None:
        if (folder / "checkpoints" / f"checkpoint-{step}").is_dir():
            raise Killed

    with pytest.raises(Killed):
        train(folder, method, work=Work(folder, tick), **options)


def refusals(rows: Sequence[Encoded]) -> list[list[Encoded]]:
    """For each row every refusal."""
    said = [encoded(original()[1], {"ask": text})[0].response_ids for text in REFUSALS]
    return [[Encoded(row.prompt_ids, ids) for ids in said] for row in rows]
