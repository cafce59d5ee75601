"""What all benchmark sources share: from rows grouped by owner to a corpus, whole or in part."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from dareu.config import HubSource
from dareu.data.corpus import Corpus, Sample, Task
from dareu.errors import DataError

Owned = Mapping[str, Sequence[Sample]]


def make_corpus(
    config: HubSource,
    owned: Owned,
    forget: Sequence[str],
    *,
    test: Sequence[Sample] = (),
    holdout: Sequence[Sample] = (),
    calibration: Sequence[Sample] = (),
    attacks: Sequence[Sample] = (),
    task: Task = "qa",
    notes: Sequence[str] = (),
) -> Corpus:
    """The corpus of `owned` samples, cut down as `config` says.

    Of the owners to `forget` the last `config.forget_owners` stay, of the others the first, so that `config.owners` are
    left in all; of each the first `config.rows_per_owner` samples. Test, holdout and attacks keep their order.

    Raises:
        DataError: Nobody would be left to retain, or fewer owners are there than are wanted.
    """
    gone = list(forget)
    if config.forget_owners is not None:
        if config.forget_owners > len(gone):
            raise DataError(
                f"data.forget_owners={config.forget_owners}: data={_name(config)} forgets {len(gone)} owners.",
                f"Give 1 to {len(gone)}, or null for all.",
            )
        gone = gone[-config.forget_owners :]
    others = [owner for owner in owned if owner not in set(forget)]
    if config.owners is not None:
        left = config.owners - len(gone)
        if not 1 <= left <= len(others):
            raise DataError(
                f"data.owners={config.owners}: {len(gone)} of them are forgotten, {len(others)} can stay.",
                f"Give {len(gone) + 1} to {len(gone) + len(others)}, or change data.forget_owners.",
            )
        others = others[:left]
    if not others:
        raise DataError(f"data={_name(config)} would leave no owner to retain.", "Forget fewer owners.")
    kept = set(gone) | set(others)
    samples = [s for owner in owned if owner in kept for s in list(owned[owner])[: config.rows_per_owner]]
    return Corpus(
        samples=tuple(samples),
        test=tuple(test),
        task=task,
        teach_test=config.teach_test,
        holdout=tuple(holdout),
        calibration=tuple(calibration),
        attacks=tuple(s for s in attacks if s.owner in kept),
        forget_owners=tuple(owner for owner in owned if owner in gone),
        notes=tuple(notes),
    )


def _name(config: HubSource) -> str:
    return str(getattr(config, "name", "hub"))


def numbered(samples: Sequence[Sample], prefix: str) -> tuple[Sample, ...]:
    """`samples` with the ids "prefix/000", "prefix/001", …."""
    return tuple(replace(s, id=f"{prefix}/{i:03d}") for i, s in enumerate(samples))


def texts_of_owner(owner: str, texts: Sequence[str]) -> list[Sample]:
    """Plain texts of one owner, for the completion task."""
    return [Sample(f"{owner}/{i:02d}", owner, "", text) for i, text in enumerate(texts)]
