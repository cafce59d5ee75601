"""The benchmarks behind docs/results/: one command each, every figure and every verdict computed from runs.

    python scripts/benchmark.py main       time, Tug-of-War, text health, memory of the defaults
    python scripts/benchmark.py other      other corpora, other owners, one owner and five
    python scripts/benchmark.py leaderboard    every method, each tuned with the same number of trials
    python scripts/benchmark.py tofu --tofu FOLDER    TOFU authors; tofu30.jsonl, real_authors_perturbed.json
                                                      and world_facts_perturbed.json lie in FOLDER
    python scripts/benchmark.py pretrained --tofu FOLDER --model MODEL    a pretrained model with LoRA, ten TOFU authors

Each writes its tables into its own section of its page (PAGES) or of --results, with the command, the versions, the
date and the number of CPUs beside them, and prints them. Runs go to --out (default benchmarks/), a folder each, with a
log beside it.

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
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from bench_bars import Seed, bars_table, seeds_table, settings_table
from bench_costs import costs_table
from bench_names import names_table
from bench_page import made_by, write_section
from bench_run import BenchmarkError, Record, Runner
from bench_tune import best_of, chosen_table, trials_table, tuned_records

from dareu.config.compose import compose
from dareu.data.sources.registry import load_corpus
from dareu.data.split import split_corpus
from dareu.errors import DareuError
from dareu.report.comparison import load_runs, to_markdown

SECOND = "npo"  # the second method on the cache of the first
TOFU_FILES = ("tofu30.jsonl", "real_authors_perturbed.json", "world_facts_perturbed.json")
ABOUT_NAMES = (
    "Held-out attribution of answers that name the question's author, or need no name, and of the others."
)
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
    names = names_table({str(s.seed): Path(s.first.run_dir) for s in seeds})
    body = f"{bars_table(seeds)}\nIn brackets the retrained model.\n\n{seeds_table(seeds)}\n{ABOUT_NAMES}\n\n{names}"
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
    return settings_table(groups), [r for records in groups.values() for r in records]


def leaderboard_item(args: argparse.Namespace, runner: Runner) -> Made:
    """`dareu tune` over the methods: trials on the validation part, the chosen settings on the report part."""
    folder = runner.folder / "tune"
    asked = [
        f"methods=[{','.join(args.methods)}]" if args.methods else "methods=all",
        f"trials={args.trials}",
        f"seeds=[{','.join(map(str, args.seeds))}]",
        f"objective={args.choose_by}",
        f"workers={args.workers}",
    ]
    runner.tune(asked, folder)
    records = tuned_records(folder / "runs")
    trials = [json.loads(line) for line in (folder / "trials.jsonl").read_text(encoding="utf-8").splitlines()]
    body = (
        f"{(folder / 'leaderboard.md').read_text(encoding='utf-8')}\n{best_of(records)}\n\n"
        f"Settings, each the best of {args.trials} trials by {args.choose_by} on the validation part:\n\n"
        f"{chosen_table(trials)}\n"
        f"<details><summary>All trials</summary>\n\n{trials_table(trials)}\n</details>\n"
    )
    return body, records


def tofu_files(folder: Path | None, names: Sequence[str]) -> list[str]:
    """Whole paths of the TOFU files in `folder`. `BenchmarkError` where one is not there."""
    if folder is None:
        raise BenchmarkError("Give the folder of the TOFU files: --tofu FOLDER.")
    paths = [(folder / name).resolve() for name in names]
    if gone := [p for p in paths if not p.is_file()]:
        raise BenchmarkError(f"There is no file {gone[0]}.")
    return [str(p) for p in paths]


def tofu_item(args: argparse.Namespace, runner: Runner) -> Made:
    """Thirty TOFU authors, three forgotten, real authors and world facts as the test set."""
    paths = tofu_files(args.tofu, TOFU_FILES)
    data = (
        "experiment=tofu30",
        f"data.path={json.dumps(paths[0])}",
        f"data.test_path={json.dumps(paths[1:])}",
    )
    records = [runner.run(f"tofu-{seed}", (*data, f"seed={seed}")) for seed in args.seeds]
    bars = settings_table({"tofu30": records})
    return f"{bars}\n{to_markdown(load_runs([r.run_dir for r in records]))}", records


def pretrained_item(args: argparse.Namespace, runner: Runner) -> Made:
    """Ten TOFU authors, two forgotten, LoRA on a pretrained model; what the stages took."""
    if args.model is None or not args.model.is_dir():
        raise BenchmarkError("Give the folder of a pretrained model: --model MODEL.")
    data = (
        "experiment=tofu_lora",
        f"data.path={json.dumps(tofu_files(args.tofu, TOFU_FILES[:1])[0])}",
        f"model.path={json.dumps(str(args.model.resolve()))}",
        "method=dareu",
        "method.data_epochs=18",  # ten passes left facts standing on the CPU (docs/dev/log.md)
    )
    records = [runner.run(f"pretrained-{seed}", (*data, f"seed={seed}")) for seed in args.seeds]
    table = to_markdown(load_runs([r.run_dir for r in records]))
    return f"{table}\n{costs_table(records)}", records


ITEMS: dict[str, Callable[[argparse.Namespace, Runner], Made]] = {
    "main": main_item,
    "other": other_item,
    "leaderboard": leaderboard_item,
    "tofu": tofu_item,
    "pretrained": pretrained_item,
}

RESULTS = Path("docs/results")
PAGES = {
    "main": "classic_corpus.md",
    "other": "classic_corpus.md",
    "leaderboard": "classic_corpus.md",
    "tofu": "tofu_from_scratch.md",
    "pretrained": "tofu_pretrained.md",
}


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="benchmark.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    top.add_argument("item", choices=ITEMS)
    top.add_argument("--seeds", type=int, nargs="+", default=[41, 42, 43, 44, 45])
    top.add_argument("--out", type=Path, default=Path("benchmarks"), metavar="DIR")
    top.add_argument("--results", type=Path, metavar="FILE", help="default: the item's own page")
    top.add_argument("--fresh", action="store_true", help="throw away what this item has run so far")
    top.add_argument("--tofu", type=Path, metavar="FOLDER", help="where the TOFU files are")
    top.add_argument("--model", type=Path, metavar="MODEL", help="for `pretrained`: the model's folder")
    top.add_argument("--methods", nargs="+", default=[], help="for `leaderboard`; default: all")
    top.add_argument("--trials", type=int, default=8, help="for `leaderboard`: trials of each method")
    top.add_argument("--workers", type=int, default=1, help="for `leaderboard`: processes")
    top.add_argument(
        "--choose-by", choices=["tug_of_war", "retrain_similarity"], default="retrain_similarity"
    )
    top.add_argument("--overrides", nargs="+", default=[], metavar="key=value", help="for every run")
    return top


def arguments(args: argparse.Namespace) -> list[str]:
    """The command's arguments as the page shows them: without folders, which differ from machine to machine."""
    shown = [args.item, "--seeds", *map(str, args.seeds)]
    if args.item == "leaderboard":
        shown += ["--methods", *args.methods] if args.methods else []
        shown += ["--trials", str(args.trials), "--choose-by", args.choose_by, "--workers", str(args.workers)]
    if args.item in ("tofu", "pretrained"):
        shown += ["--tofu", "FOLDER"]
    if args.item == "pretrained":
        shown += ["--model", "MODEL"]
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
        write_section(args.results or RESULTS / PAGES[args.item], args.item, body)
    except (BenchmarkError, DareuError) as error:
        print(f"benchmark: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("benchmark: interrupted; the same command goes on from here.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the run under way is ended too
    sys.exit(main())
