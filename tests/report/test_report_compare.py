"""Several runs side by side."""

from __future__ import annotations

import copy
import csv
import io
import json
import math
from pathlib import Path
from typing import Any

import pytest
from report_fixture import make_results, write_run
from rich.console import Console

from dareu.errors import RunError
from dareu.report.aggregate import Row, Stat, mark_best, remarks
from dareu.report.comparison import aggregate, comparison_table, load_runs, to_csv, to_latex, to_markdown


def run(folder: Path, method: str, seed: int, forget: float = 0.55, **changes: Any) -> Path:
    config = changes.pop("config", None)
    results = copy.deepcopy(make_results(method, seed, **changes))
    results["models"]["unlearned"]["forget"]["rouge_l"] = forget
    return write_run(folder / f"{method}-{seed}-{len(list(folder.glob('*')))}", results, config)


def row(rows: list[Row], label: str) -> Row:
    return next(r for r in rows if r.label == label)


def test_mean_and_sample_sd() -> None:
    # .2 .4 .9: mean .5, squares .09 + .01 + .16 = .26, / 2 = .13, root .36056
    stat = Stat.of([0.2, None, 0.4, 0.9])
    assert stat is not None and stat.n == 3
    assert stat.mean == pytest.approx(0.5) and stat.sd == pytest.approx(math.sqrt(0.13))
    assert stat.text() == ".500 ± .361"
    assert Stat.of([0.2]) == Stat(0.2, None, 1) and Stat.of([None]) is None


def test_seeds_are_averaged_and_shared_models_count_once(tmp_path: Path) -> None:
    for seed, forget in ((41, 0.2), (42, 0.4), (43, 0.9)):
        run(tmp_path, "dareu", seed, forget)
        run(tmp_path, "npo", seed, 0.6)
    rows = aggregate(load_runs([tmp_path]))
    assert [r.label for r in rows] == ["original", "retrained", "dareu", "npo"]
    stat = row(rows, "dareu").stats["forget_rouge_l"]
    assert stat is not None and (stat.mean, stat.sd) == (pytest.approx(0.5), pytest.approx(math.sqrt(0.13)))
    # gaps to .544: .344 .144 .356, mean .2813
    gap = row(rows, "dareu").gaps["forget_rouge_l"]
    assert gap is not None and gap.mean == pytest.approx(0.28133, abs=1e-5)
    assert row(rows, "original").n == row(rows, "retrained").n == 3  # six runs, three seeds
    seconds = row(rows, "retrained").stats["seconds"]
    assert seconds is not None and seconds.mean == 18.0


def test_a_run_with_and_without_a_retrained_model_counts_once(tmp_path: Path) -> None:
    run(tmp_path, "dareu", 41, 0.2)
    models = {k: v for k, v in make_results()["models"].items() if k != "retrained"}
    for seed in (41, 42):
        run(tmp_path, "dareu", seed, 0.4, models=copy.deepcopy(models), tug_of_war=None)
    rows = aggregate(load_runs([tmp_path]))
    unlearned = row(rows, "dareu")
    assert (unlearned.n, unlearned.seeds) == (2, (41, 42))  # .2 of seed 41, .4 of seed 42
    assert unlearned.stats["forget_rouge_l"] == Stat.of([0.2, 0.4])
    assert row(rows, "original").n == 2 and row(rows, "retrained").n == 1


def test_settings_tell_rows_apart(tmp_path: Path) -> None:
    method = make_results()["unlearn_config"]
    for seed in (41, 42):
        run(tmp_path, "dareu", seed)
        run(
            tmp_path,
            "dareu",
            seed,
            unlearn_config=method | {"optim": {"lr": 1e-3, "steps": 40, "save_every": seed}},
        )
        run(tmp_path, "npo", seed)
    labels = {r.label: r.n for r in aggregate(load_runs([tmp_path])) if r.model == "unlearned"}
    assert labels == {"dareu, optim.lr=0.0003": 2, "dareu, optim.lr=0.001": 2, "npo": 2}


def test_other_models_are_not_averaged(tmp_path: Path) -> None:
    """Runs whose configuration differs outside the method are different rows, the original's too."""
    run(tmp_path, "dareu", 41, config="seed: 41\nmodel: {layers: 4}\n")
    run(tmp_path, "dareu", 41, config="seed: 41\nmodel: {layers: 8}\n")
    labels = [r.label for r in aggregate(load_runs([tmp_path]))]
    firsts = [f"{m}, model.layers={n}" for n in (4, 8) for m in ("original", "retrained")]
    assert labels == [*firsts, "dareu, model.layers=4", "dareu, model.layers=8"]


def test_a_row_names_no_settings_that_it_does_not_have(tmp_path: Path) -> None:
    """Keys below `rounds` are of runs with several requests alone."""
    run(tmp_path, "npo", 41, config="seed: 41\nforget: {count: 1}\nrounds: null\n")
    run(tmp_path, "npo", 41, config="seed: 41\nforget: {count: null}\nrounds: {count: 2}\n")
    labels = [r.label for r in aggregate(load_runs([tmp_path])) if r.model == "unlearned"]
    assert sorted(labels) == ["npo, forget.count=1, rounds=null", "npo, forget.count=null, rounds.count=2"]


def stats(mean: float, sd: float | None) -> dict[str, Stat | None]:
    return {"tug_of_war": Stat(mean, sd, 3)}


def test_best_and_all_within_its_sd() -> None:
    rows = [
        Row(n, "unlearned", 3, stats(m, s))
        for n, m, s in (("a", 0.90, 0.03), ("b", 0.88, 0.2), ("c", 0.86, 0.2))
    ]
    assert [bool(r.best) for r in mark_best(rows)] == [True, True, False]  # .90 − .03 = .87
    assert [bool(r.best) for r in mark_best(rows[:1])] == [False]


def test_best_is_closest_to_the_retrained_model_not_smallest(tmp_path: Path) -> None:
    run(tmp_path, "low", 41, 0.10)  # gap to .544: .444
    run(tmp_path, "close", 41, 0.60)  # .056
    rows = aggregate(load_runs([tmp_path]))
    assert "forget_rouge_l" in row(rows, "close").best and "forget_rouge_l" not in row(rows, "low").best
    assert "| close | **.600** |" in to_markdown(load_runs([tmp_path]))


def test_other_data_is_warned_of(tmp_path: Path) -> None:
    runs = load_runs([run(tmp_path, "dareu", 41), run(tmp_path, "npo", 41)])
    assert not any("different data" in text for text in remarks(runs, aggregate(runs)))
    runs = load_runs([run(tmp_path, "dareu", 41), run(tmp_path, "npo", 41, data_key="ffff0000")])
    console = Console(width=110, color_system=None)
    with console.capture() as capture:
        console.print(comparison_table(runs))
    for text in (capture.get(), to_markdown(runs), to_csv(runs), to_latex(runs)):
        assert "Warning: these runs used different data" in text
    text = to_markdown(runs)
    assert "npo, data_key=ffff0000" in text and "unset" not in text
    assert not any(row.best for row in aggregate(runs))  # each is alone on its data


def test_failed_runs_stay(tmp_path: Path) -> None:
    for seed in (41, 42):
        run(tmp_path, "dareu", seed)
    for method, seed in (("dareu", 43), ("npo", 41)):
        folder = tmp_path / f"failed-{method}"
        folder.mkdir()
        (folder / "failure.json").write_text(json.dumps({"reason": f"{method} blew up"}))
        tree = {
            "seed": seed,
            "model": {"name": "tiny", "layers": 4},
            "method": make_results(method)["unlearn_config"],
        }
        (folder / "config.yaml").write_text(json.dumps(tree))  # JSON is YAML
    runs = load_runs([tmp_path])
    rows = aggregate(runs)
    assert [(r.label, r.n, r.failures) for r in rows if r.model == "unlearned"] == [
        ("dareu", 2, ("dareu blew up",)),
        ("npo", 0, ("npo blew up",)),
    ]
    text = to_markdown(runs)
    assert "> Failed: npo: npo blew up" in text and "| 2 +1 failed |" in text and "| failed |" in text


def test_loading(tmp_path: Path) -> None:
    first = run(tmp_path, "dareu", 41)
    assert len(load_runs([first, tmp_path])) == 1  # the same folder twice
    (tmp_path / "empty").mkdir()
    with pytest.raises(RunError) as caught:
        load_runs([tmp_path / "empty"])
    assert "holds no results.json" in caught.value.cause and caught.value.cure
    with pytest.raises(RunError, match="no folder"):
        load_runs([tmp_path / "absent"])
    (first / "results.json").write_text("{")
    with pytest.raises(RunError, match="is not JSON"):
        load_runs([first])


def test_csv_reads_back(tmp_path: Path) -> None:
    for seed, forget in ((41, 0.25), (42, 0.75)):
        run(tmp_path, "dareu", seed, forget, tuning=None)
        run(tmp_path, "npo", seed, 0.9, tuning={"trials": 8, "chosen_by": "tug_of_war", "part": "validation"})
    table = {r["label"]: r for r in csv.DictReader(io.StringIO(to_csv(load_runs([tmp_path]))))}
    line = table["dareu (untuned)"]
    assert float(line["forget_rouge_l_mean"]) == 0.5 and float(line["forget_rouge_l_sd"]) == pytest.approx(
        math.sqrt(0.125)
    )
    assert line["n"] == "2" and line["seeds"] == "41 42" and table["original"]["tug_of_war_mean"] == ""


def test_untuned_rows_are_marked_only_beside_tuned_ones(tmp_path: Path) -> None:
    labels = [r.label for r in aggregate(load_runs([run(tmp_path, "dareu", 41), run(tmp_path, "npo", 41)]))]
    assert "dareu" in labels and "npo" in labels
    tuned = run(tmp_path, "grad_diff", 41, tuning={"trials": 8})
    labels = [r.label for r in aggregate(load_runs([tmp_path]))]
    assert {"dareu (untuned)", "npo (untuned)", "grad_diff"} < set(labels) and tuned.is_dir()


def test_search_spaces_do_not_tell_settings_apart(tmp_path: Path) -> None:
    method = make_results()["unlearn_config"]
    run(tmp_path, "dareu", 41)
    run(tmp_path, "dareu", 42, unlearn_config=method | {"search": {"optim.lr": "choice(1,2)"}})
    assert [r.n for r in aggregate(load_runs([tmp_path])) if r.model == "unlearned"] == [2]


def test_rows_stand_in_the_order_asked_for(tmp_path: Path) -> None:
    """Up: high similarity first. Down: few seconds first. Close to the retrained model's .544: .56, .40, .90."""
    for name, forget, similar, seconds in (("a", 0.9, 0.7, 2.0), ("b", 0.4, 0.9, 3.0), ("c", 0.56, 0.8, 1.0)):
        run(
            tmp_path,
            name,
            41,
            forget,
            retrain_similarity=similar,
            seconds={"unlearn": seconds, "retrained": 4.0},
        )
    failed = tmp_path / "failed"
    failed.mkdir()
    (failed / "failure.json").write_text('{"reason": "no"}')
    runs = load_runs([tmp_path])
    for sort, order in (("retrain_similarity", "bca"), ("seconds", "cab"), ("forget_rouge_l", "cba")):
        labels = [r.label for r in aggregate(runs, sort) if r.model == "unlearned"]
        assert [label[0] for label in labels] == [*order, "f"], sort
        assert [
            line[2] for line in to_markdown(runs, sort).splitlines() if line[:3] in ("| a", "| b", "| c")
        ] == [*order]


def test_costs(tmp_path: Path) -> None:
    """4 s of 18 s and 5 s of 18 s: .222 and .278, mean .25; 1421 MB."""
    run(tmp_path, "dareu", 41)
    run(tmp_path, "dareu", 42, seconds={"unlearn": 5.0, "retrained": 18.0})
    found = row(aggregate(load_runs([tmp_path])), "dareu").stats
    assert found["time_share"].mean == pytest.approx(0.25) and found["peak_memory"].mean == 1421.0
    assert "| .250 ± .039 | 1421 ± 0 |" in to_markdown(load_runs([tmp_path])).replace("*", "")
    run(tmp_path, "npo", 41, seconds={"unlearn": 5.0, "retrained": None})
    assert row(aggregate(load_runs([tmp_path])), "npo").stats["time_share"] is None


def test_latex_is_escaped(tmp_path: Path) -> None:
    text = to_latex(load_runs([run(tmp_path, "grad_diff & 50%", 41), run(tmp_path, "npo", 41, 0.1)]))
    assert r"grad\_diff \& 50\%" in text and r"\textbf{.550}" in text
    body = [line for line in text.splitlines() if line.endswith(r"\\") and "multicolumn" not in line]
    assert len({line.replace(r"\&", "").count("&") for line in body}) == 1


def test_console_table_fits_a_terminal(tmp_path: Path) -> None:
    for seed in (41, 42):
        run(tmp_path, "dareu", seed), run(tmp_path, "gradient_ascent", seed, 0.1)
    console = Console(width=80, color_system=None)
    with console.capture() as capture:
        console.print(comparison_table(load_runs([tmp_path])))
    assert "…" not in capture.get() and "gradient_ascent" in capture.get()


@pytest.mark.parametrize("text", ["{}", '{"accuracy": 0.5}', '{"method": null}'])
def test_results_of_another_program_are_named(tmp_path: Path, text: str) -> None:
    run(tmp_path, "dareu", 41)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "results.json").write_text(text)
    with pytest.raises(RunError, match=r"other/results\.json holds no results of a run"):
        load_runs([tmp_path])
