"""Before anything is written: the corpus, the forget split, and whether every response fits the model."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dareu.config import HFConfig, LocalConfig, RunConfig
from dareu.data.corpus import Corpus, Sample, Split
from dareu.data.render import cut_completions, encode_samples
from dareu.data.sources import load_corpus
from dareu.data.split import split_corpus
from dareu.errors import ModelError


@dataclass(frozen=True)
class Prepared:
    """The corpus as it is trained on (completions cut into prompt and response) and its split."""

    corpus: Corpus
    split: Split
    base_key: dict[str, Any]


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
    split_corpus(corpus, config.forget)  # a wrong forget request is told before any model is loaded
    tokenizer = base_tokenizer(config, corpus)
    if corpus.task == "completion":
        count = config.data.prompt_tokens if isinstance(config.data, LocalConfig) else 16
        corpus = corpus.with_samples(
            cut_completions(tokenizer, corpus.samples, count), cut_completions(tokenizer, corpus.test, count)
        )
    encode_samples(tokenizer, [*corpus.samples, *corpus.test], corpus.task, config.model.max_length)
    return Prepared(corpus, split_corpus(corpus, config.forget), _base_key(config, corpus))


def texts_of(corpus: Corpus) -> list[str]:
    """What the tiny model's tokenizer is trained on."""
    return [f"{s.prompt} {s.response}".strip() for s in (*corpus.samples, *corpus.test)]


def base_tokenizer(config: RunConfig, corpus: Corpus) -> Any:
    if config.model.name == "tiny":
        from dareu.models.tiny import train_tokenizer

        return train_tokenizer(texts_of(corpus), config.model.vocab_size)
    from dareu.models.load import load_tokenizer

    model = config.model
    assert isinstance(model, HFConfig)
    tokenizer = load_tokenizer(
        config.original or model.path, revision=model.revision, trust_remote_code=model.trust_remote_code
    )
    if model.chat_template == "none":
        tokenizer.chat_template = None
    return tokenizer


def _base_key(config: RunConfig, corpus: Corpus) -> dict[str, Any]:
    """What the base model is made of."""
    if isinstance(config.model, HFConfig):
        local = Path(config.model.path).is_dir()
        tree = config.model.model_dump(exclude={"path", "adapter", "lora"} if local else {"adapter", "lora"})
        return tree | ({"content": folder_digest(Path(config.model.path))} if local else {})
    return {
        "model": config.model.model_dump(),
        "texts": digest(corpus.samples + corpus.test),
        "seed": config.seed,
    }


def folder_digest(folder: Path, sample: int = 1 << 20) -> str:
    """Content key of a model folder: small files whole, of weights the size and the first and last megabyte."""
    state = hashlib.sha256()
    for path in sorted(p for p in folder.iterdir() if p.is_file()):
        size = path.stat().st_size
        state.update(f"{path.name}:{size}:".encode())
        with path.open("rb") as file:
            if path.suffix == ".safetensors" and size > 2 * sample:
                state.update(file.read(sample))
                file.seek(-sample, 2)
            state.update(file.read(64 * sample))
    return state.hexdigest()[:16]


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
