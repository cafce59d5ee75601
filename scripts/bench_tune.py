"""The leaderboard of `dareu tune` as tables: what was chosen, every trial, who is best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from bench_bars import table
from bench_run import Record

from dareu.evaluation.results import Results
from dareu.report.aggregate import aggregate
from dareu.report.comparison import load_runs
from dareu.report.figures import DASH, show, show_seconds
from dareu.tuning.search_space import show_setting

Trial = Mapping[str, Any]
FIGURES = ("tug_of_war", "retrain_similarity", "forget_rouge_l", "retain_rouge_l")


def tuned_records(folder: Path) -> list[Record]:
    """The reported runs below `folder`, failed ones too; their dates are those of their files."""
    made = []
    for run in load_runs([folder]):
        where = Path(run["run_dir"])
        file = where / ("failure.json" if "failure" in run else "results.json")
        date = datetime.fromtimestamp(file.stat().st_mtime, timezone.utc).strftime("%Y-%m-%d")
        results = {} if "failure" in run else Results.read(file).tree()
        seconds = sum(s for s in (results.get("seconds") or {}).values() if s)
        memory = results.get("peak_memory_mb", 0.0)
        made.append(
            Record(where.name, "", [], date, seconds, memory, str(where), results, run.get("failure"))
        )
    return made


def best_of(records: Sequence[Record]) -> str:
    """Which method has the highest mean Tug-of-War and retrain similarity; one with a failed run has no mean."""
    rows = [r for r in aggregate(load_runs([r.run_dir for r in records])) if r.model == "unlearned"]
    said = []
    for key, title in (("tug_of_war", "Tug-of-War"), ("retrain_similarity", "retrain similarity")):
        whole = [(stat.mean, row.label) for row in rows if (stat := row.stats[key]) and not row.failures]
        said.append(f"the highest mean {title} has {max(whole)[1] if whole else 'none'}")
    return f"On these seeds {' and '.join(said)}."


def chosen_table(trials: Sequence[Trial]) -> str:
    """Every method's setting and the figure it was chosen by."""
    rows = []
    for method in dict.fromkeys(t["method"] for t in trials):
        best = [t for t in trials if t["method"] == method and t["best"]]
        setting = show_setting(best[0]["setting"]) if best else "none: all trials failed"
        figure = show(best[0]["objective"]) if best else DASH
        rows.append(
            [method, setting + (" (the defaults)" if best and best[0]["number"] == 1 else ""), figure]
        )
    return table(["method", "setting chosen", "on the validation part"], rows)


def trials_table(trials: Sequence[Trial]) -> str:
    """Every trial, the failed ones too; the chosen ones are bold, the first of each method are its defaults."""
    rows = []
    for trial in trials:
        bold = "**" if trial["best"] else ""
        numbers = [show(trial["figures"].get(key)) for key in FIGURES]
        name = f"{bold}{trial['method']}, {show_setting(trial['setting'])}{bold}"
        rows.append([name, *numbers, show_seconds(trial["unlearn_seconds"]), trial["failed"] or ""])
    head = [
        "trial",
        "Tug-of-War",
        "retrain similarity",
        "forget ROUGE",
        "retain ROUGE",
        "unlearning",
        "failure",
    ]
    return table(head, rows)
