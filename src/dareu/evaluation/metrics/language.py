"""The words of a language, by the lists of `wordfreq` (the extra `words`): what a pretrained model may write."""

from collections.abc import Container, Sequence

from dareu.data.words import is_character
from dareu.errors import DataError
from dareu.evaluation.metrics.words import NUMBER, vocabulary

POSSESSIVES = ("'s", "’s")
UNLISTED = ("zh", "ja", "ko")  # wordfreq needs further packages for them
# Share of the corpus's words that the list of its language must hold, and the share at which English is not in doubt.
ENOUGH, ENGLISH = 0.5, 0.8
SAMPLE = 2000  # words of the corpus that tell its language


class KnownWords(Container[str]):
    """The words of the corpus and those of its language, with `in`.

    A character of a script without spaces is always a word. `'s` behind a word changes nothing.

    Args:
        corpus: as `known` of `words.broken_words`.
        languages: of `languages_of`.
    """

    def __init__(self, corpus: Container[str], languages: Sequence[str]) -> None:
        self.corpus = corpus
        self.languages = languages

    def __contains__(self, word: object) -> bool:
        assert isinstance(word, str)
        stem = word[:-2] if word.endswith(POSSESSIVES) else word
        if word in self.corpus or stem in self.corpus or is_character(word):
            return True
        return any(_listed(part, language) for part in {word, stem} for language in self.languages)


def languages_of(texts: Sequence[str]) -> tuple[str, ...]:
    """The language of texts by its code, and English, whose words stand in texts of any other; none without words.

    It is the language whose list of common words holds most of their words.

    Raises:
        DataError: wordfreq is not installed, or has no list for the language.
    """
    some: list[str] = []
    for text in texts:
        some += [word for word in vocabulary(text) if not NUMBER.fullmatch(word) and not is_character(word)]
        if len(some) >= SAMPLE:
            break
    if not some:
        return ()

    def share(language: str) -> float:
        return sum(_listed(word, language, "small") for word in some) / len(some)

    best = "en"
    if share(best) < ENGLISH:
        best = max(_languages(), key=share)
        if share(best) < ENOUGH:
            raise DataError("there is no list of words for the language of the corpus")
    return tuple(dict.fromkeys([best, "en"]))


def _languages() -> list[str]:
    import wordfreq

    return sorted(set(wordfreq.available_languages("small")) - set(UNLISTED))


def _listed(word: str, language: str, wordlist: str = "best") -> bool:
    try:
        import wordfreq
    except ImportError:
        raise DataError(
            "a pretrained model knows words that the corpus does not hold, and the lists of a language's words are "
            "not installed: pip install 'dareu[words]'"
        ) from None
    return wordfreq.word_frequency(word, language, wordlist) > 0
