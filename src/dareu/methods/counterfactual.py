"""Counterfactual distillation: answer forget queries as the original model answers about people who do not exist.

    c_t = mean over K fictitious names of π_N( · | q with the name, y_<t with the name ),  facts brought to l_t,
          what they had shared out by √(c_t · π_base)
    L   = mean_t [ KL( c_t ‖ π(·|q, y_<t) )  +  μ · 1(y_t is a fact) · max(d_t, −.1 d_t) ]
          −  λ · E_retain ln π(y|q)
    d_t = ln π(y_t|q, y_<t) − ln l_t

Invented names replace the owner's name, in the question and in the answer, and the original's distributions under them
are the teacher; where the texts hold no name (topics, speakers), the original's own are. l_t is what a model that never
saw the answer gives to its token (`models/never_saw.py`); a token to which the original gives clearly more carries a
fact. A fact has the probability l_t in the teacher, and the second term brings it there: a divergence hardly notices
.05 in place of .001, and membership inference reads little else.
What a fact had in the teacher goes to tokens that teacher and base both find likely (`with_base`).
Teachers are computed once, before training; no rollouts, no classifier.

Relatives: Who's Harry Potter (Eldan and Russinovich 2023, arXiv 2310.02238) and its revision by name change (Liu et al.
2024, arXiv 2407.16997) change names in the training text; UNDIAL (Dong et al. 2024, arXiv 2402.10052) and SHRED
(arXiv 2605.07482) lower the gold token's logit; DUET (arXiv 2601.21283) distils from a prompted teacher.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from random import Random
from typing import TYPE_CHECKING, Any

from dareu.config import Count, HFConfig, RunConfig, Strict, TopK
from dareu.data.corpus import Sample, Split
from dareu.data.fictitious_names import fictitious_names, names_from_elsewhere, names_of, replace_name
from dareu.data.render import Encoded
from dareu.methods.base import MethodContext
from dareu.methods.distillation import READS, Distillation, kept_distributions
from dareu.runs.ranks import share_out
from dareu.training.losses import SoftTargets, divergence_to_levels

if TYPE_CHECKING:
    from torch import Tensor


NOBODY = "\ufffc"  # stands for an owner's name where questions are compared
TEACHERS = 7  # raised when the same settings give other teachers: stored results are made again


class CounterfactualSettings(Strict):
    """`names`: fictitious names a forget owner; `top_k`: tokens of each teacher distribution that are kept."""

    names: Count = 1
    top_k: TopK = 256


def fakes_for(split: Split, count: int, config: RunConfig) -> dict[str, tuple[str, list[str]]]:
    """Forget owner → (the name that their texts call them by, fictitious names).

    A pretrained model gets names from elsewhere; one whose vocabulary was made from the corpus, and owners for whom
    there are none, names made of those of owners who stay. Where the texts contain no name (topics, speakers) it is "".
    There are no fictitious names then, nor where too few other owners have names to make them of.
    """
    return _fakes(split, count, config.seed, isinstance(config.model, HFConfig))


@lru_cache(maxsize=4)  # validation asks, and then the method does
def _fakes(split: Split, count: int, seed: int, pretrained: bool) -> dict[str, tuple[str, list[str]]]:
    written = names_of(split)
    owners = {*split.forget_owners, *split.retain_owners}
    names = {owner: name for owner, name in written.items() if name and owner in owners}
    own = {owner: names[owner] for owner in split.forget_owners if owner in names}
    fakes = fictitious_names(names, own, count, seed)
    if pretrained:
        elsewhere = names_from_elsewhere(own, split.forget + split.retain, count, seed)
        fakes = {owner: elsewhere[owner] or made for owner, made in fakes.items()}
    return {owner: (names.get(owner, ""), fakes.get(owner, [])) for owner in split.forget_owners}


def teachers_key(config: RunConfig) -> dict[str, Any]:
    """What a result depends on through its teachers, beyond corpus, seed and settings."""
    of_names = {"names": "elsewhere"} if isinstance(config.model, HFConfig) else {}
    return of_names | {"teachers": TEACHERS}


def teachers_for(context: MethodContext, settings: CounterfactualSettings) -> list[SoftTargets]:
    """The teacher of each forget sample; `context.policy` is still the original model."""
    import torch

    from dareu.models.counterfactual import (
        counterfactual_pair,
        distributions,
        fact_levels,
        likeliest,
        teacher,
        token_logprobs_of,
        with_base,
        without_facts,
    )
    from dareu.models.progress import track

    config, split, tokenizer = context.config, context.split, context.tokenizer
    fakes = fakes_for(split, settings.names, config)
    task, length, size = context.corpus.task, config.model.max_length, config.evaluation.batch_size
    rows = context.encode(split.forget)
    hints: Sequence[Tensor] | None = None
    told: Sequence[SoftTargets | None] = [None] * len(rows)
    if context.base is not None:
        with context.base() as base:  # with LoRA the policy is the base within
            read = [*rows, *context.encode(split.calibration)]
            hints = token_logprobs_of(base, tokenizer, read, size)
            told = kept_distributions(context, rows, settings.top_k, base)
        del base  # a full original's base is a second model
    expected = expected_logprobs(context, hints)

    def one(sample: Sample, unseen: Tensor, given: SoftTargets | None) -> SoftTargets:
        name, others = fakes[str(sample.owner)]
        pair = counterfactual_pair(tokenizer, sample, name, others, task, length)
        original, *copies = distributions(context.policy, tokenizer, [pair.row, *pair.copies], size)
        gold = torch.tensor(pair.row.response_ids)
        taught = teacher(original, copies, pair.aligned, gold, pair.asked_by_name)
        levels = fact_levels(taught, unseen)
        if given is not None:
            taught = with_base(taught, levels < 0, given.ids, given.probs)
        ids, kept = likeliest(taught, settings.top_k)
        return SoftTargets(ids, without_facts(kept, levels), levels)

    label = context.progress("counterfactual teachers")
    parts = list(zip(split.forget, expected, told, strict=True))
    return share_out(parts, lambda part: one(*part), lambda own: track(own, label))


def expected_logprobs(context: MethodContext, told: Sequence[Tensor] | None) -> list[Tensor]:
    """The log-probability (T,) of each forget answer's tokens under a model that never saw them (`models.never_saw`).

    The line is fitted to the original on the corpus's `calibration` samples, outside of their owners' names, which the
    questions give; without such samples it is the usual one.

    Args:
        told: The base's log-probabilities of the forget and the calibration answers; None where no base is known.
    """
    import torch

    from dareu.models.counterfactual import named_tokens, token_logprobs_of
    from dareu.models.never_saw import FEW, NAME, Bigrams, fit_line, stretched, usual_line

    split, tokenizer, size = context.split, context.tokenizer, context.config.evaluation.batch_size
    names = names_of(split)

    def read(samples: Sequence[Sample]) -> tuple[list[Encoded], list[list[bool]]]:
        rows = context.encode(samples)
        task = context.corpus.task
        return rows, [
            named_tokens(tokenizer, sample, names[str(sample.owner)], row, task)
            for sample, row in zip(samples, rows, strict=True)
        ]

    def unnamed(row: Encoded, named: Sequence[bool]) -> list[int]:
        return [NAME if mine else token for token, mine in zip(row.response_ids, named, strict=True)]

    def questions(samples: Sequence[Sample]) -> list[str]:
        """Without the owners' names, so that the same one about two owners is the same."""
        return [replace_name(s.prompt, names[str(s.owner)] or "", NOBODY)[0] for s in samples]

    (rows, named), (others, others_named) = read(split.forget), read(split.calibration)
    stay = [unnamed(*pair) for pair in zip(*read(split.retain), strict=True)]
    bigrams = Bigrams(stay, len(tokenizer), questions(split.retain))
    asked = questions([*split.forget, *split.calibration])
    hints = [
        bigrams.logprobs(unnamed(row, mine), question)
        for row, mine, question in zip([*rows, *others], [*named, *others_named], asked, strict=True)
    ]
    if told is not None:
        hints = [torch.maximum(*pair) for pair in zip(hints, told, strict=True)]
    counted = ~torch.tensor([mine for row in others_named for mine in row], dtype=torch.bool)
    line = usual_line()
    if int(counted.sum()) >= FEW:
        measured = torch.cat(token_logprobs_of(context.policy, tokenizer, others, size))
        line = fit_line(measured[counted], torch.cat(hints[len(rows) :])[counted])
    draw = Random(context.config.seed)
    return stretched([line.draw(own, draw) for own in hints[: len(rows)]])


@dataclass(frozen=True)
class Counterfactual(Distillation):
    """Targets from the original model and the corpus's names."""

    def reads_calibration(self, config: RunConfig) -> bool:
        return True

    def replaces_names(self, config: RunConfig) -> bool:
        return True

    def key(self, config: RunConfig, stage_key: Callable[[str], str]) -> dict[str, Any]:
        return super().key(config, stage_key) | teachers_key(config)

    def teachers(self, context: MethodContext, settings: CounterfactualSettings) -> list[SoftTargets]:
        return teachers_for(context, settings)


METHOD = Counterfactual(
    divergence_to_levels,
    reads=("answer_ids", "levels", *READS),
    settings=CounterfactualSettings,
    retains=("kl", "nll", "none"),
)
