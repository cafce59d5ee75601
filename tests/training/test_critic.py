"""The critic: what it reads, where it starts, what it learns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from ppo_fixture import column, config, largest_difference, make_critic, original, unlearn, weights
from transformers import GPT2Config, GPT2Model, LlamaConfig, LlamaModel
from trl import GRPOTrainer

from dareu.training.critic import Critic


def _backbone(kind: str) -> Any:
    torch.manual_seed(2)
    if kind == "llama":  # rotary, relative positions
        size = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
        return LlamaModel(LlamaConfig(vocab_size=20, **size)).eval()
    size = {"n_embd": 16, "n_layer": 2, "n_head": 2}  # learned, absolute positions
    return GPT2Model(GPT2Config(vocab_size=20, bos_token_id=1, eos_token_id=1, **size)).eval()


def _reading(kind: str) -> Critic:
    """A critic whose head reads something."""
    critic = Critic(_backbone(kind), 16).eval()
    torch.nn.init.normal_(critic.head.weight)
    return critic


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
@torch.no_grad()
def test_critic_does_not_see_the_token_it_values(kind: str) -> None:
    critic, ids = _reading(kind), torch.arange(3, 11).unsqueeze(0)
    attention = torch.ones_like(ids)
    values = critic(ids, attention, 5)
    assert values.shape == (1, 5)
    for t in range(5):
        changed = ids.clone()
        changed[0, 3 + t] = 15
        apart = (critic(changed, attention, 5) - values).abs()[0]
        assert apart[: t + 1].max() == 0
        assert (apart[t + 1 :] > 1e-6).all()
    changed = ids.clone()
    changed[0, 2] = 15  # the last token of the prompt is what the first value reads
    assert (critic(changed, attention, 5) - values).abs()[0, 0] > 1e-6


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
@torch.no_grad()
def test_left_pads_do_not_change_the_values(kind: str) -> None:
    critic, ids = _reading(kind), torch.arange(3, 11).unsqueeze(0)
    values = critic(ids, torch.ones_like(ids), 5)
    padded = torch.cat([torch.zeros(1, 4, dtype=torch.long), ids], 1)
    attention = (padded > 0).long()
    assert torch.allclose(critic(padded, attention, 5), values, atol=1e-5)
    assert not torch.allclose(critic(padded, torch.ones_like(padded), 5), values, atol=1e-2)


@torch.no_grad()
def test_critic_starts_at_zero() -> None:
    tokenizer = original()[1]
    ids = torch.arange(3, 11).unsqueeze(0)
    assert torch.equal(make_critic(tokenizer)(ids, torch.ones_like(ids), 5), torch.zeros(1, 5))


@torch.no_grad()
def test_critic_comes_back_from_disk(tmp_path: Path) -> None:
    critic, other = _reading("llama"), Critic(_backbone("llama"), 16).eval()
    ids = torch.arange(3, 11).unsqueeze(0)
    critic.save(tmp_path)
    assert not torch.equal(other(ids, torch.ones_like(ids), 5), critic(ids, torch.ones_like(ids), 5))
    other.restore(tmp_path)
    assert largest_difference(weights(critic), weights(other)) == 0


def test_critic_learns_the_returns(tmp_path: Path) -> None:
    """With a policy that stands still, what it has to explain stands still too."""
    method = config(
        optim={"lr": 1e-12}, critic_lr=3e-2, distill=0.0, data_epochs=5, updates_per_batch=16, clip=10.0
    )
    _, _, work = unlearn(tmp_path, method)
    losses, explained = column(work, "value_loss"), column(work, "explained_variance")
    assert losses[-1] < 0.1 * losses[0]
    assert explained[0] == pytest.approx(0) and explained[1] < 0.5 and explained[-1] > 0.8


def test_gradients_of_the_critic_do_not_pile_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The Trainer clears the gradients of its own model alone."""
    found = []
    step = GRPOTrainer.training_step

    def spy(trainer: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        grad = trainer.critic.head.weight.grad
        found.append(0.0 if grad is None else float(grad.abs().sum()))
        return step(trainer, *args, **kwargs)

    monkeypatch.setattr(GRPOTrainer, "training_step", spy)
    unlearn(tmp_path, config(data_epochs=1, updates_per_batch=3, optim={"micro_batch_size": 6}))
    begins, middles = found[::2], found[1::2]
    assert begins == [0, 0, 0]
    assert all(value > 0 for value in middles)  # the second micro-batch adds to the first


@torch.no_grad()
def test_an_id_beyond_the_critics_vocabulary_is_read_as_its_last_one() -> None:
    """A policy with a padded vocabulary may sample one where an engine of its own does (vLLM)."""
    critic, ids = _reading("llama"), torch.tensor([[3, 4, 5, 25, 6]])
    attention = torch.ones_like(ids)
    assert torch.equal(critic(ids, attention, 3), critic(ids.clamp(max=19), attention, 3))
