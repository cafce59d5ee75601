"""RWKU (Jin et al. 2024, arXiv 2406.10890): what models know of 200 real persons.

The benchmark gives no texts to learn: a model knows the persons from pretraining, so give it as `original`. Owners are
the persons; level 1 (fill the gap) and level 2 (questions) are their samples, level 3 (nine kinds of attack) their
attacks; questions about their neighbours are the test set.
"""

from dareu.config import RwkuConfig
from dareu.data.corpus import Corpus, Sample
from dareu.data.owner_names import named_among
from dareu.data.readers import Row
from dareu.data.sources.hub import make_corpus, numbered, repository_rows, text

REPOSITORY = "jinzhuoran/RWKU"
GAP = "Fill the gap: "


def load_rwku(config: RwkuConfig) -> Corpus:
    """Probes of all persons; `config.persons` are forgotten, or the last one.

    Raises:
        DataError: Rows cannot be read, or a person is not among them.
    """
    owned: dict[str, list[Sample]] = {}
    for level in (1, 2):
        for row in repository_rows(config, REPOSITORY, f"forget_level{level}", "test"):
            person = text(row, "subject")
            own = owned.setdefault(person, [])
            own.append(_probe(f"{person}/{len(own):02d}", person, row, f"level{level}"))
    attacks = [
        _probe("", text(row, "subject"), row, "level3", kind=str(row.values.get("type") or "attack"))
        for row in repository_rows(config, REPOSITORY, "forget_level3", "test")
    ]
    test: list[Sample] = []
    for level in (1, 2):
        probes = [
            _probe("", None, row, f"neighbor{level}")
            for row in repository_rows(config, REPOSITORY, f"neighbor_level{level}", "test")
        ]
        test += numbered(probes, f"neighbor{level}")
    known = list(owned)
    named = known[-1:] if config.persons is None else config.persons
    gone = named_among(named, known, "data.persons", "who is not in RWKU")
    return make_corpus(config, owned, gone, test=test, attacks=numbered(attacks, "attack"))


def _probe(name: str, owner: str | None, row: Row, subset: str, kind: str = "") -> Sample:
    query = text(row, "query")
    gap = "___" in query
    return Sample(
        name,
        owner,
        GAP + query if gap and subset in ("level1", "neighbor1") else query,
        text(row, "answer"),
        kind=kind or ("cloze" if gap else "open"),
        subset=subset,
    )
