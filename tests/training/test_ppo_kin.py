"""The methods on the engine that DareU shares: rewards rise, critic or none, retain prompts, a phase of refusals."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from ppo_fixture import (
    FORGET,
    RETAIN,
    WORDS,
    Killed,
    Monitor,
    SecretScorer,
    Spy,
    column,
    config,
    encoded,
    give,
    killed_after,
    largest_difference,
    original,
    retain_drift,
    unlearn,
    weights,
    with_lora,
    without_times,
)

from dareu.config import DareUConfig, RefusalPhase
from dareu.models.load import freeze_original
from dareu.rewards.base import AttributionReward, MixedReward, Prompt, TextReward
from dareu.rewards.forbidden_words import binary, find
from dareu.rewards.refusal import rule_reward
from dareu.training.common import Work
from dareu.training.loss_spec import FINETUNE
from dareu.training.supervised_phase import learn_first

REFUSAL = "the word is plum"  # what stands for a refusal in a world of a few words
LONE = {"estimator": "grpo", "gamma": 1.0, "mode": "raw"}


def words(text: str) -> list[str]:
    """The words of a text whose spaces the tokenizer of the fixture leaves out."""
    return re.findall("|".join(WORDS), text)


def share_of_words(reference: str, text: str) -> float:
    """A similarity for short texts: common words over the longer text's."""
    one, other = words(reference), words(text)
    return len(set(one) & set(other)) / max(len(one), len(other), 1)


def retain_prompts() -> list[Prompt]:
    return [Prompt(q, q, "red", a, own=a, kind="retain") for q, a in RETAIN.items()]


def forget_prompts() -> list[Prompt]:
    return [Prompt(q, q, "blue", a) for q, a in FORGET.items()]


JUDGES: dict[str, Callable[[str, Prompt], float]] = {
    "rule": lambda text, prompt: rule_reward(
        words(text) == REFUSAL.split(), prompt.kind == "forget", share_of_words(prompt.answer, text)
    ),
    "purge": lambda text, prompt: binary(find(" ".join(words(text)), {"secret", "apple", "pear", "plum"})),
    "demem": lambda text, prompt: -share_of_words(prompt.answer, text),
}


def kin(name: str, **changes: Any) -> DareUConfig:
    """Settings in which the method named so learns within a second or two."""
    own: dict[str, Any] = {
        "dareu_rloo": {"advantage": {"estimator": "rloo"}, "temperature": 1.5},
        "dareu_grpo": {"advantage": {"estimator": "grpo", "mode": "raw"}, "temperature": 1.5},
        "rule": {
            "advantage": LONE,
            "reward": {"kind": "refusal"},
            "retain_prompts": {"share": 0.5},
            "distill": 0.0,
        },
        "purge": {
            "advantage": LONE,
            "reward": {"kind": "forbidden_words"},
            "temperature": 2.0,
            "distill": 0.0,
        },
        "demem": {
            "advantage": {"gamma": 1.0, "scale": 1.0},
            "reward": {"kind": "dissimilarity"},
            "distill": 0.0,
        },
    }[name]
    tree: dict[str, Any] = {"name": name, "num_generations": 8, "data_epochs": 8, "updates_per_batch": 2}
    return config(**tree | own | changes)


@pytest.mark.parametrize("name", ["dareu_rloo", "dareu_grpo", "purge", "demem"])
def test_reward_rises(tmp_path: Path, name: str) -> None:
    method = kin(name)
    options = {"reward": TextReward(JUDGES[name])} if name in JUDGES else {}
    _, _, work = unlearn(tmp_path, method, **options)
    reward = column(work, "reward_forget" if options else "reward")
    assert len(reward) == 8 and sum(reward[-3:]) / 3 > reward[0] + 0.2
    grouped = method.advantage.estimator != "critic"
    assert len(column(work, "silent_groups")) == (8 if grouped else 0)
    assert len(column(work, "value_loss")) == (0 if grouped else 16)
    assert len(column(work, "explained_variance")) == (0 if grouped else 8)


def test_rule_refuses_forget_prompts_and_answers_the_others(tmp_path: Path) -> None:
    """A phase that teaches refusals, for forget prompts alone, and then the reward."""
    model, tokenizer = original()
    policy, method = copy.deepcopy(model), kin("rule", data_epochs=6, prompts_per_batch=7)
    reference = freeze_original(policy)
    told = _learn(policy, tmp_path, epochs=3)
    assert told["steps"] == 6  # three prompts in batches of two
    _, _, work = unlearn(
        tmp_path, method, policy=policy, reference=reference, reward=TextReward(JUDGES["rule"]),
        prompts=forget_prompts() + retain_prompts(),
    )  # fmt: skip
    forget, retain = column(work, "reward_forget"), column(work, "reward_retain")
    assert sum(forget[-3:]) / 3 > forget[0] + 0.15 and retain[-1] > max(retain[0], 0.9)


def _learn(policy: Any, folder: Path, epochs: float = 2, work: Work | None = None) -> dict[str, Any]:
    tokenizer = original()[1]
    phase = RefusalPhase.model_validate(
        {"optim": {"lr": 5e-3, "epochs": epochs, "batch_size": 2, "scheduler": "constant", "save_every": 1}}
    )
    return learn_first(
        policy, tokenizer, "refusals", work or Work(folder), method=FINETUNE, optim=phase.optim,
        rows=encoded(tokenizer, dict.fromkeys(FORGET, REFUSAL)), retain_rows=encoded(tokenizer, RETAIN),
        retain=phase.retain, retain_weight=phase.retain_weight, seed=1, device="cpu",
    )  # fmt: skip


# --- groups ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("estimator", ["rloo", "grpo"])
def test_a_group_of_one_is_told_with_the_configuration(estimator: str) -> None:
    with pytest.raises(ValueError, match="num_generations must be at least 2, not 1"):
        config(advantage={"estimator": estimator}, num_generations=1)
    assert config(advantage={"estimator": estimator}, num_generations=2).num_generations == 2


def test_equal_rollouts_say_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    give(monkeypatch, ["the secret <end>"])
    method = config(advantage={"estimator": "rloo"}, distill=0.0, data_epochs=1)
    model, _, work = unlearn(tmp_path, method)
    assert column(work, "silent_groups") == [1.0]
    assert largest_difference(weights(model), weights(original()[0])) == 0


def test_advantages_of_a_batch_are_those_of_its_groups(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Rollouts of a prompt stand side by side: a, b, a, b for each of three prompts."""
    give(monkeypatch, ["the secret <end>", "the <end>"])
    spy = Spy(monkeypatch, temperature=1.0)
    reward = TextReward(lambda text, prompt: float("secret" not in text))
    advantage = {"estimator": "rloo", "gamma": 1.0, "mode": "scaled", "scale": 3.0}
    unlearn(tmp_path, config(advantage=advantage, distill=0.0, data_epochs=1), reward=reward)
    # rewards 0, 1, 0, 1: 0 − 2/3 and 1 − 1/3, times 3; at every token of the response
    found = spy.batches[0]["advantages"]
    order = spy.batches[0]["completion_mask"].sum(1)
    torch.testing.assert_close(found[order == 3], torch.full((6, 3), -2.0))
    torch.testing.assert_close(found[order == 2], torch.tensor([[2.0, 2.0, 0.0]] * 6))
    assert "returns" not in spy.batches[0] and "old_values" not in spy.batches[0]


def test_a_critic_goes_with_its_estimator_alone(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="estimator=critic without a critic"):
        unlearn(tmp_path, critic=None)


def test_kl_in_the_loss(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """0 where the policy is the original; it holds the policy near it where the reward pulls away."""
    drift = []
    for weight in (0.01, 3.0):
        method = config(advantage={"estimator": "rloo"}, distill=0.0, kl_loss=weight, temperature=1.5)
        _, _, work = unlearn(tmp_path / str(weight), method)
        assert len(column(work, "kl_loss")) == 16 and column(work, "kl_loss")[0] == pytest.approx(0, abs=1e-6)
        drift.append(column(work, "kl_original")[-1])
    assert drift[0] > 2 * drift[1] > 0


# --- retain prompts -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("estimator", ["critic", "rloo"])
def test_retain_prompts_hold_the_retain_set(tmp_path: Path, estimator: str) -> None:
    """Without distillation: against a run whose retain prompts earn the same whatever is answered."""
    method = config(
        advantage={"estimator": estimator}, retain_prompts={"share": 0.5}, prompts_per_batch=7, data_epochs=6,
        distill=0.0, temperature=1.5, optim={"lr": 2e-3},
    )  # fmt: skip
    drift = {}
    for weight in (0, 1):
        helpful = TextReward(lambda text, prompt, w=weight: w * (share_of_words(prompt.own, text) - 1.0))
        reward = MixedReward(AttributionReward(SecretScorer(original()[1]), method.reward), helpful)
        model, _, work = unlearn(
            tmp_path / str(weight), method, reward=reward, prompts=forget_prompts() + retain_prompts()
        )
        forget = column(work, "reward_forget")
        assert forget[-1] > forget[0] + 0.3
        assert (min(column(work, "reward_retain")) < 0) == bool(weight)
        drift[weight] = retain_drift(model)
    assert drift[1] < 0.6 * drift[0]


def test_stopping_looks_at_forget_prompts_alone(tmp_path: Path) -> None:
    seen: list[tuple[list[str], list[str]]] = []

    class Noting(Monitor):
        def __call__(self, texts: Any, finished: Any, owners: Any, queries: Any) -> Any:
            assert len(texts) == len(finished) == len(owners)
            seen.append((list(owners), list(queries)))
            return super().__call__(texts, finished, owners, queries)

    asked = forget_prompts() + retain_prompts()
    method = config(prompts_per_batch=7, num_generations=2, data_epochs=1, retain_prompts={"share": 0.5})
    unlearn(tmp_path, method, prompts=asked, monitor=Noting({}))
    assert seen[0][0] == ["blue"] * 6 and sorted(seen[0][1]) == sorted([*FORGET, *FORGET])


def test_a_batch_of_retain_prompts_alone_stops_nothing(tmp_path: Path) -> None:
    method = config(data_epochs=1, stop={"unhealthy": 0.1, "attribution": 0.9})
    broken = Monitor({"empty": 1.0, "attribution": 0.0})
    _, outcome, work = unlearn(tmp_path, method, prompts=retain_prompts()[:3], monitor=broken)
    assert outcome.stopped is None and not column(work, "stop_empty")


# --- cut off and taken up again -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["full", "lora"])
def test_resumed_run_without_a_critic_ends_as_an_undisturbed_one(tmp_path: Path, kind: str) -> None:
    def policy() -> Any:
        return copy.deepcopy(original()[0]) if kind == "full" else with_lora(original()[0], dropout=0.1)

    method = config(
        advantage={"estimator": "grpo", "mode": "raw"}, kl_loss=0.1, temperature=1.5, optim={"save_every": 4}
    )
    whole, _, work = unlearn(tmp_path / "whole", method, policy=policy())
    with pytest.raises(Killed):
        unlearn(tmp_path / "cut", method, policy=policy(), work=killed_after(tmp_path / "cut", 2))
    torch.manual_seed(12345)
    model, outcome, resumed = unlearn(tmp_path / "cut", method, policy=policy())
    assert outcome.updates == 16
    assert largest_difference(weights(whole), weights(model)) == 0
    assert without_times(work) == without_times(resumed)


@pytest.mark.parametrize("kind", ["full", "lora"])
def test_refusals_are_learnt_once(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def policy() -> Any:
        return copy.deepcopy(original()[0]) if kind == "full" else with_lora(original()[0])

    whole = policy()
    told = _learn(whole, tmp_path / "whole")
    cut = policy()
    with pytest.raises(Killed):  # in the midst of the phase
        _learn(cut, tmp_path / "cut", work=killed_after(tmp_path / "cut", 2))
    again = policy()
    assert _learn(again, tmp_path / "cut") == told
    assert largest_difference(weights(whole), weights(again)) == 0
    assert largest_difference(weights(whole), weights(policy())) > 1e-3
    monkeypatch.setattr(
        "dareu.training.supervised_phase.train_with_loss", lambda *_, **__: pytest.fail("again")
    )
    third = policy()
    assert _learn(third, tmp_path / "cut") == told
    assert largest_difference(weights(whole), weights(third)) == 0
