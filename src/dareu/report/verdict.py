"""A verdict in plain words, worked out from the figures alone: what moved, what broke, what is not known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from dareu.report.figures import BROKEN, dig, has_model, number, show, show_share, value

Tone = Literal["good", "fair", "bad", "none"]
TOLERANCE = 0.05  # figures this close count as equal; they are shares or ROUGE-L recall, 0 to 1
SEVERE = 0.15  # a loss on the retain or test set from here on is called bad


@dataclass(frozen=True)
class Point:
    """One finding. `kind` is what the headline goes by, such as "kept" or "broken"."""

    tone: Tone
    kind: str
    text: str


@dataclass(frozen=True)
class Verdict:
    tone: Tone
    headline: str
    points: tuple[Point, ...]


# The first kind that occurs gives the headline: what makes all other figures worthless comes first.
HEADLINES: tuple[tuple[str, Tone, str], ...] = (
    ("no figures", "none", "There are too few figures for a verdict."),
    ("broken", "bad", "Its answers to forget questions are broken text."),
    ("kept", "bad", "It has not forgotten."),
    ("damaged", "bad", "It forgot, but damaged what should stay."),
    ("partly", "fair", "It has forgotten only in part."),
    ("attributable", "fair", "The answers changed, yet they still point to the forgotten owners."),
    ("broken retain", "bad", "It forgot, but some answers that should stay are broken text."),
    ("worse", "fair", "It forgot, and lost a little of what should stay."),
    ("over", "fair", "It forgot more than retraining would."),
    ("reattributed", "fair", "It forgot, but its answers now point to other owners."),
    ("unjudged", "fair", "Its answers changed; by the right amount or not, nobody can say."),
    ("nothing", "none", "There was little to forget."),
    ("matched", "good", "By these figures it answers like a model that never saw the forgotten data."),
)


def verdict(results: Mapping[str, Any]) -> Verdict:
    """The headline and the findings behind it. Figures within `TOLERANCE` of each other count as equal."""
    points = [_forgetting(results)]
    points += [p for p in (_attribution(results), *_broken(results), _reattribution(results)) if p]
    points += [p for p in (_kept(results, "retain"), _kept(results, "test")) if p]
    if not has_model(results, "retrained"):
        points.append(
            Point(
                "fair",
                "",
                "There is no retrained model in this run. How much should be forgotten, and what an honest "
                "“I never saw this” looks like, is therefore not known.",
            )
        )
    points += [p for p in (_blind(results),) if p]
    kinds = {p.kind for p in points}
    kind, tone, headline = next(row for row in HEADLINES if row[0] in kinds)
    return Verdict(tone, headline, tuple(points))


def _beside(results: Mapping[str, Any], key: str) -> str:
    """ "retrained .544, original 1.000", of those that exist."""
    found = [(m, value(results, key, m)) for m in ("retrained", "original")]
    return ", ".join(f"{m} {show(x)}" for m, x in found if x is not None)


def _forgetting(results: Mapping[str, Any]) -> Point:
    ours, then = value(results, "forget_rouge_l"), value(results, "forget_rouge_l", "original")
    aim = value(results, "forget_rouge_l", "retrained")
    if ours is None or (aim is None and then is None):
        return Point("none", "no figures", "ROUGE on the forget set was not computed.")
    shown = f"Forget questions: ROUGE-L {show(ours)} ({_beside(results, 'forget_rouge_l')})."
    if aim is None:
        moved = then is not None and then - ours > TOLERANCE
        return Point("fair", "unjudged", shown) if moved else Point("bad", "kept", f"{shown} Nothing moved.")
    if ours < aim - TOLERANCE:
        return Point(
            "fair", "over", f"{shown} That is below the retrained model, further than forgetting asks for."
        )
    if ours <= aim + TOLERANCE and then is not None and then <= aim + TOLERANCE:
        return Point(
            "none", "nothing", f"{shown} The original hardly knows more about them than the retrained model."
        )
    if ours <= aim + TOLERANCE:
        return Point("good", "matched", f"{shown} It knows as much about them as the retrained model.")
    if then is not None and then - ours >= (then - aim) / 2:
        return Point("fair", "partly", f"{shown} More than half of the way to the retrained model.")
    return Point("bad", "kept", f"{shown} Less than half of the way to the retrained model.")


def _attribution(results: Mapping[str, Any]) -> Point | None:
    for key, judge in (
        ("attribution_heldout", "A held-out attributor"),
        ("attribution", "The attribution classifier"),
    ):
        ours, aim = value(results, key), value(results, key, "retrained")
        if ours is None:
            continue
        beside = _beside(results, key)
        text = f"{judge} ascribes {show(ours)} of its forget answers to the forgotten owners"
        text += f" ({beside})." if beside else "."
        if aim is None:
            return Point("none", "", text)
        return Point("fair", "attributable", text) if ours > aim + TOLERANCE else Point("good", "", text)
    return None


def _broken(results: Mapping[str, Any]) -> list[Point]:
    """Broken text beyond that of the retrained model, or of the original where there is none."""
    points = []
    base = "retrained" if has_model(results, "retrained") else "original"
    for part, where, kind in (
        ("text_health", "forget", "broken"),
        ("text_health_retain", "retain", "broken retain"),
    ):
        bad, known = [], False
        for name in BROKEN:
            ours = number(dig(results, "models", "unlearned", part, name))
            theirs = number(dig(results, "models", base, part, name)) or 0.0
            known = known or ours is not None
            if ours is not None and ours > theirs + TOLERANCE:
                bad.append(f"{show_share(ours)} {name} ({base} {show_share(theirs)})")
        if bad:
            points.append(Point("bad", kind, f"Broken {where} answers: {', '.join(bad)}."))
        elif known and where == "forget":
            points.append(
                Point(
                    "good",
                    "",
                    "Its forget answers are whole: no more empty, unfinished or repetitive text "
                    f"than the {base} model.",
                )
            )
    return points


def _reattribution(results: Mapping[str, Any]) -> Point | None:
    ours, aim = value(results, "reattribution"), value(results, "reattribution", "retrained")
    if ours is None or aim is None or ours <= aim + TOLERANCE:
        return None
    return Point(
        "fair",
        "reattributed",
        f"{show_share(ours)} of its forget answers are ascribed to an owner whom the "
        f"question is not about (retrained {show_share(aim)}).",
    )


def _kept(results: Mapping[str, Any], name: str) -> Point | None:
    key = f"{name}_rouge_l"
    ours, aim = value(results, key), value(results, key, "retrained")
    if aim is None:
        aim = value(results, key, "original")
    if ours is None or aim is None:
        return None
    shown = f"{name.capitalize()} questions: ROUGE-L {show(ours)} ({_beside(results, key)})."
    if aim - ours > SEVERE:
        return Point("bad", "damaged", f"{shown} Much was lost that should stay.")
    if aim - ours > TOLERANCE:
        return Point("fair", "worse", f"{shown} Some was lost that should stay.")
    return Point("good", "", f"{shown} Nothing was lost.")


def _blind(results: Mapping[str, Any]) -> Point | None:
    tug, similar = value(results, "tug_of_war"), value(results, "retrain_similarity")
    if tug is None or similar is None or tug - similar <= 2 * TOLERANCE:
        return None
    return Point(
        "fair",
        "",
        f"Tug-of-War, {show(tug)}, sees ROUGE alone; retrain similarity, {show(similar)}, also counts "
        "attribution and broken text. Go by the second.",
    )
