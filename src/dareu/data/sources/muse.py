"""MUSE (Shi et al. 2024, arXiv 2407.06460): news or books to forget, and others of the same kind to keep.

It knows no owners: its parts (`forget`, `retain1`, `retain2`) are the owners here. `verbatim` cuts the texts of `raw`
into passages to continue, with `holdout` for membership inference; `knowledge` are the questions of `knowmem`.
"""

from dareu.config import MuseConfig
from dareu.data.corpus import Corpus, Sample
from dareu.data.readers import Row
from dareu.data.sources.hub import hub_rows, make_corpus, numbered, passages, text, texts_of_owner
from dareu.errors import DataError

REPOSITORY = {"news": "muse-bench/MUSE-News", "books": "muse-bench/MUSE-Books"}
# The newest commits known; `data.revision` takes another.
REVISION = {
    "news": "506bd5b150b92814d45e4404a82f120ab2d748bf",
    "books": "3196c695a8c3fb77af43536340c6557d1a9a0b00",
}
PARTS = ("retain1", "retain2", "forget")
QUESTIONS = {"retain": ("retain_qa", "retain2_qa"), "forget": ("forget_qa",)}  # split names, the older last


def load_muse(config: MuseConfig) -> Corpus:
    """Passages or questions of MUSE; the owner `forget` is forgotten.

    Raises:
        DataError: Rows cannot be read.
    """
    if config.part == "knowledge":
        owned = {owner: _questions(config, owner) for owner in QUESTIONS}
        return make_corpus(config, owned, ["forget"])
    cut = {part: _passages(config, part) for part in (*PARTS, "holdout")}
    held = numbered([Sample("", None, "", passage) for passage in cut.pop("holdout")], "holdout")
    owned = {part: texts_of_owner(part, cuts) for part, cuts in cut.items()}
    return make_corpus(config, owned, ["forget"], holdout=held, task="completion")


def _passages(config: MuseConfig, part: str) -> list[str]:
    cut = [p for row in _rows(config, "raw", part) for p in passages(text(row, "text"), config.words)]
    return cut[: config.rows_per_owner]


def _questions(config: MuseConfig, owner: str) -> list[Sample]:
    *others, last = QUESTIONS[owner]
    rows = None
    for split in others:
        try:
            rows = _rows(config, "knowmem", split)
            break
        except DataError:
            continue
    rows = rows or _rows(config, "knowmem", last)
    return [
        Sample(f"{owner}/{i:02d}", owner, text(row, "question"), text(row, "answer"))
        for i, row in enumerate(rows)
    ]


def _rows(config: MuseConfig, name: str, split: str) -> list[Row]:
    revision = config.revision or REVISION[config.corpus]
    return hub_rows(REPOSITORY[config.corpus], name, split, path=config.path, revision=revision)
