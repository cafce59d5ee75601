"""The words of a text, for metrics and attributors alike."""

from __future__ import annotations

import re

# Numbers with separators stay whole ("1,000,000"), so do words with an apostrophe; scripts written without
# spaces give a word for each ideograph or kana. An underscore is no part of a word.
_IDEOGRAPH = r"\u3040-\u30ff\u3400-\u9fff"
_WORD = re.compile(rf"\d+(?:[.,]\d+)+|[{_IDEOGRAPH}]|[^\W_{_IDEOGRAPH}]+(?:['’][^\W_]+)*")


def words(text: str) -> list[str]:
    """The words of a text, case folded, punctuation left out."""
    return _WORD.findall(text.casefold())


def has_word(text: str) -> bool:
    """Whether a text holds a word; punctuation and symbols are none."""
    return _WORD.search(text.casefold()) is not None
