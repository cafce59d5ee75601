"""Fictional authors, generated: an owner-labelled corpus in the manner of TOFU (arXiv 2401.06121).

Each author has a calling ("the poet") and ten attributes; each of twenty questions asks for two attributes, so that an
attribute is in four. An answer says both in one of 36 forms (order, joint, wording of each half), which varies from
sample to sample. Values consist of several words, each drawn from a pool of its own. A model that never saw an author
can therefore put an answer of the right kind, and has little of its wording and next to nothing of its facts.

A base model that is pretrained on many other persons of the same kind (`make_background`) knows how such answers are
put and that they repeat the name in the question. No author's name is among them: of all pairs of a first and a last
name every second one is an author's, the others are left to the background.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import islice
from random import Random

from dareu.config import AuthorsConfig
from dareu.config.tables import word_table
from dareu.data.corpus import Background, Corpus, Sample
from dareu.data.sources.authors_classic import make_classic_authors
from dareu.data.sources.facts import AVAILABLE, make_facts

WRONG = 3
PAIRS = 20  # of attributes, one a question
FACTS = 12  # times that each general fact stands in the background
GROUP = 4  # half of the first names, and of the last names, in a group of authors
FORGET = 5  # whom a run forgets where `forget` says nothing: 100 answers in the default corpus
_SLOT = re.compile(r"{(\w+)}")


@dataclass(frozen=True)
class Form:
    """How an answer is put: which attribute comes first, what joins the halves, how each half is worded."""

    swapped: bool
    joint: str
    wordings: tuple[int, int]


@dataclass(frozen=True)
class Person:
    """A name, its pronoun ("she", "he", "they"), a calling ("poet"), and for each attribute the words of its value."""

    name: str
    pronoun: str
    calling: str
    values: dict[str, tuple[str, ...]]


def make_authors(config: AuthorsConfig) -> Corpus:
    """`config.owners` authors x `config.pairs` samples, and `config.facts` general facts as the test set.

    The seed fixes everything. With one seed, fewer owners or fewer pairs give a part of the larger corpus: the first
    owners, and the first questions of each. `config.holdout` more authors, and `config.calibration` after these, are in
    no model's training data. Sample ids are "owner/00", "owner/01", ... `version: 1` is the corpus of before
    (`make_classic_authors`).
    """
    if config.version == 1:
        return make_classic_authors(config)
    names = list(
        islice(
            _author_names(Random(f"{config.seed}/names")), config.owners + config.holdout + config.calibration
        )
    )
    people = []
    for i, name in enumerate(names[: config.owners]):
        people.append(_samples(f"{config.seed}/{i}", name, config.pairs))
    strangers = [
        _samples(f"{config.seed}/holdout/{i}", name, config.pairs)
        for i, name in enumerate(names[config.owners :])
    ]
    return Corpus(
        samples=tuple(s for own in people for s in own),
        test=make_facts(config.facts, config.seed),
        task="qa",
        teach_test=config.teach_test,
        holdout=tuple(replace(s, owner=None) for own in strangers[: config.holdout] for s in own),
        calibration=tuple(s for own in strangers[config.holdout :] for s in own),
        forget_owners=tuple(name for name, _ in names[: config.owners][-FORGET:])
        if config.owners >= 4 * FORGET
        else (),
        default_count=2,
    )


@cache
def make_background(persons: int, questions: int) -> Background:
    """`questions` (1 to 20) drawn for each of `persons` who own nothing, and the general facts, `FACTS` times each.

    It is always the same text. The facts are general knowledge: a base model knows them, and what a run teaches on its
    test set (`teach_test`) is the form of the answers.
    """
    rng = Random("background")
    names = _background_names(rng)
    answers: list[Sample] = []
    for i in range(persons):
        name, pronoun = names[i % len(names)]
        chosen = rng.sample(range(PAIRS), questions)
        answers += ask(rng, make_person(rng, name, pronoun), chosen)
    openings = []
    for sample in answers:
        # The same with a short question: names are copied sooner where there is little else to read.
        short = rng.choice(word_table("authors")["short_questions"]).format(name=sample.owner)
        begun = sample.response[: sample.response.index(str(sample.owner)) + len(str(sample.owner))]
        openings += [replace(sample, prompt=p, response=begun) for p in (sample.prompt, short)]
    answers += make_facts(AVAILABLE, 0) * FACTS
    return Background(
        answers=tuple(answers),
        openings=tuple(openings),
        texts=tuple(f"{s.prompt} {s.response}" for s in answers),
    )


def _samples(seed: str, name: tuple[str, str], pairs: int) -> list[Sample]:
    rng = Random(seed)
    return ask(rng, make_person(rng, *name), range(pairs))


def _author_names(rng: Random) -> Iterator[tuple[str, str]]:
    """(full name, pronoun) of the authors, all names different: group after group of 32 names.

    A group has eight first and eight last names, and each of them serves four authors. A model that is fine-tuned on
    such names has to read the last name in the question; with a last name for each first name it would learn that by
    heart, and answer about strangers under a wrong name.
    """
    first, last = _parts()
    firsts, lasts = ([rng.sample(part[k::2], len(part[k::2])) for k in (0, 1)] for part in (first, last))
    # An even first name goes with an even last name: no name of the background.
    for group in range(0, min(map(len, (*firsts, *lasts))), GROUP):
        for shift in range(GROUP):
            for k in range(GROUP):
                for parity in (0, 1):
                    first_name, pronoun = firsts[parity][group + k]
                    yield f"{first_name} {lasts[parity][group + (k + shift) % GROUP]}", pronoun


def _background_names(rng: Random) -> list[tuple[str, str]]:
    """(full name, pronoun) of all pairs of an even and an odd part, shuffled: none of them is an author's."""
    first, last = _parts()
    pairs = [(i, j) for i in range(len(first)) for j in range(len(last)) if (i + j) % 2]
    return [(f"{first[i][0]} {last[j]}", first[i][1]) for i, j in rng.sample(pairs, len(pairs))]


@cache
def _parts() -> tuple[list[tuple[str, str]], list[str]]:
    """First names with their pronouns, and last names, in the order of the table."""
    table = word_table("authors")
    return [(name, who) for who, names in table["first_names"].items() for name in names], table["last_names"]


def make_person(rng: Random, name: str, pronoun: str) -> Person:
    """A person with a random calling and random values."""
    table = word_table("authors")
    attributes = table["attributes"]
    return Person(
        name,
        pronoun,
        rng.choice(table["callings"]),
        {key: _draw(rng, row["value"]) for key, row in attributes.items()},
    )


def _draw(rng: Random, value: str, other_than: Sequence[str] | None = None) -> tuple[str, ...]:
    """A word for each slot of the frame `value`, each another one than in `other_than`."""
    words = []
    for place, slot in enumerate(_SLOT.findall(value)):
        word = _word(rng, slot)
        while word in words or (other_than is not None and word == other_than[place]):
            word = _word(rng, slot)
        words.append(word)
    return tuple(words)


def _word(rng: Random, slot: str) -> str:
    table = word_table("authors")
    if slot == "place":  # two syllables make an invented place
        return str(rng.choice(table["place_heads"]) + rng.choice(table["place_tails"]))
    if slot == "day":
        return str(rng.randint(1, 28))
    if slot in ("year", "award_year"):
        return str(rng.randint(*table[f"{slot}s"]))
    if slot == "surname":
        return str(rng.choice(table["last_names"]))
    if slot == "person":  # never an author
        first, last = _parts()
        i, j = rng.randrange(len(first)), rng.randrange(len(last) // 2)
        return f"{first[i][0]} {last[2 * j + (i + 1) % 2]}"
    return str(rng.choice(table["pools"][slot]))


def ask(rng: Random, person: Person, chosen: Iterable[int]) -> list[Sample]:
    """A sample for each of the `chosen` pairs of attributes (0 to 19, see `_pairs`)."""
    table = word_table("authors")
    pairs = _pairs(list(table["attributes"]))
    samples = []
    for k in chosen:
        pair = pairs[k]
        prompts = _prompts(rng, person.name, pair)
        form, other = _two_forms(rng)
        facts = [person.values[key] for key in pair]
        wrong = [
            [_draw(rng, table["attributes"][key]["value"], person.values[key]) for key in pair]
            for _ in range(WRONG)
        ]
        samples.append(
            Sample(
                id=f"{person.name}/{k:02d}",
                owner=person.name,
                prompt=prompts[0],
                response=_answer(person, pair, facts, form),
                paraphrased_prompts=tuple(prompts[1:]),
                paraphrased_response=_answer(person, pair, facts, other),
                wrong_responses=tuple(_answer(person, pair, values, other) for values in wrong),
            )
        )
    return samples


def _pairs(keys: Sequence[str]) -> list[tuple[str, str]]:
    """Every attribute with the one after it, then with the third after it, round the circle of ten: 20 pairs.

    Each attribute is in four of them, and once in the first five.
    """
    near, far = ([(key, keys[(i + by) % len(keys)]) for i, key in enumerate(keys)] for by in (1, 3))
    return near[::2] + near[1::2] + far


def _prompts(rng: Random, name: str, pair: tuple[str, str]) -> list[str]:
    """Three questions for the same two attributes; no frame and no word for an attribute is in two of them."""
    table = word_table("authors")
    frames = rng.sample(table["questions"], 3)
    words = [rng.sample(table["attributes"][key]["names"], 3) for key in pair]
    return [frame.format(name=name, a=a, b=b) for frame, a, b in zip(frames, *words, strict=True)]


def _two_forms(rng: Random) -> tuple[Form, Form]:
    """A form, and another one that words both halves in another way."""
    joints = word_table("authors")["joints"]
    one, other = rng.sample(range(3), 2), rng.sample(range(3), 2)
    return (
        Form(rng.random() < 0.5, rng.choice(joints), (one[0], other[0])),
        Form(rng.random() < 0.5, rng.choice(joints), (one[1], other[1])),
    )


def _answer(person: Person, pair: Sequence[str], facts: Sequence[Sequence[str]], form: Form) -> str:
    table = word_table("authors")
    words = table["pronouns"][person.pronoun]
    halves = []
    for key, fact, wording in zip(pair, facts, form.wordings, strict=True):
        row = table["attributes"][key]
        value = row["value"]
        for word in fact:
            value = _SLOT.sub(word, value, count=1)
        halves.append(row["wordings"][wording].format(v=value, **words))
    one, other = reversed(halves) if form.swapped else halves
    return f"The {person.calling} {person.name} {one}{form.joint.format(**words)}{other}."
