"""Can the default corpus tell known from forgotten? Trains original and retrained models and prints a Markdown table.

    python scripts/check_corpus.py --seeds 41 42 43 [--originals 41] [overrides such as data.seed=20]

Nothing is unlearned and no attributor is trained. Stages come from the artifact store where they are there already.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence
from typing import Any

from dareu.config.compose import compose
from dareu.evaluation.suite import evaluate_model
from dareu.models.load import load_model
from dareu.workflow.library_settings import quiet_libraries
from dareu.workflow.prepare import prepare
from dareu.workflow.stages.wiring import Stages

SETS = ("forget", "retain", "test")
FIGURES = ("rouge_l", "probability", "truth_ratio")
COLUMNS = [f"{s} {f}" for s in SETS for f in FIGURES] + ["exact (forget)", "copies the name", "finished"]


def figures(seed: int, which: str, overrides: Sequence[str]) -> list[float]:
    """The row of one model: what its greedy answers and its likelihoods say."""
    stages = Stages(prepare(compose([f"seed={seed}", *overrides])))
    stage: Any = stages.original if which == "original" else stages.retrained
    model, tokenizer = load_model(stage.get().model)
    config = stages.context.config
    found = evaluate_model(model, tokenizer, stages.context.split, {}, config.evaluation, seed=seed)
    forget = [r for r in found.records if r["set"] == "forget"]
    return [
        *(found.summary[s][f] for s in SETS for f in FIGURES),
        share(r["response"] == r["reference"] for r in forget),
        share(r["owner"] in r["response"] for r in forget),
        share(r["finished"] for r in forget),
    ]


def share(values: Any) -> float:
    return statistics.fmean(map(float, values))


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])  # type: ignore[union-attr]
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=[41, 42, 43], help="seeds of retrained models"
    )
    parser.add_argument("--originals", type=int, nargs="+", default=[41], help="seeds of original models")
    parser.add_argument("overrides", nargs="*", help="configuration keys")
    options = parser.parse_args(argv)
    rows = [("original", seed) for seed in options.originals] + [
        ("retrained", seed) for seed in options.seeds
    ]
    print("| model | seed | " + " | ".join(COLUMNS) + " |")
    print("|" + " --- |" * (2 + len(COLUMNS)))
    made: dict[str, list[list[float]]] = {"original": [], "retrained": []}
    with quiet_libraries():
        for which, seed in rows:
            made[which].append(figures(seed, which, options.overrides))
            print(
                f"| {which} | {seed} | " + " | ".join(f"{x:.3f}" for x in made[which][-1]) + " |", flush=True
            )
    original, retrained = made["original"][0], made["retrained"]
    for row, seed in zip(retrained, options.seeds, strict=True):
        nothing = 1.0
        for place in range(len(SETS)):  # ROUGE is the first figure of each set
            nothing *= 1 - abs(original[place * len(FIGURES)] - row[place * len(FIGURES)])
        print(f"\nTug-of-War of doing nothing against seed {seed}: {nothing:.3f}")
    for place in range(len(FIGURES)):
        values = [row[place] for row in retrained]
        print(f"\nSpread of {COLUMNS[place]} over the retrained models: {max(values) - min(values):.3f}")


if __name__ == "__main__":
    main()
