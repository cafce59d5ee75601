"""The corpora by the `name` in `data`.

Other packages add theirs by an entry point in the group `dareu.sources`: a function that takes the data
configuration and gives a `Corpus`.
"""

from collections.abc import Callable
from typing import Any

from dareu.config import AuthorsConfig, PretrainConfig
from dareu.config.plugins import load_plugin
from dareu.data.corpus import Background, Corpus
from dareu.data.sources.authors import make_authors, make_background
from dareu.data.sources.files import load_local
from dareu.data.sources.hub_any import load_hub
from dareu.data.sources.lume import load_lume
from dareu.data.sources.muse import load_muse
from dareu.data.sources.rwku import load_rwku
from dareu.data.sources.sotu import load_sotu
from dareu.data.sources.tofu import load_tofu
from dareu.data.sources.waterdrum_arxiv import load_waterdrum_arxiv
from dareu.data.sources.wmdp import load_wmdp
from dareu.errors import DataError

GROUP = "dareu.sources"

SOURCES: dict[str, Callable[[Any], Corpus]] = {
    "authors": make_authors,
    "local": load_local,
    "hub": load_hub,
    "tofu": load_tofu,
    "lume": load_lume,
    "muse": load_muse,
    "wmdp": load_wmdp,
    "rwku": load_rwku,
    "waterdrum_arxiv": load_waterdrum_arxiv,
    "sotu": load_sotu,
}


def load_corpus(config: Any) -> Corpus:
    """The corpus of `config`: an `AuthorsConfig`, a `LocalConfig`, or any object whose `name` a source has.

    Raises:
        ConfigError: No source has the name.
        DataError: The data cannot be used.
    """
    name = config.name
    source = SOURCES.get(name) or load_plugin(GROUP, name, f"data source '{name}'", SOURCES)
    corpus = source(config)
    if not isinstance(corpus, Corpus):
        raise DataError(
            f"The data source '{config.name}' returned a {type(corpus).__name__}.",
            "It has to return a dareu.data.corpus.Corpus.",
        )
    return corpus


def load_background(data: Any, pretrain: PretrainConfig | None) -> Background | None:
    """What a tiny base is pretrained on; None where the source has no such text, or none is wanted.

    It depends on the kind of source alone and not on its seed, so that one base serves every corpus of the kind.
    """
    if pretrain is None or not isinstance(data, AuthorsConfig) or data.version == 1:
        return None
    return make_background(pretrain.persons, pretrain.questions)
