"""General facts that belong to no owner: the test set (D_test) of the fictional authors."""

from dataclasses import dataclass, field
from random import Random

from dareu.config.tables import word_table
from dareu.data.corpus import Sample
from dareu.errors import ConfigError


@dataclass(frozen=True)
class Table:
    """Facts of one kind: frames over `k` (the key in the question) and `v` (the value); the first frame is in use.

    Within a table only its own value is right for a key, so the others serve as wrong answers; `extra` holds
    more wrong values.
    """

    questions: list[str]
    answers: list[str]
    facts: dict[str, str]
    extra: list[str] = field(default_factory=list)


TABLES: dict[str, Table] = {name: Table(**row) for name, row in word_table("facts").items()}
AVAILABLE = sum(len(table.facts) for table in TABLES.values())


def make_facts(count: int, seed: int, perturb_response: bool = False) -> tuple[Sample, ...]:
    """`count` (0 to 120) true facts in an order that `seed` fixes, ids "test/000", "test/001", ..., owner None.

    Wrong answers are perturbations of the paraphrased answer, as in TOFU; of the response with `perturb_response`.
    A smaller count gives the first facts of a larger one.

    Raises:
        ConfigError: The tables hold fewer.
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
        perturbed = answer if perturb_response else other
        samples.append(
            Sample(
                id=f"test/{i:03d}",
                owner=None,
                prompt=question,
                response=_fill(answer, key, value),
                paraphrased_prompts=tuple(rephrased),
                paraphrased_response=_fill(other, key, value),
                wrong_responses=tuple(_fill(perturbed, key, wrong) for wrong in rng.sample(others, 3)),
            )
        )
    return tuple(samples)


def _fill(frame: str, key: str, value: str = "") -> str:
    text = frame.format(k=key, v=value)
    return text[0].upper() + text[1:]
