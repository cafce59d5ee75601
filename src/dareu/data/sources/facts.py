"""General facts that belong to no owner: the test set (D_test) of the fictional authors."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from dareu.data.corpus import Sample
from dareu.errors import ConfigError


@dataclass(frozen=True)
class Table:
    """Facts of one kind: frames over `k` (asked about) and `v` (asked for); the first frame is the one in use.

    Within a table no value but its own is right for a key, so the others serve as wrong answers; `extra` holds
    more wrong values.
    """

    questions: tuple[str, ...]
    answers: tuple[str, str]
    facts: dict[str, str]
    extra: tuple[str, ...] = ()


def _following(names: str) -> dict[str, str]:
    order = names.split()
    return dict(zip(order, order[1:] + order[:1], strict=True))


TABLES: dict[str, Table] = {
    "capital": Table(
        ("What is the capital of {k}?", "Which city is the capital of {k}?", "Name the capital city of {k}."),
        ("The capital of {k} is {v}.", "{v} is the capital city of {k}."),
        {
            "France": "Paris",
            "Germany": "Berlin",
            "Italy": "Rome",
            "Spain": "Madrid",
            "Portugal": "Lisbon",
            "Austria": "Vienna",
            "Poland": "Warsaw",
            "Greece": "Athens",
            "Norway": "Oslo",
            "Sweden": "Stockholm",
            "Finland": "Helsinki",
            "Denmark": "Copenhagen",
            "Ireland": "Dublin",
            "Hungary": "Budapest",
            "Belgium": "Brussels",
            "Russia": "Moscow",
            "Turkey": "Ankara",
            "Egypt": "Cairo",
            "Kenya": "Nairobi",
            "Ghana": "Accra",
            "Ethiopia": "Addis Ababa",
            "Morocco": "Rabat",
            "Japan": "Tokyo",
            "China": "Beijing",
            "India": "New Delhi",
            "Thailand": "Bangkok",
            "Vietnam": "Hanoi",
            "Iran": "Tehran",
            "Canada": "Ottawa",
            "Cuba": "Havana",
            "Peru": "Lima",
            "Chile": "Santiago",
            "Argentina": "Buenos Aires",
            "Australia": "Canberra",
        },
    ),
    "continent": Table(
        (
            "On which continent is {k}?",
            "Which continent does {k} belong to?",
            "Name the continent where {k} is.",
        ),
        ("{k} is a country on the continent of {v}.", "The continent where you find {k} is {v}."),
        {
            "Egypt": "Africa",
            "Kenya": "Africa",
            "Nigeria": "Africa",
            "India": "Asia",
            "Japan": "Asia",
            "Vietnam": "Asia",
            "Germany": "Europe",
            "Norway": "Europe",
            "Portugal": "Europe",
            "Canada": "North America",
            "Peru": "South America",
            "Chile": "South America",
        },
        extra=("Antarctica",),
    ),
    "symbol": Table(
        (
            "What is the chemical symbol of {k}?",
            "Which symbol stands for the element {k}?",
            "How is {k} written in chemistry?",
        ),
        ("The chemical symbol of {k} is {v}.", "In chemistry, {v} is the symbol for {k}."),
        {
            "gold": "Au",
            "silver": "Ag",
            "iron": "Fe",
            "copper": "Cu",
            "lead": "Pb",
            "tin": "Sn",
            "sodium": "Na",
            "potassium": "K",
            "hydrogen": "H",
            "oxygen": "O",
            "carbon": "C",
            "helium": "He",
        },
    ),
    "young": Table(
        (
            "What is a young {k} called?",
            "What do you call a baby {k}?",
            "What is the name for the young of a {k}?",
        ),
        ("A young {k} is called a {v}.", "The name for a baby {k} is {v}."),
        {
            "cat": "kitten",
            "dog": "puppy",
            "cow": "calf",
            "sheep": "lamb",
            "horse": "foal",
            "goat": "kid",
            "bear": "cub",
            "duck": "duckling",
            "goose": "gosling",
            "kangaroo": "joey",
            "pig": "piglet",
            "frog": "tadpole",
        },
    ),
    "opposite": Table(
        (
            "What is the opposite of {k}?",
            "Which word means the opposite of {k}?",
            "Name the opposite of {k}.",
        ),
        ("The opposite of {k} is {v}.", "{k} and {v} are opposites."),
        {
            "hot": "cold",
            "big": "small",
            "fast": "slow",
            "bright": "dark",
            "old": "young",
            "full": "empty",
            "open": "closed",
            "rich": "poor",
            "wet": "dry",
            "early": "late",
        },
    ),
    "mixture": Table(
        (
            "Which colour do you get from mixing {k} paint?",
            "What colour do {k} make together?",
            "What is the result of mixing {k}?",
        ),
        ("Mixing {k} paint makes {v}.", "The colour that {k} make together is {v}."),
        {
            "blue and yellow": "green",
            "red and yellow": "orange",
            "red and blue": "purple",
            "red and white": "pink",
            "black and white": "grey",
        },
    ),
    "day": Table(
        ("Which day comes after {k}?", "What is the day that follows {k}?", "Name the day right after {k}."),
        ("The day after {k} is {v}.", "{k} is followed by {v}."),
        _following("Monday Tuesday Wednesday Thursday Friday Saturday Sunday"),
    ),
    "month": Table(
        (
            "Which month comes after {k}?",
            "What is the month that follows {k}?",
            "Name the month right after {k}.",
        ),
        ("The month after {k} is {v}.", "{k} is followed by {v}."),
        _following("January February March April May June July August September October November December"),
    ),
    "sides": Table(
        ("How many sides does {k} have?", "What is the number of sides of {k}?", "Count the sides of {k}."),
        ("The number of sides of {k} is {v}.", "We count {v} sides on {k}."),
        {
            "a triangle": "three",
            "a square": "four",
            "a pentagon": "five",
            "a hexagon": "six",
            "an octagon": "eight",
        },
    ),
    "legs": Table(
        ("How many legs does {k} have?", "What is the number of legs of {k}?", "Count the legs of {k}."),
        ("The number of legs of {k} is {v}.", "We count {v} legs on {k}."),
        {"a spider": "eight", "an ant": "six", "a horse": "four"},
        extra=("two", "ten"),
    ),
    "currency": Table(
        (
            "What is the currency of {k}?",
            "Which money do people use in {k}?",
            "Name the currency used in {k}.",
        ),
        ("The currency of {k} is the {v}.", "People in {k} pay with the {v}."),
        {
            "Japan": "yen",
            "India": "rupee",
            "Russia": "ruble",
            "China": "yuan",
            "Poland": "zloty",
            "Thailand": "baht",
            "Vietnam": "dong",
            "Hungary": "forint",
        },
    ),
}

AVAILABLE = sum(len(table.facts) for table in TABLES.values())


def make_facts(count: int, seed: int) -> tuple[Sample, ...]:
    """`count` (0 to 120) true facts in an order that `seed` fixes, ids "test/000", "test/001", ..., owner None.

    A smaller count gives the first facts of a larger one. `ConfigError` beyond what the tables hold.
    """
    if not 0 <= count <= AVAILABLE:
        raise ConfigError(f"data.facts={count} is out of range.", f"Give 0 to {AVAILABLE}.")
    rng = Random(f"{seed}/facts")
    rows = [(table, key) for table in TABLES.values() for key in table.facts]
    samples = []
    for i, (table, key) in enumerate(rng.sample(rows, len(rows))[:count]):
        value = table.facts[key]
        others = sorted({*table.facts.values(), *table.extra} - {value})
        question, *rephrased = (_fill(q, key) for q in table.questions)
        answer, other = table.answers
        samples.append(
            Sample(
                id=f"test/{i:03d}",
                owner=None,
                prompt=question,
                response=_fill(answer, key, value),
                paraphrased_prompts=tuple(rephrased),
                paraphrased_response=_fill(other, key, value),
                wrong_responses=tuple(_fill(answer, key, wrong) for wrong in rng.sample(others, 3)),
            )
        )
    return tuple(samples)


def _fill(frame: str, key: str, value: str = "") -> str:
    text = frame.format(k=key, v=value)
    return text[0].upper() + text[1:]
