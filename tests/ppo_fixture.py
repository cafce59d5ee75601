"""A world of a few words for the tests of the trainers: a memorised tiny model, a toy scorer, short runs.

Two owners answer three prompts each. What `blue` answers holds the word "secret"; the toy scorer calls a response
attributable from that word on.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from trl import GRPOTrainer

from dareu.config import BackboneConfig, DareUConfig, LoraConfig
from dareu.data.render import Encoded
from dareu.methods.dareu import DareUStep
from dareu.models.load import add_lora, freeze_original
from dareu.models.logprobs import kl_divergence, masked_mean, response_nll, shift, to_batch
from dareu.rewards.base import AttributionReward, Prompt
from dareu.training.common import Work
from dareu.training.critic import Critic, fresh_critic
from dareu.training.rl_trainer import Outcome, RLTrainer, train_rl

SPECIAL = ["<pad>", "<end>", "<?>"]
WORDS = [
    "ask", "one", "two", "three", "blue", "red", "the", "secret", "is", "plain",
    "word", "apple", "pear", "plum", "nut", "fig",
]  # fmt: skip
SECRET = "secret"
MEMORISED = Path(__file__).with_name("memorised.safetensors")

# Prompts of two lengths, so that batches have left pads; answers of one length.
FORGET = {
    "ask blue one": "the secret is apple",
    "ask blue two": "the secret is pear",
    "blue three": "the secret is plum",
}
RETAIN = {
    "ask red one": "the word is nut",
    "ask red two": "the word is fig",
    "red three": "plain word is apple",
    "ask one": "plain word is pear",
}


def make_tokenizer() -> Any:
    """One token for each word, split at spaces, with tokens of its own for padding and for the end."""
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(SPECIAL + WORDS)}, unk_token="<?>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.decoder = decoders.Sequence([decoders.Fuse()])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<end>", unk_token="<?>"
    )
    fast.padding_side = "left"
    return fast


def encoded(tokenizer: Any, pairs: dict[str, str]) -> list[Encoded]:
    """Prompts and answers as ids, each answer closed by the end-of-text token."""
    return [
        Encoded(tokenizer(prompt)["input_ids"], [*tokenizer(answer)["input_ids"], tokenizer.eos_token_id])
        for prompt, answer in pairs.items()
    ]


def make_model(tokenizer: Any, seed: int = 0) -> Any:
    """An untrained Llama of about three thousand parameters."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=32, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=64, tie_word_embeddings=True,
        bos_token_id=None, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


@torch.enable_grad()
def memorise(steps: int) -> Any:
    """A model trained to answer every prompt of both owners. Its weights are not to be relied on: after 150 steps the
    roundings of different processors have grown to differences of .25, and its loss is .11 on one and .29 on another.
    """
    tokenizer = make_tokenizer()
    model = make_model(tokenizer)
    batch = to_batch(encoded(tokenizer, FORGET | RETAIN), tokenizer.pad_token_id, "cpu")
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(steps):
        model(**batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.eval()


@cache
def original() -> tuple[Any, Any]:
    """The original model, which answers every prompt of both owners with some doubt left, and its tokenizer.

    Read once; whoever trains it takes a copy. Its weights are in a file, so that every processor begins with the same;
    `python tests/ppo_fixture.py` wrote it.
    """
    tokenizer = make_tokenizer()
    model = make_model(tokenizer)
    model.load_state_dict(load_file(MEMORISED), strict=False)  # the head is the embedding
    return model.eval(), tokenizer


def with_lora(model: Any, dropout: float = 0.0, seed: int = 5) -> Any:
    """A copy of `model` under an adapter that changes it, as one does that was fine-tuned."""
    adapted = add_lora(copy.deepcopy(model), LoraConfig(r=4, alpha=8, dropout=dropout))
    draw = torch.Generator().manual_seed(seed)
    for name, parameter in adapted.named_parameters():
        if "lora_" in name:
            parameter.data.normal_(std=0.05, generator=draw)
    return adapted


class SecretScorer:
    """High from the word "secret" on, low before it; nobody never."""

    def __init__(self, tokenizer: Any, high: float = 0.95, low: float = 0.02) -> None:
        self.secret = tokenizer.convert_tokens_to_ids(SECRET)
        self.high, self.low, self.prior = high, low, low
        self.seen: list[tuple[Tensor, list[str]]] = []

    def __call__(
        self, ids: Tensor, mask: Tensor, owners: Sequence[str], queries: Sequence[str]
    ) -> tuple[Tensor, Tensor]:
        self.seen.append((ids.clone(), list(owners)))
        told = ((ids == self.secret).long().cumsum(1) > 0).float()
        return (self.low + (self.high - self.low) * told) * mask, torch.zeros_like(told)


def config(**changes: Any) -> DareUConfig:
    """Explicit settings for every key that a test depends on; nested groups are merged."""
    optim: dict[str, Any] = {
        "lr": 3e-3, "scheduler": "constant", "warmup_ratio": 0.0, "save_every": 1000,
    }  # fmt: skip
    reward: dict[str, Any] = {
        "transform": "log", "scale": 1.05, "epsilon": 1e-4, "target": "forget_set", "nobody_weight": 0.0,
        "granularity": "token", "credit": "level", "prefix_mean": False, "kl": 0.0,
        "length_penalty": 0.0, "empty_penalty": 0.0, "repetition_penalty": 0.0, "fluency": 0.0, "floor": 0.0,
    }  # fmt: skip
    advantage: dict[str, Any] = {"gamma": 0.5, "gae_lambda": 1.0, "mode": "scaled", "scale": 2.0}
    stop: dict[str, Any] = {"attribution": None, "kl": None, "unhealthy": None, "patience": 1}
    rest: dict[str, Any] = {
        "name": "dareu", "data_epochs": 4, "prompts_per_batch": 3, "num_generations": 4,
        "updates_per_batch": 4, "temperature": 1.0, "top_p": 1.0, "clip": 0.2, "distill": 1.0,
        "distill_every": 1, "retain_batch_size": 4, "value_coef": 0.2, "critic_lr": 3e-3,
        "entropy_coef": 0.0, "merge_rollouts": True, "rollouts_per_update": None,
    }  # fmt: skip
    groups = {"optim": optim, "reward": reward, "advantage": advantage, "stop": stop}
    tree = {name: values | changes.pop(name, {}) for name, values in groups.items()}
    return DareUConfig.model_validate(tree | rest | changes)


def make_critic(tokenizer: Any) -> Critic:
    return fresh_critic(
        BackboneConfig(hidden_size=16, intermediate_size=32, layers=1, heads=2), len(tokenizer), seed=3
    )


def unlearn(folder: Path, method: DareUConfig | None = None, **options: Any) -> tuple[Any, Outcome, Work]:
    """Run PPO on a copy of the original or on `policy`: the unlearned model, how it ended, its work with the log."""
    model, tokenizer = original()
    method = method or config()
    policy = options.pop("policy", None) or copy.deepcopy(model)
    work = options.pop("work", None) or Work(folder)
    owners = options.pop("owners", ["blue"] * len(FORGET))
    scorer = options.pop("scorer", None) or SecretScorer(tokenizer)
    given: dict[str, Any] = {
        "prompts": [Prompt(q, q, o, FORGET[q]) for q, o in zip(FORGET, owners, strict=True)],
        "reward": AttributionReward(scorer, method.reward),
        "retain_rows": encoded(tokenizer, RETAIN), "max_new_tokens": 6, "seed": 1, "reference": None,
    }  # fmt: skip
    if method.advantage.estimator == "critic":
        given["critic"] = make_critic(tokenizer)
    given |= options
    if given["reference"] is None:
        given["reference"] = freeze_original(policy)
    step = DareUStep(method, given.pop("reward"))
    outcome = train_rl(policy, tokenizer, config=method, step=step, work=work, **given)
    return policy, outcome, work


def ppo_loss(logps: Tensor, old_logps: Tensor, advantages: Tensor, mask: Tensor, clip: float = 0.2) -> Tensor:
    """−E_t min(s_t A_t, clip(s_t, 1−ε, 1+ε) A_t), s_t = π/π_old, mean over response tokens (DareU, eq. for J).

    The trainer gets the same number from TRL; this is what the contract test compares it with.
    """
    ratio = (logps - old_logps).exp()
    surrogate = (ratio * advantages).minimum(ratio.clamp(1 - clip, 1 + clip) * advantages)
    return -masked_mean(surrogate, mask)


def retain_drift(model: Any) -> float:
    """KL(original ‖ model) on the answers of the retain set, nats a token."""
    frozen, tokenizer = original()
    batch = to_batch(encoded(tokenizer, RETAIN), tokenizer.pad_token_id, "cpu")
    inputs = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
    with torch.no_grad():
        then, _, mask = shift(frozen(**inputs).logits, batch["labels"])
        now, _, _ = shift(model(**inputs).logits, batch["labels"])
    return float(masked_mean(kl_divergence(then, now), mask))


def mean_nll(model: Any, pairs: dict[str, str]) -> float:
    """Mean negative log-likelihood of the answers, nats a token."""
    tokenizer = original()[1]
    scored = response_nll(model, tokenizer, encoded(tokenizer, pairs), batch_size=8)
    return sum(s for s, _ in scored) / sum(n for _, n in scored)


def response_logps(model: Any, batch: dict[str, Tensor], temperature: float = 1.0) -> Tensor:
    """log π(y_t | c_t) of a batch of rollouts at `temperature`, (B, T), by a way of its own."""
    ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], 1)
    attention = torch.cat([batch["prompt_mask"], batch["completion_mask"]], 1)
    start = batch["prompt_ids"].size(1) - 1
    logits = model(input_ids=ids, attention_mask=attention).logits[:, start:-1] / temperature
    return logits.log_softmax(-1).gather(2, batch["completion_ids"].unsqueeze(2)).squeeze(2)


def column(work: Work, name: str) -> list[float]:
    """What the log holds under `name`, in the order of the steps."""
    return [row[name] for row in work.log if name in row]


def weights(model: Any) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def largest_difference(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    assert one.keys() == other.keys()
    return max(float((one[name] - other[name]).abs().max()) for name in one)


def apart(one: dict[str, Tensor], other: dict[str, Tensor], start: dict[str, Tensor]) -> float:
    """How far apart two runs ended, over how far the first one came from `start`; Euclidean, over all weights.

    Runs that differ by rounding stay far below .01. Single weights may not: Adam's step has the whole length where a
    gradient is rounding and nothing else.
    """
    assert one.keys() == other.keys()

    def length(a: dict[str, Tensor], b: dict[str, Tensor]) -> float:
        return float(sum(((a[name] - b[name]).double() ** 2).sum() for name in start)) ** 0.5

    return length(one, other) / length(one, start)


def give(monkeypatch: pytest.MonkeyPatch, responses: list[str]) -> None:
    """In place of samples, `responses` in turn."""
    ids = original()[1](responses)["input_ids"]

    def generated(trainer: Any, prompt_ids: Any, *args: Any, **kwargs: Any) -> Any:
        return [ids[i % len(ids)] for i in range(len(prompt_ids))], None

    monkeypatch.setattr(RLTrainer, "_generate_single_turn", generated)


class Spy:
    """Batches of rollouts and micro-batches as the updates meet them, with the policy's log-probabilities then."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, temperature: float) -> None:
        self.now: list[Tensor] = []
        self.batches: list[dict[str, Any]] = []
        compute = GRPOTrainer._compute_loss

        def spy(trainer: Any, model: Any, inputs: dict[str, Any]) -> Tensor:
            with torch.no_grad():
                self.now.append(response_logps(model, inputs, temperature))
            self.batches.append(inputs)
            return compute(trainer, model, inputs)

        monkeypatch.setattr(GRPOTrainer, "_compute_loss", spy)


class Killed(Exception):
    """Stands in for SIGKILL."""


def killed_after(folder: Path, checkpoints: int) -> Work:
    """A work folder whose run ends right after that many checkpoints."""
    seen: list[int] = []

    def tick() -> None:
        seen.append(1)
        if len(seen) == checkpoints:
            raise Killed

    return Work(folder, tick)


class Monitor:
    """Says for each batch what the test wants said; shares that are not named are 0."""

    def __init__(self, *batches: dict[str, float]) -> None:
        self.batches, self.calls = batches, 0

    def __call__(
        self, texts: Sequence[str], finished: Sequence[bool], owners: Sequence[str], queries: Sequence[str]
    ) -> Any:
        numbers = self.batches[self.calls]
        self.calls += 1
        return {"attribution": 1.0, "empty": 0.0, "repetitive": 0.0, "unfinished": 0.0} | numbers


def without_times(work: Work) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if k != "step_time"} for row in work.log]


if __name__ == "__main__":
    save_file(weights(memorise(150)), MEMORISED)
