"""Runs side by side: a console table, Markdown, CSV, LaTeX. The original and retrained models are rows too.

Cells are mean ± sample sd over seeds. The best of a column and all within one sd of it are bold; where close
to the retrained model is good, that is the smallest distance to it, not the smallest value.
"""

from collections.abc import Callable, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from dareu.report.aggregate import COLUMNS, Row, Run, aggregate, remarks
from dareu.report.figures import BROKEN, COMPARED, DAMAGE, DASH, WORST, Figure
from dareu.report.loading import load_runs
from dareu.report.stacked import Stacked
from dareu.report.templates import template

__all__ = ["aggregate", "comparison_table", "load_runs", "to_csv", "to_latex", "to_markdown"]

LEGEND = (
    "Bold: best, or within one sd of it. Best in ROUGE, attribution and broken text: "
    "closest to the retrained model."
)
# A terminal is narrow: it shows one column of broken text, and leaves some figures to the other formats.
WIDE = [f for f in COLUMNS if f is not WORST]
WIDE_ONLY = (
    "attribution", "attribution_heldout", "reattribution", "tug_of_war_without_test", "time_share",
    "peak_memory",
)  # fmt: skip
NARROW = [f for f in COLUMNS if f in DAMAGE or (f not in COMPARED and f.key not in (*BROKEN, *WIDE_ONLY))]
DIGITS = {"seconds": 1, "peak_memory": 0}  # figures that are no shares


def _cell(row: Row, figure: Figure, joint: str = " ± ") -> str:
    stat = row.stats[figure.key]
    if stat is None:
        return DASH
    if figure.key in DIGITS:
        digits = DIGITS[figure.key]
        sd = "" if stat.sd is None else f"{joint}{stat.sd:.{digits}f}"
        return f"{stat.mean:.{digits}f}{sd}"
    return stat.text(joint)


def _count(row: Row) -> str:
    if row.failures and not row.n:
        return "failed"
    return f"{row.n}" + (f" +{len(row.failures)} failed" if row.failures else "")


def _shown(rows: Sequence[Row], figures: Sequence[Figure]) -> list[Figure]:
    """Columns in which at least one row has a value."""
    return [f for f in figures if any(row.stats[f.key] for row in rows)]


def comparison_table(runs: Sequence[Run], sort: str = "retrain_similarity") -> Table:
    """A Rich table; warnings, failures and the legend stand in its caption."""
    rows = aggregate(runs, sort)
    figures = _shown(rows, NARROW)
    caption = Text("\n".join([*remarks(runs, rows), LEGEND]))
    caption.highlight_regex(r"(?m)^Warning:.*$", "bold yellow")
    caption.highlight_regex(r"(?m)^Failed:.*$", "red")
    table = Stacked(
        caption=caption,
        caption_justify="left",
        caption_style="",
        box=None,
        padding=(0, 1),
        collapse_padding=True,
        pad_edge=False,
        header_style="dim",
    )
    table.add_column("method", min_width=12)
    for figure in figures:
        table.add_column(figure.short, justify="right")
    table.add_column("runs", justify="right")
    for i, row in enumerate(rows):
        cells = [Text(_cell(row, f, "\n±"), style="bold green" if f.key in row.best else "") for f in figures]
        ends = i + 1 < len(rows) and row.model != "unlearned" and rows[i + 1].model == "unlearned"
        # Six letters would fold a method of fourteen in a terminal of eighty columns; the caption says what failed.
        count = _count(row).replace(" ", "\n", 1) if row.n else "none"
        table.add_row(Text(row.label), *cells, Text(count), end_section=ends)
    return table


def _text(
    name: str, runs: Sequence[Run], sort: str, best: Callable[[str], str], escape: Callable[[str], str]
) -> str:
    """The template `name` with a wide table; `best` marks a cell, `escape` makes text safe."""
    rows = aggregate(runs, sort)
    figures = _shown(rows, WIDE)
    lines = []
    for row in rows:
        cells = [(escape(_cell(row, f)), f.key in row.best) for f in figures]
        shown = [best(cell) if is_best else cell for cell, is_best in cells]
        lines.append([escape(row.label), *shown, escape(_count(row))])
    return template(name).render(
        head=[escape(cell) for cell in ("method", *(f.title for f in figures), "runs")],
        rows=rows,
        lines=lines,
        remarks=[escape(remark) for remark in remarks(runs, rows)],
        legend=LEGEND,
    )


def to_markdown(runs: Sequence[Run], sort: str = "retrain_similarity") -> str:
    """A Markdown table, warnings above it as a quote."""
    return _text("comparison.md.j2", runs, sort, "**{}**".format, lambda text: text.replace("|", "\\|"))


def to_csv(runs: Sequence[Run], sort: str = "retrain_similarity") -> str:
    """CSV, full precision: `<figure>_mean`, `<figure>_sd`, `<figure>_best`; warnings in `remarks`."""
    import pandas as pd

    rows, lines = aggregate(runs, sort), []
    notes = [" ".join(r for r in remarks(runs, rows) if r.startswith("Warning"))]
    for row in rows:
        line: dict[str, Any] = {
            "label": row.label,
            "model": row.model,
            "n": row.n,
            "failed": len(row.failures),
        }
        line |= {"seeds": " ".join(map(str, row.seeds)), "data_key": " ".join(row.data_keys)}
        for key in (f.key for f in WIDE):
            stat = row.stats[key]
            known = (stat.mean, stat.sd, int(key in row.best)) if stat else (None, None, None)
            line |= {f"{key}_{part}": x for part, x in zip(("mean", "sd", "best"), known, strict=True)}
        lines.append(line | {"remarks": " ".join(filter(None, [*notes, *dict.fromkeys(row.failures)]))})
    return str(pd.DataFrame(lines, dtype=object).to_csv(index=False, lineterminator="\n"))


_TEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"} | {
    c: f"\\{c}" for c in "&%$#_{}"
}


def _tex(text: str) -> str:
    return "".join(_TEX.get(c, c) for c in text).replace(DASH, "--").replace("±", r"$\pm$")


def to_latex(runs: Sequence[Run], sort: str = "retrain_similarity") -> str:
    """A `tabular` for the booktabs package; warnings are lines of the table, so that none is lost."""
    return _text("comparison.tex.j2", runs, sort, r"\textbf{{{}}}".format, _tex)
