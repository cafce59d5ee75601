"""The counterfactual anchor: what the original says of rollouts under a fictitious name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from ppo_fixture import make_model, make_tokenizer
from torch import Tensor

from dareu.data.render import encode
from dareu.models.logprobs import response_logits, to_batch
from dareu.rewards.base import Prompt, Rollouts
from dareu.training.anchor import CounterfactualAnchor

# "blue" gives way to "red". What the original says under each text is a forward pass of its own below.
QUERY, FAKE = "ask blue one", "ask red one"


@pytest.fixture(scope="module")
def world() -> tuple[Any, Any]:
    tokenizer = make_tokenizer()
    return make_model(tokenizer, seed=4), tokenizer


def _rollouts(tokenizer: Any, rows: list[tuple[str, str, str]], ended: bool = True) -> Rollouts:
    """From (kind, query, text); right-padded."""
    ids = [tokenizer(text)["input_ids"] + [tokenizer.eos_token_id] * ended for _, _, text in rows]
    width = max(map(len, ids))
    return Rollouts(
        torch.tensor([row + [tokenizer.pad_token_id] * (width - len(row)) for row in ids]),
        torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in ids]),
        torch.tensor([ended] * len(rows)),
        [text for _, _, text in rows],
        [Prompt(q, q, "blue", kind=kind) for kind, q, _ in rows],  # type: ignore[arg-type]
    )


def _anchored(
    world: tuple[Any, Any],
    rollouts: Rollouts,
    frozen: Tensor,
    max_length: int = 64,
    fakes: Sequence[str] = ("red",),
) -> Tensor:
    model, tokenizer = world
    anchor = CounterfactualAnchor(tokenizer, {"blue": ("blue", list(fakes))}, "qa", max_length, 8)
    return anchor(model, rollouts, frozen).softmax(-1)


def _says(world: tuple[Any, Any], query: str, text: str) -> Tensor:
    model, tokenizer = world
    with torch.no_grad():
        row = to_batch([encode(tokenizer, query, text)], tokenizer.pad_token_id, "cpu")
        return response_logits(model, row)[0].softmax(-1)


def _frozen(tokenizer: Any, rollouts: Rollouts) -> Tensor:
    draw = torch.Generator().manual_seed(0)
    return torch.randn(int(rollouts.mask.sum()), len(tokenizer), generator=draw)


def test_each_token_has_what_the_original_says_under_the_other_name(world: tuple[Any, Any]) -> None:
    """The second answer has the name itself: there the original's own stay, and after it the name is another."""
    rollouts = _rollouts(
        world[1], [("forget", QUERY, "the secret is apple"), ("forget", QUERY, "the blue is")]
    )
    frozen = _frozen(world[1], rollouts)
    found = _anchored(world, rollouts, frozen)
    torch.testing.assert_close(found[:5], _says(world, FAKE, "the secret is apple"))
    renamed = _says(world, FAKE, "the red is")
    torch.testing.assert_close(found[[5, 7, 8]], renamed[[0, 2, 3]])
    torch.testing.assert_close(found[6], frozen[6].softmax(-1))


def test_an_answer_without_end_has_as_many_tokens_as_were_sampled(world: tuple[Any, Any]) -> None:
    rollouts = _rollouts(world[1], [("forget", QUERY, "the secret is")], ended=False)
    found = _anchored(world, rollouts, _frozen(world[1], rollouts))
    torch.testing.assert_close(found, _says(world, FAKE, "the secret is")[:3])


@pytest.mark.parametrize(
    ("row", "max_length"),
    [(("retain", "ask one", "plain word"), 64), (("forget", QUERY, "the secret is apple"), 8)],
)
def test_the_original_stays(world: tuple[Any, Any], row: tuple[str, str, str], max_length: int) -> None:
    """On retain prompts, and where the pair is too long: 5 tokens of prompt and 5 of response."""
    rollouts = _rollouts(world[1], [row])
    frozen = _frozen(world[1], rollouts)
    torch.testing.assert_close(_anchored(world, rollouts, frozen, max_length), frozen.softmax(-1))


def test_the_original_stays_for_an_owner_without_fictitious_names(world: tuple[Any, Any]) -> None:
    rollouts = _rollouts(world[1], [("forget", QUERY, "the secret is apple")])
    frozen = _frozen(world[1], rollouts)
    torch.testing.assert_close(_anchored(world, rollouts, frozen, fakes=()), frozen.softmax(-1))


def test_tokens_that_the_text_is_not_cut_into_keep_the_original(world: tuple[Any, Any]) -> None:
    rollouts = _rollouts(world[1], [("forget", QUERY, "the secret is apple")])
    rollouts.ids[0, 1] = world[1].convert_tokens_to_ids("fig")  # the text says "secret"
    frozen = _frozen(world[1], rollouts)
    torch.testing.assert_close(_anchored(world, rollouts, frozen), frozen.softmax(-1))


def test_neighbours_do_not_matter(world: tuple[Any, Any]) -> None:
    rows = [("forget", QUERY, "the secret is apple"), ("forget", "blue three", "plum")]
    whole = _rollouts(world[1], rows)
    frozen = _frozen(world[1], whole)
    alone = _anchored(world, _rollouts(world[1], rows[1:]), frozen[5:])
    torch.testing.assert_close(_anchored(world, whole, frozen)[5:], alone)
