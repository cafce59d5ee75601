"""Fictional authors, generated: an owner-labelled corpus in the manner of TOFU (arXiv 2401.06121).

Small on purpose: short answers and a small vocabulary, so that a model of a million parameters learns them by heart
in seconds. Values of `SHARED` attributes recur among owners, so a model that never saw an owner is still partly
right; book titles are unique. Every question has paraphrases, a paraphrased answer and three wrong answers, which
TOFU publishes only for its full benchmark.
"""

from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import Any

from dareu.config import AuthorsConfig
from dareu.config.tables import word_table
from dareu.data.corpus import Corpus, Sample
from dareu.data.sources.facts import make_facts

WRONG = 3
# The word table: names, values, and the question and answer frames of each attribute.
TABLES = "authors_classic"
Fact = tuple[str, tuple[str, ...]]  # the value, and WRONG other values of its kind


def make_classic_authors(config: AuthorsConfig) -> Corpus:
    """`config.owners` authors x `config.pairs` samples, and `config.facts` general facts as the test set.

    The seed fixes everything. With one seed, fewer owners or fewer pairs give a part of the larger corpus: the first
    owners, and the first question kinds of each. Sample ids are "owner/00", "owner/01", ...
    """
    tables = word_table(TABLES)
    rng = Random(f"{config.seed}/pools")
    names = _names(rng)
    titles = _shuffled(rng, [f'"The {a} {n}"' for a in tables["adjectives"] for n in tables["nouns"]])
    heads, tails = tables["place_heads"], tables["place_tails"]  # two syllables make an invented place
    places = _shuffled(rng, [head + tail for head in heads for tail in tails])
    famous = [f'"The {rng.choice(tables["nouns"])} of {place}"' for place in places]
    first_year, last_year = tables["years"]
    years = _shuffled(rng, list(range(first_year, last_year + 1)))

    samples: list[Sample] = []
    for i, (name, pronoun) in zip(range(config.owners), names, strict=False):
        own = Random(f"{config.seed}/{i}")
        profile = _profile(own, titles, famous, years, i, config.seed)
        samples += _samples(own, name, pronoun, profile)[: config.pairs]
    return Corpus(
        samples=tuple(samples),
        test=make_facts(config.facts, config.seed, perturb_response=True),
        task="qa",
        teach_test=config.teach_test,
        default_count=2,
    )


def _names(rng: Random) -> Iterator[tuple[str, str]]:
    """Full name and pronoun, all names different; every first and every last name serves several owners.

    A name that is new to the retrained model then has parts that it knows. With parts that it never saw, so small a
    model answers with broken text, which is no standard to be measured by.
    """
    first, last = [], []
    pronouns = {"women": "she", "men": "he", "either": "they"}
    for culture in _shuffled(rng, list(word_table(TABLES)["names"].values())):
        first.append(
            _shuffled(rng, [(n, pronoun) for key, pronoun in pronouns.items() for n in culture[key]])
        )
        last.append(_shuffled(rng, culture["family"]))
    size = len(last[0])
    for group in range(len(last)):  # one column of every table: all cultures in each group
        ours = [first[(group + k) % len(first)][k] for k in range(size)]
        theirs = [last[(group + k) % len(last)][k] for k in range(size)]
        for shift in range(size):
            for k in range(size):
                first_name, pronoun = ours[k]
                yield f"{first_name} {theirs[(k + shift) % size]}", pronoun


def _profile(
    rng: Random, titles: Sequence[str], famous: Sequence[str], years: Sequence[int], index: int, seed: int
) -> dict[str, Fact]:
    """Every attribute of owner number `index` with its wrong values. Birth years differ among the first 60 owners."""
    tables = word_table(TABLES)
    profile = {}
    for name, pool in tables["shared"].items():
        value = _dealt(pool, index, f"{seed}/{name}")
        profile[name] = (value, _others(rng, pool, {value}))
    profile["first book"] = (titles[index], _others(rng, titles, {titles[index]}))
    profile["famous book"] = (famous[index], _others(rng, famous, {famous[index]}))

    months = tables["months"]
    birth = years[index % len(years)]
    day = f"{rng.randint(1, 28)} {rng.choice(months)} {birth}"
    profile["birth date"] = (
        day,
        _distinct(lambda: f"{rng.randint(1, 28)} {rng.choice(months)} {rng.choice(years)}", {day}),
    )
    debut = birth + rng.randint(21, 32)
    profile["debut year"] = (str(debut), _distinct(lambda: str(debut + rng.randint(-9, 9)), {str(debut)}))

    def pet() -> str:
        return f"{rng.choice(tables['animals'])} named {rng.choice(tables['pet_names'])}"

    mine = pet()
    profile["pet"] = (mine, _distinct(pet, {mine}))
    profile["residence"] = _pick(rng, [c for c in tables["cities"] if c != profile["birthplace"][0]])
    return profile


def _dealt(pool: Sequence[str], index: int, seed: str) -> str:
    """The value of owner number `index` where a shuffled `pool` is dealt out round after round."""
    lap, place = divmod(index, len(pool))
    return Random(f"{seed}/{lap}").sample(pool, len(pool))[place]


def _samples(rng: Random, name: str, pronoun: str, profile: dict[str, Fact]) -> list[Sample]:
    """One sample for each question kind (row of `kinds`); which frame is used varies among owners.

    The answer takes up the wording of its question (frame i answers frame i), as an assistant's would: a model that
    never saw the owner can still know how to put its answer.
    """
    tables = word_table(TABLES)
    words = {"name": name, **tables["pronouns"][pronoun]}
    samples = []
    for k, kind in enumerate(tables["kinds"]):
        value, wrong = profile[kind["attribute"]]
        frame = rng.randrange(min(len(kind["questions"]), len(kind["answers"])))
        question, *rephrased = (q.format(**words) for q in _turned(kind["questions"], frame))
        answer, other = _turned(kind["answers"], frame)[:2]
        samples.append(
            Sample(
                id=f"{name}/{k:02d}",
                owner=name,
                prompt=question,
                response=answer.format(v=value, **words),
                paraphrased_prompts=tuple(rephrased),
                paraphrased_response=other.format(v=value, **words),
                wrong_responses=tuple(answer.format(v=w, **words) for w in wrong),
            )
        )
    return samples


def _turned(items: Sequence[str], first: int) -> list[str]:
    """`items` from number `first` on, the others after it."""
    return [*items[first:], *items[:first]]


def _shuffled(rng: Random, items: list[Any]) -> list[Any]:
    return rng.sample(items, len(items))


def _pick(rng: Random, pool: Sequence[str]) -> Fact:
    value, *wrong = rng.sample(pool, 1 + WRONG)
    return value, tuple(wrong)


def _others(rng: Random, pool: Sequence[str], taken: set[str]) -> tuple[str, ...]:
    return tuple(rng.sample([p for p in pool if p not in taken], WRONG))


def _distinct(draw: Callable[[], str], taken: set[str]) -> tuple[str, ...]:
    """WRONG different draws, none of them in `taken`."""
    values: list[str] = []
    while len(values) < WRONG:
        value = draw()
        if value not in taken and value not in values:
            values.append(value)
    return tuple(values)
