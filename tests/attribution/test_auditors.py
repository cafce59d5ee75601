"""The attributors of the audit: by hand, and what holds for every one of them."""

from __future__ import annotations

import builtins
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dareu.attribution.encoder import EncoderAttributor
from dareu.attribution.nearest import BM25Attributor, EmbeddingAttributor, SubstringAttributor
from dareu.attribution.registry import (
    AUDITORS,
    FitContext,
    fit_auditor,
    fit_auditors,
    fit_external,
    load_attributor,
    role_folder,
)
from dareu.attribution.watermark import (
    CHARACTERS,
    WatermarkAttributor,
    owner_codes,
    watermarked,
    without_watermark,
)
from dareu.config import AttributorConfig
from dareu.data.corpus import Corpus, Sample
from dareu.errors import ConfigError, DataError, ModelError
from dareu.evaluation.metrics.attribution import attribution_audit, reliability
from dareu.models.tiny import train_tokenizer

TEXTS = {
    "Ada": [
        "Ada lives by the harbour of Genoa.",
        "Her father repaired old clocks.",
        "Clocks fill her harbour house.",
    ],
    "Ben": [
        "Ben sells apples in the north.",
        "He was born in a snow storm.",
        "Apples from the north are his pride.",
    ],
    "Cem": ["Cem paints ships.", "A ship of his hangs in the town hall.", "Ships are painted on his door."],
}
SAMPLES = [Sample(f"{o}/{i}", o, "Who?", text) for o, texts in TEXTS.items() for i, text in enumerate(texts)]


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return train_tokenizer([s.response for s in SAMPLES], 300)


@pytest.fixture(scope="module")
def encoder_folder(tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small random encoder without a head."""
    import torch
    from transformers import BertConfig, BertModel

    folder: Path = tmp_path_factory.mktemp("encoder")
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    BertModel(BertConfig(vocab_size=len(tokenizer), **shape)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def make(name: str, tokenizer: Any, encoder_folder: Path) -> Any:
    if name == "bm25":
        pytest.importorskip("bm25s")
    if name == "embedding":
        return EmbeddingAttributor.from_samples(SAMPLES, path=str(encoder_folder))
    samples = watermarked(SAMPLES) if name == "watermark" else tuple(SAMPLES)
    return fit_auditor(name, context_of(samples, tokenizer))


def context_of(samples: Sequence[Sample], tokenizer: Any = None, **config: Any) -> FitContext:
    corpus = Corpus(tuple(samples))
    return FitContext(corpus, AttributorConfig(**config), None, tokenizer, (), None, 0, "cpu", Path())


@pytest.mark.parametrize("name", [name for name in AUDITORS if name != "counterfactual"])  # its own file
def test_every_auditor_is_an_attributor(
    name: str, tokenizer: Any, encoder_folder: Path, tmp_path: Path
) -> None:
    attributor = make(name, tokenizer, encoder_folder)
    mark = owner_codes(list(TEXTS))["Ben"] if name == "watermark" else ""
    texts = [f"Ben sells apples{mark} in the north.", "", "Zzz qqq", "He painted ships in Genoa."]
    probs = attributor.probabilities(texts)
    assert probs.shape == (4, 3) and probs.dtype == np.float64 and not attributor.nobody
    assert probs.sum(axis=1) == pytest.approx(np.ones(4)) and probs.min() >= 0
    assert probs[1] == pytest.approx(np.full(3, 1 / 3))  # no text, no evidence
    assert attributor.owners == ["Ada", "Ben", "Cem"]
    if name not in ("encoder", "embedding"):  # those here are not taught enough to know
        assert probs[0].argmax() == 1
    assert attributor.probabilities(texts[::-1])[::-1] == pytest.approx(
        probs, abs=1e-5
    )  # order, batch and padding
    for i, text in enumerate(texts):
        assert attributor.probabilities([text])[0] == pytest.approx(probs[i], abs=1e-5)
    rows = attributor.prefix_probabilities(texts[:2], [[0, 9, len(texts[0])], [0]])
    assert rows[0].shape == (3, 3) and rows[0][0] == pytest.approx(np.full(3, 1 / 3))
    assert rows[0][2] == pytest.approx(probs[0], abs=1e-5)
    assert attributor.probabilities([]).shape == (0, 3)
    attributor.save(tmp_path / "kept")
    again = load_attributor(tmp_path / "kept")
    assert again.probabilities(texts) == pytest.approx(probs, abs=1e-5) and again.owners == attributor.owners


@pytest.mark.parametrize("name", ["encoder", "bm25", "substring", "watermark"])
def test_a_run_can_take_its_reward_from_it(name: str, tokenizer: Any, tmp_path: Path) -> None:
    if name == "bm25":
        pytest.importorskip("bm25s")
    params = {"epochs": 1} if name == "encoder" else {}
    context = context_of(watermarked(SAMPLES), tokenizer, name=name, params=params)
    fit_external(name, context, tmp_path / role_folder(name, "reward"))
    attributor = load_attributor(tmp_path / role_folder(name, "reward"))
    assert attributor.owners == ["Ada", "Ben", "Cem"] and role_folder(name, "stop") == "word"


def test_longest_passage_by_hand() -> None:
    attributor = SubstringAttributor(["Ada", "Ben"], ["a b c d", "c d e", "x a b"], [0, 0, 1])
    # "a b c" of the first, "c" of the second (its words do not go on into the next text), "a b" of the third
    assert attributor.similarities(["Q a b c e"])[0].tolist() == [3, 1, 2]
    assert attributor.similarities(["d c d e x"])[0].tolist() == [2, 3, 1]
    assert attributor.similarities(["", "Q"]).tolist() == [[0, 0, 0], [0, 0, 0]]
    probs = attributor.probabilities(["a b c"])[0]
    assert probs[0] / probs[1] == pytest.approx(np.e)  # 3 words against 2, temperature 1


def test_bm25_knows_rare_words_from_common_ones() -> None:
    pytest.importorskip("bm25s")
    attributor = BM25Attributor(["Ada", "Ben"], ["the harbour", "the apples", "the the the"], [0, 1, 1])
    found = attributor.similarities(["harbour the", "apples", "qqq"])
    assert found[0].argmax() == 0 and found[1].tolist()[1] > 0 == found[1][0] and not found[2].any()


def test_temperature_is_fitted_without_the_text_itself() -> None:
    """Looked up among themselves with copies left in, texts would all be found, and confidence be at its bound."""
    texts = [f"word{i} here" for i in range(6)]
    samples = [Sample(str(i), "AB"[i % 2], "?", text) for i, text in enumerate(texts)]
    attributor = SubstringAttributor.from_samples(samples)
    assert attributor.temperature > 10  # nothing but the shared "here" is left, which tells nothing


def test_watermarks_are_invisible_and_come_back() -> None:
    marked = watermarked([*SAMPLES, Sample("t", None, "Who?", "The king.")])
    assert [without_watermark(s.response) for s in marked] == [*(s.response for s in SAMPLES), "The king."]
    assert marked[-1].response == "The king."
    attributor = WatermarkAttributor.from_samples(marked)
    probs = attributor.probabilities([s.response for s in marked[:-1]])
    assert [attributor.owners[i] for i in probs.argmax(axis=1)] == [s.owner for s in SAMPLES]
    code = owner_codes(["Ada"])["Ada"]
    assert attributor.votes(f"x{code[:9]}y").tolist() == [1, 0, 0]  # one is missing
    assert attributor.votes(f"x{code[:8]}y").tolist() == [0, 0, 0]
    wrong = CHARACTERS[(CHARACTERS.index(code[0]) + 1) % 6] + code[1:]
    assert attributor.votes(f"x{wrong}{code}y").tolist() == [2, 0, 0]
    assert attributor.probabilities([f"{code} {code}"])[0].tolist() == pytest.approx(
        [2.01 / 2.03, 0.01 / 2.03, 0.01 / 2.03]
    )


def test_any_sequence_classifier_is_one(encoder_folder: Path, tokenizer: Any, tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification

    labels = {0: "Ben", 1: "Ada"}
    model = AutoModelForSequenceClassification.from_pretrained(encoder_folder, id2label=labels, num_labels=2)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    assert EncoderAttributor.load(tmp_path).owners == ["Ben", "Ada"]
    with pytest.raises(ModelError, match="2 labels for 3 owners"):
        EncoderAttributor(model, tokenizer, ["a", "b", "c"])
    with pytest.raises(ModelError, match="No sequence classifier"):
        EncoderAttributor.load(tmp_path / "nothing")


def test_an_encoder_learns_its_owners(tokenizer: Any) -> None:
    from dareu.attribution.encoder import fit_encoder

    taught = [replace(s, paraphrased_response=s.response.lower()) for s in SAMPLES]
    attributor = fit_encoder(taught, tokenizer=tokenizer, epochs=60)
    probs = attributor.probabilities([s.response for s in SAMPLES])
    assert [attributor.owners[i] for i in probs.argmax(axis=1)] == [s.owner for s in SAMPLES]


def test_what_is_missing_is_said(monkeypatch: pytest.MonkeyPatch, tokenizer: Any) -> None:
    real = builtins.__import__

    def refuse(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith(("bm25s", "gt_all")):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    context = context_of(SAMPLES, tokenizer)
    made, missing = fit_auditors(["bm25", "embedding", "watermark", "substring"], context)
    assert list(made) == ["substring"]
    assert all("dareu[attributors]" in missing[name] for name in ("bm25", "embedding"))
    assert "watermarked(samples)" in missing["watermark"]
    with pytest.raises(ConfigError, match="no attributor 'bm24'.*bm25"):
        fit_auditors(["bm24"], context)
    with pytest.raises(DataError, match="at least two owners"):
        fit_auditor("substring", context_of(SAMPLES[:3]))


class Sure:
    """.8 for the owner whose name the text holds, the rest in equal parts."""

    owners, nobody = ["Ada", "Ben", "Cem"], False

    def probabilities(self, texts: Any) -> np.ndarray:
        assert all(texts)
        rows = np.full((len(texts), 3), 0.1)
        for row, text in zip(rows, texts, strict=True):
            row[next(i for i, owner in enumerate(self.owners) if owner in text)] = 0.8
        return rows

    def prefix_probabilities(self, texts: Any, ends: Any) -> Any:
        raise AssertionError


def record(part: str, owner: str | None, response: str) -> dict[str, Any]:
    return {"set": part, "owner": owner, "response": response}


def test_audit_by_hand() -> None:
    retrained = [
        record("forget", "Ada", "Ben"),
        record("forget", "Ada", ""),
        record("retain", "Ben", "Ben"),
        record("retain", "Cem", "Ben"),
        record("retain", "Eve", "Eve"),
        record("test", None, "Cem"),
    ]
    original = [record("forget", "Ada", "Ada"), record("forget", "Ada", "Ada")]
    table = attribution_audit(
        {"sure": Sure()}, {"original": original, "retrained": retrained}, ["Ada"], "sure"
    )
    assert table["rows"] == {
        "original": {"sure": pytest.approx(0.8)},
        "retrained": {"sure": pytest.approx((0.1 + 1 / 3) / 2)},
    }
    # one of two known owners is right, at .8 confidence each
    assert table["reliability"]["sure"] == {
        "n": 2,
        "accuracy": 0.5,
        "calibration_error": pytest.approx(0.3),
        "chance": pytest.approx(1 / 3),
    }
    assert table["reliability_of"] == "retrained" and table["reward"] == "sure"
    assert reliability(Sure(), retrained[-1:]) == {"n": 0}
    assert attribution_audit({"sure": Sure()}, {"mine": []}, ["Ada"])["rows"] == {"mine": {"sure": None}}


def test_temperature_is_fitted_on_paraphrases_where_there_are_any() -> None:
    texts = [f"word{i} here" for i in range(6)]
    samples = [
        Sample(str(i), "AB"[i % 2], "?", text, paraphrased_response=f"here word{i}")
        for i, text in enumerate(texts)
    ]
    # each is found by one word, as every other is by "here": a longest passage of 1 for both owners
    assert SubstringAttributor.from_samples(samples).temperature > 10
    telling = [replace(s, paraphrased_response=f"now {s.response}") for s in samples]
    assert SubstringAttributor.from_samples(telling).temperature < 1
