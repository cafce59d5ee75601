"""The leaderboard of the default corpus: every method tuned alike, chosen by knowledge left within bounds.

    python scripts/leaderboard.py --methods npo task_vector … --out DIR --results PAGE

Trials run on a validation corpus, whose authors and seed are never reported: trial 1 of a method is its
defaults, the others are drawn at random from its `search` block. So the trials depend on no objective, and the best by
the worst |knowledge left| and the best by Tug-of-War are chosen from the same ones. The worst |k| alone prefers
destroyed models, which know nothing: what is chosen by it must lie within `BOUNDS`, and where no trial does, the one
that exceeds them least is taken. Each choice is then run on every seed of the default corpus. A floor stands beside
the methods: the retrained model of another seed in the place of the unlearned one.

All runs share one process. `trials.jsonl` and `reported.jsonl` below --out hold what was measured; the same command
continues from there, and measures again only what has another configuration. `--runs` sets finished runs of
`dareu train` beside them, of methods whose settings were chosen elsewhere; `--trials-of` takes trials as another
version of this library measured them. `NAME+muon` among the methods is NAME trained with Muon: the same draws, and
`MUON_RATE` times the learning rate.
"""

from __future__ import annotations

import argparse
import hashlib
import math
import shutil
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench_bars import table
from bench_page import with_origin, write_section
from bench_run import append, say

from dareu.config import RunConfig
from dareu.config.compose import compose
from dareu.errors import ConfigError, DareuError
from dareu.report.figures import DASH, show
from dareu.runs.files import read_json, read_jsonl
from dareu.runs.manifest import content_key
from dareu.tuning.search_space import overrides_of, show_setting, space_of
from dareu.workflow.console import Console
from dareu.workflow.figures import Figures
from dareu.workflow.library_settings import quiet_libraries
from dareu.workflow.prepare import prepare
from dareu.workflow.stages import Checkpoint, Stage, Stages

Row = dict[str, Any]
Cells = Mapping[str, float | None]
Score = Callable[[Cells], tuple[float, ...]]
FLOOR = "retrained, another seed"
VALIDATION = ("data.seed=20", "seed=51", "evaluation.retain_limit=100")
COLUMNS: dict[str, Callable[[Row], float | None]] = {
    "worst |k|": lambda row: abs(row["worst"]["value"]),
    "k of probability": lambda row: row["knowledge"].get("probability"),
    "k of ROUGE": lambda row: row["knowledge"].get("rouge_l"),
    "k of membership (loss)": lambda row: row["knowledge"].get("membership_loss"),
    "Tug-of-War": lambda row: row["tug_of_war"],
    "similarity": lambda row: row["retrain_similarity"],
    "damage retain": lambda row: row["damage_retain"],
    "damage test": lambda row: row["damage_test"],
    "broken": lambda row: row["broken"],
    "seconds": lambda row: row["seconds"],
}
# What a usable model may lose: shares of the answers that the retrained model has right (the original itself lacks up
# to .07 of the retain and .13 of the test answers), and the share of forget answers with a word that does not exist.
BOUNDS = {"damage retain": 0.1, "damage test": 0.2, "broken": 0.1}
MUON = "+muon"
# Of AdamW's learning rate; counterfactual's own two defaults (6e-3 and before 1.5e-3) differ so.
MUON_RATE = 4.0


def excess(cells: Cells) -> float:
    """How far a model's figures exceed `BOUNDS`, summed over them; 0 within. A missing figure exceeds nothing."""
    return sum(max(0.0, (cells[name] or 0.0) - bound) for name, bound in BOUNDS.items())


# What trials are chosen and methods ordered by, higher is better.
BOUNDED = "worst |k| within bounds"
CHOICES: dict[str, Score] = {
    BOUNDED: lambda cells: (-excess(cells), -(cells["worst |k|"] or 0.0)),
    "Tug-of-War": lambda cells: (cells["Tug-of-War"] or 0.0,),
}
# Two-sided 95 % quantiles of Student's t by degrees of freedom.
T95 = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}


def method_of(name: str) -> list[str]:
    """The overrides that choose a method of the table: `npo`, or `npo+muon`."""
    method = name.removesuffix(MUON)
    return [f"method={method}", *(["method.optim.name=muon"] if name != method else [])]


def settings_of(config: RunConfig, count: int, rate: float = 1.0) -> list[Row]:
    """The defaults, then settings drawn at random from the method's search space; the same ones in every call.

    Args:
        config: With the method.
        count: How many.
        rate: By what the learning rates are multiplied.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    space, defaults = space_of(config)
    digest = hashlib.sha256(config.method.name.encode()).digest()
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(int.from_bytes(digest[:4], "big")))
    study.enqueue_trial(defaults)
    drawn = [study.ask(space).params for _ in range(count)]
    return [{key: v * rate if key == "optim.lr" else v for key, v in each.items()} for each in drawn]


def measure(stages: Stages, unlearned: Stage) -> Row:
    """The figures of one model beside the original and the retrained model of its seed."""
    assert stages.retrained is not None
    seconds = unlearned.get().seconds
    models = {"original": stages.original, "retrained": stages.retrained, "unlearned": unlearned}
    figures = Figures.of(
        stages.context, {which: stages.evaluation(m, which).read() for which, m in models.items()}
    )
    return row_of(figures.comparison, figures.summaries["unlearned"], seconds)


def row_of(found: Mapping[str, Any], unlearned: Mapping[str, Any], seconds: float) -> Row:
    """The figures of the table, from a comparison (or `results.json`) and the unlearned model's own figures."""
    health = unlearned.get("text_health") or {}
    if found["knowledge_left_worst"] is None or found["tug_of_war"] is None:
        raise DareuError("Knowledge left or Tug-of-War was not computed.", "See docs/metrics.md.")
    return {
        "knowledge": {name: entry["value"] for name, entry in found["knowledge_left"].items()},
        "worst": found["knowledge_left_worst"],
        "tug_of_war": found["tug_of_war"],
        "retrain_similarity": found["retrain_similarity"],
        "damage_retain": found["damage"]["retain"]["value"],
        "damage_test": found["damage"]["test"]["value"],
        "broken": health.get("broken"),
        "seconds": None if math.isnan(seconds) else seconds,
    }


def rows_of_runs(folders: Sequence[Path], seeds: Sequence[int]) -> dict[str, list[Row]]:
    """Method, marked as chosen elsewhere → the figures of its finished runs, one a seed.

    Raises:
        ConfigError: where a folder holds no finished run, or a method's runs are not of just these seeds.
    """
    rows: dict[str, list[Row]] = {}
    for folder in folders:
        if not (folder / "results.json").is_file():
            raise ConfigError(f"{folder} holds no results.json.", "Give folders of finished runs.")
        found = read_json(folder / "results.json")
        row = row_of(found, found["models"]["unlearned"], found["seconds"]["unlearn"])
        label = {"method": f"{found['method']}, chosen elsewhere", "seed": found["seed"], "failed": None}
        rows.setdefault(label["method"], []).append(label | row)
    for name, mine in rows.items():
        if sorted(row["seed"] for row in mine) != sorted(seeds):
            raise ConfigError(
                f"The runs of {name} have the seeds {sorted(row['seed'] for row in mine)}, the table {sorted(seeds)}.",
                "Give one run of each seed, or other --seeds.",
            )
    return rows


class Board:
    """Measures what the files below `out` do not hold yet."""

    def __init__(self, out: Path, overrides: Sequence[str], trials: int) -> None:
        out.mkdir(parents=True, exist_ok=True)
        self.out, self.count = out, trials
        self.given = [f"cache_dir={out / 'store'}", "threads=1", *overrides]

    def stages(self, *overrides: str) -> Stages:
        return Stages(prepare(compose([*self.given, *overrides]), console=Console(silent=True)))

    def rows(self, name: str) -> dict[str, Row]:
        """Key → what was measured, of `trials` or `reported`."""
        file = self.out / f"{name}.jsonl"
        return {row["key"]: row for row in read_jsonl(file)} if file.is_file() else {}

    def _measured(self, name: str, label: Row, stages: Stages, model: Callable[[], Stage]) -> Row:
        """The remembered row of this configuration, or one made now; of the unlearned model its figures are kept."""
        config = stages.context.config
        key = content_key([label["method"], stages.unlearned.key(), config.evaluation.measured()])
        if known := self.rows(name).get(key):
            return known
        start = time.perf_counter()
        row: Row = {"key": key, **label, "failed": None}
        try:
            stage = model()
            row |= measure(stages, stage)
            if stage is stages.unlearned:
                shutil.rmtree(stage.get().path, ignore_errors=True)
        except DareuError as error:  # it stays in the table
            row["failed"] = error.cause
        append(self.out / f"{name}.jsonl", row)
        shown = (
            row["failed"] or f"worst k {show(row['worst']['value'])}, Tug-of-War {show(row['tug_of_war'])}"
        )
        say(f"{name} {label}: {shown} ({time.perf_counter() - start:.0f} s)")
        return row

    def trials_of(self, file: Path, methods: Sequence[str]) -> dict[str, list[Row]]:
        """Method → its trials in `file`, as they stand there; `ConfigError` where there are fewer than wanted."""
        rows = read_jsonl(file)
        found = {m: [row for row in rows if row["method"] == m][: self.count] for m in methods}
        if short := [m for m, mine in found.items() if len(mine) < self.count]:
            raise ConfigError(
                f"{file} holds fewer than {self.count} trials of {', '.join(short)}.",
                "Leave these methods out.",
            )
        return found

    def trials(self, methods: Sequence[str]) -> dict[str, list[Row]]:
        """Method → its trials. All methods have their first trial before any has its second."""
        plans = {
            m: settings_of(
                compose([*self.given, *method_of(m)]), self.count, MUON_RATE if m.endswith(MUON) else 1.0
            )
            for m in methods
        }
        found: dict[str, list[Row]] = {m: [] for m in methods}
        for number in range(self.count):
            for method in methods:
                setting = plans[method][number]
                stages = self.stages(*method_of(method), *VALIDATION, *overrides_of(setting))
                label = {"method": method, "number": number + 1, "setting": setting}
                found[method].append(self._measured("trials", label, stages, lambda s=stages: s.unlearned))  # type: ignore[misc]
        return found

    def reported(self, method: str, setting: Row, seed: int) -> Row:
        """The figures of a chosen setting on one seed of the default corpus."""
        stages = self.stages(*method_of(method), f"seed={seed}", *overrides_of(setting))
        label = {"method": method, "seed": seed, "setting": setting}
        return self._measured("reported", label, stages, lambda: stages.unlearned)

    def floor(self, seed: int, other: int) -> Row:
        """The retrained model of another seed in the place of the unlearned one."""

        def model() -> Stage:
            retrained = self.stages(f"seed={other}").retrained
            assert retrained is not None
            return Checkpoint(stages.context, retrained.get().model)

        stages = self.stages(f"seed={seed}")
        return self._measured(
            "reported", {"method": FLOOR, "seed": seed, "setting": {"of": other}}, stages, model
        )


def cells_of(rows: Sequence[Row]) -> dict[str, float | None]:
    """The columns' means over the runs that ended."""
    found = {}
    for name, read in COLUMNS.items():
        kept = [value for value in map(read, rows) if value is not None]
        found[name] = statistics.fmean(kept) if kept else None
    return found


def ended(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if not row["failed"]]


def best(trials: Sequence[Row], score: Score) -> Row | None:
    """The trial with the highest score, the first of equals; None where all failed."""
    return max(ended(trials), key=lambda trial: score(cells_of([trial])), default=None)


def in_order(rows: Mapping[str, Sequence[Row]], score: Score) -> list[str]:
    """The names by the score of their mean figures, the best first; those of which no run ended come last."""

    def order(name: str) -> tuple[bool, tuple[float, ...]]:
        kept = ended(rows[name])
        return bool(kept), score(cells_of(kept)) if kept else ()

    return sorted(rows, key=order, reverse=True)


def mean_text(values: Sequence[float | None]) -> str:
    """Mean and the half-width of its 95 % interval over seeds (Student's t)."""
    kept = [v for v in values if v is not None]
    if not kept:
        return DASH
    mean = statistics.fmean(kept)
    if len(kept) < 2:
        return show(mean)
    return f"{show(mean)} ± {show(T95[len(kept) - 1] * statistics.stdev(kept) / math.sqrt(len(kept)))}"


def board_table(rows: dict[str, list[Row]], score: Score) -> str:
    """One line a method, the best first; runs that failed are counted, and have no part in the means."""
    lines = []
    for name in in_order(rows, score):
        kept = ended(rows[name])
        worst = [row["worst"]["metric"] for row in kept]
        named = ", ".join(f"{m} ({worst.count(m)})" for m in dict.fromkeys(worst)) or DASH
        cells = [mean_text([read(row) for row in kept]) for read in COLUMNS.values()]
        within = ("no" if excess(cells_of(kept)) else "yes") if kept else DASH
        lines.append([name, f"{len(kept)} of {len(rows[name])}", within, *cells, named])
    return table(["method", "runs", "within bounds", *COLUMNS, "worst metric (seeds)"], lines)


def ranks_table(boards: dict[str, dict[str, list[Row]]]) -> str:
    """Rank of each method by each choice, and Kendall's τ between the two."""
    from scipy.stats import kendalltau

    ranks = {}
    for choice, board in boards.items():
        rows = {name: found for name, found in board.items() if name != FLOOR and ended(found)}
        ranks[choice] = {name: i for i, name in enumerate(in_order(rows, CHOICES[choice]), start=1)}
    first, second = ranks.values()
    names = [name for name in first if name in second]
    tau = kendalltau([first[name] for name in names], [second[name] for name in names])
    head = ["method", *(f"rank, chosen and ordered by {choice}" for choice in ranks)]
    body = table(head, [[name, str(first[name]), str(second[name])] for name in names])
    return f"{body}\nKendall's τ of the two orders: {tau.statistic:.2f} ({len(names)} methods).\n"


def trials_table(trials: dict[str, list[Row]]) -> str:
    """Every trial on the validation corpus."""
    lines = []
    for method, rows in trials.items():
        marks: dict[str, list[str]] = {}
        for choice, score in CHOICES.items():
            if chosen := best(rows, score):
                marks.setdefault(chosen["key"], []).append(choice)
        for row in rows:
            figures = (
                [DASH] * 6
                if row["failed"]
                else [
                    f"{show(row['worst']['value'])} ({row['worst']['metric']})",
                    *(
                        show(row[of])
                        for of in ("tug_of_war", "damage_retain", "damage_test", "broken", "seconds")
                    ),
                ]
            )
            chosen_by = ", ".join(marks.get(row["key"], []))
            lines.append([method, show_setting(row["setting"]), *figures, chosen_by, row["failed"] or ""])
    measured = ["worst k", "Tug-of-War", "damage retain", "damage test", "broken", "seconds"]
    return table(["method", "setting", *measured, "chosen by", "failure"], lines)


def trials_body(trials: dict[str, list[Row]]) -> str:
    """The section's text where nothing is reported: each method's best trial, on the corpus that chose it."""
    chosen = {
        choice: {m: best(rows, score) for m, rows in trials.items()} for choice, score in CHOICES.items()
    }
    boards = {c: {m: [row] for m, row in found.items() if row is not None} for c, found in chosen.items()}
    parts = [
        f"The best trial by {choice}, on the validation corpus itself:\n\n{board_table(rows, CHOICES[choice])}"
        for choice, rows in boards.items()
    ]
    parts += [ranks_table(boards), _details(trials)]
    return "\n".join(parts)


def _details(trials: dict[str, list[Row]]) -> str:
    return f"<details><summary>All trials</summary>\n\n{trials_table(trials)}\n</details>\n"


def body_of(
    board: Board,
    methods: Sequence[str],
    seeds: Sequence[int],
    trials: dict[str, list[Row]],
    choices: Sequence[str] = tuple(CHOICES),
    runs: Mapping[str, list[Row]] | None = None,
) -> str:
    """Choices among the trials, reported runs; the section's text.

    Args:
        choices: by which of `CHOICES`.
        runs: rows of finished runs, which stand in every table.
    """
    if not seeds:
        return trials_body(trials)
    others = dict(zip(seeds, [*seeds[1:], *seeds[:1]], strict=True))
    boards: dict[str, dict[str, list[Row]]] = {choice: dict(runs or {}) for choice in choices}
    for choice, rows in boards.items():
        score = CHOICES[choice]
        for seed, other in others.items():  # all methods have their first seed before any has its second
            if other != seed:
                rows.setdefault(FLOOR, []).append(board.floor(seed, other))
            for method in methods:
                if (top := best(trials[method], score)) is not None:
                    rows.setdefault(method, []).append(board.reported(method, top["setting"], seed))
    over = (
        f"mean ± half-width of the 95 % interval over {len(seeds)} seeds"
        if len(seeds) > 1
        else "one seed alone"
    )
    parts = [
        f"Chosen by {choice} on the validation corpus, and in that order on the reported seeds ({over}):\n\n"
        f"{board_table(rows, CHOICES[choice])}"
        for choice, rows in boards.items()
    ]
    failed = [m for m in methods if all(row["failed"] for row in trials[m])]
    parts += [f"No trial ended: {', '.join(failed)}.\n"] if failed else []
    if len(boards) == 2:
        parts.append(ranks_table(boards))
    return "\n".join(parts)


def arguments() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    top.add_argument("--methods", nargs="+", required=True)
    top.add_argument("--trials", type=int, default=8)
    top.add_argument(
        "--seeds", type=int, nargs="*", default=[41, 42, 43, 44, 45], help="none: the trials alone"
    )
    top.add_argument("--choices", nargs="+", choices=CHOICES, default=list(CHOICES), help="what chooses")
    top.add_argument("--runs", type=Path, nargs="*", default=[], metavar="RUN", help="finished runs as rows")
    top.add_argument("--trials-of", type=Path, metavar="FILE", help="trials.jsonl of another version")
    top.add_argument("--out", type=Path, default=Path("benchmarks/default"), metavar="DIR")
    top.add_argument("--results", type=Path, metavar="PAGE", help="the page whose section is written")
    top.add_argument("--overrides", nargs="+", default=[], metavar="key=value", help="for every run")
    return top


def main(argv: Sequence[str] | None = None) -> int:
    args = arguments().parse_args(argv)
    shown = (
        f"--methods {' '.join(args.methods)} --trials {args.trials} --seeds {' '.join(map(str, args.seeds))}"
    )
    shown += f" --choices {' '.join(map(repr, args.choices))}" if len(args.choices) < len(CHOICES) else ""
    shown += f" --runs {' '.join(run.name for run in args.runs)}" if args.runs else ""
    shown += f" --overrides {' '.join(args.overrides)}" if args.overrides else ""
    try:
        with quiet_libraries(1):
            board = Board(args.out, args.overrides, args.trials)
            trials = (
                board.trials_of(args.trials_of, args.methods)
                if args.trials_of
                else board.trials(args.methods)
            )
            body = body_of(
                board, args.methods, args.seeds, trials, args.choices, rows_of_runs(args.runs, args.seeds)
            )
        body = with_origin(f"leaderboard.py {shown}", body)
        print(body)
        if args.results:
            write_section(args.results, "reported" if args.seeds else "tuned", body)
    except DareuError as error:
        print(f"leaderboard: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
