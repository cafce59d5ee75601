"""Scores of one answer, worked out by hand, and the statistics that they are made of."""

from __future__ import annotations

import math
import zlib
from functools import partial
from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch
from models_fixture import make_folder

from dareu.data.render import Encoded
from dareu.evaluation.metrics.model_rows import best_of_k
from dareu.evaluation.model_metrics.token_scores import (
    exact_memorisation,
    extraction_strength,
    lowest_mean,
    min_k_plus,
    token_scores,
)
from dareu.models import logprobs
from dareu.models.load import load_model
from dareu.models.logprobs import TokenStatistics, response_nll, token_statistics


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    return load_model(make_folder(tmp_path_factory.mktemp("model")))


PAIRS = [
    Encoded(list(range(5, 5 + n)), [*range(40, 40 + m), 1])
    for n, m in ((1, 9), (7, 1), (3, 4), (4, 0), (2, 6))
]


def test_extraction_strength_by_hand() -> None:
    assert extraction_strength("1111") == 1.0
    assert extraction_strength("0111") == 0.75
    assert extraction_strength("10101111") == 0.5  # the fourth of eight is the last one missed
    assert extraction_strength("1110") == 0.0
    assert extraction_strength("") is None
    assert exact_memorisation("1010") == 0.5
    assert exact_memorisation("") is None


def test_min_k_by_hand() -> None:
    values = np.array([-1.0, -5.0, -2.0, -3.0, -4.0])
    assert lowest_mean(values, 0.2) == -5.0
    assert lowest_mean(values, 0.4) == -4.5
    assert lowest_mean(values, 0.01) == -5.0  # at least one token
    assert lowest_mean(values, 1.0) == -3.0
    # (−1 + 2)/1, (−5 + 3)/2, (−2 + 2)/1: the two lowest are −1 and 0
    assert min_k_plus(values[:3], np.array([-2.0, -3.0, -2.0]), np.array([1.0, 2.0, 1.0]), 0.7) == -0.5


def test_scores_of_an_answer_leave_out_end_of_text_but_in_the_probability() -> None:
    statistics = TokenStatistics(
        np.log([0.5, 0.25, 0.125]), np.array([True, True, False]), np.full(3, -1.0), np.full(3, 2.0)
    )
    scores = token_scores(statistics, "Rome")
    assert scores["nll"] == pytest.approx(2 * math.log(2))  # (1 + 2 + 3)/3 bits
    assert scores["mia_loss"] == pytest.approx(-1.5 * math.log(2))
    assert scores["mia_zlib"] == pytest.approx(-1.5 * math.log(2) / len(zlib.compress(b"Rome")))
    assert scores["mia_min_k_20"] == pytest.approx(math.log(0.25))
    assert scores["mia_min_k_plus_20"] == pytest.approx((math.log(0.25) + 1) / 2)
    empty = token_scores(TokenStatistics(*(part[-1:] for part in statistics)), "")
    assert empty["mia_loss"] is empty["mia_min_k_20"] is None


def test_statistics_are_those_of_the_distribution(tiny: tuple[Any, Any]) -> None:
    model, tokenizer = tiny
    found = token_statistics(model, tokenizer, PAIRS, batch_size=3)
    for pair, one in zip(PAIRS, found, strict=True):
        with torch.no_grad():
            logits = model(torch.tensor([pair.prompt_ids + pair.response_ids])).logits[0].double()
        rows = logits.log_softmax(-1)[len(pair.prompt_ids) - 1 : -1].numpy()
        p = np.exp(rows)
        mean = (p * rows).sum(-1)
        assert one.logps == pytest.approx(rows[np.arange(len(rows)), pair.response_ids], abs=1e-4)
        assert one.hits.tolist() == (rows.argmax(-1) == np.array(pair.response_ids)).tolist()
        assert one.mean == pytest.approx(mean, abs=1e-4)
        assert one.std == pytest.approx(np.sqrt((p * (rows - mean[:, None]) ** 2).sum(-1)), abs=1e-3)


def test_batch_size_order_and_logit_limit_change_nothing(
    tiny: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = token_statistics(*tiny, PAIRS, batch_size=8)
    for other in (
        token_statistics(*tiny, PAIRS, batch_size=1),
        token_statistics(*tiny, PAIRS[::-1], batch_size=2)[::-1],
    ):
        for a, b in zip(whole, other, strict=True):
            for x, y in zip(a, b, strict=True):
                assert np.asarray(x, float) == pytest.approx(np.asarray(y, float), abs=1e-4)
    widths: list[int] = []
    real = logprobs.to_batch
    monkeypatch.setattr(logprobs, "LOGITS", 2 * 10 * len(tiny[1]))
    monkeypatch.setattr(logprobs, "to_batch", lambda rows, *a: widths.append(len(rows)) or real(rows, *a))
    token_statistics(*tiny, PAIRS, batch_size=8)
    assert widths == [2, 2, 1]
    assert token_statistics(*tiny, [], batch_size=8) == []


def test_left_and_right_padding_give_one_answer(
    tiny: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    right = token_statistics(*tiny, PAIRS, batch_size=8)

    monkeypatch.setattr(logprobs, "to_batch", partial(logprobs.to_batch, side="left"))
    for a, b in zip(right, token_statistics(*tiny, PAIRS, batch_size=8), strict=True):
        assert a.logps == pytest.approx(b.logps, abs=1e-4) and a.std == pytest.approx(b.std, abs=1e-3)


def test_sums_are_those_of_response_nll(tiny: tuple[Any, Any]) -> None:
    sums = response_nll(*tiny, PAIRS, batch_size=2)
    for one, (total, count) in zip(token_statistics(*tiny, PAIRS, batch_size=5), sums, strict=True):
        assert -float(one.logps.sum()) == pytest.approx(total, rel=1e-4) and len(one.logps) == count


def test_best_of_k_is_the_mean_over_all_subsets() -> None:
    scores = [0.1, 0.9, 0.4, 0.4, 0.0]
    for k in range(1, 6):
        subsets = [max(s) for s in combinations(scores, k)]
        assert best_of_k(scores, k) == pytest.approx(sum(subsets) / len(subsets))
    assert best_of_k([0, 0, 1, 0], 2) == pytest.approx(1 - 3 / 6)  # C(3, 2) of C(4, 2) pairs hold no one
    with pytest.raises(ValueError, match="best of 6"):
        best_of_k(scores, 6)
