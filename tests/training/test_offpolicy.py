"""Gold answers among the rollouts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from ppo_fixture import FORGET, Monitor, Spy, config, encoded, mean_nll, original, unlearn

from dareu.methods.reinforcement import as_rollout
from dareu.rewards.base import Prompt
from dareu.training.advantages import gold_rows, importance_weighted


def test_gold_rows_are_a_share_of_the_forget_prompts_spread_evenly() -> None:
    prompts = [Prompt("", "", "", kind=kind) for kind in ("forget", "retain", "forget", "forget", "forget")]  # type: ignore[arg-type]
    assert gold_rows(prompts, 0.5) == [False, False, True, False, True]
    assert gold_rows(prompts, 0.25) == [False, False, False, False, True]
    assert gold_rows(prompts, 0.0) == [False] * 5
    assert gold_rows(prompts, 1.0) == [True, False, True, True, True]


def test_a_gold_token_counts_by_its_probability() -> None:
    """−2 · .5 and −2 · .25; the other row stays."""
    old = torch.tensor([[0.5, 0.25], [0.5, 0.25]]).log()
    found = importance_weighted(torch.full((2, 2), -2.0), old, torch.tensor([True, False]))
    torch.testing.assert_close(found, torch.tensor([[-1.0, -0.5], [-2.0, -2.0]]))


def test_an_answer_ends_as_a_sampled_one_does() -> None:
    assert as_rollout([5, 6, 2, 7], [2, 3], limit=9) == (5, 6, 2)
    assert as_rollout([5, 6, 2, 7], [2, 3], limit=2) == (5, 6)
    assert as_rollout([5, 6], [2], limit=9) == (5, 6)


def _gold_prompts() -> list[Prompt]:
    rows = encoded(original()[1], FORGET)
    return [
        Prompt(q, q, "blue", a, answer_ids=tuple(row.response_ids))
        for (q, a), row in zip(FORGET.items(), rows, strict=True)
    ]


def test_every_second_rollout_is_the_gold_answer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Two rollouts of each of three prompts; stopping looks at the three samples alone."""
    spy = Spy(monkeypatch, temperature=1.0)
    seen: list[str] = []

    class Watching(Monitor):
        def __call__(self, texts: Any, *args: Any) -> Any:
            seen.extend(texts)
            return super().__call__(texts, *args)

    settings = config(offpolicy=0.5, num_generations=2, data_epochs=1, updates_per_batch=1)
    unlearn(tmp_path, settings, prompts=_gold_prompts(), monitor=Watching({}))
    tokenizer, (batch,) = original()[1], spy.batches
    answer = {row.prompt: row.answer for row in _gold_prompts()}
    pairs = [
        [
            " ".join(tokenizer.convert_ids_to_tokens(ids[mask.bool()])).removesuffix(" <end>")
            for ids, mask in rows
        ]
        for rows in (
            zip(batch["prompt_ids"], batch["prompt_mask"], strict=True),
            zip(batch["completion_ids"], batch["completion_mask"], strict=True),
        )
    ]
    gold = [q for q, text in zip(*pairs, strict=True) if text == answer[q]]
    assert set(gold) == set(FORGET) and len(seen) == 3


def test_gold_tokens_are_weighted_in_the_update(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """All rollouts gold, raw returns without a discount and a blind critic: A_t is the reward, times π_old(y_t)."""
    spy = Spy(monkeypatch, temperature=1.0)
    settings = config(
        offpolicy=1.0, num_generations=1, data_epochs=1, updates_per_batch=1, value_coef=0.0,
        advantage={"gamma": 0.0, "mode": "raw"}, reward={"transform": "linear"},
    )  # fmt: skip
    unlearn(tmp_path, settings, prompts=_gold_prompts())
    (batch,) = spy.batches
    probability = batch["old_per_token_logps"].exp()
    reward = batch["returns"]
    told = probability * (reward - batch["old_values"]) * batch["completion_mask"]
    torch.testing.assert_close(batch["advantages"], told)
    assert (told < 0).any()


def test_gold_answers_alone_unlearn(tmp_path: Path) -> None:
    model, _, _ = unlearn(tmp_path, config(offpolicy=1.0), prompts=_gold_prompts())
    assert mean_nll(model, FORGET) > mean_nll(original()[0], FORGET) + 0.5


def test_offpolicy_without_vllm_alone() -> None:
    with pytest.raises(ValueError, match="exclude one another"):
        config(offpolicy=0.5, use_vllm=True)
