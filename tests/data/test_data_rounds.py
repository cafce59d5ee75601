"""What each round forgets and keeps, worked out by hand for five owners of two samples each."""

from __future__ import annotations

from typing import Any

import pytest

from dareu.config import RoundsConfig, RunConfig, parse
from dareu.config.compose import compose
from dareu.data.corpus import Corpus, Sample
from dareu.data.sequential import split_rounds, split_run
from dareu.errors import ConfigError, DataError

OWNERS = ("Ada", "Bo", "Cy", "Di", "Ed")
CORPUS = Corpus(
    tuple(Sample(f"{o}{i}", o, f"What {i} of {o}?", f"That {i}.") for i in range(2) for o in OWNERS),
    test=(Sample("t", None, "What is red?", "Blood."),),
)


def rounds(given: Any) -> RoundsConfig:
    return RoundsConfig.model_validate(given)


def config(**changes: Any) -> RunConfig:
    return parse(compose().model_dump() | changes)


def ids(samples: tuple[Sample, ...]) -> list[str]:
    return [s.id for s in samples]


def test_a_round_keeps_nothing_of_owners_forgotten_before() -> None:
    first, second = split_rounds(CORPUS, rounds([["Cy"], ["Ed", "Ada"]]))
    assert ids(first.request.forget) == ids(first.so_far.forget) == ["Cy0", "Cy1"]
    assert first.request.retain_owners == ("Ada", "Bo", "Di", "Ed")
    # Round 2 asks for Ed and Ada; Cy is in neither set, so Bo and Di are left.
    assert ids(second.request.forget) == ["Ada0", "Ed0", "Ada1", "Ed1"]
    assert second.request.forget_owners == ("Ada", "Ed")
    assert ids(second.request.retain) == ["Bo0", "Di0", "Bo1", "Di1"] == ids(second.so_far.retain)
    assert ids(second.so_far.forget) == ["Ada0", "Cy0", "Ed0", "Ada1", "Cy1", "Ed1"]
    assert second.so_far.forget_owners == ("Ada", "Cy", "Ed") and second.request.test == CORPUS.test


def test_a_run_ends_with_everything_forgotten() -> None:
    assert split_run(CORPUS, config(rounds=[["Cy"], ["Ada"]])).forget_owners == ("Ada", "Cy")
    assert split_run(CORPUS, config(forget={"count": 1})).forget_owners == ("Ed",)


def test_a_count_takes_the_last_owners_first_and_more_rounds_go_on_from_fewer() -> None:
    two = split_rounds(CORPUS, rounds({"count": 2}))
    assert [one.request.forget_owners for one in two] == [("Ed",), ("Di",)]
    four = split_rounds(CORPUS, rounds({"count": 4}))
    assert four[:2] == two and [one.request.forget_owners for one in four[2:]] == [("Cy",), ("Bo",)]
    pairs = split_rounds(CORPUS, rounds({"count": 2, "owners_per_round": 2}))
    assert [one.request.forget_owners for one in pairs] == [("Di", "Ed"), ("Bo", "Cy")]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ([["Ada"], ["Boo"]], ("Round 2 of rounds names 'Boo'", "Nearest: Bo")),
        ([["Ada"], ["Bo", "Ada"]], ("names 'Ada' in round 1 and in round 2", "name each owner once")),
        ([["Ada"], ["Ada "]], ("names 'Ada' in round 1 and in round 2", "name each owner once")),
        ([["Ada", "Bo"], ["Cy", "Di", "Ed"]], ("The 2 rounds would forget all 5 owners", "at most 4")),
        ({"count": 5}, ("requests 5 rounds of 1, 5 owners; the data has 5", "Lower rounds.count")),
        ({"count": 2, "owners_per_round": 3}, ("2 rounds of 3, 6 owners; the data has 5", "owners_per_round")),
    ],
)  # fmt: skip
def test_rounds_that_do_not_fit_the_data(given: Any, told: tuple[str, str]) -> None:
    with pytest.raises(DataError) as caught:
        split_rounds(CORPUS, rounds(given))
    assert told[0] in caught.value.cause and told[1] in str(caught.value.cure)


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["rounds=[[Ada],[Bo]]", "forget.count=1"], "rounds and forget.count contradict one another"),
        (["rounds.count=2", "forget.owners=[Ada]"], "rounds and forget.owners contradict one another"),
        (["rounds=[[Ada],[]]"], "'rounds': round 2 names nobody"),
        (["rounds=[]"], "'rounds': round 1 names nobody"),
        (["rounds.owners=[[Ada]]", "rounds.count=2"], "give either owners, a list of owners for each round, or"),
        (["rounds.compare=every"], "give either owners, a list of owners for each round, or count"),
        (["rounds.count=0"], "'rounds.count' must be a whole number from 1"),
        (["rounds.cuont=2"], "unknown key 'rounds.cuont'. Nearest: rounds.count"),
        (["rounds=[Ada,Bo]"], "'rounds.owners' must be a list of lists of text"),
    ],
)  # fmt: skip
def test_rounds_that_contradict_are_told_at_config_time(overrides: list[str], told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        compose(overrides)
    assert told in str(caught.value) and "\n" not in str(caught.value)


def test_a_list_on_the_command_line_replaces_an_experiments_rounds() -> None:
    found = compose(["experiment=rounds", "rounds=[[Ada],[Bo]]"]).rounds
    assert found == rounds([["Ada"], ["Bo"]]) and found.count is None
    assert compose(["experiment=rounds", "rounds.count=3"]).rounds == rounds({"count": 3})
    assert compose(["experiment=rounds", "rounds=null", "forget.count=1"]).rounds is None


@pytest.mark.parametrize("swap", [False, True])
def test_a_list_of_requests_and_another_key_in_either_order(swap: bool) -> None:
    given = ["rounds=[[Ada],[Bo]]", "rounds.compare=last"]
    for experiment in ([], ["experiment=rounds"]):
        found = compose([*experiment, *(given[::-1] if swap else given)]).rounds
        assert found is not None and (found.owners, found.compare) == ([["Ada"], ["Bo"]], "last")
