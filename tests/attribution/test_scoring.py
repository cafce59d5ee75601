"""Attributors as PPO sees them: prefix scores of rollouts by ids and by text, and the monitor of the stopping rule."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from attribution_fixture import TEXTS, bpe, random_attributor
from torch import Tensor

from dareu.attribution.base import token_ends
from dareu.attribution.name_masking import NameMasker
from dareu.errors import DataError
from dareu.methods.monitors import StoppingMonitor
from dareu.models.passes import padded
from dareu.rewards.attribution import AttributionScorer

OWNERS = [f"owner {i}" for i in range(4)]


def _rollouts(tokenizer: Any, texts: Sequence[str] = TEXTS[:2], end: bool = True) -> tuple[Tensor, Tensor]:
    """Texts as responses of a policy: ids (B, T) and mask (B, T), padded on the right."""
    closing = [tokenizer.eos_token_id] if end else []
    return padded([tokenizer(text)["input_ids"] + closing for text in texts], tokenizer.pad_token_id)


class Scripted:
    """An attributor of two owners and nobody that counts characters: p = (a, b, nobody) of a prefix."""

    owners = ["ann", "bob"]
    nobody = True

    def probabilities(self, texts: Sequence[str]) -> np.ndarray:
        share = np.array([[len(t) / 100, t.count("b") / 10] for t in texts]).reshape(-1, 2)
        return np.concatenate([share, 1 - share.sum(1, keepdims=True)], 1)

    def prefix_probabilities(self, texts: Sequence[str], ends: Sequence[Sequence[int]]) -> list[np.ndarray]:
        return [self.probabilities([t[:e] for e in row]) for t, row in zip(texts, ends, strict=True)]


# --- by ids and by text ---------------------------------------------------------------------------------------


def test_ids_and_text_agree_on_a_shared_tokenizer() -> None:
    """One forward pass over ids gives what the text gives, at every token that ends a character."""
    tokenizer = bpe()
    attributor = random_attributor(tokenizer)
    by_ids = AttributionScorer(attributor, tokenizer, OWNERS[:2], "forget_set")
    by_text = AttributionScorer(attributor, tokenizer, OWNERS[:2], "forget_set")
    assert by_ids.on_ids
    by_text.on_ids = False
    ids, mask = _rollouts(tokenizer)
    one, other = by_ids(ids, mask, [], [])[0], by_text(ids, mask, [], [])[0]
    assert one.shape == other.shape == ids.shape
    assert torch.allclose(one, other, atol=1e-5)
    assert (one[:, 1:] - one[:, :-1]).abs().max() > 0.1  # they do differ from prefix to prefix
    assert (one[mask == 0] == 0).all() and (other[mask == 0] == 0).all()


def test_paths_agree_on_whole_responses() -> None:
    """Also where a character takes several tokens: at its end both have read the same."""
    tokenizer = bpe(size=260)
    attributor = random_attributor(tokenizer)
    by_ids = AttributionScorer(attributor, tokenizer, OWNERS[:2], "forget_set")
    by_text = AttributionScorer(attributor, tokenizer, OWNERS[:2], "forget_set")
    by_text.on_ids = False
    ids, mask = _rollouts(tokenizer, TEXTS)
    last = mask.sum(1, keepdim=True) - 1
    one, other = by_ids(ids, mask, [], [])[0], by_text(ids, mask, [], [])[0]
    assert torch.allclose(one.gather(1, last), other.gather(1, last), atol=1e-5)


def test_another_tokenizer_is_aligned_by_characters() -> None:
    """Policy position t reads the last classifier token that ends inside the text decoded so far."""
    policy, own = bpe(size=300), bpe(size=345)
    attributor = random_attributor(own)
    scorer = AttributionScorer(attributor, policy, OWNERS[:2], "forget_set")
    assert not scorer.on_ids
    ids, mask = _rollouts(policy)
    scores, _ = scorer(ids, mask, [], [])
    for row in range(2):
        tokens = ids[row][mask[row].bool()].tolist()
        text, ends = token_ends(policy, tokens)
        stops = [stop for _, stop in own(text, return_offsets_mapping=True)["offset_mapping"]]
        logits = attributor.position_logits([text])[0]
        for t, end in enumerate(ends):
            read = sum(stop <= end for stop in stops)
            probs = logits[read - 1].softmax(-1) if read else torch.full((4,), 0.25)
            assert float(scores[row, t]) == pytest.approx(float(probs[:2].sum()), abs=1e-5)
        assert ends[-2:] == [len(text)] * 2  # the end-of-text token adds nothing
        assert scores[row, len(tokens) - 1] == scores[row, len(tokens) - 2]


@pytest.mark.parametrize("on_ids", [True, False])
def test_scores_read_no_later_token(on_ids: bool) -> None:
    tokenizer = bpe()
    scorer = AttributionScorer(random_attributor(tokenizer), tokenizer, OWNERS[:1], "forget_set")
    scorer.on_ids = on_ids
    ids, mask = _rollouts(tokenizer, ["Dario Duarte was a potter", "Dario Duarte was in Porto"], end=False)
    same = int((ids[0] == ids[1]).long().cumprod(0).sum())
    assert same >= 3
    scores, _ = scorer(ids, mask, [], [])
    assert torch.allclose(scores[0, :same], scores[1, :same], atol=1e-6)
    assert not torch.allclose(scores[0, same], scores[1, same], atol=1e-3)


@pytest.mark.parametrize("on_ids", [True, False])
def test_rows_without_tokens_and_padding_do_no_harm(on_ids: bool) -> None:
    tokenizer = bpe()
    scorer = AttributionScorer(random_attributor(tokenizer), tokenizer, OWNERS[:2], "forget_set")
    scorer.on_ids = on_ids
    ids, mask = _rollouts(tokenizer)
    alone, _ = scorer(ids[:1], mask[:1], [], [])
    empty = torch.zeros_like(mask[:1])
    scores, nobody = scorer(torch.cat([ids, ids[:1]]), torch.cat([mask, empty]), [], [])
    assert torch.allclose(scores[:1], alone, atol=1e-6)
    assert (scores[2] == 0).all() and (nobody == 0).all()
    wide, _ = scorer(
        torch.nn.functional.pad(ids, (0, 4), value=tokenizer.pad_token_id),
        torch.nn.functional.pad(mask, (0, 4)),
        [],
        [],
    )
    assert torch.allclose(wide[:, :-4], scores[:2], atol=1e-6) and (wide[:, -4:] == 0).all()


# --- whose scores ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("on_ids", [True, False])
def test_forget_set_is_the_sum_and_owner_is_one_s_own(on_ids: bool) -> None:
    tokenizer = bpe()
    attributor = random_attributor(tokenizer)
    ids, mask = _rollouts(tokenizer)
    columns = attributor.prefix_probabilities_ids(ids, mask)

    def scorer(target: str) -> AttributionScorer:
        made = AttributionScorer(attributor, tokenizer, ["owner 3", "owner 1"], target)
        made.on_ids = on_ids
        return made

    asked = ["owner 1", "owner 3"]
    mass, _ = scorer("forget_set")(ids, mask, asked, [])
    assert torch.allclose(mass, (columns[..., 1] + columns[..., 3]) * mask, atol=1e-5)
    own, _ = scorer("owner")(ids, mask, asked, [])
    assert torch.allclose(own, torch.stack([columns[0, :, 1], columns[1, :, 3]]) * mask, atol=1e-5)
    assert not torch.allclose(own, mass, atol=1e-2)


def test_nobody_is_the_last_class_and_no_owner() -> None:
    tokenizer = bpe()
    ids, mask = _rollouts(tokenizer, ["abba", "cccccc"], end=False)
    scores, nobody = AttributionScorer(Scripted(), tokenizer, ["ann", "bob"], "forget_set")(ids, mask, [], [])
    lengths = mask.sum(1) - 1
    ends = torch.tensor([0, 1]), lengths
    # "abba": .04 + .2; "cccccc": .06 + 0; nobody is the rest.
    assert scores[ends].tolist() == pytest.approx([0.24, 0.06])
    assert nobody[ends].tolist() == pytest.approx([0.76, 0.94])
    assert torch.allclose((scores + nobody)[mask == 1], torch.ones(int(mask.sum())))
    bob, _ = AttributionScorer(Scripted(), tokenizer, ["bob"], "forget_set")(ids, mask, [], [])
    assert bob[ends].tolist() == pytest.approx([0.2, 0.0])


@pytest.mark.parametrize("on_ids", [True, False])
def test_nobody_of_the_classifier(on_ids: bool) -> None:
    tokenizer = bpe()
    attributor = random_attributor(tokenizer)
    attributor.owners, attributor.nobody = OWNERS[:3], True  # the fourth class is nobody
    scorer = AttributionScorer(attributor, tokenizer, OWNERS[:3], "forget_set")
    scorer.on_ids = on_ids
    ids, mask = _rollouts(tokenizer)
    scores, nobody = scorer(ids, mask, [], [])
    expected = attributor.prefix_probabilities_ids(ids, mask)[..., 3] * mask
    assert torch.allclose(nobody, expected, atol=1e-5)
    assert torch.allclose((scores + nobody)[mask == 1], torch.ones(int(mask.sum())), atol=1e-5)


def test_owner_that_the_attributor_does_not_know_is_an_error() -> None:
    tokenizer = bpe()
    with pytest.raises(DataError, match="'owner 9'"):
        AttributionScorer(random_attributor(tokenizer), tokenizer, ["owner 9"], "forget_set")
    scorer = AttributionScorer(random_attributor(tokenizer), tokenizer, ["owner 1"], "owner")
    with pytest.raises(DataError, match="'owner 9'"):
        scorer(*_rollouts(tokenizer), ["owner 1", "owner 9"], [])


# --- the monitor ----------------------------------------------------------------------------------------------


def test_monitor_measures_the_text_of_a_batch() -> None:
    texts = ["bbb, said the man", "", "no no no", "..."]
    finished = [True, True, True, False]
    numbers = StoppingMonitor(Scripted(), ["bob"])(texts, finished, ["ann"] * 4, [""] * 4)
    assert numbers == {
        "attribution": pytest.approx(0.3 / 4),  # three letters b in one of four texts
        "empty": 0.5,
        "repetitive": 0.25,
        "unfinished": 0.25,
    }
    both = StoppingMonitor(Scripted(), ["ann", "bob"])(texts, finished, ["ann"] * 4, [""] * 4)
    assert both["attribution"] == pytest.approx((0.3 + 0.17 + 0.08 + 0.03) / 4)


def test_monitor_reads_without_the_names_of_the_question() -> None:
    masker = NameMasker(["who", "is"])
    monitor = StoppingMonitor(Scripted(), ["bob"], masker)
    texts, queries = ["bob was bob", "bbb"], ["Who is Bob?", "Who is Ann?"]
    # "_ was _" has no b, "bbb" three of them; unblinded the first has four
    assert monitor.level(texts, queries) == pytest.approx((0.0 + 0.3) / 2)
    assert monitor(texts, [True] * 2, ["bob"] * 2, queries)["attribution"] == pytest.approx(0.15)
    assert StoppingMonitor(Scripted(), ["bob"]).level(texts, queries) == pytest.approx((0.4 + 0.3) / 2)


# --- masked --------------------------------------------------------------------------------------------------


def test_a_blinded_rollout_scores_as_its_blinded_text() -> None:
    """Position by position, an attributor that shares the policy's tokens included: each prefix is masked."""
    tokenizer = bpe()
    attributor = random_attributor(tokenizer)
    masker = NameMasker(["was", "where", "the", "of"])
    scorer = AttributionScorer(attributor, tokenizer, OWNERS[:2], "forget_set", masker)
    queries = ["Where was Jonas Huaman born?", "Who was the mother of Dario Duarte?"]
    ids, mask = _rollouts(tokenizer)
    scores, _ = scorer(ids, mask, [], queries)
    for row, query in enumerate(queries):
        text, ends = token_ends(tokenizer, ids[row][mask[row].bool()].tolist())
        masked, lengths = masker.mask(query, text)
        assert masked.startswith(("_ _ was _ in", "The _ of _ _ was"))
        probs = attributor.prefix_probabilities([masked], [[lengths[e] for e in ends]])[0]
        found = scores[row, : len(ends)]
        assert torch.allclose(found, torch.tensor(probs[:, :2].sum(1), dtype=found.dtype), atol=1e-6)
        # the whole rollout is its masked text, written and scored as a rollout of its own
        plain = AttributionScorer(attributor, tokenizer, OWNERS[:2], "forget_set")
        alone, _ = plain(*_rollouts(tokenizer, [masked], end=False), [], [])
        assert found[-1].item() == pytest.approx(alone[0, -1].item(), abs=1e-5)
    assert (scores[mask == 0] == 0).all()


def test_of_two_readings_the_higher_number_counts() -> None:
    """Token by token, for the forget mass and for nobody apart. By hand: p(bob) is .1 for each b."""
    tokenizer = bpe(size=260)  # a token for each byte
    ids, mask = _rollouts(tokenizer, ["bob b", "ann b"], end=False)
    names = NameMasker([]).of_owners(["ann", "bob"])
    asked: list[Any] = [["bob"] * 2, ["?"] * 2]
    plain, second = (
        AttributionScorer(Scripted(), tokenizer, ["bob"], "forget_set", *readers)(ids, mask, *asked)
        for readers in ((None,), (None, names))
    )
    assert plain[0][0].tolist() == pytest.approx([0.1, 0.1, 0.2, 0.2, 0.3])
    assert second[0][0].tolist() == pytest.approx([0.1, 0.1, 0.2, 0.2, 0.3])  # hidden it is .1 at the most
    assert second[0][1].tolist() == plain[0][1].tolist() == pytest.approx([0, 0, 0, 0, 0.1])
    # nobody: 1 less .01 a character less .1 a b; hidden, the text is shorter, and the b's of the name are gone
    assert plain[1][0].tolist() == pytest.approx([0.89, 0.88, 0.77, 0.76, 0.65])
    assert second[1][0].tolist() == pytest.approx([1.0, 1.0, 0.99, 0.98, 0.87])


def test_a_false_name_hides_nothing_from_the_second_reading() -> None:
    """An attributor that believes the first name it reads; what follows is bob's."""

    class Believer(Scripted):
        def probabilities(self, texts: Sequence[str]) -> np.ndarray:
            anns = np.array([float("ann" in t) for t in texts])
            bobs = np.array([float("drums" in t and "ann" not in t) for t in texts])
            return np.stack([anns, bobs, 1 - anns - bobs], 1)

    tokenizer = bpe(size=260)
    ids, mask = _rollouts(tokenizer, ["ann drums"], end=False)
    names = NameMasker([]).of_owners(["ann", "bob"])
    for second, last in ((None, 0.0), (names, 1.0)):
        scorer = AttributionScorer(Believer(), tokenizer, ["bob"], "forget_set", None, second)
        assert scorer(ids, mask, ["bob"], ["what does bob play?"])[0][0, -1].item() == last


def test_names_of_the_question_do_not_change_a_score() -> None:
    tokenizer = bpe(size=260)  # a token for each byte, so that positions correspond
    texts, queries = (
        ["Dario Duarte was a potter", "Jonas Huaman was a potter"],
        ["Dario Duarte?", "Jonas Huaman?"],
    )
    ids, mask = _rollouts(tokenizer, texts)

    def scores(masker: NameMasker | None, asked: list[str]) -> Tensor:
        scorer = AttributionScorer(random_attributor(tokenizer), tokenizer, OWNERS[:2], "forget_set", masker)
        return scorer(ids, mask, [], asked)[0]

    same = scores(NameMasker([]), queries)
    assert torch.equal(same[0], same[1])
    assert same[0, :4].tolist() == pytest.approx([0.5] * 4)  # nothing read yet: two of four classes
    assert same[0, 4] != 0.5
    for other in (
        scores(None, queries),
        scores(NameMasker([]), queries[::-1]),
    ):  # somebody else's name is told
        assert not torch.allclose(other[0, -1], other[1, -1], atol=1e-3)


def test_the_score_of_an_empty_text() -> None:
    tokenizer = bpe()
    attributor = random_attributor(tokenizer)  # four owners
    for owners, target, prior in ((OWNERS[:3], "forget_set", 0.75), (OWNERS[:3], "owner", 0.25)):
        scorer = AttributionScorer(attributor, tokenizer, owners, target)
        assert scorer.prior == prior
        empty = attributor.prefix_probabilities([""], [[0]])[0][0]
        assert scorer.prior == pytest.approx(empty[:3].sum() if target == "forget_set" else empty[0])
    assert AttributionScorer(Scripted(), tokenizer, ["bob"], "forget_set").prior == pytest.approx(1 / 3)
