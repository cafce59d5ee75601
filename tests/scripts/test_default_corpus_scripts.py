"""The scripts behind the default corpus's tables: choices, intervals, which metrics can tell, costs."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

import bench_evaluation  # noqa: E402
import leaderboard  # noqa: E402
import meta_evaluation as meta  # noqa: E402
import unseen_levels  # noqa: E402

from dareu.config.compose import compose  # noqa: E402
from dareu.errors import ConfigError  # noqa: E402


def test_auc_by_hand() -> None:
    # 3 > 1, 3 > 2, 1 = 1 (half), 1 < 2
    assert meta.auc([3.0, 1.0], [1.0, 2.0]) == pytest.approx(2.5 / 4)
    assert meta.auc([1.0], [0.0]) == 1.0 and meta.auc([0.0], [1.0]) == 0.0


def test_the_interval_of_an_auc() -> None:
    low, high = meta.auc_interval(1.0, 10, 10)
    # at its lower end θ, |1 − θ| = z √(θ (1 − θ) (1 + 9 ((1 − θ)/(2 − θ) + θ/(1 + θ))) / 100)
    spread = (1 + 9 * ((1 - low) / (2 - low) + low / (1 + low))) / 100
    assert 1 - low == pytest.approx(1.959964 * (low * (1 - low) * spread) ** 0.5, abs=1e-9)
    assert high == 1.0 and 0.7 < low < 0.9
    ends, mirrored = meta.auc_interval(0.8, 10, 10), meta.auc_interval(0.2, 10, 10)
    assert ends == pytest.approx((1 - mirrored[1], 1 - mirrored[0]))
    assert meta.auc_interval(0.8, 40, 40)[0] > ends[0]  # more models, a shorter interval


def model(group: str, knows: bool, **figures: float) -> dict[str, Any]:
    return {"name": group, "group": group, "knows": knows, "figures": figures}


def test_which_metrics_can_tell() -> None:
    rows = [
        model("original", True, probability=0.9 + i / 100, truth_ratio=0.2, truth_ratio_log=-2.0, exact=i % 2)
        for i in range(8)
    ]
    rows += [
        model("retrained", False, probability=i / 100, truth_ratio=0.7, truth_ratio_log=0.1, exact=i % 2)
        for i in range(8)
    ]
    table, blind = meta.meta_table(rows)
    lines = table.splitlines()
    assert lines[2].startswith("| Probability | 1.000 (") and ".035 ± .024 | .935 |" in lines[2]
    lower = [line for line in lines if line.lower().startswith(("| truth ratio", "| mean log"))]
    assert len(lower) == 2 and all("| 1.000 (" in line for line in lower)  # lower in a model that knows
    assert blind == [
        "Exact answers"
    ] and "Cannot tell (the interval reaches .5): Exact answers." in meta.body_of(rows)


def trial(worst: float, tug: float, **more: Any) -> dict[str, Any]:
    figures = {"knowledge": {}, "retrain_similarity": 0.5, "damage_retain": 0.0, "damage_test": 0.0}
    row = {
        "key": f"{worst}/{tug}",
        "worst": {"metric": "exact", "value": worst},
        "tug_of_war": tug,
        "failed": None,
    }
    return row | figures | {"broken": 0.0, "seconds": 1.0, "setting": {}} | more


def test_the_two_choices_and_their_orders() -> None:
    trials = [trial(0.9, 0.8), trial(-0.5, 0.6), trial(0.1, 0.99, failed="no")]
    worst, tug = leaderboard.CHOICES.values()
    assert leaderboard.best(trials, worst) is trials[1] and leaderboard.best(trials, tug) is trials[0]
    assert leaderboard.best(trials[2:], tug) is None
    rows = {"a": [trial(0.9, 0.8), trial(0.9, 0.9)], "b": [trial(-0.5, 0.6)], "c": [trial(0, 0, failed="no")]}
    made = leaderboard.board_table(rows, worst).splitlines()
    assert [line.split(" | ")[0] for line in made[2:]] == ["| b", "| a", "| c"]
    assert "| 2 of 2 |" in made[3] and "exact (2)" in made[3] and "| 0 of 1 |" in made[4]
    ranks = leaderboard.ranks_table({leaderboard.BOUNDED: rows, "Tug-of-War": rows})
    assert "| b | 1 | 2 |" in ranks and "τ of the two orders: -1.00 (2 methods)" in ranks


def test_a_destroyed_model_is_not_chosen() -> None:
    """Worst |k| decides among trials within the bounds; where there is none, the least excess does."""
    destroyed = trial(0.1, 0.2, damage_retain=0.8, broken=0.4)
    usable = trial(0.9, 0.8, damage_retain=0.1, damage_test=0.2, broken=0.1)
    bounded = leaderboard.CHOICES[leaderboard.BOUNDED]
    assert leaderboard.excess(leaderboard.cells_of([destroyed])) == pytest.approx(0.7 + 0.3)
    assert leaderboard.best([destroyed, usable], bounded) is usable
    nearly = trial(1.0, 0.5, damage_test=0.25, broken=None)
    assert leaderboard.best([destroyed, nearly], bounded) is nearly
    lines = leaderboard.board_table({"a": [destroyed], "b": [usable]}, bounded).splitlines()
    assert lines[2].startswith("| b | 1 of 1 | yes |") and lines[3].startswith("| a | 1 of 1 | no |")


def test_a_mean_has_the_interval_of_its_seeds() -> None:
    # sd 1, n 3: 4.303 / √3
    assert leaderboard.mean_text([1.0, 2.0, 3.0]) == "2.000 ± 2.484"
    assert leaderboard.mean_text([2.0]) == "2.000" and leaderboard.mean_text([None]) == "–"


def test_finished_runs_stand_beside_the_methods(tmp_path: Path) -> None:
    def run(seed: int) -> Path:
        folder = tmp_path / f"run-{seed}"
        folder.mkdir()
        tree = {
            "method": "dareu",
            "seed": seed,
            "knowledge_left": {"exact": {"value": 0.25}},
            "knowledge_left_worst": {"metric": "exact", "value": 0.25},
            "tug_of_war": 0.75,
            "retrain_similarity": 0.5,
            "damage": {"retain": {"value": 0.125}, "test": {"value": 0.0}},
            "models": {"unlearned": {"text_health": {"broken": 0.0}}},
            "seconds": {"unlearn": 2.0},
        }
        (folder / "results.json").write_text(json.dumps(tree), encoding="utf-8")
        return folder

    folders = [run(42), run(41)]
    (name, rows), *none = leaderboard.rows_of_runs(folders, [41, 42]).items()
    assert name == "dareu, chosen elsewhere" and none == [] and len(rows) == 2
    assert leaderboard.cells_of(rows)["worst |k|"] == 0.25 and leaderboard.cells_of(rows)["seconds"] == 2.0
    line = leaderboard.board_table({name: rows}, leaderboard.CHOICES["Tug-of-War"]).splitlines()[2]
    assert (
        line.startswith("| dareu, chosen elsewhere | 2 of 2 | no | .250 ± .000 |") and ".125 ± .000" in line
    )
    with pytest.raises(ConfigError, match=r"have the seeds \[41, 42\], the table \[41\]"):
        leaderboard.rows_of_runs(folders, [41])
    with pytest.raises(ConfigError, match="holds no results.json"):
        leaderboard.rows_of_runs([tmp_path], [41])


def test_trials_of_another_version_are_taken_as_they_stand(tmp_path: Path) -> None:
    file = tmp_path / "trials.jsonl"
    rows = [trial(0.1, 0.2, method="npo", number=i) for i in (1, 2)] + [trial(0.3, 0.4, method="rmu")]
    file.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    board = leaderboard.Board(tmp_path / "out", [], trials=1)
    assert board.trials_of(file, ["rmu", "npo"]) == {"rmu": [rows[2]], "npo": [rows[0]]}
    with pytest.raises(ConfigError, match="fewer than 2 trials of rmu"):
        leaderboard.Board(tmp_path / "out", [], trials=2).trials_of(file, ["rmu", "npo"])


def test_trials_begin_with_the_defaults_and_are_the_same_in_every_call() -> None:
    pytest.importorskip("optuna")
    config = compose(["method=npo"])
    first, again = leaderboard.settings_of(config, 3), leaderboard.settings_of(config, 4)
    assert first == again[:3] and len({str(one) for one in again}) == 4
    assert first[0]["optim.lr"] == config.method.optim.lr


def test_a_method_with_muon_has_the_same_draws_at_four_times_the_rate() -> None:
    pytest.importorskip("optuna")
    assert leaderboard.method_of("npo") == ["method=npo"]
    config = compose(leaderboard.method_of("npo+muon"))
    assert (config.method.name, config.method.optim.name) == ("npo", "muon")
    plain = leaderboard.settings_of(compose(["method=npo"]), 3)
    muon = leaderboard.settings_of(config, 3, leaderboard.MUON_RATE)
    assert [m["optim.lr"] / p["optim.lr"] for m, p in zip(muon, plain, strict=True)] == pytest.approx(
        [4.0] * 3
    )
    assert [m | {"optim.lr": 0} for m in muon] == [p | {"optim.lr": 0} for p in plain]


def test_the_costs_of_an_evaluation() -> None:
    found = {
        "bare generation": {"seconds": 0.9, "mb": 500.0},
        "generation": {"seconds": 1.0, "mb": 510.0},
        "fast": {"seconds": 8.5, "mb": 550.0},
    }
    body = bench_evaluation.body_of(found)
    assert "| `evaluation=fast`, CPU seconds | 8.5 |" in body
    assert "`generate` | .90 |" in body and "`generate` | 1.10 |" in body


def test_distances_of_the_estimates_from_the_retrained_model() -> None:
    rows = [
        {
            "seed": seed,
            "probability": {"original": 0.9, "retrained": 0.1, "holdout": 0.1 + by},
            "ROUGE": {"original": 1.0, "retrained": 0.5, "renamed": 0.5 - by},
        }
        for seed, by in ((71, 0.1), (72, -0.2))
    ]
    lines = unseen_levels.body_of(rows).splitlines()
    assert lines[0] == "2 corpora, means."
    # Differences .1 and −.2: the mean is −.05, the mean distance .15, the largest .2.
    assert "| probability | .900 | .100 | holdout | .050 | -.050 | .150 | .200 |" in lines
    assert "| ROUGE | 1.000 | .500 | renamed | .550 | .050 | .150 | .200 |" in lines
