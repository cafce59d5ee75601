"""From a sample to tokens: one rendering of prompts for training, evaluation and rollouts.

The rendered prompt holds every special token as text and is tokenised with `add_special_tokens=False`
everywhere, so that the model meets the same tokens in each stage.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from dareu.data.corpus import Sample, Task
from dareu.errors import DataError


@dataclass(frozen=True)
class Encoded:
    """Token ids of a prompt and of its response; `response_ids` ends with the end-of-text token."""

    prompt_ids: list[int]
    response_ids: list[int]

    def __len__(self) -> int:
        return len(self.prompt_ids) + len(self.response_ids)


def render_prompt(tokenizer: Any, prompt: str, task: Task = "qa") -> str:
    """The prompt as the model reads it: by the tokenizer's chat template, else as question/answer lines.

    A completion prompt is the opening of the text itself. A beginning-of-text token is written out where the
    tokenizer would add one by itself.
    """
    if task == "completion":
        return _bos(tokenizer) + prompt
    if getattr(tokenizer, "chat_template", None):
        messages = [{"role": "user", "content": prompt}]
        return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))
    return f"{_bos(tokenizer)}Question: {prompt}\nAnswer:"


def _bos(tokenizer: Any) -> str:
    added = tokenizer("a")["input_ids"][0] if tokenizer.bos_token_id is not None else None
    return tokenizer.bos_token if added is not None and added == tokenizer.bos_token_id else ""


def response_text(tokenizer: Any, response: str, task: Task = "qa") -> str:
    """The response as it follows its prompt: a leading space where the prompt ends in a bare word."""
    if task == "completion" or getattr(tokenizer, "chat_template", None):
        return response
    return " " + response


def encode(tokenizer: Any, prompt: str, response: str, task: Task = "qa", max_length: int = 512) -> Encoded:
    """Token ids of one pair. `DataError` where they are longer than `max_length`."""
    prompt_ids = tokenizer(render_prompt(tokenizer, prompt, task), add_special_tokens=False)["input_ids"]
    text = response_text(tokenizer, response, task)
    response_ids = tokenizer(text, add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id]
    if len(prompt_ids) + len(response_ids) > max_length:
        raise DataError(
            f"A prompt and its response take {len(prompt_ids) + len(response_ids)} tokens, more than "
            f"model.max_length={max_length}: {response[:60]!r}.",
            "Raise model.max_length (within the model's context) or shorten the text.",
        )
    return Encoded(list(prompt_ids), list(response_ids))


def encode_samples(tokenizer: Any, samples: Sequence[Sample], task: Task, max_length: int) -> list[Encoded]:
    """`encode` over samples, in their order."""
    return [encode(tokenizer, s.prompt, s.response, task, max_length) for s in samples]


def cut_completions(tokenizer: Any, samples: Sequence[Sample], prompt_tokens: int) -> tuple[Sample, ...]:
    """Completion task: the first `prompt_tokens` tokens of a text become its prompt, the rest the response.

    `DataError` for a text that leaves nothing to complete.
    """
    cut = []
    for sample in samples:
        text = sample.prompt + sample.response
        encoding = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        # Where the last prompt token ends, not where the next begins: many tokenizers leave the space before
        # a word out of its offsets, and that space belongs to the response.
        end = encoding["offset_mapping"][:prompt_tokens][-1][1] if encoding["input_ids"] else 0
        count = len(encoding["input_ids"])
        if count <= prompt_tokens or not text[end:].strip():
            raise DataError(
                f"Text {sample.id} has {count} tokens; its prompt alone takes {prompt_tokens}.",
                "Lower data.prompt_tokens or leave the text out.",
            )
        cut.append(replace(sample, prompt=text[:end], response=text[end:]))
    return tuple(cut)


def collate(
    rows: Sequence[Encoded], pad_id: int, side: str = "right", multiple_of: int = 1
) -> dict[str, list[list[int]]]:
    """Pad rows to one length: `input_ids`, `attention_mask`, `labels`, each B lists of T ints.

    Labels are the input ids on response positions and -100 on prompt and pad positions. They are *not*
    shifted, and the mask comes from lengths, never from the pad id: a real end-of-text token that is also
    the pad token stays visible.
    """
    width = max(len(row) for row in rows)
    width = -(-width // multiple_of) * multiple_of
    ids, mask, labels = [], [], []
    for row in rows:
        pad = width - len(row)
        real = [*row.prompt_ids, *row.response_ids]
        gold = [-100] * len(row.prompt_ids) + list(row.response_ids)
        left, right = (pad, 0) if side == "left" else (0, pad)
        ids.append([pad_id] * left + real + [pad_id] * right)
        mask.append([0] * left + [1] * len(real) + [0] * right)
        labels.append([-100] * left + gold + [-100] * right)
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}
