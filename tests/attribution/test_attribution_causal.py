"""The causal classifier's scores: one pass for every prefix, alignment by offsets, what is saved."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from attribution_fixture import TEXTS, Counting, bpe, random_attributor, words
from tokenizers import decoders, pre_tokenizers

from dareu.attribution.base import Attributor, prefix_by_calls, token_ends, uniform
from dareu.attribution.causal import CausalAttributor
from dareu.attribution.lexical import LexicalAttributor
from dareu.attribution.registry import load_attributor
from dareu.errors import ModelError
from dareu.models.passes import padded

METASPACE = words(["▁Jonas", "▁was", "▁born"], decoders.Metaspace(), pre_tokenizers.Metaspace())


def cuts(tokenizer: Any, text: str) -> dict[int, int]:
    """Offset → number of the token that ends there, where no token spans it (bytes of one character may)."""
    spans = tokenizer(text, return_offsets_mapping=True)["offset_mapping"]
    following = [start for start, _ in spans[1:]] + [len(text)]
    return {stop: i for i, (_, stop) in enumerate(spans) if stop <= following[i]}


@pytest.fixture(scope="module")
def attributor() -> CausalAttributor:
    return random_attributor(bpe(), nobody=False)


def test_it_is_an_attributor(attributor: CausalAttributor) -> None:
    assert isinstance(attributor, Attributor)
    probs = attributor.probabilities(TEXTS)
    assert probs.shape == (5, 4) and probs.sum(axis=1) == pytest.approx(np.ones(5))


def test_one_pass_equals_scoring_each_prefix_alone(attributor: CausalAttributor) -> None:
    ends = [list(cuts(attributor.tokenizer, text)) for text in TEXTS]
    one_pass = attributor.prefix_probabilities(TEXTS, ends)
    assert [len(row) for row in ends] == [14, 31, 28, 14, 3]  # of 14, 31, 31, 14, 11 tokens
    for text, row, places in zip(TEXTS, one_pass, ends, strict=True):
        assert np.abs(np.diff(row, axis=0)).max() > 0.05  # the scores do move
        alone = np.concatenate([attributor.probabilities([text[:place]]) for place in places])
        assert np.abs(row - alone).max() < 1e-5


def test_one_pass_equals_the_k_prefix_path(attributor: CausalAttributor) -> None:
    ends = [list(cuts(attributor.tokenizer, text))[::2] for text in TEXTS]
    one_pass = attributor.prefix_probabilities(TEXTS, ends)
    for row, calls in zip(one_pass, prefix_by_calls(attributor, TEXTS, ends), strict=True):
        assert np.abs(row - calls).max() < 1e-5


def test_ids_of_a_policy_score_as_its_text_does(attributor: CausalAttributor) -> None:
    rows = [attributor.tokenizer(text)["input_ids"] for text in TEXTS]
    scores = attributor.prefix_probabilities_ids(*padded(rows))
    assert scores.dtype == torch.float32 and scores.shape == (5, max(map(len, rows)), 4)
    for text, ids, by_id in zip(TEXTS, rows, scores, strict=True):
        decoded, ends = token_ends(attributor.tokenizer, ids)
        by_text = attributor.prefix_probabilities([decoded], [ends])[0]
        whole = list(cuts(attributor.tokenizer, text).values())  # tokens that end with a character
        assert decoded == text and len(by_text) == len(ids)
        assert np.abs(by_id[whole].numpy() - by_text[whole]).max() < 1e-5


def test_scores_do_not_depend_on_the_batch(attributor: CausalAttributor) -> None:
    want = attributor.probabilities(TEXTS)
    for size in (1, 2, 64):
        split = random_attributor(attributor.tokenizer, batch_size=size)
        assert np.abs(split.probabilities(TEXTS) - want).max() < 1e-5
    order = [3, 0, 4, 2, 1]
    assert np.abs(attributor.probabilities([TEXTS[i] for i in order]) - want[order]).max() < 1e-5


def test_scores_do_not_depend_on_padding(attributor: CausalAttributor) -> None:
    want = attributor.probabilities(TEXTS)
    left = bpe()
    left.padding_side = "left"
    assert np.abs(random_attributor(left).probabilities(TEXTS) - want).max() < 1e-5

    rows = [attributor.tokenizer(text)["input_ids"] for text in TEXTS]
    ids, mask = padded(rows)
    scores = attributor.prefix_probabilities_ids(ids, mask)
    wider = torch.cat([ids.masked_fill(mask == 0, 9), torch.full((5, 7), 11)], dim=1)
    again = attributor.prefix_probabilities_ids(
        wider, torch.cat([mask, torch.zeros(5, 7, dtype=mask.dtype)], dim=1)
    )
    assert (again[:, : ids.shape[1]] - scores).abs().max() < 1e-5
    for row, tokens in zip(again, rows, strict=True):
        assert torch.equal(
            row[len(tokens) :], row[len(tokens) - 1].expand(len(row) - len(tokens), -1)
        )  # held


def test_left_padding_is_refused_and_an_empty_row_is_uniform(attributor: CausalAttributor) -> None:
    ids = torch.tensor([[5, 6, 7], [5, 6, 7]])
    with pytest.raises(ValueError, match="right"):
        attributor.prefix_probabilities_ids(ids, torch.tensor([[1, 1, 1], [0, 1, 1]]))
    scores = attributor.prefix_probabilities_ids(ids, torch.tensor([[1, 1, 1], [0, 0, 0]]))
    assert scores[1].tolist() == [[0.25] * 4] * 3 and torch.isfinite(scores).all()


def test_no_text_is_no_evidence(attributor: CausalAttributor) -> None:
    assert attributor.probabilities([""]).tolist() == [[0.25] * 4]
    assert attributor.probabilities([]).shape == (0, 4)
    assert attributor.prefix_probabilities(["abc"], [[]])[0].shape == (0, 4)
    assert attributor.prefix_probabilities(["abc"], [[0, -3]])[0].tolist() == [[0.25] * 4] * 2


def test_alignment_by_hand() -> None:
    # classifier tokens: Jonas (ends at 5), Huaman (12), was (16); class t is certain at token t
    own = words(["Jonas", "Huaman", "was"])
    aligned = CausalAttributor(Counting(3), own, ["0", "1", "2"])
    row = aligned.prefix_probabilities(["Jonas Huaman was"], [[0, 4, 5, 6, 11, 12, 15, 16, 99]])[0]
    assert row[:2].tolist() == uniform(2, 3).tolist()  # no token ends inside "Jona"
    assert row[2:].argmax(axis=1).tolist() == [0, 0, 0, 1, 1, 2, 2] and row[2:].max(axis=1) == pytest.approx(
        1.0
    )


def test_alignment_with_the_ids_of_another_tokenizer_by_hand() -> None:
    own = words(["né", "à", "Porto"])  # end at 2, 4, 10
    policy = bpe(size=260)  # n, two bytes of é, space, two bytes of à, space, P, o, r, t, o, end of text
    ids = [*policy("né à Porto")["input_ids"], policy.eos_token_id]
    text, ends = token_ends(policy, ids)
    assert text == "né à Porto" and ends == [1, 1, 2, 3, 3, 4, 5, 6, 7, 8, 9, 10, 10]
    row = CausalAttributor(Counting(3), own, ["0", "1", "2"]).prefix_probabilities([text], [ends])[0]
    assert row[:2].tolist() == uniform(2, 3).tolist()
    assert row[2:].argmax(axis=1).tolist() == [0, 0, 0, 1, 1, 1, 1, 1, 1, 2, 2]


def test_token_ends_of_unfinished_characters() -> None:
    policy = bpe(size=260)
    assert token_ends(policy, policy("né")["input_ids"][:2]) == ("n", [1, 1])  # half an é is no text
    assert token_ends(policy, policy("a😀b")["input_ids"]) == ("a😀b", [1, 1, 1, 1, 2, 3])
    assert token_ends(policy, []) == ("", [])
    assert token_ends(policy, [policy.eos_token_id]) == ("", [0])
    stray = policy("é")["input_ids"][1:] + policy("b")["input_ids"]  # a byte that never becomes a character
    text, ends = token_ends(policy, stray)
    assert text == "\ufffdb" and ends[-1] == 2


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("size", [260, 290, 400])
def test_token_ends_equal_decoding_each_prefix(text: str, size: int) -> None:
    policy = bpe(size=size)
    ids = policy(text)["input_ids"]
    slow = [len(policy.decode(ids[:stop]).rstrip("\ufffd")) for stop in range(1, len(ids) + 1)]
    assert token_ends(policy, ids) == (text, slow)


class Decoder:
    """Counts the tokens that `decode` is given."""

    def __init__(self, decode: Callable[[list[int]], str]) -> None:
        self.inner, self.seen = decode, 0

    def decode(self, ids: list[int], **_: Any) -> str:
        self.seen += len(ids)
        return self.inner(ids)


@pytest.mark.parametrize(
    ("policy", "text"),
    [
        (bpe(size=260), "日本語 né, " * 50),
        (bpe(), "— her début — “The " * 50),  # tokens that end inside a character
        (METASPACE, "Jonas was born " * 100),  # a decoder that drops the first space
    ],
)
def test_token_ends_cost_grows_with_the_length_alone(policy: Any, text: str) -> None:
    ids = policy(text.strip())["input_ids"]
    counting = Decoder(policy.decode)
    assert token_ends(counting, ids)[0] == text.strip()
    assert len(ids) >= 300 and counting.seen < 10 * len(ids)  # each prefix whole: at least 150 times


def test_token_ends_of_a_decoder_that_is_not_local() -> None:
    squares = Decoder(lambda ids: "x" * len(ids) ** 2)
    assert token_ends(squares, [7, 7, 7]) == ("x" * 9, [1, 4, 9])


def test_token_ends_where_the_decoder_drops_the_first_space() -> None:
    ids = METASPACE("Jonas was born")["input_ids"]
    assert token_ends(METASPACE, ids) == ("Jonas was born", [5, 9, 14])


def test_beyond_max_length_the_last_score_is_held() -> None:
    short = random_attributor(bpe(), max_length=6)
    long = random_attributor(bpe())
    text = TEXTS[1]
    ends = list(cuts(short.tokenizer, text))
    row, want = (a.prefix_probabilities([text], [ends])[0] for a in (short, long))
    assert len(ends) > 10 and np.abs(row[:6] - want[:6]).max() < 1e-5
    assert (row[6:] == row[5]).all() and np.abs(want[6:] - want[5]).max() > 0.05
    ids, mask = padded([short.tokenizer(text)["input_ids"]])
    assert np.abs(short.prefix_probabilities_ids(ids, mask)[0].numpy() - row).max() < 1e-5


@pytest.mark.parametrize("known", [True, False])
def test_end_of_text_counts_only_where_it_was_learnt(known: bool) -> None:
    attributor = random_attributor(bpe(), end_of_text=known)
    ids = torch.tensor([[*attributor.tokenizer("Jonas")["input_ids"], attributor.tokenizer.eos_token_id]])
    scores = attributor.prefix_probabilities_ids(ids, torch.ones_like(ids))[0]
    assert torch.equal(scores[-1], scores[-2]) is not known


def test_ids_that_no_token_has_are_passed_over(attributor: CausalAttributor) -> None:
    # the policy's embedding may be wider than its vocabulary
    ids = torch.tensor([[10, 20, len(attributor.tokenizer), 99_999]])
    scores = attributor.prefix_probabilities_ids(ids, torch.ones_like(ids))[0]
    assert torch.equal(scores[2], scores[1]) and torch.equal(scores[3], scores[1])


def test_temperature_divides_the_logits(attributor: CausalAttributor) -> None:
    warm = random_attributor(attributor.tokenizer, temperature=2.0)
    root = np.sqrt(attributor.probabilities(TEXTS))  # p^(1/T), normalised
    assert warm.probabilities(TEXTS) == pytest.approx(root / root.sum(axis=1, keepdims=True), abs=1e-6)
    ids, mask = padded([attributor.tokenizer(TEXTS[0])["input_ids"]])
    by_ids = warm.prefix_probabilities_ids(ids, mask)[0, -1].numpy()
    assert by_ids == pytest.approx(warm.probabilities(TEXTS[:1])[0], abs=1e-6)


def test_save_and_load(tmp_path: Path) -> None:
    saved = random_attributor(bpe(), nobody=True, end_of_text=True, temperature=1.7, max_length=9)
    saved.owners = ["Ingrid Østby", "b", "c"]  # three owners and nobody
    saved.save(tmp_path)
    loaded = load_attributor(tmp_path)
    assert isinstance(loaded, CausalAttributor)
    for name in ("owners", "nobody", "end_of_text", "temperature", "max_length"):
        assert getattr(loaded, name) == getattr(saved, name)
    assert np.array_equal(loaded.probabilities(TEXTS), saved.probabilities(TEXTS))
    ids, mask = padded([saved.tokenizer(text)["input_ids"] for text in TEXTS])
    assert torch.equal(loaded.prefix_probabilities_ids(ids, mask), saved.prefix_probabilities_ids(ids, mask))
    assert loaded.shares_tokenizer(saved.tokenizer)
    assert {path.suffix for path in tmp_path.iterdir()} <= {".json", ".jinja", ".safetensors"}
    with pytest.raises(ModelError, match="kind .causal."):
        LexicalAttributor.load(tmp_path)


def test_shares_tokenizer() -> None:
    attributor = random_attributor(bpe())
    assert attributor.shares_tokenizer(bpe())
    other = bpe()
    other.padding_side = "left"  # says nothing about how text is cut
    assert attributor.shares_tokenizer(other)
    assert not attributor.shares_tokenizer(bpe(size=331))
    wider = bpe()
    wider.add_tokens(["Huaman"])
    assert not attributor.shares_tokenizer(wider)
    another_end = bpe()
    another_end.eos_token = "<|pad|>"
    assert not attributor.shares_tokenizer(another_end)
    cut_otherwise = bpe()
    cut_otherwise.backend_tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    assert not attributor.shares_tokenizer(cut_otherwise)
