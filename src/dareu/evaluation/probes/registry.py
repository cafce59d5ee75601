"""The table of probes, probes.yaml, and probes at work on one checkpoint.

No torch here: a probe's own module is imported when it runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dareu.config.tables import read_table
from dareu.errors import ConfigError, DareuError, nearest
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


def run_probes(
    subject: Subject, inputs: ProbeInput, names: Sequence[str] | None = None
) -> tuple[dict[str, ProbeResult], dict[str, str]]:
    """The results of the probes `names` (all of them by default), and for each that could not run: why, and the cure.

    The model is the same afterwards.

    Raises:
        ConfigError: for a name that no probe has.
    """
    results: dict[str, ProbeResult] = {}
    missing: dict[str, str] = {}
    chosen = list(PROBES) if names is None else list(names)
    for name in chosen:
        if name not in PROBES:
            raise ConfigError(f"There is no probe '{name}'.", nearest(name, PROBES))
    for name in chosen:
        try:
            results[name] = PROBES[name].run(subject, inputs)
        except Gap as gap:
            missing[name] = str(gap)
        except DareuError as error:  # such as a prompt that does not fit the context
            missing[name] = f"{PROBES[name].title} could not be measured: {error}"
    return results, missing
