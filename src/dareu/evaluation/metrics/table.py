"""docs/metrics.md from the registry: `python -m dareu.evaluation.metrics.table > docs/metrics.md`."""

from __future__ import annotations

from dareu.evaluation.metrics.base import ANY, SUITES, Metric
from dareu.evaluation.metrics.registry import METRICS

INTRO = """# Metrics

Generated from the registry by `python -m dareu.evaluation.metrics.table > docs/metrics.md`; a test holds them equal.
To add one, see "A metric" in `CONTRIBUTING.md`.

`evaluation=fast|tofu|muse|privacy|robustness|full` chooses a suite (`dareu configs`): every suite has the metrics of
`fast`, and `full` has all. What cannot be computed is null in `results.json`, with the reason under `missing`.

- Figures of a model stand at `models.<model>.<place>`, where `<set>` is `forget`, `retain` or `test`; beside them,
  under `models.<model>.intervals.<place>`, a 95 % interval over samples (bootstrap) and the number of samples.
- "As retrained": the closer to the model that was retrained without the forgotten data, the better.
- **Knowledge left**, `knowledge_left.<metric>`: k = (unlearned − retrained) / (original − retrained) on the forget set.
  1: as the original, 0: as the retrained model, below 0: further away than that. A metric whose interval of original −
  retrained covers 0 cannot tell and is named as such; of the others the largest |k| is the headline,
  `knowledge_left_worst`. Metrics with a k are marked ✓.
- **Damage**, `damage.<set>.value`: the share of samples that the retrained model answers word for word and the
  unlearned one does not.
- `definitions` in `results.json` says which published definition a figure follows. `evaluation.truth_ratio` chooses
  the mean over wrong answers: `geometric` (TOFU's released code), `arithmetic` (TOFU's paper), `open-unlearning`.
- ROUGE-L is that of `rouge-score` with its stemmer. It reads Latin letters alone: where a reference has a letter of
  another script, both texts are cut into Unicode words.
- `dareu rescore LOG` computes from per-sample records, ours or those of open-unlearning and TOFU, without a model.
"""


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
    parts = [INTRO]
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
