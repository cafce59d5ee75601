"""RULE's reward (Zhang et al. 2025, arXiv 2506.07171): which responses refuse, and what that earns.

A response refuses where it holds a phrase that the authors' code looks for (`refusal.yaml`), or is much like a known
refusal. Such phrases stand in 99 of the 100 refusals
that TOFU publishes, and in 45 of its 4,000 answers, which refuse nothing ("not only … information").
"""

import re
from collections import Counter
from collections.abc import Sequence

from dareu.config.tables import read_table
from dareu.data.owner_names import folded
from dareu.data.words import words


def _pattern() -> re.Pattern[str]:
    """What finds a phrase of the table, in a text in small letters."""
    table = read_table("dareu.rewards", "refusal.yaml")
    alternatives = list(table["alone"])
    for row in table["phrases"]:
        begins, ends = "|".join(row["begins"]), "|".join(row["ends"])
        alternatives.append(f"(?:{begins}){'' if '…' in begins else ' '}(?:{ends})")
    return re.compile("|".join(alternatives).replace("…", ".*"))


REFUSES = _pattern()


def overlap(one: str, other: str) -> float:
    """Words in common over words in all (Jaccard, case folded, repeats counted). Range [0, 1]."""
    a, b = (Counter(words(text)) for text in (one, other))
    union = (a | b).total()
    return (a & b).total() / union if union else 0.0


def refuses(text: str, refusals: Sequence[str] = (), threshold: float = 0.6) -> bool:
    """Whether a response refuses: it holds a phrase, or shares `threshold` of its words with a known refusal."""
    plain = " ".join(folded(text)[0].casefold().split())
    return REFUSES.search(plain) is not None or any(overlap(text, r) >= threshold for r in refusals)


def rule_reward(refused: bool, forget: bool, similarity: float, threshold: float = 0.3) -> float:
    """RULE, in [0, 1].

    To a forget prompt 1 for a refusal; to any other .5 for none, and .5 more where the answer is like the reference.
    A refusal that happens to share its words with the reference earns nothing.
    """
    if forget:
        return float(refused)
    return 0.0 if refused else 0.5 + 0.5 * (similarity > threshold)
