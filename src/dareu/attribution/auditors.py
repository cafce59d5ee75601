"""The attributors of the audit: made from the data alone, beside the one that gives the reward."""

from collections.abc import Sequence

from dareu.attribution.base import Attributor
from dareu.attribution.registry import FitContext, find_attributor
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


def fit_auditor(name: str, context: FitContext) -> Attributor:
    """An attributor of the kind `name`, one of `AUDITORS`; "char" and "word": n-grams with logistic regression.

    Raises:
        ConfigError: for another name, or where a package is missing (the message names the extra).
        DataError: for fewer than two owners, for "watermark" where no response carries one, for "counterfactual" where
            owners are not named in their texts.
    """
    if name in ("char", "word"):
        from dareu.attribution.lexical import LexicalAttributor

        return LexicalAttributor.fit(context.corpus.samples, name, context.seed)  # type: ignore[arg-type]
    kind = find_attributor(name)
    assert kind is not None
    attributor: Attributor = kind.fit(context)
    return attributor


def fit_auditors(names: Sequence[str], context: FitContext) -> tuple[dict[str, Attributor], dict[str, str]]:
    """Each attributor that can be made, by name; and for the others what is missing, and the cure."""
    made: dict[str, Attributor] = {}
    missing: dict[str, str] = {}
    check_auditors(names)
    for name in names:
        try:
            made[name] = fit_auditor(name, context)
        except DareuError as error:
            missing[name] = str(error)
    return made, missing
