"""ROUGE-L by hand, and against the library's own scorer."""

from __future__ import annotations

import pytest

from dareu.evaluation.metrics.rouge import rouge_l

REFERENCE = "The cats sat on the mat"


def test_recall_and_f1_by_hand() -> None:
    # in order: the, cat(s), on, the, mat = 5 of 6 reference words, 5 of 8 response words
    score = rouge_l(REFERENCE, "the old cat was lying on the mat!")
    assert score is not None
    assert score.recall == pytest.approx(5 / 6)
    assert score.f1 == pytest.approx(2 * (5 / 6) * (5 / 8) / (5 / 6 + 5 / 8))


def test_order_counts() -> None:
    score = rouge_l("one two three", "three two one")
    assert score is not None and score.recall == pytest.approx(1 / 3)


def test_empty_response_scores_zero() -> None:
    assert rouge_l(REFERENCE, "") == (0.0, 0.0)


def test_a_reference_without_a_word_has_no_score() -> None:
    assert rouge_l("…!?", "…!?") is None
    assert rouge_l("", "anything") is None


def test_cached_stems_give_what_the_library_gives() -> None:
    from rouge_score.rouge_scorer import RougeScorer

    plain = RougeScorer(["rougeL"], use_stemmer=True)
    running = "Running runners ran; relational conditions, 42!"
    texts = [REFERENCE, running, "The mats sat relationally on conditional cats"]
    for reference in texts:
        for response in texts:
            expected = plain.score(reference, response)["rougeL"]
            assert rouge_l(reference, response) == (expected.recall, expected.fmeasure)
