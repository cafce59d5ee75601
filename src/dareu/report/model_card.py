"""The card of a published model, and the figures of its run without anything that names the people forgotten."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dareu.report.figures import FIGURES, MODELS, dig, has_model, value
from dareu.report.knowledge import worst
from dareu.report.page import render_template
from dareu.report.receipt import NOT_CLAIMED

PUBLIC = (
    "schema_version",
    "method",
    "seed",
    "definitions",
    "models",
    "tug_of_war",
    "tug_of_war_without_test",
    "retrain_similarity",
    "forget_quality",
    "knowledge_left",
    "knowledge_left_worst",
    "damage",
    "privleak",
    "missing",
    "outcome",
    "unlearn_config",
    "versions",
)
COUNTS = ("owners", "n_forget", "n_retain", "n_test")


def public_results(results: Mapping[str, Any]) -> dict[str, Any]:
    """`results.json` without names and texts: its figures and settings, and counts in place of the data.

    Whatever quotes a forgotten owner's name goes, wherever it stands.
    """
    data = results.get("data") or {}
    gone = [str(name).casefold() for name in data.get("forget_owners") or []]
    counts = {key: data[key] for key in COUNTS if key in data} | {"forget_owners": len(gone)}
    return _without({key: results[key] for key in PUBLIC if key in results}, gone) | {"data": counts}


def _without(tree: Any, names: list[str]) -> Any:
    """`tree` without keys and texts that hold one of `names`, which are case-folded."""

    def named(item: Any) -> bool:
        return isinstance(item, str) and any(name in item.casefold() for name in names)

    if isinstance(tree, Mapping):
        return {k: _without(v, names) for k, v in tree.items() if not named(k) and not named(v)}
    if isinstance(tree, list | tuple):
        return [_without(item, names) for item in tree if not named(item)]
    return tree


def model_card(results: Mapping[str, Any], base: str | None, adapter: bool) -> str:
    """The card in Markdown, with the front matter that the hub reads. It names nobody.

    Args:
        results: What `public_results` gives.
        base: Hub id of the model that was unlearned; None where it has none.
        adapter: Whether the repository holds an adapter and not whole weights.
    """
    models = [m for m in MODELS if has_model(results, m)]
    rows = [(figure.title, [value(results, figure.key, m) for m in models]) for figure in FIGURES]
    return render_template(
        "model_card.md.j2",
        results=results,
        base=base,
        adapter=adapter,
        models=models,
        rows=[(title, found) for title, found in rows if any(x is not None for x in found)],
        most=worst(results),
        version=dig(results, "versions", "dareu"),
        not_claimed=NOT_CLAIMED,
    )
