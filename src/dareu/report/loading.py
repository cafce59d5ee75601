"""Finished and failed runs from disk, and the settings that tell them apart."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from dareu.config.tables import leaves
from dareu.errors import RunError, check_folder
from dareu.evaluation.results import FILE, Results
from dareu.runs.files import read_json

RESULTS, FAILURE = FILE, "failure.json"
# Top keys of a configuration that do not change what is measured, or that are averaged over.
NEUTRAL = frozenset(
    {"seed", "run_dir", "cache_dir", "overwrite", "retrain", "device", "threads", "experiment", "logging"}
)
UNREAD = {"save_every", "search"}  # keys at any depth that change no run


def load_runs(paths: Sequence[str | Path]) -> list[dict[str, Any]]:
    """Results of run folders; a path may also be a folder of run folders.

    Each dict is `results.json` and `run_dir`, `settings` (flat config of the method), `context` (flat config
    of everything else). A folder with only `failure.json` gives `failure`, the reason, in place of figures.

    Raises:
        RunError: A folder is without results, or has some that cannot be read.
    """
    folders: list[Path] = []
    for path in map(Path, paths):
        here = any((path / name).is_file() for name in (RESULTS, FAILURE))
        below = () if here else (p.parent for name in (RESULTS, FAILURE) for p in path.rglob(name))
        runs_there = [path] if here else sorted(set(below))
        if not runs_there:
            cure = "Give a run folder, or a folder of them; an interrupted run goes on if its command is given again."
            check_folder(path, cure)
            raise RunError(f"{path} holds no {RESULTS}.", cure)
        folders += [f for f in runs_there if f.resolve() not in {g.resolve() for g in folders}]
    runs = [_load(folder) for folder in folders]
    # A run that failed early has no data_key; it stands with finished runs of the same configuration.
    for run in runs:
        if "data_key" not in run["context"]:
            twins = (r["context"] for r in runs if run["context"].items() <= r["context"].items())
            run["context"] = max(twins, key=len)
    return runs


def read_results(folder: Path) -> dict[str, Any]:
    """The results of a run folder as plain data, read through their type.

    Raises:
        RunError: They cannot be.
    """
    path = folder / RESULTS
    return Results.of(read_object(path), str(path)).tree()


def read_object(path: Path) -> dict[str, Any]:
    """A JSON object from a file of a run folder.

    Raises:
        RunError: There is none.
    """
    if not path.is_file():
        raise RunError(
            f"{path.parent} is not the folder of a finished run: it has no {path.name}.",
            "Give the folder that `dareu train` named.",
        )
    tree = read_json(path)
    if not isinstance(tree, dict):
        raise RunError(f"{path} holds no JSON object.", "Run it again in another run_dir.")
    return tree


def _load(folder: Path) -> dict[str, Any]:
    config = run_config(folder)
    method = config.pop("method", None) or {}
    if (folder / RESULTS).is_file():
        run = read_results(folder)
        if not run.get("method"):
            raise RunError(
                f"{folder / RESULTS} holds no results of a run: it names no method.",
                "Name the run folders themselves, or move that file away.",
            )
        method = run.get("unlearn_config") or {}  # None: a checkpoint from elsewhere
    else:
        reason = str(read_object(folder / FAILURE).get("reason") or "no reason was recorded")
        run = {"method": method.get("name", folder.name), "seed": config.get("seed"), "failure": reason}
    if "data_key" in run:
        config["data_key"] = run["data_key"]
    return run | {
        "run_dir": str(folder),
        "settings": flatten(method),
        "context": flatten(config or run.get("data") or {}),
    }


def run_config(folder: Path) -> dict[str, Any]:
    """What the `config.yaml` of a run folder says; nothing where there is none."""
    path = folder / "config.yaml"
    if not path.is_file():
        return {}
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError:
        raise RunError(f"{path} is not valid YAML.", "Put back the file that the run wrote.") from None
    return tree if isinstance(tree, dict) else {}


def flatten(tree: Mapping[str, Any]) -> dict[str, str]:
    """`{"a": {"b": 1}}` as `{"a.b": "1"}`, without `NEUTRAL` keys; numbers that are equal read alike."""
    return {
        path: _text(entry)
        for path, entry in leaves({key: entry for key, entry in tree.items() if key not in NEUTRAL})
        if not UNREAD.intersection(path.split("."))
    }


def _text(entry: Any) -> str:
    if isinstance(entry, bool) or entry is None:
        return str(entry).lower().replace("none", "null")
    if isinstance(entry, float):
        return f"{entry:g}"
    if isinstance(entry, list | tuple):
        return "[" + ",".join(map(_text, entry)) + "]"
    return str(entry)


def differing(trees: Sequence[Mapping[str, str]]) -> list[str]:
    """Keys whose value is not the same in all `trees`, sorted; a key that is missing counts as a value."""
    keys = sorted({k for tree in trees for k in tree})
    return [k for k in keys if len({tree.get(k) for tree in trees}) > 1]
