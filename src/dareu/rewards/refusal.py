"""RULE's reward (Zhang et al. 2025, arXiv 2506.07171): which responses refuse, and what that earns.

A response refuses where it says of its speaker ("I", "we", "my …") that knowledge or an answer is lacking, or where it
is much like a known refusal. The patterns are a grammar of such sentences, written against the list that TOFU publishes
(`idontknow.jsonl`, Maini et al. 2024); a list of one's own goes into `reward.refusals`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from dareu.data.words import words

_SPEAKER = r"\b(?:i|we)\b"
_NOT = (
    r"(?:\b(?:not|never|no|nothing|cannot|can not|won['’]t|have yet|['’]ve yet)\b|\bcan['’]?t\b|\w+n['’]t\b)"
)
# What one can or cannot do with a question.
_KNOW = (
    r"\b(?:know\w*|sure|certain|familiar|acquainted|aware|inform\w*|briefed|educated|trained|programmed|learn\w*|taught"
    r"|equipped|privy|versed|answer\w*|idea|clue|faintest|insight|data|help|tell|say|shed|share|provide|give|speak"
    r"|told|heard|discuss|recall|comment|respond|offer|repl(?:y|ies)|record|facts|reliable|source|encountered"
    r"|came across|come across|heard of|read about|position to|specifics|familiarity|enlightenment|the right ai)\b"
)
# What knowledge lies in.
_STORE = (
    r"(?:\w+ ){0,2}(?:knowledge|training|data\w*|understanding|programming|resources?|capabilit\w+|expertise|scope"
    r"|reach|field|memory)\b"
)
_GAP = r"[^.!?]{0,45}?"  # within a sentence
PATTERNS = tuple(
    re.compile(pattern)
    for pattern in (
        rf"{_SPEAKER}{_GAP}{_NOT}{_GAP}{_KNOW}",
        rf"{_NOT}[^.!?]{{0,30}}?{_SPEAKER}{_GAP}{_KNOW}",
        rf"{_NOT}{_GAP}\bmy {_STORE}",
        rf"\bmy {_STORE}[^.!?]{{0,30}}?(?:{_NOT}|\bends\b|\blimited to\b)",
        rf"\b(?:beyond|outside|out of|within|blind spot|gap|uncharted)\b{_GAP}\b"
        rf"(?:my {_STORE}|i (?:know|knew|was taught)\b)",
        rf"{_SPEAKER}(?:['’]\w+)?(?: \w+){{0,3}} (?:unable|unaware|clueless|stumped|lack\w*|missing|blank|ignorant"
        r"|guessing|in the dark|at a loss|at a disadvantage|come up short|need to look|must pass|must decline)\b",
        r"\b(?:unknown|mystery|not known|means nothing|beyond what|outside what)\b.*\b(?:to me|i know)\b",
        rf"\bwhat i know\b{_GAP}{_NOT}{_GAP}\bthere\b",
        r"\bwould (?:have to make (?:something|it) up|be (?:invented|wrong of me))\b",
        r"\b(?:sorry|afraid|apologi[sz]e|regret)\b.*\b(?:not|no|nothing|cannot|can['’]?t|unable|don['’]t)\b",
        r"\bno answer comes to mind\b",
    )
)


def overlap(one: str, other: str) -> float:
    """Words in common over words in all (Jaccard, case folded, repeats counted). Range [0, 1]."""
    a, b = (Counter(words(text)) for text in (one, other))
    union = (a | b).total()
    return (a & b).total() / union if union else 0.0


def refuses(text: str, refusals: Sequence[str] = (), threshold: float = 0.6) -> bool:
    """Whether a response refuses: it fits a pattern, or shares `threshold` of its words with a known refusal."""
    folded = " ".join(text.casefold().split())
    return any(p.search(folded) for p in PATTERNS) or any(overlap(text, r) >= threshold for r in refusals)


def rule_reward(refused: bool, forget: bool, similarity: float, threshold: float = 0.3) -> float:
    """RULE, in [0, 1].

    To a forget prompt 1 for a refusal; to any other .5 for none, and .5 more where the answer is like the reference.
    A refusal that happens to share its words with the reference earns nothing.
    """
    if forget:
        return float(refused)
    return 0.0 if refused else 0.5 + 0.5 * (similarity > threshold)
