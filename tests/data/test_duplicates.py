"""Forget samples that also stand among those who stay."""

from __future__ import annotations

from typing import Any

import pytest

from dareu.data import duplicates
from dareu.data.corpus import Corpus, Sample
from dareu.data.duplicates import duplicates_note, find_duplicates, unseen_note


def sample(name: str, owner: str, prompt: str, response: str) -> Sample:
    return Sample(name, owner, prompt, response)


RETAIN = [
    sample("r0", "Bo", "Where?", "In the old red house by the river that runs past the mill."),
    sample("r1", "Cy", "Who?", "Ada Finch."),
    sample("r2", "Cy", "When?", "In May."),
]


def test_word_for_word_and_nearly_so() -> None:
    forget = [
        sample("f0", "Ada", "who", "ada  finch"),  # case, space and punctuation do not count
        sample("f1", "Ada", "Where?", "In the old red house by the river that runs past a mill."),
        sample("f2", "Ada", "Where?", "In the new town."),
        sample("f3", "Ada", "When?", "In June."),
    ]
    found = find_duplicates(forget, RETAIN)
    assert [(d.forget, d.retain, d.retain_owner) for d in found] == [("f0", "r1", "Cy"), ("f1", "r0", "Bo")]
    # 14 words each: 13 are shared but for the second "the", which became "a". 13 / 15.
    assert [d.similarity for d in found] == [1.0, pytest.approx(13 / 15, abs=1e-6)]
    assert len(find_duplicates(forget, RETAIN, near=0.9)) == 1
    note = duplicates_note(found, len(forget))
    assert note is not None
    assert note.startswith("2 of 4 forget samples also stand among those who stay, 1 word for word")
    assert "f0 = r1; f1 = r0" in note and "Cy (1), Bo (1)" in note
    assert duplicates_note([], 4) is None


def test_words_are_counted_as_often_as_they_stand() -> None:
    twice = [sample("r", "Bo", "", "no no no no no no no no no no")]
    assert find_duplicates([sample("f", "Ada", "", "no")], twice) == []
    assert find_duplicates([sample("f", "Ada", "", "...")], [sample("r", "Bo", "", "!")]) == []


def test_the_index_finds_what_a_comparison_of_all_pairs_finds() -> None:
    import random

    draw = random.Random(0)

    def text() -> str:
        return " ".join(draw.choice("abcdefg") for _ in range(draw.randint(1, 8)))

    forget = [sample(f"f{i}", "Ada", "", text()) for i in range(60)]
    retain = [sample(f"r{i}", "Bo", "", text()) for i in range(60)]

    def bag(s: Sample) -> set[tuple[str, int]]:
        parts = s.response.split()
        return {(w, parts[: i + 1].count(w)) for i, w in enumerate(parts)}

    for near in (0.5, 0.7, 1.0):
        best = {}
        for f in forget:
            scores = [len(bag(f) & bag(r)) / len(bag(f) | bag(r)) for r in retain]
            if max(scores) >= near - 1e-9:
                best[f.id] = round(max(scores), 6)
        assert {d.forget: d.similarity for d in find_duplicates(forget, retain, near)} == best


def test_the_work_is_linear_in_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    def rows(n: int, start: int) -> list[Sample]:
        return [
            sample(f"{i}", f"o{i % 400}", f"What is {i} of {i % 97}?", f"It is {i * 7} there.")
            for i in range(start, start + n)
        ]

    def compared(n: int) -> int:
        pairs = 0
        nearest = duplicates._nearest

        def counting(bag: Any, others: Any, index: Any, spread: Any, near: float) -> Any:
            nonlocal pairs
            pairs += len({p for item in duplicates._rarest(bag, spread, near) for p in index.get(item, ())})
            return nearest(bag, others, index, spread, near)

        monkeypatch.setattr(duplicates, "_nearest", counting)
        find_duplicates(rows(n // 10, 0), rows(n, 10**6))
        monkeypatch.setattr(duplicates, "_nearest", nearest)
        return pairs

    few, many = compared(1000), compared(8000)
    assert many <= 16 * max(few, 100)  # 8 times the rows; all pairs would be 64 times as many


def test_results_name_them() -> None:
    from dareu.data.duplicates import duplicates_tree

    found = find_duplicates([sample("f0", "Ada", "Who?", "Ada Finch.")], RETAIN)
    tree = duplicates_tree(found)
    assert (tree["count"], tree["word_for_word"], tree["pairs"][0]["retain"]) == (1, 1, "r1")
    assert duplicates_tree([]) == {"count": 0, "word_for_word": 0, "pairs": []}


def test_a_holdout_or_test_set_that_is_learnt_is_named() -> None:
    learnt = (sample("Ada/00", "Ada", "Who?", "Ada Finch."), sample("Ada/01", "Ada", "Where?", "In Rome."))
    holdout = (
        Sample("holdout/000", None, "Who?", "Ada Finch."),
        Sample("holdout/001", None, "Who?", "Cy Wren."),
    )
    test = (Sample("test/000", None, "Where?", "In Rome."),)
    found = unseen_note(Corpus(learnt, test, holdout=holdout))
    assert found and found.startswith("2 of 3 samples of the holdout and the test set also stand in the data")
    assert found.endswith("Leave them out. holdout/000 = Ada/00; test/000 = Ada/01")
    taught = unseen_note(Corpus(learnt, test, holdout=holdout, teach_test=True))  # learnt on purpose
    assert taught and taught.startswith("1 of 2 ") and "test/000" not in taught
    assert unseen_note(Corpus(learnt, holdout=holdout[1:])) is None
