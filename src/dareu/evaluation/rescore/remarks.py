"""Logs that can hardly be what they are given for: said, not refused, for only their writer knows. Pure."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

from dareu.evaluation.metrics.base import number

Records = Sequence[Mapping[str, Any]]
Pairs = Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]]
VALUES = ("nll", "rouge_l", "response", "exact_memorisation", "knowmem", "verbmem")
KNOWN = 0.9  # membership AUC of a model that was trained on the forget set, on every published log
ENDS = 12  # characters of a prompt that tell its template


def remarks(records: Mapping[str, Records], summaries: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What a reader of figures has to know about the logs behind them.

    Args:
        records, summaries: by model ("unlearned", and "retrained", "original" where there are such logs).

    Returns:
        Sentences: two logs of the same answers, of another chat template, or in each other's place.
    """
    said = []
    for one, other in combinations(records, 2):
        pairs = _pairs(records[one], records[other])
        if _alike(pairs):
            said.append(
                f"The {one} and the {other} model's logs hold the same values: nothing follows from the two."
            )
        elif ends := _other_template(pairs):
            said.append(
                f"The {one} and the {other} model were asked in another chat template ({ends[0]!r}, {ends[1]!r}): "
                "probably two kinds of model, whose figures are no measure for each other."
            )
    forget = {name: summary.get("forget") or {} for name, summary in summaries.items()}
    if {"original", "retrained"} <= set(forget):
        o, r = (
            [number(forget[m].get(k)) for k in ("probability", "rouge_l")] for m in ("original", "retrained")
        )
        known = [(x, y) for x, y in zip(o, r, strict=True) if x is not None and y is not None]
        if any(y > x for x, y in known) and all(y >= x for x, y in known):
            said.append(
                "The retrained model knows more of the forget set than the original: were the two logs swapped?"
            )
    elif "retrained" in forget:
        auc = number((summaries["retrained"].get("membership") or {}).get("loss"))
        if auc is not None and auc >= KNOWN:
            said.append(
                f"The retrained model's losses tell forget from held-out samples (AUC {auc:.2f}), as those of a model "
                "that was trained on them: is it the log of the original, or of the unlearned model?"
            )
    return said


def _pairs(one: Records, other: Records) -> Pairs:
    """The records of the samples that both have, in the order of the first."""
    rows = {(r["set"], r["index"]): r for r in other}
    return [(r, rows[key]) for r in one if (key := (r["set"], r["index"])) in rows]


def _alike(pairs: Pairs) -> bool:
    """Whether all values that both records of a pair have are the same, and there are some."""
    both = [(a[k], b[k]) for a, b in pairs for k in VALUES if a.get(k) is not None and b.get(k) is not None]
    return bool(both) and all(a == b for a, b in both)


def _other_template(pairs: Pairs) -> tuple[str, str] | None:
    """The beginnings (or ends) of the first prompt, where two logs put the same question in different templates."""
    asked = ((a["prompt"], b["prompt"]) for a, b in pairs if a.get("prompt") and b.get("prompt"))
    ours, theirs = next(asked, ("", ""))
    for ends in ((ours[:ENDS], theirs[:ENDS]), (ours[-ENDS:], theirs[-ENDS:])):
        if ends[0].split() != ends[1].split():
            return ends
    return None
