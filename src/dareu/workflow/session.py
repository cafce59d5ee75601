"""A run in steps, for a caller who looks in between: unlearn, ask the models, evaluate, save."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from dareu.config import RunConfig
from dareu.data.corpus import Corpus
from dareu.data.render import render_prompt
from dareu.data.sequential import split_run
from dareu.errors import ConfigError, RunError
from dareu.runs.folder import RunFolder
from dareu.workflow.console import Talk
from dareu.workflow.experiment import judge_all, noted, open_run, read_run
from dareu.workflow.from_memory import place_model
from dareu.workflow.library_settings import quiet
from dareu.workflow.partial import score
from dareu.workflow.sequential import Requests
from dareu.workflow.stages import Artifact, Bench

MODELS = ("original", "retrained", "unlearned")


class Session:
    """The stages of one run on data in memory; `model` and `tokenizer` as `pipeline.given` takes them."""

    def __init__(
        self,
        config: RunConfig,
        corpus: Corpus,
        model: Any = None,
        tokenizer: Any = None,
        finetune: bool = False,
        silent: bool = False,
    ) -> None:
        quiet()  # before the libraries that it keeps quiet are imported
        self._config, self._corpus = config, corpus
        self._given = (model, tokenizer, finetune)
        self._silent = silent
        self._unlearned: Artifact | None = None
        self._loaded: tuple[Any, Any] | None = None

    @property
    def config(self) -> RunConfig:
        """As given, until a model in memory has got its folder."""
        return self.bench.config if "bench" in self.__dict__ else self._config

    @property
    def forget_owners(self) -> tuple[str, ...]:
        return split_run(self._corpus, self._config).forget_owners

    @property
    def fitted(self) -> bool:
        return self._unlearned is not None

    @property
    def report(self) -> Path:
        """`RunError` before `evaluate`."""
        path = self.folder.path / "report.html" if self.fitted else None
        if path is None or not path.is_file():
            raise RunError("There is no report yet.", "Call fit() and evaluate() first.")
        return path

    @cached_property
    def bench(self) -> Bench:
        """Made when it is first needed, because a model object is saved for it."""
        model, tokenizer, finetune = self._given
        config = self._config if model is None else place_model(self._config, model, tokenizer, finetune)
        return Bench(config, self._corpus, Talk(self._silent))

    @cached_property
    def requests(self) -> Requests:
        return Requests(self.bench)

    @cached_property
    def folder(self) -> RunFolder:
        return open_run(self.bench, self.requests.key, self.bench.config.method.name)

    @property
    def unlearned(self) -> Artifact:
        """`RunError` before `fit`."""
        if self._unlearned is None:
            raise RunError("Nothing has been unlearned yet.", "Call fit() first.")
        return self._unlearned

    def fit(self) -> None:
        """Every stage up to the unlearned model; what the store has is not made again."""
        folder = self.folder
        self._loaded = None
        with noted(self.bench, folder):
            self._unlearned = self.requests.unlearn(folder.path / "logs")

    def evaluate(self) -> dict[str, Any]:
        """What `results.json` holds; the run folder is complete afterwards."""
        unlearned = self.unlearned
        if self.folder.finished:
            return read_run(self.folder)
        with noted(self.bench, self.folder):
            return judge_all(self.bench, self.folder, unlearned, self.bench.config.method.name, self.requests)

    def path_of(self, name: str) -> Path:
        """The folder of the original, retrained or unlearned model; the first two are made where need be."""
        if name == "unlearned":
            return self.unlearned.model
        if name == "original":
            return self.bench.original.model
        if name != "retrained":
            raise ConfigError(f"There is no model '{name}'.", f"Ask one of {', '.join(MODELS)}.")
        if self.bench.retrained is None:
            raise ConfigError("This run has no retrained model.", "It needs retrain=True and a base model.")
        return self.bench.retrained.model

    def load(self, name: str) -> tuple[Any, Any]:
        """(model, tokenizer); the unlearned one is loaded once and kept."""
        path = self.path_of(name)
        if name != "unlearned":
            return self.bench.load(path)
        if self._loaded is None:
            self._loaded = self.bench.load(path)
        return self._loaded

    def answers(
        self,
        name: str,
        prompts: Sequence[str],
        max_new_tokens: int | None,
        temperature: float,
        seed: int | None,
    ) -> list[str]:
        """What that model writes after each prompt."""
        from dareu.models.generate import generate

        model, tokenizer = self.load(name)
        config = self.bench.config
        found = generate(
            model,
            tokenizer,
            [render_prompt(tokenizer, p, self.bench.corpus.task) for p in prompts],
            max_new_tokens=max_new_tokens or self.bench.response_limit(tokenizer),
            batch_size=config.evaluation.batch_size,
            temperature=temperature,
            seed=config.seed if seed is None else seed,
        )
        return [answer.text for answer in found]

    def scores(self, texts: Sequence[str]) -> list[dict[str, float]]:
        """Owners and their probabilities for each text, by the run's classifier."""
        return [row["probabilities"] for row in score(self.bench, list(texts))]

    def save(self, folder: Path, merge: bool) -> None:
        """The unlearned model and its tokenizer, an adapter merged into its base with `merge`."""
        from dareu.models.import_model import merged
        from dareu.models.load import save_model

        model, tokenizer = self.load("unlearned")
        save_model(merged(model) if merge else model, tokenizer, folder)
