"""Knowledge left, damage and intervals, worked out by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from dareu.errors import DataError
from dareu.evaluation.beside import compare_models, seed_spread
from dareu.evaluation.knowledge import damage, knowledge_left, worst
from dareu.evaluation.metrics.base import Metric, each
from dareu.evaluation.metrics.compute import compute_metrics
from dareu.evaluation.metrics.intervals import auc_draws, mean_interval, percentiles, wilson
from dareu.evaluation.metrics.registry import metrics_of

ANSWERS = {1.0: "one two three four", 0.5: "one two", 0.25: "one", 0.0: "nothing"}


def records(scores: list[float], of: str = "forget") -> list[dict[str, Any]]:
    """Answers whose ROUGE-L recall is `scores`."""
    return [
        {"set": of, "index": i, "prompt": f"what {i}?", "reference": ANSWERS[1.0], "response": ANSWERS[score]}
        | {"finished": True}
        for i, score in enumerate(scores)
    ]


SCORE = Metric("score", each(lambda x: x, "x"), needs=("x",), knowledge=True)


def scored(values: list[float | None]) -> list[dict[str, Any]]:
    return [{"set": "forget", "index": i, "x": value} for i, value in enumerate(values)]


def test_knowledge_left_by_hand() -> None:
    # o = 1, r = 0, u = 4 / 8
    left = knowledge_left(
        {
            "original": scored([1.0] * 8),
            "retrained": scored([0.0] * 8),
            "unlearned": scored([1.0, 1.0, 0.0, 0.0] * 2),
        },
        [SCORE],
    )["score"]
    assert (left["value"], left["n"]) == (0.5, 8)
    assert 0.0 < left["low"] < 0.5 < left["high"] < 1.0
    # o = .9, r = .5, u = .3: gone too far by half of what separates them
    far = knowledge_left(
        {
            name: scored([value] * 9)
            for name, value in (("original", 0.9), ("retrained", 0.5), ("unlearned", 0.3))
        },
        [SCORE],
    )["score"]
    assert far["value"] == pytest.approx(-0.5)
    # every sample alike: resampling would give −.5 to −.5, which is no interval
    assert (far["low"], far["high"]) == (None, None) and "same value" in far["reason"]


@pytest.mark.parametrize(("unlearned", "k"), [("original", 1.0), ("retrained", 0.0)])
def test_the_two_ends(unlearned: str, k: float) -> None:
    models = {"original": scored([0.9, 0.8, 1.0, 0.7] * 2), "retrained": scored([0.1, 0.3] * 4)}
    left = knowledge_left(models | {"unlearned": models[unlearned]}, [SCORE])["score"]
    assert left["value"] == pytest.approx(k) == pytest.approx(left["low"]) == pytest.approx(left["high"])


def test_samples_without_a_value_in_one_model_do_not_count() -> None:
    left = knowledge_left(
        {
            "original": scored([1.0, 1.0, 1.0]),
            "retrained": scored([0.0, 0.0, None]),
            "unlearned": scored([0.5, 0.0, 1.0]),
        },
        [SCORE],
    )["score"]
    assert (left["value"], left["n"]) == (0.25, 2)
    # the range of two samples holds the median half of the time: that is no 95 % interval
    assert (left["low"], left["high"]) == (None, None) and "fewer than 6" in left["reason"]


def test_a_metric_that_cannot_tell_is_named_and_no_headline() -> None:
    models = {
        "original": scored([0.0, 1.0] * 4),
        "retrained": scored([1.0, 0.0] * 4),
        "unlearned": scored([1.0] * 8),
    }
    left = knowledge_left(models, [SCORE])
    assert left["score"]["value"] is None and "do not differ" in left["score"]["reason"]
    noisy = models | {"original": scored([0.0, 1.0] * 3 + [1.0, 1.0])}  # .625 beside .5
    left = knowledge_left(noisy, [SCORE])
    assert left["score"]["value"] is None and "covers 0" in left["score"]["reason"]
    assert worst(left) is None
    # between seeds the retrained model moves by .03: .125 is more than three times that
    assert knowledge_left(noisy, [SCORE], seed_sd={"score": 0.03})["score"]["value"] == pytest.approx(
        0.5 / 0.125
    )
    assert knowledge_left(noisy, [SCORE], seed_sd={"score": 0.05})["score"]["value"] is None


def test_the_spread_between_seeds_widens_the_interval() -> None:
    models = {
        name: scored([v] * 9) for name, v in (("original", 0.9), ("retrained", 0.5), ("unlearned", 0.5))
    }
    left = knowledge_left(models, [SCORE], seed_sd={"score": 0.04})["score"]
    assert left["value"] == 0.0
    # of k: about 1.96 · .04 / .4 to either side
    assert left["low"] == pytest.approx(-0.196, abs=0.04) and left["high"] == pytest.approx(0.196, abs=0.04)


def test_the_spread_of_retrained_seeds_by_hand() -> None:
    # means .5, .7, .6: sd .1
    models = [scored([0.4, 0.6]), scored([0.7, 0.7]), scored([0.2, 1.0])]
    assert seed_spread(models, [SCORE]) == {
        "score": {"mean": pytest.approx(0.6), "sd": pytest.approx(0.1), "n": 3}
    }
    assert seed_spread(models[:1], [SCORE]) == {}
    with pytest.raises(DataError, match="retrained 1 and the retrained 2"):
        seed_spread([scored([0.4, 0.6]), scored([0.7])], [SCORE])


def test_the_headline_is_the_largest_distance_from_the_retrained_model() -> None:
    assert worst({"a": {"value": 0.2}, "b": {"value": -0.4}, "c": {"value": None}}) == {
        "metric": "b",
        "value": -0.4,
    }


def test_a_metric_with_an_interval_wider_than_one_is_the_worst_only_where_no_other_tells() -> None:
    wide = {"value": 0.9, "low": 0.2, "high": 2.4}
    sure = {"value": 0.3, "low": 0.1, "high": 0.5}
    assert worst({"wide": wide, "sure": sure}) == {"metric": "sure", "value": 0.3}
    assert worst({"wide": wide}) == {"metric": "wide", "value": 0.9}
    assert worst({"few": {"value": 0.9, "low": None, "high": None}, "sure": sure}) == {
        "metric": "sure",
        "value": 0.3,
    }


def test_records_of_other_samples_are_refused_with_both_named() -> None:
    ours = records([1.0, 0.5])
    other = records([1.0, 0.5])
    other[1]["reference"] = "something else?"
    with pytest.raises(DataError, match="original.*retrained.*forget sample 1") as caught:
        knowledge_left({"original": ours, "retrained": other, "unlearned": ours}, metrics_of("fast"))
    assert "something else?" in caught.value.cause
    with pytest.raises(DataError, match="3 and 2 samples|2 and 3 samples"):
        knowledge_left(
            {"original": records([1.0] * 3), "retrained": ours, "unlearned": ours}, metrics_of("fast")
        )


def test_damage_by_hand() -> None:
    # right in the retrained model: 0, 1, 2; in the unlearned one: 0 and 3; lost: 1 and 2 of four
    lost = damage(
        records([1.0, 1.0, 1.0, 0.5], "retain"),
        records([1.0, 0.5, 0.0, 1.0], "retain"),
        metrics_of("fast"),
        "retain",
    )
    assert lost is not None
    assert (lost["value"], lost["n"], lost["right_retrained"], lost["right_unlearned"]) == (0.5, 4, 0.75, 0.5)
    assert (lost["low"], lost["high"]) == (None, None) and "fewer than 6" in lost["reason"]
    none = damage(
        records([1.0] * 100, "retain"), records([1.0] * 100, "retain"), metrics_of("fast"), "retain"
    )
    # 0 of 100: Wilson's upper end is z² / (n + z²) = 3.8415 / 103.8415
    assert none is not None and (none["value"], none["low"]) == (0.0, 0.0)
    assert none["high"] == pytest.approx(0.036994, abs=1e-6)
    assert lost["metrics"]["rouge_l"] == pytest.approx((3.5 - 2.5) / 4)
    assert lost["metrics"]["exact"] == pytest.approx(0.25)
    assert damage([], [], [], "test") is None


def test_where_nothing_is_right_nothing_can_be_lost() -> None:
    wrong, gone = records([0.5] * 8, "test"), records([0.0] * 8, "test")
    found = damage(wrong, gone, metrics_of("fast"), "test", wrong)
    assert found is not None and (found["value"], found["low"], found["right_retrained"]) == (None, None, 0.0)
    assert "beyond_original" not in found and found["metrics"]["rouge_l"] == pytest.approx(0.5)
    models = dict.fromkeys(("original", "retrained"), wrong) | {"unlearned": gone}
    summaries = {name: compute_metrics(rows, metrics_of("fast")) for name, rows in models.items()}
    assert "none can be lost" in compare_models(models, summaries)["missing"]["damage.test"]


def test_damage_beyond_the_originals_own() -> None:
    """Of 8 answers the retrained model has 7 right; the unlearned one lacks 4, the original 2, one in common."""
    retrained = records([1.0] * 7 + [0.0], "test")
    unlearned = records([0.0] * 4 + [1.0] * 4, "test")
    original = records([0.5, 1.0, 1.0, 1.0, 0.25, 1.0, 1.0, 1.0], "test")
    found = damage(retrained, unlearned, [], "test", original)
    assert found is not None
    assert (found["value"], found["original"]["value"], found["right_original"]) == (0.5, 0.25, 0.75)
    assert found["beyond_original"]["value"] == 0.25  # 3 lost here alone, 1 there alone
    # 3.5 and 1.5 of 10: .2 ± 1.96 √(5 − .4) / 10
    low, high = found["beyond_original"]["low"], found["beyond_original"]["high"]
    assert (low, high) == pytest.approx((0.2 - 0.42037, 0.2 + 0.42037), abs=1e-4)
    same = damage(retrained, original, [], "test", original)
    assert same is not None and same["beyond_original"]["value"] == 0.0
    assert -same["beyond_original"]["low"] == pytest.approx(same["beyond_original"]["high"])  # equal models
    assert same["beyond_original"]["high"] == pytest.approx(1.96 / 10, abs=1e-4)
    few = damage(retrained[:5], unlearned[:5], [], "test", original[:5])
    assert few is not None and few["beyond_original"]["low"] is None
    assert "original" not in (damage(retrained, unlearned, [], "test") or {})
    whole = damage(retrained, unlearned, [], "test", records([1.0] * 8, "test"))
    assert whole is not None and whole["beyond_original"]["value"] == 0.5


def test_intervals_are_seeded_hold_the_mean_and_shrink_with_n() -> None:
    values = [0.0, 1.0, 0.5, 0.25, 1.0, 0.75]
    low, high = interval(values)
    assert interval(values) == (low, high)
    assert low < np.mean(values) < high
    more_low, more_high = interval(values * 16)
    assert more_high - more_low == pytest.approx((high - low) / 4, rel=0.25)  # √16 times narrower
    with pytest.raises(ValueError):
        mean_interval([])


def test_no_interval_has_width_zero() -> None:
    assert "fewer than 6 samples" in str(mean_interval([0.1, 0.9, 0.3, 0.4, 0.5]))
    assert "fewer than 6 held-out samples" in str(mean_interval([0.1, 0.9, 0.3, 0.4, 0.5, 0.6], [0.5] * 5))
    assert "same value" in str(mean_interval([0.4] * 50))
    # shares: Wilson. 1 of 10: (.1 + z²/20 ∓ z √(.009 + z²/400)) / (1 + z²/10)
    assert interval([1.0] + [0.0] * 9) == pytest.approx((0.0179, 0.4042), abs=1e-4)
    assert interval([1.0] * 8) == wilson(1.0, 8) and wilson(1.0, 8)[1] == 1.0
    # nothing comes out of 100 answers, neither from the retrained nor from the unlearned model
    models = {"original": scored([1.0] * 99 + [0.0]), "retrained": scored([0.0] * 100)}
    left = knowledge_left(models | {"unlearned": scored([0.0] * 100)}, [SCORE])["score"]
    assert left["value"] == 0.0 and -0.05 < left["low"] < -0.005 < 0.005 < left["high"] < 0.05


def test_the_interval_of_an_auc_counts_both_samples() -> None:
    # forget scores 1 … 40 against held-out scores 10.5, 30.5: 30 and 10 of 40 lie above, the AUC is .5
    forget = np.array([0.0] * 10 + [0.5] * 20 + [1.0] * 10)
    held = np.array([0.75, 0.25] * 10)
    low, high = percentiles(auc_draws(forget, held))
    one_low, one_high = interval(list(forget))
    # variances: .125 / 40 of the forget samples and .0625 / 20 of the held-out ones; both alike, so √2 times as wide
    assert (high - low) / (one_high - one_low) == pytest.approx(2**0.5, rel=0.15)
    rows = [{"set": "forget", "index": i, "mia_loss": float(i)} for i in range(1, 41)]
    holdout = [{"set": "holdout", "index": i, "mia_loss": 10.5 + 20 * (i % 2)} for i in range(20)]
    attack = [m for m in metrics_of("fast") if m.name == "membership_loss"]
    found = compute_metrics([*rows, *holdout], attack, {"holdout": holdout})
    entry = found["intervals"]["membership"]["loss"]
    assert (entry["low"], entry["high"]) == pytest.approx((low, high))
    assert (
        "fewer than 6"
        in compute_metrics(rows, attack, {"holdout": holdout[:4]})["intervals"]["membership"]["loss"][
            "reason"
        ]
    )


def interval(values: list[float]) -> tuple[float, float]:
    found = mean_interval(values)
    assert not isinstance(found, str)
    return found


def test_models_beside_each_other() -> None:
    scores = {"original": [1.0] * 6, "retrained": [0.25] * 6, "unlearned": [0.5] * 6}
    models = {name: records(s) + records([1.0] * 5, "retain") for name, s in scores.items()}
    models["unlearned"][0]["response"] = "one two zwo"
    models["unlearned"][1]["response"] = "one two 1999"
    summaries = {name: compute_metrics(rows, metrics_of("fast")) for name, rows in models.items()}
    result = compare_models(models, summaries, texts=[ANSWERS[1.0], "what is it?"])
    assert result["knowledge_left"]["rouge_l"]["value"] == pytest.approx((0.5 - 0.25) / 0.75)
    assert result["knowledge_left_worst"]["metric"] in result["knowledge_left"]
    assert result["damage"]["retain"]["value"] == 0.0
    assert "damage.test" in result["missing"]
    models["retrained"][3]["response"] += " drei"
    again = compare_models(models, summaries, texts=[ANSWERS[1.0], "what is it?"])
    assert summaries["retrained"]["text_health"]["new_words"] == pytest.approx(1 / 6)
    # no other model says "drei": another retrained model with such a word would be no worse
    assert summaries["retrained"]["text_health"]["broken"] == pytest.approx(1 / 6)
    assert again["damage"] == result["damage"] and models["retrained"][3]["broken_words"] == ["drei"]
    # "zwo" stands nowhere; a number may be anything
    assert summaries["unlearned"]["text_health"]["broken"] == pytest.approx(1 / 6)
    assert models["unlearned"][0]["broken_words"] == ["zwo"]
    assert summaries["unlearned"]["text_health"]["fluency"] < 0
    assert "text_health.broken" not in summaries["unlearned"]["missing"]


@pytest.mark.parametrize(
    ("judge", "found"), [("retrained", {"original": 0.5, "unlearned": 0.5, "retrained": 0.0}),
                         (None, {"original": 0.0, "unlearned": 0.5})],
)  # fmt: skip
def test_whose_words_are_known(judge: str | None, found: dict[str, float]) -> None:
    """Half of the original's answers have "zwo", half of the unlearned model's "zwo", half "drei"."""
    models = {name: records([1.0] * 6) for name in found}
    for row in (*models["original"][:3], *models["unlearned"][:3]):
        row["response"] += " zwo"
    for row in models["unlearned"][3:]:
        row["response"] += " drei"
    summaries = {name: compute_metrics(rows, metrics_of("fast")) for name, rows in models.items()}
    compare_models(models, summaries, texts=[ANSWERS[1.0], "what is it?"])
    assert {name: summary["text_health"]["broken"] for name, summary in summaries.items()} == found


def test_without_a_retrained_model_the_gap_is_named() -> None:
    rows = records([1.0, 0.5])
    result = compare_models({"unlearned": rows}, {"unlearned": compute_metrics(rows, metrics_of("fast"))})
    assert result["knowledge_left"] == {} and result["knowledge_left_worst"] is None
    assert "retrained" in result["missing"]["knowledge_left"]


def test_the_mean_log_of_truth_ratios_sees_what_the_folded_ratio_hides() -> None:
    """ln R of −2 in the original, −1 and 1 in turn in the retrained, −1 in the unlearned model.

    min(R, 1/R) is e^−1 in all answers of the last two: k = 0. Mean ln R is 0 and −1: k = (−1 − 0) / (−2 − 0).
    """
    logs = {"original": [-2.0] * 8, "retrained": [-1.0, 1.0] * 4, "unlearned": [-1.0] * 8}
    models = {
        name: [
            row | {"paraphrased_nll": 3.0 + log, "wrong_nlls": [2.0, 4.0]}
            for row, log in zip(records([1.0] * 8), values, strict=True)
        ]
        for name, values in logs.items()
    }
    inputs = {"truth_ratio_mean": "geometric"}
    summaries = {name: compute_metrics(rows, metrics_of("fast"), inputs) for name, rows in models.items()}
    assert summaries["unlearned"]["forget"]["truth_ratio_log"] == pytest.approx(-1.0)
    assert "truth_ratio_log" not in summaries["unlearned"]["retain"]
    found = compare_models(models, summaries, inputs=inputs)
    left = found["knowledge_left"]
    assert left["truth_ratio"]["value"] == pytest.approx(0.0)
    assert left["truth_ratio_log"]["value"] == pytest.approx(0.5) and left["truth_ratio_log"]["low"] > 0
    # half of the retrained model's ratios lie above all of the unlearned one's
    assert found["forget_quality"]["statistic"] == pytest.approx(0.5)


def test_what_the_original_says_of_samples_that_no_model_saw() -> None:
    """Probabilities .5 and .1 on the holdout; two wrong answers twice as likely as the paraphrase give R = 2, so ½."""
    half, tenth = -math.log(0.5), -math.log(0.1)
    likelihoods = {"nll": half, "paraphrased_nll": half, "wrong_nlls": [half - math.log(2)] * 2}
    unseen = [
        {"set": "holdout", "index": i, "prompt": "?", "reference": "x", "response": None, **likelihoods}
        for i in range(2)
    ]
    unseen[1]["nll"] = tenth
    original, unlearned = records([1.0, 1.0]) + unseen, records([0.5, 0.5])
    models = {"original": original, "unlearned": unlearned}
    summaries = {name: compute_metrics(rows, metrics_of("fast")) for name, rows in models.items()}
    inputs = {"truth_ratio_mean": "geometric"}
    found = compare_models(models, summaries, inputs=inputs)["never_saw"]
    assert found["probability"]["value"] == pytest.approx(0.3) and found["probability"]["n"] == 2
    assert found["probability"]["low"] is None and "fewer than 6" in found["probability"]["reason"]
    assert found["truth_ratio"]["value"] == pytest.approx(0.5)
    assert "rouge_l" not in found and "membership_loss" not in found
    with_retrained = compare_models(
        models | {"retrained": unlearned}, summaries | {"retrained": summaries["unlearned"]}
    )
    assert "never_saw" not in with_retrained
    assert "never_saw" not in compare_models({"unlearned": unlearned}, summaries)
