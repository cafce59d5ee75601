"""The attributors of the audit: fitted on the data alone, in no reward, kept in the store."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dareu.attribution.base import Attributor
from dareu.attribution.registry import AUDITORS, OF_MODEL
from dareu.config import AttributorConfig
from dareu.runs import ranks
from dareu.runs.store import Building
from dareu.workflow.context import Context
from dareu.workflow.keys import samples_key
from dareu.workflow.loading import load_run_model
from dareu.workflow.stages.attributor import AttributorStage
from dareu.workflow.stages.base import Stage

COUNTERFACTUAL = "counterfactual"


class Auditors(Stage):
    """Each attributor of `evaluation.attributors` in a folder of its name; `extra.missing`: why one is not there."""

    name = "auditors"
    memory_keys = "attributor.optim.micro_batch_size or attributor.max_length"

    def __init__(self, context: Context, original: Stage, reward: AttributorStage) -> None:
        super().__init__(context, "attributors of the audit")
        self.original, self.reward = original, reward
        evaluation = context.config.evaluation
        wanted = AUDITORS if evaluation.suite == "full" else ()
        self.names = tuple(wanted if evaluation.attributors is None else evaluation.attributors)

    def inputs(self) -> Any:
        return {
            "names": self.names,
            "data": samples_key(self.context.corpus.samples),
            "seed": self.context.config.seed,
            "tokenizer": self.original.key() if set(self.names) & set(OF_MODEL) else None,
        }

    def prepare(self) -> None:
        self.original.whole()

    def build(self, building: Building) -> dict[str, Any]:
        return ranks.on_main(lambda: self._fit(building))

    def _fit(self, building: Building) -> dict[str, Any]:
        from dareu.attribution.registry import FitContext, fit_auditors
        from dareu.models.load import pick_device

        context = self.context
        of_model = set(self.names) & set(OF_MODEL)
        model, tokenizer = load_run_model(context, self.original.get().model) if of_model else (None, None)
        device, seed = str(pick_device(context.config.device)), context.config.seed
        fit = FitContext(
            context.corpus, AttributorConfig(), model, tokenizer, (), None, seed, device, building.work,
            context.console.progress("fitting the audit's attributors"),
        )  # fmt: skip
        made, missing = fit_auditors(self.names, fit)
        for name, attributor in made.items():
            if name == COUNTERFACTUAL:  # its weights are the original's, which the store has
                attributor.save(building.out / name, weights=False)  # type: ignore[attr-defined]
            else:
                attributor.save(building.out / name)  # type: ignore[attr-defined]
        return {"missing": missing}

    def table(
        self, records: Mapping[str, Sequence[Mapping[str, Any]]], forget_owners: Sequence[str]
    ) -> dict[str, Any]:
        """`attribution_audit` of the evaluated models, the attributor that gives the reward among the columns; and
        `missing`: column → why it is not there."""
        from dareu.evaluation.metrics.attribution import attribution_audit

        artifact, reward = self.get(), f"reward ({self.context.config.attributor.name})"
        missing: dict[str, str] = artifact.extra["missing"]
        attributors = {reward: self.reward.load("reward")}
        attributors |= {name: self.load(artifact.path / name) for name in self.names if name not in missing}
        return attribution_audit(attributors, records, forget_owners, reward) | {"missing": missing}

    def load(self, folder: Path) -> Attributor:
        """An attributor that `build` has saved."""
        from dareu.attribution.counterfactual import CounterfactualAttributor
        from dareu.attribution.registry import load_attributor

        if folder.name == COUNTERFACTUAL:
            loaded = load_run_model(self.context, self.original.get().model)
            label = self.context.console.progress("answers read by the audit's attributors")
            return CounterfactualAttributor.load(folder, loaded=loaded, progress=label)
        return load_attributor(folder)
