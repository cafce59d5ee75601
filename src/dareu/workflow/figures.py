"""The evaluated models of a run beside each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dareu.config import HFConfig
from dareu.data.corpus import Corpus
from dareu.data.refusals import refusals_known
from dareu.models.tiny import CHAT_TEMPLATE
from dareu.workflow.context import Context
from dareu.workflow.prepare import run_tokenizer
from dareu.workflow.stages import SEED, Evaluated

LARGE_VOCABULARY = 10_000  # tokens


@dataclass(frozen=True)
class Figures:
    """The models of a run beside each other.

    Attributes:
        records: One record a sample, by model.
        summaries: The figures, by model.
        comparison: What relates the unlearned model to the others; `missing` is apart.
        missing: Path of a figure → why it is missing.
        seconds: What the evaluation of the unlearned model took.
    """

    records: dict[str, list[dict[str, Any]]]
    summaries: dict[str, dict[str, Any]]
    comparison: dict[str, Any]
    missing: dict[str, str]
    seconds: float

    @classmethod
    def of(cls, context: Context, evaluated: Mapping[str, Evaluated]) -> Figures:
        """Compare the evaluated models. Those whose names begin with `SEED` are retrained models of other seeds."""
        from dareu.evaluation.beside import compare_models

        seeds = [one.records() for name, one in evaluated.items() if name.startswith(SEED)]
        compared = {name: one for name, one in evaluated.items() if not name.startswith(SEED)}
        records = {name: one.records() for name, one in compared.items()}
        summaries = {name: one.summary for name, one in compared.items()}
        suite = context.config.evaluation.suite
        comparison = compare_models(
            records,
            summaries,
            texts_of(context.corpus),
            suite=suite,
            inputs={"truth_ratio_mean": context.config.evaluation.truth_ratio},
            seeds=seeds,
            pretrained=_pretrained(context),
            refusals=_refusals(context),
        )
        missing = {f"{name}.{k}": v for name, s in summaries.items() for k, v in s.get("missing", {}).items()}
        missing |= comparison.pop("missing", {})
        return cls(records, summaries, comparison, missing, evaluated["unlearned"].seconds)


def _pretrained(context: Context) -> bool | None:
    """Whether the models come from elsewhere; None where a small corpus may have given them all their tokens.

    The built-in model is none of them, wherever its folder lies: its tokenizer says so by its template.
    """
    config = context.config
    if not (config.original or isinstance(config.model, HFConfig)):
        return False
    tokenizer = run_tokenizer(config, context.corpus)
    if len(tokenizer) >= LARGE_VOCABULARY:
        return True
    return False if tokenizer.chat_template == CHAT_TEMPLATE else None


def _refusals(context: Context) -> list[str]:
    """What the method, or another one, may have taught a model to decline with."""
    method = context.config.method
    return refusals_known(
        getattr(part, "refusals", None) for part in (method, getattr(method, "reward", None))
    )


def texts_of(corpus: Corpus) -> list[str]:
    """Every text of the corpus: questions, answers, and what stands in for them."""
    return [
        text
        for s in (*corpus.samples, *corpus.test)
        for text in (
            s.prompt,
            s.response,
            *s.paraphrased_prompts,
            *filter(None, [s.paraphrased_response]),
            *s.wrong_responses,
        )
    ]
