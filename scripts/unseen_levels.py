"""How far estimates of a retrained model's forget figures lie from its figures, over several corpora.

    python scripts/unseen_levels.py --corpora 10 --out DIR --results docs/methods/counterfactual.md

Both estimates need no retrained model. *Holdout*: the original's figures on answers about owners that no model saw,
which is `never_saw` in results.json where `retrain=false`. *Renamed*: its answers to the forget queries under
fictitious names, the owners' names put back, which is `method.stop.attribution=counterfactual`. Each corpus has a seed
of its own for the data and for the models; none is reported elsewhere. The same command continues where it stopped.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path
from typing import Any

from bench_bars import table
from bench_page import with_origin, write_section
from bench_run import append, say

from dareu.attribution.lexical import LexicalAttributor
from dareu.attribution.name_masking import NameMasker
from dareu.config.compose import compose
from dareu.evaluation.metrics.rouge import rouge_recall
from dareu.methods.base import MethodContext
from dareu.methods.counterfactual import fakes_for
from dareu.methods.monitors import StoppingMonitor, counterfactual_answers
from dareu.report.figures import show
from dareu.runs.files import read_jsonl
from dareu.training.common import Work
from dareu.workflow.console import Console
from dareu.workflow.figures import Figures
from dareu.workflow.library_settings import quiet_libraries
from dareu.workflow.loading import load_run_model
from dareu.workflow.prepare import prepare
from dareu.workflow.stages import Stages

Row = dict[str, Any]
FIRST_SEED, FIRST_DATA_SEED = 71, 40
ATTRIBUTION = "attribution, word"
MASKED = "attribution, word, names masked"


def measure(seed: int, data_seed: int, overrides: list[str]) -> Row:
    """metric → the original's and the retrained model's forget figures, and the estimates, on one corpus."""
    given = [f"seed={seed}", f"data.seed={data_seed}", "threads=1", *overrides]
    stages = Stages(prepare(compose(given), console=Console(silent=True)))
    assert stages.retrained is not None
    context = stages.context
    models = {"original": stages.original, "retrained": stages.retrained}
    read = {which: stages.evaluation(model, which).read() for which, model in models.items()}
    # Without a model called retrained, the original's figures on the holdout stand in its place.
    figures = Figures.of(context, {"original": read["original"], "unlearned": read["retrained"]})
    row: Row = {"seed": seed, "data_seed": data_seed}
    for metric, found in figures.comparison["never_saw"].items():
        values = {which: one.summary["forget"].get(metric) for which, one in read.items()}
        if None not in values.values():
            row[metric] = values | {"holdout": found["value"]}
    split, samples = context.split, context.corpus.samples
    words = LexicalAttributor.fit(samples, "word")
    policy, tokenizer = load_run_model(context, stages.original.get().model)
    method = MethodContext(
        config=context.config,
        corpus=context.corpus,
        split=split,
        forgotten=split.forget_owners,
        policy=policy,
        tokenizer=tokenizer,
        work=Work(Path()),
        device=context.config.device,
        response_limit=context.config.evaluation.max_new_tokens or 64,
        attributor=lambda role: words,
    )
    answers = {
        which: [r["response"] for r in one.records() if r["set"] == "forget"] for which, one in read.items()
    }
    answers["renamed"] = counterfactual_answers(
        method, fakes_for(split, 1, context.config), method.response_limit
    )
    scores = {
        "ROUGE": lambda texts: statistics.fmean(
            rouge_recall(sample.response, text) or 0.0
            for sample, text in zip(split.forget, texts, strict=True)
        ),
        ATTRIBUTION: lambda texts: StoppingMonitor(words, split.forget_owners).level(texts, queries),
        MASKED: lambda texts: StoppingMonitor(words, split.forget_owners, NameMasker.fit(samples)).level(
            texts, queries
        ),
    }
    queries = [sample.prompt for sample in split.forget]
    for name, score in scores.items():
        row[name] = {which: score(texts) for which, texts in answers.items()}
    return row


def body_of(rows: list[Row]) -> str:
    """Means over the corpora; the estimates' mean and largest distance from the retrained model's figure."""
    metrics = [name for name in rows[0] if isinstance(rows[0][name], dict)]
    lines = []
    for metric in metrics:
        found = [row[metric] for row in rows if metric in row]
        estimate = "renamed" if "renamed" in found[0] else "holdout"
        far = [abs(one[estimate] - one["retrained"]) for one in found]
        signed = statistics.fmean(one[estimate] - one["retrained"] for one in found)
        means = [show(statistics.fmean(one[w] for one in found)) for w in ("original", "retrained", estimate)]
        lines.append(
            [
                metric,
                *means[:2],
                estimate,
                means[2],
                show(signed),
                show(statistics.fmean(far)),
                show(max(far)),
            ]
        )
    head = [
        "metric",
        "original",
        "retrained",
        "estimate",
        "its figure",
        "difference",
        "distance",
        "largest distance",
    ]
    return f"{len(rows)} corpora, means.\n\n{table(head, lines)}"


def main() -> int:
    top = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    top.add_argument("--corpora", type=int, default=10)
    top.add_argument("--out", type=Path, default=Path("benchmarks/unseen"), metavar="DIR")
    top.add_argument("--results", type=Path, metavar="PAGE", help="the page whose section is written")
    top.add_argument("--overrides", nargs="+", default=[], metavar="key=value", help="for every corpus")
    args = top.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    file = args.out / "corpora.jsonl"
    rows = read_jsonl(file) if file.is_file() else []
    with quiet_libraries(1):
        for i in range(len(rows), args.corpora):
            own = ["attributor.name=lexical", f"cache_dir={args.out / 'store'}", *args.overrides]
            rows.append(measure(FIRST_SEED + i, FIRST_DATA_SEED + i, own))
            append(file, rows[-1])
            say(f"corpus {i + 1} of {args.corpora}")
    body = with_origin(f"unseen_levels.py --corpora {args.corpora}", body_of(rows[: args.corpora]))
    say(body)
    if args.results:
        write_section(args.results, "unseen", body)
    return 0


if __name__ == "__main__":
    sys.exit(main())
