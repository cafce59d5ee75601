"""A model that is asked once says what it says when it is asked every time, and computes less."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from models_fixture import PROMPTS, make_folder

from dareu.data.corpus import Sample
from dareu.evaluation.asked_once import Known
from dareu.evaluation.subject import Subject
from dareu.models.generate import Generation
from dareu.models.load import load_model


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    return Subject(*load_model(make_folder(tmp_path_factory.mktemp("model"))), batch_size=4)


@pytest.fixture
def passes(subject: Subject) -> Any:
    """Rows of every forward pass."""
    rows: list[int] = []
    handle = subject.model.register_forward_pre_hook(
        lambda _, args, kwargs: rows.append(len(kwargs["input_ids"])), with_kwargs=True
    )
    yield rows
    handle.remove()


def cost(passes: list[int], ask: Callable[[], Any]) -> int:
    before = sum(passes)
    ask()
    return sum(passes) - before


@pytest.mark.parametrize("order", [(12, 12, 3, 1), (3, 12, 2), (1, 3, 12)])
def test_greedy_answers_of_any_limit(subject: Subject, order: tuple[int, ...]) -> None:
    once = Known().of(subject)
    for tokens in order:
        assert once.answers(PROMPTS, tokens) == subject.answers(PROMPTS, tokens), tokens


def test_what_is_known_costs_nothing(subject: Subject, passes: list[int]) -> None:
    once = Known().of(subject)
    assert cost(passes, lambda: once.answers(PROMPTS, 12)) > 0
    assert not all(answer.finished for answer in once.answers(PROMPTS, 12))
    assert cost(passes, lambda: once.answers(PROMPTS, 12)) == 0
    assert cost(passes, lambda: once.answers(PROMPTS[1:], 5)) == 0
    assert cost(passes, lambda: subject.answers(PROMPTS[1:], 5)) > 0


def test_an_answer_is_cut_where_a_shorter_one_would_end() -> None:
    """Of 3 tokens and end-of-text: 4 hold all of it, 3 all but the end, 2 the first two."""

    class Words:
        def decode(self, ids: list[int], skip_special_tokens: bool) -> str:
            return " ".join("abc"[i] for i in ids)

    model = object()
    known = Known()
    known.answers["p"] = (9, Generation("a b c", [0, 1, 2], True))
    once = known.of(Subject(model, Words()))
    assert once.greedy(["p"], 4) == [Generation("a b c", [0, 1, 2], True)]
    assert once.greedy(["p"], 3) == [Generation("a b c", [0, 1, 2], False)]
    assert once.greedy(["p"], 2) == [Generation("a b", [0, 1], False)]
    assert once.greedy(["p"], 99) == [Generation("a b c", [0, 1, 2], True)]


def test_fewer_samples_are_the_first_of_more(subject: Subject, passes: list[int]) -> None:
    queries = [Sample(str(i), "Ada", prompt, "a potter") for i, prompt in enumerate(PROMPTS)]
    for planned in ({}, {1.0: 5}):
        known = Known()
        known.planned = planned
        once = known.of(subject)
        for count, temperature, seed in ((2, 1.0, 0), (5, 1.0, 0), (3, 1.0, 0), (2, 0.5, 0), (2, 1.0, 1)):
            asked = (queries, count, temperature, seed)
            assert once.samples(*asked) == subject.samples(*asked)
        assert cost(passes, lambda: once.samples(queries[1:], 4, 1.0, 0)) == 0  # noqa: B023
    known = Known()
    known.planned = {1.0: 5}
    known.of(subject).samples(queries, 2, 1.0, 0)
    assert cost(passes, lambda: known.of(subject).samples(queries, 5, 1.0, 0)) == 0


def test_likelihoods_with_and_without_end_of_text(subject: Subject, passes: list[int]) -> None:
    pairs = subject.pairs(PROMPTS, ["a potter"] * len(PROMPTS))
    once = Known().of(subject)
    for some, end in ((pairs[:2], True), (pairs, False), (pairs, True), (pairs[::-1], True)):
        found, plain = once.nlls(some, end), subject.nlls(some, end)
        assert [count for _, count in found] == [count for _, count in plain]
        assert [total for total, _ in found] == pytest.approx([total for total, _ in plain], abs=1e-4)
    assert cost(passes, lambda: once.nlls(pairs[1:])) == 0


def test_another_model_has_no_part_in_it(subject: Subject) -> None:
    known = Known()
    known.of(subject)
    with pytest.raises(ValueError, match="another model"):
        known.of(Subject(object(), subject.tokenizer))
