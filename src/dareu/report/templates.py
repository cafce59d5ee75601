"""The templates of this folder, and how they write numbers."""

import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import jinja2

from dareu.errors import printable
from dareu.report.figures import show, show_any, show_seconds, show_share
from dareu.report.knowledge import place


def _units(x: float) -> str:
    """A length in a drawing, at most two digits behind the point."""
    return f"{x:.2f}".rstrip("0").rstrip(".")


def _joined(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


@cache
def template(name: str) -> jinja2.Template:
    """A template by its file's name; what acts on a terminal is spelt out, and HTML or SVG escapes every value."""
    marked = any(kind in name for kind in (".html", ".svg"))
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=marked,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=not marked,
        finalize=lambda value: printable(value) if type(value) is str else value,
    )
    environment.filters |= {
        "show": show,
        "show_any": show_any,
        "show_seconds": show_seconds,
        "show_share": show_share,
    }
    environment.filters |= {"units": _units, "joined": _joined, "plain": _plain, "place": place}
    environment.filters |= {"unbroken": _unbroken}
    return environment.get_template(name)


_PAIRS = re.compile(
    r"\b[np] = (?=[-\d.])|(?<=[\d%]) to (?=[-\d.])|(?<=log10) (?=p)|(?<=\d) (?=(?:%|s|min|h|MB|MiB|GiB)(?!\w))"
)


def _unbroken(text: str) -> str:
    """A sentence of the page: no line ends between a number and its unit, or inside "n = 40", "p = .5", ".2 to .4"."""
    return _PAIRS.sub(lambda found: found[0].replace(" ", "\u00a0"), text)


def _plain(text: Any) -> str:
    """Text of a user inside Markdown: signs of markup and control characters cannot act."""
    shown = "".join(c if c.isprintable() else " " for c in str(text))
    return "".join(f"\\{c}" if c in "\\`*_[]<>#|" else c for c in shown)
