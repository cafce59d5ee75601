"""The bench: base, original, retrained model and attributor, each a stage whose result is kept and reused.

Content keys leave out what cannot change a result (run folder, cache folder, logging). The original model and the
attributor do not depend on the forget request, so a new request on the same data reuses them.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from rich.markup import escape

from dareu.attribution.registry import role_folder
from dareu.config import HFConfig, RunConfig
from dareu.data.corpus import Corpus
from dareu.data.render import encode_samples, render_prompt, set_template
from dareu.data.sequential import RoundSplit, split_rounds
from dareu.runs.manifest import content_key
from dareu.runs.store import ArtifactStore, Building
from dareu.workflow.console import Talk
from dareu.workflow.prepare import Prepared, digest, folder_digest, prepare, taught, texts_of
from dareu.workflow.validate import check_run, check_split


@dataclass(frozen=True)
class Artifact:
    """A finished stage: where it lies, its content key, the seconds it took when it was made."""

    path: Path
    key: str
    seconds: float
    peak_memory_mb: float
    extra: dict[str, Any]

    @property
    def model(self) -> Path:
        return self.path / "model"


class Bench:
    """All stages of a run up to the unlearning, made on demand."""

    def __init__(self, config: RunConfig, corpus: Corpus | None = None, talk: Talk | None = None) -> None:
        self.config = config
        self.talk = talk or Talk()
        self.store = ArtifactStore(Path(config.cache_dir) if config.cache_dir else None)
        check_run(config)
        prepared: Prepared = prepare(config, corpus)
        self.corpus, self.split, self.base_tree = prepared.corpus, prepared.split, prepared.base_key
        self._room, self._rendering, self.duplicates = prepared.room, prepared.rendering, prepared.duplicates
        for note in prepared.notes:
            self.talk.say(f"[yellow]![/] {escape(note)}")
        self.forgotten = self.split.forget_owners  # whose mass a reward counts
        self.rounds: tuple[RoundSplit, ...] = (
            split_rounds(self.corpus, config.rounds) if config.rounds else ()
        )
        for split in [one.asked for one in self.rounds] or [self.split]:
            check_split(config, split)
        self.store.check_writable()
        if config.threads:
            import torch

            torch.set_num_threads(config.threads)

    # --- keys ---------------------------------------------------------------------------------------------------

    @cached_property
    def base_key(self) -> str:
        return content_key(self.base_tree)

    @cached_property
    def original_key(self) -> str:
        if self.config.original:  # the weights, and how they are read
            read = self.config.model.model_dump(include={"dtype", "chat_template"})
            return content_key({"given": self._given_key, "read": read, "rendering": self._rendering})
        return self._finetune_key("original")

    @cached_property
    def _given_key(self) -> str:
        return given_key(Path(str(self.config.original)))

    def _finetune_key(self, which: Literal["original", "retrained"]) -> str:
        model = self.config.model
        return content_key(
            {
                "base": self.base_key,
                "adapter": model.model_dump(include={"adapter", "lora"})
                if isinstance(model, HFConfig)
                else None,
                "finetune": self.config.finetune.model_dump(exclude={"save_every"}),
                "data": digest(self._taught(which)),
                "seed": self.config.seed,
            }
        )

    @cached_property
    def retrained_key(self) -> str:
        return self._finetune_key("retrained")

    @cached_property
    def attributor_key(self) -> str:
        return content_key(
            {
                "original": self.original_key,
                "config": self.config.attributor.model_dump(),
                "data": digest(self.corpus.samples + self.corpus.test),
                "seed": self.config.seed,
            }
        )

    def _taught(self, which: Literal["original", "retrained"]) -> Any:
        return taught(self.corpus, () if which == "original" else self.split.forget_owners)

    # --- stages -------------------------------------------------------------------------------------------------

    @cached_property
    def original(self) -> Artifact:
        """π_N: fine-tuned on everything, or the model that was given."""
        if self.config.original:
            return self._given(Path(self.config.original))
        return self._finetuned("original", self.original_key)

    @cached_property
    def retrained(self) -> Artifact | None:
        """The gold standard: the same recipe without the forget set. None with `retrain=false`."""
        return self._finetuned("retrained", self.retrained_key) if self.config.retrain else None

    def _given(self, source: Path) -> Artifact:
        """A model from elsewhere becomes an artifact by a copy, so that later stages need only the store."""
        with self.store.building("original", self._given_key, config={"original": str(source)}) as build:
            if not build.done:
                shutil.copytree(source, build.out / "model")
                build.finish(given=True)
        return self.artifact(build, self.original_key)

    @staticmethod
    def artifact(build: Building, key: str) -> Artifact:
        manifest = build.manifest
        return Artifact(build.path, key, manifest.seconds, manifest.peak_memory_mb, manifest.extra)

    def _base(self) -> tuple[Any, Any]:
        """A fresh base model in memory, seeded, with an adapter where the config asks for one."""
        from transformers import set_seed

        from dareu.models.load import load_base, load_model
        from dareu.models.tiny import make_tiny

        config = self.config
        if isinstance(config.model, HFConfig):
            set_seed(config.seed)
            return load_base(config.model, config.device)
        with self.store.building("base", self.base_key, config=self.base_tree, seed=config.seed) as build:
            if not build.done:
                make_tiny(config.model, texts_of(self.corpus), config.seed, build.out / "model")
                build.finish()
        return load_model(build.path / "model", device=config.device)

    def _finetuned(self, which: Literal["original", "retrained"], key: str) -> Artifact:
        from dareu.models.load import checkpoint_activations, pick_device, save_model
        from dareu.training.common import Work, checkpoint_named, write_log
        from dareu.training.loss_spec import FINETUNE
        from dareu.training.loss_trainer import train_with_loss

        config = self.config
        tree = {"finetune": config.finetune.model_dump(), "model": config.model.model_dump(), "which": which}
        with self.store.building(which, key, config=tree, seed=config.seed) as build:
            if not build.done:
                with self.talk.stage(f"{which} model"):
                    model, tokenizer = self._base()
                    if isinstance(config.model, HFConfig) and config.model.gradient_checkpointing:
                        checkpoint_activations(model)
                    rows = encode_samples(
                        tokenizer, self._taught(which), self.corpus.task, config.model.max_length
                    )
                    work = Work(build.work, build.tick, progress=self.talk.bar(f"{which} model"), log_every=5)
                    with checkpoint_named(work):
                        train_with_loss(
                            model,
                            tokenizer,
                            method=FINETUNE,
                            optim=config.finetune,
                            rows=rows,
                            seed=config.seed,
                            device=str(pick_device(config.device)),
                            work=work,
                        )
                    save_model(model, tokenizer, build.out / "model")
                    write_log(work, build.out / "training.jsonl")
                    build.finish(steps=work.log[-1]["step"] if work.log else 0, n_samples=len(rows))
            else:
                self.talk.say(f"[green]✓[/] {which} model [dim]from the store[/]")
        return self.artifact(build, key)

    @cached_property
    def attributor(self) -> Artifact:
        """The causal classifier and two lexical attributors, `word` and `char`; and one of another package
        where `attributor.name` is its. Who does what: `attribution.registry.ROLES`."""
        from dareu.attribution.heldout import lexical_report
        from dareu.attribution.lexical import LexicalAttributor
        from dareu.attribution.name_masking import Blinder
        from dareu.attribution.registry import FitContext, fit_external
        from dareu.attribution.train import fit_causal
        from dareu.models.load import pick_device

        config, key = self.config, self.attributor_key
        with self.store.building(
            "attributor", key, config=config.attributor.model_dump(), seed=config.seed
        ) as build:
            if build.done:
                self.talk.say("[green]✓[/] attribution classifier [dim]from the store[/]")
                self._warn(build.manifest.extra["report"])
                return self.artifact(build, key)
            original = self.original
            with self.talk.stage("attribution classifier"):
                model, tokenizer = self.load(original.model)
                answers = self.own_responses(model, tokenizer)
                blinder = Blinder.fit(self.corpus.samples) if config.attributor.blind else None
                causal, report = fit_causal(
                    self.corpus.samples,
                    config.attributor,
                    tokenizer=tokenizer,
                    general=[s.response for s in self.corpus.test],
                    seed=config.seed,
                    device=str(pick_device(config.device)),
                    work_dir=build.work,
                    original_responses=answers,
                    blinder=blinder,
                    progress=self.talk.bar("attribution classifier") is not None,
                )
                causal.save(build.out / "causal")
                extra = tuple(blinder.samples(self.corpus.samples)) if blinder else ()
                word = LexicalAttributor.fit(self.corpus.samples + extra, "word", config.seed)
                char = LexicalAttributor.fit(self.corpus.samples, "char", config.seed)
                word.save(build.out / "word")
                char.save(build.out / "char")
                name = config.attributor.name
                context = FitContext(
                    self.corpus,
                    config.attributor,
                    model,
                    tokenizer,
                    answers,
                    blinder,
                    config.seed,
                    str(pick_device(config.device)),
                    build.work,
                )
                fit_external(name, context, build.out / name)
                if config.attributor.name == "lexical":
                    report = lexical_report(
                        self.corpus.samples,
                        config.attributor.holdout,
                        config.seed,
                        answers,
                        config.attributor.warn_below,
                    )
                build.finish(report=report | {"name": config.attributor.name})
            self._warn(report)
        return self.artifact(build, key)

    def _warn(self, report: dict[str, Any]) -> None:
        for warning in report["warnings"]:
            self.talk.say(f"[yellow]! {warning}[/]")

    def attributor_folder(self, role: Literal["reward", "stop"]) -> Path:
        """Where the attributor lies that gives the reward, or the one that tells when to stop."""
        return self.attributor.path / role_folder(self.config.attributor.name, role)

    def own_responses(self, model: Any, tokenizer: Any, per_owner: int = 5) -> list[tuple[str, str]]:
        """(owner, what the original model writes) for the first prompts of every owner."""
        from dareu.models.generate import generate

        counts: dict[str, int] = {}
        chosen = []
        for sample in self.corpus.samples:
            counts[str(sample.owner)] = counts.get(str(sample.owner), 0) + 1
            if counts[str(sample.owner)] <= per_owner:
                chosen.append(sample)
        answers = generate(
            model,
            tokenizer,
            [render_prompt(tokenizer, s.prompt, self.corpus.task) for s in chosen],
            max_new_tokens=self.response_limit(tokenizer),
            batch_size=self.config.evaluation.batch_size,
            progress=self.talk.bar("the original's own answers"),
        )
        return [(str(s.owner), a.text) for s, a in zip(chosen, answers, strict=True)]

    def response_limit(self, tokenizer: Any) -> int:
        """Tokens that an answer may take: the longest owned response and a few more, as far as the context goes."""
        longest = max(
            len(tokenizer(s.response, add_special_tokens=False)["input_ids"]) for s in self.corpus.samples
        )
        wanted = int(longest) + 8
        return wanted if self._room is None else max(1, min(wanted, self._room))

    def load(self, folder: Path, trainable: bool = False) -> tuple[Any, Any]:
        """(model, tokenizer) of one of the run's folders, read as the config says."""
        from dareu.models.load import load_model

        config = self.config.model
        extra = config.model_dump(include={"trust_remote_code", "attn_implementation"})
        model, tokenizer = load_model(
            folder, dtype=config.dtype, device=self.config.device, trainable=trainable, **extra
        )
        set_template(tokenizer, config)
        return model, tokenizer


def given_key(folder: Path) -> str:
    """Content key of a model from elsewhere."""
    return content_key({"original": folder_digest(folder)})
