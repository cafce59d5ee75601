"""What `dareu rescore` prints: figures by set and model, knowledge left, and how they agree with the log's own."""

import re
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.markup import escape

from dareu.evaluation.metrics.registry import registry
from dareu.report.damage import damages
from dareu.report.figures import MODELS, dig, gaps, show_any
from dareu.report.stacked import Stacked
from dareu.report.templates import template

ASIDE = ("intervals", "extra")
NAMED = 4  # fields that the line about gaps names
LACKED = re.compile("the records do not hold `(.+)`")


def print_rescored(console: Console, results: Mapping[str, Any]) -> None:
    """Tables and lines for the screen."""
    rows = registry().values()
    sets = {s for tree in results["models"].values() for s in tree}
    names = {
        row.path(of): row.title for row in rows for of in sets if row.covers(of) and row.level != "model"
    }
    names |= {(row.key, ""): row.title for row in rows if row.level == "model"}
    models = [m for m in MODELS if m in results["models"]]
    table = Stacked(box=None, padding=(0, 1), pad_edge=False, header_style="dim")
    table.add_column("figure", min_width=16)
    for model in models:
        table.add_column("the log" if model == "unlearned" else model, justify="right")
    sections = dict.fromkeys(s for m in models for s in results["models"][m] if s not in ASIDE)
    for section in sections:
        trees = [results["models"][m].get(section) for m in models]
        if not any(isinstance(tree, Mapping) for tree in trees):
            if any(tree is not None for tree in trees):
                table.add_row(names.get((section, ""), section), *(show_any(tree) for tree in trees))
            continue
        for key in dict.fromkeys(k for tree in trees if isinstance(tree, Mapping) for k in tree):
            values = [dig(tree, key) for tree in trees]
            title = "samples" if key == "n" else names.get((section, key), key)
            # A curve's points stand a row each: "Sampled leak by k: 8".
            points = dict.fromkeys(p for v in values if isinstance(v, Mapping) for p in v)
            for point in points or [None]:
                figures = values if point is None else [dig(v, point) for v in values]
                if any(isinstance(v, int | float) for v in figures):
                    cells = [str(v or 0) if key == "n" else show_any(v) for v in figures]
                    label = title if point is None else f"{title}: {point}"
                    table.add_row(escape(f"{section}: {label}"), *cells)
    console.print(table)
    pairs = []
    for metric in rows:
        value = results.get(metric.name)
        if metric.level == "pair" and value is not None:
            of_test = isinstance(value, Mapping)  # forget quality
            title = f"{metric.title}, log10 p" if of_test else metric.title
            pairs.append((title, dig(value, "log10_p") if of_test else value))
    text = template("rescored.txt.j2").render(results=results, pairs=pairs, damages=damages(results))
    for line in text.splitlines():
        console.print(escape(line))
    missing, _ = gaps(results)
    if missing:
        console.print(escape(_gaps(missing)), style="dim")


def _gaps(missing: Mapping[str, str]) -> str:
    """One line: what the records lack, and why which comparisons are not there; `--json` has every figure's reason."""
    lacked = [match[1] for reason in missing.values() if (match := LACKED.fullmatch(reason))]
    compared = [f"{name} ({reason.rstrip('.')})" for name, reason in missing.items() if "." not in name]
    parts = [", ".join(compared)] if compared else []
    if fields := list(dict.fromkeys(lacked)):
        more = f" and {len(fields) - NAMED} more" if len(fields) > NAMED else ""
        parts.append(f"what needs {', '.join(fields[:NAMED])}{more}, which the records do not hold")
    reasons = "; ".join(parts)
    return f"Not computed: {len(missing)} figures{f': {reasons}' if reasons else ''}. --json has each one's reason."
