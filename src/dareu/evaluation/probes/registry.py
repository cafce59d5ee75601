"""The table of probes, probes.yaml, and probes at work on one checkpoint.

No torch here: a probe's own module is imported when it runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dareu.config.tables import read_table
from dareu.errors import DareuError
from dareu.evaluation.metrics.base import lazily
from dareu.evaluation.probes.base import Gap, Probe, ProbeInput, ProbeResult

if TYPE_CHECKING:
    from dareu.evaluation.subject import Subject


def field_of(name: str) -> str:
    """The field of the records that holds what a probe found: its figures, a dict for each forget sample."""
    return f"{name}_figures"


PROBES: dict[str, Probe] = {
    name: Probe(**row | {"run": lazily(f"probes.{row['run']}")})
    for name, row in read_table("dareu.evaluation.probes", "probes.yaml").items()
}


def run_probe(subject: Subject, inputs: ProbeInput, name: str) -> ProbeResult:
    """The result of a probe; the model is the same afterwards. `Gap` where it cannot run: why, and the cure."""
    try:
        return PROBES[name].run(subject, inputs)
    except Gap:
        raise
    except DareuError as error:  # such as a prompt that does not fit the context
        raise Gap(f"{PROBES[name].title} could not be measured: {error}") from error
