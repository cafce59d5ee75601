"""The table of probes, probes.yaml. No torch here: what a probe runs is imported when it runs."""

from dareu.data.sources.word_tables import read_table
from dareu.evaluation.metrics.base import lazily
from dareu.evaluation.probes.base import Probe


def field_of(name: str) -> str:
    """The field of the records that holds what a probe found: its figures, a dict for each forget sample."""
    return f"{name}_figures"


PROBES: dict[str, Probe] = {
    name: Probe(**row | {"run": lazily(f"probes.{row['run']}")})
    for name, row in read_table("dareu.evaluation.probes", "probes.yaml").items()
}
