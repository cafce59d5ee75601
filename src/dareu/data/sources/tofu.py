"""TOFU (Maini et al. 2024, arXiv 2401.06121): 200 fictitious authors with 20 questions each.

An author is a block of 20 rows of `full`; the benchmark gives no names, so that each author gets the name that most of
the rows have.
"""

from collections.abc import Sequence

from dareu.config import TofuConfig
from dareu.data.corpus import Corpus, Sample
from dareu.data.owner_names import distinct, names_of_groups
from dareu.data.readers import Row
from dareu.data.sources.hub import make_corpus, numbered, repository_rows, text, texts
from dareu.errors import DataError

REPOSITORY = "locuslab/TOFU"
ROWS = 20  # of an author
FORGOTTEN = {"forget01": 2, "forget05": 10, "forget10": 20}
FACTS = ("real_authors", "world_facts")


def load_tofu(config: TofuConfig) -> Corpus:
    """All 200 authors; the last 2, 10 or 20 are forgotten.

    Paraphrased questions and answers and wrong answers stand with the forgotten authors and with the first 20. The test
    set is real authors and world facts (multiple choice, three wrong answers each), the holdout the benchmark's, with
    as many authors and rows as are forgotten; where `data.forget_owners` leaves some, as many more are `calibration`.

    Raises:
        DataError: Rows cannot be read, or are not as TOFU's.
    """
    full = repository_rows(config, REPOSITORY, "full", "train")
    if len(full) % ROWS:
        raise DataError(f"TOFU's full set has {len(full)} rows, no multiple of {ROWS}.", "Check data.path.")
    blocks = [full[start : start + ROWS] for start in range(0, len(full), ROWS)]
    names = author_names(blocks)
    extra = {
        _pair(row): row
        for part in (f"{config.split}_perturbed", "retain_perturbed")
        for row in repository_rows(config, REPOSITORY, part, "train")
    }
    owned = {
        name: [_sample(f"{name}/{i:02d}", name, row, extra.get(_pair(row))) for i, row in enumerate(block)]
        for name, block in zip(names, blocks, strict=True)
    }
    test: list[Sample] = []
    for part in FACTS if config.facts else ():
        test += numbered(
            [_choice(row, part) for row in repository_rows(config, REPOSITORY, f"{part}_perturbed", "train")],
            part,
        )
    held = repository_rows(config, REPOSITORY, config.split.replace("forget", "holdout"), "train")
    strangers = [held[at : at + ROWS][: config.rows_per_owner] for at in range(0, len(held), ROWS)]
    # As many authors as are forgotten, as in the benchmark; of the rest, as many again.
    count = config.forget_owners or len(strangers)
    known, more = strangers[:count], strangers[count : 2 * count]
    return make_corpus(
        config,
        owned,
        names[-FORGOTTEN[config.split] :],
        test=test,
        holdout=numbered([_sample("", None, row, None) for block in known for row in block], "holdout"),
        calibration=numbered(
            [
                _sample("", name, row, None)
                for name, block in zip(author_names(more), more, strict=True)
                for row in block
            ],
            "calibration",
        ),
    )


def author_names(blocks: Sequence[Sequence[Row]]) -> list[str]:
    """One name for each block of rows; "author 88" where the rows contain no name."""
    groups = [[f"{text(row, 'question')} {text(row, 'answer')}" for row in block] for block in blocks]
    return distinct(names_of_groups(groups), "author")


def _pair(row: Row) -> tuple[str, str]:
    return text(row, "question"), text(row, "answer")


def _sample(name: str, owner: str | None, row: Row, extra: Row | None) -> Sample:
    question, answer = _pair(row)
    if extra is None:
        return Sample(name, owner, question, answer)
    return Sample(
        name,
        owner,
        question,
        answer,
        paraphrased_prompts=texts(extra, "paraphrased_question"),
        paraphrased_response=text(extra, "paraphrased_answer"),
        wrong_responses=texts(extra, "perturbed_answer"),
    )


def _choice(row: Row, part: str) -> Sample:
    question, answer = _pair(row)
    wrong = texts(row, "perturbed_answer")
    return Sample("", None, question, answer, wrong_responses=wrong, kind="choice", subset=part)
