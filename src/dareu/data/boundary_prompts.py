"""Boundary prompts: those of the retain set that look most like a forget prompt."""

import random
from collections.abc import Sequence

from dareu.data.corpus import Sample


def nearest(forget: Sequence[Sample], others: Sequence[Sample], count: int) -> list[int]:
    """Indices of the `count` samples of `others` whose prompts come nearest to a forget prompt, nearest first.

    Cosine of TF-IDF vectors over words, to the nearest forget prompt of each; of equals the first comes first.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    if count < 1:
        return []
    vectors = TfidfVectorizer(token_pattern=r"(?u)\w+").fit([s.prompt for s in (*forget, *others)])
    near = vectors.transform([s.prompt for s in others]) @ vectors.transform([s.prompt for s in forget]).T
    closest = near.max(axis=1).toarray().ravel()
    return sorted(range(len(others)), key=lambda i: (-round(float(closest[i]), 9), i))[:count]


def retain_count(forget: int, retain: int, share: float) -> int:
    """How many of `retain` prompts make up `share` of all, beside `forget` prompts; as far as they go."""
    return min(retain, round(forget * share / (1 - share)))


def retain_prompts(
    forget: Sequence[Sample], retain: Sequence[Sample], share: float, boundary: float, seed: int
) -> list[tuple[Sample, bool]]:
    """Retain samples whose prompts join the forget prompts, each with whether it is a boundary prompt.

    They make up `share` of all prompts, as far as the retain set goes; `boundary` of them are the nearest ones, the
    others are drawn from the rest by `seed`.
    """
    count = retain_count(len(forget), len(retain), share)
    close = nearest(forget, retain, round(count * boundary))
    rest = [i for i in range(len(retain)) if i not in set(close)]
    drawn = sorted(random.Random(seed).sample(rest, count - len(close)))
    return [(retain[i], True) for i in close] + [(retain[i], False) for i in drawn]
