"""Which metrics can tell a model that knows the forget set from one that does not? The default corpus, one seed.

    python scripts/meta_evaluation.py --out DIR --results PAGE

Models that know: the original and originals of other seeds; in 4 bits (round-to-nearest); trained to refuse; unlearned,
then fine-tuned on a tenth of the forget set; the original under other prompt templates; the original sampled at
temperature 1. Models that do not: retrained models of ten other seeds. For each metric and each attributor the AUC of
its forget figure in telling the two apart, with its 95 % interval (Newcombe 2006, method 5). All models share one base.

`models.jsonl` below --out keeps what was measured; the same command continues there.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench_bars import table
from bench_page import with_origin, write_section
from bench_run import append, say

from dareu.config.compose import compose
from dareu.errors import DareuError
from dareu.evaluation.metrics.intervals import Z
from dareu.evaluation.metrics.registry import LATE, registry
from dareu.report.figures import DASH, show
from dareu.runs.files import read_jsonl
from dareu.workflow.console import Console
from dareu.workflow.library_settings import quiet_libraries
from dareu.workflow.loading import load_run_model
from dareu.workflow.prepare import prepare
from dareu.workflow.stages import Stages

Row = dict[str, Any]
SEED = 41
SEEDS = tuple(range(42, 52))
ORIGINALS = (SEED, 42)
REFUSALS = ("idk_sft",)
RELEARNED = ("counterfactual", "npo")
TEMPLATES = ("Please answer this question: {q}",)
# Metrics that are lower in a model that knows.
LOWER = ("truth_ratio", "truth_ratio_log", "depth")
# Probes that train again, or sample much, are left out: fields of the records that are filled for every model.
FIELDS = (
    "sampled",
    "logit_lens",
    "mia_gradient_norm",
    "mia_reference",
    "fade",
    "depth",
    *(f"{name}_figures" for name in ("first_words", "int4")),
)


def auc(known: Sequence[float], unknown: Sequence[float]) -> float:
    """Share of pairs in which the model that knows has the higher figure; a tie counts half."""
    wins = [(k > u) + 0.5 * (k == u) for k in known for u in unknown]
    return sum(wins) / len(wins)


def auc_interval(value: float, m: int, n: int) -> tuple[float, float]:
    """95 % interval of an AUC of m by n (Newcombe 2006, Statistics in Medicine 25, method 5); informative at 1 too."""
    half = (m + n) / 2 - 1

    def outside(theta: float) -> bool:
        spread = (1 + half * ((1 - theta) / (2 - theta) + theta / (1 + theta))) / (m * n)
        return abs(value - theta) > Z * (theta * (1 - theta) * spread) ** 0.5

    ends = []
    for away in (0.0, 1.0):
        inner, outer = value, away
        for _ in range(60):
            middle = (inner + outer) / 2
            inner, outer = (inner, middle) if outside(middle) else (middle, outer)
        ends.append(inner)
    return ends[0], ends[1]


@dataclass(frozen=True)
class Candidate:
    """One model: what it is called, whether it knows, and how to load it (with what it is measured under)."""

    name: str
    group: str
    knows: bool
    load: Callable[[ExitStack], tuple[Any, Any]]


class Meta:
    """The models of the default corpus, and their figures."""

    def __init__(
        self,
        out: Path,
        overrides: Sequence[str] = (),
        seeds: Sequence[int] = SEEDS,
        fields: Sequence[str] = FIELDS,
    ) -> None:
        out.mkdir(parents=True, exist_ok=True)
        self.inputs = [
            f"cache_dir={out / 'store'}",
            "threads=1",
            "evaluation.retain_limit=60",
            "evaluation.samples=4",
            *overrides,
        ]
        self.file, self.seeds, self.fields = out / "models.jsonl", seeds, fields
        self.stages = self._stages()
        self._attributors: dict[str, Any] = {}

    def _stages(self, *overrides: str, seed: int = SEED) -> Stages:
        config = compose([*self.inputs, f"seed={seed}", *overrides])
        return Stages(prepare(config, console=Console(silent=True)))

    def _load(self, stage: Any) -> tuple[Any, Any]:
        return load_run_model(self.stages.context, stage.get().model)

    def candidates(self) -> list[Candidate]:
        """Those that know first."""
        found = [
            Candidate(
                f"original, seed {seed}", "original", True, lambda _, s=seed: self._load(self._of(s).original)
            )
            for seed in ORIGINALS
        ]
        found += [
            Candidate(f"4 bits, seed {seed}", "4 bits", True, lambda stack, s=seed: self._rounded(stack, s))
            for seed in ORIGINALS[:1]
        ]
        found += [
            Candidate(
                method, "refuses", True, lambda _, m=method: self._load(self._stages(f"method={m}").unlearned)
            )
            for method in REFUSALS
        ]
        found += [
            Candidate(f"{method}, relearned", "relearned", True, lambda _, m=method: self._relearned(m))
            for method in RELEARNED
        ]
        found += [
            Candidate(f"template {i}", "template", True, lambda _, t=template: self._templated(t))
            for i, template in enumerate(TEMPLATES, start=1)
        ]
        found += [
            Candidate(
                f"retrained, seed {seed}",
                "retrained",
                False,
                lambda _, s=seed: self._load(self._of(s).retrained),
            )
            for seed in self.seeds
        ]
        return found

    def _of(self, seed: int) -> Stages:
        return self.stages if seed == SEED else self._stages(seed=seed)

    def _rounded(self, stack: ExitStack, seed: int) -> tuple[Any, Any]:
        import torch

        from dareu.evaluation.probes.quantisation import GROUP, changed_weights, round_to_nearest

        model, tokenizer = self._load(self._of(seed).original)
        stack.enter_context(changed_weights(model, lambda weight: round_to_nearest(weight, 4, GROUP)))
        stack.enter_context(torch.enable_grad())  # the weights are changed without; membership needs them
        return model, tokenizer

    def _relearned(self, method: str) -> tuple[Any, Any]:
        import copy

        from dareu.evaluation.probes.base import ProbeInput
        from dareu.evaluation.probes.relearning import shown_part, train_steps
        from dareu.evaluation.subject import Subject

        model, tokenizer = self._load(self._stages(f"method={method}").unlearned)
        split, config = self.stages.context.split, self.stages.context.config
        asked = ProbeInput(split)
        shown = [split.forget[i] for i in shown_part(split.forget, asked.relearn_share, SEED)]
        subject = Subject(model, tokenizer, split.task)
        (trained,) = train_steps(
            subject,
            subject.references(shown),
            [max(asked.steps)],
            lambda one: copy.deepcopy(one.model),
            learning_rate=config.finetune.lr / 4,
            batch_size=asked.training_batch,
            seed=SEED,
        )
        return trained, tokenizer

    def _templated(self, template: str) -> tuple[Any, Any]:
        model, tokenizer = self._load(self.stages.original)
        question = template.format(q="{{ messages[0]['content'] }}")
        tokenizer.chat_template = f"{tokenizer.bos_token or ''}Question: {question}\nAnswer:"
        return model, tokenizer

    def measure(self, one: Candidate) -> list[Row]:
        """The figures of a model; of the original itself those of its sampled answers too."""
        from dareu.evaluation.beside import holdout_of
        from dareu.evaluation.metrics.compute import compute_metrics
        from dareu.evaluation.model_metrics.fields import EvaluationInputs, fill_fields
        from dareu.evaluation.subject import Subject
        from dareu.evaluation.suite import evaluate_model

        stages, config = self.stages, self.stages.context.config
        split = stages.context.split
        peers = {name: lambda n=name: self._load(getattr(stages, n)) for name in ("original", "retrained")}
        with ExitStack() as stack:
            model, tokenizer = one.load(stack)
            records = evaluate_model(model, tokenizer, split, {}, config.evaluation, seed=SEED).records
            by = {
                (s, i): x
                for s in ("forget", "retain", "test", "holdout")
                for i, x in enumerate(getattr(split, s))
            }
            samples = [by[r["set"], r["index"]] for r in records]
            rate = config.finetune.lr / 4
            subject = Subject(model, tokenizer, split.task, config.evaluation.batch_size)
            measured = EvaluationInputs(
                subject, split, records, samples, config.evaluation, peers, SEED, rate
            )
            filled = fill_fields(measured, self.fields)
        rows = []
        variants = {one.name: records}
        if one.name == f"original, seed {SEED}":
            drawn = [r | {"response": r["sampled"][0]} if r.get("sampled") else r for r in records]
            variants["original, sampled at temperature 1"] = drawn
        metrics = [m for m in registry().values() if not any(need in LATE for need in m.needs)]
        for name, mine in variants.items():
            inputs = {"truth_ratio_mean": config.evaluation.truth_ratio, "holdout": holdout_of(mine)}
            summary = compute_metrics(mine, metrics, inputs, filled.missing)
            figures = {m.name: _figure(summary, m) for m in metrics if m.knowledge or m.name == "fade"}
            attributed = {f"attributor {k}": v for k, v in self._attributed(mine).items()}
            group = one.group if name == one.name else "sampled"
            known = {k: v for k, v in (figures | attributed).items() if v is not None}
            rows.append({"name": name, "group": group, "knows": one.knows, "figures": known})
        return rows

    def _attributed(self, records: Sequence[Row]) -> Mapping[str, float | None]:
        """Attributor → mean mass on the forgotten owners over forget answers."""
        from dareu.evaluation.metrics.attribution import attribution_audit

        if not self._attributors:
            auditors = self._stages("evaluation=full").auditors()
            artifact = auditors.get()
            self._attributors = {"causal (the reward's)": self.stages.attributor.load("reward")}
            for name in auditors.names:
                if name not in artifact.extra["missing"]:
                    self._attributors[name] = auditors.load(artifact.path / name)
        audit = attribution_audit(
            self._attributors, {"model": records}, list(self.stages.context.split.forget_owners)
        )
        return dict(audit["rows"]["model"])

    def rows(self) -> list[Row]:
        """The figures of every model, from the file or measured now."""
        known = read_jsonl(self.file) if self.file.is_file() else []
        names = {row["name"] for row in known}
        for one in self.candidates():
            if one.name in names:
                continue
            start = time.perf_counter()
            for row in self.measure(one):
                append(self.file, row)
                known.append(row)
            say(f"{one.name}: {time.perf_counter() - start:.0f} s")
        return known


def _figure(summary: Mapping[str, Any], metric: Any) -> float | None:
    section, key = metric.path("forget")
    value = (summary.get(section) or {}).get(key)
    return float(value) if isinstance(value, int | float) else None


def meta_table(rows: Sequence[Row]) -> tuple[str, list[str]]:
    """One line a metric, the best first; and those that cannot tell."""
    groups = [g for g in dict.fromkeys(row["group"] for row in rows) if g != "retrained"]
    titles = {name: metric.title for name, metric in registry().items()}
    judges = {name for name, metric in registry().items() if metric.knowledge or name == "fade"}
    judged: dict[str, tuple[float, float, float]] = {}
    counts: dict[str, str] = {}
    cells: dict[str, list[str]] = {}
    for name in dict.fromkeys(name for row in rows for name in row["figures"]):
        sign = -1.0 if name in LOWER else 1.0
        mine = [row for row in rows if name in row["figures"]]
        known = [sign * row["figures"][name] for row in mine if row["knows"]]
        unknown = [sign * row["figures"][name] for row in mine if not row["knows"]]
        if len(unknown) < 2 or not known or not (name in judges or name.startswith("attributor")):
            continue
        value = auc(known, unknown)
        judged[name] = (value, *auc_interval(value, len(known), len(unknown)))
        counts[name] = f"{len(known)} and {len(unknown)}"
        means = [
            statistics.fmean(found)
            if (found := [r["figures"][name] for r in mine if r["group"] == g])
            else None
            for g in groups
        ]
        plain = [sign * figure for figure in unknown]
        cells[name] = [
            f"{show(statistics.fmean(plain))} ± {show(statistics.stdev(plain))}",
            *map(show, means),
        ]
    order = sorted(judged, key=lambda name: -judged[name][0])
    lines = []
    for name in order:
        value, low, high = judged[name]
        lines.append(
            [
                titles.get(name, name.capitalize()),
                f"{show(value)} ({show(low)} to {show(high)})",
                counts[name],
                *cells[name],
            ]
        )
    blind = [titles.get(n, n.capitalize()) for n in order if judged[n][1] <= 0.5]
    return table(
        ["metric", "AUC (95 % interval)", "models", "retrained ± sd", *(g or DASH for g in groups)], lines
    ), blind


def body_of(rows: Sequence[Row]) -> str:
    """The section's text."""
    counts = {g: sum(r["group"] == g for r in rows) for g in dict.fromkeys(r["group"] for r in rows)}
    made, blind = meta_table(rows)
    shown = ", ".join(f"{count} {group}" for group, count in counts.items())
    told = (
        f"Cannot tell (the interval reaches .5): {', '.join(blind)}."
        if blind
        else "Every one of them can tell."
    )
    return f"Models: {shown}.\n\n{made}\n{told}\n"


def main(argv: Sequence[str] | None = None) -> int:
    top = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    top.add_argument("--out", type=Path, default=Path("benchmarks/meta"), metavar="DIR")
    top.add_argument("--results", type=Path, metavar="PAGE", help="the page whose section is written")
    top.add_argument("--overrides", nargs="+", default=[], metavar="key=value", help="for every model")
    top.add_argument("--seeds", type=int, nargs="+", default=SEEDS, help="of the retrained models")
    top.add_argument(
        "--fields", nargs="+", choices=FIELDS, default=FIELDS, help="of the records; each has its metrics"
    )
    args = top.parse_args(argv)
    try:
        with quiet_libraries(1):
            body = body_of(Meta(args.out, args.overrides, args.seeds, args.fields).rows())
    except DareuError as error:
        print(f"meta_evaluation: {error}", file=sys.stderr)
        return error.exit_code
    shown = f" --seeds {' '.join(map(str, args.seeds))}"
    shown += f" --fields {' '.join(args.fields)}" if tuple(args.fields) != FIELDS else ""
    shown += f" --overrides {' '.join(args.overrides)}" if args.overrides else ""
    body = with_origin(f"meta_evaluation.py{shown}", body)
    print(body)
    if args.results:
        write_section(args.results, "meta", body)
    return 0


if __name__ == "__main__":
    sys.exit(main())
