"""`results.json` as a type: what a run measured. Written once, read through this type everywhere. No torch.

Sections are open: a metric of another package, or of a later version, stays where it was written.
"""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from dareu.config.tables import leaves
from dareu.errors import RunError, expect
from dareu.runs.files import read_json, write_json

if TYPE_CHECKING:
    import pandas as pd

FILE = "results.json"
SCHEMA_VERSION = 2  # files from before the key existed count as 1
MODELS = ("original", "retrained", "unlearned")


class _Open(BaseModel):
    """Fields that are not declared are kept as they are."""

    model_config = ConfigDict(extra="allow")

    @model_validator(mode="before")
    @classmethod
    def _null_is_nothing(cls, tree: Any) -> Any:
        """A section that was written as null is an empty one."""
        if not isinstance(tree, dict):
            return tree
        empty = {name for name, field in cls.model_fields.items() if field.default == {}}
        return {key: {} if value is None and key in empty else value for key, value in tree.items()}


class Interval(_Open):
    """A figure with its 95 % interval and the number of samples behind it; None where it could not be computed."""

    value: float | None = None
    low: float | None = None
    high: float | None = None
    n: int | None = None


class Worst(_Open):
    """The metric with the largest |knowledge left|."""

    metric: str
    value: float


class ModelFigures(_Open):
    """The figures of one model, a section for each set of samples and each family of metrics."""

    forget: dict[str, Any] = {}
    retain: dict[str, Any] = {}
    test: dict[str, Any] = {}
    text_health: dict[str, Any] = {}
    text_health_retain: dict[str, Any] = {}
    membership: dict[str, Any] = {}
    intervals: dict[str, Any] = {}
    extra: dict[str, Any] = {}


class Results(_Open):
    """What `results.json` holds.

    Attributes:
        schema_version: of the file that was read.
        method, seed: what was run.
        data, data_key: the corpus and the request, and the content key of the corpus.
        model_keys: "original", "retrained" → content key of the model; None: there is none.
        definitions: metric → which of several published definitions its figures follow.
        models: "original", "retrained", "unlearned" → figures.
        tug_of_war, tug_of_war_without_test, retrain_similarity, forget_quality: unlearned beside retrained.
        knowledge_left: metric → (u − r)/(o − r) with its interval; `value` None for metrics that cannot tell.
        knowledge_left_worst: the largest |k| and its metric (`evaluation.knowledge.worst`).
        never_saw: without a retrained model: metric → the original's figure on the holdout, an estimate of its.
        damage: "retain", "test" → share of samples that the retrained model has right and the unlearned one has not;
            `original`: the same of the original model; `beyond_original`: the difference.
        seconds: stage → seconds.
        missing: path of a figure → why it is missing.
    """

    schema_version: int = 1
    method: str | None = None
    seed: int | None = None
    data: dict[str, Any] = {}
    data_key: str | None = None
    model_keys: dict[str, str | None] = {}
    definitions: dict[str, str] = {}
    models: dict[str, ModelFigures] = {}
    tug_of_war: float | None = None
    tug_of_war_without_test: float | None = None
    retrain_similarity: float | None = None
    forget_quality: dict[str, Any] | None = None
    knowledge_left: dict[str, Interval] = {}
    knowledge_left_worst: Worst | None = None
    never_saw: dict[str, Interval] = {}
    damage: dict[str, Interval] = {}
    seconds: dict[str, float | None] = {}
    missing: dict[str, str] = {}

    @classmethod
    def of(cls, tree: Any, where: str = "These results") -> Results:
        """Results from plain data.

        Raises:
            RunError: A field has another type than declared, or the file is of a later version.
        """
        try:
            results = cls.model_validate(tree)
        except ValidationError as error:
            first = error.errors()[0]
            path = ".".join(map(str, first["loc"])) or "the whole"
            raise RunError(f"{where}: {path}: {first['msg']}.", "Run it again in another run_dir.") from None
        if results.schema_version > SCHEMA_VERSION:
            raise RunError(
                f"{where} has schema version {results.schema_version}; this dareu reads up to {SCHEMA_VERSION}.",
                "Install a newer dareu.",
            )
        return results

    @classmethod
    def read(cls, path: str | Path) -> Results:
        """The results in a file, or in the run folder `path`.

        Raises:
            RunError: There are none, or not such.
        """
        path = Path(path)
        file = path / FILE if path.is_dir() else path
        return cls.of(read_json(file), str(file))

    def write(self, path: str | Path) -> None:
        """Write them as a file of the current schema version; a file is whole or not there."""
        write_json(path, self.tree() | {"schema_version": SCHEMA_VERSION})

    def tree(self) -> dict[str, Any]:
        """Plain dicts, lists and numbers, without fields that were never set."""
        return self.model_dump(exclude_unset=True)


def results_frame(*runs: str | Path | Results | dict[str, Any]) -> pd.DataFrame:
    """One row a run and model, one column a figure.

    Args:
        runs: run folders, folders of run folders, files, or results.

    Returns:
        Columns `run`, `method`, `seed`, `model`, then each figure by its path ("forget.rouge_l",
        "text_health.empty", "tug_of_war", "knowledge_left.rouge_l", "seconds.unlearn"). Figures that compare the
        unlearned model with the retrained one, knowledge left, damage and seconds stand in its rows alone.
        NaN: missing.

    Raises:
        RunError: where there are no results, or they cannot be read.
    """
    import pandas as pd

    rows = []
    for name, results in _read(runs):
        tree = results.tree()
        for model in sorted(
            tree.get("models", {}), key=lambda m: MODELS.index(m) if m in MODELS else len(MODELS)
        ):
            row = {"run": name, "method": results.method, "seed": results.seed, "model": model}
            figures = {k: v for k, v in tree["models"][model].items() if k != "intervals"}
            if model == "unlearned":
                figures |= {
                    k: tree.get(k) for k in ("tug_of_war", "tug_of_war_without_test", "retrain_similarity")
                }
                figures["forget_quality"] = tree.get("forget_quality")
                for part in ("knowledge_left", "damage"):
                    figures[part] = {k: (v or {}).get("value") for k, v in (tree.get(part) or {}).items()}
                for of, entry in (tree.get("damage") or {}).items():
                    for beside in ("original", "beyond_original"):
                        if (entry or {}).get(beside):
                            figures["damage"][f"{of}.{beside}"] = entry[beside].get("value")
                figures["seconds"] = tree.get("seconds")
            rows.append(row | _flat(figures))
    frame = pd.DataFrame(rows)
    first = [c for c in ("run", "method", "seed", "model") if c in frame]
    return frame[first + [c for c in frame.columns if c not in first]]


def _read(runs: Sequence[str | Path | Results | dict[str, Any]]) -> list[tuple[str, Results]]:
    named: list[tuple[str, Results]] = []
    for i, run in enumerate(runs):
        known = isinstance(run, str | PathLike | Results | dict)
        expect(known, f"runs[{i}]", run, "folders, files or results, one argument each: results_frame(*runs)")
        if isinstance(run, Results):
            named.append(("", run))
        elif isinstance(run, dict):
            named.append((str(run.get("run_dir", "")), Results.of(run)))
        else:
            path = Path(run)
            files = [path] if path.is_file() or (path / FILE).is_file() else sorted(path.rglob(FILE))
            if not files:
                raise RunError(f"{path} holds no {FILE}.", "Give a run folder, or a folder of run folders.")
            named += [(str(f.parent if f.name == FILE else f), Results.read(f)) for f in files]
    return named


def _flat(tree: dict[str, Any]) -> dict[str, Any]:
    """Numbers (and truth values as numbers) of nested dicts by their dotted path; anything else is left out."""
    known = ((path, entry) for path, entry in leaves(tree) if entry is None or isinstance(entry, int | float))
    return {path: None if entry is None else float(entry) for path, entry in known}
