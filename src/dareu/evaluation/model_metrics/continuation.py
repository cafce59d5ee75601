"""MUSE's two memorisation metrics: continue a text word for word, answer after a few examples (arXiv 2407.06460)."""

from collections.abc import Sequence

from dareu.data.corpus import Sample
from dareu.evaluation.metrics.rouge import rouge_f1
from dareu.evaluation.subject import Subject

VERBATIM_TOKENS = 128
KNOWLEDGE_TOKENS = 32


def verbatim_memory(
    subject: Subject, samples: Sequence[Sample], tokens: int = VERBATIM_TOKENS
) -> list[float | None]:
    """verbmem: ROUGE-L F1, in [0, 1], of a greedy continuation of `tokens` tokens with the true one, a sample.

    The true continuation is cut to as many tokens. None where it has no word that rouge-score reads.
    """
    prompts = subject.rendered([s.prompt for s in samples])
    limit, tokenizer = subject.room(prompts, tokens), subject.tokenizer
    scores = []
    for sample, answer in zip(samples, subject.answers(prompts, limit), strict=True):
        ids = tokenizer(sample.response, add_special_tokens=False)["input_ids"][:limit]
        scores.append(rouge_f1(tokenizer.decode(ids, skip_special_tokens=True).strip(), answer.text))
    return scores


def few_shot_prompt(question: str, examples: Sequence[Sample]) -> str:
    """`Question: …\\nAnswer: …` blocks and then the question, as in MUSE."""
    shown = [f"Question: {e.prompt}\nAnswer: {e.response}\n\n" for e in examples]
    return "".join(shown) + f"Question: {question}\nAnswer:"


def knowledge_memory(
    subject: Subject, samples: Sequence[Sample], examples: Sequence[Sample], tokens: int = KNOWLEDGE_TOKENS
) -> list[float | None]:
    """knowmem: ROUGE-L F1, in [0, 1], of a greedy answer of `tokens` tokens after `examples`, a sample.

    The prompt is written without a chat template, whatever the tokenizer has. Of the answer the first line counts, as
    in MUSE. Give examples that are no part of `samples`.
    """
    answers = subject.answers([few_shot_prompt(s.prompt, examples) for s in samples], tokens)
    lines = [a.text.strip().split("\n")[0] for a in answers]
    return [rouge_f1(s.response, line) for s, line in zip(samples, lines, strict=True)]
