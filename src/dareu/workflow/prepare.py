"""Before anything is written: the corpus, the forget split, and whether every response fits the model."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from dareu.config import HFConfig, RunConfig
from dareu.data.corpus import Corpus, Sample, Split
from dareu.data.duplicates import Duplicate, duplicates_note, find_duplicates
from dareu.data.readers import read_text
from dareu.data.render import (
    Encoded,
    control_note,
    cut_completions,
    encode_samples,
    end_token,
    render_prompt,
    set_template,
)
from dareu.data.sequential import split_run
from dareu.data.sources.registry import load_corpus
from dareu.data.split import match_notes
from dareu.errors import DataError, ModelError
from dareu.methods.registry import method_of
from dareu.runs.manifest import content_key, file_digest


@dataclass(frozen=True)
class Prepared:
    """The corpus as it is trained on (completions cut into prompt and response) and its split."""

    corpus: Corpus
    split: Split
    base_key: dict[str, Any]
    room: int | None  # tokens that the model's context leaves for an answer to the longest prompt
    rendering: dict[str, Any] | None = (
        None  # how a model's chat template renders a question and ends an answer
    )
    duplicates: tuple[Duplicate, ...] = ()  # forget samples that also stand among those who stay
    notes: tuple[str, ...] = ()  # what a person should know of the data before the run


def digest(samples: Sequence[Sample]) -> str:
    """Content key of a list of samples."""
    text = json.dumps([asdict(s) for s in samples], sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def taught(corpus: Corpus, without: Sequence[str] = ()) -> tuple[Sample, ...]:
    """What a model is fine-tuned on, in corpus order, so that the original does not depend on the forget split."""
    general = corpus.test if corpus.teach_test else ()
    return tuple(s for s in corpus.samples if s.owner not in without) + general


def prepare(config: RunConfig, corpus: Corpus | None = None) -> Prepared:
    """Load, split and check the data. Errors: `DataError`, `ModelError`; nothing is written."""
    if config.model.name == "hf" and isinstance(config.model, HFConfig):
        check_model_folder(config.model.path)
    if config.original:
        check_model_folder(config.original, must_be_local=True)
    corpus = corpus or load_corpus(config.data)
    split_run(corpus, config)  # a wrong forget request is told before any model is loaded
    tokenizer = base_tokenizer(config, corpus)
    if corpus.task == "completion":
        count = int(getattr(config.data, "prompt_tokens", 16))
        corpus = replace(
            corpus,
            samples=cut_completions(tokenizer, corpus.samples, count),
            test=cut_completions(tokenizer, corpus.test, count),
            holdout=cut_completions(tokenizer, corpus.holdout, count),
            attacks=cut_completions(tokenizer, corpus.attacks, count),
        )
    rows = encode_samples(tokenizer, [*corpus.samples, *corpus.test], corpus.task, config.model.max_length)
    split = split_run(corpus, config)
    rows += method_of(config.method).rows(config, split.forget, tokenizer, corpus.task)
    room = _room(config, rows)
    rendering = _rendering(tokenizer) if isinstance(config.model, HFConfig) else None
    duplicates = tuple(find_duplicates(split.forget, split.retain))
    notes = [
        *corpus.notes,
        *match_notes(requested_names(config), corpus, split.forget_owners),
        duplicates_note(duplicates, len(split.forget)),
        control_note(tokenizer, [*corpus.samples, *corpus.test]),
    ]
    base_key = _base_key(config, corpus)
    if base_key and rendering:
        base_key |= {"rendering": rendering}
    return Prepared(corpus, split, base_key, room, rendering, duplicates, tuple(filter(None, notes)))


def _rendering(tokenizer: Any) -> dict[str, Any]:
    """What a chat template that depends on more than its text (a date, an option) makes of a question."""
    return {"prompt": render_prompt(tokenizer, "Who?"), "end": end_token(tokenizer)}


def requested_names(config: RunConfig) -> list[str]:
    """The owners that the request names, as they are written there."""
    if config.rounds is not None:
        return [name for names in config.rounds.owners or [] for name in names]
    if config.forget.file is not None:
        return [line.strip() for line in read_text(config.forget.file).split("\n") if line.strip()]
    return list(config.forget.owners or [])


def _room(config: RunConfig, rows: Sequence[Encoded]) -> int | None:
    """See `Prepared.room`; None where the model names no context. `DataError` where a sample is longer than it."""
    context: int | None = config.model.max_length
    if config.original or isinstance(config.model, HFConfig):
        context = _context(config)
    if context is None:
        return None
    longest = max(len(row) for row in rows)
    if longest > context:
        raise DataError(
            f"A prompt and its response take {longest} tokens; the model's context has {context}.",
            f"Shorten the text, or set model.max_length={context} to see which it is.",
        )
    return context - max(len(row.prompt_ids) for row in rows)


def _context(config: RunConfig) -> int | None:
    from transformers import AutoConfig

    trust = isinstance(config.model, HFConfig) and config.model.trust_remote_code
    path = config.original or (config.model.path if isinstance(config.model, HFConfig) else "")
    if (Path(path) / "config.json").is_file() or not Path(path).exists():
        with suppress(OSError, ValueError):  # told in full where the weights are loaded
            found = AutoConfig.from_pretrained(path, trust_remote_code=trust).get_text_config()
            return getattr(found, "max_position_embeddings", None)
    return None  # an adapter: its base is not read for this


def texts_of(corpus: Corpus) -> list[str]:
    """What the tiny model's tokenizer is trained on: of a completion the text, cut or not yet cut."""
    joint = " " if corpus.task == "qa" else ""
    return [f"{s.prompt}{joint}{s.response}" for s in (*corpus.samples, *corpus.test)]


def base_tokenizer(config: RunConfig, corpus: Corpus) -> Any:
    from dareu.models.load import load_tokenizer

    model = config.model
    if config.original:
        trust = isinstance(model, HFConfig) and model.trust_remote_code
        tokenizer = load_tokenizer(config.original, trust_remote_code=trust)
    elif isinstance(model, HFConfig):
        tokenizer = load_tokenizer(
            model.path, revision=model.revision, trust_remote_code=model.trust_remote_code
        )
    else:
        from dareu.models.tiny import train_tokenizer

        return train_tokenizer(texts_of(corpus), model.vocab_size)
    set_template(tokenizer, model, named=not config.original)
    return tokenizer


def _base_key(config: RunConfig, corpus: Corpus) -> dict[str, Any]:
    """What the base model is made of; nothing where no model is fine-tuned from it."""
    if config.original and not config.retrain:
        return {}
    if isinstance(config.model, HFConfig):
        local = Path(config.model.path).is_dir()
        unread = {"adapter", "lora", "gradient_checkpointing"}  # the last one changes no number
        tree = config.model.model_dump(exclude=unread | {"path"} if local else unread)
        return tree | ({"content": folder_digest(Path(config.model.path))} if local else {})
    return {
        "model": config.model.model_dump(),
        "texts": digest(corpus.samples + corpus.test),
        "seed": config.seed,
    }


def folder_digest(folder: Path) -> str:
    """Content key of a model folder: every byte of its files, since an edit may touch one layer alone."""
    return content_key({p.name: file_digest(p) for p in sorted(folder.iterdir()) if p.is_file()})


def check_model_folder(path: str, must_be_local: bool = False) -> None:
    """`ModelError` for a local folder without config or weights, told before any work starts."""
    folder = Path(path)
    if not folder.exists():
        if must_be_local or path.startswith((".", "/", "~")):
            raise ModelError(
                f"There is no model folder {path}.", "Give the folder that save_pretrained wrote."
            )
        return  # a hub id
    if not folder.is_dir():
        raise ModelError(f"{path} is a file.", "Give the folder that save_pretrained wrote.")
    if not any((folder / name).is_file() for name in ("config.json", "adapter_config.json")):
        raise ModelError(
            f"The model folder {path} has no config.json.", "Give the folder that save_pretrained wrote."
        )
    if not any(folder.glob("*.safetensors")):
        raise ModelError(
            f"The model folder {path} holds no weights (no *.safetensors file).",
            "Give a folder written by save_pretrained; pickled .bin weights are not read.",
        )
