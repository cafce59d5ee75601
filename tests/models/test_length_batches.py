"""Batches of likelihoods: no more rows, tokens and logits than allowed."""

from typing import Any

import pytest
import torch

from dareu.data.render import Encoded
from dareu.models import logprobs
from dareu.models.logprobs import by_batches, length_batches, rows_that_fit


def pair(prompt: int, response: int) -> Encoded:
    return Encoded([1] * prompt, [2] * response)


def test_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logprobs, "TOKENS", 24)
    monkeypatch.setattr(logprobs, "LOGITS", 100)
    pairs = [pair(1, 1), pair(6, 2), pair(1, 4), pair(2, 2), pair(5, 1)]  # 2, 8, 5, 4 and 6 tokens
    # 24 // 8 = 3 rows; then 24 // 4 = 6, of which two are left.
    assert length_batches(pairs, 8, 5) == [[1, 4, 2], [3, 0]]
    assert length_batches(pairs, 2, 5) == [[1, 4], [2, 3], [0]]
    # Responses of 4 tokens and 20 words: 100 // 80 = 1 row; of 2 tokens 100 // 40 = 2.
    assert length_batches(pairs, 8, 20) == [[1], [4], [2], [3, 0]]
    assert length_batches([], 8, 20) == []


def test_a_row_that_is_too_long_stands_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logprobs, "TOKENS", 4)
    assert rows_that_fit([pair(3, 9)], 8, 10**9) == 1
    assert length_batches([pair(3, 9), pair(3, 9)], 8, 5) == [[0], [1]]


class Model(torch.nn.Module):
    device = "cpu"


def test_batches_of_like_length_give_their_rows_in_the_order_given() -> None:
    widths: list[int] = []

    def read(model: Any, batch: dict[str, torch.Tensor]) -> list[torch.Tensor]:
        widths.append(batch["input_ids"].shape[1])
        return list(batch["attention_mask"].sum(1))

    rows = [Encoded([1] * n, [2]) for n in (3, 30, 4, 31)]
    found = by_batches(Model(), 0, rows, 2, read)
    assert [int(one) for one in found] == [4, 31, 5, 32]
    assert widths == [32, 5]  # in the order given, both would be as wide as the longer rows
