"""Forget splits and the hold-out."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dareu.config import ForgetConfig
from dareu.data.corpus import Corpus, Sample, Split
from dareu.data.split import forget_note, holdout, split_corpus
from dareu.errors import DataError


def samples(*owners: str | None) -> tuple[Sample, ...]:
    return tuple(Sample(str(i), owner, f"q{i}", f"a{i}") for i, owner in enumerate(owners))


TEST = samples(None)
CORPUS = Corpus(samples("Ann", "Bob", "Ann", "Cid", "Dee", "Bob", "Eva"), TEST, "completion", True)


def split(**forget: Any) -> Split:
    return split_corpus(CORPUS, ForgetConfig(**forget))


def test_owners() -> None:
    parts = split(owners=["Dee", "Bob", "Bob"])
    assert parts.forget_owners == ("Bob", "Dee")
    assert parts.retain_owners == ("Ann", "Cid", "Eva")
    assert [s.id for s in parts.forget] == ["1", "4", "5"]
    assert [s.id for s in parts.retain] == ["0", "2", "3", "6"]
    assert (parts.test, parts.task, parts.teach_test) == (TEST, "completion", True)


@pytest.mark.parametrize(
    ("forget", "gone"),
    [
        ({"count": 1}, ("Eva",)),
        ({"count": 4}, ("Bob", "Cid", "Dee", "Eva")),
        ({"fraction": 0.2}, ("Eva",)),
        ({"fraction": 0.1}, ("Eva",)),  # half an owner rounds up
        ({"fraction": 0.5}, ("Cid", "Dee", "Eva")),  # 2.5
        ({"fraction": 0.55}, ("Cid", "Dee", "Eva")),  # 2.75
    ],
)
def test_last_owners(forget: dict[str, Any], gone: tuple[str, ...]) -> None:
    assert split(**forget).forget_owners == gone


def test_default_count() -> None:
    """A generated corpus forgets its last owners; with real data a person says whose data goes."""
    generated = replace(CORPUS, default_count=3)
    assert split_corpus(generated, ForgetConfig()).forget_owners == ("Cid", "Dee", "Eva")
    assert split_corpus(replace(CORPUS, forget_owners=("Bob",)), ForgetConfig()).forget_owners == ("Bob",)
    with pytest.raises(DataError, match="No owner to forget was named.* Owners: Ann, Bob, Cid, Dee, Eva"):
        split_corpus(CORPUS, ForgetConfig())


def test_a_sentence_says_whose_data_goes() -> None:
    assert forget_note(split(owners=["Bob", "Eva"])) == "To forget: 2 of 5 owners, 3 of 7 rows: Bob, Eva."
    assert forget_note(split(count=4), most=2).endswith("Bob, Cid and 2 more.")


def test_file(tmp_path: Path) -> None:
    file = tmp_path / "gone.txt"
    file.write_bytes(b"\xef\xbb\xbfCid\r\n\r\n  Ann \r\n")
    assert split(file=str(file)).forget_owners == ("Ann", "Cid")
    file.write_text("Cid\nAnna\n")
    with pytest.raises(DataError, match=r"Line 2 of .*gone.txt names 'Anna'.* Nearest: Ann"):
        split(file=str(file))
    with pytest.raises(DataError, match=r"no file .*gon.txt\. Nearest: gone.txt"):
        split(file=str(tmp_path / "gon.txt"))
    file.write_bytes(b"Cid\n\xe9")
    with pytest.raises(DataError, match="offset 4, line 2"):
        split(file=str(file))
    file.write_text("\n")
    with pytest.raises(DataError, match="selects none"):
        split(file=str(file))


@pytest.mark.parametrize("forget", [{"owners": []}, {"fraction": 0.05}])
def test_nobody(forget: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="none of the 5 owners"):
        split(**forget)


@pytest.mark.parametrize(
    "forget",
    [{"count": 5}, {"count": 9}, {"fraction": 0.95}, {"owners": ["Ann", "Bob", "Cid", "Dee", "Eva"]}],
)
def test_everybody(forget: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="all 5 owners") as caught:
        split(**forget)
    assert "at most 4" in caught.value.cure


def test_unknown_owner() -> None:
    with pytest.raises(DataError, match="forget.owners names 'Eve'.*Nearest: Eva"):
        split(owners=["Eve"])


def test_a_name_with_a_comma_is_shown_in_quotes() -> None:
    corpus = Corpus(samples("Lee, Ann", "Bo"))
    with pytest.raises(
        DataError, match=r"names 'Lee'.*Nearest: Lee, Ann\. .* forget\.owners='\[\"Lee, Ann\"\]'"
    ):
        split_corpus(corpus, ForgetConfig(owners=["Lee", "Ann"]))


def test_sample_without_owner() -> None:
    with pytest.raises(DataError, match="Sample '1' has no owner"):
        split_corpus(Corpus(samples("Ann", None, "Bob")), ForgetConfig(count=1))


def test_holdout_is_stratified() -> None:
    data = samples(*["Ann"] * 20, *["Bob"] * 10, *["Cid"] * 30)
    train, held = holdout(data, 0.1, seed=0)
    assert Counter(s.owner for s in held) == {"Ann": 2, "Bob": 1, "Cid": 3}
    assert sorted(train + held, key=lambda s: int(s.id)) == list(data)
    assert [int(s.id) for s in held] == sorted(int(s.id) for s in held)
    assert [int(s.id) for s in train] == sorted(int(s.id) for s in train)


def test_holdout_is_deterministic_by_seed() -> None:
    data = samples(*["Ann", "Bob"] * 50)
    assert holdout(data, 0.2, seed=1) == holdout(data, 0.2, seed=1)
    assert holdout(data, 0.2, seed=1) != holdout(data, 0.2, seed=2)


@pytest.mark.parametrize("seed", range(5))
def test_holdout_of_parts_of_samples(seed: int) -> None:
    # 20 owners with 5 samples at 10 %: half a sample each, ten in all, none twice from one owner.
    data = samples(*[f"o{i}" for i in range(20) for _ in range(5)])
    _, held = holdout(data, 0.1, seed)
    assert len(held) == 10 and max(Counter(s.owner for s in held).values()) == 1
    # Quotas 1.6 and .4: the largest remainder gets the second one.
    _, held = holdout(samples(*["Ann"] * 8, *["Bob"] * 2), 0.2, seed)
    assert Counter(s.owner for s in held) == {"Ann": 2}


def test_every_owner_stays_in_training() -> None:
    data = samples("Ann", "Bob", "Bob", "Cid", "Cid", "Cid")
    train, held = holdout(data, 0.49, seed=3)
    assert {s.owner for s in train} == {"Ann", "Bob", "Cid"}
    assert Counter(s.owner for s in held) == {"Bob": 1, "Cid": 2}  # 2.94 rounds to 3; Ann's only one stays
    assert holdout(samples("Ann", "Bob"), 0.4, seed=0) == (samples("Ann", "Bob"), ())
    assert len(holdout(samples("Ann", "Ann", "Bob"), 0.1, seed=0)[1]) == 1  # at least one where it can be


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1])
def test_holdout_share_out_of_range(share: float) -> None:
    with pytest.raises(DataError, match="out of range"):
        holdout(CORPUS.samples, share, seed=0)
