"""The smaller commands: only the fine-tuned models, only the attributor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dareu.config import RunConfig
from dareu.data.corpus import Corpus
from dareu.errors import DataError
from dareu.runs.files import check_writable
from dareu.workflow.console import Talk
from dareu.workflow.library_settings import quiet
from dareu.workflow.stages import Bench

NOBODY = "(nobody)"


def finetune(config: RunConfig, talk: Talk | None = None) -> dict[str, Path]:
    """The original model and, unless `retrain=false`, the retrained one: name → folder that `from_pretrained` loads.

    With `run_dir` they are copied there; a folder that is there already is left alone.
    """
    quiet()
    bench = Bench(config, talk=talk)
    if config.run_dir:
        check_writable(Path(config.run_dir))  # before the work, not after it
    found = {"original": bench.original.model}
    if bench.retrained is not None:
        found["retrained"] = bench.retrained.model
    if config.run_dir:
        from dareu.runs.folder import copy_into

        found = {
            name: copy_into(path, Path(config.run_dir) / name, config.overwrite)
            for name, path in found.items()
        }
    return found


def fit_attributor(config: RunConfig, talk: Talk | None = None) -> tuple[Path, dict[str, Any]]:
    """The attribution classifier's folder and its report (accuracies, calibration)."""
    quiet()
    artifact = Bench(config, talk=talk).attributor
    return artifact.path, artifact.extra["report"]


def score(bench: Bench, texts: list[str]) -> list[dict[str, Any]]:
    """For each text: the owners and the nobody class by falling probability."""
    from dareu.attribution.registry import load_attributor

    attributor = load_attributor(bench.attributor_folder("reward"), "cpu")
    names = attributor.owners + ([NOBODY] if attributor.nobody else [])
    return [
        {
            "text": text,
            "probabilities": dict(sorted(zip(names, map(float, row), strict=True), key=lambda p: -p[1])),
        }
        for text, row in zip(texts, attributor.probabilities(texts), strict=True)
    ]


def score_texts(
    config: RunConfig, texts: list[str], corpus: Corpus | None = None, talk: Talk | None = None
) -> list[dict[str, Any]]:
    """`score` with the attributor of `config`, fitted first where the store has none."""
    quiet()
    return score(Bench(config, corpus, talk), texts)


def read_texts(path: str) -> list[str]:
    """One text a line. `DataError` for a file that is missing, empty or not UTF-8."""
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise DataError(
            f"{path} cannot be read: {error.strerror}.", "Give a text file, one text a line."
        ) from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 (byte {error.start}).", "Save it as UTF-8.") from None
    texts = [line for line in lines if line.strip()]
    if not texts:
        raise DataError(f"{path} is empty.", "Give a text file, one text a line.")
    return texts
