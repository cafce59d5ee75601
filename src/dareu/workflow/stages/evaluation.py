"""Evaluation of one model: figures and one record a sample, in the store like the result of any other stage."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dareu.data.corpus import Split
from dareu.data.split import part_of
from dareu.evaluation.metrics.registry import DEFINITIONS, MEASURED, has_probes, needs_peers
from dareu.runs.files import read_json, read_jsonl, write_json, write_jsonl
from dareu.runs.ranks import on_main
from dareu.runs.store import MANIFEST, Building
from dareu.workflow.context import Context
from dareu.workflow.keys import samples_key
from dareu.workflow.loading import load_run_model
from dareu.workflow.stages.attributor import AttributorStage
from dareu.workflow.stages.base import Stage

SAMPLES = "samples.jsonl"


@dataclass(frozen=True)
class Evaluated:
    """The figures of one model, the file with one record a sample, and the seconds it took."""

    summary: dict[str, Any]
    samples: Path
    seconds: float

    def records(self) -> list[dict[str, Any]]:
        """The per-sample records."""
        return read_jsonl(self.samples)


def _measured_by(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """What the answers and likelihoods of an evaluation depend on: `inputs` without the metrics' definitions."""
    return {"measured": 1} | {key: value for key, value in inputs.items() if key != "definitions"}


class Evaluation(Stage):
    """The figures of `model`, which is called `which` on the screen."""

    name = "evaluation"
    memory_keys = "evaluation.batch_size or evaluation.max_new_tokens"

    def __init__(
        self,
        context: Context,
        model: Stage,
        attributor: AttributorStage,
        which: str,
        peers: Mapping[str, Stage],
    ) -> None:
        super().__init__(context, f"evaluation of the {which} model")
        self.model, self.attributor, self.which = model, attributor, which
        self.peers = dict(peers) if needs_peers(context.config.evaluation.suite) else {}

    def split(self) -> Split:
        """The samples that are evaluated."""
        evaluation = self.context.config.evaluation
        return part_of(self.context.split, evaluation.part, evaluation.validation_share)

    def inputs(self) -> dict[str, Any]:
        config, split = self.context.config, self.split()
        evaluation = config.evaluation
        further: dict[str, Any] = {}  # what only some suites and data have
        if self.peers:
            further["peers"] = {name: stage.key() for name, stage in self.peers.items()}
        if has_probes(evaluation.suite):
            further |= {"learning_rate": self.learning_rate(), "attacks": samples_key(split.attacks)}
        if split.holdout:
            further["holdout"] = samples_key(split.holdout)
        return further | {
            "model": self.model.key(),
            "attributor": self.attributor.key(),
            "evaluation": evaluation.measured(),
            "definitions": DEFINITIONS,
            "measured": MEASURED,
            "forget": samples_key(split.forget),
            "retain": samples_key(split.retain),
            "test": samples_key(split.test),
            "seed": config.seed,
        }

    def learning_rate(self) -> float:
        """Of the probes that train again."""
        config = self.context.config
        return config.evaluation.relearn_lr or config.finetune.lr / 4

    def prepare(self) -> None:
        import dareu.evaluation.suite  # noqa: F401

        self.model.whole()
        self.attributor.whole()
        for peer in self.peers.values():
            peer.whole()

    def build(self, building: Building) -> dict[str, Any]:
        from dareu.evaluation.suite import evaluate_model
        from dareu.models.load import pick_device

        context, config = self.context, self.context.config
        device = str(pick_device(config.device))
        on_main(lambda: self._take_over(building.work))
        model, tokenizer = load_run_model(context, self.model.get().model)
        result = evaluate_model(
            model,
            tokenizer,
            self.split(),
            {
                "attribution": self.attributor.load("reward", device),
                "attribution_heldout": self.attributor.held_out(),
            },
            config.evaluation,
            seed=config.seed,
            device=device,
            progress=context.console.progress(f"evaluating the {self.which} model"),
            peers={name: self._loader(stage) for name, stage in self.peers.items()},
            learning_rate=self.learning_rate(),
            work=building.work,
        )
        write_json(building.out / "summary.json", result.summary)
        write_jsonl(building.out / SAMPLES, result.records)
        return {}

    def _take_over(self, work: Path) -> None:
        """Begin with the answers of a stored evaluation that differs in the metrics' definitions alone."""
        from dareu.evaluation.suite import take_over

        wanted = _measured_by(json.loads(json.dumps(self.inputs())))
        for path in self.context.store.artifacts():
            if path.parent.name != self.name or not self.context.store.find(self.name, path.name):
                continue
            if _measured_by(read_json(path / MANIFEST)["config"]) == wanted:
                return take_over(read_jsonl(path / SAMPLES), work)

    def _loader(self, stage: Stage) -> Callable[[], tuple[Any, Any]]:
        return lambda: load_run_model(self.context, stage.get().model)

    def read(self) -> Evaluated:
        """The figures, computed first where the store has none."""
        artifact = self.get()
        return Evaluated(read_json(artifact.path / "summary.json"), artifact.path / SAMPLES, artifact.seconds)
