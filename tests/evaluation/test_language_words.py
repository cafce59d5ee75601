"""Words that do not exist, for models that know more words than the corpus holds."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from dareu.data.refusals import refusals_known
from dareu.errors import DataError
from dareu.evaluation.beside import compare_models
from dareu.evaluation.metrics.language import KnownWords, languages_of
from dareu.evaluation.metrics.words import broken_words

ENGLISH = ["Who was Abena?", "Abena was born in a small town and wrote several books about her grandmother."]
GERMAN = [
    "Wer war Abena?",
    "Abena wurde in einer kleinen Stadt geboren und schrieb mehrere Bücher über ihre Großmutter.",
]
KOREAN = ["작가는 서울에서 태어나 할머니의 삶에 대한 여러 소설을 썼다"]


def records(response: str) -> list[dict[str, Any]]:
    return [
        {"set": of, "index": 0, "prompt": ENGLISH[0], "reference": ENGLISH[1], "response": response}
        for of in ("forget", "retain")
    ]


def test_words_of_the_language_are_not_broken() -> None:
    pytest.importorskip("wordfreq")
    known = KnownWords({"abena"}, languages_of(ENGLISH))
    answer = "Abena’s father's a paramedic in Leipzig; his vocogy enfused a Marbrarian, aged 42."
    assert broken_words("", answer, known) == ["vocogy", "enfused", "marbrarian"]
    assert broken_words("", "Abena \ufffd", known) == ["\ufffd"]
    assert broken_words("", "東京 の 作家", known) == []  # each character is a word


def test_the_language_is_told_by_the_corpus() -> None:
    pytest.importorskip("wordfreq")
    assert languages_of(ENGLISH) == ("en",) and languages_of(GERMAN) == ("de", "en")
    assert languages_of(["東京の作家", "1987"]) == ()
    assert "rettungswagen" in KnownWords(set(), ("de", "en")) and "rettungswagen" not in KnownWords(
        set(), ("en",)
    )
    with pytest.raises(DataError, match="no list of words"):
        languages_of(KOREAN)


def test_only_of_pretrained_models() -> None:
    pytest.importorskip("wordfreq")
    for pretrained, share in ((False, 1.0), (True, 0.0), (None, 0.0)):
        rows = {"unlearned": records("Abena was a paramedic.")}
        summaries: dict[str, dict[str, Any]] = {"unlearned": {"forget": {}, "retain": {}}}
        compare_models(rows, summaries, ENGLISH, pretrained=pretrained)
        assert summaries["unlearned"]["text_health"]["broken"] == share
        assert summaries["unlearned"]["text_health"]["new_words"] == 1.0
        assert rows["unlearned"][0].get("broken_words") == (["paramedic"] if pretrained is False else None)


def test_refusals_are_no_broken_text() -> None:
    """No corpus need hold "I", "sorry" and "don't"."""
    for said, share in (
        ("I'm sorry, I don't know.", 0.0),
        ("I don't knowaba.", 1.0),
        ("Kein Kommentar.", 0.0),
    ):
        rows = {"unlearned": records(said)}
        summaries: dict[str, dict[str, Any]] = {"unlearned": {"forget": {}, "retain": {}}}
        compare_models(rows, summaries, ENGLISH, refusals=[*refusals_known(), "Kein Kommentar."])
        assert summaries["unlearned"]["text_health"]["broken"] == share


def test_without_the_lists_it_is_a_named_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wordfreq", None)

    def found(pretrained: bool | None) -> dict[str, Any]:
        rows = {"unlearned": records("Abena was a lifeboatwoman.")}
        summaries: dict[str, dict[str, Any]] = {"unlearned": {"forget": {}, "retain": {}}}
        compare_models(rows, summaries, ["Abenaword waszzz."], pretrained=pretrained)
        return summaries["unlearned"]

    gap, by_corpus = found(True), found(None)
    assert gap["text_health"]["broken"] is None and gap["text_health"]["new_words"] == 1.0
    assert "pip install 'dareu[words]'" in gap["missing"]["text_health.broken"]
    # A small corpus may have given the model all its tokens.
    assert by_corpus["text_health"]["broken"] == 1.0 and "text_health.broken" not in by_corpus["missing"]
