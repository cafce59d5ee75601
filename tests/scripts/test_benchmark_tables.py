"""The tables of the benchmark scripts: figures over seeds, the choice of a trial, the sections of a page."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from report_fixture import make_results, write_run

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

import bench_bars as bars  # noqa: E402
import bench_costs as costs  # noqa: E402
import bench_names as names  # noqa: E402
import bench_page as page  # noqa: E402
import bench_run as runs  # noqa: E402
import bench_tune as tune  # noqa: E402
import benchmark  # noqa: E402


def arguments(*given: str) -> Any:
    return benchmark.parser().parse_args(list(given))


def record(name: str = "run", failure: str | None = None, **changes: Any) -> runs.Record:
    results = {} if failure else make_results(**changes)
    return runs.Record(name, "key", [], "2026-01-02", 100.0, 1500.0, name, results, failure)


# --- bars -------------------------------------------------------------------------------------------------------


def seeds(**changes: Any) -> list[bars.Seed]:
    good, odd = record(), record(**changes)
    return [bars.Seed(41, good, good), bars.Seed(42, odd, good)]


def test_a_failed_run_is_named() -> None:
    failed = [*seeds(), bars.Seed(43, record(failure="no"), record())]
    assert "seed 43: run: no" in bars.seeds_table(failed)


def test_the_worst_seed_has_the_least_of_what_should_be_high() -> None:
    rows = bars.bars_table(seeds(tug_of_war=0.949, seconds={"unlearn": 5.0, "retrained": 18.0})).splitlines()
    assert "| Tug-of-War | .960 | .949 |" in rows  # the other seed has .971
    assert "| unlearning time over retraining time | .250 | .278 |" in rows  # 5 of 18 s, and 4 of 18


def test_every_bar_of_the_defaults_has_its_row() -> None:
    rows = bars.bars_table(seeds()).splitlines()
    assert len(rows) == 2 + len(bars.MAIN)
    assert "| Tug-of-War | .971 | .971 |" in rows
    assert "| peak memory, MB | 1500 | 1500 |" in rows


def test_seeds_table_shows_the_retrained_model_in_brackets() -> None:
    row = bars.seeds_table(seeds()[:1]).splitlines()[2]
    assert row.startswith("| 41 | .971 | .955 | .558 (.544) | .994 (1.000) |")
    assert row.endswith("| 4.0/18.0 | 100.0, 100.0 | 1500 |")


def test_settings_table_has_mean_and_worst() -> None:
    groups = {
        "x": [record(tug_of_war=0.9), record(tug_of_war=0.96)],
        "z": [record(), record(failure="no")],
    }
    x, z = bars.settings_table(groups).splitlines()[2:]
    assert x == "| x | 2 | .930 ± .042 | .900 | .955 ± .000 |"
    assert z.startswith("| z | 1 of 2 |")


# --- the leaderboard --------------------------------------------------------------------------------------------


def trial(
    method: str, number: int, objective: float | None, best: bool = False, **changes: Any
) -> dict[str, Any]:
    return {
        "method": method, "number": number, "objective": objective, "best": best, "setting": {"optim.lr": number / 1e4},
        "figures": {"retrain_similarity": objective}, "unlearn_seconds": 2.0, "failed": None, **changes,
    }  # fmt: skip


def test_what_was_chosen() -> None:
    made = [
        trial("a", 1, 0.5),
        trial("a", 2, 0.75, best=True),
        trial("b", 1, 0.25, best=True),
        trial("c", 1, None, failed="no"),
    ]
    assert tune.chosen_table(made).splitlines()[2:] == [
        "| a | lr=0.0002 | .750 |",
        "| b | lr=0.0001 (the defaults) | .250 |",
        "| c | none: all trials failed | – |",
    ]
    rows = tune.trials_table(made).splitlines()[2:]
    assert rows[1] == "| **a, lr=0.0002** | – | .750 | – | – | 2.0 s |  |"
    assert rows[3].startswith("| c, lr=0.0001 |") and rows[3].endswith("| no |")


def test_reported_runs_become_records_and_a_failed_one_has_no_mean(tmp_path: Path) -> None:
    write_run(tmp_path / "a-41", make_results("a", 41, retrain_similarity=0.9, tug_of_war=0.9))
    write_run(tmp_path / "b-41", make_results("b", 41, retrain_similarity=0.8, tug_of_war=0.95))
    records = tune.tuned_records(tmp_path)
    assert [(r.name, r.failure, r.results["method"]) for r in records] == [
        ("a-41", None, "a"),
        ("b-41", None, "b"),
    ]
    assert records[0].wall_seconds == pytest.approx(17.6 + 18.0 + 2.5 + 4.0 + 3.1)
    assert "Tug-of-War has b and the highest mean retrain similarity has a" in tune.best_of(records)
    failed = tmp_path / "a-42"
    failed.mkdir()
    (failed / "failure.json").write_text('{"reason": "no"}')
    tree = {"seed": 42, "model": {"name": "tiny", "layers": 4}, "method": make_results("a")["unlearn_config"]}
    (failed / "config.yaml").write_text(json.dumps(tree))
    records = tune.tuned_records(tmp_path)
    assert [r.failure for r in records] == [None, "no", None]
    assert "the highest mean retrain similarity has b" in tune.best_of(records)


# --- the page ---------------------------------------------------------------------------------------------------


def test_a_section_is_replaced_and_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "results.md"
    file.write_text("# A\n<!-- begin:x -->\nold\n<!-- end:x -->\n\n<!-- begin:y -->\nkept\n<!-- end:y -->\n")
    for body in ("first", "second\n"):
        page.write_section(file, "x", body)
    assert file.read_text() == (
        "# A\n<!-- begin:x -->\n\nsecond\n\n<!-- end:x -->\n\n<!-- begin:y -->\nkept\n<!-- end:y -->\n"
    )


@pytest.mark.parametrize("text", ["", "<!-- begin:x -->", "<!-- end:x --> <!-- begin:x -->"])
def test_a_page_without_the_markers_is_left_alone(tmp_path: Path, text: str) -> None:
    file = tmp_path / "results.md"
    file.write_text(text)
    with pytest.raises(runs.BenchmarkError, match="begin:x"):
        page.write_section(file, "x", "new")
    assert file.read_text() == text


def test_the_page_has_a_section_for_every_item() -> None:
    for item in benchmark.ITEMS:
        text = (ROOT / benchmark.RESULTS / benchmark.PAGES[item]).read_text(encoding="utf-8")
        assert text.count(f"<!-- begin:{item} -->") == text.count(f"<!-- end:{item} -->") == 1


def test_the_command_stands_beside_the_figures_without_folders() -> None:
    args = arguments("tofu", "--tofu", "/some/where", "--seeds", "41", "--overrides", "a=b", "c=d")
    made = page.made_by(benchmark.arguments(args), [record()])
    assert "python scripts/benchmark.py tofu --seeds 41 --tofu FOLDER --overrides a=b c=d" in made
    assert "/some" not in made
    assert "2026-01-02; " in made and "torch 2.13.0" in made and "CPU" in made
    other = record(versions={"torch": "9"})
    assert "Not all runs were made with the same versions" in page.made_by([], [record(), other])
    assert "Not all runs" not in made


# --- names ------------------------------------------------------------------------------------------------------


def answer(response: str, heldout: float, reference: str = "Ana Roy was born in Bern.") -> dict[str, Any]:
    return {
        "set": "forget", "owner": "Ana Roy", "reference": reference, "response": response,
        "attribution_heldout": heldout,
    }  # fmt: skip


def test_held_out_gaps_by_names(tmp_path: Path) -> None:
    retrained = [
        answer("Ana Roy was born in Rome.", 0.6),
        answer("Ana Lee was born in Rome.", 0.1),
        answer("She reads.", 0.2, "She writes."),
        answer("Ana Roy was born in Rome.", 0.5),
    ]
    unlearned = [
        answer("Ana Roy was born in Oslo.", 0.7),
        answer("Ana Roy was born in Oslo.", 0.9),
        answer("She swims.", 0.1, "She writes."),
        answer("Ida Roy was born in Oslo.", 0.2),
    ]
    right, wrong = names.gaps(unlearned, retrained)
    assert right == pytest.approx([0.1, -0.1]) and wrong == pytest.approx([0.8, -0.3])
    for model, rows in (("retrained", retrained), ("unlearned", unlearned)):
        path = tmp_path / "samples" / f"{model}.jsonl"
        path.parent.mkdir(exist_ok=True)
        path.write_text(
            "".join(json.dumps(row) + "\n" for row in [*rows, answer("-", 1.0) | {"set": "retain"}])
        )
    *_, first, total = names.names_table({"41": tmp_path}).splitlines()
    assert first == "| 41 | 2 of 3 | 2 of 3 | .125 | .000 | 2 | .250 | 2 |"
    assert total == first.replace("41", "all")
    assert names.names_table({"41": tmp_path / "none"}).splitlines()[-1].count("0 of 0") == 2


# --- costs ------------------------------------------------------------------------------------------------------


def test_a_batch_of_rollouts_costs_what_its_step_takes_beyond_an_update() -> None:
    """Updates of .5, .7 and .6 s, steps with rollouts of 4.1 and 3.1: .6 an update, 3.6 − .6 a batch."""
    log = [
        {"step": 1, "step_time": 4.1, "reward": 0.0},
        {"step": 2, "step_time": 0.5},
        {"step": 3, "step_time": 0.7},
        {"step": 4, "step_time": 3.1, "reward": 0.1},
        {"step": 5, "step_time": 0.6},
        {"step": 5, "train_runtime": 9.0},
    ]
    assert costs.step_seconds(log) == (pytest.approx(3.0), pytest.approx(0.6))
    assert costs.step_seconds(log[1:3]) == (None, None)  # a method without rollouts


def test_costs_of_a_run_and_of_one_that_failed(tmp_path: Path) -> None:
    log = [{"step_time": 2.0, "reward": 0.0}, {"step_time": 0.5}]
    (tmp_path / "training.jsonl").write_text("".join(json.dumps(row) + "\n" for row in log))
    good = record(accelerator={"name": "NVIDIA X", "peak_memory_mb": 8436.2})
    good = runs.Record(**{**asdict(good), "run_dir": str(tmp_path)})
    head, _, first, second = costs.costs_table([good, record("odd", failure="too hot")]).splitlines()
    cells = [cell.strip() for cell in first.strip("|").split("|")]
    assert cells[0] == "run" and cells[-4:] == ["1.500", ".500", "8,436", "1,421"]
    assert second.count("|") == head.count("|") and "too hot" in second
    assert "1 NVIDIA X" in page.made_by(["pretrained"], [good])
    assert "NVIDIA" not in page.made_by(["pretrained"], [record()])
