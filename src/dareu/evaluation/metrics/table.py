"""docs/metrics.md from the registry: `python -m dareu.evaluation.metrics.table > docs/metrics.md`."""

from importlib.resources import files

from dareu.evaluation.metrics.base import ANY, SUITES, Metric
from dareu.evaluation.metrics.registry import METRICS


def place(metric: Metric) -> str:
    """Where the figure stands, for the table."""
    if metric.level == "pair":
        return f"`{metric.key}` (top level)"
    if metric.level == "model":
        return f"`{metric.key}`"
    if metric.section is None:
        return f"`<set>.{metric.key}`" if metric.sets == ANY else f"`{metric.sets[0]}.{metric.key}`"
    return f"`{metric.section}.{metric.key}`"


def page() -> str:
    """The whole page."""
    parts = [files("dareu.evaluation.metrics").joinpath("intro.md").read_text(encoding="utf-8")]
    for suite in SUITES:
        rows = [m for m in METRICS if m.suites[0] == suite]
        if not rows:
            continue
        parts.append(f"\n## {suite.capitalize()}\n\n")
        parts.append("| metric | place | what it is | range | good | k |\n|---|---|---|---|---|---|\n")
        for m in rows:
            cells = (m.title, place(m), m.note, m.range, m.better, "✓" if m.knowledge else "")
            parts.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n")
    return "".join(parts)


if __name__ == "__main__":
    print(page(), end="")
