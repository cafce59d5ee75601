"""The sentences of the verdict: what each finding says, and which of them makes the headline."""

from __future__ import annotations

from typing import Any

import pytest
from report_fixture import changed, left, lost

from dareu.evaluation.knowledge import worst as worst_of
from dareu.report.knowledge import knowledge_left, set_aside
from dareu.report.run_tables import summary_lines
from dareu.report.verdict import verdict


@pytest.mark.parametrize(
    ("change", "tone", "words"),
    [
        ({}, "good", "No difference"),
        ({"health": {"repetitive": 0.15}}, "bad", "broken text"),  # 6 of 40 against 0: more than chance
        ({"health": {"repetitive": 0.05}}, "good", "No difference"),  # 2 of 40 against 0
        ({"retain": 0.8}, "bad", "It forgot, but lost .198 of ROUGE-L on retain questions."),  # .998 − .8
        ({"test": 0.9}, "fair", "It forgot, and lost .088 of ROUGE-L on test questions."),
        ({"reattribution": 0.5}, "fair", "other owners"),
        ({"forget": 0.3, "retain": 0.5, "health": {"empty": 0.9}}, "bad", "broken text"),
    ],
)
def test_verdict(change: dict[str, Any], tone: str, words: str) -> None:
    found = verdict(left(a=(0.02, -0.05, 0.09)) | {"models": changed(**change)["models"]})
    assert (found.tone, words in found.headline) == (tone, True), found.headline


def test_verdict_names_the_figures() -> None:
    texts = [p.text for p in verdict(changed(health={"empty": 0.25, "unfinished": 0.5})).points]
    assert "Broken forget answers: 25% empty (retrained 0%), 50% unfinished (retrained 0%)." in texts
    assert (
        "Retain questions: ROUGE-L .990 (retrained 1.000, original .998) (n = 360). The loss seen is not above .05."
        in texts
    )


@pytest.mark.parametrize(
    ("results", "tone", "words"),
    [
        (left(a=(0.02, -0.05, 0.09)), "good", "No difference from the retrained model was seen"),
        (left(a=(-0.08, -0.11, -0.05)), "fair", "It forgot more than retraining would"),
        (left(a=(0.1, 0.02, 0.2)), "fair", "traces are left"),
        (left(a=(0.1, 0.02, 0.2), b=(0.3, 0.1, 0.5)), "fair", "only in part"),
        (left(a=(0.0, -0.1, 0.1), b=(0.7, 0.5, 0.9)), "bad", "has not forgotten"),
        (left(a=(0.6, -0.1, 0.8)), "good", "No difference"),  # the interval covers 0: nothing was seen
        (
            left(a=(0.6, -0.1, 1.3)),
            "none",
            "cannot be told",
        ),  # wider than from the retrained model to the original
        (left(a=(0.6, -0.1, 1.3), b=(0.0, -0.1, 0.1)), "good", "No difference"),
        (left(a=(-0.4, -0.6, -0.2)), "fair", "more than retraining"),
    ],
)
def test_the_headline_follows_the_intervals(results: dict[str, Any], tone: str, words: str) -> None:
    found = verdict(results)
    assert (found.tone, words in found.headline) == (tone, True), found.headline
    text = " ".join(p.text for p in found.points)
    assert "n = 40" in text and "knows as much" not in text and "Nothing was lost" not in text


def test_each_metric_stands_under_what_its_interval_says() -> None:
    results = left(exact=(0.3, 0.1, 0.5), rouge=(0.01, -0.1, 0.1), leak=(-0.3, -0.5, -0.1))
    texts = [p.text for p in verdict(results).points]
    assert "Knowledge left (the interval lies above 0): Exact answers .30 (.10 to .50)." in texts
    assert (
        "No difference from the retrained model seen (the interval covers 0): Rouge .01 (-.10 to .10)."
        in texts
    )
    assert any(t.startswith("Further from the original") and "Leak -.30" in t for t in texts)
    many = {f"leak_{i}": (0.0, -0.1 - i / 100, 0.1) for i in range(5)}
    short = "(the interval covers 0): 5 metrics, the widest interval by Leak 4 .00 (-.14 to .10)."
    assert any(p.text.endswith(short) for p in verdict(left(**many)).points)


def test_what_is_shown_as_zero_is_called_zero() -> None:
    results = left(a=(0.003, 0.001, 0.004), b=(-0.002, -0.004, -0.001))
    assert verdict(results).headline == "No difference from the retrained model was seen."


@pytest.mark.parametrize(
    ("metrics", "headline"),
    [
        (
            {"exact": (0.0, -0.1, 0.1), "leak_rouge": (-0.01, -0.1, 0.1), "membership_loss": (0.9, 0.8, 1.0)},
            "The forgotten data still shows in membership attacks (knowledge left .90), and no longer in answers.",
        ),
        (
            {"exact": (0.1, 0.05, 0.2), "probability": (0.6, 0.5, 0.7), "membership_loss": (0.9, 0.8, 1.0)},
            "The forgotten data still shows in membership attacks and likelihoods (knowledge left .90), "
            "but little in answers (.10).",
        ),
        (
            {"exact": (0.5, 0.4, 0.6), "membership_loss": (0.9, 0.8, 1.0)},
            "It has not forgotten: knowledge left .90 (.80 to 1.00) by membership, loss.",
        ),
        (
            {"exact": (0.3, 0.2, 0.4), "probability": (0.2, 0.1, 0.3)},
            "It has forgotten only in part: knowledge left .30 (.20 to .40) by exact answers.",
        ),
    ],
)
def test_the_headline_says_what_is_gone_and_what_tells(metrics: dict[str, Any], headline: str) -> None:
    assert verdict(left(**metrics)).headline == headline


def test_too_few_answers_give_no_verdict() -> None:
    few = left(exact=(0.4, None, None))  # type: ignore[arg-type]
    assert verdict(few).headline == "There are too few figures for a verdict."
    assert any(
        "too few forget answers" in p.text and ".40 (no interval)" in p.text for p in verdict(few).points
    )
    results = changed()
    results["models"]["unlearned"]["forget"]["n"] = 5
    assert "5 of them say too little" in verdict(results).points[0].text
    assert verdict(results).headline == "There are too few figures for a verdict."


def test_not_significant_is_not_not_seen() -> None:
    results = changed(health={"repetitive": 0.4, "empty": 0.0})
    results["models"]["unlearned"]["forget"]["n"] = 5
    texts = [p.text for p in verdict(results).points]
    # 2 of 5 against 0 of 5: the interval of the difference covers 0
    more = (
        "40% repetitive (retrained 0%): more than the retrained model's, and chance may explain it (n = 5)."
    )
    assert f"Broken forget answers: {more}" in texts
    assert not any("no larger share" in t and "repetitive" in t for t in texts)
    lost = left(a=(0.0, -0.1, 0.1)) | {"damage": {"retain": {"value": 0.1, "low": 0.0, "high": 0.3}}}
    told = next(p.text for p in verdict(lost).points if p.text.startswith("Retain"))
    assert told.endswith("Right in the retrained model and wrong here: 10% (0% to 30%) of the answers.")
    lost["damage"]["retain"] |= {"value": 0.02, "high": 0.09}
    told = next(p.text for p in verdict(lost).points if p.text.startswith("Retain"))
    assert told.endswith("The loss seen is not above 5%, but so few answers do not exclude a larger one.")


def test_an_interval_that_is_wide_is_no_finding_of_no_difference() -> None:
    """Four answers: .1 (-.7 to .9). A tick stands beside what was narrow enough to be seen."""
    points = verdict(left(exact=(0.1, -0.7, 0.9), rouge=(0.0, -0.1, 0.1))).points
    tones = {point.text: point.tone for point in points}
    assert (
        tones["Nothing follows, for the interval is wider than 1: Exact answers .10 (-.70 to .90)."] == "none"
    )
    seen = "No difference from the retrained model seen (the interval covers 0): Rouge .00 (-.10 to .10)."
    assert tones[seen] == "good"
    assert (
        knowledge_left(left(exact=(0.1, -0.7, 0.9)))[0].said
        == "the interval is wider than 1, so nothing follows"
    )


@pytest.mark.parametrize("interval", [(0.0, None, None), (0.0, -0.6, 0.6), (None, None, None)])
def test_forget_quality_of_few_answers_is_no_verdict(interval: Any) -> None:
    """A test of four truth ratios against four sees no difference but the largest."""
    results = left(a=(0.02, -0.05, 0.09))
    results["knowledge_left"]["truth_ratio"] = dict(zip(("value", "low", "high"), interval, strict=True))
    results["models"]["unlearned"]["forget"]["n"] = 4
    told = next(p for p in verdict(results).points if p.text.startswith("Forget quality"))
    assert told.tone == "none" and "(n = 4). No difference seen, and nothing follows: " in told.text
    assert "seen, and nothing follows from so few answers." in " ".join(summary_lines(results))
    broken = next(p for p in verdict(results).points if p.text.startswith("Broken forget answers"))
    assert broken.tone == "none" and broken.text.endswith("(n = 4). Too few for a verdict.")
    results["forget_quality"] = {"statistic": 1.0, "p": 0.028, "log10_p": -1.55}  # what is seen is said
    assert any(p.kind == "unlike" for p in verdict(results).points)


def test_forget_quality_speaks_against_no_difference() -> None:
    results = left(a=(0.02, -0.05, 0.09), truth_ratio=(0.0, -0.1, 0.1))
    assert any(
        "p = .573" in p.text and p.text.endswith("(n = 40). No difference seen.")
        for p in verdict(results).points
    )
    results["forget_quality"] = {"statistic": 0.37, "p": 1.8e-6, "log10_p": -5.745}
    found = verdict(results)
    assert (found.tone, found.headline) == (
        "fair",
        "It forgot, but its truth ratios are unlike the retrained model's: p = 1.8e-06.",
    )
    assert "Forget quality p = 1.8e-06: truth ratios are unlike" in " ".join(summary_lines(results))
    # too small for a float
    results["forget_quality"] = {"statistic": 0.9, "p": 0.0, "log10_p": -340.2, "at_floor": True}
    assert verdict(results).headline.endswith("log10 p = -340.2.")
    # worse findings keep the headline
    results["models"]["unlearned"]["text_health"]["repetitive"] = 0.5
    assert "broken text" in verdict(results).headline


def test_several_retrained_models_are_counted() -> None:
    results = left(a=(0.02, -0.05, 0.09)) | {"retrained_seeds": {"a": {"mean": 0.5, "sd": 0.1, "n": 3}}}
    assert any("n = 40, 3 retrained seeds" in p.text for p in verdict(results).points)


def test_damage_is_told_with_its_share() -> None:
    results = left(a=(0.0, -0.1, 0.1)) | {"damage": {"retain": {"value": 0.09, "low": 0.06, "high": 0.13}}}
    found = verdict(results)
    assert found.headline == "It forgot, and lost 9% of the retain answers (6% to 13%)."
    assert any("right in the retrained model and wrong here: 9%" in p.text.casefold() for p in found.points)


@pytest.mark.parametrize(("lost", "right"), [(None, 0.0), (0.04, 0.05)])
def test_what_was_never_right_is_not_kept(lost: float | None, right: float) -> None:
    entry = {"value": lost, "low": 0.0, "high": 0.1, "right_retrained": right, "n": 40}
    results = left(a=(0.0, -0.1, 0.1)) | {"damage": {"test": entry}}
    told = next(p.text for p in verdict(results).points if p.text.startswith("Test"))
    assert f"The retrained model has {right:.0%} of them right word for word: it has little to lose." in told
    assert "not above 5%" not in told  # that were said of answers; ROUGE-L alone speaks


def test_broken_text_does_not_hide_what_is_known() -> None:
    results = left(a=(0.9, 0.7, 1.1)) | {"models": changed(health={"empty": 0.5})["models"]}
    assert verdict(results).headline.startswith(
        "Its answers to forget questions are broken text, and it has not forgotten: knowledge left .90 (.70 to 1.10) by"
    )


def test_a_loss_is_what_the_original_does_not_lack_too() -> None:
    most = verdict(lost(0.24, 0.13, 0.02, 0.2))
    assert (
        most.headline == "It forgot, and lost 24% of the test answers (14% to 34%; the original lacks 13%)."
    )
    text = next(p.text for p in most.points if p.text.startswith("Test"))
    assert "Of the original's own answers 13% (0% to 23%) are; the difference is 11% (2% to 20%)." in text
    assert verdict(lost(0.4, 0.1, 0.2, 0.4)).tone == "bad"  # .3 beyond the original
    same = verdict(lost(0.13, 0.13, -0.05, 0.05))
    assert same.headline == "No difference from the retrained model was seen."
    assert next(p for p in same.points if p.text.startswith("Test")).text.endswith(
        "The loss seen is not above 5%."
    )
    perhaps = verdict(lost(0.2, 0.1, -0.02, 0.22))
    assert perhaps.headline == "No difference from the retrained model was seen."
    told = next(p for p in perhaps.points if p.text.startswith("Test"))
    assert told.tone == "fair" and told.text.endswith("It may be chance.")


def test_what_the_original_does_not_answer_either_is_no_loss() -> None:
    results = changed(test=0.9)
    results["models"]["original"]["test"]["rouge_l"] = 0.9
    assert next(p for p in verdict(results).points if p.text.startswith("Test")).tone == "good"
    fell = lost(0.1, 0.1, -0.05, 0.05)  # no exact answer more is lost, but ROUGE-L falls from .988 to .8
    fell["models"]["unlearned"]["test"]["rouge_l"] = 0.8
    assert verdict(fell).headline == "It forgot, but lost .188 of ROUGE-L on test questions."


def test_a_part_that_is_left_is_not_called_forgotten() -> None:
    results = lost(0.4, 0.1, 0.2, 0.4) | {
        key: left(exact=(0.3, 0.1, 0.5))[key] for key in ("knowledge_left", "knowledge_left_worst")
    }
    assert verdict(results).headline.startswith("It has forgotten only in part, but lost 40% of the test")


def test_verdict_is_not_pleased_with_nothing_to_forget() -> None:
    assert verdict(changed()).headline == "There was little to forget."


def test_verdict_warns_where_tug_of_war_misses_broken_text() -> None:
    assert any(
        "Prefer the second" in p.text
        for p in verdict(changed() | {"tug_of_war": 0.95, "retrain_similarity": 0.4}).points
    )


@pytest.mark.parametrize(
    ("value", "tone", "ends"),
    [
        (0.05, "good", "The loss seen is not above 5%."),
        (0.0549, "good", "The loss seen is not above 5%."),  # shown as 5%, and judged as shown
        (0.056, "fair", "of the answers."),
    ],
)
def test_a_loss_is_judged_as_it_is_shown(value: float, tone: str, ends: str) -> None:
    entry = {"value": value, "low": 0.01, "high": 0.05, "n": 400}
    results = left(a=(0.0, -0.1, 0.1)) | {"damage": {"retain": entry}}
    told = next(p for p in verdict(results).points if p.text.startswith("Retain"))
    assert (told.tone, told.text.endswith(ends)) == (tone, True), told
    # .998 − .948 is larger than .05 in floating point
    told = next(p for p in verdict(changed(retain=0.948)).points if p.text.startswith("Retain"))
    assert told.tone == "good" and told.text.endswith("The loss seen is not above .05."), told


def test_metrics_with_wide_intervals_are_not_the_worst_and_are_told() -> None:
    """The results name the worst metric; the page and the console say what was left out for its wide interval."""
    sure, wide = (0.2, 0.1, 0.3), (-0.9, -2.0, -0.3)
    results = left(a=sure, b=(0.0, -0.1, 0.1), c=wide, d=(0.05, -0.6, 0.6))
    results["knowledge_left_worst"] = worst_of(results["knowledge_left"])
    assert results["knowledge_left_worst"] == {"metric": "a", "value": 0.2}
    assert [one.metric for one in set_aside(results)] == ["d", "c"]
    text = verdict(results).points[0].text
    assert "Worst metric: A, knowledge left .20" in text
    assert "1 metric is further from 0, but with an interval wider than 1 or without one" in text
    results["knowledge_left"] = {name: entry | {"n": 40} for name, entry in results["knowledge_left"].items()}
    told = summary_lines(results)[0]
    assert "the worst of 2 metrics (2 with an interval wider than 1 or none left out)" in told, told


def test_a_wide_interval_counts_in_the_headline_by_its_nearer_end() -> None:
    """A probe's .75 (.10 to 2.14) is .10 for sure: the headline names the .49 of another group."""
    results = left(probe_int4=(0.75, 0.1, 2.14), membership_loss=(0.49, 0.36, 0.62), rouge_l=(0.0, -0.1, 0.1))
    results["knowledge_left_worst"] = worst_of(results["knowledge_left"])
    assert ".75" not in verdict(results).headline and ".49" in verdict(results).headline
    alone = left(a=(0.75, 0.05, 2.14), b=(0.0, -0.1, 0.1))
    assert verdict(alone).tone == "fair" and "traces" in verdict(alone).headline


def test_where_all_intervals_are_wide_the_widest_may_be_the_worst() -> None:
    results = left(a=(0.2, -1.0, 1.0), b=(-0.9, -2.0, -0.3))
    results["knowledge_left_worst"] = worst_of(results["knowledge_left"])
    assert results["knowledge_left_worst"]["metric"] == "b" and set_aside(results) == []
    assert "further from 0" not in verdict(results).points[0].text
