"""Rounds in the report: the table, the lines, the drawings and the page, from figures that are made up."""

from __future__ import annotations

import copy
import io
from pathlib import Path
from typing import Any

import pytest
from report_fixture import make_results
from rich.console import Console
from test_report_html import Page, centre, page

from dareu.report import drawing as svg
from dareu.report.run_tables import cost_line, outcome_line
from dareu.report.sequential import round_line, round_rows, rounds_page, rounds_table

NAMES = (["Ada"], ["Bo", "Cy"], ["<b>Di</b>"])


def part(rouge: float) -> dict[str, Any]:
    return {"n": 4, "rouge_l": rouge, "probability": 0.5, "attribution": 0.1, "attribution_heldout": 0.1}


def with_rounds(**changes: Any) -> dict[str, Any]:
    """Three rounds: the first round's owners come back, .40 after it, then .55 and .75."""
    results = make_results(**changes)
    by_round = ([0.40], [0.55, 0.45], [0.75, 0.50, 0.46])
    entries = []
    for i, rouges in enumerate(by_round):
        models = copy.deepcopy(results["models"])
        for name, one in models.items():
            values = (
                rouges if name == "unlearned" else [{"original": 1.0, "retrained": 0.5}[name]] * len(rouges)
            )
            earlier = values[:-1]
            one["forget"]["rouge_l"] = sum(values) / len(values)
            one["forget_by_round"] = [part(v) for v in values]
            one["forget_this_round"] = part(values[-1])
            one["forget_earlier"] = part(sum(earlier) / len(earlier)) if earlier else None
        entries.append(
            {
                "round": i + 1,
                "owners": NAMES[i],
                "models": models,
                "tug_of_war": (0.9, 0.8, 0.7)[i],
                "retrain_similarity": 0.6,
                "seconds": {"unlearn": 2.0, "retrained": 18.0},
            }
        )
    return results | {"rounds": entries}


def test_rows_hold_the_figures_of_each_round() -> None:
    first, second, third = round_rows(with_rounds())
    assert (first["round"], first["owners"], first["earlier"]) == (1, ["Ada"], None)
    assert (second["so_far"], second["this_round"], second["earlier"]) == (0.5, 0.45, 0.55)
    assert third["so_far"] == pytest.approx((0.75 + 0.50 + 0.46) / 3)
    assert third["earlier"] == pytest.approx(0.625) and third["so_far_retrained"] == pytest.approx(0.5)
    assert (third["retain"], third["tug_of_war"], third["seconds"]) == (0.994, 0.7, 2.0)
    assert round_rows(make_results()) == [] and rounds_page(make_results()) is None


def test_a_line_says_what_a_round_came_to() -> None:
    first, second, _ = with_rounds()["rounds"]
    assert round_line(first) == (
        "ROUGE-L on everything forgotten so far .400 (retrained .500); retain .994; Tug-of-War .900."
    )
    del second["models"]["retrained"], second["models"]["original"]
    assert round_line(second | {"tug_of_war": None}) == (
        "ROUGE-L on everything forgotten so far .500; this round's owners .450, earlier ones .550; retain .994."
    )


def test_the_console_table_fits_a_terminal() -> None:
    console = Console(width=80, file=io.StringIO())
    table = rounds_table(with_rounds())
    assert table is not None and rounds_table(make_results()) is None
    console.print(table)
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert [line.split() for line in lines[-3:]] == [
        ["1", "Ada", ".400", ".500", ".400", "–", ".994", ".900", ".600"],
        ["2", "Bo,", "Cy", ".500", ".500", ".450", ".550", ".994", ".800", ".600"],
        ["3", "<b>Di</b>", ".570", ".500", ".460", ".625", ".994", ".700", ".600"],
    ]
    assert "…" not in "".join(lines)


def test_cost_is_of_all_rounds_together() -> None:
    seconds = {"unlearn": 6.0, "retrained": 18.0}
    assert cost_line(with_rounds(seconds=seconds)) == (
        "Unlearning took 6.0 s in 3 rounds together, .33 of the 18.0 s of retraining once."
    )
    assert cost_line(make_results(seconds=seconds)) == (
        "Unlearning took 6.0 s, .33 of the 18.0 s of retraining."
    )


def test_how_training_ended_is_said_of_the_last_round() -> None:
    assert outcome_line(with_rounds(outcome={"steps": 5})) == "5 updates in the last round, run to the end."
    assert outcome_line(make_results(outcome={"steps": 5})) == "5 updates, run to the end."


def test_a_drawing_of_rounds_puts_each_value_at_its_round() -> None:
    values = {"unlearned": [0.25, None, 0.75, 1.0], "retrained": [0.5, 0.5, 0.5, 0.5]}
    drawing = Page(str(svg.rounds(values)))
    signs = [(str(a["class"]), centre(a)) for a in drawing.having("mark")]
    marks, aim = ([at for of, at in signs if name in of] for name in ("unlearned", "retrained"))
    assert len(marks) == 3 and len(aim) == 4
    assert marks[1][0] == pytest.approx(aim[2][0]) and marks[0][0] == pytest.approx(aim[0][0])
    step = aim[1][0] - aim[0][0]
    assert [x - aim[0][0] for x, _ in aim] == pytest.approx([0, step, 2 * step, 3 * step], abs=0.02)
    height = (marks[0][1] - marks[2][1]) / 0.75  # of the whole scale, 0 to 1
    assert (marks[0][1] - aim[0][1]) / height == pytest.approx(0.25, abs=1e-3)
    assert svg.rounds({"unlearned": [0.5]})


def test_the_page_shows_rounds_and_what_comes_back(tmp_path: Path) -> None:
    whole = page(tmp_path, with_rounds())
    text = " ".join(whole.text.split())
    assert "Round by round" in text and "3 requests, one after another" in text
    assert text.count("Does it come back?") == 1
    for title in ("Forgotten so far", "This round's owners", "Forgotten earlier", "Retain", "Tug-of-War"):
        assert title in text
    # The first round's owners after rounds 1, 2 and 3, and beside the retrained model.
    assert "1: Ada.400.550.750.500" in whole.text.replace("\n", "").replace(" .", ".")
    assert "<b>Di</b>" in whole.text  # escaped
    assert not [a for t, a in whole.found if {"src", "href"} & set(a)]


def test_a_page_without_rounds_has_no_such_section(tmp_path: Path) -> None:
    whole = page(tmp_path)
    assert "Round by round" not in whole.text and "rounds" not in [a.get("id") for _, a in whole.found]


def test_rounds_without_retrained_models_have_no_empty_columns(tmp_path: Path) -> None:
    results = with_rounds()
    for entry in results["rounds"]:
        del entry["models"]["retrained"]
        entry |= {"tug_of_war": None, "retrain_similarity": None}
    shown = rounds_page(results)
    assert shown is not None and "retrained" not in str(shown["columns"])
    assert [p["title"] for p in shown["panels"]] == [
        "Forgotten so far", "This round's owners", "Forgotten earlier", "Retain", "Test"
    ]  # fmt: skip
    assert shown["retrained"] == [] and "Round by round" in page(tmp_path, results).text
