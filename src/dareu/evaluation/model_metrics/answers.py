"""Answers to variants of a query: greedy or sampled, each scored against the sample's reference."""

from collections.abc import Sequence
from typing import Any

from dareu.data.corpus import Sample, Task
from dareu.data.render import encode, render_prompt
from dareu.errors import DataError
from dareu.evaluation.answer_likelihoods import context_length, response_limit
from dareu.models.generate import Generation, generate, sample


def is_exact(reference: str, answer: str) -> float:
    """1 where the answer is the reference word for word, apart from white space around it; else 0."""
    return float(answer.strip() == reference.strip())


def room_for(model: Any, tokenizer: Any, prompts: Sequence[str], wanted: int) -> int:
    """Tokens that an answer may take: `wanted`, as far as the context goes after the longest prompt.

    Raises:
        DataError: where a prompt leaves no room at all.
    """
    longest = max((len(tokenizer(p, add_special_tokens=False)["input_ids"]) for p in prompts), default=0)
    room = context_length(model) - longest
    if room < 1:
        raise DataError(
            f"A prompt of {longest} tokens leaves no room in the model's context of {context_length(model)}.",
            "Shorten the prompts, or leave this probe out.",
        )
    return min(wanted, room)


def greedy_answers(
    model: Any, tokenizer: Any, samples: Sequence[Sample], prompts: Sequence[str], task: Task, batch_size: int
) -> list[Generation]:
    """Greedy answers to rendered `prompts`, as long as the longest reference of `samples` and 8 tokens more."""
    if not prompts:
        return []
    wanted = response_limit(model, tokenizer, samples, task).wanted
    room = room_for(model, tokenizer, prompts, wanted)
    return generate(model, tokenizer, list(prompts), max_new_tokens=room, batch_size=batch_size)


def sampled_answers(
    model: Any,
    tokenizer: Any,
    samples: Sequence[Sample],
    task: Task,
    *,
    count: int,
    temperature: float,
    batch_size: int,
    seed: int,
    progress: str | None = None,
) -> list[list[Generation]]:
    """`count` samples of every query, in the order of `samples`; see `dareu.models.generate.sample`."""
    if not samples:
        return []
    prompts = [render_prompt(tokenizer, s.prompt, task) for s in samples]
    wanted = response_limit(model, tokenizer, samples, task).wanted
    return sample(
        model,
        tokenizer,
        prompts,
        count=count,
        temperature=temperature,
        max_new_tokens=room_for(model, tokenizer, prompts, wanted),
        batch_size=batch_size,
        seed=seed,
        progress=progress,
    )


def gold_nlls(
    model: Any, tokenizer: Any, samples: Sequence[Sample], prompts: Sequence[str], task: Task, batch_size: int
) -> list[float]:
    """Mean NLL (nats, end-of-text included) of each sample's reference after another prompt (not yet rendered)."""
    from dareu.models.logprobs import response_nll

    context = context_length(model)
    pairs = [encode(tokenizer, p, s.response, task, context) for s, p in zip(samples, prompts, strict=True)]
    scored = response_nll(model, tokenizer, pairs, batch_size=batch_size) if pairs else []
    return [total / max(count, 1) for total, count in scored]
