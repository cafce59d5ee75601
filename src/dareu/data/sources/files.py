"""The user's own data: one sample a row of a file, its columns named in the configuration."""

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from dareu.config import Columns, HubConfig, LocalConfig
from dareu.data.cells import conversation, is_conversation, parse_list
from dareu.data.corpus import Corpus, Sample
from dareu.data.owner_names import ascii_marks, named_among, spellings
from dareu.data.readers import Row, read_rows
from dareu.errors import DataError, nearest

OPTIONAL = ("paraphrased_prompts", "paraphrased_response", "wrong_responses", "fact")
MESSAGES = "messages"
# Categories of characters that show nothing, such as a zero-width space.
_UNSEEN = ("Cc", "Cf", "Zs", "Zl", "Zp")
_SURROGATE = re.compile("[\ud800-\udfff]")


def load_local(config: LocalConfig) -> Corpus:
    """The samples of `config.path` in file order, those of `config.test_path` as the test set, of `config.holdout_path`
    as the holdout.

    With `columns.prompt` None the task is "completion": the prompt is empty and the response is the whole
    text, which `render.cut_completions` cuts later. Keys that `test_columns` leaves out are as in `columns`;
    its owner is not read, nor is the holdout's, whose columns are the data's. Ids are "owner/00", "owner/01", ...,
    "test/000", ... and "holdout/000", .... Surrounding white space is dropped, numbers become strings.

    Raises:
        DataError: A row cannot be used; the message names the file, the line and the column.
    """
    columns, test_columns = config.columns, columns_of_test(config)
    check_columns("data.columns", columns)
    check_columns("data.test_columns", test_columns)
    if columns.owner is None:
        raise DataError("data.columns.owner is null.", "Name the column that says whose a sample is.")
    if (columns.prompt is None) != (test_columns.prompt is None):
        raise DataError(
            "Of data.columns.prompt and data.test_columns.prompt one is null and the other is not.",
            "Questions with answers and plain texts do not mix: name both or neither.",
        )
    owned = owned_samples(read_rows(config.path), config.path, columns, config.owners)
    paths = [config.test_path] if isinstance(config.test_path, str) else config.test_path or []
    test = [s for path in paths for s in general_samples(read_rows(path), path, test_columns)]
    unseen = config.holdout_path
    asked = columns.model_copy(update=dict.fromkeys(OPTIONAL))  # its likelihoods are all that is read
    holdout = _samples(read_rows(unseen), unseen, asked, "data.columns", None) if unseen else []
    return Corpus(
        samples=numbered(owned.samples),
        test=numbered(test),
        task="completion" if columns.prompt is None and columns.messages is None else "qa",
        teach_test=config.teach_test,
        holdout=tuple(replace(s, id=f"holdout/{i:03d}") for i, s in enumerate(holdout)),
        notes=owned.notes,
    )


@dataclass(frozen=True)
class OwnedSamples:
    """Samples with their owners, and what a person should know of how owners were read."""

    samples: list[Sample]
    notes: tuple[str, ...] = ()


def owned_samples(
    rows: Sequence[Row], name: str, columns: Columns, owners: list[str] | int | None = None
) -> OwnedSamples:
    """The samples of these owners (the first n; None: all) in `rows`, which errors call `name`; not yet numbered.

    Spellings of one name (`owner_names.canonical`) are one owner, called as most rows call it.

    Raises:
        DataError: A row is broken, an owner of `owners` is not there, or all samples belong to one owner.
    """
    samples, notes = one_spelling(_samples(rows, name, columns, "data.columns", columns.owner))
    samples = _keep(samples, owners)
    if len({s.owner for s in samples}) < 2:
        raise DataError(
            f"The data of {name} belongs to one owner only: {samples[0].owner}.",
            "Attribution needs two owners or more; check data.columns.owner and data.owners.",
        )
    lists = [s.response for s in samples if _spells_list(s.response)]
    if lists:
        notes += (
            f"{len(lists)} of {len(samples)} responses of {name} are spelt as lists, such as {lists[0][:60]!r}, and "
            "read as they are, brackets included: write one text each where several are meant.",
        )
    return OwnedSamples(samples, notes)


def _spells_list(text: str) -> bool:
    """Whether a text is, from its first sign to its last, a list with a string in it."""
    try:
        return any(isinstance(item, str) for item in parse_list(text) or ())
    except ValueError:  # it begins as one: code, perhaps
        return False


def one_spelling(samples: list[Sample]) -> tuple[list[Sample], tuple[str, ...]]:
    """`samples` with one spelling of each owner's name, the most frequent one, and a note for each that had several."""
    rows = Counter(str(s.owner) for s in samples)
    chosen: dict[str, str] = {}
    notes: list[str] = []
    for names in spellings(rows).values():
        best = max(names, key=lambda name: rows[name])
        chosen |= dict.fromkeys(names, best)
        if len(names) > 1:
            listed = ", ".join(
                f"{ascii_marks(name)} ({rows[name]} row{'' if rows[name] == 1 else 's'})" for name in names
            )
            notes.append(f"Owner {best!r} is spelt in {len(names)} ways, read as one: {listed}.")
    return [replace(s, owner=chosen[str(s.owner)]) for s in samples], tuple(notes)


def general_samples(rows: Sequence[Row], name: str, columns: Columns) -> list[Sample]:
    """The samples in `rows`, whose owner is not read; not yet numbered."""
    return _samples(rows, name, columns, "data.test_columns", None)


def columns_of_test(config: LocalConfig | HubConfig) -> Columns:
    """The columns of the test set: as the data's, but for what `test_columns` names."""
    if config.test_columns is None:
        return config.columns
    named = {k: getattr(config.test_columns, k) for k in config.test_columns.model_fields_set}
    return config.columns.model_copy(update=named)


def check_columns(key: str, columns: Columns) -> None:
    """Check that no column is named that plain text cannot have.

    Raises:
        DataError: One is.
    """
    named = [name for name in OPTIONAL if getattr(columns, name) is not None]
    if columns.prompt is None and columns.messages is None and named:
        raise DataError(
            f"{key}.{named[0]} does not apply to plain text ({key}.prompt is null).",
            f"Set {key}.{named[0]}=null.",
        )


def _samples(rows: Sequence[Row], path: str, columns: Columns, key: str, owner: str | None) -> list[Sample]:
    """The samples of one file's rows, not yet numbered; `owner` None leaves that column unread."""
    present = list(dict.fromkeys(column for row in rows for column in row.values))
    chat = columns.messages
    if chat is None and MESSAGES in present and not {columns.prompt or "", columns.response} & set(present):
        chat = MESSAGES  # the form that chat data sets have
    own = ("messages", *OPTIONAL) if chat else ("prompt", "response", *OPTIONAL)
    mapping: dict[str, str | None] = {name: getattr(columns, name) for name in own}
    mapping |= {"owner": owner} | ({"messages": chat} if chat else {})
    for name, column in mapping.items():
        if column is not None and column not in present:
            raise DataError(
                f"{path} has no column '{column}' ({key}.{name}); it has {', '.join(present)}.",
                f"Set {key}.{name}{' (null: none)' if name in OPTIONAL else ''}. {nearest(column, present)}",
            )
    return [_sample(row, mapping, columns, owner) for row in rows]


def _sample(row: Row, mapping: dict[str, str | None], columns: Columns, owner: str | None) -> Sample:
    if mapping.get("messages"):
        prompt, response = conversation(row.values.get(str(mapping["messages"])), row.where)
    else:
        prompt = "" if columns.prompt is None else _required(row, mapping, "prompt")
        response = _required(row, mapping, "response")
    return Sample(
        id="",
        owner=None if owner is None else _required(row, mapping, "owner"),
        prompt=prompt,
        response=response,
        paraphrased_prompts=_texts(row, mapping["paraphrased_prompts"]),
        paraphrased_response=_text(row, mapping["paraphrased_response"]),
        wrong_responses=_texts(row, mapping["wrong_responses"]),
        fact=_fact(row, mapping["fact"], response),
    )


def _fact(row: Row, column: str | None, response: str) -> str:
    fact = _text(row, column) or ""
    if fact not in response:
        raise DataError(
            f"The fact in {row.where} (column '{column}') does not stand in the response: {fact[:60]}.",
            "Copy its words from the response, or leave the cell empty.",
        )
    return fact


def _required(row: Row, mapping: dict[str, str | None], name: str) -> str:
    column = str(mapping[name])
    value = row.values.get(column)
    text: str | None
    if name in ("prompt", "response") and isinstance(value, list) and is_conversation(value):
        text = "\n\n".join(str(turn["content"]).strip() for turn in value) or None  # chat data in two columns
    elif name == "owner" and isinstance(value, float) and value.is_integer():
        text = str(int(value))  # pandas turns a column of numbers with a gap in it into floats
    else:
        text = _text(row, column)
    if text is None:
        raise DataError(
            f"The {name} in {row.where} (column '{column}') is empty.",
            "Fill it in or leave the row out.",
        )
    return text


def _text(row: Row, column: str | None) -> str | None:
    """The cell as stripped text; None where there is nothing in it."""
    return None if column is None else _clean(row.values.get(column), row, column)


def _texts(row: Row, column: str | None) -> tuple[str, ...]:
    """A list of texts: a list, one text, or (in CSV) a list that is spelt in the cell. Empty entries are dropped."""
    if column is None:
        return ()
    value = row.values.get(column)
    if isinstance(value, str):
        try:
            listed = parse_list(value)
        except ValueError as error:
            raise DataError(
                f"Column '{column}' in {row.where} holds {error}: {value[:60]}.",
                "Write the list in full, such as JSON.",
            ) from None
        value = value if listed is None else listed
    items = value if isinstance(value, list) else [value]
    texts = (_clean(item, row, column) for item in items)
    return tuple(text for text in texts if text is not None)


def _clean(value: Any, row: Row, column: str) -> str | None:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if (
        isinstance(value, bool)
        or not isinstance(value, (str, int, float))
        or (isinstance(value, float) and math.isinf(value))
    ):
        raise DataError(
            f"Column '{column}' in {row.where} holds a {type(value).__name__}, not text: {str(value)[:60]}.",
            "Write it as a string.",
        )
    text = str(value).strip()
    if _SURROGATE.search(text):  # JSON can spell half a character, which no file can hold
        raise DataError(
            f"Column '{column}' in {row.where} holds half of a surrogate pair.", "Repair the text."
        )
    return text if any(unicodedata.category(c) not in _UNSEEN for c in text) else None


def _keep(samples: list[Sample], owners: list[str] | int | None) -> list[Sample]:
    """The samples of these owners, or of the first n."""
    if owners is None:
        return samples
    known = list(dict.fromkeys(str(s.owner) for s in samples))
    if isinstance(owners, int):
        if not 2 <= owners <= len(known):
            raise DataError(
                f"data.owners={owners} of {len(known)} owners.", f"Give 2 to {len(known)}, or null for all."
            )
        kept = set(known[:owners])
    else:
        kept = set(named_among(owners, known, "data.owners", "who is not in the data"))
        if len(kept) < 2:
            raise DataError(f"data.owners names {len(kept)} owner(s).", "Name two or more, or null for all.")
    return [s for s in samples if s.owner in kept]


def numbered(samples: Sequence[Sample]) -> tuple[Sample, ...]:
    """Ids: the owner's name and the number among the owner's samples."""
    seen: Counter[str | None] = Counter()
    done = []
    for s in samples:
        number = f"test/{seen[None]:03d}" if s.owner is None else f"{s.owner}/{seen[s.owner]:02d}"
        seen[s.owner] += 1
        done.append(replace(s, id=number))
    return tuple(done)
