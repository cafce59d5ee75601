"""Models of a run, read as its configuration says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dareu.data.render import set_template
from dareu.workflow.context import Context


def load_run_model(context: Context, folder: Path, trainable: bool = False) -> tuple[Any, Any]:
    """(model, tokenizer) of one of the run's folders."""
    from dareu.models.load import load_model

    config = context.config.model
    extra = config.model_dump(include={"trust_remote_code", "attn_implementation"})
    model, tokenizer = load_model(
        folder, dtype=config.dtype, device=context.config.device, trainable=trainable, **extra
    )
    set_template(tokenizer, config)
    return model, tokenizer


def response_limit(context: Context, tokenizer: Any) -> int:
    """Tokens that an answer may take: the longest owned response and 8 more, as far as the model's context goes."""
    longest = max(
        len(tokenizer(s.response, add_special_tokens=False)["input_ids"]) for s in context.corpus.samples
    )
    wanted = int(longest) + 8
    return wanted if context.answer_room is None else max(1, min(wanted, context.answer_room))
