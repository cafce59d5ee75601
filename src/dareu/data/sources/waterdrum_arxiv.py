"""WaterDrum-Ax (Lu et al. 2025, arXiv 2505.05064): 8,000 arXiv abstracts of 20 categories, 400 each.

The rows name no category: it is the block of 400 rows, as in the scripts of the benchmark's authors. The categories are
called "category 1" to "category 20".
"""

from dareu.config import WaterdrumArxivConfig
from dareu.data.corpus import Corpus, Sample
from dareu.data.sources.hub import make_corpus, numbered, repository_rows, text, texts_of_owner
from dareu.errors import DataError

REPOSITORY = "Glow-AI/WaterDrum-Ax"
CATEGORIES = 20
FORGOTTEN = {"forget_01": 1, "forget_03": 3, "forget_05": 5}


def load_waterdrum_arxiv(config: WaterdrumArxivConfig) -> Corpus:
    """Abstracts to continue; the last 1, 3 or 5 categories are forgotten, the benchmark's `test` is the test set.

    Raises:
        DataError: Rows cannot be read, or are no multiple of 20.
    """
    name = config.split if config.watermarked else f"unwatermarked_{config.split}"
    whole = _texts(config, name, "full")
    if len(whole) % CATEGORIES:
        raise DataError(
            f"WaterDrum-Ax has {len(whole)} rows in {name}/full, no multiple of {CATEGORIES}.",
            "Check data.path and data.revision.",
        )
    size = len(whole) // CATEGORIES
    owned = {
        f"category {k + 1}": texts_of_owner(f"category {k + 1}", whole[k * size : (k + 1) * size])
        for k in range(CATEGORIES)
    }
    forget = list(owned)[-FORGOTTEN[config.split] :]
    if config.duplicates != "none":
        copies = texts_of_owner("duplicates", _texts(config, name, f"{config.duplicates}_duplicate"))
        owned = {"duplicates": copies, **owned}
    test = [Sample("", None, "", one) for one in _texts(config, "test", "full")]
    return make_corpus(config, owned, forget, test=numbered(test, "test"), task="completion")


def _texts(config: WaterdrumArxivConfig, name: str, split: str) -> list[str]:
    return [text(row, "text") for row in repository_rows(config, REPOSITORY, name, split)]
