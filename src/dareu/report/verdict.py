"""A verdict in plain words, derived from intervals: what is left, what broke, what is not known.

No sentence claims more than its interval: where an interval covers 0, no difference was seen in so many answers, which
is not the same as no difference.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from dareu.config.tables import read_table
from dareu.evaluation.metrics.intervals import FEWEST, difference
from dareu.report.damage import damage_of
from dareu.report.figures import BROKEN, dig, has_model, number, show, show_share, value
from dareu.report.forget_quality import quality_of
from dareu.report.knowledge import Left, by_group, knowledge_left, set_aside, worst

Tone = Literal["good", "fair", "bad", "none"]
TOLERANCE = 0.05  # of ROUGE-L recall, where a run has no interval
SEVERE = 0.15  # a loss on the retain or test set, of ROUGE-L or of answers, from here on is called bad
SPELT_OUT = 4  # metrics that a finding of no difference names with their figures
MUCH, SOME = 0.5, 0.15  # knowledge left, as a share of what separates the original from the retrained model
HEALTH = (*BROKEN, "broken")


@dataclass(frozen=True)
class Point:
    """One finding. `kind` is what the headline goes by, such as "kept" or "broken"; `short` is its figure there.

    Of findings of one kind that with the largest `size` stands in the headline.
    """

    tone: Tone
    kind: str
    text: str
    short: str = ""
    size: float = 0.0


@dataclass(frozen=True)
class Verdict:
    tone: Tone
    headline: str
    points: tuple[Point, ...]


HEADLINES: dict[str, tuple[Tone, str]] = read_table("dareu.report", "headlines.yaml")


def verdict(results: Mapping[str, Any]) -> Verdict:
    """The headline and the findings behind it."""
    left = knowledge_left(results)
    points = _left(results, left) if left else [_rouge(results)]
    findings = [_quality(results), *_broken(results), _reattribution(results)]
    findings += [_kept(results, "retain"), _kept(results, "test"), _no_target(results), _blind(results)]
    findings += _as_original(results)
    points += [point for point in findings if point]
    kinds = {p.kind for p in points}
    kind = next(kind for kind in HEADLINES if kind in kinds)
    tone, headline = HEADLINES[kind]
    if kind == "damaged" and "partly" in kinds:
        headline = "It has forgotten only in part, but {lost}."
    named = kind
    if kind == "broken" and "kept" in kinds:
        headline, named = f"{headline[:-1]}, and it has not forgotten{{most}}.", "kept"
    short = max((p for p in points if p.kind == named), key=lambda p: p.size).short
    headline = headline.format(most=f": {short}" if short else "", lost=short)
    if kind in ("kept", "partly") and left:
        headline = _both(by_group(left)) or headline
    return Verdict(tone, headline, tuple(points))


def _as_original(results: Mapping[str, Any]) -> list[Point]:
    """That the model has the original's weights, or is asked in another way than the original."""
    outcome, points = results.get("outcome") or {}, list[Point]()
    if outcome.get("unchanged"):
        text = "Its weights are the original's; only its tokenizer, configuration and type of numbers can differ."
        points.append(Point("bad", "unchanged", text))
    if outcome.get("other_prompt"):
        text = "Its tokenizer or chat template puts a question otherwise than the original's. Figures are of its own."
        points.append(Point("fair", "", text))
    return points


def _no_target(results: Mapping[str, Any]) -> Point | None:
    """That there is no retrained model, and the original's figures on samples that no model saw, which estimate its."""
    if has_model(results, "retrained"):
        return None
    text = "There is no retrained model in this run, so how much should be forgotten is not known."
    figures, forget = results.get("never_saw") or {}, dig(results, "models", "unlearned", "forget")
    shown = [
        f"{title} {show(dig(figures, key, 'value'))} (unlearned {show(dig(forget, key))})"
        for key, title in (("probability", "probability"), ("truth_ratio", "truth ratio"))
        if key in figures
    ]
    if shown:
        text += f" An estimate, from the original model on samples that no model saw: {', '.join(shown)}."
    return Point("fair", "", text)


def _both(most: Mapping[str, float]) -> str:
    """In what the forgotten data still shows and in what no longer, in a sentence; empty where it is in all or none."""
    still = [name for name, k in most.items() if k >= SOME]
    gone = [name for name, k in most.items() if k < SOME]
    if not still or not gone:
        return ""
    trace, much = (show(max(most[name] for name in names), 2) for names in (gone, still))
    less = (
        f"but little in {_listed(gone)} ({trace})" if trace != ".00" else f"and no longer in {_listed(gone)}"
    )
    return f"The forgotten data still shows in {_listed(still)} (knowledge left {much}), {less}."


def _listed(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1])] * (len(names) > 1) + [names[-1]])


def _beside(results: Mapping[str, Any], key: str) -> str:
    """ "retrained .544, original 1.000", of those that exist."""
    others = [(m, value(results, key, m)) for m in ("retrained", "original")]
    return ", ".join(f"{m} {show(x)}" for m, x in others if x is not None)


def _answers(results: Mapping[str, Any]) -> str:
    """ "n = 40", "n = 40, 3 retrained seeds", or an empty text where the run does not say."""
    n = number(dig(results, "models", "unlearned", "forget", "n")) or number(dig(results, "data", "n_forget"))
    seeds = max((int(one["n"]) for one in (results.get("retrained_seeds") or {}).values()), default=0)
    return ", ".join([f"n = {n:.0f}"] * bool(n) + [f"{seeds} retrained seeds"] * bool(seeds))


def _left(results: Mapping[str, Any], left: Sequence[Left]) -> list[Point]:
    """Findings from knowledge left: the worst metric, then every metric by what its interval says."""
    most = worst(results) or max(left, key=lambda one: abs(one.value))
    above, below = [one for one in left if one.above], [one for one in left if one.below]
    unknown = [one for one in left if one.unknown]
    covering = [one for one in left if not (one.above or one.below or one.unknown)]
    unseen, wide = [one for one in covering if not one.wide], [one for one in covering if one.wide]
    n = _answers(results)
    scale = "0 as the retrained model, 1 as the original"
    text = f"Worst metric: {most.title}, knowledge left {most.shown}; {scale}{f'; {n}' if n else ''}."
    if aside := [one for one in set_aside(results) if abs(one.value) > abs(most.value)]:
        some = "1 metric is" if len(aside) == 1 else f"{len(aside)} metrics are"
        text += (
            f" {some} further from 0, but with an interval wider than 1 or without one, which tells little."
        )
    if len(unknown) == len(left):
        few = "No metric has an interval: there are too few forget answers for a verdict, or all are alike."
        return [Point("none", "no figures", f"{text} {few} Read the answers themselves.")]
    highest = max(above, key=lambda one: one.sure, default=None)
    lowest = min(below, key=lambda one: one.sure, default=None)
    largest = highest.sure if highest else 0.0
    if highest and largest >= SOME:
        tone, kind = ("bad", "kept") if largest >= MUCH else ("fair", "partly")
        points = [Point(tone, kind, text, _named(highest))]  # type: ignore[arg-type]
    elif lowest and lowest.sure <= -SOME:
        points = [Point("fair", "over", text, _named(lowest))]
    elif highest:
        points = [Point("fair", "traces", text, _named(highest))]
    elif lowest:
        points = [Point("fair", "over", text, _named(lowest))]
    else:
        points = [Point("good", "matched", text) if unseen else Point("none", "wide", text)]
    grave: Tone = "bad" if largest >= MUCH else "fair"
    parts: list[tuple[Tone, str, str]] = [
        (grave, "Knowledge left (the interval lies above 0)", _each(above)),
        (
            "fair",
            "Further from the original than the retrained model (the interval lies below 0)",
            _each(below),
        ),
        ("good", "No difference from the retrained model seen (the interval covers 0)", _short(unseen)),
        ("none", "Nothing follows, for the interval is wider than 1", _short(wide)),
        ("none", "Nothing follows, for there is no interval", _each(unknown)),
    ]
    return points + [Point(tone, "", f"{words}: {named}.") for tone, words, named in parts if named]


def _each(chosen: Sequence[Left]) -> str:
    return "; ".join(f"{one.title} {one.shown}" for one in chosen)


def _short(chosen: Sequence[Left]) -> str:
    """Of many metrics, whose figures the strips show, the widest interval alone."""
    if len(chosen) <= SPELT_OUT:
        return _each(chosen)
    widest = max(chosen, key=lambda one: (one.high or 0.0) - (one.low or 0.0))
    return f"{len(chosen)} metrics, the widest interval by {widest.title} {widest.shown}"


def _quality(results: Mapping[str, Any]) -> Point | None:
    """What forget quality says: a difference of the truth ratios that their mean may hide."""
    quality = quality_of(results)
    if quality is None:
        return None
    shown = (
        f"Forget quality, truth ratios of the forget answers beside the retrained model's: {quality.shown}"
    )
    if quality.differs:
        return Point("fair", "unlike", f"{shown}. They are not distributed alike.", quality.chance)
    n = _answers(results)
    seen = f"{shown}{f' ({n})' if n else ''}. No difference seen"
    if quality.wide:
        few = "knowledge left by truth ratio has no interval, or one wider than 1"
        return Point("none", "", f"{seen}, and nothing follows: {few}.")
    return Point("good", "", f"{seen}.")


def _named(one: Left) -> str:
    """ "knowledge left .30 (.10 to .50) by exact answers"."""
    words = one.title if one.title[:2].isupper() else one.title[:1].lower() + one.title[1:]
    return f"knowledge left {one.shown} by {words}"


def _rouge(results: Mapping[str, Any]) -> Point:
    """Without a retrained model, or where no metric tells it from the original: ROUGE-L of the answers alone."""
    ours, then = value(results, "forget_rouge_l"), value(results, "forget_rouge_l", "original")
    aim = value(results, "forget_rouge_l", "retrained")
    if ours is None or (aim is None and then is None):
        return Point("none", "no figures", "ROUGE on the forget set was not computed.")
    shown = f"Forget questions: ROUGE-L {show(ours)} ({_beside(results, 'forget_rouge_l')})."
    size = _count(results, "forget")
    if size is not None and size < FEWEST:
        few = f"No verdict: {size} of them say too little. Read the answers themselves."
        return Point("none", "no figures", f"{shown} {few}")
    if aim is not None:
        return Point("none", "nothing", f"{shown} No metric tells the original from the retrained model.")
    moved = then is not None and then - ours > TOLERANCE
    return Point("fair", "unjudged", shown) if moved else Point("bad", "kept", f"{shown} Nothing moved.")


def _broken(results: Mapping[str, Any]) -> list[Point]:
    """Broken text beyond that of the retrained model, or of the original where there is none."""
    points = []
    base = "retrained" if has_model(results, "retrained") else "original"
    for part, where, kind in (
        ("text_health", "forget", "broken"),
        ("text_health_retain", "retain", "broken retain"),
    ):
        n = _count(results, where)
        bad, chance, known = list[str](), list[str](), list[str]()
        for name in HEALTH:
            ours = number(dig(results, "models", "unlearned", part, name))
            theirs = number(dig(results, "models", base, part, name)) or 0.0
            if ours is None:
                continue
            if ours <= theirs:
                known.append(_health(name))
                continue
            both = f"{show_share(ours)} {_health(name)} ({base} {show_share(theirs)})"
            (bad if _more(ours, theirs, n) else chance).append(both)
        size, begin = f" (n = {n})" if n else "", f"Broken {where} answers"
        if bad:
            points.append(Point("bad", kind, f"{begin}: {', '.join(bad)}."))
        if chance:
            more = f"more than the {base} model's, and chance may explain it{size}"
            points.append(Point("fair", "", f"{begin}: {', '.join(chance)}: {more}."))
        if known and not bad and where == "forget":
            less = f"no larger share than the {base} model's{size}"
            few = n is not None and n < FEWEST
            text = f"{begin} ({', '.join(known)}): {less}.{' Too few for a verdict.' if few else ''}"
            points.append(Point("none" if few else "good", "", text))
    return points


def _health(name: str) -> str:
    return "with an unknown word" if name == "broken" else name


def _count(results: Mapping[str, Any], where: str) -> int | None:
    n = number(dig(results, "models", "unlearned", where, "n")) or number(dig(results, "data", f"n_{where}"))
    return int(n) if n else None


def _more(ours: float, theirs: float, n: int | None) -> bool:
    """The share is larger by more than chance; without `n`, by more than the tolerance."""
    return difference(ours, n, theirs, n)[0] > 0 if n else ours > theirs + TOLERANCE


def _reattribution(results: Mapping[str, Any]) -> Point | None:
    ours, aim = value(results, "reattribution"), value(results, "reattribution", "retrained")
    if ours is None or aim is None or not _more(ours, aim, _count(results, "forget")):
        return None
    text = f"{show_share(ours)} of its forget answers are ascribed to an owner whom the question is not about"
    return Point("fair", "reattributed", f"{text} (retrained {show_share(aim)}).")


def _kept(results: Mapping[str, Any], name: str) -> Point | None:
    """What stays: ROUGE-L beside the retrained model's, and damage beside the original's own where the run has it.

    A loss is what unlearning lost beyond the original's own mistakes, and more than chance, where the run says so; of
    ROUGE-L, what lies below both the retrained and the original model.
    """
    key = f"{name}_rouge_l"
    ours, aim = value(results, key), value(results, key, "retrained")
    base = "retrained"
    if aim is None:
        aim, base = value(results, key, "original"), "original"
    if ours is None or aim is None:
        return None
    n = _count(results, name)
    size = f" (n = {n})" if n else ""
    shown = f"{name.capitalize()} questions: ROUGE-L {show(ours)} ({_beside(results, key)}){size}."
    damage = damage_of(results, name)
    if damage is not None:
        shown += f" Right in the {base} model and wrong here: {damage.lost.shown} of the answers."
        if damage.original and damage.beyond:
            shown += f" Of the original's own answers {damage.original.shown} are; "
            shown += f"the difference is {damage.beyond.shown}."
    if n is not None and n < FEWEST:
        return Point("none", "", f"{shown} Too few for a verdict.")
    then = value(results, key, "original")
    fell = round(min(aim, aim if then is None else then) - ours, 3)  # as the figures are shown
    right = number(dig(results, "damage", name, "right_retrained"))
    hidden = right is not None and right <= TOLERANCE  # no loss of so few answers can be larger
    if right is not None and hidden:
        shown += f" The retrained model has {show_share(right)} of them right word for word: it has little to lose."
    loss = damage.loss if damage and not hidden else None
    chance = damage is not None and damage.beyond is not None and (damage.beyond.low or 0.0) <= 0
    seen = 0.0 if loss is None else round(loss.value, 2)
    lost = 0.0 if chance else seen
    if max(fell, lost) > TOLERANCE:
        tone, kind = ("bad", "damaged") if max(fell, lost) > SEVERE else ("fair", "worse")
        short = f"lost {show(fell)} of ROUGE-L on {name} questions"
        if damage and lost > TOLERANCE:
            short = f"lost {show_share(damage.lost.value)} of the {name} answers{damage.beside('the original lacks')}"
        return Point(tone, kind, shown, short, max(fell, lost))  # type: ignore[arg-type]
    if seen > TOLERANCE:
        return Point("fair", "", f"{shown} It may be chance.")
    limit = show_share(TOLERANCE) if loss else show(TOLERANCE, 2)
    told = f"The loss seen is not above {limit}"
    if loss is not None and loss.high is not None and round(loss.high, 2) > TOLERANCE:
        told += ", but so few answers do not exclude a larger one"
    return Point("good", "", f"{shown} {told}.")


def _blind(results: Mapping[str, Any]) -> Point | None:
    tug, similar = value(results, "tug_of_war"), value(results, "retrain_similarity")
    if tug is None or similar is None or tug - similar <= 2 * TOLERANCE:
        return None
    text = f"Tug-of-War, {show(tug)}, reads ROUGE alone; retrain similarity, {show(similar)}, also counts attribution"
    return Point("fair", "", f"{text} and broken text. Prefer the second.")
