"""Training examples of the causal classifier: responses of owners, and text of the background class.

Broken copies of responses and text of no owner carry the background label. Token ids have a label at every position."""

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from dareu.data.corpus import Sample
from dareu.errors import DataError
from dareu.models.passes import padded

FIRST_WORDS = 2  # words that any text may begin with: what follows them can be called broken


@dataclass(frozen=True)
class NobodyExample:
    """A text and where the background label holds.

    Positions that have read past character `start` are labelled; earlier ones carry no label. The end-of-text
    position is always labelled; with `end_only` it is the only one.
    """

    text: str
    start: int
    end_only: bool = False


def make_nobody(
    samples: Sequence[Sample],
    rng: random.Random,
    count: int,
    general: Sequence[str] = (),
    truncated: bool = True,
) -> list[NobodyExample]:
    """`count` examples, the kinds in turn: shuffled, repeated, salad, truncated, and `general` where given.

    `truncated` examples say something at the end-of-text position alone: leave them out for a classifier that
    never sees that token. Texts written without spaces are broken up by characters.

    Raises:
        DataError: The samples are too short to break.
    """
    gold = {sample.response for sample in samples}
    texts = [(str(sample.owner), *_units(sample.response)) for sample in samples]
    several_owners = len({owner for owner, _, _ in texts}) > 1
    kinds: list[Callable[[], NobodyExample | None]] = [
        lambda: _shuffled(*rng.choice(texts)[1:], rng),
        lambda: _repeated(*rng.choice(texts)[1:], rng),
    ]
    if several_owners:
        kinds.append(lambda: _salad(texts, rng))
    if truncated:
        kinds.append(lambda: _truncated(*rng.choice(texts)[1:], rng))
    if general:
        kinds.append(lambda: _general(rng.choice(general)))
    made: list[NobodyExample] = []
    tries = 0
    while len(made) < count and texts:
        if tries > 50 * count + 100:
            break
        example = kinds[tries % len(kinds)]()
        tries += 1
        if example is not None and example.text not in gold:
            made.append(example)
    if len(made) < count:
        raise DataError(
            f"Only {len(made)} of {count} broken texts could be made: the responses are too short to break.",
            "Set attributor.nobody=false, or use longer responses.",
        )
    return made


def _units(text: str) -> tuple[list[str], str]:
    """Words and the space between them; characters and nothing between them where a text has no spaces."""
    words = re.findall(r"\S+", text)
    if len(words) < 4 and len(text.strip()) >= 12 * max(len(words), 1):
        return list(text.strip()), ""
    return words, " "


def _offset(units: Sequence[str], index: int, space: str) -> int:
    """Where unit `index` begins in the joined text (its end where there is no such unit)."""
    if index >= len(units):
        return len(space.join(units))
    return len(space.join(units[:index])) + (len(space) if index else 0)


def _shuffled(words: list[str], space: str, rng: random.Random) -> NobodyExample | None:
    """The words in another order; background from the third word on, or from where the order first departs."""
    order = rng.sample(words, len(words))
    departs = next((i for i, (a, b) in enumerate(zip(words, order, strict=True)) if a != b), None)
    if departs is None or len(words) <= FIRST_WORDS:
        return None
    return NobodyExample(space.join(order), _offset(order, max(departs, FIRST_WORDS), space))


def _repeated(words: list[str], space: str, rng: random.Random) -> NobodyExample | None:
    """An opening whose last one to four words recur; background from their second repetition on.

    Answers of one word (a name, a letter, a number) can be broken in this way alone.
    """
    if not words:
        return None
    kept = rng.randint(1, len(words))
    phrase = words[max(0, kept - rng.randint(1, 4)) : kept]
    out = words[:kept] + phrase * rng.randint(2, 5)
    return NobodyExample(space.join(out), _offset(out, kept + len(phrase), space))


def _salad(texts: Sequence[tuple[str, list[str], str]], rng: random.Random) -> NobodyExample | None:
    """Words of several owners' responses, mixed; background from the third word on."""
    picked = rng.sample(list(texts), min(4, len(texts)))
    pool = [word for _, words, _ in picked for word in words]
    length = len(rng.choice(picked)[1])
    if len({owner for owner, _, _ in picked}) < 2 or length <= FIRST_WORDS:
        return None
    out = rng.sample(pool, min(length, len(pool)))
    space = picked[0][2]
    return NobodyExample(space.join(out), _offset(out, FIRST_WORDS, space))


def _truncated(words: list[str], space: str, rng: random.Random) -> NobodyExample | None:
    """A response cut in its middle: what it says so far is the owner's; that it ends there is background."""
    if len(words) <= FIRST_WORDS:
        return None
    text = space.join(words[: rng.randint(FIRST_WORDS, len(words) - 1)])
    return NobodyExample(text, len(text), end_only=True)


def _general(text: str) -> NobodyExample | None:
    """Text of no owner as it stands; background after its second word (character, where it has no spaces)."""
    text = text.strip()
    spaced = _units(text)[1] != ""
    starts = [match.start() for match in re.finditer(r"\S+" if spaced else r"(?s).", text)]
    if not starts:
        return None
    return NobodyExample(text, starts[FIRST_WORDS] if len(starts) > FIRST_WORDS else len(text))


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
        (text[rng.choice(begins) :], label)
        for _ in range(count)
        for (text, label), begins in zip(gold, starts, strict=True)
        if begins
    ]


def collate(rows: Sequence[Example]) -> dict[str, torch.Tensor]:
    """Right-padded `input_ids`, `attention_mask`, `labels`, each (B, T); pads are masked and unlabelled."""
    ids, mask = padded([row["input_ids"] for row in rows])
    labels, _ = padded([row["labels"] for row in rows], IGNORE)
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}
