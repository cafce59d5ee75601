"""The attributors of a run, fitted on the original model's data."""

from typing import Any

from dareu.attribution.base import Attributor
from dareu.attribution.registry import Role, role_folder
from dareu.data.render import render_prompt
from dareu.runs.store import Building
from dareu.workflow.context import Context
from dareu.workflow.keys import samples_key
from dareu.workflow.loading import load_run_model, response_limit
from dareu.workflow.stages.base import Artifact, Stage

HELD_OUT = "char"  # evaluates the finished run and is in no reward


class AttributorStage(Stage):
    """Two lexical attributors, `word` and `char`; the causal classifier where the run reads it; and another one where
    `attributor.name` is its. Who gives the reward and who decides when to stop: `attribution.registry.ROLES`."""

    name = "attributor"
    memory_keys = "attributor.optim.micro_batch_size or attributor.max_length"

    def __init__(self, context: Context, original: Stage) -> None:
        from dareu.methods.registry import method_of

        config, name = context.config, context.config.attributor.name
        stops = method_of(config.method).stops_by_attributor(config)
        self.classifier = name == "causal" or (stops and role_folder(name, "stop") == "causal")
        title = "attribution classifier" if name == "causal" else f"{name} attributor"
        stopping = " and the classifier that tells when to stop" * (self.classifier and name != "causal")
        super().__init__(context, title + stopping)
        self.original = original

    def inputs(self) -> Any:
        context, config = self.context, self.context.config.attributor
        return {
            "original": self.original.key(),
            # A classifier without wrong labels keeps the key that it had before there were some.
            "config": config.model_dump(exclude=None if config.label_noise else {"label_noise"}),
            "data": samples_key(context.corpus.samples + context.corpus.test),
            "seed": context.config.seed,
            **({} if self.classifier else {"classifier": False}),
        }

    def prepare(self) -> None:
        if self.classifier:
            import dareu.attribution.train  # noqa: F401

        self.original.whole()

    def build(self, building: Building) -> dict[str, Any]:
        from dareu.attribution.heldout import lexical_report, own_report
        from dareu.attribution.lexical import LexicalAttributor
        from dareu.attribution.name_masking import NameMasker
        from dareu.attribution.registry import FitContext, fit_external
        from dareu.models.load import pick_device

        context, config = self.context, self.context.config.attributor
        seed, samples = context.config.seed, context.corpus.samples
        device = str(pick_device(context.config.device))
        model, tokenizer = load_run_model(context, self.original.get().model)
        answers = own_answers(context, model, tokenizer)
        masker = NameMasker.fit(samples) if config.blind else None
        report: dict[str, Any] = {}
        if self.classifier:
            from dareu.attribution.train import fit_causal

            causal, report = fit_causal(
                samples,
                config,
                tokenizer=tokenizer,
                general=[s.response for s in context.corpus.test],
                seed=seed,
                device=device,
                work_dir=building.work,
                original_responses=answers,
                masker=masker,
                progress=context.console.progress(self.title) is not None,
            )
            causal.save(building.out / "causal")
        masked = tuple(masker.samples(samples)) if masker else ()
        LexicalAttributor.fit(samples + masked, "word", seed).save(building.out / "word")
        LexicalAttributor.fit(samples, "char", seed).save(building.out / HELD_OUT)
        fit = FitContext(
            context.corpus, config, model, tokenizer, answers, masker, seed, device, building.work
        )
        other = fit_external(config.name, fit, building.out / config.name)
        if other is not None:
            report = own_report(other, answers, config.warn_below)
        elif config.name == "lexical":
            report = lexical_report(samples, config.holdout, seed, answers, config.warn_below)
        return {"report": report | {"name": config.name}}

    def _get(self) -> Artifact:
        artifact = super()._get()
        for warning in artifact.extra["report"]["warnings"]:
            self.context.console.print(f"[yellow]! {warning}[/]")
        return artifact

    def load(self, role: Role, device: str = "cpu") -> Attributor:
        """The attributor of a role. It is fitted first where the store has none."""
        from dareu.attribution.registry import load_attributor

        config = self.context.config.attributor
        folder = self.get().path / role_folder(config.name, role)
        return load_attributor(folder, device, config.backbone.trust_remote_code)

    def held_out(self) -> Attributor:
        """The attributor that no reward reads."""
        from dareu.attribution.registry import load_attributor

        return load_attributor(self.get().path / HELD_OUT)


def own_answers(context: Context, model: Any, tokenizer: Any, per_owner: int = 5) -> list[tuple[str, str]]:
    """(owner, what the original model writes) for the first prompts of every owner."""
    from dareu.models.generate import generate

    counts: dict[str, int] = {}
    chosen = []
    for sample in context.corpus.samples:
        counts[str(sample.owner)] = counts.get(str(sample.owner), 0) + 1
        if counts[str(sample.owner)] <= per_owner:
            chosen.append(sample)
    answers = generate(
        model,
        tokenizer,
        [render_prompt(tokenizer, s.prompt, context.corpus.task) for s in chosen],
        max_new_tokens=response_limit(context, tokenizer),
        batch_size=context.config.evaluation.batch_size,
        progress=context.console.progress("answers of the original model"),
    )
    return [(str(s.owner), a.text) for s, a in zip(chosen, answers, strict=True)]
