"""The card of a published model, and the figures of its run without anything that names the people forgotten."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from dareu.data.owner_names import SPACED, canonical
from dareu.evaluation.metrics.base import SETS
from dareu.evaluation.metrics.registry import registry
from dareu.report.figures import FIGURES, MODELS, dig, has_model, value
from dareu.report.knowledge import worst
from dareu.report.receipt import NOT_CLAIMED
from dareu.report.templates import template

PUBLIC = (
    "schema_version", "method", "seed", "definitions", "models", "tug_of_war", "tug_of_war_without_test",
    "retrain_similarity", "forget_quality", "knowledge_left", "knowledge_left_worst", "damage", "privleak",
    "missing", "outcome", "unlearn_config", "versions",
)  # fmt: skip
# What holds words of ours alone: an owner may be called like a method.
OWN_WORDS = ("method", "definitions", "knowledge_left_worst", "versions")
OWN_CHOICES = ("name", "kind", "loss", "retain")  # of `unlearn_config`
COUNTS = ("owners", "n_forget", "n_retain", "n_test")


def public_results(results: Mapping[str, Any]) -> dict[str, Any]:
    """`results.json` without names and texts: its figures and settings, and counts in place of the data.

    Whatever quotes a forgotten owner's name goes, wherever it stands: texts that have it as whole words, and keys that
    are no names of figures.
    """
    data = results.get("data") or {}
    gone = [str(name) for name in data.get("forget_owners") or []]
    counts = {key: data[key] for key in COUNTS if key in data} | {"forget_owners": len(gone)}
    names = [_whole(name) for name in gone]
    own = _own_sections()
    public = {key: results[key] for key in PUBLIC if key in results}
    for key in public.keys() - set(OWN_WORDS):
        public[key] = _without(public[key], names)
    public["models"] = {
        model: {of: part if of in own else _without(part, names, keys=True) for of, part in parts.items()}
        for model, parts in (public.get("models") or {}).items()
    }
    if method := results.get("unlearn_config"):
        public["unlearn_config"] |= {key: method[key] for key in OWN_CHOICES if key in method}
    return public | {"data": counts}


def without_names(tree: Any, owners: Iterable[str]) -> Any:
    """`tree` without texts that hold the name of one of `owners` as whole words."""
    return _without(tree, [_whole(name) for name in owners])


def _whole(name: str) -> re.Pattern[str]:
    """What finds the name as whole words in a text of the form of `canonical`."""
    plain = canonical(name)
    pattern = re.escape(plain)
    return re.compile(
        rf"(?<![^\W_]){pattern}(?![^\W_])" if SPACED.search(plain) or plain.isdigit() else pattern
    )


def _own_sections() -> set[str]:
    """The parts of a model's figures whose keys are names of figures, not of owners."""
    rows = registry().values()
    return (
        {"intervals", "curves", "missing"}
        | {m.path(of)[0] for m in rows for of in SETS}
        | {m.key for m in rows}
    )


def _without(tree: Any, names: Sequence[re.Pattern[str]], keys: bool = False) -> Any:
    """`tree` without texts, and with `keys` without keys, that hold one of `names`."""

    def named(item: Any) -> bool:
        return isinstance(item, str) and any(name.search(canonical(item)) for name in names)

    if isinstance(tree, Mapping):
        return {
            k: _without(v, names, keys) for k, v in tree.items() if not (keys and named(k)) and not named(v)
        }
    if isinstance(tree, list | tuple):
        return [_without(item, names, keys) for item in tree if not named(item)]
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
    return template("model_card.md.j2").render(
        results=results,
        base=base,
        adapter=adapter,
        models=models,
        rows=[(title, cells) for title, cells in rows if any(x is not None for x in cells)],
        most=worst(results),
        version=dig(results, "versions", "dareu"),
        not_claimed=NOT_CLAIMED,
    )
