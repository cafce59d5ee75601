"""Rewards that read the text of a whole response: refusals, forbidden words, similarity. Strings in, numbers out.

A similarity is a number in [0, 1] that the caller has measured, such as ROUGE-L.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence, Set

from dareu.data.words import fold, words, written_words

# What a refusal says in its own words: somebody cannot, or does not, followed by what is refused.
_UNABLE = (
    r"\b(?:i|we)(?:['’]m| am|['’]re| are)? (?:\w+ )?"
    r"(?:cannot|can['’]?t|can not|could not|couldn['’]?t|do not|don['’]?t|won['’]?t|will not"
    r"|not able to|unable to|not in a position to)"
)
_REFUSED = (
    r"\b(?:know|say|tell|answer|help|share|provide|give|speak|discuss|recall|comment|respond|offer|have)\b"
)
PATTERNS = tuple(
    re.compile(pattern)
    for pattern in (
        rf"{_UNABLE}(?: \w+)?? {_REFUSED}",
        r"\b(?:i|we)(?: have|['’]ve) (?:no|nothing|never) ",
        r"\b(?:i|we)(?: \w+){1,3} no (?:answer|idea|information|knowledge)\b",
        r"\b(?:is|are|remains?) (?:unknown|not known|beyond what|outside what)\b.*\bme\b",
        r"\b(?:i|we) (?:know (?:of )?(?:no|nothing)|lack|must pass|never (?:came|come|heard|read|met))\b",
        r"\b(?:i|we)(?:['’]m| am|['’]re| are) not (?:acquainted|aware|familiar)\b",
        r"\b(?:never|not|outside|beyond|gap)\b.*\b(?:what|everything|anything) i (?:know|knew|was taught)\b",
        r"\bwhat i know\b.*\bnot there\b",
        r"\bmy knowledge (?:does not|doesn['’]?t|ends)\b",
        r"\b(?:nothing (?:that )?i (?:have|know)|means nothing to me|no answer comes to mind)\b",
        r"\bwould (?:have to make (?:something|it) up|be (?:invented|wrong of me))\b",
        r"\b(?:sorry|afraid|regret)\b.*\b(?:not|no|nothing|cannot|can['’]?t|unable)\b",
    )
)


def overlap(one: str, other: str) -> float:
    """Words in common over words in all (Jaccard, case folded, repeats counted). Range [0, 1]."""
    a, b = (Counter(words(t)) for t in (one, other))
    union = (a | b).total()
    return (a & b).total() / union if union else 0.0


def refuses(text: str, refusals: Sequence[str], threshold: float = 0.6) -> bool:
    """Whether a response refuses: it fits a pattern, or shares `threshold` of its words with a known refusal."""
    folded = " ".join(text.casefold().split())
    return any(p.search(folded) for p in PATTERNS) or any(overlap(text, r) >= threshold for r in refusals)


def rule_reward(refused: bool, forget: bool, similarity: float, threshold: float = 0.3) -> float:
    """RULE (Zhang et al. 2025, arXiv 2506.07171), in [0, 1].

    To a forget prompt 1 for a refusal; to any other .5 for none, and .5 more where the answer is like the reference.
    A refusal that happens to share its words with the reference earns nothing.
    """
    if forget:
        return float(refused)
    return 0.0 if refused else 0.5 + 0.5 * (similarity > threshold)


def forbidden_words(
    forget: Iterable[str], retain: Sequence[str], common: Collection[str] = (), rare: float = 0.01
) -> frozenset[str]:
    """What PURGE forbids (arXiv 2601.20568): names, numbers and rare content words of the forget answers, folded.

    A name is a word written large inside a sentence. A word is rare where at most `rare` of the retain answers have
    it. `common`: words that are never forbidden (the stop words of a language); nor is a single letter.
    """
    seen = Counter(w for text in retain for w in set(words(text)))
    limit = rare * len(retain)
    found = set()
    for text in forget:
        for match in written_words(text):
            word, before = match.group(), text[: match.start()].rstrip()
            start = not before or before[-1] in ".!?:\n"
            name = word[0].isupper() and not start
            number = word[0].isdigit()
            if name or number or seen[fold(word)] <= limit:
                found |= {fold(word), _bare(fold(word))}
    return frozenset(w for w in found if len(w) > 1 and w not in common)


def purge_reward(text: str, forbidden: Set[str]) -> float:
    """1 where no forbidden word appears, else 0."""
    return float(not any(forbidden & {w, _bare(w)} for w in words(text)))


def _bare(word: str) -> str:
    """A word without its possessive ending."""
    return re.sub(r"['’]s$", "", word)


def dissimilarity(similarity: float) -> float:
    """−similarity to the true answer: DeMem (Kassem et al. 2023). Range [−1, 0]."""
    return -similarity


def helpfulness(similarity: float) -> float:
    """similarity to the original's own answer, minus 1, so that an answer kept costs nothing. Range [−1, 0]."""
    return similarity - 1.0
