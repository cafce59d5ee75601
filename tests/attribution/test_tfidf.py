"""TF-IDF vectors by hand, and beside scikit-learn's."""

import math
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer

from dareu.attribution.lexical import Features, TfIdf, grams, unit_rows
from dareu.data.words import pieces

TEXTS = [
    "Ada Kimura's first book, “Amber Bridge”, won 2 prizes in 1998.",
    "a a A  a\tb\nc",
    "木村さんは本を書いた。",
    "Zoë Ångström — naïve İstanbul ß ŒUVRE",
    "It's it's its",
    "",
    " ... ",
]
SKLEARN: dict[Features, dict[str, Any]] = {
    "char": {"analyzer": "char_wb", "ngram_range": (2, 5), "sublinear_tf": True},
    "word": {"ngram_range": (1, 2), "sublinear_tf": True, "tokenizer": pieces, "token_pattern": None},
}


def test_grams_by_hand() -> None:
    assert grams("A bc", "char") == [" a", "a ", " a ", " b", "bc", "c ", " bc", "bc ", " bc "]
    assert grams("The old  Book", "word") == ["the", "old", "book", "the old", "old book"]
    assert grams("", "char") == grams(" ", "word") == []


def test_weights_by_hand() -> None:
    made = TfIdf.fit(["a a b", "b"], "word")
    assert list(made.vocabulary) == ["a", "a a", "a b", "b"]
    rare, common = math.log(3 / 2) + 1, math.log(3 / 3) + 1
    assert made.idf == pytest.approx([rare, rare, rare, common])
    first = np.array([(1 + math.log(2)) * rare, rare, rare, common])
    assert made.transform(["a a b", "unknown", "b"]).toarray() == pytest.approx(
        np.array([first / np.linalg.norm(first), [0, 0, 0, 0], [0, 0, 0, 1]])
    )


@pytest.mark.parametrize("features", ["char", "word"])
def test_the_numbers_are_those_of_scikit_learn(features: Features) -> None:
    theirs = TfidfVectorizer(**SKLEARN[features])
    expected = theirs.fit_transform(TEXTS)
    ours = TfIdf.fit(TEXTS, features)
    assert list(ours.vocabulary) == sorted(theirs.vocabulary_)
    assert ours.idf == pytest.approx(theirs.idf_)
    np.testing.assert_allclose(ours.transform(TEXTS).toarray(), expected.toarray(), atol=1e-12)
    unseen = ["Amber amber bridge ÅNGSTRÖM 木の本", "xyz"]
    np.testing.assert_allclose(
        ours.transform(unseen).toarray(), theirs.transform(unseen).toarray(), atol=1e-12
    )


def test_rows_of_length_one_and_empty_rows() -> None:
    matrix = TfIdf("word", ["a", "b"], np.array([3.0, 4.0])).transform(["a b", "c", ""])
    assert unit_rows(matrix).toarray() == pytest.approx(np.array([[0.6, 0.8], [0, 0], [0, 0]]))


def test_reading_an_attributor_does_not_import_scikit_learn() -> None:
    code = "import sys, dareu.attribution.lexical; print('sklearn' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
