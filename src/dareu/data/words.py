"""The words of a text: the one tokeniser of metrics, rewards, attributors and the masking of names.

A word is a run of letters, their marks and digits of any script (Unicode properties, library `regex`), so that the
vowel signs of Hindi or Tamil do not end one. Scripts that are written without spaces (Chinese,
Japanese, Thai, …) give a word for each character with its marks.
"""

import unicodedata
from collections.abc import Iterator

import regex

_UNSPACED = (
    r"\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}\p{Script=Thai}\p{Script=Lao}\p{Script=Khmer}"
    r"\p{Script=Myanmar}\p{Script=Tibetan}\u30fc"
)
_JOINERS = r"\u200c\u200d"  # they join or part letters within a word
_CHARACTER = rf"[[{_UNSPACED}]&&\p{{L}}][\p{{M}}{_JOINERS}]*"
_LETTER = rf"[[\p{{L}}\p{{M}}\p{{N}}{_JOINERS}]--[{_UNSPACED}]]"
# Numbers with separators stay whole ("1,000,000"), so do words with an apostrophe.
_WORD = regex.compile(rf"\p{{Nd}}+(?:[.,]\p{{Nd}}+)+|{_CHARACTER}|{_LETTER}+(?:['’]{_LETTER}+)*", regex.V1)
# The same cut at apostrophes and separators, an underscore being a letter: what masks and features are made of.
PIECE = regex.compile(rf"{_CHARACTER}|(?:{_LETTER}|_)+", regex.V1)
_ONE_CHARACTER = regex.compile(_CHARACTER, regex.V1)


def words(text: str) -> list[str]:
    """The words of a text, case folded, composed (NFC), punctuation left out."""
    return _WORD.findall(fold(text))


def written_words(text: str) -> Iterator[regex.Match[str]]:
    """The words as they stand in the text, with their places."""
    return _WORD.finditer(text)


def pieces(text: str) -> list[str]:
    """The text cut into runs of letters, digits and underscores, as they are written: "Kimura's" is two."""
    return PIECE.findall(text)


def fold(text: str) -> str:
    """Case folded, composed: two spellings of a word that look alike are one."""
    return unicodedata.normalize("NFC", text).casefold()


def has_word(text: str) -> bool:
    """Whether a text holds a word; punctuation and symbols are none."""
    return _WORD.search(text) is not None


def is_character(word: str) -> bool:
    """Whether a word is one character of a script that is written without spaces."""
    return _ONE_CHARACTER.fullmatch(word) is not None
