"""Trials as a table: read from the notes that jobs left, written as CSV and JSON lines. Which of them is best."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from dareu.config import RunConfig
from dareu.config.compose import as_yaml
from dareu.runs.files import read_json, write_json, write_jsonl, write_text
from dareu.tuning.search_space import Setting
from dareu.tuning.study import Proposal


@dataclass(frozen=True)
class Trial:
    """Trial `number` (1 is the defaults) of a method; `failed` is the reason where it has no objective."""

    method: str
    number: int
    setting: Setting
    objective: float | None
    failed: str | None
    seconds: float
    unlearn_seconds: float | None = None
    figures: dict[str, Any] = field(default_factory=dict)


def read_trials(method: str, folder: Path, proposals: Sequence[Proposal]) -> list[Trial]:
    """The trials that have ended, in the order of their numbers."""
    found = []
    for p in proposals:
        path = folder / f"{p.position}.json"
        if path.is_file():
            note = read_json(path)
            found.append(
                Trial(
                    method=method,
                    number=p.position + 1,
                    setting=p.setting,
                    objective=note.get("objective"),
                    failed=note["failed"],
                    seconds=note["seconds"],
                    unlearn_seconds=note.get("unlearn_seconds"),
                    figures=note.get("figures", {}),
                )
            )
    return found


def best(trials: Sequence[Trial]) -> Trial | None:
    """The trial with the highest objective, the first of equals: the defaults where nothing was better."""
    return max(
        (t for t in trials if t.objective is not None), key=lambda t: (t.objective, -t.number), default=None
    )


def write_trials(folder: Path, trials: Mapping[str, Sequence[Trial]]) -> None:
    """`trials.csv` and `trials.jsonl` in `folder`: one row a trial, the failed ones too; the best are marked."""
    rows = [asdict(t) | {"best": t == best(tried)} for tried in trials.values() for t in tried]
    write_jsonl(folder / "trials.jsonl", rows)
    names = list(dict.fromkeys(name for row in rows for name in row["figures"]))
    columns = ["method", "number", "best", "objective", "seconds", "unlearn_seconds", "failed"]
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow([*columns, *names, "setting"])
    for row in rows:
        cells = [row[name] for name in columns] + [row["figures"].get(name) for name in names]
        writer.writerow(
            ["" if c is None else c for c in cells] + [json.dumps(row["setting"], ensure_ascii=False)]
        )
    write_text(folder / "trials.csv", file.getvalue())


def write_chosen(folder: Path, chosen: Mapping[str, Trial]) -> None:
    """`chosen.yaml`: the best trial of each method."""
    lines = {
        name: {"trial": t.number, "objective": t.objective, "setting": t.setting}
        for name, t in chosen.items()
    }
    write_text(folder / "chosen.yaml", yaml.safe_dump(lines, sort_keys=False, allow_unicode=True))


def write_no_setting(folder: Path, config: RunConfig, reason: str) -> None:
    """What a failed reported run leaves, for a method none of whose trials has a figure; `config` is a trial's."""
    shown = config.evaluation.model_copy(update={"part": "report", "likelihoods": True})
    write_json(folder / "failure.json", {"reason": reason})
    write_text(folder / "config.yaml", as_yaml(config.model_copy(update={"evaluation": shown})))
