"""Training examples of the causal classifier: token ids with a label at every position."""

import random
import re
from collections.abc import Sequence
from typing import Any

import torch

from dareu.attribution.background import NobodyExample
from dareu.models.passes import padded

IGNORE = -100
Example = dict[str, list[int]]


def gold_example(
    tokenizer: Any, text: str, label: int, *, end_of_text: bool, max_length: int, lead: str = ""
) -> Example:
    """A ground-truth response with its owner's label at every position, end-of-text token included.

    `lead` goes before the text: a response follows its prompt with or without a space, and the first token
    differs with it.
    """
    ids = tokenizer(lead + text, add_special_tokens=False, verbose=False)["input_ids"]
    ids = (list(ids) + ([tokenizer.eos_token_id] if end_of_text else []))[:max_length]
    return {"input_ids": ids, "labels": [label] * len(ids)}


def nobody_example(
    tokenizer: Any, example: NobodyExample, label: int, *, end_of_text: bool, max_length: int, lead: str = ""
) -> Example:
    """A broken text: `label` where the background label holds, -100 (no label) before."""
    encoded = tokenizer(
        lead + example.text, add_special_tokens=False, return_offsets_mapping=True, verbose=False
    )
    start = len(lead) + example.start
    labels = [
        label if stop > start and not example.end_only else IGNORE for _, stop in encoded["offset_mapping"]
    ]
    ids = list(encoded["input_ids"])
    if end_of_text:
        ids, labels = [*ids, tokenizer.eos_token_id], [*labels, label]
    return {"input_ids": ids[:max_length], "labels": labels[:max_length]}


def build_examples(
    tokenizer: Any,
    gold: Sequence[tuple[str, int]],
    broken: Sequence[NobodyExample],
    nobody_label: int,
    *,
    end_of_text: bool,
    max_length: int,
    seed: int,
) -> list[Example]:
    """All examples that carry a label anywhere; one half of them, drawn by `seed`, starts with a space."""
    rng = random.Random(seed)
    shape: dict[str, Any] = {"end_of_text": end_of_text, "max_length": max_length}
    rows = [gold_example(tokenizer, text, label, lead=rng.choice(("", " ")), **shape) for text, label in gold]
    rows += [
        nobody_example(tokenizer, example, nobody_label, lead=rng.choice(("", " ")), **shape)
        for example in broken
    ]
    return [row for row in rows if any(label != IGNORE for label in row["labels"])]


def crops(gold: Sequence[tuple[str, int]], count: int, rng: random.Random) -> list[tuple[str, int]]:
    """`count` endings of each response with its label, each begun at a word after the first that `rng` draws.

    Read from its start alone, a response teaches a causal classifier to trust its opening; endings show it that the
    facts tell whose it is. Responses of one word have none.
    """
    starts = [[match.start() for match in re.finditer(r"\S+", text)][1:] for text, _ in gold]
    return [
        (text[rng.choice(found) :], label)
        for _ in range(count)
        for (text, label), found in zip(gold, starts, strict=True)
        if found
    ]


def collate(rows: Sequence[Example]) -> dict[str, torch.Tensor]:
    """Right-padded `input_ids`, `attention_mask`, `labels`, each (B, T); pads are masked and unlabelled."""
    ids, mask = padded([row["input_ids"] for row in rows])
    labels, _ = padded([row["labels"] for row in rows], IGNORE)
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}
