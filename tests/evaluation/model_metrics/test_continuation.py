"""MUSE's two metrics by hand: what the model is asked, and what of its answer counts."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from dareu.data.corpus import Sample
from dareu.evaluation.model_metrics.continuation import few_shot_prompt, knowledge_memory, verbatim_memory


class Words:
    """A tokenizer of words."""

    def __call__(self, text: str, add_special_tokens: bool) -> dict[str, list[str]]:
        return {"input_ids": text.split()}

    def decode(self, ids: list[str], skip_special_tokens: bool) -> str:
        return " ".join(ids)


class Speaker:
    """A subject that says what it is given to say; `asked` is what it was asked."""

    tokenizer = Words()

    def __init__(self, *said: str, room: int = 1000) -> None:
        self.said, self.free, self.asked, self.limit = said, room, list[str](), 0

    def rendered(self, prompts: list[str]) -> list[str]:
        return [f"<{p}>" for p in prompts]

    def room(self, prompts: list[str], tokens: int) -> int:
        return min(tokens, self.free)

    def answers(self, prompts: list[str], limit: int) -> list[Any]:
        self.asked, self.limit = prompts, limit
        return [SimpleNamespace(text=text) for text in self.said]


def text(prompt: str, response: str) -> Sample:
    return Sample("0", "Ada", prompt, response)


def test_verbatim_memory_by_hand() -> None:
    """Of four true words three come back, in order, among five: recall 3/4, precision 3/5, F1 2/3."""
    speaker = Speaker("one two no three no", "nothing at all")
    samples = [text("zero", "one two three four"), text("once", "upon a time")]
    assert verbatim_memory(speaker, samples) == pytest.approx([2 / 3, 0.0])  # type: ignore[arg-type]
    assert speaker.asked == ["<zero>", "<once>"] and speaker.limit == 128
    ideal = Speaker("one two three four", "upon a time")
    assert verbatim_memory(ideal, samples) == pytest.approx([1.0, 1.0])  # type: ignore[arg-type]


def test_the_true_continuation_is_cut_to_the_tokens_asked_for() -> None:
    speaker = Speaker("one two")
    assert verbatim_memory(speaker, [text("zero", "one two three four")], tokens=2) == [1.0]  # type: ignore[arg-type]
    narrow = Speaker("one two", room=2)  # the model's context holds no more
    assert verbatim_memory(narrow, [text("zero", "one two three four")]) == [1.0]  # type: ignore[arg-type]
    assert verbatim_memory(Speaker("x"), [text("zero", "…")]) == [None]  # type: ignore[arg-type]


def test_knowledge_memory_by_hand() -> None:
    """The first line alone counts: "in Rome" of "in Rome now" is recall 2/3, precision 1, F1 4/5."""
    speaker = Speaker(" in Rome\n\nQuestion: Who else?\nAnswer: now", "Oslo", "")
    asked = [text("Where?", "in Rome now"), text("And he?", "Lima"), text("And she?", "Bonn")]
    examples = [text("Who?", "Ada."), text("When?", "Then.")]
    found = knowledge_memory(speaker, asked, examples)  # type: ignore[arg-type]
    assert found == pytest.approx([4 / 5, 0.0, 0.0])
    assert speaker.limit == 32
    assert speaker.asked[0] == (
        "Question: Who?\nAnswer: Ada.\n\nQuestion: When?\nAnswer: Then.\n\nQuestion: Where?\nAnswer:"
    )
    assert few_shot_prompt("Where?", []) == "Question: Where?\nAnswer:"
