"""The attributors of the audit: made from the data alone, beside the one that gives the reward."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dareu.attribution.base import Attributor
from dareu.data.corpus import Sample, Task
from dareu.errors import ConfigError, DareuError, nearest

AUDITORS = ("char", "word", "bm25", "substring", "embedding", "encoder", "counterfactual", "watermark")
OF_MODEL = ("encoder", "counterfactual")  # made with the original model, or its tokenizer


def check_auditors(names: Sequence[str]) -> None:
    """Check the names of attributors of the audit.

    Raises:
        ConfigError: There is no attributor of a name.
    """
    for name in names:
        if name not in AUDITORS:
            raise ConfigError(f"There is no attributor '{name}'.", nearest(name, AUDITORS))


def fit_auditor(
    name: str,
    samples: Sequence[Sample],
    *,
    model: Any = None,
    tokenizer: Any = None,
    task: Task = "qa",
    seed: int = 0,
    device: str = "cpu",
) -> Attributor:
    """An attributor of the kind `name` for the owners of `samples`.

    Args:
        name: one of `AUDITORS`. "char" and "word": n-grams with logistic regression.
        model: the original model; only "counterfactual" needs it.
        tokenizer: its tokenizer, which the small encoder reads with too; only those in `OF_MODEL` need it.

    Raises:
        ConfigError: for another name, or where a package is missing (the message names the extra).
        DataError: for fewer than two owners, for "watermark" where no response carries one, for "counterfactual" where
            owners are not named in their texts.
    """
    from dareu.attribution.lexical import LexicalAttributor
    from dareu.attribution.nearest import BM25Attributor, EmbeddingAttributor, SubstringAttributor
    from dareu.attribution.watermark import WatermarkAttributor

    attributor: Attributor
    if name in ("char", "word"):
        attributor = LexicalAttributor.fit(samples, name, seed)  # type: ignore[arg-type]
    elif name == "bm25":
        attributor = BM25Attributor.from_samples(samples, seed)
    elif name == "substring":
        attributor = SubstringAttributor.from_samples(samples, seed)
    elif name == "embedding":
        attributor = EmbeddingAttributor.from_samples(samples, seed)
    elif name == "encoder":
        from dareu.attribution.encoder import fit_encoder

        attributor = fit_encoder(samples, tokenizer=tokenizer, seed=seed, device=device)
    elif name == "counterfactual":
        from dareu.attribution.counterfactual import CounterfactualAttributor, CounterfactualSettings

        attributor = CounterfactualAttributor.from_samples(
            model, tokenizer, samples, task, CounterfactualSettings(), seed
        )
        attributor.fit_temperature(samples)
    elif name == "watermark":
        attributor = WatermarkAttributor.from_samples(samples)
    else:
        raise ConfigError(f"There is no attributor '{name}'.", nearest(name, AUDITORS))
    return attributor


def fit_auditors(
    names: Sequence[str], samples: Sequence[Sample], **options: Any
) -> tuple[dict[str, Attributor], dict[str, str]]:
    """Each attributor that can be made, by name; and for the others what is missing, and the cure."""
    made: dict[str, Attributor] = {}
    missing: dict[str, str] = {}
    check_auditors(names)
    for name in names:
        try:
            made[name] = fit_auditor(name, samples, **options)
        except DareuError as error:
            missing[name] = str(error)
    return made, missing
