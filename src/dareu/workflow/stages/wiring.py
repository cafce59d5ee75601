"""Which stage reads which."""

from __future__ import annotations

from pathlib import Path

from dareu.data.corpus import Split
from dareu.workflow.context import Context
from dareu.workflow.keys import names_a_base
from dareu.workflow.stages.attributor import AttributorStage
from dareu.workflow.stages.audit import Auditors
from dareu.workflow.stages.base import Stage
from dareu.workflow.stages.evaluation import Evaluated, Evaluation
from dareu.workflow.stages.models import BaseModelStage, FineTuned, Imported
from dareu.workflow.stages.unlearned import Unlearned

SEED = "retrained "  # what the retrained model of another seed is called: with its number, from 2 on


class Stages:
    """All stages of one request, connected as in the drawing. Nothing is built until a `get()` is called.

    The original model and the attributor do not depend on the forget request, so that another request on the same
    data finds them in the store.

    Args:
        context: The request.
        start: The model that is unlearned, where it is not the original: the result of the request before.
        shared: Stages of another request of the same run, whose base, original and attributor are taken.
    """

    def __init__(self, context: Context, start: Stage | None = None, shared: Stages | None = None) -> None:
        self.context = context
        self._evaluations: dict[tuple[Stage, str], Evaluation] = {}
        self.base: BaseModelStage = shared.base if shared else BaseModelStage(context)
        self.original: Stage = shared.original if shared else self._original()
        self.retrained = self._retrained()
        # The retrained model with other seeds: how far its figures spread by chance.
        self.retrained_seeds = tuple(
            Imported(context, Path(folder), "retrained") for folder in context.config.retrained_folders[1:]
        )
        self.attributor: AttributorStage = (
            shared.attributor if shared else AttributorStage(context, self.original)
        )
        self.unlearned = Unlearned(
            context,
            self.original,
            self.attributor,
            self.retrained,
            self.base
            if isinstance(self.original, FineTuned) or names_a_base(context.base, context.imported)
            else None,
            start,
        )

    def _original(self) -> Stage:
        source = self.context.config.original
        return (
            Imported(self.context, Path(source)) if source else FineTuned(self.context, self.base, "original")
        )

    def _retrained(self) -> Stage | None:
        config = self.context.config
        if config.retrained_folders:
            return Imported(self.context, Path(config.retrained_folders[0]), "retrained")
        return FineTuned(self.context, self.base, "retrained") if config.retrain else None

    def for_request(self, split: Split, forgotten: tuple[str, ...], start: Stage | None = None) -> Stages:
        """The stages of one of several requests."""
        return Stages(self.context.with_split(split, forgotten), start, shared=self)

    def evaluation(self, model: Stage, which: str) -> Evaluation:
        """The evaluation of `model` on this request's samples."""
        if (model, which) not in self._evaluations:
            peers = {"original": self.original} | ({"retrained": self.retrained} if self.retrained else {})
            evaluation = Evaluation(self.context, model, self.attributor, which, peers)
            self._evaluations[model, which] = evaluation
        return self._evaluations[model, which]

    def auditors(self) -> Auditors:
        """The attributors of the audit."""
        return Auditors(self.context, self.original, self.attributor)

    def evaluations(self, unlearned: Stage, compared: bool = True) -> dict[str, Evaluation]:
        """Of the unlearned model and, where it is `compared`, of the original and the retrained one."""
        models: dict[str, Stage] = {}
        if compared:
            models["original"] = self.original
        if compared and self.retrained is not None:
            models["retrained"] = self.retrained
            models |= {f"{SEED}{i}": model for i, model in enumerate(self.retrained_seeds, start=2)}
        models["unlearned"] = unlearned
        return {which: self.evaluation(model, which) for which, model in models.items()}

    def evaluate(self, unlearned: Stage, compared: bool = True) -> dict[str, Evaluated]:
        """The figures of `evaluations`."""
        return {which: one.read() for which, one in self.evaluations(unlearned, compared).items()}
