"""MUSE's two memorisation metrics: continue a text word for word, answer after a few examples (arXiv 2407.06460)."""

from collections.abc import Sequence
from typing import Any

from dareu.data.corpus import Sample, Task
from dareu.data.render import render_prompt
from dareu.evaluation.metrics.rouge import rouge_f1
from dareu.evaluation.model_metrics.answers import room_for
from dareu.models.generate import generate

VERBATIM_TOKENS = 128
KNOWLEDGE_TOKENS = 32


def verbatim_memory(
    model: Any,
    tokenizer: Any,
    samples: Sequence[Sample],
    task: Task,
    *,
    batch_size: int,
    tokens: int = VERBATIM_TOKENS,
) -> list[float | None]:
    """verbmem: ROUGE-L F1, in [0, 1], of a greedy continuation of `tokens` tokens with the true one, a sample.

    The true continuation is cut to as many tokens. None where it has no word that rouge-score reads.
    """
    if not samples:
        return []
    prompts = [render_prompt(tokenizer, s.prompt, task) for s in samples]
    limit = room_for(model, tokenizer, prompts, tokens)
    answers = generate(model, tokenizer, prompts, max_new_tokens=limit, batch_size=batch_size)
    truth = []
    for sample in samples:
        ids = tokenizer(sample.response, add_special_tokens=False)["input_ids"][:limit]
        truth.append(tokenizer.decode(ids, skip_special_tokens=True).strip())
    return [rouge_f1(reference, answer.text) for reference, answer in zip(truth, answers, strict=True)]


def few_shot_prompt(question: str, examples: Sequence[tuple[str, str]]) -> str:
    """`Question: …\\nAnswer: …` blocks and then the question, as in MUSE."""
    shown = [f"Question: {q}\nAnswer: {a}\n\n" for q, a in examples]
    return "".join(shown) + f"Question: {question}\nAnswer:"


def knowledge_memory(
    model: Any,
    tokenizer: Any,
    samples: Sequence[Sample],
    examples: Sequence[Sample],
    *,
    batch_size: int,
    tokens: int = KNOWLEDGE_TOKENS,
) -> list[float | None]:
    """knowmem: ROUGE-L F1, in [0, 1], of a greedy answer of `tokens` tokens after `examples`, a sample.

    The prompt is written without a chat template, whatever the tokenizer has. Of the answer the first line counts, as
    in MUSE. Give examples that are no part of `samples`.
    """
    if not samples:
        return []
    shown = [(e.prompt, e.response) for e in examples]
    prompts = [few_shot_prompt(s.prompt, shown) for s in samples]
    limit = room_for(model, tokenizer, prompts, tokens)
    answers = generate(model, tokenizer, prompts, max_new_tokens=limit, batch_size=batch_size)
    lines = [a.text.strip().split("\n")[0] for a in answers]
    return [rouge_f1(s.response, line) for s, line in zip(samples, lines, strict=True)]
