"""Every metric: the rows of metrics.yaml, with the functions that they name. No torch here.

The suite, the tables on the screen, the report, tuning and the documentation read this table. A new metric is one
function and one row. Other packages add theirs by an entry point in the group `dareu.metrics`, which is either a
`Metric` or a function that takes the records of one model (a list of dicts) and returns a dict of figures, kept as
`extra.<name>`.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from dareu.config.plugins import plugins
from dareu.config.tables import read_table
from dareu.evaluation.metrics.base import Metric, Records, each, lazily, of_field
from dareu.evaluation.probes.registry import PROBES, field_of

GROUP = "dareu.metrics"
DEFINITIONS = 4  # raise it where a metric changes: it is then computed again, from the stored answers
# Raise it where a model is asked something else or its likelihoods change: answers are then made again.
MEASURED = 1
# Inputs that are known only once every model of a run has answered.
LATE = ("corpus_words", "known_words", "character_model")
PEER_FIELDS = ("fade", "depth", "mia_reference")  # filled with the original or the retrained model at hand


def from_table(name: str, row: dict[str, Any]) -> Metric:
    """A row of metrics.yaml."""
    row = {key: tuple(value) if isinstance(value, list) else value for key, value in row.items()}
    compute: Callable[..., Any] = of_field(name)
    if "each" in row:
        compute = each(lazily(row.pop("each")), *row["needs"])
    elif "compute" in row:
        fixed = row.pop("with", {})
        compute = partial(lazily(row.pop("compute")), **fixed)
        if "others" in row:
            row["others"] = partial(lazily(row["others"]), **fixed)
    if "contribution" in row:
        row["contribution"] = lazily(row["contribution"])
    return Metric(name, compute, **row)


METRICS: tuple[Metric, ...] = (
    *(from_table(name, row) for name, row in read_table("dareu.evaluation.metrics", "metrics.yaml").items()),
    *(
        Metric(
            f"probe_{name}",
            partial(lazily("metrics.model_rows:probe_headline"), field=field_of(name), figure=probe.headline),
            needs=(field_of(name),),
            sets=("forget",),
            section="probes",
            key=name,
            title=probe.title,
            note=f"{probe.title}: {probe.measures}. {probe.note}".strip(),
            gap="the probe does not apply to them",
            knowledge=True,
            keep=False,
            suites=("robustness",),
        )
        for name, probe in PROBES.items()
    ),
)


def registry() -> dict[str, Metric]:
    """Every metric by name: the table above, and rows of other packages; ours win over theirs of the same name."""
    rows: dict[str, Metric] = {}
    for name, point in plugins(GROUP).items():
        try:
            row = point.load()
        except Exception:  # its reason stands in the results, see `compute_extra`
            continue
        if isinstance(row, Metric):
            rows[row.name or name] = row
    return rows | {metric.name: metric for metric in METRICS}


def metrics_of(suite: str) -> list[Metric]:
    """The metrics of a named suite, in the order of the registry."""
    return [metric for metric in registry().values() if metric.in_suite(suite)]


def pair_metrics(suite: str = "fast") -> list[str]:
    """Names of the figures that compare the unlearned model with the retrained one."""
    return [metric.name for metric in metrics_of(suite) if metric.level == "pair"]


def needs_peers(suite: str) -> bool:
    """Whether a metric of the suite compares hidden states or samples with the original or the retrained model."""
    return any(need in PEER_FIELDS for metric in metrics_of(suite) for need in metric.needs)


def has_probes(suite: str) -> bool:
    """Whether the suite has probes."""
    fields = {field_of(name) for name in PROBES}
    return any(need in fields for metric in metrics_of(suite) for need in metric.needs)


def compute_extra(records: Records) -> tuple[dict[str, Any], dict[str, str]]:
    """Figures by metric name, and "extra.name" → reason for those that failed; none ends an evaluation."""
    figures: dict[str, Any] = {}
    missing: dict[str, str] = {}
    for name, point in plugins(GROUP).items():
        try:
            metric = point.load()
            if not isinstance(metric, Metric):
                figures[name] = metric([dict(record) for record in records])
        except Exception as error:  # whatever foreign code raises is said in the results
            figures[name] = None
            missing[f"extra.{name}"] = f"{type(error).__name__}: {error}"
    return figures, missing
