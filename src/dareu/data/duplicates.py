"""Forget samples that also stand, word for word, nearly so or in other words, among those that stay."""

import unicodedata
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from math import ceil
from typing import Any

from dareu.data.corpus import Corpus, Sample, Split
from dareu.data.words import words
from dareu.errors import DataError

NEAR = 0.85


@dataclass(frozen=True)
class Duplicate:
    """A forget sample and the retain sample that says the same. `similarity` is 1 where it does so word for word."""

    forget: str
    retain: str
    forget_owner: str
    retain_owner: str
    similarity: float


def find_duplicates(
    forget: Sequence[Sample], retain: Sequence[Sample], near: float = NEAR
) -> list[Duplicate]:
    """For each forget sample its nearest retain sample, if their Jaccard similarity is `near` or more.

    The similarity is that of the words of prompt and response, each counted as often as it stands there, without regard
    to case. Candidates come from an index of each sample's rarest words: two samples as similar as `near` share one of
    them (prefix filtering), so that time grows with the number of rows and not with their product.

    Args:
        near: Least similarity, in (0, 1].

    Returns:
        At most one entry for each forget sample, in their order.
    """
    bags = [_bag(s) for s in (*forget, *retain)]
    spread = Counter(token for bag in bags for token in bag)
    own, others = bags[: len(forget)], bags[len(forget) :]
    exact: dict[frozenset[tuple[str, int]], int] = {}
    index: dict[tuple[str, int], list[int]] = defaultdict(list)
    for place, bag in enumerate(others):
        exact.setdefault(bag, place)
        for token in _rarest(bag, spread, near):
            index[token].append(place)
    duplicates = []
    for sample, bag in zip(forget, own, strict=True):
        best, score = exact.get(bag, -1), 1.0
        if best < 0:
            best, score = _nearest(bag, others, index, spread, near)
        if best >= 0 and bag:
            twin = retain[best]
            duplicates.append(Duplicate(sample.id, twin.id, str(sample.owner), str(twin.owner), score))
    return duplicates


def _bag(sample: Sample) -> frozenset[tuple[str, int]]:
    """The words of a sample, the n-th occurrence of each as an item of its own."""
    text = unicodedata.normalize("NFKC", f"{sample.prompt} {sample.response}")
    seen: Counter[str] = Counter()
    items = set()
    for word in words(text):
        seen[word] += 1
        items.add((word, seen[word]))
    return frozenset(items)


def _rarest(
    bag: frozenset[tuple[str, int]], spread: Counter[tuple[str, int]], near: float
) -> list[tuple[str, int]]:
    """So many of the rarest items that a bag as similar as `near` has one of them."""
    count = len(bag) - ceil(near * len(bag) - 1e-9) + 1
    return sorted(bag, key=lambda item: (spread[item], item))[:count]


def _nearest(
    bag: frozenset[tuple[str, int]],
    others: Sequence[frozenset[tuple[str, int]]],
    index: dict[tuple[str, int], list[int]],
    spread: Counter[tuple[str, int]],
    near: float,
) -> tuple[int, float]:
    best, score = -1, near - 1e-9
    for place in sorted({p for item in _rarest(bag, spread, near) for p in index.get(item, ())}):
        other = others[place]
        if min(len(bag), len(other)) < near * max(len(bag), len(other)):
            continue
        shared = len(bag & other)
        similarity = shared / (len(bag) + len(other) - shared)
        if similarity > score:
            best, score = place, similarity
    return best, round(score, 6)


def duplicates_note(duplicates: Sequence[Duplicate], forget: int, listed: int = 5) -> str | None:
    """What to say of them; None where there is none."""
    if not duplicates:
        return None
    exact = sum(one.similarity == 1 for one in duplicates)
    names = Counter(one.retain_owner for one in duplicates)
    owners = ", ".join(f"{owner} ({n})" for owner, n in names.most_common(listed))
    more = ", …" if len(names) > listed else ""
    pairs = "; ".join(f"{one.forget} = {one.retain}" for one in duplicates[:listed])
    return (
        f"{len(duplicates)} of {forget} forget samples also stand among those who stay, {exact} word for word, and "
        f"will be learnt again: with {owners}{more}. {pairs}{'; …' if len(duplicates) > listed else ''}"
    )


def unseen_note(corpus: Corpus, listed: int = 5) -> str | None:
    """What to say of holdout and test samples that models are trained on all the same; None where there is none."""
    learnt = {(s.prompt, s.response): s.id for s in reversed(corpus.samples)}
    unseen = corpus.holdout + (() if corpus.teach_test else corpus.test)
    pairs = [f"{s.id} = {learnt[s.prompt, s.response]}" for s in unseen if (s.prompt, s.response) in learnt]
    if not pairs:
        return None
    return (
        f"{len(pairs)} of {len(unseen)} samples of the holdout and the test set also stand in the data, word for word, "
        "so that models are trained on them: membership inference compares with them, and the test set is to measure "
        f"other knowledge. Leave them out. {'; '.join(pairs[:listed])}{'; …' if len(pairs) > listed else ''}"
    )


def duplicates_tree(duplicates: Sequence[Duplicate], listed: int = 100) -> dict[str, Any]:
    """What `results.json` holds of them: how many, how many word for word, and the first `listed` pairs."""
    return {
        "count": len(duplicates),
        "word_for_word": sum(one.similarity == 1 for one in duplicates),
        "pairs": [asdict(one) for one in duplicates[:listed]],
    }


def plant(corpus: Corpus, split: Split, count: int) -> Corpus:
    """The corpus with `count` paraphrased forget samples more, under owners who stay (the paper's semantic overlap).

    They are taken evenly over the forget samples that have a paraphrased response, and given to the owners who stay in
    turn. So the original and the retrained model learn them, and unlearning has to keep what they say.

    Raises:
        DataError: Fewer samples have a paraphrased response.
    """
    told = [s for s in split.forget if s.paraphrased_response]
    if count > len(told):
        raise DataError(
            f"forget.planted={count}, but {len(told)} of {len(split.forget)} forget samples have a paraphrased "
            "response.",
            f"Set forget.planted to at most {len(told)}."
            if told
            else "Take data with paraphrased responses.",
        )
    chosen = [told[i * len(told) // count] for i in range(count)]
    owners = split.retain_owners
    planted = (_planted(s, owners[i % len(owners)]) for i, s in enumerate(chosen))
    return replace(corpus, samples=(*corpus.samples, *planted))


def _planted(sample: Sample, owner: str) -> Sample:
    prompt = next(iter(sample.paraphrased_prompts), sample.prompt)
    return Sample(f"{sample.id}, planted", owner, prompt, str(sample.paraphrased_response))
