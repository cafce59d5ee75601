"""Tables in a narrow terminal: no cell is cut, and each part names its rows."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from report_fixture import make_results, write_run
from rich.console import Console
from rich.table import Table
from test_report_rounds import with_rounds

from dareu.report.comparison import comparison_table, load_runs
from dareu.report.rescore_tables import print_rescored
from dareu.report.run_tables import run_table
from dareu.report.sequential import rounds_table
from dareu.report.stacked import Stacked


def printed(item: object, width: int) -> str:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    print_rescored(console, item) if isinstance(item, dict) else console.print(item)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_columns_that_do_not_fit_stand_below_with_the_first_one() -> None:
    """Widths 8 and 3 × 6, a space between: 29 side by side; 8 + 2 × 7 are 22; of ten letters the first folds to 8."""
    table = Stacked(
        title="Top", caption="Below", title_justify="left", box=None, padding=(0, 1), collapse_padding=True,
        pad_edge=False,
    )  # fmt: skip
    table.add_column("who", min_width=8)
    for name in "ABC":
        table.add_column(name)
    table.add_row("abcdefghij", "111111", "222222", "333333")
    whole, parts = (printed(table, width).splitlines() for width in (29, 28))
    assert [line.split() for line in whole[1:4]] == [
        ["who", "A", "B", "C"], ["abcdefgh", "111111", "222222", "333333"], ["ij"]
    ]  # fmt: skip
    assert [line.split() for line in parts] == [
        ["Top"], ["who", "A", "B"], ["abcdefghij", "111111", "222222"], [],
        ["who", "C"], ["abcdefghij", "333333"], ["Below"],
    ]  # fmt: skip


def test_a_table_without_columns_is_an_empty_line() -> None:
    assert printed(Stacked(), 40) == "\n" == printed(Table(), 40)


@pytest.mark.parametrize("width", [30, 40])
def test_no_figure_and_no_name_is_cut(width: int, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", make_results("dareu_warm"))
    tables = {
        "comparison": comparison_table(load_runs([run])),
        "run": run_table(make_results()),
        "rounds": rounds_table(with_rounds()),
        "rescored": make_results() | {"definitions": {}, "source": "a", "layout": "b", "missing": {}},
    }
    for name, table in tables.items():
        narrow, wide = printed(table, width), printed(table, 200)
        assert "…" not in narrow and max(map(len, narrow.splitlines())) <= width, name
        assert set(wide.split()) <= set(narrow.split()), name
    heads = [line for line in printed(tables["comparison"], width).splitlines() if line.startswith("method ")]
    assert len(heads) >= 2
