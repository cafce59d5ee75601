"""Trials as a table, CSV and JSON lines, and the chosen settings as YAML."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dareu.config import RunConfig
from dareu.config.compose import as_yaml
from dareu.report.comparison import load_runs, to_csv, to_markdown
from dareu.runs.files import write_json, write_jsonl, write_text
from dareu.tuning.study import Trial, best

COLUMNS = ["method", "number", "best", "objective", "seconds", "unlearn_seconds", "failed"]


def write_trials(folder: Path, trials: Mapping[str, list[Trial]]) -> None:
    """`trials.csv` and `trials.jsonl` in `folder`: one row a trial, the failed ones too; the best are marked."""
    import pandas as pd

    rows = [_row(name, t, t == best(tried)) for name, tried in trials.items() for t in tried]
    write_jsonl(folder / "trials.jsonl", rows)
    table = [
        {k: row[k] for k in COLUMNS}
        | row["figures"]
        | {"setting": json.dumps(row["setting"], ensure_ascii=False)}
        for row in rows
    ]
    names = list(dict.fromkeys(name for row in rows for name in row["figures"]))
    frame = pd.DataFrame(table, columns=[*COLUMNS, *names, "setting"])
    write_text(folder / "trials.csv", frame.to_csv(index=False, lineterminator="\n"))


def _row(method: str, trial: Trial, is_best: bool) -> dict[str, Any]:
    outcome = trial.outcome
    return {
        "method": method,
        "number": trial.position + 1,
        "setting": trial.setting,
        **{key: outcome.get(key) for key in ("objective", "failed", "seconds", "unlearn_seconds")},
        "figures": outcome.get("figures", {}),
        "best": is_best,
    }


def write_chosen(folder: Path, chosen: Mapping[str, Trial]) -> None:
    """`chosen.yaml`: the best trial of each method."""
    import yaml  # type: ignore[import-untyped]

    lines = {
        name: {"trial": t.position + 1, "objective": t.objective, "setting": t.setting}
        for name, t in chosen.items()
    }
    write_text(folder / "chosen.yaml", yaml.safe_dump(lines, sort_keys=False, allow_unicode=True))


def write_leaderboard(folder: Path, runs: Sequence[Path]) -> None:
    """`leaderboard.md` and `.csv`: the table over the reported runs; nothing without a run."""
    if runs:
        loaded = load_runs(runs)
        write_text(folder / "leaderboard.md", to_markdown(loaded))
        write_text(folder / "leaderboard.csv", to_csv(loaded))


def write_no_setting(folder: Path, config: RunConfig, reason: str) -> None:
    """What a failed reported run leaves, for a method none of whose trials has a figure; `config` is a trial's."""
    shown = config.evaluation.model_copy(update={"part": "report", "likelihoods": True})
    write_json(folder / "failure.json", {"reason": reason})
    write_text(folder / "config.yaml", as_yaml(config.model_copy(update={"evaluation": shown})))
