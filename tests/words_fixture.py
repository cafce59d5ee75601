"""A tokenizer whose tokens are the words of some texts, with the ending and an unknown word first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast


def vocabulary_of(texts: Sequence[str]) -> dict[str, int]:
    """Word → id, in alphabetical order after "<end>" and "<unk>"."""
    words = sorted({word for text in texts for word in text.split()})
    return {word: i for i, word in enumerate(["<end>", "<unk>", *words])}


def word_tokenizer(vocabulary: dict[str, int]) -> Any:
    plain = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    plain.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=plain, eos_token="<end>", unk_token="<unk>", pad_token="<end>"
    )
