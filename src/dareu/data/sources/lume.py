"""LUME (Ramakrishna et al. 2025, arXiv 2502.15097): synthetic stories (task 1) and synthetic persons (task 2).

Its owners are what the id has before its last part; a person is called by the name that stands in most of the rows.
The answers of task 2 *are* the fact (a number, an address), so that exact match says more than ROUGE.
"""

import re
from dataclasses import replace

from dareu.config import LumeConfig
from dareu.data.corpus import Corpus, Sample
from dareu.data.owner_names import distinct, names_of_groups
from dareu.data.readers import Row
from dareu.data.sources.hub import local_files, make_corpus, numbered, repository_rows, text
from dareu.errors import DataError

REPOSITORY = "llmunlearningsemeval2025organization/semeval25-unlearning-dataset-public"  # gated
_ID = re.compile(r'"?(?P<owner>[^"]+?)"?(?P<kind>sc|qa)\d*')
KINDS = {"questions": "qa", "texts": "sc"}


def load_lume(config: LumeConfig) -> Corpus:
    """The owners of one task, those to forget last.

    Texts to continue (`sc`) and questions (`qa`) are both rendered as a user's turn and an answer. LUME has no holdout;
    where `data.forget_owners` leaves some of those it forgets, as many are the holdout and as many more `calibration`.

    Raises:
        DataError: Rows cannot be read, or an id is not as LUME's.
    """
    forget, retain = _owners(config, "forget"), _owners(config, "retain")
    groups = {**retain, **forget}
    if config.task == 2:
        names = distinct(
            names_of_groups([[text(row, "input") for row, _ in rows] for rows in groups.values()]), "person"
        )
    else:
        names = [f"story {owner[:8]}" for owner in groups]
    called = dict(zip(groups, names, strict=True))
    if len(set(called.values())) < len(called):
        called = {owner: f"story {owner}" for owner in groups}
    owned = {
        called[owner]: [
            Sample(
                f"{called[owner]}/{i:02d}",
                called[owner],
                text(row, "input"),
                text(row, "output"),
                kind="open" if kind == "qa" else "text",
            )
            for i, (row, kind) in enumerate(rows)
        ]
        for owner, rows in groups.items()
    }
    gone = [called[owner] for owner in forget]
    # Of those whom the benchmark forgets, the ones that this part of it leaves out are known to no model.
    count = config.forget_owners or len(gone)
    blocks = [owned[name][: config.rows_per_owner] for name in reversed(gone[:-count])]
    known, more = (
        [s for block in part for s in block] for part in (blocks[:count], blocks[count : 2 * count])
    )
    return make_corpus(
        config,
        owned,
        gone,
        holdout=numbered([replace(s, owner=None) for s in known], "holdout"),
        calibration=numbered(more, "calibration"),
    )


def _owners(config: LumeConfig, part: str) -> dict[str, list[tuple[Row, str]]]:
    """Owner → rows of one task, each with "qa" or "sc"."""
    split = part if config.path and _has(config.path, part) else f"{part}_train"
    rows = repository_rows(config, REPOSITORY, None, split)
    owners: dict[str, list[tuple[Row, str]]] = {}
    for row in rows:
        if text(row, "task") != f"Task{config.task}":
            continue
        match = _ID.fullmatch(text(row, "id"))
        if match is None:
            raise DataError(
                f"The id in {row.where} is not as LUME's: {text(row, 'id')!r}.",
                "It has an owner, `sc` or `qa`, and a number.",
            )
        if config.rows == "all" or match["kind"] == KINDS[config.rows]:
            owners.setdefault(match["owner"], []).append((row, match["kind"]))
    if not owners:
        raise DataError(f"The {part} set has no rows of Task{config.task}.", "Check data.path and data.task.")
    return owners


def _has(path: str, split: str) -> bool:
    from pathlib import Path

    try:
        return bool(local_files(Path(path).expanduser(), None, split))
    except DataError:
        return False
