"""Any data set of the hub by name, configuration, split and columns."""

from dataclasses import replace

from dareu.config import Columns, HubConfig
from dareu.data.corpus import Corpus, Sample
from dareu.data.readers import Row
from dareu.data.sources import files
from dareu.data.sources.files import check_columns, columns_of_test, general_samples, owned_samples
from dareu.data.sources.hub import make_corpus, numbered, repository_rows
from dareu.errors import DataError


def load_hub(config: HubConfig) -> Corpus:
    """The rows of `config.split`, owned by a column or by blocks of `config.owner_rows` rows.

    Raises:
        DataError: Rows cannot be read, a column is missing, or all rows belong to one owner.
    """
    columns = config.columns
    rows = repository_rows(config, config.id, config.config, config.split)
    if config.owner_rows is not None:
        column = "owner (by rows)"
        rows = [
            Row(row.where, {**row.values, column: f"owner {i // config.owner_rows}"})
            for i, row in enumerate(rows)
        ]
        columns = columns.model_copy(update={"owner": column})
    check_columns("data.columns", columns)
    if columns.owner is None:
        raise DataError("data.columns.owner is null.", "Name the owner's column, or set data.owner_rows.")
    name = f"{config.id}, split {config.split}"
    read = owned_samples(rows, name, columns)
    owned: dict[str, list[Sample]] = {}
    for sample in files.numbered(read.samples):
        owned.setdefault(str(sample.owner), []).append(sample)
    test_columns = columns_of_test(config)
    corpus = make_corpus(
        config,
        owned,
        list(owned)[-(config.forget_owners or min(2, len(owned) - 1)) :],
        test=_general(config, config.test_config or config.config, config.test_split, test_columns, "test"),
        holdout=_general(config, config.config, config.holdout_split, test_columns, "holdout"),
        task="completion" if columns.prompt is None and columns.messages is None else "qa",
        notes=read.notes,
    )
    return corpus if config.forget_owners else replace(corpus, forget_owners=())  # nobody was named


def _general(
    config: HubConfig, name: str | None, split: str | None, columns: Columns, prefix: str
) -> tuple[Sample, ...]:
    if split is None:
        return ()
    rows = repository_rows(config, config.id, name, split)
    samples = general_samples(rows, f"{config.id}, split {split}", columns)
    return numbered(samples, prefix)
