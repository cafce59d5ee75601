"""The smaller commands: only the fine-tuned models, only the attributor."""

from contextlib import ExitStack
from pathlib import Path
from typing import Any

from dareu.config import RunConfig
from dareu.data.corpus import Corpus
from dareu.data.readers import read_text
from dareu.errors import DataError
from dareu.runs import ranks
from dareu.runs.folder import copy_into, held
from dareu.workflow.console import Console
from dareu.workflow.library_settings import quiet_libraries
from dareu.workflow.prepare import prepare
from dareu.workflow.stages import Stages

BACKGROUND = "(nobody)"  # the name of the background class in scores


def finetune(config: RunConfig, console: Console | None = None) -> dict[str, Path]:
    """The original model and, unless `retrain=false`, the retrained one: name → folder that `from_pretrained` loads.

    With `run_dir` they are copied there; a folder that is there already is left alone.

    Raises:
        RunError: `run_dir` cannot be written to, another command is at work there, or it holds other models.
    """
    stages = Stages(prepare(config, console=console, unlearns=False))
    models = {"original": stages.original}
    if stages.retrained is not None:
        models["retrained"] = stages.retrained
    with ExitStack() as stack:
        stack.enter_context(quiet_libraries(config.threads))
        if config.run_dir:
            target = Path(config.run_dir)
            ranks.on_main(lambda: stack.enter_context(held(target)))  # before the work, not after it
        folders = {name: stage.get().model for name, stage in models.items()}
        if config.run_dir:
            return ranks.on_main(
                lambda: {name: copy_into(p, target / name, config.overwrite) for name, p in folders.items()}
            )
        return folders


def fit_attributor(config: RunConfig, console: Console | None = None) -> tuple[Path, dict[str, Any]]:
    """The attribution classifier's folder and its report (accuracies, calibration)."""
    stages = _without_retraining(config, None, console)
    with quiet_libraries(config.threads):
        artifact = stages.attributor.get()
    return artifact.path, artifact.extra["report"]


def score(stages: Stages, texts: list[str]) -> list[dict[str, Any]]:
    """For each text: the owners and the background class by falling probability."""
    attributor = stages.attributor.load("reward")
    names = attributor.owners + ([BACKGROUND] if attributor.nobody else [])
    return [
        {
            "text": text,
            "probabilities": dict(sorted(zip(names, map(float, row), strict=True), key=lambda p: -p[1])),
        }
        for text, row in zip(texts, attributor.probabilities(texts), strict=True)
    ]


def score_texts(
    config: RunConfig, texts: list[str], corpus: Corpus | None = None, console: Console | None = None
) -> list[dict[str, Any]]:
    """`score` with the attributor of `config`, fitted first where the store has none."""
    stages = _without_retraining(config, corpus, console)
    with quiet_libraries(config.threads):
        return score(stages, texts)


def _without_retraining(config: RunConfig, corpus: Corpus | None, console: Console | None) -> Stages:
    """The stages of a command that trains no retrained model, and so needs no base for one."""
    return Stages(prepare(config.model_copy(update={"retrain": False}), corpus, console, unlearns=False))


def read_texts(path: str) -> list[str]:
    """One text a line.

    Raises:
        DataError: The file is missing, empty or not UTF-8.
    """
    lines = read_text(path).splitlines()
    texts = [line for line in lines if line.strip()]
    if not texts:
        raise DataError(f"{path} is empty.", "Give a text file, one text a line.")
    return texts
