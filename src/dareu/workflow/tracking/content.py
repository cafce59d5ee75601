"""What goes to a tracker of a run's settings and figures: neither secrets nor the names of those who are forgotten."""

import re
from collections.abc import Collection, Mapping
from typing import Any

from dareu.config import RunConfig
from dareu.config.tables import leaves
from dareu.evaluation.metrics.base import number
from dareu.report.figures import dig
from dareu.report.model_card import public_results, without_names

HIDDEN = "(hidden)"
# Settings of data sources from other packages may hold a key: by what they are called, or by what it looks like.
SECRET_KEY = re.compile(
    r"(^|_)(token|secret|password|passwd|credentials?|api_?key|auth|authorization)$", re.IGNORECASE
)
SECRET = re.compile(r"\b(hf_|sk-|ghp_|github_pat_|AKIA)[A-Za-z0-9_-]{12,}|(?<=://)[^/\s@]+(?=@)")
BESIDE = ("seconds", "peak_memory_mb")  # figures of `results.json` that name nobody
FAMILIES = (
    "models", "tug_of_war", "tug_of_war_without_test", "retrain_similarity", "forget_quality", "knowledge_left",
    "knowledge_left_worst", "damage", "privleak", "outcome", *BESIDE,
)  # fmt: skip
OF_MODELS = ("intervals", "curves")  # left out of a model's figures


def tracked_config(config: RunConfig, forgotten: Collection[str]) -> dict[str, Any]:
    """The whole configuration. Lists of owners are counts, texts that name one of `forgotten` are left out."""
    tree = config.model_dump(mode="json")
    method = tree["method"]["name"]
    if tree["forget"]["owners"] is not None:
        tree["forget"]["owners"] = len(tree["forget"]["owners"])
    if dig(tree, "rounds", "owners") is not None:
        tree["rounds"]["owners"] = [len(owners) for owners in tree["rounds"]["owners"]]
    public: dict[str, Any] = without_secrets(without_names(tree, forgotten))
    public["method"]["name"] = method  # an owner may be called like one
    return public


def without_secrets(tree: Any, key: str = "") -> Any:
    """`tree` with the values of keys that are called as secrets are, and texts that look like one, hidden."""
    if isinstance(tree, Mapping):
        return {k: without_secrets(v, str(k)) for k, v in tree.items()}
    if isinstance(tree, list):
        return [without_secrets(item, key) for item in tree]
    if isinstance(tree, str):
        return HIDDEN if SECRET_KEY.search(key) else SECRET.sub(HIDDEN, tree)
    return tree


def tracked_figures(results: Mapping[str, Any]) -> dict[str, float | str]:
    """The figures of `results.json` by their path there, with slashes: all numbers of the families above.

    Of the worst k also its metric and the bounds of its interval: `knowledge_left_worst/metric`, `/low`, `/high`.
    """
    tree = public_results(results) | {key: results.get(key) for key in BESIDE}
    tree["models"] = {
        model: {of: part for of, part in figures.items() if of not in OF_MODELS}
        for model, figures in tree["models"].items()
    }
    if worst := tree.get("knowledge_left_worst"):
        left = dig(tree, "knowledge_left", worst["metric"]) or {}
        tree["knowledge_left_worst"] = worst | {bound: left.get(bound) for bound in ("low", "high")}
    found: dict[str, float | str] = {}
    for path, value in leaves({family: tree.get(family) for family in FAMILIES}):
        name = path.replace(".", "/")
        if name == "knowledge_left_worst/metric":
            found[name] = str(value)
        elif (x := number(value)) is not None:  # no truth values
            found[name] = x
    return found
