"""Before anything is written: the data are read and split, and everything that can be checked is checked."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.markup import escape

from dareu.config import HFConfig, HubSource, MuseConfig, RunConfig
from dareu.data.corpus import Corpus, Split
from dareu.data.duplicates import Duplicate, duplicates_note, find_duplicates, plant, unseen_note
from dareu.data.readers import read_text
from dareu.data.render import (
    Encoded,
    check_template,
    control_note,
    cut_completions,
    encode_samples,
    ending,
    ending_note,
    render_prompt,
    set_template,
)
from dareu.data.sequential import split_rounds, split_run
from dareu.data.sources.registry import load_background, load_corpus
from dareu.data.split import forget_note, match_notes, part_of
from dareu.errors import DataError, ModelError
from dareu.models.files import ADAPTER, is_plain_adapter
from dareu.models.without_weights import read_shape
from dareu.runs.store import ArtifactStore
from dareu.workflow.console import Console
from dareu.workflow.context import Context
from dareu.workflow.given_adapter import keeps_adapter, with_given_adapter
from dareu.workflow.keys import folder_key, imported_key, names_a_base, samples_key
from dareu.workflow.library_settings import quiet_libraries, without_collecting
from dareu.workflow.tracking.tracker import Tracker
from dareu.workflow.validate import (
    check_data,
    check_folders,
    check_processes,
    check_run,
    nameless_of,
)


def prepare(
    config: RunConfig, corpus: Corpus | None = None, console: Console | None = None, unlearns: bool = True
) -> Context:
    """Read the data and check the whole run. Nothing is written. Names and files come before heavy imports.

    Args:
        corpus: The data, where the caller has them in memory; else `config.data` says where they are.
        console: Where stages report to; default: the terminal.
        unlearns: Whether the method of the configuration is run; else nothing is said of it.

    Raises:
        ConfigError, DataError, ModelError, RunError: For whatever would otherwise end the run after minutes of work.
    """
    check_folders(config)
    config, kept = with_given_adapter(config)
    check_processes(config)
    corpus = corpus or load_corpus(config.data)
    split = split_run(corpus, config)
    if config.forget.planted:
        corpus = plant(corpus, split, config.forget.planted)
        split = split_run(corpus, config)
    part_of(split, config.evaluation.part, config.evaluation.validation_share)
    store = ArtifactStore(Path(config.cache_dir) if config.cache_dir else None)
    store.check_writable()
    with without_collecting(), quiet_libraries():
        check_run(config)
        tokenizer = run_tokenizer(config, corpus)
        corpus = _cut(config, corpus, tokenizer)
        split = split_run(corpus, config)
        shape = _shape(config)
        room = _answer_room(config, _rows(config, corpus, tokenizer, split.forget), shape)
        config, cut = _within(config, shape.context, room)
        requests = split_rounds(corpus, config.rounds) if config.rounds else ()
        for request in [one.request for one in requests] or [split]:
            check_data(config, request)
    rendering = _rendering(tokenizer) if isinstance(config.model, HFConfig) else None
    duplicates = tuple(find_duplicates(split.forget, split.retain))
    unnamed = nameless_of(config, split) if unlearns else None
    console = console or Console()
    base, imported = (
        _base(config, corpus, rendering),
        imported_key(Path(config.original)) if config.original else None,
    )
    notes = (
        kept + cut + _notes(config, corpus, split, duplicates, tokenizer) + base_note(config, base, imported)
    )
    if unnamed and (said := unnamed.note(len(split.forget))):
        notes.append(said)
    if unlearns:
        from dareu.methods.registry import method_of

        notes += method_of(config.method).notes(config, split)
    console.print(escape(forget_note(split)))
    for note in [*notes, *slow_bfloat16(config)]:
        console.print(f"[yellow]![/] {escape(note)}")
    return Context(
        config=config,
        corpus=corpus,
        split=split,
        forgotten=split.forget_owners,
        requests=tuple(requests),
        store=store,
        console=console,
        tracker=Tracker(config.logging),
        base=base,
        imported=imported,
        answer_room=room,
        rendering=rendering,
        duplicates=duplicates,
        nameless=unnamed,
        notes=tuple(notes),
    )


def _notes(
    config: RunConfig, corpus: Corpus, split: Split, duplicates: Sequence[Duplicate], tokenizer: Any
) -> list[str]:
    """What a person should know of the data before the run."""
    notes = [
        *unpinned(config),
        *corpus.notes,
        *match_notes(requested_names(config), corpus, split.forget_owners),
        duplicates_note(duplicates, len(split.forget)),
        unseen_note(corpus),
        control_note(tokenizer, [*corpus.samples, *corpus.test]),
        ending_note(tokenizer) if corpus.task == "qa" else None,
    ]
    return [note for note in notes if note]


def unpinned(config: RunConfig) -> list[str]:
    """A note for each repository of the hub that is read at no fixed commit."""
    data, model, backbone = config.data, config.model, config.attributor.backbone
    read: list[tuple[str, str | None, str | None]] = []  # the key with the revision, path or id, revision
    # MUSE has its own pins.
    if isinstance(data, HubSource) and data.path is None and not isinstance(data, MuseConfig):
        read.append(("data.revision", f"data={data.name}", data.revision))  # type: ignore[attr-defined]
    if isinstance(model, HFConfig) and not config.original:
        read.append(("model.revision", model.path, model.revision))
    read.append(("attributor.backbone.revision", backbone.path, backbone.revision))
    return [
        f"{what} is read from the hub at its newest commit, which may change: set {key} to repeat this run exactly."
        for key, what, revision in read
        if what is not None and revision is None and not Path(what).expanduser().exists()
    ]


def base_note(config: RunConfig, base: dict[str, Any], imported: str | None) -> list[str]:
    """A note where a method that reads the base gets a full original and no base, or an adapter to unlearn with."""
    from dareu.methods.registry import method_of

    full = config.original and not is_plain_adapter(Path(config.original))
    if not (
        full and isinstance(config.model, HFConfig) and method_of(config.method).reads_calibration(config)
    ):
        return []
    cures = (
        []
        if names_a_base(base, imported)
        else ["name the model that it was fine-tuned from (model.path=BASE)"]
    )
    if config.model.adapter == "lora":
        cures.append(
            "train all weights where memory allows (model.adapter=none) or take a learning rate of .02"
        )
    said = f"The original is a full model, or merged into one. To forget more, {' and '.join(cures)}."
    return [said] if cures else []


def slow_bfloat16(config: RunConfig) -> list[str]:
    """A note with the keys that ask for bfloat16, on a CPU that has no instructions for it."""
    from dareu.models.cpu_matmul import bfloat16_is_emulated
    from dareu.models.load import pick_device

    keys = list(_bfloat16_keys(config.model_dump(mode="json"), ""))
    if not keys or pick_device(config.device).type != "cpu" or not bfloat16_is_emulated():
        return []
    return [
        "This processor has no instructions for bfloat16, so that training in it is some ten times slower than in "
        f"float32: add {' '.join(keys)}."
    ]


def _bfloat16_keys(settings: dict[str, Any], path: str) -> Iterator[str]:
    for key, value in settings.items():
        if isinstance(value, dict):
            yield from _bfloat16_keys(value, f"{path}{key}.")
        elif key == "bf16" and value is True:
            yield f"{path}{key}=false"
        elif key == "dtype" and value == "bfloat16":
            yield f"{path}{key}=float32"


def requested_names(config: RunConfig) -> list[str]:
    """The owners that the request names, as they are written there."""
    if config.rounds is not None:
        return [name for names in config.rounds.owners or [] for name in names]
    if config.forget.file is not None:
        return [line.strip() for line in read_text(config.forget.file).split("\n") if line.strip()]
    return list(config.forget.owners or [])


def _rendering(tokenizer: Any) -> dict[str, Any]:
    """See `Context.rendering`."""
    gap, end = ending(tokenizer)
    gap_key = {"gap": gap} if gap else {}
    return {"prompt": render_prompt(tokenizer, "Who?"), "end": end} | gap_key


def _cut(config: RunConfig, corpus: Corpus, tokenizer: Any) -> Corpus:
    """Texts to be completed, cut into prompt and response."""
    if corpus.task != "completion":
        return corpus
    count = int(getattr(config.data, "prompt_tokens", 16))
    return replace(
        corpus,
        samples=cut_completions(tokenizer, corpus.samples, count),
        test=cut_completions(tokenizer, corpus.test, count),
        holdout=cut_completions(tokenizer, corpus.holdout, count),
        calibration=cut_completions(tokenizer, corpus.calibration, count),
        attacks=cut_completions(tokenizer, corpus.attacks, count),
    )


def _rows(config: RunConfig, corpus: Corpus, tokenizer: Any, forget: Any) -> list[Encoded]:
    """Every row that a model has to hold: the corpus, and what the method adds to it."""
    from dareu.methods.registry import method_of

    samples = [*corpus.samples, *corpus.test, *corpus.holdout, *corpus.calibration]
    rows = encode_samples(tokenizer, samples, corpus.task, config.model.max_length)
    return rows + method_of(config.method).rows(config, forget, tokenizer, corpus.task)


@dataclass(frozen=True)
class _Shape:
    """What the data has to fit into: tokens of a text and rows of the embedding; None where that is not known."""

    context: int | None
    vocabulary: int | None = None


def _shape(config: RunConfig) -> _Shape:
    """Of the model that is unlearned.

    Raises:
        ModelError: It is no causal language model.
    """
    if not (config.original or isinstance(config.model, HFConfig)):
        return _Shape(config.model.max_length)
    from dareu.models.checks import check_decoder

    read = read_shape(config)
    if read is None:
        return _Shape(None)
    check_decoder(read, config.original or config.model.path)  # type: ignore[union-attr]
    read = read.get_text_config()
    return _Shape(getattr(read, "max_position_embeddings", None), read.vocab_size)


def _within(config: RunConfig, context: int | None, room: int | None) -> tuple[RunConfig, list[str]]:
    """The configuration with lengths that the model's context holds, and a note where a set key is cut.

    `model.max_length` bounds what methods add to the data too, such as copies with a longer name.
    """
    model, method, notes = config.model, config.method, list[str]()
    trained = not (config.retrained_folders or not config.retrain)  # the built-in model, of this very shape
    if context is not None and context < model.max_length and (isinstance(model, HFConfig) or not trained):
        model = model.model_copy(update={"max_length": context})
    wanted = getattr(method, "max_new_tokens", None)
    if room is not None and wanted is not None and wanted > max(1, room):
        notes.append(
            f"method.max_new_tokens={wanted} is more than the model's context leaves for an answer to the longest "
            f"prompt: it is {max(1, room)}."
        )
        method = method.model_copy(update={"max_new_tokens": max(1, room)})
    return config.model_copy(update={"model": model, "method": method}), notes


def _answer_room(config: RunConfig, rows: Sequence[Encoded], shape: _Shape) -> int | None:
    """See `Context.answer_room`.

    Raises:
        DataError: A row is longer than the model's context.
        ModelError: The embedding lacks rows.
    """
    _check_ids(rows, shape.vocabulary, config)
    context = shape.context
    if context is None:
        return None
    longest = max(len(row) for row in rows)
    if longest > context:
        raise DataError(
            f"A prompt and its response take {longest} tokens; the model's context has {context}.",
            f"Shorten the text, or set model.max_length={context} to see which it is.",
        )
    return context - max(len(row.prompt_ids) for row in rows)


def _check_ids(rows: Sequence[Encoded], size: int | None, config: RunConfig) -> None:
    """Check that the embedding has a row for every token of the data. An adapter may have more than its base."""
    if size is None or (config.original and (Path(config.original) / ADAPTER).is_file()):
        return
    largest = max(max((*row.prompt_ids, *row.response_ids)) for row in rows)
    if largest >= size:
        raise ModelError(
            f"The tokenizer gives the data the id {largest}, and the model's embedding has {size} rows.",
            "Give the tokenizer that belongs to the model, or resize the embedding and save the model again.",
        )


def tokenizer_texts(corpus: Corpus) -> list[str]:
    """What the built-in model's tokenizer is trained on: of a completion the text, cut or not yet cut."""
    joint = " " if corpus.task == "qa" else ""
    return [f"{s.prompt}{joint}{s.response}" for s in (*corpus.samples, *corpus.test)]


def run_tokenizer(config: RunConfig, corpus: Corpus) -> Any:
    """The tokenizer of the run's models."""
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

        background = load_background(config.data, model.pretrain)
        texts = background.texts if background else tokenizer_texts(corpus)
        return train_tokenizer(texts, model.vocab_size)
    set_template(tokenizer, model, named=not config.original)
    if corpus.task == "qa":
        check_template(tokenizer)
    return tokenizer


def _reads_base(config: RunConfig) -> bool:
    """Whether a run with `original=` loads the base too: to train the retrained model, or for a method's teachers."""
    from dareu.methods.registry import method_of

    if config.retrain and not config.retrained:
        return True
    if not isinstance(config.model, HFConfig) or keeps_adapter(config):  # whose base is found below it
        return False
    return method_of(config.method).reads_calibration(config)


def _base(config: RunConfig, corpus: Corpus, rendering: dict[str, Any] | None) -> dict[str, Any]:
    """See `Context.base`."""
    model = config.model
    if config.original and not _reads_base(config):
        return {}
    if not isinstance(model, HFConfig):
        background = load_background(config.data, model.pretrain)
        if background:  # the run's seed and the corpus are no part of it: one base serves them all
            texts = samples_key(background.openings + background.answers)
            return {"model": model.model_dump(), "background": texts}
        texts = samples_key(corpus.samples + corpus.test)
        return {"model": model.model_dump(exclude={"pretrain"}), "texts": texts, "seed": config.seed}
    local = Path(model.path).is_dir()
    unread = {"adapter", "lora", "gradient_checkpointing"}  # the last one changes no number
    tree = model.model_dump(exclude=unread | {"path"} if local else unread)
    if local:
        tree |= {"content": folder_key(Path(model.path)), "revision": None}  # a folder has none
    return tree | {"rendering": rendering}
