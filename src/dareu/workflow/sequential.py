"""Requests one after another: each round starts from the model that the last one left.

In round k the method sees this round's owners as forget set and everybody not yet forgotten as retain set; what it
calls the original, which it starts from and is held to, is the unlearned model of round k − 1. The first original still
holds what was asked to be deleted, so a later round must not need it. The judge sees everything forgotten so far beside
the first original and a model retrained without all of it. The attributor is fitted once, on the first original's data.
"""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path
from typing import Any

from rich.markup import escape

from dareu.data.corpus import Split
from dareu.data.sequential import RoundSplit
from dareu.evaluation.by_owner import forget_figures
from dareu.evaluation.comparison import compare
from dareu.evaluation.metrics.registry import pair_metrics
from dareu.report.sequential import round_line
from dareu.workflow.evaluate import Judged, judge_models
from dareu.workflow.stages import Artifact, Bench
from dareu.workflow.unlearn import unlearn, unlearn_key

LAST_ALONE = "only the last round has a retrained model beside it (rounds.compare=last)"


class RoundBench(Bench):
    """The first bench with another split and, for a method after the first round, another start."""

    def __init__(
        self, first: Bench, split: Split, forgotten: tuple[str, ...], before: Round | None = None
    ) -> None:
        # Data, store and settings are shared; what depends on the split or the start is worked out anew.
        vars(self).update(
            {k: v for k, v in vars(first).items() if not isinstance(getattr(Bench, k, None), cached_property)}
        )
        self.split, self.forgotten, self.rounds = split, forgotten, ()
        self._first, self._before = first, before

    @cached_property
    def original_key(self) -> str:
        return self._before.key if self._before else self._first.original_key

    @cached_property
    def original(self) -> Artifact:
        """Where this round starts."""
        return self._before.unlearned if self._before else self._first.original

    @cached_property
    def attributor_key(self) -> str:
        return self._first.attributor_key

    @cached_property
    def attributor(self) -> Artifact:
        return self._first.attributor


class Round:
    """One request: its unlearned model and what the judge says of it, both made on demand."""

    def __init__(self, bench: Bench, number: int, split: RoundSplit, before: Round | None) -> None:
        config = bench.config.rounds
        assert config is not None
        self.number, self.last = number, number == len(bench.rounds)
        self.compared = self.last or config.compare == "every"
        gone = split.so_far.forget_owners
        self.asked = RoundBench(bench, split.asked, gone, before)
        self.so_far: Bench = bench if self.last else RoundBench(bench, split.so_far, gone)
        self.before = before
        self.logs: Path | None = None

    @cached_property
    def key(self) -> str:
        return unlearn_key(self.asked)

    @property
    def so_far_rounds(self) -> list[Round]:
        return [*(self.before.so_far_rounds if self.before else []), self]

    @property
    def owners(self) -> tuple[str, ...]:
        return self.asked.split.forget_owners

    @cached_property
    def unlearned(self) -> Artifact:
        return unlearn(self.asked, self.logs)

    @cached_property
    def judged(self) -> dict[str, Judged]:
        return judge_models(self.so_far, self.unlearned, self.compared)

    @cached_property
    def entry(self) -> dict[str, Any]:
        """What `results.json` says of this round; see docs/architecture.md."""
        summaries = {name: one.summary for name, one in self.judged.items()}
        comparison = compare(summaries)
        missing = comparison.pop("missing", {})
        if not self.compared:
            missing = dict.fromkeys(pair_metrics(), LAST_ALONE)
        retrained = self.so_far.retrained if "retrained" in summaries else None
        split = self.so_far.split
        return {
            "round": self.number,
            "owners": list(self.owners),
            "forgotten": list(split.forget_owners),
            "n_forget": len(split.forget),
            "n_retain": len(split.retain),
            "models": {name: self._figures(one) for name, one in self.judged.items()},
            **comparison,
            "missing": missing,
            "seconds": {
                "unlearn": self.unlearned.seconds,
                "retrained": retrained.seconds if retrained else None,
                "evaluate": self.judged["unlearned"].seconds,
            },
            "outcome": self.unlearned.extra,
            "key": self.unlearned.key,
        }

    def _figures(self, judged: Judged) -> dict[str, Any]:
        """A model's summary, and its forget figures apart: this round's owners, earlier ones, and each round's."""
        lines = judged.samples.read_text(encoding="utf-8").splitlines()
        records = [json.loads(line) for line in lines]
        requests = [one.owners for one in self.so_far_rounds]
        earlier = {owner for names in requests[:-1] for owner in names}
        summary = {k: v for k, v in judged.summary.items() if k not in ("missing", "truth_ratios")}
        return summary | {
            "forget_this_round": forget_figures(records, self.owners),
            "forget_earlier": forget_figures(records, earlier) if earlier else None,
            "forget_by_round": [forget_figures(records, names) for names in requests],
        }


class Requests:
    """All that a run is asked to forget: one request, or rounds of them."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.rounds: list[Round] = []
        for number, split in enumerate(bench.rounds, start=1):
            self.rounds.append(Round(bench, number, split, self.rounds[-1] if self.rounds else None))

    @property
    def key(self) -> str:
        """Content key of the model that the run ends with; a round's key covers those before it."""
        return self.rounds[-1].key if self.rounds else unlearn_key(self.bench)

    def unlearn(self, logs: Path | None = None, judge: bool = False) -> Artifact:
        """The model that the run ends with; with `judge` each round's is evaluated before the next one begins."""
        if not self.rounds:
            return unlearn(self.bench, logs)
        _ = self.bench.original  # made, or told of, before the first round
        for one in self.rounds:
            self._announce(one)
            one.logs = logs
            _ = one.unlearned
            if judge:
                self.bench.talk.say(f"  {round_line(one.entry)}")
        return self.rounds[-1].unlearned

    def entries(self) -> list[dict[str, Any]]:
        """What `results.json` says of each round; rounds that have not been judged yet are judged."""
        found = []
        for one in self.rounds:
            if "judged" not in vars(one):
                self._announce(one)
            found.append(one.entry)
        return found

    def _announce(self, one: Round) -> None:
        names = escape(", ".join(one.owners))
        self.bench.talk.say(f"[bold]Round {one.number} of {len(self.rounds)}[/]: {names}")


def rounds_tree(bench: Bench) -> dict[str, Any]:
    """What rounds add to a run's content key; nothing without them."""
    config = bench.config.rounds
    if config is None:
        return {}
    return {"rounds": [one.asked.forget_owners for one in bench.rounds], "compare": config.compare}
