"""The unlearning stage: from the original model to an unlearned checkpoint, by the method that is configured."""

from __future__ import annotations

import importlib
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dareu.config import HFConfig
from dareu.models.files import ADAPTER
from dareu.runs.store import Building
from dareu.workflow.context import Context
from dareu.workflow.given_adapter import keeps_adapter
from dareu.workflow.keys import samples_key
from dareu.workflow.loading import load_run_model, note_base, response_limit
from dareu.workflow.stages.attributor import AttributorStage
from dareu.workflow.stages.base import Artifact, Stage
from dareu.workflow.stages.models import BaseModelStage

if TYPE_CHECKING:
    from dareu.methods.base import MethodContext
    from dareu.training.best_weights import BestWeights
    from dareu.training.common import Work


class Unlearned(Stage):
    """A model with the forget set unlearned. The artifact holds `model/`, `training.jsonl` and how training ended.

    Args:
        context: The request.
        original: The original model.
        attributor: Fitted only where the method reads it.
        retrained: With `method.evaluate_every` what the best weights are chosen by; None: the original.
        base: What the original was fine-tuned from, where that is known and no adapter on it.
        start: The model that is unlearned, where it is not the original: the result of the request before.
    """

    name = "unlearned"
    memory_keys = (
        "method.optim.micro_batch_size, method.warm_start.optim.micro_batch_size, method.prompts_per_batch or "
        "model.max_length"
    )

    def __init__(
        self,
        context: Context,
        original: Stage,
        attributor: AttributorStage,
        retrained: Stage | None = None,
        base: BaseModelStage | None = None,
        start: Stage | None = None,
    ) -> None:
        from dareu.methods.registry import method_of

        super().__init__(context, f"unlearned by {context.config.method.name}")
        self.original, self.start = original, start or original
        self.attributor, self.retrained, self.base = attributor, retrained, base
        self.chooses = getattr(context.config.method, "evaluate_every", None) is not None
        self.method = method_of(context.config.method)

    def inputs(self) -> Any:
        context, config = self.context, self.context.config
        adamw = config.method.optimizer == "adamw"
        tree = {
            "original": self.start.key(),
            "forget": context.split.forget_owners,
            "method": config.method.model_dump(
                exclude={
                    "optim": {"save_every"} | ({"name"} if adamw else set()),
                    "search": True,
                    "vllm": True,
                    "evaluate_every": not self.chooses,
                    "refusals": True,
                    "reward": {"refusals"},
                }
            ),
            "seed": config.seed,
        }
        if context.forgotten != context.split.forget_owners:  # a later request
            tree["forgotten"] = context.forgotten
        if config.original:  # of a model that was fine-tuned here, its key covers these
            tree["adapter"] = config.model.model_dump(include={"adapter", "lora"})
            tree["data"] = samples_key(context.corpus.samples)
        # The key of an adapter covers its base.
        if config.original and not keeps_adapter(config) and self.method.reads_calibration(config):
            tree["base"] = self.base.key() if self.base else None
        if context.split.calibration and self.method.reads_calibration(config):
            tree["calibration"] = samples_key(context.split.calibration)
        if self.chooses:
            chosen = config.evaluation.model_dump(include={"validation_share", "retain_limit"})
            tree["chosen_by"] = chosen | {"retrained": self.retrained.key() if self.retrained else None}
        stages: dict[str, Stage] = {"attributor": self.attributor}
        return tree | self.method.key(config, lambda name: stages[name].key())

    def prepare(self) -> None:
        self.start.whole()
        if self.chooses and self.retrained is not None:
            self.retrained.whole()
        if self.method.reads_attributor(self.context.config):
            self.attributor.whole()
        if self.method.engine is not None:
            importlib.import_module(self.method.engine)

    def build(self, building: Building) -> dict[str, Any]:
        from dareu.models.load import save_model
        from dareu.training.common import Work, checkpoint_named, write_log

        context, config = self.context, self.context.config
        policy, tokenizer = _policy(context, self.start.get().model)
        work = Work(
            building.work,
            building.tick,
            on_row=context.tracker.curve(self.curve or self.name),
            log_every=config.logging.every,
            progress=context.console.progress(f"unlearning by {config.method.name}"),
            best=self._best_weights(building.work, policy, tokenizer) if self.chooses else None,
        )
        with checkpoint_named(work):
            outcome = self.method.run(self.method_context(policy, tokenizer, work))
        if work.best is not None:
            outcome["best"] = work.best.finish(policy, outcome["steps"])
        save_model(policy, tokenizer, building.out / "model")
        note_base(context, building.out / "model")
        write_log(work, building.out / "training.jsonl")
        for name in self.method.keep:
            if (building.work / name).is_file():
                shutil.copy(building.work / name, building.out)
        return outcome

    def _best_weights(self, folder: Path, policy: Any, tokenizer: Any) -> BestWeights:
        """Scores weights on the validation part, by how near their answers are to the retrained model's. Without one
        the target is no forget answer right, and retain answers as the original's.
        """
        from dareu.evaluation.subject import Subject
        from dareu.evaluation.validation_score import answer_levels, closeness
        from dareu.models.merge import merged
        from dareu.training.best_weights import BestWeights

        context, config = self.context, self.context.config

        def levels(model: Any) -> dict[str, float]:
            with merged(model):  # an adapter in the weights answers faster
                subject = Subject(model, tokenizer, context.corpus.task, config.evaluation.batch_size)
                return answer_levels(subject, context.split, config.evaluation, config.seed)

        if self.retrained is not None:
            target = levels(load_run_model(context, self.retrained.get().model)[0])
        else:
            target = levels(policy) | {"forget": 0.0}  # the policy is the original still

        def score(model: Any) -> dict[str, float]:
            reached = levels(model)
            return {**reached, "score": closeness(reached, target)}

        return BestWeights(folder, config.method.evaluate_every, score)  # type: ignore[union-attr, arg-type]

    def method_context(self, policy: Any, tokenizer: Any, work: Work) -> MethodContext:
        """What the method reads; `policy` is what it changes, `work` where it keeps checkpoints and log."""
        from dareu.methods.base import MethodContext
        from dareu.models.load import pick_device

        context, device = self.context, str(pick_device(self.context.config.device))
        return MethodContext(
            config=context.config,
            corpus=context.corpus,
            split=context.split,
            forgotten=context.forgotten,
            policy=policy,
            tokenizer=tokenizer,
            work=work,
            device=device,
            response_limit=response_limit(context, tokenizer),
            attributor=lambda role: self.attributor.load(role, device),
            base=self._base(policy, tokenizer),
            progress=context.console.progress,
        )

    def _base(self, policy: Any, tokenizer: Any) -> Callable[[], AbstractContextManager[Any]] | None:
        """Opens the base: the policy without its adapter, or the model that the original was trained from.

        The adapter that a full original gets for unlearning stands on the original itself, and does not count.
        """
        from dareu.models.load import is_peft, load_tokenizer, pick_device

        if is_peft(policy) and (self.original.get().model / ADAPTER).is_file():

            @contextmanager
            def without_adapter() -> Iterator[Any]:
                with policy.disable_adapter():
                    yield policy

            return without_adapter
        base, config = self.base, self.context.config
        if base is None:
            return None
        if config.original:
            model = config.model
            assert isinstance(model, HFConfig)  # `names_a_base`
            own, others = (
                tokenizer.get_vocab(),
                load_tokenizer(
                    model.path, revision=model.revision, trust_remote_code=model.trust_remote_code
                ).get_vocab(),
            )
            if own != others:
                self.context.console.print(
                    f"  [dim]the base {model.path} has other tokens than the original: it is not read[/]"
                )
                return None
        device = str(pick_device(config.device))
        return lambda: nullcontext(base.load()[0].to(device))

    def _get(self) -> Artifact:
        fresh = not self.done()
        artifact = super()._get()
        outcome = artifact.extra
        say, logger = self.context.console.print, self.context.config.logging.report_to
        if not fresh and logger != "none" and not self.context.tracker.has(self.curve or self.name):
            say(
                f"[yellow]! logging={logger} has no curve of unlearning: the unlearned model comes from the store. "
                "Its training.jsonl holds what was logged; with another cache_dir it is trained again.[/]"
            )
        if fresh and outcome.get("stopped"):
            say(f"  [dim]stopped after {outcome['steps']} updates: {outcome['stopped']}[/]")
        if fresh and (best := outcome.get("best")):
            say(
                f"  [dim]weights of step {best['step']} kept: score {best['score']:.3f} on the validation part[/]"
            )
        return artifact


def _policy(context: Context, start: Path) -> tuple[Any, Any]:
    """The starting model, trainable. An imported one gets the adapter that the config asks for, or loses its own.

    A fresh adapter changes nothing yet, so that its frozen twin is the original.
    """
    from transformers import set_seed

    from dareu.models.load import add_lora, checkpoint_activations, is_peft

    policy, tokenizer = load_run_model(context, start, trainable=True)
    config = context.config.model
    if context.config.original and isinstance(config, HFConfig):
        if config.adapter == "lora" and not is_peft(policy):
            set_seed(context.config.seed)
            policy = add_lora(policy, config.lora)
        elif config.adapter == "none" and is_peft(policy):
            policy = policy.merge_and_unload().requires_grad_(True)
    if isinstance(config, HFConfig) and config.gradient_checkpointing:
        checkpoint_activations(policy)
    return policy, tokenizer
