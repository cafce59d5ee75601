"""A run in steps, for a caller who looks in between: unlearn, ask the models, evaluate, save."""

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any, overload

from dareu.config import RunConfig
from dareu.data.corpus import Corpus
from dareu.data.render import render_prompt
from dareu.data.sequential import split_run
from dareu.errors import ConfigError, RunError, expect, texts_of
from dareu.evaluation.results import MODELS
from dareu.models.files import ADAPTER
from dareu.runs import ranks
from dareu.runs.files import check_writable
from dareu.workflow.console import Console
from dareu.workflow.experiment import Run, working
from dareu.workflow.from_memory import place_model
from dareu.workflow.library_settings import quiet_libraries
from dareu.workflow.loading import load_run_model, response_limit
from dareu.workflow.partial import score
from dareu.workflow.results import REPORT, finished_results
from dareu.workflow.stages import Artifact
from dareu.workflow.validate import check_processes


class Session:
    """The stages of one run on data in memory; `source`: model, tokenizer and finetune of `from_memory.place_model`."""

    def __init__(
        self, config: RunConfig, corpus: Corpus, source: tuple[Any, Any, bool], silent: bool
    ) -> None:
        self.corpus = corpus
        self._config, self._source, self._silent = config, source, silent
        self._run: Run | None = None
        self._unlearned: Artifact | None = None
        self._loaded: tuple[Any, Any] | None = None

    @property
    def config(self) -> RunConfig:
        """The whole configuration, as it will stand in the run folder."""
        return self._config if self._run is None else self._run.stages.context.config

    @property
    def report(self) -> Path:
        """`report.html` of the run, a page to open in a browser.

        Raises:
            RunError: Before `evaluate`.
        """
        folder = self._run.folder if self._run is not None and self._unlearned is not None else None
        if folder is None or not (folder.path / REPORT).is_file():
            raise RunError("There is no report yet.", "Call fit() and evaluate() first.")
        return folder.path / REPORT

    @property
    def model(self) -> Any:
        """The unlearned model, in evaluation mode."""
        return self._load("unlearned")[0]

    @property
    def tokenizer(self) -> Any:
        """The unlearned model's tokenizer."""
        return self._load("unlearned")[1]

    def fit(self) -> Any:
        """Make the unlearned model, and first whatever it needs. Stages in the artifact store are not built again.

        Returns:
            The object itself.
        """
        with quiet_libraries(self.config.threads):
            run = self._stages_of_run()
            run.open()
            self._loaded = None
            with working(run):
                self._unlearned = run.unlearn(evaluate=False)
        return self

    def evaluate(self) -> dict[str, Any]:
        """Evaluate the original, the retrained and the unlearned model, and write the run folder with its report.

        Makes the retrained model first where there is to be one.
        """
        self._fitted()
        with quiet_libraries(self.config.threads):
            run = self._stages_of_run()
            assert run.folder is not None
            path = run.folder.path
            if run.folder.finished:
                return ranks.on_main(lambda: finished_results(path))
            with working(run):
                return run.finish()

    def generate(
        self,
        prompts: str | Sequence[str],
        *,
        of: str = "unlearned",
        max_new_tokens: int | None = None,
        temperature: float = 0.0,
        seed: int | None = None,
    ) -> list[str]:
        """What a model answers to each prompt, special tokens and chat template added as in training.

        Args:
            prompts: One or several.
            of: "unlearned", "original" or "retrained". The last two work before `fit` as well.
            max_new_tokens: Longest answer, in tokens; default: the longest response of the data and a few more.
            temperature: 0 is greedy decoding.
            seed: Of sampling; default: the run's.
        """
        listed = texts_of(prompts, "prompts", "a text or a list of texts")
        number = hasattr(temperature, "__float__") and 0 <= temperature <= 100
        expect(number, "temperature", temperature, "0 (greedy) up to 100")
        for name, value, least in (("max_new_tokens", max_new_tokens, 1), ("seed", seed, 0)):
            whole = value is None or (hasattr(value, "__index__") and value >= least)
            expect(whole, name, value, f"a whole number from {least} on, or None")
        with quiet_libraries(self.config.threads):
            from dareu.models.generate import generate

            model, tokenizer = self._load(of)
            context = self._stages_of_run().stages.context
            answers = generate(
                model,
                tokenizer,
                [render_prompt(tokenizer, p, context.corpus.task) for p in listed],
                max_new_tokens=max_new_tokens or response_limit(context, tokenizer),
                batch_size=context.config.evaluation.batch_size,
                temperature=temperature,
                seed=context.config.seed if seed is None else seed,
            )
            return [answer.text for answer in answers]

    @overload
    def attribute(self, text: str) -> dict[str, float]: ...

    @overload
    def attribute(self, text: list[str]) -> list[dict[str, float]]: ...

    def attribute(self, text: str | list[str]) -> dict[str, float] | list[dict[str, float]]:
        """Whose data a text sounds like: owner → probability, the likeliest first; a list of them for several texts.

        "(nobody)" stands for broken text and text of no owner. Works before `fit` as well; the classifier is
        then made first.
        """
        texts = texts_of(text, "text", "a text or a list of texts")
        with quiet_libraries(self.config.threads):
            scores = [row["probabilities"] for row in score(self._stages_of_run().stages, texts)]
        return scores[0] if isinstance(text, str) else scores

    def save_pretrained(self, folder: str | Path, *, merge: bool = True) -> Path:
        """Save the unlearned model and its tokenizer; `AutoModelForCausalLM.from_pretrained` loads the folder.

        With `merge` an adapter goes into the weights. Without it the folder holds the adapter alone, which works
        only beside its base; for a full original that base still knows what was to be forgotten.

        Raises:
            RunError: `folder` is a file, cannot be written to, or holds an adapter, which would be loaded in place of
                whole weights.
        """
        expect(isinstance(folder, str | PathLike) and folder != "", "folder", folder, "the path of a folder")
        folder = Path(folder)
        with quiet_libraries(self.config.threads):
            from dareu.models.import_model import merged
            from dareu.models.load import is_peft, save_model

            model, tokenizer = self._load("unlearned")
            if merge and getattr(self.config.model, "quantization", None):
                context = self._stages_of_run().stages.context
                model, tokenizer = load_run_model(context, self._path_of("unlearned"), to_merge=True)
            check_writable(folder, cure="Give a folder.")
            model = merged(model) if merge else model
            if not is_peft(model) and (folder / ADAPTER).is_file():
                raise RunError(
                    f"{folder} holds an adapter, which would be loaded in place of the model.",
                    "Give a new or an empty folder.",
                )
            save_model(model, tokenizer, folder)
        return folder

    def __repr__(self) -> str:
        gone = ", ".join(split_run(self.corpus, self._config).forget_owners)
        state = "not fitted" if self._unlearned is None else "fitted"
        return f"Unlearner(method={self.config.method.name!r}, forget={gone!r}, seed={self.config.seed}, {state})"

    def _stages_of_run(self) -> Run:
        """The run's stages. Connected at the first call, since a model object is saved for it."""
        if self._run is None:
            check_processes(self._config)
            config = self._config if self._source[0] is None else place_model(self._config, *self._source)
            self._run = Run.plan(config, self.corpus, Console(self._silent))
        return self._run

    def _fitted(self) -> Artifact:
        if self._unlearned is None:
            raise RunError("Nothing has been unlearned yet.", "Call fit() first.")
        return self._unlearned

    def _path_of(self, name: str) -> Path:
        """The folder of the original, retrained or unlearned model; the first two are made where need be."""
        if name == "unlearned":
            return self._fitted().model
        if name not in MODELS:
            raise ConfigError(f"There is no model '{name}'.", f"Choose one of {', '.join(MODELS)}.")
        stages = self._stages_of_run().stages
        stage = stages.original if name == "original" else stages.retrained
        if stage is None:
            raise ConfigError("This run has no retrained model.", "It needs retrain=True and a base model.")
        return stage.whole().model

    def _load(self, name: str) -> tuple[Any, Any]:
        """(model, tokenizer); the unlearned one is loaded once and kept."""
        with quiet_libraries(self.config.threads):
            path = self._path_of(name)
            if name == "unlearned" and self._loaded is not None:
                return self._loaded
            loaded = load_run_model(self._stages_of_run().stages.context, path)
            if name == "unlearned":
                self._loaded = loaded
            return loaded
