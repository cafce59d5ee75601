"""What is proposed: the defaults first, the same whatever happens in between, nothing twice; and search spaces."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dareu.config.compose import compose
from dareu.errors import ConfigError
from dareu.tuning.search_space import distribution_of, overrides_of, show_setting, space_of
from dareu.tuning.study import Search, open_storage

NPO = ["method=npo"]


def search(folder: Path, name: str = "npo", seed: int = 0, batch: int = 2, **changes: Any) -> Search:
    space, defaults = space_of(compose([*NPO, *(f"method.search={json.dumps(v)}" for v in changes.values())]))
    folder.mkdir(exist_ok=True)
    return Search(open_storage(folder / "study.journal"), name, space, defaults, seed, batch)


def objective(setting: dict[str, Any]) -> float | None:
    """Made up; a large learning rate fails."""
    return None if setting["optim.lr"] > 6e-4 else 1 - abs(setting["optim.lr"] - 3e-4) * 1000


def outcome(figure: float | None) -> dict[str, Any]:
    return {"objective": figure, "failed": None if figure is not None else "too large", "passing": False}


def run(folder: Path, trials: int, seed: int = 0, stop: int = 99) -> list[Any]:
    """Batches of two to `trials`, each batch reopened as another process would; `stop`: leave after so many tells."""
    told = 0
    for end in range(2, trials + 1, 2):
        found = search(folder, seed=seed)
        for p in found.propose(end):
            if not p.ended:
                if told == stop:
                    return []
                found.record(p.number, outcome(objective(p.setting)))
                told += 1
    return [p.setting for p in search(folder, seed=seed).trials()]


def test_the_defaults_come_first_and_nothing_comes_twice(tmp_path: Path) -> None:
    made = run(tmp_path / "a", 8)
    method = compose(NPO).method.model_dump()
    assert made[0] == {
        "optim.lr": method["optim"]["lr"],
        "optim.epochs": method["optim"]["epochs"],
        "params.beta": method["params"]["beta"],
        "retain_weight": method["retain_weight"],
    }
    assert len(made) == 8 and len({json.dumps(s) for s in made}) == 8
    space, _ = space_of(compose(NPO))
    for setting in made:
        assert all(space[k]._contains(space[k].to_internal_repr(v)) for k, v in setting.items())


def test_proposals_depend_on_the_seed_and_on_nothing_else(tmp_path: Path) -> None:
    whole = run(tmp_path / "whole", 6)
    assert run(tmp_path / "again", 6) == whole
    assert run(tmp_path / "other", 6, seed=1)[1:] != whole[1:]
    for stop in (1, 3):  # inside of a batch
        run(tmp_path / f"cut{stop}", 6, stop=stop)
        assert run(tmp_path / f"cut{stop}", 6) == whole


def test_a_proposal_that_was_cut_short_is_drawn_again(tmp_path: Path) -> None:
    """The process dies between Optuna's draw and the note of its position."""
    whole = run(tmp_path / "whole", 4)
    found = search(tmp_path / "cut")
    found.propose(1)
    found._study.ask(found._space)
    assert run(tmp_path / "cut", 4) == whole


def test_a_trial_that_failed_for_a_passing_reason_is_tried_again(tmp_path: Path) -> None:
    """Its second attempt takes its place; one that failed for good keeps it."""
    found = search(tmp_path)
    first, second = found.propose(2)
    found.record(first.number, {"objective": None, "failed": "disk full", "passing": True})
    found.record(second.number, {"objective": None, "failed": "not finite", "passing": False})
    again = search(tmp_path)
    again.try_again()
    one, two = again.trials()
    assert not one.ended and one.setting == first.setting and one.number != first.number
    assert two.ended and two.outcome["failed"] == "not finite"
    again.record(one.number, outcome(0.5))
    assert [t.objective for t in search(tmp_path).trials()] == [0.5, None]
    assert len(search(tmp_path).propose(2)) == 2  # nothing else was drawn


def test_what_ended_well_draws_later_proposals(tmp_path: Path) -> None:
    """After the random start TPE proposes near what was good; with the sign turned it goes elsewhere."""
    settings = []
    for sign in (1, -1):
        found = search(tmp_path / str(sign), batch=2)
        for end in range(2, 13, 2):
            for p in found.propose(end):
                if not p.ended:
                    found.record(p.number, outcome(sign * p.setting["optim.lr"]))
        settings.append([p.setting["optim.lr"] for p in found.trials()][6:])
    high, low = (sorted(s)[len(s) // 2] for s in settings)
    assert high > 2 * low


def test_a_space_smaller_than_the_trials_repeats_at_last(tmp_path: Path) -> None:
    config = compose(["method=finetune", "method.search={optim.epochs: 'choice(3, 5)'}"])
    space, defaults = space_of(
        config.model_copy(
            update={"method": config.method.model_copy(update={"search": {"optim.epochs": "choice(3, 5)"}})}
        )
    )
    found = Search(open_storage(tmp_path / "j"), "x", space, defaults, 0, 4)
    made = [p.setting["optim.epochs"] for p in found.propose(3)]
    assert made[:2] == [3, 5] and len(made) == 3


# --- spaces -----------------------------------------------------------------------------------------------------


def with_search(**keys: str) -> Any:
    config = compose(NPO)
    return config.model_copy(update={"method": config.method.model_copy(update={"search": keys})})


@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [
        ("choice(1e-4, 2e-4)", [1e-4, 2e-4], [1.5e-4]),
        ("range(1, 8, 2)", [1, 3, 7], [2, 9]),
        ("range(0.1, 0.5, 0.1)", [0.1, 0.4], [0.15, 0.5]),
        ("interval(0.1, 2)", [0.1, 1.234, 2.0], [2.1]),
        ("tag(log, interval(1e-5, 1e-3))", [1e-5, 1e-4], [1e-6]),
    ],
)
def test_hydras_grammar(text: str, inside: list[Any], outside: list[Any]) -> None:
    read = distribution_of("k", text)
    internal = lambda v: read.to_internal_repr(v)  # noqa: E731
    assert all(read._contains(internal(v)) for v in inside)
    for value in outside:
        try:
            assert not read._contains(internal(value))
        except ValueError:
            assert text.startswith("choice")
    assert getattr(read, "log", False) == ("log" in text)


def test_a_default_outside_of_its_space_widens_it() -> None:
    """npo: lr 1e-4, epochs 10, beta .1, retain_weight 1."""
    space, defaults = space_of(
        with_search(
            **{
                "optim.lr": "tag(log, interval(1e-3, 1e-2))",
                "optim.epochs": "choice(3, 5)",
                "retain_weight": "range(2, 6, 2)",
                "params.beta": "interval(0.0, 1.0)",
            }
        )
    )
    assert (space["optim.lr"].low, space["optim.lr"].high, space["optim.lr"].log) == (1e-4, 1e-2, True)
    assert space["optim.epochs"].choices == (3, 5, 10)
    assert space["retain_weight"].choices == (1.0, 2, 4)
    assert (space["params.beta"].low, space["params.beta"].high) == (0.0, 1.0)
    assert defaults == {"optim.lr": 1e-4, "optim.epochs": 10, "retain_weight": 1.0, "params.beta": 0.1}


def test_a_whole_number_stays_one() -> None:
    config = compose(["method=dareu"])
    method = config.method.model_copy(update={"search": {"data_epochs": "interval(1, 19)"}})
    space, defaults = space_of(config.model_copy(update={"method": method}))
    assert type(space["data_epochs"]).__name__ == "IntDistribution" and defaults == {"data_epochs": 7}


def test_a_key_of_the_command_line_is_not_searched() -> None:
    space, defaults = space_of(compose(NPO), frozenset({"optim.lr", "optim"}))
    assert "optim.lr" not in space and "optim.lr" not in defaults and "optim.epochs" in space
    with pytest.raises(ConfigError, match=r"sets every key that configs/method/npo.yaml searches"):
        space_of(with_search(**{"optim.lr": "choice(1e-4, 2e-4)"}), frozenset({"optim.lr"}))


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({}, "configs/method/npo.yaml has no search block"),
        ({"optim.lrr": "choice(1, 2)"}, "search names 'method.optim.lrr', which does not exist"),
        ({"optim.lr": "3"}, "search.optim.lr=3: it is one value"),
        ({"optim.lr": "choice("}, "search.optim.lr=choice("),
        ({"optim.lr": "interval(2, 1)"}, "its ends are not in order"),
        ({"optim.lr": "tag(log, interval(0, 1))"}, "not above 0 where it is logarithmic"),
        ({"optim.lr": "choice(-1, 1)"}, "search.optim.lr: The configuration is not valid: 'method.optim.lr'"),
        ({"optim.scheduler": "interval(1, 2)"}, 'the default, "constant", is no number'),
    ],
)
def test_a_wrong_search_block_names_the_yaml(keys: dict[str, str], told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        space_of(with_search(**keys))
    assert told in str(caught.value) and "npo.yaml" in str(caught.value) and caught.value.cure


def test_a_setting_as_overrides_gives_the_setting_again() -> None:
    setting = {
        "optim.lr": 1.23456789e-5,
        "optim.epochs": 5,
        "optim.scheduler": "cosine",
        "retain_batch_size": None,
    }
    method = compose([*NPO, *overrides_of(setting)]).method
    assert (method.optim.lr, method.optim.epochs) == (1.23456789e-5, 5)
    assert (method.optim.scheduler, method.retain_batch_size) == ("cosine", None)
    assert show_setting(setting) == "lr=1.235e-05, epochs=5, scheduler=cosine, retain_batch_size=null"
