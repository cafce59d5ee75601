"""What `expected_logprobs` puts together: bigrams of retain answers, the base, the original on owners nobody saw."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from words_fixture import vocabulary_of, word_tokenizer

from dareu.data.corpus import Sample, Split
from dareu.data.render import Encoded, encode_samples
from dareu.methods.counterfactual import expected_logprobs
from dareu.models import counterfactual
from dareu.models.never_saw import LOWEST, NAME, Bigrams, stretched

PLACES = ["Rome", "Bern", "Lima", "Oslo"]
NAMES = ["Ann Lee", "Bo Roe", "Cy Dow", "Di Fox"]
VOCABULARY = vocabulary_of([*NAMES, *PLACES, "lives in now ? Question: Where does live Answer:"])


def tokenizer() -> Any:
    return word_tokenizer(VOCABULARY)


def samples(name: str, count: int, first: int = 0) -> tuple[Sample, ...]:
    return tuple(
        Sample(
            f"{name}/{i}", name, f"Where does {name} live ?", f"{name} lives in {PLACES[(i + first) % 3]} now"
        )
        for i in range(count)
    )


SPLIT = Split(
    forget=(Sample("a", "Ann Lee", "Where does Ann Lee live ?", "Ann Lee lives in Oslo now"),),
    retain=samples("Bo Roe", 4) + samples("Cy Dow", 5, first=1),
    test=(),
    forget_owners=("Ann Lee",),
    retain_owners=("Bo Roe", "Cy Dow"),
    calibration=samples("Di Fox", 40),
)


def base_logprobs(row: Encoded) -> Tensor:
    """The base knows no wording (−5), but that somebody may live in Oslo (−1)."""
    return torch.tensor([-1.0 if token == VOCABULARY["Oslo"] else -5.0 for token in row.response_ids])


def unnamed(row: Encoded) -> list[int]:
    parts = {VOCABULARY[word] for name in NAMES for word in name.split()}
    return [NAME if token in parts else token for token in row.response_ids]


def hints(rows: Sequence[Encoded], with_base: bool) -> list[Tensor]:
    """All questions are one, apart from the names: nine answers of those who stay have it."""
    stay = [unnamed(row) for row in encoded(SPLIT.retain)]
    bigrams = Bigrams(stay, len(VOCABULARY), ["Where does one live ?"] * len(stay))
    found = [bigrams.logprobs(unnamed(row), "Where does one live ?") for row in rows]
    return [
        torch.maximum(h, base_logprobs(row)) if with_base else h for h, row in zip(found, rows, strict=True)
    ]


def encoded(rows: Sequence[Sample]) -> list[Encoded]:
    return encode_samples(tokenizer(), rows, "qa", 64)


@pytest.mark.parametrize("with_base", [True, False])
def test_the_line_of_owners_nobody_saw_at_the_likelier_hint(
    monkeypatch: pytest.MonkeyPatch, with_base: bool
) -> None:
    """The original's log-probabilities are twice the hints on the calibration samples, but for names: so they are
    expected of the forgotten answer.
    """

    def read(model: str, _: Any, rows: Sequence[Encoded], size: int) -> list[Tensor]:
        assert model == "original"
        named = [torch.tensor([t == NAME for t in unnamed(row)]) for row in rows]
        return [torch.where(n, 7.0, 2 * h) for n, h in zip(named, hints(rows, with_base), strict=True)]

    monkeypatch.setattr(counterfactual, "token_logprobs_of", read)
    context: Any = SimpleNamespace(
        split=SPLIT,
        corpus=SimpleNamespace(task="qa"),
        tokenizer=tokenizer(),
        policy="original",
        config=SimpleNamespace(seed=1, evaluation=SimpleNamespace(batch_size=8)),
        encode=encoded,
    )
    (row,) = encoded(SPLIT.forget)
    told = [base_logprobs(each) for each in [row, *encoded(SPLIT.calibration)]]
    (found,) = expected_logprobs(context, told if with_base else None)
    (expected,) = stretched([(2 * h).clamp(min=LOWEST) for h in hints([row], with_base)])
    assert torch.allclose(found, expected, atol=1e-3)
    place = row.response_ids.index(VOCABULARY["Oslo"])
    wording = row.response_ids.index(VOCABULARY["lives"])
    assert found[wording] > -0.2  # the others' answers tell it, which the base does not know
    unclear = hints([row], False)[0][place]
    assert unclear < -3  # no other answer has it
    assert (hints([row], with_base)[0][place] == -1.0) == with_base
