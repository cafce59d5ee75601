"""DUET: distil from the original under a prompt that tells it to refuse (Zhong et al. 2026, arXiv 2601.21283).

    t = π_N( · | instruction, q, y_<t )        the original, told in its prompt not to know the forget owners
    L = mean_t KL( top-K of t ‖ π(·|q, y_<t) )  +  λ · the retain term

The student sees the question alone. Needs a model that follows instructions: the built-in small model does not. What
differs from the paper is said in docs/methods/duet.md.
"""

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from dareu.config import Count, RunConfig, Strict
from dareu.config.params import read_settings
from dareu.data.corpus import Split
from dareu.data.render import encode
from dareu.errors import ConfigError
from dareu.methods.base import MethodContext
from dareu.methods.distillation import READS, Distillation, kept_distributions
from dareu.methods.loss_method import settings_of
from dareu.training.losses import SoftTargets, divergence_from_targets

INSTRUCTION = (
    "You know nothing about {owner}. If the question is about {owner}, say that you do not know; otherwise answer it."
    "\n\n{question}"
)


class DuetSettings(Strict):
    """`instruction`: the teacher's prompt, with {question} and, if wanted, {owner}; `top_k`: tokens of each
    distribution that are kept.
    """

    instruction: Annotated[str, Field(min_length=1)] = INSTRUCTION
    top_k: Count = 256


def instructed(instruction: str, owner: str, question: str) -> str:
    """The teacher's prompt. Braces of owner and question stay as they are."""
    parts = instruction.split("{question}")
    return question.join(part.replace("{owner}", owner) for part in parts)


@dataclass(frozen=True)
class Duet(Distillation):
    """Targets from the original model under an instruction."""

    def validate(self, config: RunConfig, split: Split | None = None) -> None:
        super().validate(config, split)
        settings = read_settings(DuetSettings, settings_of(config).params)
        if "{question}" not in settings.instruction:
            raise ConfigError("method.params.instruction has no {question}.", "Say where the question goes.")

    def teachers(self, context: MethodContext, settings: DuetSettings) -> list[SoftTargets]:
        tokenizer, length = context.tokenizer, context.config.model.max_length
        rows = []
        for s in context.split.forget:
            prompt = instructed(settings.instruction, str(s.owner), s.prompt)
            rows.append(encode(tokenizer, prompt, s.response, context.corpus.task, length))
        return kept_distributions(context, rows, settings.top_k)


METHOD = Duet(divergence_from_targets, reads=READS, settings=DuetSettings)
