"""One self-contained HTML page a run: verdict, table, drawings, training curves, sample answers, config.

The page loads nothing: style, drawings and a few lines of script stand in it, and every text from a model or
a corpus is escaped by the template. It still reads without the script.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dareu.evaluation.metrics.base import ANY
from dareu.evaluation.metrics.registry import registry
from dareu.report import drawing as svg
from dareu.report.curves import curves, distributions
from dareu.report.damage import damages
from dareu.report.figures import (
    DASH,
    FIGURES,
    MODELS,
    SCORES,
    SETS,
    dig,
    has_model,
    missing_reasons,
    number,
    show_any,
    value,
)
from dareu.report.forget_quality import quality_of
from dareu.report.knowledge import knowledge_left, untold, worst
from dareu.report.loading import read_results
from dareu.report.run_tables import cost_line, outcome_line, run_rows
from dareu.report.samples import read_lines, sample_groups
from dareu.report.sequential import rounds_page
from dareu.report.templates import template
from dareu.report.verdict import verdict
from dareu.runs.files import write_text


def write_report(run_dir: Path) -> Path:
    """Write `report.html` into a run folder and return its path.

    Needs `results.json`; `samples/`, `training.jsonl` and `config.yaml` are used where they exist. The page
    replaces an older one in one step.

    Raises:
        RunError: The results are absent or cannot be read.
    """
    run_dir = Path(run_dir)
    write_text(run_dir / "report.html", render(run_dir))
    return run_dir / "report.html"


def render(run_dir: Path) -> str:
    """The page as text."""
    results = read_results(run_dir)
    config, positions = run_dir / "config.yaml", _positions(results)
    return template("template.html.j2").render(
        results=results,
        seed=results.get("seed", "unknown"),
        data=results.get("data") or {},
        verdict=verdict(results),
        knowledge=knowledge_left(results),
        distributions=distributions(run_dir, results),
        value=lambda key, model="unlearned": value(results, key, model),
        most=worst(results),
        damages=damages(results),
        models=[m for m in MODELS if has_model(results, m)],
        all_models=MODELS,
        figures=FIGURES,
        definitions=[*FIGURES, *SCORES],
        rows=run_rows(results),
        plane=svg.plane(positions) if positions else "",
        strips=svg.strips([(f.title, {m: value(results, f.key, m) for m in MODELS}) for f in FIGURES]),
        distance={m: math.dist(p, positions["retrained"]) for m, p in positions.items() if m != "retrained"}
        if "retrained" in positions
        else {},
        rounds=rounds_page(results),
        curves=curves(read_lines(run_dir / "training.jsonl")),
        groups=sample_groups(run_dir),
        untold=untold(results),
        more=_more(results),
        quality=quality_of(results),
        missing=missing_reasons(results),
        cost=cost_line(results),
        outcome=outcome_line(results),
        seconds={k: number(v) for k, v in (results.get("seconds") or {}).items()},
        config=config.read_text(encoding="utf-8")
        if config.is_file()
        else json.dumps(results.get("unlearn_config"), indent=2),
        versions=results.get("versions") or {},
    )


def _positions(results: Mapping[str, Any]) -> dict[str, tuple[float, float]]:
    """Forget and retain ROUGE of each model that has both."""
    positions = {}
    for model in MODELS:
        x, y = (value(results, f"{name}_rouge_l", model) for name in ("forget", "retain"))
        if x is not None and y is not None:
            positions[model] = (x, y)
    return positions


def _more(results: Mapping[str, Any]) -> list[tuple[str, str, list[str]]]:
    """(name, definition, one cell a model) of the figures that the table above leaves out."""
    models = [m for m in MODELS if has_model(results, m)]
    shown = {figure.path for figure in FIGURES}
    rows = []
    for metric in registry().values():
        if metric.level not in ("sample", "set"):
            continue
        for of in SETS if metric.sets == ANY else metric.sets:
            path = metric.path(of)
            if path not in shown:
                cells = [show_any(dig(results, "models", m, *path)) for m in models]
                rows.append((f"{metric.title}, {of}", metric.note, cells))
    names = dict.fromkeys(k for m in models for k in dig(results, "models", m, "extra") or {})
    rows += [
        (k, "metric of another package", [show_any(dig(results, "models", m, "extra", k)) for m in models])
        for k in names
    ]
    return [row for row in rows if any(cell != DASH for cell in row[2])]
