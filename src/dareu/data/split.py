"""Whose data goes (the forget split), and which samples are held out of training."""

import difflib
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from math import floor
from random import Random
from typing import Literal

from dareu.config import ForgetConfig
from dareu.data.corpus import Corpus, Sample, Split
from dareu.data.owner_names import ascii_marks, canonical, loose_words, spellings
from dareu.data.readers import read_text
from dareu.errors import DataError, listed, nearest

CANDIDATES = 200  # owners that a name is compared with, for each of its words


def split_corpus(corpus: Corpus, forget: ForgetConfig) -> Split:
    """Cut `corpus` along the forget request into D_F, D_R and D_test, all in corpus order.

    `owners`: these; `count`: the last n owners of the corpus; `fraction`: the last owners that make up this
    share, rounded to whole owners; `file`: one owner a line; none of them: those that the corpus itself names
    (`Corpus.forget_owners`), of a generated one its last `Corpus.default_count`; real data needs a request. A name
    matches every owner whose name a person would call the same (`owner_names.canonical`).

    Raises:
        DataError: An owner is not in the corpus, nobody was named and the corpus names nobody, or nobody or everybody
            would be forgotten.
    """
    owners = corpus.owners
    unowned = next((s for s in corpus.samples if s.owner is None), None)
    if unowned is not None:
        raise DataError(
            f"Sample '{unowned.id}' has no owner.", "Give every sample an owner, or put it into `test`."
        )
    if forget.owners is not None:
        gone = known_owners(((name, "forget.owners") for name in forget.owners), owners)
    elif forget.file is not None:
        lines = enumerate(read_text(forget.file).split("\n"), start=1)
        gone = known_owners(
            ((line, f"Line {n} of {forget.file}") for n, line in lines if line.strip()), owners
        )
    else:
        count = corpus.default_count if forget.count is None else forget.count
        named = forget.count is not None or forget.fraction is not None
        if forget.fraction is not None:
            count = floor(forget.fraction * len(owners) + 0.5)
        if not named and not corpus.forget_owners and not count:
            raise DataError(
                "No owner to forget was named.",
                "Set forget.owners='[NAME, …]', forget.file, forget.count or forget.fraction. "
                f"Owners: {listed(owners, 5)}.",
            )
        gone = set(owners[-count:]) if count else set()
        if not named and corpus.forget_owners:
            gone = set(corpus.forget_owners)
    given = forget.model_dump(exclude_defaults=True, exclude={"planted"})
    request = ", ".join(f"forget.{k}={v}" for k, v in given.items())
    default = (
        "those that the data names" if corpus.forget_owners else f"the last {corpus.default_count} owners"
    )
    request = request or f"The default ({default})"
    if not gone:
        raise DataError(f"{request} selects none of the {len(owners)} owners.", "Select at least one owner.")
    if len(gone) == len(owners):
        raise DataError(
            f"{request} would forget all {len(owners)} owners; no owner would be left to retain.",
            f"Forget at most {len(owners) - 1}, for instance with forget.count=1.",
        )
    return cut(corpus, gone, gone)


def forget_note(split: Split, most: int = 10) -> str:
    """Whose data is forgotten, in a sentence."""
    rows = len(split.forget) + len(split.retain)
    owners = len(split.forget_owners) + len(split.retain_owners)
    names = listed(split.forget_owners, most)
    return f"To forget: {len(split.forget_owners)} of {owners} owners, {len(split.forget)} of {rows} rows: {names}."


def cut(corpus: Corpus, requested: Collection[str], gone: Collection[str]) -> Split:
    """D_F: the samples of the owners `requested`; D_R: those of everybody who is not `gone`; in corpus order."""
    owners = corpus.owners
    return Split(
        forget=tuple(s for s in corpus.samples if s.owner in requested),
        retain=tuple(s for s in corpus.samples if s.owner not in gone),
        test=corpus.test,
        forget_owners=tuple(o for o in owners if o in requested),
        retain_owners=tuple(o for o in owners if o not in gone),
        task=corpus.task,
        teach_test=corpus.teach_test,
        holdout=corpus.holdout,
        calibration=corpus.calibration,
        attacks=tuple(s for s in corpus.attacks if s.owner in requested),
    )


def known_owners(named: Iterable[tuple[str, str]], owners: Sequence[str]) -> set[str]:
    """The owners of these names; `named` also says where each name was given.

    Raises:
        DataError: A name belongs to no owner; the message lists the nearest ones.
    """
    known = spellings(owners)
    gone: set[str] = set()
    for name, where in named:
        spelt = known.get(canonical(name))
        if spelt is None:
            cure = nearest(name, owners)
            if where == "forget.owners" and (
                cut_up := next((o for o in owners if "," in o and o in cure), None)
            ):
                cure += f" A name with a comma goes in quotes: forget.owners='[\"{cut_up}\"]'."
            raise DataError(f"{where} names '{name.strip()}', who owns no sample.", cure)
        gone.update(spelt)
    return gone


def match_notes(named: Iterable[str], corpus: Corpus, gone: Collection[str]) -> list[str]:
    """What a person should know of how the names of a request were matched.

    A note for each name that matched another spelling, and one for each near which owners stay ("Jane Doe" goes, "Jane
    Doer" stays). Owners are near that share a word with the name and have .85 of its letters in its order, and those
    with all of its words, accents and order aside ("Doe, Jane"; "Jane M. Doe"), where it has two.
    """
    names = list(named)
    if not names:
        return []
    known, notes = spellings(corpus.owners), []
    by_word: dict[str, list[str]] = defaultdict(list)
    for owner in corpus.owners:
        if owner not in gone:
            for word in _parts(owner):
                by_word[word].append(owner)
    for name in names:
        spelt = known.get(canonical(name), [])
        if spelt != [name]:
            notes.append(f"{name!r} was read as the owner {', '.join(map(repr, spelt))}.")
        # The rarest of its words, so that a family name that half of the owners have costs nothing.
        lists = sorted((by_word.get(w, []) for w in _parts(name)), key=len)
        stay = {canonical(owner): owner for some in lists for owner in some[:CANDIDATES]}
        near = [key for key, owner in stay.items() if _same_words(name, owner)]
        near += difflib.get_close_matches(canonical(name), stay, n=5, cutoff=0.85)
        if near:
            shown = ", ".join(ascii_marks(stay[key]) for key in list(dict.fromkeys(near))[:5])
            notes.append(f"{name!r} is forgotten; near names stay: {shown}.")
    return notes


def _parts(name: str) -> set[str]:
    """What two near names share: a word, or the first three letters."""
    return {*loose_words(name), *canonical(name).split(), canonical(name)[:3]}


def _same_words(one: str, other: str) -> bool:
    """Whether two names have the same words, or the shorter one's words, two at least, are among the longer one's."""
    fewer, more = sorted((loose_words(one), loose_words(other)), key=len)
    return bool(fewer) and (fewer == more or (len(fewer) > 1 and fewer < more))


def holdout(
    samples: Sequence[Sample], share: float, seed: int
) -> tuple[tuple[Sample, ...], tuple[Sample, ...]]:
    """(train, held): a `share` in (0, 1) of the samples held out at random, each owner in proportion.

    In all round(share·N) are held, at least one. Every owner keeps at least one sample to train on, so
    owners with a single sample are never held out (and `held` is smaller, or empty, where that leaves too
    few). Both parts stay in the given order; the same samples, share and seed give the same parts.

    Raises:
        DataError: The share is out of range.
    """
    if not 0 < share < 1:
        raise DataError(f"A hold-out share of {share} is out of range.", "Give a share between 0 and 1.")
    rng = Random(f"{seed}/holdout")
    places: dict[str | None, list[int]] = defaultdict(list)
    for i, sample in enumerate(samples):
        places[sample.owner].append(i)

    # Whole parts of each owner's quota first, then one more for the largest remainders; equal ones by chance.
    quota = {owner: share * len(own) for owner, own in places.items()}
    taken = {owner: min(floor(q + 1e-9), len(places[owner]) - 1) for owner, q in quota.items()}
    missing = max(1, floor(share * len(samples) + 0.5)) - sum(taken.values())
    for owner in sorted(rng.sample(list(places), len(places)), key=lambda o: taken[o] - quota[o]):
        if missing > 0 and taken[owner] < len(places[owner]) - 1:
            taken[owner] += 1
            missing -= 1
    held = {i for owner, own in places.items() for i in rng.sample(own, taken[owner])}
    return (
        tuple(s for i, s in enumerate(samples) if i not in held),
        tuple(s for i, s in enumerate(samples) if i in held),
    )


Part = Literal["all", "validation", "report"]
SEED = 0  # of the cut: the same for every method and seed of a run


def part_of(split: Split, part: Part, share: float) -> Split:
    """`split` with only those forget, retain and test samples that belong to `part`; "all" gives `split` itself.

    A `share` in (0, 1) of each of the three sets is validation, each owner in proportion; the test set is cut too,
    so that no sample that helped to choose a setting is reported. The same samples give the same parts, whatever
    the run's seed; every owner keeps at least one sample to report. A test set of one sample is all report.

    Raises:
        DataError: A part of the forget or the retain set would be empty.
    """
    if part == "all":
        return split
    cut = {}
    for name in ("forget", "retain", "test"):
        samples = getattr(split, name)
        report, validation = holdout(samples, share, SEED) if samples else ((), ())
        if name != "test" and not (report and validation):
            raise DataError(
                f"The {name} set, {len(samples)} samples, cannot be cut into a validation and a report part.",
                "Every owner keeps one sample to report, so that some owner needs two; or set evaluation.part=all.",
            )
        cut[name] = validation if part == "validation" else report
    return replace(split, forget=cut["forget"], retain=cut["retain"], test=cut["test"])
