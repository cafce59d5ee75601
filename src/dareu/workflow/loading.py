"""Models of a run, read as its configuration says."""

from pathlib import Path
from typing import Any

from dareu.config import HFConfig
from dareu.data.render import set_template
from dareu.models.files import ADAPTER, adapter_base
from dareu.runs.files import read_json, write_json
from dareu.workflow.context import Context

BASE_NOTE = "dareu_base.json"


def load_run_model(
    context: Context, folder: Path, trainable: bool = False, to_merge: bool = False
) -> tuple[Any, Any]:
    """(model, tokenizer) of one of the run's folders.

    Args:
        to_merge: The base keeps all its bits where `model.quantization` asks for fewer: an adapter that is merged into
            quantised weights would be rounded with them.
    """
    from dareu.models.load import load_model

    config = context.config.model
    extra = config.model_dump(include={"trust_remote_code", "attn_implementation", "quantization"})
    extra["base"] = base_folder(context, folder)
    if to_merge:
        extra["quantization"] = None
    model, tokenizer = load_model(
        folder, dtype=config.dtype, device=context.config.device, trainable=trainable, **extra
    )
    set_template(tokenizer, config)
    return model, tokenizer


def base_folder(context: Context, folder: Path) -> str | None:
    """Where the base of an adapter's folder lies now; None where it is what the adapter's config says.

    A stored adapter notes the content of its base (`note_base`), since that may have moved, or another model may lie in
    its place. A base in a store may have moved with the store.
    """
    if not (folder / ADAPTER).is_file():
        return None
    config = context.config.model
    note = folder / BASE_NOTE
    content = context.base.get("content")
    if (
        isinstance(config, HFConfig)
        and content
        and note.is_file()
        and read_json(note).get("content") == content
    ):
        return str(Path(config.path).resolve())
    named = Path(adapter_base(folder)[0])
    if named.is_absolute() and not named.exists():
        moved = context.store.root.joinpath(*named.parts[-3:])
        if moved.is_dir():
            return str(moved)
        if isinstance(config, HFConfig) and Path(config.path).is_dir():
            return str(Path(config.path).resolve())  # names and sizes of weights show whether it is the one
    return None


def note_base(context: Context, folder: Path) -> None:
    """Note the content of the configured base beside an adapter that stands on it."""
    config, content = context.config.model, context.base.get("content")
    if not (folder / ADAPTER).is_file() or not isinstance(config, HFConfig) or not content:
        return
    if Path(adapter_base(folder)[0]).resolve() == Path(config.path).resolve():
        write_json(folder / BASE_NOTE, {"content": content})


def response_limit(context: Context, tokenizer: Any) -> int:
    """Tokens that an answer may take: the longest owned response and 8 more, as far as the model's context goes."""
    longest = max(
        len(tokenizer(s.response, add_special_tokens=False)["input_ids"]) for s in context.corpus.samples
    )
    wanted = int(longest) + 8
    return wanted if context.answer_room is None else max(1, min(wanted, context.answer_room))
