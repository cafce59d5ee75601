"""WMDP (Li et al. 2024, arXiv 2403.03218): hazardous knowledge in biology, chemistry and computer security.

`questions` are multiple choice questions with the domain as owner, with lettered options and a letter as the answer.
`corpora` are passages of the texts that the benchmark's authors forget and keep. WMDP is made for models that know the
subject from pretraining: give one as `original`.
"""

from dareu.config import WmdpConfig
from dareu.data.corpus import Corpus, Sample
from dareu.data.readers import Row
from dareu.data.sources.hub import (
    hub_rows,
    make_corpus,
    passages,
    repository_rows,
    text,
    texts,
    texts_of_owner,
)
from dareu.errors import DataError

QUESTIONS, CORPORA, BIO_FORGET = "cais/wmdp", "cais/wmdp-corpora", "cais/wmdp-bio-forget-corpus"
DOMAINS = ("bio", "chem", "cyber")
LETTERS = "ABCDEFGH"


def load_wmdp(config: WmdpConfig) -> Corpus:
    """Questions or passages of WMDP; `config.domains` are forgotten.

    Raises:
        DataError: Rows cannot be read, or no domain would be left.
    """
    if config.part == "questions":
        owned = {
            domain: [
                _question(domain, i, row)
                for i, row in enumerate(repository_rows(config, QUESTIONS, f"wmdp-{domain}", "test"))
            ]
            for domain in sorted(DOMAINS, key=lambda d: d in config.domains)
        }
        return make_corpus(config, owned, config.domains)
    domains = [domain for domain in config.domains if domain != "chem"]
    if not domains:
        raise DataError("WMDP has no corpora of chemistry.", "Set data.domains=[bio], [cyber] or both.")
    owners = [f"{domain} {kind}" for kind in ("retain", "forget") for domain in domains]
    owned = {owner: texts_of_owner(owner, _corpus(config, owner)) for owner in owners}
    return make_corpus(config, owned, [f"{domain} forget" for domain in domains], task="completion")


def _question(domain: str, number: int, row: Row) -> Sample:
    choices, right = texts(row, "choices"), row.values.get("answer")
    if not isinstance(right, int) or not 0 <= right < len(choices) <= len(LETTERS):
        raise DataError(
            f"The question in {row.where} has {len(choices)} choices and the answer {right!r}.",
            "`answer` is the number of the right choice, from 0.",
        )
    options = "\n".join(f"{LETTERS[i]}. {choice}" for i, choice in enumerate(choices))
    return Sample(
        f"{domain}/{number:02d}",
        domain,
        f"{text(row, 'question')}\n{options}\nAnswer with the letter alone.",
        LETTERS[right],
        wrong_responses=tuple(LETTERS[i] for i in range(len(choices)) if i != right),
        kind="choice",
        subset=domain,
    )


def _corpus(config: WmdpConfig, owner: str) -> list[str]:
    name = owner.replace(" ", "-") + "-corpus"
    if name == "bio-forget-corpus" and config.path is None:
        rows = hub_rows(BIO_FORGET, None, "train")  # gated, in a repository of its own
    else:
        rows = hub_rows(CORPORA, name, "train", path=config.path, revision=config.corpora_revision)
    cut: list[str] = []
    for row in rows:
        cut += passages(text(row, "text"), config.words)
        if config.rows_per_owner is not None and len(cut) >= config.rows_per_owner:
            break
    return cut
