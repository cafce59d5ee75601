"""Rows of random words that hold a model where no retain row leads."""

from collections.abc import Sequence
from random import Random

from dareu.data.render import Encoded


def scrambled(rows: Sequence[Encoded], seed: int) -> list[Encoded]:
    """The rows' prompts, each with an answer as long as its own of tokens drawn from all answers; endings stay.

    A retain set says nothing of what the model knows beside it, and changed weights damage that first. Held to the
    original's distributions on contexts that no one writes, the weights keep more of it; text that the original samples
    was no better (docs/dev/log.md).
    """
    draw = Random(f"{seed}/scrambled")
    pool = [token for row in rows for token in row.response_ids[:-1]]
    return [
        Encoded(row.prompt_ids, [*draw.choices(pool, k=len(row.response_ids) - 1), row.response_ids[-1]])
        for row in rows
        if len(row.response_ids) > 1
    ]
