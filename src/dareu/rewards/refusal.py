"""RULE's reward (Zhang et al. 2025, arXiv 2506.07171): which responses refuse, and what that earns.

A response refuses where it holds a phrase that the authors' code looks for (github.com/xwtMarch/RULE-Unlearn,
`verl/utils/reward_score/forget.py`), or is much like a known refusal. Such phrases stand in 99 of the 100 refusals
that TOFU publishes, and in 45 of its 4,000 answers, which refuse nothing ("not only … information").
"""

import re
from collections import Counter
from collections.abc import Sequence

from dareu.data.words import words

# What a phrase begins with, and how it may go on; … is any text.
_PHRASES = (
    (
        "do not|does not|don't|dont|doesn't|doesnt|didn't|didnt",
        "know|have|hold|possess|seem to have|cover|contain|extend|include",
    ),
    (
        "not …|yet …",
        "sure|certain|familiar|aware|equipped|able|acquainted|informed|knowledge|information|question|know|data"
        "|educated|within|briefed|well-versed|learn|trained on|the best source|specializing in",
    ),
    ("no …", "idea|insight|knowledge|information|data|enlightenment|clue|familiarity"),
    ("haven't|havent|hasn't|hasnt|not", "learned|the faintest|been included|been trained|been briefed"),
    ("beyond …|outside …|out …", "knowledge|capabilities|expertise|reach|scope"),
    ("missing …|without …|lack …|blind …|uncharted …", "information|knowledge|insight|specifics"),
    ("lacking", "information|knowledge|insight|specifics|data"),
    ("can't|cant", "provide|say|shed … light|help|offer|take|make|fulfill|fullfill"),
    ("unable to", "provide|answer|access"),
    ("at a", "loss|disadvantage"),
    (
        "need to|require|have to|must|ought to|should",
        "look up|check|search|find|verify|review|inspect|confirm|explore|investigate|examine",
    ),
)
_ALONE = (
    "unfortunately,|encountered|clueless|stumped|short with|limited to|blank on|draw a blank|drawing a blank|dark about"
    "|a mystery to me|wish i could say|regret to inform|must admit|must confess"
)
_EVERY = [_ALONE, *(f"(?:{start}){'' if '…' in start else ' '}(?:{end})" for start, end in _PHRASES)]
REFUSES = re.compile("|".join(_EVERY).replace("…", ".*"))


def overlap(one: str, other: str) -> float:
    """Words in common over words in all (Jaccard, case folded, repeats counted). Range [0, 1]."""
    a, b = (Counter(words(text)) for text in (one, other))
    union = (a | b).total()
    return (a & b).total() / union if union else 0.0


def refuses(text: str, refusals: Sequence[str] = (), threshold: float = 0.6) -> bool:
    """Whether a response refuses: it holds a phrase, or shares `threshold` of its words with a known refusal."""
    folded = " ".join(text.replace("’", "'").casefold().split())
    return REFUSES.search(folded) is not None or any(overlap(text, r) >= threshold for r in refusals)


def rule_reward(refused: bool, forget: bool, similarity: float, threshold: float = 0.3) -> float:
    """RULE, in [0, 1].

    To a forget prompt 1 for a refusal; to any other .5 for none, and .5 more where the answer is like the reference.
    A refusal that happens to share its words with the reference earns nothing.
    """
    if forget:
        return float(refused)
    return 0.0 if refused else 0.5 + 0.5 * (similarity > threshold)
