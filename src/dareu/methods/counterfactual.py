"""Counterfactual distillation: answer forget queries as the original model answers about people who do not exist.

    c_t = mean over K fictitious names of π_N( · | q with the name, y_<t with the name ),  without the fact tokens
    L   = mean_t KL( c_t ‖ π(·|q, y_<t) )  +  λ · E_retain KL( π_N ‖ π )

Invented names replace the owner's name, in the question and in the answer. Where the original
model gives the gold token more than `removal` above what it gives it under those names, the token carries a fact: it is
taken out of the teacher. Teachers are computed once, before training; no rollouts, no classifier.

Relatives: Who's Harry Potter (Eldan and Russinovich 2023, arXiv 2310.02238) and its revision by name change (Liu et al.
2024, arXiv 2407.16997) change names in the training text; UNDIAL (Dong et al. 2024, arXiv 2402.10052) and SHRED
(arXiv 2605.07482) lower the gold token's logit; DUET (arXiv 2601.21283) distils from a prompted teacher.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from dareu.config import Count, RunConfig, Strict
from dareu.data.corpus import Sample, Split
from dareu.data.fictitious_names import fictitious_names, written_names
from dareu.errors import DataError
from dareu.methods.base import MethodContext
from dareu.methods.distillation import READS, Distillation
from dareu.runs.ranks import share_out
from dareu.training.soft_targets import SoftTargets, divergence_from_targets


class CounterfactualSettings(Strict):
    """`names`: fictitious names a forget owner; `removal`: how much likelier than under those names a gold token has to
    be to count as a fact; `top_k`: tokens of each distribution that are kept.
    """

    names: Count = 8
    removal: Annotated[float, Field(gt=0, le=1)] = 0.05
    top_k: Count = 256


def fakes_for(split: Split, count: int, seed: int) -> dict[str, tuple[str, list[str]]]:
    """Forget owner → (the name that their texts call them by, fictitious names).

    Raises:
        DataError: The texts of an owner contain no name, or there are too few other names to make new ones of.
    """
    found = written_names(split.forget + split.retain)
    nameless = [owner for owner in split.forget_owners if not found.get(owner)]
    if nameless:
        raise DataError(
            f"The texts of {', '.join(nameless[:3])} contain no name that a fictitious one could replace.",
            "method=counterfactual needs owners that are named in their texts. For topics and speakers take another "
            "method, such as method=npo or method=dareu.",
        )
    names = {owner: name for owner, name in found.items() if name}
    fakes = fictitious_names(names, split.forget_owners, count, seed)
    few = [owner for owner in split.forget_owners if not fakes[owner]]
    if few:
        raise DataError(
            f"There are too few other owners with names to make fictitious names for {', '.join(few[:3])}.",
            "At least two owners have to stay whose names share no part with the forgotten ones.",
        )
    return {owner: (names[owner], fakes[owner]) for owner in split.forget_owners}


def teachers_for(context: MethodContext, settings: CounterfactualSettings) -> list[SoftTargets]:
    """The teacher of each forget sample; `context.policy` is still the original model."""
    import torch

    from dareu.models.counterfactual import counterfactual_pair, distributions, teacher
    from dareu.training.soft_targets import keep_top

    config, split, tokenizer = context.config, context.split, context.tokenizer
    fakes = fakes_for(split, settings.names, config.seed)
    size = config.evaluation.batch_size

    def one(sample: Sample) -> SoftTargets:
        name, others = fakes[str(sample.owner)]
        pair = counterfactual_pair(
            tokenizer, sample, name, others, context.corpus.task, config.model.max_length
        )
        original, *copies = distributions(context.policy, tokenizer, [pair.row, *pair.copies], size)
        gold = torch.tensor(pair.row.response_ids)
        probs = teacher(original, copies, pair.aligned, gold, pair.asked_by_name, settings.removal)
        return keep_top(probs, settings.top_k)

    from dareu.models.progress import track

    label = context.progress("counterfactual teachers")
    return share_out(split.forget, one, lambda own: track(own, label))


@dataclass(frozen=True)
class Counterfactual(Distillation):
    """Targets from the original model and the corpus's names."""

    def validate(self, config: RunConfig, split: Split | None = None) -> None:
        super().validate(config, split)
        if split is not None:
            fakes_for(split, 1, config.seed)

    def teachers(self, context: MethodContext, settings: CounterfactualSettings) -> list[SoftTargets]:
        return teachers_for(context, settings)


METHOD = Counterfactual(
    divergence_from_targets, reads=READS, settings=CounterfactualSettings, retains=("kl", "nll", "none")
)
