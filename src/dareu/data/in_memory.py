"""Data that is in memory already: lists of dicts, of samples or of texts, a `datasets.Dataset`, a pandas DataFrame."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from dareu.config import Columns, LocalConfig
from dareu.data.corpus import Corpus, Sample
from dareu.data.readers import Row, with_names
from dareu.data.sources.files import (
    OPTIONAL,
    check_columns,
    columns_of_test,
    general_samples,
    numbered,
    owned_samples,
)
from dareu.errors import DataError

CURE = "Give a list of dicts or Samples, a datasets.Dataset, a pandas DataFrame or a Corpus."
NO_MIX = "Questions with answers and plain texts do not mix: give both sets alike."


def corpus_in_memory(data: Any, test: Any, config: LocalConfig) -> Corpus:
    """The corpus of `data`, with `test` as the samples that belong to no owner.

    Columns are named by `config.columns`, as for files. Columns that are called `paraphrased_prompts`,
    `paraphrased_response`, `wrong_responses` or `fact` are used without being named. Rows that have nothing beside
    their response and owner are plain texts (task "completion"). A `Corpus` is taken as it is; `test` replaces
    its test set.

    Raises:
        DataError: A row cannot be used; the message names the item and the column.
    """
    if isinstance(data, Corpus):
        corpus = data
    else:
        columns, rows = config.columns, rows_of(data, "data", config.columns.response)
        plain = columns.prompt is None or (columns.prompt == "prompt" and _present(rows) <= _bare(columns))
        columns = _filled(columns, rows, plain)
        check_columns("data.columns", columns)
        if columns.owner is None:
            raise DataError("data.columns.owner is null.", "Name the column that says whose a sample is.")
        owned = owned_samples(rows, "data", columns, config.owners)
        corpus = Corpus(
            samples=numbered(owned.samples),
            task="completion" if plain else "qa",
            teach_test=config.teach_test,
            notes=owned.notes,
        )
    if test is None:
        return corpus
    return replace(corpus, test=_test_set(test, columns_of_test(config), corpus.task == "completion"))


def rows_of(data: Any, name: str, text_column: str = "response") -> list[Row]:
    """The rows of `data`, which errors call `name`; a plain string is a row with that text alone."""
    if isinstance(data, Mapping):
        raise DataError(
            f"{name} is one {type(data).__name__} with {', '.join(map(str, list(data)[:5]))}, not a list of rows.",
            f"Choose one of its splits, such as {name}['train'], or give a list with one dict a sample.",
        )
    if hasattr(data, "to_dict") and hasattr(data, "notna"):  # a DataFrame; its missing cells become None
        data = data.astype(object).where(data.notna(), None).to_dict("records")
    if isinstance(data, str | bytes) or not isinstance(data, Iterable):
        raise DataError(f"{name} is of the type {type(data).__name__}, which holds no rows.", CURE)
    labels = _class_names(data)
    rows = [_row(item, f"{name}[{i}]", text_column, labels) for i, item in enumerate(data)]
    if not rows:
        raise DataError(f"{name} is empty: it holds no row.", CURE)
    return rows


def _class_names(data: Any) -> dict[str, list[str]]:
    """Column → names of its classes, for the `ClassLabel` columns of a `datasets.Dataset`."""
    features = getattr(data, "features", None)
    classes = {}
    for name, feature in features.items() if isinstance(features, Mapping) else ():
        names = getattr(feature, "names", None)
        if isinstance(names, list) and hasattr(feature, "int2str"):
            classes[str(name)] = [str(one) for one in names]
    return classes


def _row(item: Any, where: str, text_column: str, labels: Mapping[str, list[str]] | None = None) -> Row:
    if isinstance(item, str):
        return Row(where, {text_column: item})
    if isinstance(item, Sample):
        own = ("id", "kind", "subset")
        item = {k: v for k, v in asdict(item).items() if k not in own and (v or k not in ("prompt", "fact"))}
    if not isinstance(item, Mapping):
        raise DataError(f"{where} is of the type {type(item).__name__}.", CURE)
    values = {str(key): _plain(value) for key, value in item.items()}
    return Row(where, with_names(values, labels or {}))


def _plain(value: Any) -> Any:
    """Tuples and arrays as lists, NumPy's numbers as Python's."""
    if isinstance(value, tuple):
        return list(value)
    return value.tolist() if hasattr(value, "tolist") else value


def _present(rows: Sequence[Row]) -> set[str]:
    """The columns that hold something."""
    return {name for row in rows for name, value in row.values.items() if value is not None and value != []}


def _bare(columns: Columns) -> set[str]:
    return {columns.response, columns.owner or "", "id"}


def _filled(columns: Columns, rows: Sequence[Row], plain: bool) -> Columns:
    """`columns` with the optional ones that are there under their own names."""
    if plain:
        return columns.model_copy(update={"prompt": None})
    present = _present(rows)
    own = {name: name for name in OPTIONAL if getattr(columns, name) is None and name in present}
    if "fact" in own and not all(_marks_a_fact(row, columns.response) for row in rows):
        del own["fact"]  # a column of another meaning
    return columns.model_copy(update=own)


def _marks_a_fact(row: Row, response: str) -> bool:
    """Whether the row's `fact` is empty, or part of its response."""
    fact = row.values.get("fact")
    return not fact or str(fact).strip() in str(row.values.get(response))


def _test_set(test: Any, columns: Columns, plain: bool) -> tuple[Sample, ...]:
    """`test` as samples without an owner."""
    if isinstance(test, Corpus):
        if (test.task == "completion") != plain:
            raise DataError(f"test is of the task {test.task}, data is not.", NO_MIX)
        return numbered([replace(s, owner=None) for s in (*test.samples, *test.test)])
    rows = rows_of(test, "test", columns.response)
    if plain and (columns.prompt or "prompt") in _present(rows):
        raise DataError("test has prompts, data is plain text.", NO_MIX)
    columns = _filled(columns, rows, plain)
    check_columns("data.test_columns", columns)
    return numbered(general_samples(rows, "test", columns))
