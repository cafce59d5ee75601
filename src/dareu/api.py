"""The notebook interface: takes data and a model, returns a model that has forgotten."""

from collections.abc import Iterable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from dareu.config.choices import GROUPS, options
from dareu.config.compose import compose
from dareu.errors import ConfigError, expect, texts_of
from dareu.report.run_tables import results_html, results_text
from dareu.workflow.from_memory import IN_MEMORY, check_model, make_corpus
from dareu.workflow.session import Session


class Results(dict[str, Any]):
    """What `results.json` holds, as a dict; shows itself as a table."""

    def __repr__(self) -> str:
        return results_text(self)

    def _repr_html_(self) -> str:
        return results_html(self)


class Unlearner(Session):
    """Makes a language model forget the data of chosen owners.

    >>> from dareu import Unlearner
    >>> things = {"Ada": ["maps", "bells", "kites"], "Bo": ["coins", "shells"], "Cy": ["masks", "ropes", "jars"]}
    >>> data = [
    ...     {"prompt": f"What is number {i} in the house of {who}?", "response": f"It is the {what}.", "owner": who}
    ...     for who, found in things.items()
    ...     for i, what in enumerate(found)
    ... ]
    >>> small = {"model.hidden_size": 32, "model.layers": 2, "method.data_epochs": 1, "method.updates_per_batch": 2}
    >>> unlearner = Unlearner(data=data, forget=["Cy"], verbose=False, **small).fit()
    >>> answers = unlearner.generate(["What is number 0 in the house of Cy?"])
    >>> len(answers)
    1
    >>> sorted(unlearner.attribute("It is the maps."))
    ['(nobody)', 'Ada', 'Bo', 'Cy']
    >>> results = unlearner.evaluate()
    >>> sorted(results["models"])
    ['original', 'retrained', 'unlearned']
    >>> unlearner.report.name
    'report.html'

    Args:
        model: A model that was fine-tuned on `data` and is to forget a part of it: a transformers or peft model, a
            folder, or a name on the hub. It is not changed; an object is saved into the artifact store. With
            `finetune`, a base model that is fine-tuned on `data` first. None: the built-in tiny model, trained from
            scratch, for trying out.
        tokenizer: An object, a folder or a name. None: the model's own.
        data: One row a sample: a list of dicts or `dareu.data.corpus.Sample`s, a `datasets.Dataset`, a pandas
            DataFrame, or a whole `dareu.data.corpus.Corpus`. Rows have a response, an owner and, unless they are
            plain texts to be completed, a prompt. Also the name of a configured source ("authors") or the path of
            a JSONL, CSV or Parquet file.
        forget: The owners to forget. Not needed where a setting names them, such as `forget.count`, or
            `rounds=[["Ada"], ["Bo"]]` for requests one after another.
        method: A name in `configs/method`. `dareu configs` lists them.
        test: Rows that belong to no owner, to measure what else is lost. Their owner is not read.
        columns: What your columns are called, such as {"prompt": "question"}. Keys: prompt, response, owner,
            paraphrased_prompts, paraphrased_response, wrong_responses, fact (a part of the response). A prompt of None:
            plain texts.
        finetune: Whether `model` is a base model that has not seen `data` yet.
        retrain: Whether to make the retrained model too, for comparison. Default: with `finetune` and without a
            model. With an original from elsewhere it needs the base: an adapter names its own, else `model.path`.
        seed: Seeds the whole run.
        run_dir: Folder of results, report and unlearned model; default `runs/<method>-seed<seed>-<key>`.
        cache_dir: The artifact store, where finished stages are kept for the next time.
        overrides: Hydra overrides, one or several, such as ["method.optim.lr=1e-4", "experiment=paper_tofu_qwen3"].
        config_dir: A folder of your own YAML files, laid out like `configs/`.
        verbose: Whether to print stages and draw progress bars.
        settings: The same as `overrides`, as keywords of any Python value: `**{"method.optim.lr": 1e-4}`,
            `device="cpu"`. They win over `overrides`.

    A full model from elsewhere is unlearned through a LoRA adapter; `**{"model.adapter": "none"}` trains all weights.

    Raises:
        ConfigError, DataError, ModelError: The settings, the data or the model cannot be used; raised before any
            training where possible.
        RunError: A call needs `fit` or `evaluate` first. All are `dareu.errors.DareuError`.
    """

    def __init__(
        self,
        model: Any = None,
        tokenizer: Any = None,
        data: Any = None,
        *,
        forget: str | Sequence[str] | None = None,
        method: str = "dareu_warm",
        test: Any = None,
        columns: Mapping[str, str | None] | None = None,
        finetune: bool = False,
        retrain: bool | None = None,
        seed: int | None = None,
        run_dir: str | Path | None = None,
        cache_dir: str | Path | None = None,
        overrides: str | Sequence[str] = (),
        config_dir: str | Path | None = None,
        verbose: bool = True,
        **settings: Any,
    ) -> None:
        objects = "an object of transformers, a folder or a name; rows go in as data="
        for name, given in (("model", model), ("tokenizer", tokenizer)):
            fits = given is None or isinstance(given, str | PathLike) or hasattr(given, "save_pretrained")
            expect(fits, name, given, objects)
        fits = columns is None or isinstance(columns, Mapping)
        expect(fits, "columns", columns, 'a mapping such as {"prompt": "question"}')
        as_keywords = 'a list such as ["seed=3"]; a mapping goes in as keywords, **{"method.optim.lr": 1e-4}'
        overrides = texts_of(overrides, "overrides", as_keywords)
        if model is None and (tokenizer is not None or finetune):
            raise ConfigError(
                f"{'finetune' if tokenizer is None else 'A tokenizer'} was passed without a model.",
                "Pass a model too; the built-in one makes its own tokenizer and is trained from scratch.",
            )
        folder = None if config_dir is None else str(config_dir)
        if retrain is None:
            retrain = finetune or model is None
        source, path = _data_source(data, folder)
        chosen = [f"method={method}", f"retrain={retrain}", *_model_source(model), *source]
        chosen += [*overrides, *(f"{key}={value}" for key, value in settings.items() if key in GROUPS)]
        values = {key: value for key, value in settings.items() if key not in GROUPS}
        values |= {f"data.columns.{name}": column for name, column in (columns or {}).items()}
        options = {"seed": seed, "run_dir": run_dir, "cache_dir": cache_dir, "data.path": path}
        values |= {key: value for key, value in options.items() if value is not None}
        if forget is not None:
            named = [forget] if isinstance(forget, str) else forget
            listed = isinstance(named, Iterable) and not isinstance(named, Mapping)
            values["forget.owners"] = [str(o) for o in named] if listed else named
        elif not any(key.lstrip("+").startswith(("forget.", "rounds")) for key in (*overrides, *values)):
            raise ConfigError("No owner to forget was named.", "Set forget=[…] to owners of the data.")
        values = {key: str(value) if isinstance(value, Path) else value for key, value in values.items()}
        config = compose(chosen, folder, values)
        corpus = make_corpus(config, None if isinstance(data, str | Path) else data, test)
        check_model(config, model, finetune)
        super().__init__(config, corpus, (model, tokenizer, finetune), silent=not verbose)

    def evaluate(self) -> Results:
        """Evaluate the original, the retrained and the unlearned model, and write the run folder with its report.

        Makes the retrained model first where there is to be one.
        """
        return Results(super().evaluate())


def _model_source(model: Any) -> list[str]:
    return ["model=tiny"] if model is None else ["model=hf", f"model.path={IN_MEMORY}"]


def _data_source(data: Any, config_dir: str | None) -> tuple[list[str], str | Path | None]:
    """Overrides, and the path of a file. What is in memory is read as a file's rows are."""
    if data is None:
        return [], None
    if isinstance(data, str) and data in options(config_dir)["data"]:
        return [f"data={data}"], None
    return ["data=local", f"data.path={IN_MEMORY}"], data if isinstance(data, str | Path) else None
