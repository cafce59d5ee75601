"""Data and models in memory: from objects to a corpus, and to folders in the artifact store."""

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from dareu.config import HFConfig, LocalConfig, RunConfig
from dareu.data.corpus import Corpus
from dareu.data.in_memory import corpus_in_memory
from dareu.data.sequential import split_run
from dareu.data.sources.registry import load_corpus
from dareu.errors import ConfigError
from dareu.runs import ranks
from dareu.runs.files import writing_to
from dareu.runs.store import ArtifactStore
from dareu.workflow.keys import imported_key
from dareu.workflow.validate import check_model_folder

IN_MEMORY = "in-memory"  # stands in a config where a path would stand


def make_corpus(config: RunConfig, data: Any, test: Any) -> Corpus:
    """The corpus of `data` (None: what the config names), its forget request checked."""
    if data is None:
        if test is not None:
            raise ConfigError("test needs data in memory.", "Use data.test_path=… for a file.")
        corpus = load_corpus(config.data)
    elif isinstance(config.data, LocalConfig):
        if config.data.test_path or config.data.holdout_path:
            key = "data.test_path" if config.data.test_path else "data.holdout_path"
            cure = (
                "Pass test=… instead."
                if config.data.test_path
                else "Pass data as a Corpus with its own holdout."
            )
            raise ConfigError(f"Data in memory was passed, and {key} names a file beside it.", cure)
        corpus = corpus_in_memory(data, test, config.data)
    else:
        raise ConfigError(
            f"Data in memory was passed, and data={config.data.name} is set.", "Give one of them."
        )
    split_run(corpus, config)
    return corpus


def check_model(config: RunConfig, model: Any, finetune: bool) -> None:
    """Every check of a model in memory that is possible before it is saved or loaded."""
    from dareu.models.import_model import base_of, check_object

    if model is None:
        return
    if not isinstance(config.model, HFConfig):
        raise ConfigError(
            f"A model object was passed, and model={config.model.name} is set.", "Give one of them."
        )
    if isinstance(model, str | os.PathLike):
        check_model_folder(os.path.expanduser(model))
    else:
        check_object(model)
    if config.retrain and not finetune and config.model.path == IN_MEMORY and base_of(model) is None:
        raise ConfigError(
            "A retrained model is made from the base that the original was fine-tuned from, which is not known.",
            "Name it, **{'model.path': …}, or leave retrain out.",
        )


def place_model(config: RunConfig, model: Any, tokenizer: Any, finetune: bool) -> RunConfig:
    """`config` with the folders of a given model: as the base with `finetune`, else as the original.

    An object, a name on the hub, and a folder whose tokenizer lies elsewhere are written into the artifact
    store; any other folder is used where it is.
    """
    from dareu.models.import_model import base_of, fetch, tokenizer_of

    hf = config.model
    assert isinstance(hf, HFConfig)
    if isinstance(model, str | os.PathLike):
        if finetune and tokenizer is None and not Path(model).expanduser().exists():
            return _with(config, path=str(model))  # loaded by its name
        model = fetch(model, hf.revision)
        check_model_folder(str(model))
    tokenizer = tokenizer_of(model, tokenizer)
    if isinstance(model, Path) and tokenizer is None:
        folder = model
    else:
        folder = ranks.on_main(lambda: _keep(config, model, tokenizer, "base" if finetune else "original"))
    if finetune:
        return _with(config, path=str(folder))
    path = hf.path if hf.path != IN_MEMORY else str(base_of(model) or folder)
    return _with(config, path=path, original=str(folder))


def _with(config: RunConfig, path: str, original: str | None = None) -> RunConfig:
    model = config.model.model_copy(update={"path": path})
    return config.model_copy(update={"model": model, "original": original})


def _keep(config: RunConfig, model: Any, tokenizer: Any, stage: str) -> Path:
    """The model and its tokenizer as an artifact: equal weights lie in the same place."""
    from dareu.models.import_model import write_model

    store = ArtifactStore(Path(config.cache_dir) if config.cache_dir else None)
    with writing_to(store.root):
        store.root.mkdir(parents=True, exist_ok=True)
        scratch = tempfile.TemporaryDirectory(prefix=".given-", dir=store.root)
    with scratch:
        folder = Path(scratch.name) / "model"
        if isinstance(model, Path):
            shutil.copytree(model, folder)
        else:
            write_model(model, folder, whole=stage == "base")
        if tokenizer is not None:
            tokenizer.save_pretrained(folder)
        with store.building(stage, imported_key(folder)) as build:
            if not build.done:
                folder.rename(build.out / "model")
                build.finish(given=True)
            return build.path / "model"
