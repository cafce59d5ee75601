"""A run in steps, for a caller who looks in between: unlearn, ask the models, evaluate, save."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dareu.config import RunConfig
from dareu.data.corpus import Corpus
from dareu.data.render import render_prompt
from dareu.data.sequential import split_run
from dareu.errors import ConfigError, RunError
from dareu.models.files import ADAPTER
from dareu.runs import ranks
from dareu.runs.files import check_writable
from dareu.workflow.console import Console
from dareu.workflow.experiment import Run, working
from dareu.workflow.from_memory import place_model
from dareu.workflow.library_settings import quiet_libraries
from dareu.workflow.loading import load_run_model, response_limit
from dareu.workflow.partial import score
from dareu.workflow.results import REPORT, read_results
from dareu.workflow.stages import Artifact
from dareu.workflow.validate import check_processes

MODELS = ("original", "retrained", "unlearned")


class Session:
    """The stages of one run on data in memory; `model` and `tokenizer` as `from_memory.place_model` takes them."""

    def __init__(
        self,
        config: RunConfig,
        corpus: Corpus,
        model: Any = None,
        tokenizer: Any = None,
        finetune: bool = False,
        silent: bool = False,
    ) -> None:
        self._config, self._corpus = config, corpus
        self._source = (model, tokenizer, finetune)
        self._silent = silent
        self._run: Run | None = None
        self._unlearned: Artifact | None = None
        self._loaded: tuple[Any, Any] | None = None

    @property
    def config(self) -> RunConfig:
        """As it was passed, until a model in memory has got its folder."""
        return self._config if self._run is None else self._run.stages.context.config

    @property
    def forget_owners(self) -> tuple[str, ...]:
        return split_run(self._corpus, self._config).forget_owners

    @property
    def fitted(self) -> bool:
        return self._unlearned is not None

    @property
    def report(self) -> Path:
        """The report page.

        Raises:
            RunError: Before `evaluate`.
        """
        folder = self._run.folder if self._run is not None and self.fitted else None
        path = folder.path / REPORT if folder is not None else None
        if path is None or not path.is_file():
            raise RunError("There is no report yet.", "Call fit() and evaluate() first.")
        return path

    def run(self) -> Run:
        """The run's stages. Connected at the first call, since a model object is saved for it."""
        if self._run is None:
            check_processes(self._config)
            model, tokenizer, finetune = self._source
            config = self._config if model is None else place_model(self._config, model, tokenizer, finetune)
            self._run = Run.plan(config, self._corpus, Console(self._silent))
        return self._run

    def unlearned(self) -> Artifact:
        """The unlearned model.

        Raises:
            RunError: Before `fit`.
        """
        if self._unlearned is None:
            raise RunError("Nothing has been unlearned yet.", "Call fit() first.")
        return self._unlearned

    def fit(self) -> None:
        """Build every stage up to the unlearned model; what the store has is not made again."""
        with quiet_libraries(self.config.threads):
            run = self.run()
            run.open()
            self._loaded = None
            with working(run):
                self._unlearned = run.unlearn(evaluate=False)

    def evaluate(self) -> dict[str, Any]:
        """What `results.json` holds; the run folder is complete afterwards."""
        self.unlearned()
        with quiet_libraries(self.config.threads):
            run = self.run()
            assert run.folder is not None
            path = run.folder.path
            if run.folder.finished:
                return ranks.on_main(lambda: read_results(path))
            with working(run):
                return run.finish()

    def path_of(self, name: str) -> Path:
        """The folder of the original, retrained or unlearned model; the first two are made where need be."""
        if name == "unlearned":
            return self.unlearned().model
        stages = self.run().stages
        if name == "original":
            return stages.original.get().model
        if name != "retrained":
            raise ConfigError(f"There is no model '{name}'.", f"Choose one of {', '.join(MODELS)}.")
        if stages.retrained is None:
            raise ConfigError("This run has no retrained model.", "It needs retrain=True and a base model.")
        return stages.retrained.get().model

    def load(self, name: str) -> tuple[Any, Any]:
        """(model, tokenizer); the unlearned one is loaded once and kept."""
        with quiet_libraries(self.config.threads):
            path = self.path_of(name)
            if name != "unlearned":
                return load_run_model(self.run().stages.context, path)
            if self._loaded is None:
                self._loaded = load_run_model(self.run().stages.context, path)
            return self._loaded

    def answers(
        self,
        name: str,
        prompts: Sequence[str],
        max_new_tokens: int | None,
        temperature: float,
        seed: int | None,
    ) -> list[str]:
        """What that model writes after each prompt. `ConfigError` for a temperature below 0."""
        if not 0 <= temperature <= 100:
            raise ConfigError(
                f"A temperature of {temperature} is out of range.", "Give 0 (greedy) up to 100."
            )
        with quiet_libraries(self.config.threads):
            from dareu.models.generate import generate

            model, tokenizer = self.load(name)
            context = self.run().stages.context
            answers = generate(
                model,
                tokenizer,
                [render_prompt(tokenizer, p, context.corpus.task) for p in prompts],
                max_new_tokens=max_new_tokens or response_limit(context, tokenizer),
                batch_size=context.config.evaluation.batch_size,
                temperature=temperature,
                seed=context.config.seed if seed is None else seed,
            )
            return [answer.text for answer in answers]

    def scores(self, texts: Sequence[str]) -> list[dict[str, float]]:
        """Owners and their probabilities for each text, by the run's classifier."""
        with quiet_libraries(self.config.threads):
            return [row["probabilities"] for row in score(self.run().stages, list(texts))]

    def save(self, folder: Path, merge: bool) -> None:
        """The unlearned model and its tokenizer, an adapter merged into its base with `merge`.

        Raises:
            RunError: `folder` is a file, cannot be written to, or holds an adapter, which would be loaded in place of
                whole weights.
        """
        with quiet_libraries(self.config.threads):
            from dareu.models.import_model import merged
            from dareu.models.load import is_peft, save_model

            model, tokenizer = self.load("unlearned")
            if merge and getattr(self.config.model, "quantization", None):
                context = self.run().stages.context
                model, tokenizer = load_run_model(context, self.path_of("unlearned"), to_merge=True)
            check_writable(folder, cure="Give a folder.")
            model = merged(model) if merge else model
            if not is_peft(model) and (folder / ADAPTER).is_file():
                raise RunError(
                    f"{folder} holds an adapter, which would be loaded in place of the model.",
                    "Give a new or an empty folder.",
                )
            save_model(model, tokenizer, folder)
