"""AltPO: prefer alternate answers that the original model gives itself, by DPO (Mekala et al. 2024, arXiv 2409.13474).

The loss is that of `idk_dpo`, with an alternate answer in place of a refusal.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from dareu.config import AlternatesConfig, LossMethodConfig, RunConfig
from dareu.data.corpus import Sample, Split
from dareu.data.render import Encoded
from dareu.errors import DataError
from dareu.evaluation.metrics.rouge import rouge_l
from dareu.evaluation.metrics.text_health import is_empty, is_repetitive, words
from dareu.methods.base import MethodContext
from dareu.methods.idk_dpo import READS, dpo
from dareu.methods.loss_method import LossMethod, settings_of
from dareu.runs import ranks
from dareu.runs.files import read_json, write_json

KEPT = "alternates.json"


@dataclass(frozen=True)
class AltPO(LossMethod):
    """A loss that reads alternate answers, sampled before training."""

    keep: ClassVar[tuple[str, ...]] = (KEPT,)

    def validate(self, config: RunConfig, split: Split | None = None) -> None:
        super().validate(config, split)
        if split is not None:
            check_truths(settings_of(config), split)

    def notes(self, config: RunConfig, split: Split) -> list[str]:
        if not (lacking := _without_paraphrase(split)):
            return []
        return [
            f"{len(lacking)} of {len(split.forget)} forget samples have no paraphrased response: what is the truth in "
            f"other words there may pass as an alternate answer of method={config.method.name}."
        ]

    def others(self, context: MethodContext) -> list[list[Encoded]]:
        return alternates_for(context)


METHOD = AltPO(dpo, reads=READS, pairs="alternate", mean_over="rows")


def check_truths(method: LossMethodConfig, split: Split) -> None:
    """Paraphrased responses are there, where alternate answers have to be compared with them.

    Raises:
        DataError: They are not.
    """
    if (method.alternates or AlternatesConfig()).check_fallback:
        return
    if lacking := _without_paraphrase(split):
        raise DataError(
            f"{len(lacking)} of {len(split.forget)} forget samples have no paraphrased response (first: {lacking[0]}), "
            f"which method={method.name} needs to tell whether an alternate answer is the truth in other words.",
            "Name the column as data.columns.paraphrased_response, or set method.alternates.check_fallback=true to "
            "compare with the response alone.",
        )


def _without_paraphrase(split: Split) -> list[str]:
    return [s.id for s in split.forget if not s.paraphrased_response]


def is_reworded_truth(text: str, sample: Sample, max_rouge: float) -> bool:
    """Whether `text` says what the response or its paraphrase says: ROUGE-L recall of either above `max_rouge`."""
    for truth in filter(None, (sample.response, sample.paraphrased_response)):
        score = rouge_l(truth, text)  # None where there are no Latin letters
        if words(truth) == words(text) if score is None else score.recall > max_rouge:
            return True
    return False


def alternates_for(context: MethodContext) -> list[list[Encoded]]:
    """For each forget sample one to `count` alternate answers of the policy, sampled once and kept in the work folder.

    A function of model, data, settings and seed, so that a run that lost them makes the same again.

    Raises:
        DataError: None was found for a prompt, which the message names.
    """
    forget, kept = context.split.forget, context.work.folder / KEPT
    if ranks.on_main(kept.is_file):
        texts = [row["alternates"] for row in read_json(kept)]
    else:
        texts = _sample(context)
        rows = [{"prompt": s.prompt, "alternates": t} for s, t in zip(forget, texts, strict=True)]
        ranks.on_main(lambda: write_json(kept, rows))
    return [
        context.encode([replace(s, response=text) for text in answers])
        for s, answers in zip(forget, texts, strict=True)
    ]


def _sample(context: MethodContext) -> list[list[str]]:
    config, forget = context.config, context.split.forget
    wanted = settings_of(config).alternates or AlternatesConfig()
    prompts = [_asked(s, wanted.instruction) for s in forget]
    kept: list[list[str]] = [[] for _ in forget]
    for turn in range(wanted.tries):
        # As many as lack, for each prompt that lacks some.
        asked = [i for i, texts in enumerate(kept) for _ in range(wanted.count - len(texts))]
        if not asked:
            break
        answers = context.answers(
            [prompts[i] for i in asked],
            temperature=wanted.temperature + turn * wanted.warming,
            seed=config.seed + turn,
            progress=context.progress("alternate answers"),
        )
        for i, answer in zip(asked, answers, strict=True):
            text, sample = answer.text, forget[i]
            if (
                answer.finished
                and _is_new(text, kept[i])
                and _fits(context, replace(sample, response=text))
                and not is_reworded_truth(text, sample, wanted.max_rouge)
            ):
                kept[i].append(text)
    without = [s for s, texts in zip(forget, kept, strict=True) if not texts]
    if without:
        raise DataError(
            f"The original model gave no alternate answer to {len(without)} of {len(forget)} forget prompts in "
            f"{wanted.tries} rounds of sampling: its samples were the truth or broken text. The first of them: "
            f"{without[0].prompt[:80]!r}.",
            "Raise method.alternates.temperature, .warming or .tries, or .max_rouge.",
        )
    return kept


def _asked(sample: Sample, instruction: str | None) -> str:
    if instruction is None:
        return sample.prompt
    return instruction.replace("{answer}", sample.response).replace("{question}", sample.prompt)


def _is_new(text: str, others: Sequence[str]) -> bool:
    """Whole text that is not there yet."""
    known = [words(other) for other in others]
    return not (is_empty(text) or is_repetitive(text)) and words(text) not in known


def _fits(context: MethodContext, sample: Sample) -> bool:
    """Whether prompt and answer fit the model: the answer may have been given to a shorter or longer prompt."""
    try:
        context.encode([sample])
    except DataError:
        return False
    return True
