"""The table and the lines of one run."""

from __future__ import annotations

import math

import pytest
from report_fixture import make_results, model
from rich.console import Console

from dareu.report.figures import FIGURES, show, show_any, show_seconds, value
from dareu.report.run_tables import run_rows, run_table, summary_lines


def printed(item: object, width: int = 100) -> str:
    console = Console(width=width, color_system=None)
    with console.capture() as capture:
        console.print(item)
    return capture.get()


@pytest.mark.parametrize(
    ("x", "text"),
    [(0.5516, ".552"), (1, "1.000"), (0, ".000"), (-0.25, "-.250"), (-0.0001, ".000"), (10.5, "10.500"),
     (None, "–"), (math.nan, "–"), (math.inf, "–"), ("0.5", "–"), (True, "–")],
)  # fmt: skip
def test_show(x: object, text: str) -> None:
    assert show(x) == text


def test_other_numbers() -> None:
    assert [show_any(x) for x in (1e-239, 0.0, 0.5, 12.34, 1421.4, 2e6)] == [
        "1.0e-239", ".000", ".500", "12.3", "1421", "2.0e+06"
    ]  # fmt: skip
    assert [show_seconds(x) for x in (4.0, 118.3, 471, 7853, None)] == [
        "4.0 s",
        "118 s",
        "7 min 51 s",
        "2 h 10 min",
        "–",
    ]


def test_rows_are_the_figures_of_the_results() -> None:
    results = make_results()
    results["models"]["unlearned"] = model(
        0.11, 0.22, 0.33, 0.44, 0.55, reattribution=0.66, health={"empty": 0.1, "repetitive": 0.7}
    )
    rows = run_rows(results)
    assert [r["model"] for r in rows] == ["original", "retrained", "unlearned"]
    assert [rows[2][f.key] for f in FIGURES] == [0.11, 0.22, 0.33, 0.44, 0.55, 0.66, 0.1, 0.0, 0.7]
    assert value(results, "broken_text") == 0.7  # the largest of empty .1, unfinished 0, repetitive .7


def test_missing_figures_are_dashes_and_told() -> None:
    results = make_results(
        missing={"unlearned.test.rouge_l": "no test set", "unlearned.forget.reattribution": "no test set"}
    )
    results["models"]["unlearned"]["test"] = None
    results["models"]["unlearned"]["forget"] |= {"attribution": math.nan, "reattribution": None}
    last = printed(run_table(results)).splitlines()[-1].split()
    assert last == ["unlearned", ".558", ".994", "–", "–", ".058", "–", ".000", ".000", ".000"]
    lines = summary_lines(results)
    assert "Not computed: unlearned.test.rouge_l, unlearned.forget.reattribution: no test set" in lines


def test_a_figure_of_some_samples_is_not_called_missing_and_all_models_share_a_line() -> None:
    """What is there tells, not how the reason is worded."""
    some = "10 of 100 samples: the probe does not apply to them"
    results = make_results(
        missing={
            **{f"{one}.probes.relearn_forget": some for one in ("original", "retrained", "unlearned")},
            **{f"{one}.forget.knowmem": "no room" for one in ("original", "retrained", "unlearned")},
            "unlearned.forget.depth": "2 of 3 samples: no layers",
        }
    )
    for one in results["models"].values():
        one["probes"] = {"relearn_forget": 0.2}
    gaps = [line for line in summary_lines(results) if "omputed" in line]
    assert gaps == [
        "Not computed: forget.knowmem: no room",
        "Not computed: unlearned.forget.depth: 2 of 3 samples: no layers",
        f"Computed without some of the samples: probes.relearn_forget: {some}",
    ]


def test_table_fits_a_terminal() -> None:
    assert max(map(len, printed(run_table(make_results()), 80).splitlines())) <= 80
    assert "…" not in printed(run_table(make_results()), 80)


def test_summary_is_in_plain_words() -> None:
    lines = summary_lines(make_results())
    assert lines[0] == "Tug-of-War .971 (without test .980), retrain similarity .955; 1 is best."
    without_test = summary_lines(make_results(tug_of_war=None))
    assert without_test[0] == "Tug-of-War without test .980, retrain similarity .955; 1 is best."
    assert lines[1].startswith("Forget quality p = .573: no difference")
    assert lines[2] == "Unlearning took 4.0 s, .22 of the 18.0 s of retraining."
    assert lines[3] == "40 updates, stopped early: held-out attribution of the rollouts is 0.046."


def test_no_retrained_model() -> None:
    results = make_results(tug_of_war=None, retrain_similarity=None)
    del results["models"]["retrained"]
    results["seconds"]["retrained"] = None
    assert [r["model"] for r in run_rows(results)] == ["original", "unlearned"]
    lines = summary_lines(results)
    assert lines[0].startswith("There is no retrained model")
    assert lines[1] == "Unlearning took 4.0 s."


def test_reasons_with_brackets_survive_printing() -> None:
    lines = summary_lines(make_results(missing={"x": "see [/bold] and [red]"}))
    assert "see [/bold] and [red]" in printed(lines[-1])


def test_a_checkpoint_from_elsewhere() -> None:
    """Nothing of its making is known, and seconds may be NaN."""
    results = make_results(
        outcome={"given": "/m"}, unlearn_config=None, seconds={"unlearn": math.nan, "retrained": 18.0}
    )
    assert summary_lines(results)[2:] == ["The seconds of unlearning are not known."]
