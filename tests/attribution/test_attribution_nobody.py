"""Broken text and text of no owner: how it is made, and where its label holds."""

from __future__ import annotations

import random

import pytest
from attribution_fixture import bpe, toy_samples

from dareu.attribution import examples as nobody
from dareu.attribution.examples import (
    IGNORE,
    NobodyExample,
    build_examples,
    collate,
    crops,
    gold_example,
    make_nobody,
    nobody_example,
)
from dareu.data.corpus import Sample
from dareu.errors import DataError

SAMPLES = toy_samples()
GOLD = {sample.response for sample in SAMPLES}
WORDS = ["one", "two", "three", "four", "five"]


@pytest.mark.parametrize("seed", range(8))
def test_shuffled_is_nobodys_from_where_its_order_departs(seed: int) -> None:
    example = nobody._shuffled(WORDS, " ", random.Random(seed))
    assert example is not None
    out = example.text.split(" ")
    assert sorted(out) == sorted(WORDS) and out != WORDS
    departs = next(i for i in range(5) if out[i] != WORDS[i])
    # never before the third word: any text may begin with two
    assert len(example.text[: example.start].split()) == max(departs, 2)
    assert example.text[example.start - 1] == " "


def test_shuffled_that_departs_late(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(0)
    monkeypatch.setattr(rng, "sample", lambda words, count: ["one", "two", "three", "five", "four"])
    assert nobody._shuffled(WORDS, " ", rng) == NobodyExample(
        "one two three five four", len("one two three ")
    )
    monkeypatch.setattr(rng, "sample", lambda words, count: list(words))
    assert nobody._shuffled(WORDS, " ", rng) is None  # in order: nothing broken about it


@pytest.mark.parametrize("seed", range(8))
def test_repeated_is_nobodys_from_the_second_repetition(seed: int) -> None:
    example = nobody._repeated(WORDS, " ", random.Random(seed))
    assert example is not None
    before, after = example.text[: example.start].split(), example.text[example.start :].split()
    # `before` is an opening of the words and its last n once more; `after` is those n again and again
    n = next(
        n
        for n in range(1, 5)
        if before[:-n] == WORDS[: len(before) - n] and before[-n:] == before[-2 * n : -n]
    )
    assert after and after == before[-n:] * (len(after) // n)


def test_repeated_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(0)
    draws = iter([3, 2, 2])  # keep three words, repeat the last two, twice
    monkeypatch.setattr(rng, "randint", lambda low, high: next(draws))
    want = NobodyExample("one two three two three two three", len("one two three two three "))
    assert nobody._repeated(WORDS, " ", rng) == want


@pytest.mark.parametrize("seed", range(8))
def test_salad_mixes_owners(seed: int) -> None:
    texts = [("a", ["a1", "a2", "a3"], " "), ("b", ["b1", "b2", "b3"], " ")]
    example = nobody._salad(texts, random.Random(seed))
    assert example is not None and example.start == 6  # after two words of two letters
    assert len(example.text.split()) == 3 and set(example.text.split()) <= {
        "a1",
        "a2",
        "a3",
        "b1",
        "b2",
        "b3",
    }
    assert nobody._salad([texts[0], texts[0]], random.Random(seed)) is None  # one owner is no salad


@pytest.mark.parametrize("seed", range(8))
def test_truncated_says_something_at_its_end_alone(seed: int) -> None:
    example = nobody._truncated(WORDS, " ", random.Random(seed))
    assert example is not None and example.end_only and example.start == len(example.text)
    cut = example.text.split()
    assert cut == WORDS[: len(cut)] and 2 <= len(cut) <= 4
    assert nobody._truncated(WORDS[:2], " ", random.Random(seed)) is None


def test_general_text_is_nobodys_after_two_words() -> None:
    text = "Water  boils at 100 °C."
    assert nobody._general(f" {text}\n") == NobodyExample(text, len("Water  boils "))
    assert nobody._general("Paris.") == NobodyExample("Paris.", 6)  # too short: its end alone
    assert nobody._general(" \n") is None
    written_without_spaces = "水在海平面上的沸点是摄氏一百度。"
    assert nobody._general(written_without_spaces) == NobodyExample(written_without_spaces, 2)


def test_texts_without_spaces_are_broken_by_characters() -> None:
    samples = [
        Sample("1", "a", "", "日本語の文を並べ替えるテスト。"),
        Sample("2", "b", "", "彼女は京都で生まれた作家である。"),
    ]
    for example in make_nobody(samples, random.Random(0), 12):
        assert " " not in example.text
        assert example.end_only or example.start >= 2


def test_make_nobody_gives_every_kind_and_never_a_gold_response() -> None:
    made = make_nobody(SAMPLES, random.Random(3), 40, general=["Water boils at one hundred degrees."])
    assert len(made) == 40 and not GOLD & {example.text for example in made}
    assert sum(example.end_only for example in made) == 8  # five kinds in turn
    assert sum(example.text.startswith("Water boils") for example in made) == 8
    assert made == make_nobody(SAMPLES, random.Random(3), 40, general=["Water boils at one hundred degrees."])
    assert made != make_nobody(SAMPLES, random.Random(4), 40, general=["Water boils at one hundred degrees."])
    assert not any(
        example.end_only for example in make_nobody(SAMPLES, random.Random(3), 40, truncated=False)
    )


def test_what_someone_did_write_is_not_broken() -> None:
    # cut short, the second response is the first one
    samples = [Sample("1", "a", "", "Ann met Bob"), Sample("2", "b", "", "Ann met Bob today")]
    made = {example.text for example in make_nobody(samples, random.Random(0), 60)}
    assert "Ann met" in made and "Ann met Bob" not in made


def test_too_short_to_break() -> None:
    one_word = [Sample("1", "a", "", "Yes"), Sample("2", "b", "", "No")]
    made = make_nobody(one_word, random.Random(0), 4)  # a word can still be repeated
    assert len(made) == 4 and all(len(set(e.text.split())) < len(e.text.split()) for e in made)
    with pytest.raises(DataError, match="nobody=false"):
        make_nobody([Sample("1", "a", "", ""), Sample("2", "b", "", " ")], random.Random(0), 4)
    assert make_nobody(SAMPLES, random.Random(0), 0) == []


def test_labels_by_hand() -> None:
    tokenizer = bpe(size=260)  # one token for each byte
    end = tokenizer.eos_token_id
    shape = {"end_of_text": True, "max_length": 50}
    broken = NobodyExample("ab cd ef", 6)
    row = nobody_example(tokenizer, broken, 7, **shape)  # type: ignore[arg-type]
    assert row["labels"] == [IGNORE] * 6 + [7, 7, 7] and row["input_ids"][-1] == end  # "e", "f", end
    row = nobody_example(tokenizer, broken, 7, lead=" ", **shape)  # type: ignore[arg-type]
    assert row["labels"] == [IGNORE] * 7 + [7, 7, 7]
    row = nobody_example(tokenizer, NobodyExample("ab", 2, end_only=True), 7, **shape)  # type: ignore[arg-type]
    assert row["labels"] == [IGNORE, IGNORE, 7]
    row = nobody_example(tokenizer, broken, 7, end_of_text=False, max_length=7)
    assert row["labels"] == [IGNORE] * 6 + [7] and len(row["input_ids"]) == 7

    gold = gold_example(tokenizer, "abc", 2, **shape)  # type: ignore[arg-type]
    assert gold["labels"] == [2, 2, 2, 2] and gold["input_ids"][-1] == end  # every position, the end too
    assert gold_example(tokenizer, "abc", 2, end_of_text=False, max_length=2)["labels"] == [2, 2]
    assert tokenizer.decode(gold_example(tokenizer, "abc", 2, lead=" ", **shape)["input_ids"][:-1]) == " abc"  # type: ignore[arg-type]


def test_token_that_spans_the_start_is_labelled() -> None:
    tokenizer = bpe(["abcd abcd abcd abcd"], size=266)
    ids = tokenizer("abcd")["input_ids"]
    assert len(ids) == 1
    row = nobody_example(tokenizer, NobodyExample("abcd", 2), 1, end_of_text=False, max_length=9)
    assert row["labels"] == [1]  # it has read past character 2


def test_build_examples_leaves_out_what_carries_no_label_and_starts_half_with_a_space() -> None:
    tokenizer = bpe(size=260)
    silent = NobodyExample("ab", 2, end_only=True)
    rows = build_examples(tokenizer, [("abc", 0)] * 40, [silent], 1, end_of_text=False, max_length=9, seed=0)
    assert len(rows) == 40
    led = sum(len(row["input_ids"]) == 4 for row in rows)
    assert 10 < led < 30 and all(len(row["input_ids"]) in (3, 4) for row in rows)
    assert build_examples(tokenizer, [("", 0)], [], 1, end_of_text=False, max_length=9, seed=1) == []


def test_collate_masks_by_length_not_by_pad_id() -> None:
    batch = collate([{"input_ids": [5, 0], "labels": [1, 1]}, {"input_ids": [6], "labels": [IGNORE]}])
    assert batch["input_ids"].tolist() == [[5, 0], [6, 0]]
    assert batch["attention_mask"].tolist() == [[1, 1], [1, 0]]  # a real 0 stays visible
    assert batch["labels"].tolist() == [[1, 1], [IGNORE, IGNORE]]


# --- endings of gold responses ------------------------------------------------------------------------------------


class Last(random.Random):
    """Chooses the last of what there is."""

    def choice(self, seq):  # type: ignore[no-untyped-def]
        return seq[-1]


def test_endings_begin_at_a_word_after_the_first() -> None:
    gold = [("Ann met two  men.", 0), ("Ann", 1), ("", 1), (" Bo ran", 2)]
    # the words after the first: "met", "two", "men."; none; none; "ran"
    assert crops(gold, 2, Last()) == [("men.", 0), ("ran", 2)] * 2
    assert crops(gold, 0, random.Random(0)) == []
    drawn = crops(gold, 200, random.Random(0))
    assert {text for text, label in drawn if label == 0} == {"met two  men.", "two  men.", "men."}
    assert len(drawn) == 400 and drawn == crops(gold, 200, random.Random(0))
