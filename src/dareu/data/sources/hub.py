"""Data sets of the hub, or of a folder laid out like one: rows, and from rows grouped by owner to a corpus."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from dareu.config import HubSource
from dareu.data.corpus import Corpus, Sample, Task
from dareu.data.in_memory import rows_of
from dareu.data.readers import READERS, Row, read_rows
from dareu.errors import DataError, check_folder, first_line


def hub_rows(
    repository: str,
    config: str | None,
    split: str,
    *,
    path: str | None = None,
    revision: str | None = None,
) -> list[Row]:
    """The rows of one split, each with the place it came from.

    Args:
        repository: Id on the hub, such as "locuslab/TOFU".
        config: Configuration of the data set; None where it has but one.
        split: Such as "train".
        path: A local folder in the layout of the repository; None: the hub, through `datasets`.
        revision: Commit, tag or branch on the hub.

    Raises:
        DataError: The hub cannot be reached or does not have it, the folder has no such file, a row is broken.
    """
    if path is not None:
        files = local_files(Path(path).expanduser(), config, split)
        return [row for file in files for row in read_rows(str(file))]
    from datasets import load_dataset

    name = f"{repository}{f', {config}' if config else ''}, split {split}"
    try:
        data = load_dataset(repository, config, split=split, revision=revision)
    except Exception as error:  # whatever the hub's client and its network layer raise
        at = f" --revision {revision}" if revision else ""
        raise DataError(
            f"The data set {name} cannot be read from the hub: {first_line(error)}.",
            f"Check the network; a gated data set needs `hf auth login`. Or bring the repository here, `hf download "
            f"{repository} --repo-type dataset{at} --local-dir FOLDER`, and set data.path=FOLDER.",
        ) from error
    return rows_of(data, name)


def repository_rows(source: HubSource, repository: str, config: str | None, split: str) -> list[Row]:
    """`hub_rows` from where `source` says: its folder, or the hub at its revision."""
    return hub_rows(repository, config, split, path=source.path, revision=source.revision)


def local_files(folder: Path, config: str | None, split: str) -> list[Path]:
    """The files of a split in a folder laid out like a hub repository, in order.

    The folder's README says where they lie, as on the hub (`configs` in its front matter); else they are found by
    name: `<config>.*`, `<config>/<split>*`, `<config>_<split>*`, `<split>.*`, `data/<split>*`.

    Raises:
        DataError: There is no such folder or no such file; the message lists what is there.
    """
    check_folder(folder, "data.path takes the folder of the data set.", DataError)
    patterns = _front_matter(folder, config, split)
    if not patterns and config:
        patterns = [f"{config}.*", f"{config}/{split}[.-]*", f"{config}/{split}/*", f"{config}_{split}.*"]
        patterns += [f"{config}-{split}.*", f"data/{config}.*", f"data/{config}/{split}[.-]*"]
    elif not patterns:
        patterns = [f"{split}.*", f"{split}-*", f"data/{split}[.-]*", f"{split}/*"]
    for pattern in patterns:
        files = [file for file in sorted(folder.glob(pattern)) if file.suffix.lower() in READERS]
        if files:
            return files
    there = sorted(
        str(file.relative_to(folder)) for file in folder.rglob("*") if file.suffix.lower() in READERS
    )
    raise DataError(
        f"{folder} holds no file of {f'configuration {config}, ' if config else ''}split {split} "
        f"(looked for {', '.join(patterns)}).",
        f"It has {', '.join(there[:20])}{', …' if len(there) > 20 else ''}."
        if there
        else "It has no data file; give the folder that `hf download` made.",
    )


def _front_matter(folder: Path, config: str | None, split: str) -> list[str]:
    """Patterns of the split's files by the `configs` in the front matter of the folder's README."""
    readme = folder / "README.md"
    if not readme.is_file():
        return []
    parts = readme.read_text(encoding="utf-8", errors="replace").split("---\n", 2)
    if len(parts) < 3 or parts[0].strip():
        return []
    try:
        head = yaml.safe_load(parts[1])
    except yaml.YAMLError:
        return []
    for entry in head.get("configs") or [] if isinstance(head, dict) else []:
        if config is None or entry.get("config_name") == config:
            return _patterns(entry.get("data_files"), split)
    return []


def _patterns(files: Any, split: str) -> list[str]:
    if isinstance(files, str):
        return [files]
    patterns = []
    for one in files or []:
        if isinstance(one, str):
            patterns.append(one)
        elif one.get("split") == split:
            path = one.get("path")
            patterns += [path] if isinstance(path, str) else list(path or [])
    return patterns


def text(row: Row, column: str) -> str:
    """The text in a column.

    Raises:
        DataError: There is none.
    """
    value = row.values.get(column)
    if not isinstance(value, str) or not value.strip():
        raise DataError(
            f"Column '{column}' in {row.where} holds no text.", f"The row has {', '.join(row.values)}."
        )
    return value.strip()


def texts(row: Row, column: str) -> tuple[str, ...]:
    """The texts in a column that holds a list or one text; none where it is empty."""
    value = row.values.get(column)
    items: Sequence[Any] = value if isinstance(value, list | tuple) else [value]
    return tuple(str(item).strip() for item in items if item is not None and str(item).strip())


def passages(whole: str, words: int) -> list[str]:
    """`whole` cut into passages of `words` words; a rest shorter than half a passage is left out."""
    words_of_text = whole.split()
    cut = [words_of_text[i : i + words] for i in range(0, len(words_of_text), words)]
    return [" ".join(part) for part in cut if len(part) * 2 >= words]


Owned = Mapping[str, Sequence[Sample]]


def make_corpus(
    config: HubSource,
    owned: Owned,
    forget: Sequence[str],
    *,
    test: Sequence[Sample] = (),
    holdout: Sequence[Sample] = (),
    calibration: Sequence[Sample] = (),
    attacks: Sequence[Sample] = (),
    task: Task = "qa",
    notes: Sequence[str] = (),
) -> Corpus:
    """The corpus of `owned` samples, cut down as `config` says.

    Of the owners to `forget` the last `config.forget_owners` stay, of the others the first, so that `config.owners` are
    left in all; of each the first `config.rows_per_owner` samples. Test, holdout and attacks keep their order.

    Raises:
        DataError: Nobody would be left to retain, or fewer owners are there than are wanted.
    """
    gone = list(forget)
    if config.forget_owners is not None:
        if config.forget_owners > len(gone):
            raise DataError(
                f"data.forget_owners={config.forget_owners}: data={_name(config)} forgets {len(gone)} owners.",
                f"Give 1 to {len(gone)}, or null for all.",
            )
        gone = gone[-config.forget_owners :]
    others = [owner for owner in owned if owner not in set(forget)]
    if config.owners is not None:
        left = config.owners - len(gone)
        if not 1 <= left <= len(others):
            raise DataError(
                f"data.owners={config.owners}: {len(gone)} of them are forgotten, {len(others)} can stay.",
                f"Give {len(gone) + 1} to {len(gone) + len(others)}, or change data.forget_owners.",
            )
        others = others[:left]
    if not others:
        raise DataError(f"data={_name(config)} would leave no owner to retain.", "Forget fewer owners.")
    kept = set(gone) | set(others)
    samples = [s for owner in owned if owner in kept for s in list(owned[owner])[: config.rows_per_owner]]
    return Corpus(
        samples=tuple(samples),
        test=tuple(test),
        task=task,
        teach_test=config.teach_test,
        holdout=tuple(holdout),
        calibration=tuple(calibration),
        attacks=tuple(s for s in attacks if s.owner in kept),
        forget_owners=tuple(owner for owner in owned if owner in gone),
        notes=tuple(notes),
    )


def _name(config: HubSource) -> str:
    return str(getattr(config, "name", "hub"))


def numbered(samples: Sequence[Sample], prefix: str) -> tuple[Sample, ...]:
    """`samples` with the ids "prefix/000", "prefix/001", …."""
    return tuple(replace(s, id=f"{prefix}/{i:03d}") for i, s in enumerate(samples))


def texts_of_owner(owner: str, texts: Sequence[str]) -> list[Sample]:
    """Plain texts of one owner, for the completion task."""
    return [Sample(f"{owner}/{i:02d}", owner, "", text) for i, text in enumerate(texts)]
