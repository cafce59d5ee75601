"""The validation and the report part: disjoint, whole together, the same for every seed, each owner in both."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from dareu.data.corpus import Sample, Split
from dareu.data.split import part_of
from dareu.errors import DataError


def samples(owner: str | None, n: int) -> tuple[Sample, ...]:
    return tuple(Sample(f"{owner}-{i}", owner, f"question {i}?", f"answer {i}") for i in range(n))


def split(forget: int = 8, retain: int = 6, test: int = 4) -> Split:
    return Split(
        forget=samples("a", forget) + samples("b", forget),
        retain=samples("c", retain),
        test=samples(None, test),
        forget_owners=("a", "b"),
        retain_owners=("c",),
    )


def test_all_is_the_split_itself() -> None:
    whole = split()
    assert part_of(whole, "all", 0.5) is whole


@pytest.mark.parametrize(("share", "taken"), [(0.5, 4), (0.25, 2)])
def test_the_parts_share_nothing_and_lose_nothing(share: float, taken: int) -> None:
    """Validation: 8·share of the 8 samples of each owner, round(6·share) retain samples, 4·share test samples."""
    whole = split()
    validation, report = part_of(whole, "validation", share), part_of(whole, "report", share)
    for name in ("forget", "retain", "test"):
        one, other = set(getattr(validation, name)), set(getattr(report, name))
        assert not one & other and one | other == set(getattr(whole, name))
    assert Counter(s.owner for s in validation.forget) == {"a": taken, "b": taken}
    assert len(validation.retain) == {0.5: 3, 0.25: 2}[share] and len(validation.test) == 4 * share
    assert [s for s in whole.forget if s in set(validation.forget)] == list(validation.forget)
    assert (validation.forget_owners, validation.task) == (whole.forget_owners, whole.task)


def test_the_cut_depends_on_the_samples_alone() -> None:
    assert part_of(split(), "report", 0.5) == part_of(split(), "report", 0.5)
    other = part_of(replace(split(), retain=samples("c", 7)), "report", 0.5)
    assert other.forget == part_of(split(), "report", 0.5).forget  # another retain set moves no forget sample


def test_sets_that_cannot_be_cut() -> None:
    with pytest.raises(DataError, match=r"The forget set, 2 samples, cannot be cut"):
        part_of(split(forget=1), "validation", 0.5)
    with pytest.raises(DataError, match="The retain set, 0 samples"):
        part_of(split(retain=0), "report", 0.5)
    assert part_of(split(test=1), "validation", 0.5).test == ()
    assert (
        len(part_of(split(test=1), "report", 0.5).test) == 1
        and part_of(split(test=0), "report", 0.5).test == ()
    )
