"""The benchmarks behind docs/results.md: one command each, every figure and every verdict computed from runs.

    python scripts/benchmark.py main       time, Tug-of-War, text health, memory of the defaults
    python scripts/benchmark.py other      other corpora, other owners, one owner and five
    python scripts/benchmark.py methods    DareU beside the baselines, each tuned with the same number of trials
    python scripts/benchmark.py tofu --tofu FOLDER    real TOFU authors; tofu30.jsonl, real_authors_perturbed.json
                                                      and world_facts_perturbed.json lie in FOLDER

Each writes its tables into its own section of --results, with the command, the versions, the date and the number of
CPUs beside them, and prints them. Runs go to --out (default benchmarks/), a folder each, with a log beside it.

An interrupted benchmark goes on where it stood: a run is repeated only where its configuration has changed. What it
does not notice is a changed program; --fresh throws the item's folder away first. The times of `main` count only as
a pair, so both runs of a seed are made anew where either is missing.

--overrides key=value … go to every run, after its own: for a smaller trial of this script, or for another model.
Run it on an idle machine: nothing else is measured as wall seconds.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from bench_bars import Seed, bars_table, seeds_table, settings_table
from bench_page import made_by, write_section
from bench_run import BenchmarkError, Record, Runner
from bench_tune import GRIDS, VALIDATION, Setting, choose, chosen_table, settings, trials_table

from dareu.data.sources import load_corpus
from dareu.data.split import split_corpus
from dareu.errors import DareuError
from dareu.pipeline.compose import compose
from dareu.report.compare import load_runs, to_markdown

SECOND = "npo"  # the second method on the cache of the first
OTHER_BAR, TOFU_BAR = 0.93, 0.90
TOFU_FILES = ("tofu30.jsonl", "real_authors_perturbed.json", "world_facts_perturbed.json")
Made = tuple[str, list[Record]]  # the section's tables, and the runs behind them


def main_item(args: argparse.Namespace, runner: Runner) -> Made:
    """The defaults: the first run of each seed from an empty cache, then another method on that cache."""
    seeds = []
    for seed in args.seeds:
        jobs = {f"dareu-{seed}": (f"seed={seed}",), f"{SECOND}-{seed}": (f"method={SECOND}", f"seed={seed}")}
        cache = f"cache-{seed}"
        if not all(runner.remembered(*job) for job in jobs.items()):
            runner.forget(*jobs, cache)
        first, second = (runner.run(*job, cache=runner.folder / cache) for job in jobs.items())
        seeds.append(Seed(seed, first, second))
    body = f"{bars_table(seeds)}\nIn brackets the retrained model.\n\n{seeds_table(seeds)}"
    return body, [r for s in seeds for r in (s.first, s.second)]


def other_settings(extra: Sequence[str] = ()) -> dict[str, tuple[str, ...]]:
    """Settings other than the defaults: label → overrides. The two other owners are the first and a middle one."""
    config = compose(extra)
    corpus = load_corpus(config.data)
    default = split_corpus(corpus, config.forget).forget_owners
    rest = [owner for owner in corpus.owners if owner not in default]
    two = [rest[0], rest[len(rest) // 2]]
    owners = f"forget.owners={json.dumps(two, ensure_ascii=False)}"
    plain = (*(f"data.seed={n}" for n in (8, 9, 10)), "forget.count=1", "forget.count=5")
    return {**{p: (p,) for p in plain}, f"forget.owners=[{', '.join(two)}]": (owners,)}


def other_item(args: argparse.Namespace, runner: Runner) -> Made:
    """Other data seeds, other owners, one owner and five."""
    groups = {
        label: [runner.run(f"setting{i}-{seed}", (*overrides, f"seed={seed}")) for seed in args.seeds]
        for i, (label, overrides) in enumerate(other_settings(args.overrides).items(), start=1)
    }
    return settings_table(groups, OTHER_BAR), [r for records in groups.values() for r in records]


def methods_item(args: argparse.Namespace, runner: Runner) -> Made:
    """Trials on the validation bench, then every method's chosen setting on the reported seeds."""
    trials: dict[str, dict[Setting, list[Record]]] = {}
    for method in args.methods:
        trials[method] = {
            setting: [runner.run(f"trial-{method}-{i}", (f"method={method}", *setting, *VALIDATION))]
            for i, setting in enumerate(settings(method, args.trials), start=1)
        }
    chosen = {method: choose(tried, args.choose_by) for method, tried in trials.items()}
    final = {
        method: [runner.run(f"{method}-{s}", (f"method={method}", *setting, f"seed={s}")) for s in args.seeds]
        for method, setting in chosen.items()
        if setting is not None
    }
    records = [r for made in final.values() for r in made]
    compared = (
        to_markdown(load_runs([r.run_dir for r in records])) if records else "No method has a figure.\n"
    )
    body = (
        f"{compared}\n{best_of(final)}\n\n"
        f"Of {args.trials} trials each on {' '.join(VALIDATION)}, by {args.choose_by}:\n\n{chosen_table(chosen)}\n"
        f"<details><summary>All trials</summary>\n\n{trials_table(trials, args.choose_by)}\n</details>\n"
    )
    return body, records + [r for tried in trials.values() for made in tried.values() for r in made]


def best_of(final: dict[str, list[Record]]) -> str:
    """Which method has the highest mean Tug-of-War and retrain similarity; one with a failed run has no mean."""
    said = []
    for key, title in (("tug_of_war", "Tug-of-War"), ("retrain_similarity", "retrain similarity")):
        best = choose({(method,): records for method, records in final.items()}, key)
        said.append(f"the highest mean {title} has {best[0] if best else 'none'}")
    return f"On these seeds {' and '.join(said)}."


def tofu_item(args: argparse.Namespace, runner: Runner) -> Made:
    """Thirty real TOFU authors, three forgotten, real authors and world facts as the test set."""
    if args.tofu is None:
        raise BenchmarkError("Give the folder of the TOFU files: --tofu FOLDER.")
    paths = [str((args.tofu / name).resolve()) for name in TOFU_FILES]
    if gone := [p for p in paths if not Path(p).is_file()]:
        raise BenchmarkError(f"There is no file {gone[0]}.")
    data = (
        "experiment=tofu30",
        f"data.path={json.dumps(paths[0])}",
        f"data.test_path={json.dumps(paths[1:])}",
    )
    records = [runner.run(f"tofu-{seed}", (*data, f"seed={seed}")) for seed in args.seeds]
    bars = settings_table({"tofu30": records}, TOFU_BAR)
    return f"{bars}\n{to_markdown(load_runs([r.run_dir for r in records]))}", records


ITEMS: dict[str, Callable[[argparse.Namespace, Runner], Made]] = {
    "main": main_item,
    "other": other_item,
    "methods": methods_item,
    "tofu": tofu_item,
}


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="benchmark.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    top.add_argument("item", choices=ITEMS)
    top.add_argument("--seeds", type=int, nargs="+", default=[41, 42, 43, 44, 45])
    top.add_argument("--out", type=Path, default=Path("benchmarks"), metavar="DIR")
    top.add_argument("--results", type=Path, default=Path("docs/results.md"), metavar="FILE")
    top.add_argument("--fresh", action="store_true", help="throw away what this item has run so far")
    top.add_argument("--tofu", type=Path, metavar="FOLDER", help="where the TOFU files are")
    top.add_argument("--methods", nargs="+", choices=GRIDS, default=list(GRIDS), help="for `methods`")
    top.add_argument("--trials", type=int, default=8, help="for `methods`: trials of each")
    top.add_argument("--choose-by", choices=["tug_of_war", "retrain_similarity"], default="tug_of_war")
    top.add_argument("--overrides", nargs="+", default=[], metavar="key=value", help="for every run")
    return top


def arguments(args: argparse.Namespace) -> list[str]:
    """The command's arguments as the page shows them: without folders, which differ from machine to machine."""
    shown = [args.item, "--seeds", *map(str, args.seeds)]
    if args.item == "methods":
        shown += ["--methods", *args.methods, "--trials", str(args.trials), "--choose-by", args.choose_by]
    if args.item == "tofu":
        shown += ["--tofu", "FOLDER"]
    return shown + (["--overrides", *args.overrides] if args.overrides else [])


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(argv)
    folder = args.out / args.item
    if args.fresh:
        shutil.rmtree(folder, ignore_errors=True)
    try:
        body, records = ITEMS[args.item](args, Runner(folder, args.overrides))
        body = f"{made_by(arguments(args), records)}\n{body}"
        print(body)
        write_section(args.results, args.item, body)
    except (BenchmarkError, DareuError) as error:
        print(f"benchmark: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("benchmark: interrupted; the same command goes on from here.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
