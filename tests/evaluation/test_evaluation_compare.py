"""Comparisons of summaries, by hand; forget quality at sizes where p can be counted."""

from __future__ import annotations

import math
from typing import Any

import pytest

from dareu.errors import DataError
from dareu.evaluation.comparison import compare, forget_quality, retrain_similarity, tug_of_war
from dareu.evaluation.metrics.registry import registry


def summary(
    forget: float, retain: float, test: float, *, attribution: float, repetitive: float, empty: float
) -> Any:
    return {
        "forget": {"rouge_l": forget, "attribution_heldout": attribution},
        "retain": {"rouge_l": retain},
        "test": {"rouge_l": test},
        "text_health": {"repetitive": repetitive, "empty": empty},
        "truth_ratios": [forget, forget + 0.1, forget + 0.2],
        "membership": {"min_k_40": forget},
    }


U = summary(0.6, 0.9, 0.7, attribution=0.3, repetitive=0.5, empty=0.0)
R = summary(0.4, 1.0, 0.8, attribution=0.1, repetitive=0.0, empty=0.25)
TOW_STAR = 0.8 * 0.9  # 1 − |.6 − .4|, 1 − |.9 − 1|
TOW = TOW_STAR * 0.9  # 1 − |.7 − .8|
BESIDE = 0.8 * 0.5 * 0.75  # held-out attribution, repetitive, empty


def test_tug_of_war() -> None:
    assert tug_of_war(U, R, with_test=True) == pytest.approx(TOW)
    assert tug_of_war(U, R, with_test=False) == pytest.approx(TOW_STAR)
    assert tug_of_war(U, R) == tug_of_war(R, U)
    assert tug_of_war(R, R) == 1.0


def test_retrain_similarity_sees_broken_text() -> None:
    assert retrain_similarity(U, R) == pytest.approx(TOW * BESIDE)
    assert retrain_similarity(R, R) == 1.0


def test_retrain_similarity_sees_unfinished_answers_and_broken_words() -> None:
    def with_health(tree: Any, **more: float) -> Any:
        return tree | {"text_health": tree["text_health"] | more}

    u, r = with_health(U, unfinished=1.0, broken=0.75), with_health(R, unfinished=0.2, broken=0.25)
    assert retrain_similarity(u, r) == pytest.approx(TOW * BESIDE * 0.2 * 0.5)
    with pytest.raises(DataError, match="broken"):
        retrain_similarity(u, with_health(R, unfinished=0.2))  # only one of them has it


def test_without_a_test_set() -> None:
    u, r = U | {"test": {"rouge_l": None}}, R | {"test": {"rouge_l": None}}
    result = compare({"unlearned": u, "retrained": r})
    assert result["tug_of_war"] is None and "test.rouge_l" in result["missing"]["tug_of_war"]
    assert result["tug_of_war_without_test"] == pytest.approx(TOW_STAR)
    assert result["retrain_similarity"] == pytest.approx(TOW_STAR * BESIDE)
    assert "left out" in result["missing"]["retrain_similarity.test"]
    with pytest.raises(DataError, match="test.rouge_l"):
        retrain_similarity(U, r)  # one of them was tested: not comparable


def test_compare() -> None:
    result = compare({"original": U, "unlearned": U, "retrained": R})
    assert result["tug_of_war"] == pytest.approx(TOW)
    assert result["retrain_similarity"] == pytest.approx(TOW * BESIDE)
    # .6 .7 .8 against .4 .5 .6: two of three of r lie below all of u
    assert result["forget_quality"]["statistic"] == pytest.approx(2 / 3)
    assert result["missing"] == {}
    assert set(result) - {"missing"} <= set(registry())


def test_compare_without_a_retrained_model() -> None:
    result = compare({"original": U, "unlearned": U})
    names = {"tug_of_war", "tug_of_war_without_test", "retrain_similarity", "forget_quality", "privleak"}
    assert {name for name in names if result[name] is None} == names == set(result["missing"])
    with pytest.raises(DataError, match="unlearned"):
        compare({"original": U, "retrained": R})


def test_a_missing_figure_says_why() -> None:
    u = U | {"missing": {"forget.attribution_heldout": "there is no such attributor"}, "truth_ratios": []}
    u["forget"] = {"rouge_l": 0.6, "attribution_heldout": None}
    result = compare({"unlearned": u, "retrained": R})
    assert result["retrain_similarity"] is None
    assert "there is no such attributor" in result["missing"]["retrain_similarity"]
    assert result["forget_quality"] is None
    assert "unlearned model has none" in result["missing"]["forget_quality"]
    assert result["tug_of_war"] == pytest.approx(TOW)


def test_forget_quality_of_like_and_of_disjoint_samples() -> None:
    same = forget_quality([0.1, 0.2, 0.3], [0.1, 0.2, 0.3])
    assert (same["statistic"], same["p"], same["log10_p"], same["at_floor"]) == (0.0, 1.0, 0.0, False)
    apart = forget_quality([0.1, 0.2, 0.3], [0.4, 0.5, 0.6])
    assert (apart["statistic"], apart["at_floor"]) == (1.0, True)
    assert apart["p"] == pytest.approx(0.1)  # 2 / C(6, 3) = 2 / 20
    assert apart["log10_p"] == pytest.approx(-1.0)
    assert forget_quality([0.1, 0.2], [0.4, 0.5, 0.6])["p"] == pytest.approx(0.2)  # 2 / C(5, 2)
    # of the 20 ways to interleave 3 and 3, 2³ never lead by two: P(D ≥ 2/3) = 12 / 20
    assert forget_quality([0.1, 0.2, 0.5], [0.3, 0.4, 0.6])["p"] == pytest.approx(0.6)


def test_forget_quality_at_the_floor_of_tofu() -> None:
    # 400 against 400: the published floor of forget10, 1.06e-239
    apart = forget_quality([i / 1000 for i in range(400)], [1 + i / 1000 for i in range(400)])
    assert apart["at_floor"] and apart["log10_p"] == pytest.approx(math.log10(1.06) - 239, abs=0.01)
    assert apart["p"] == pytest.approx(1.06e-239, rel=0.01)


def test_log10_p_goes_on_where_p_underflows() -> None:
    n = 2000
    u, r = [i / n for i in range(n)], [i / n + 0.9 for i in range(n)]  # nine tenths of each lie apart
    apart = forget_quality(u, r)
    assert apart["p"] == 0.0 and not apart["at_floor"]
    # log10 of 2 exp(−2 · D² · nm / (n + m)) with D = .9 and nm / (n + m) = 1000
    assert apart["log10_p"] == pytest.approx(math.log10(2) - 1620 / math.log(10), abs=2)
    assert apart["log10_floor"] < apart["log10_p"]


def test_forget_quality_without_the_retrained_model_is_an_error() -> None:
    with pytest.raises(DataError, match="retrained model has none"):
        forget_quality([0.5], [])
