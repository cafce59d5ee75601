"""The page of a run, parsed as a browser would."""

from __future__ import annotations

import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from report_fixture import NASTY, left, lost, make_results, sample_rows, write_run

from dareu.errors import RunError
from dareu.evaluation.metrics.intervals import difference
from dareu.report import drawing as svg
from dareu.report.curves import cumulative, curves, distributions
from dareu.report.knowledge import place
from dareu.report.page import write_report
from dareu.report.run_tables import summary_lines
from dareu.report.samples import sample_groups, spread, underlined
from dareu.report.verdict import verdict
from dareu.runs.files import write_jsonl

VOID = {"meta", "input", "br", "link", "img"}


class Page(HTMLParser):
    """Every element's attributes, the text outside style and script, and whether tags close in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text, self.stack = "", []  # type: tuple[str, list[str]]
        self.feed(text)
        assert not self.stack, f"left open: {self.stack}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in VOID:
            self.stack.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.stack and self.stack.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data: str) -> None:
        if self.stack and self.stack[-1] not in ("style", "script"):
            self.text += data

    def having(self, name: str) -> list[dict[str, str | None]]:
        return [a for _, a in self.found if name in str(a.get("class", "")).split()]


def page(folder: Path, results: dict[str, Any] | None = None) -> Page:
    return Page(write_report(write_run(folder / "run", results)).read_text(encoding="utf-8"))


def test_page_loads_nothing(tmp_path: Path) -> None:
    whole = page(tmp_path)
    assert not [(t, a) for t, a in whole.found if {"src", "href", "xlink:href"} & set(a)]
    assert not {"link", "iframe", "object", "img"} & {t for t, _ in whole.found}
    style = (tmp_path / "run" / "report.html").read_text().split("<style>")[1].split("</style>")[0]
    assert "@import" not in style and "url(" not in style
    assert sorted(p.name for p in (tmp_path / "run").iterdir() if p.name.startswith("report")) == [
        "report.html"
    ]


def test_all_samples_are_there_and_escaped(tmp_path: Path) -> None:
    whole = page(tmp_path)
    text = " ".join(whole.text.split())
    for which in ("original", "retrained", "unlearned"):
        for row in sample_rows(which):
            for key in ("prompt", "reference", "response"):
                assert " ".join(row[key].split()) in text
    assert len(whole.having("sample")) == 18 and len(whole.having("answer")) == 54
    raw = (tmp_path / "run" / "report.html").read_text()
    assert NASTY in whole.text and NASTY not in raw and "<script>alert" not in raw
    assert len([1 for t, _ in whole.found if t == "script"]) == 1
    assert len(whole.having("flag")) == 3  # the nasty answer is unfinished in each model
    assert (
        text.index("Forget: these should go")
        < text.index("Retain: these should stay")
        < text.index("Test: owned")
    )


def test_what_acts_on_a_terminal_is_spelt_out(tmp_path: Path) -> None:
    """A model's answers and an owner's name: codes of terminals, and marks that turn the order of letters."""
    folder = write_run(tmp_path / "run")
    for name in ("original", "unlearned"):
        rows = sample_rows(name)
        rows[0] |= {"response": "a\x1b[31mb\x9bc\u202ed", "owner": "Bo\x07 Marsh"}
        write_jsonl(folder / "samples" / f"{name}.jsonl", rows)
    raw = write_report(folder).read_text(encoding="utf-8")
    assert not set(raw) & set("\x1b\x9b\u202e\x07") and "\\u001b" in raw and "\\u202e" in raw


def test_owner_names_and_reasons_are_escaped(tmp_path: Path) -> None:
    results = make_results(method="<b>m</b>", missing={"<i>": "<img src=x>"}, versions={"<u>": "<u>"})
    results["data"]["forget_owners"] = ["<em>"]
    whole = page(tmp_path, results)
    assert not {"img", "em"} & {t for t, _ in whole.found}
    assert "<b>m</b>" in whole.text and "<img src=x>" in whole.text


def test_no_retrained_model(tmp_path: Path) -> None:
    results = make_results(tug_of_war=None, retrain_similarity=None, forget_quality=None)
    del results["models"]["retrained"]
    whole = page(tmp_path, results)
    assert "There is no retrained model in this run" in whole.text and "is not known" in whole.text
    assert not whole.having("ring") and not whole.having("left")
    assert not [a for t, a in whole.found if t == "tr" and a.get("class") == "retrained"]
    assert "An estimate" not in whole.text
    results["never_saw"] = {"probability": {"value": 0.125, "low": 0.1, "high": 0.15, "n": 100}}
    results["models"]["unlearned"]["forget"]["probability"] = 0.25
    text = page(tmp_path / "estimated", results).text
    assert "An estimate, from the original model on samples that no model saw: probability .125" in text
    assert "(unlearned .250)" in text


def test_without_a_test_set_the_tile_shows_the_score_of_the_other_two(tmp_path: Path) -> None:
    assert "Tug-of-War.9711 is best" in page(tmp_path / "with", make_results()).text
    whole = page(tmp_path / "without", make_results(tug_of_war=None))
    assert "Tug-of-War.980without test; 1 is best" in whole.text


def test_bare_results_make_a_page(tmp_path: Path) -> None:
    """NaN and null are dashes; nothing but results.json is needed."""
    results = make_results(
        seconds={"unlearn": math.nan}, peak_memory_mb=None, versions=None, missing=None, outcome=None
    )
    results["models"]["unlearned"]["forget"] = {"rouge_l": math.nan, "attribution": None}
    (tmp_path / "results.json").write_text(json.dumps(results))
    whole = Page(write_report(tmp_path).read_text())
    assert "nan" not in whole.text.lower() and "None" not in whole.text
    assert "too few figures" in whole.text
    assert "unlearned–.994.979–––.000.000.000" in whole.text  # the row of the table
    with pytest.raises(RunError):
        write_report(tmp_path / "absent")


def test_page_is_replaced(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    (folder / "report.html").write_text("old")
    assert write_report(folder).read_text().startswith("<!doctype html>")


def test_what_methods_log_has_a_title() -> None:
    """What the methods logged in a run each; a name of another package is its own title."""
    logged = (
        "loss forget_loss retain_loss scrambled_loss retain_kl kl_retain dual grad_norm learning_rate step_norm "
        "model_decrease curvature clip_fraction empty_share entropy kl_loss kl_old kl_original kl_anchor "
        "response_length reward reward_forget reward_retain silent_groups stop_repetitive stop_attribution "
        "stop_nobody unfinished_share distill explained_variance rollout_attribution saturated_share value_loss"
    )
    found = curves([dict.fromkeys(logged.split(), 1.0)])
    assert not [c["name"] for c in found if not c["known"]] and len(found) == 33


def test_only_logged_curves_are_drawn(tmp_path: Path) -> None:
    found = curves(
        [
            {"step": 2, "loss": 1.0, "a/b": 3, "epoch": 1, "entropy": None},
            {"step": 4, "loss": math.nan, "own": 2},
        ]
    )
    assert [(c["name"], c["known"]) for c in found] == [("loss", True), ("own", False)]
    assert found[0]["points"] == '[[2.0, "1.000"]]'
    whole = page(tmp_path)
    assert len(whole.having("small")) == 8  # seven known, one of the user's own


def test_the_page_shows_losses_beside_the_originals(tmp_path: Path) -> None:
    whole = page(tmp_path, lost(0.24, 0.13, 0.02, 0.2))
    assert "Lost, test24%the original lacks 13%" in "".join(whole.text.split("\n")).replace("  ", "")
    told = whole.text.replace("\u00a0", " ")
    assert "24% (14% to 34%)" in told and "11% (2% to 20%)" in told
    assert "Was anything else lost?" not in page(tmp_path / "old", left(a=(0.0, -0.1, 0.1))).text


def test_the_page_draws_knowledge_left(tmp_path: Path) -> None:
    results = left(exact=(0.3, 0.1, 0.5), leak=(2.0, 1.5, 2.5))
    results["knowledge_left"]["min_k"] = {"value": None, "low": None, "high": None}
    whole = page(tmp_path, results)
    assert len(whole.having("dot")) == 2 + 2  # and the legend's, of one beyond the axis too
    assert len(whole.having("outside")) == 1 + 1  # 2.0 lies beyond the axis, as the legend says
    assert (len(whole.having("low")), len(whole.having("high"))) == (0, 1)  # 2.5 as well
    assert "goes on beyond the axis" in whole.text
    wide = page(tmp_path / "wide", left(exact=(0.1, -0.9, 1.5)))
    assert (len(wide.having("low")), len(wide.having("high"))) == (1, 1)
    assert "beyond the axis" not in page(tmp_path / "in", left(exact=(0.1, -0.5, 1.25))).text
    assert ".30 (.10 to .50)" in whole.text and "Min k" in whole.text


def test_positions_of_knowledge_left() -> None:
    """The axis runs from −.5 to 1.25: 0 lies at .5 / 1.75 of it, 1 at 1.5 / 1.75."""
    assert [place(k) for k in (-0.5, 0.0, 1.0, 1.25, 9.0, -9.0)] == [0.0, 28.57, 85.71, 100.0, 100.0, 0.0]


def test_interval_of_a_difference_of_shares() -> None:
    """Newcombe 1998, table II, 56/70 against 48/80: .0524 to .3339; and 10/10 against 0/10: .6075 to 1."""
    assert difference(56 / 70, 70, 48 / 80, 80) == pytest.approx((0.0524, 0.3339), abs=1e-4)
    assert difference(1.0, 10, 0.0, 10) == pytest.approx((0.6075, 1.0), abs=1e-4)
    low, high = difference(0.3, 40, 0.1, 60)
    assert difference(0.1, 60, 0.3, 40) == pytest.approx((-high, -low))


def test_leak_and_relearning_are_drawn_for_each_model(tmp_path: Path) -> None:
    """From the places where an evaluation leaves them, at their values; x from the first to the last step."""
    results = make_results()
    heights = {"original": 1.0, "retrained": 0.25, "unlearned": 0.5}
    for name, height in heights.items():
        results["models"][name]["leak"] = {"exact": {"1": 0.0, "8": height, "2": height / 2}}
        results["models"][name]["probes"] = {
            "curves": {"relearn_forget.probability": [[0.0, 0.0], [50.0, height]]}
        }
    run = write_run(tmp_path / "run", results)
    assert [d["title"] for d in distributions(run, results)] == [
        "Probability of the forgotten answer",
        "Sampled leak, exact",
        "Relearning on a tenth of the forget set",
    ]
    told = page(tmp_path / "page", results).text
    assert "Sampled leak, exact" in told and "Relearning on a tenth of the forget set" in told
    leak = next(d for d in distributions(run, results) if d["title"] == "Sampled leak, exact")
    courses = {
        str(a["class"]).split()[-1]: [tuple(map(float, p.split(","))) for p in str(a["points"]).split()]
        for tag, a in Page(str(leak["drawing"])).found
        if tag == "polyline"
    }
    (x1, bottom), (x2, _), (x8, top) = courses["original"]
    assert (x2 - x1) / (x8 - x1) == pytest.approx(1 / 7, abs=1e-2)
    for name, height in heights.items():
        assert (bottom - courses[name][-1][1]) / (bottom - top) == pytest.approx(height, abs=1e-2)
    assert "Sampled leak" not in page(tmp_path / "without").text


def test_cumulative_distribution() -> None:
    assert cumulative([0.2, 0.6]) == [(0, 0), (0.2, 0), (0.2, 0.5), (0.6, 0.5), (0.6, 1), (1, 1)]
    assert cumulative([]) == []


# --- drawings and pieces ---------------------------------------------------------------------------------


def centre(mark: dict[str, str | None]) -> tuple[float, float]:
    """Of a circle or a rectangle."""
    if "cx" in mark:
        return float(str(mark["cx"])), float(str(mark["cy"]))
    x, y, w, h = (float(str(mark[name])) for name in ("x", "y", "width", "height"))
    return x + w / 2, y + h / 2


def centres(drawing: str, name: str) -> tuple[float, float]:
    found = next(a for a in Page(drawing).found if a[1].get("class") == f"mark {name}")[1]
    return centre(found)


def test_plane_has_one_scale() -> None:
    """A unit of forget ROUGE is as long as one of retain ROUGE, so rings are round; up and right are more."""
    drawing = str(svg.plane({"retrained": (0.5, 0.5), "unlearned": (0.7, 0.5), "original": (0.5, 0.8)}))
    (rx, ry), (ux, uy), (ox, oy) = (centres(drawing, m) for m in ("retrained", "unlearned", "original"))
    assert uy == pytest.approx(ry, abs=0.02) and ox == pytest.approx(rx, abs=0.02)
    assert (ux - rx) / 0.2 == pytest.approx((ry - oy) / 0.3, rel=1e-3) and ux > rx and oy < ry


def test_strip_marks_sit_at_their_values() -> None:
    drawing = str(svg.strips([("a", {"original": 1.0, "retrained": 0.0, "unlearned": 0.25})]))
    x0, x, x1 = (centres(drawing, m)[0] for m in ("retrained", "unlearned", "original"))
    assert (x - x0) / (x1 - x0) == pytest.approx(0.25, abs=1e-3)
    assert "not computed" in svg.strips([("a", {"original": None})])


def test_curve_spans_its_box() -> None:
    line = next(a for t, a in Page(str(svg.curve([1, 2, 3], [0.0, 1.0, 0.5]))).found if t == "polyline")[
        "points"
    ]
    points = [tuple(map(float, p.split(","))) for p in str(line).split()]
    assert [x for x, _ in points] == [0, 100, 200] and points[1][1] < points[2][1] < points[0][1]
    assert svg.curve([5], [0.3]) and svg.curve([1, 2], [1.0, 1.0])  # one step, no change


def test_shared_words_are_underlined() -> None:
    assert underlined("Ada was born <in> Lima.", "Ada was seen in Cusco.") == (
        "<u>Ada</u> <u>was</u> born &lt;<u>in</u>&gt; Lima."
    )


def test_words_of_the_forgotten_answer_are_marked() -> None:
    shown = underlined("Ada was born in Lima.", "Ada was seen in Lima.", "Where was Ada born?")
    assert "<mark><u>Lima</u></mark>" in shown and "<mark><u>Ada" not in shown and "<mark><u>in" not in shown


def test_answers_with_a_flag_come_first(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    path = folder / "samples" / "unlearned.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[2] |= {"broken": ["Marbrarian"]}
    rows[3] |= {"response": rows[3]["reference"]}
    path.write_text("\n".join(map(json.dumps, rows)))
    forget = sample_groups(folder)[0]
    flags = [next(a.flags for a in s.answers if a.model == "unlearned") for s in forget.samples]
    assert forget.flagged == 3 and all(flags[:3]) and not any(flags[3:])
    assert ("not a word: Marbrarian",) in flags[:3] and ("the forgotten answer",) in flags[:3]


def test_spread_is_even() -> None:
    assert spread(range(10), 4) == [0, 2, 5, 7] and spread([1, 2], 4) == [1, 2]


def test_no_line_ends_between_a_number_and_its_unit(tmp_path: Path) -> None:
    results = left(membership_min_k_40=(0.6, 0.4, 0.8))
    whole = page(tmp_path, results)
    assert "the 40% least likely tokens (min-k); 0 is best" in whole.text  # the tile
    assert "by membership, the 40% least likely tokens" in verdict(results).headline
    assert "the 40% least likely tokens" in " ".join(summary_lines(results))
    points = "".join(p.text for p in verdict(results).points)
    assert re.search(r"n = \d", points)
    told = whole.text[whole.text.index("Worst metric") :].partition("Does it still know?")[0]
    assert re.search("n\u00a0=\u00a0[0-9]", told) and not re.search(r"\bn = |\d %", told), told
