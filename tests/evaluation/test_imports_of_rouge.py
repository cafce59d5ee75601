"""ROUGE needs NLTK's stemmer alone, and leaves NLTK and scikit-learn to the process as it found them."""

from __future__ import annotations

import subprocess
import sys


def said(code: str) -> str:
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


SCORE = "import sys; from dareu.evaluation.metrics.rouge import rouge_l; r = rouge_l('running dogs', 'a dog runs');"


def test_nltk_and_rouge_score_are_whole_for_the_user_afterwards() -> None:
    """NLTK's wrapper of scikit-learn works, and so does splitting into sentences, which rouge-score takes from NLTK."""
    code = f"""{SCORE}
print(r.recall, sorted(m for m in sys.modules if m.partition('.')[0] in ('nltk', 'rouge_score', 'sklearn', 'pandas')))
import nltk
from sklearn.naive_bayes import BernoulliNB
trained = nltk.classify.SklearnClassifier(BernoulliNB()).train([({{'a': 1}}, 'x'), ({{'b': 1}}, 'y')])
print(trained.classify({{'a': 1}}), callable(nltk.sent_tokenize))
from rouge_score import rouge_scorer
print(rouge_scorer.nltk is nltk, rouge_l('running dogs', 'a dog runs') == r)
"""
    assert said(code).split("\n") == ["0.5 []", "x True", "True True"]


def test_an_nltk_that_is_there_is_taken() -> None:
    assert (
        said(f"import nltk; before = nltk; {SCORE} print(sys.modules['nltk'] is before, r.recall)")
        == "True 0.5"
    )
