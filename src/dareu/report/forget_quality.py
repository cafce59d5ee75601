"""Forget quality of a run, read from its results: whether two sets of truth ratios are distributed alike."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dareu.report.figures import dig, number, show, show_any
from dareu.report.knowledge import knowledge_left

RATIOS = ("truth_ratio", "truth_ratio_log")  # metrics that read what the test compares
LEVEL = 0.05  # of p: below it the difference is called more than chance (TOFU, arXiv 2401.06121)


@dataclass(frozen=True)
class Quality:
    """Result of the Kolmogorov–Smirnov test; `p` is 0 where a float cannot hold it, `log_p` is its log10.

    `lowest`: the test can give no smaller p with so few samples, for the two sets do not overlap. `wide`: no metric of
    truth ratios has an interval of at most 1, so that no difference may be too few answers.
    """

    p: float | None
    log_p: float
    statistic: float | None
    lowest: bool
    wide: bool

    @property
    def differs(self) -> bool:
        """Whether chance alone explains the difference in fewer than one of twenty cases."""
        return self.log_p < math.log10(LEVEL)

    @property
    def chance(self) -> str:
        """ "p = 1.8e-06"; by its logarithm where it is too small for a float."""
        return f"p = {show_any(self.p)}" if self.p else f"log10 p = {show_any(self.log_p)}"

    @property
    def shown(self) -> str:
        """ "p = .573, log10 p = -.242, Kolmogorov–Smirnov statistic .175"."""
        p = [f"p = {show_any(self.p)}"] if self.p else []
        parts = [*p, f"log10 p = {show_any(self.log_p)}"]
        return ", ".join([*parts, f"Kolmogorov–Smirnov statistic {show(self.statistic)}"])


def quality_of(results: Mapping[str, Any]) -> Quality | None:
    """None where it was not computed."""
    statistic, p, log_p = (number(dig(results, "forget_quality", k)) for k in ("statistic", "p", "log10_p"))
    if log_p is None:
        return None
    wide = all(one.wide for one in knowledge_left(results) if one.metric in RATIOS)
    return Quality(p, log_p, statistic, dig(results, "forget_quality", "at_floor") is True, wide)
