"""Evaluation of a checkpoint folder, kept in the store like any other stage."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dareu.data.corpus import Split
from dareu.data.evaluation_parts import part_of
from dareu.runs.files import read_json, write_json, write_jsonl
from dareu.runs.manifest import content_key
from dareu.workflow.prepare import digest
from dareu.workflow.stages import Artifact, Bench

SAMPLES = "samples.jsonl"


@dataclass(frozen=True)
class Judged:
    """One checkpoint's summary and where its per-sample records lie."""

    summary: dict[str, Any]
    samples: Path
    seconds: float

    def records(self) -> list[dict[str, Any]]:
        """The per-sample records."""
        return [json.loads(line) for line in self.samples.read_text(encoding="utf-8").splitlines()]


def judge(bench: Bench, name: str, checkpoint: Path, key: str) -> Judged:
    """Evaluate the checkpoint with content key `key`; `name` is what it is called on the screen."""
    config = bench.config
    attributor = bench.attributor
    split = part_of(bench.split, config.evaluation.part, config.evaluation.validation_share)
    tree = {
        "model": key,
        "attributor": attributor.key,
        "evaluation": config.evaluation.measured(),
        "forget": digest(split.forget),
        "retain": digest(split.retain),
        "test": digest(split.test),
        "seed": config.seed,
    }
    evaluation_key = content_key(tree)
    from dareu.evaluation.suite import evaluate_model  # imports are no part of a stage's seconds

    with bench.store.building("evaluation", evaluation_key, config=tree, seed=config.seed) as build:
        if not build.done:
            with bench.talk.stage(f"evaluation of the {name} model"):
                summary, records = _evaluate(bench, name, checkpoint, split, attributor, evaluate_model)
                write_json(build.out / "summary.json", summary)
                write_jsonl(build.out / SAMPLES, records)
                build.finish()
        else:
            bench.talk.say(f"[green]✓[/] evaluation of the {name} model [dim]from the store[/]")
        return Judged(read_json(build.path / "summary.json"), build.path / SAMPLES, build.manifest.seconds)


def judge_models(bench: Bench, unlearned: Artifact, compared: bool = True) -> dict[str, Judged]:
    """The unlearned model's evaluation and, where it is `compared`, those of the original and the retrained model."""
    judged = {}
    if compared:
        judged["original"] = judge(bench, "original", bench.original.model, bench.original.key)
    if compared and bench.retrained is not None:
        judged["retrained"] = judge(bench, "retrained", bench.retrained.model, bench.retrained.key)
    judged["unlearned"] = judge(bench, "unlearned", checkpoint_of(unlearned), unlearned.key)
    return judged


def checkpoint_of(unlearned: Artifact) -> Path:
    """Where the model lies: a folder from elsewhere is one itself."""
    return unlearned.path if "given" in unlearned.extra else unlearned.model


def _evaluate(
    bench: Bench, name: str, checkpoint: Path, split: Split, attributor: Artifact, evaluate_model: Any
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    from dareu.attribution.registry import load_attributor
    from dareu.models.load import pick_device

    config = bench.config
    device = str(pick_device(config.device))
    model, tokenizer = bench.load(checkpoint)
    result = evaluate_model(
        model,
        tokenizer,
        split,
        {
            "attribution": load_attributor(bench.attributor_folder("reward"), device),
            "attribution_heldout": load_attributor(attributor.path / "char"),
        },
        config.evaluation,
        seed=config.seed,
        device=device,
        progress=bench.talk.bar(f"evaluating the {name} model"),
    )
    return result.summary, result.records
