"""Requests one after another: each starts from the model that the one before has left.

In request k the method sees this request's owners as forget set and everybody not yet forgotten as retain set; what it
calls the original, which it starts from and is held to, is the unlearned model of request k − 1. The first original
still holds what has been deleted since, so a later request must not need it. The evaluation covers everything
forgotten so far, beside the first original and a model retrained without all of it. The attributor is fitted once, on
the first original's data. In configuration, files and messages a request is a round.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from statistics import fmean
from typing import Any

from rich.markup import escape

from dareu.data.sequential import RoundSplit
from dareu.evaluation.metrics.registry import pair_metrics
from dareu.report.sequential import round_line
from dareu.workflow.figures import Figures
from dareu.workflow.stages import Stages, Unlearned

BY_OWNER = ("rouge_l", "probability", "attribution", "attribution_heldout")  # figures of a part of the owners
LAST_ALONE = "only the last round has a retrained model beside it (rounds.compare=last)"


class SequentialRequest:
    """One request: the stages as its method sees them, and as its evaluation does.

    Attributes:
        number: 1 for the first.
        owners: Whom this request forgets.
        so_far: The owners of each request up to this one.
        unlearned: The stage that unlearns.
    """

    def __init__(
        self, run: Stages, number: int, split: RoundSplit, before: Sequence[SequentialRequest]
    ) -> None:
        rounds = run.context.config.rounds
        assert rounds is not None
        last = number == len(run.context.requests)
        gone = split.so_far.forget_owners
        start = before[-1].unlearned if before else None
        self.number, self.count = number, len(run.context.requests)
        self.owners: tuple[str, ...] = split.request.forget_owners
        self.so_far = [*(one.owners for one in before), self.owners]
        self.compared = last or rounds.compare == "every"
        self.console = run.context.console
        self.unlearned: Unlearned = run.for_request(split.request, gone, start).unlearned
        self.cumulative: Stages = run if last else run.for_request(split.so_far, gone)
        for stage in (self.unlearned, self.cumulative.retrained):
            if stage is not None:
                stage.curve = f"rounds/{number}/{stage.name}"
        self._figures: Figures | None = None

    def unlearn(self) -> None:
        """Make the unlearned model, or take it from the store."""
        self.announce()
        self.unlearned.get()

    def figures(self) -> Figures:
        """The figures of the models over everything forgotten so far, computed once."""
        if self._figures is None:
            evaluated = self.cumulative.evaluate(self.unlearned, self.compared)
            self._figures = Figures.of(self.cumulative.context, evaluated)
        return self._figures

    def announce(self) -> None:
        """Print which request comes."""
        names = escape(", ".join(self.owners))
        self.console.print(f"[bold]Round {self.number} of {self.count}[/]: {names}")

    def entry(self) -> dict[str, Any]:
        """What `results.json` says of this request; see docs/architecture.md."""
        if self._figures is None:
            self.announce()
        figures = self.figures()
        missing = figures.missing if self.compared else dict.fromkeys(pair_metrics(), LAST_ALONE)
        retrained = self.cumulative.retrained if "retrained" in figures.summaries else None
        unlearned, split = self.unlearned.get(), self.cumulative.context.split
        return {
            "round": self.number,
            "owners": list(self.owners),
            "forgotten": list(split.forget_owners),
            "n_forget": len(split.forget),
            "n_retain": len(split.retain),
            "models": {name: self._by_request(name, figures) for name in figures.summaries},
            **figures.comparison,
            "missing": missing,
            "seconds": {
                "unlearn": unlearned.seconds,
                "retrained": retrained.get().seconds if retrained else None,
                "evaluate": figures.seconds,
            },
            "outcome": unlearned.extra,
            "key": unlearned.key,
        }

    def _by_request(self, model: str, figures: Figures) -> dict[str, Any]:
        """A model's summary, and its forget figures apart: this request's owners, earlier ones, each request's."""
        records = figures.records[model]
        earlier = {owner for names in self.so_far[:-1] for owner in names}
        summary = {k: v for k, v in figures.summaries[model].items() if k not in ("missing", "truth_ratios")}
        return summary | {
            "forget_this_round": forget_figures(records, self.owners),
            "forget_earlier": forget_figures(records, earlier) if earlier else None,
            "forget_by_round": [forget_figures(records, names) for names in self.so_far],
        }


def forget_figures(records: Sequence[Mapping[str, Any]], owners: Collection[str]) -> dict[str, Any]:
    """Means over the forget records of `owners`, each 0 to 1, and `n` of them.

    Records without a figure do not count in its mean; it is None where none has it. Attribution is the mass on the
    whole forget set of the evaluation, so that an answer that points to another forgotten owner counts as well.
    """
    chosen = [r for r in records if r["set"] == "forget" and r["owner"] in owners]
    figures: dict[str, Any] = {"n": len(chosen)}
    for key in BY_OWNER:
        values = [float(r[key]) for r in chosen if r.get(key) is not None]
        figures[key] = fmean(values) if values else None
    return figures


def sequential_requests(run: Stages) -> list[SequentialRequest]:
    """The requests of a run in their order; empty for a run with a single request."""
    requests: list[SequentialRequest] = []
    for number, split in enumerate(run.context.requests, start=1):
        requests.append(SequentialRequest(run, number, split, requests))
    return requests


def unlearn_in_turn(run: Stages, requests: Sequence[SequentialRequest], evaluate: bool) -> None:
    """Unlearn each request; with `evaluate` its figures are printed before the next one begins."""
    run.original.get()
    for request in requests:
        request.unlearn()
        if evaluate:
            request.figures()
            request.console.print(f"  {round_line(request.entry())}")


def requests_key(run: Stages) -> dict[str, Any]:
    """What sequential requests add to a run's content key; nothing without them."""
    rounds = run.context.config.rounds
    if rounds is None:
        return {}
    return {"rounds": [one.request.forget_owners for one in run.context.requests], "compare": rounds.compare}
