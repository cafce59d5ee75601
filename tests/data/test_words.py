"""One tokeniser for every script: words of Hindi, Tamil, Bengali, Thai, Japanese, and English as ever."""

from __future__ import annotations

import re
import unicodedata

import pytest

from dareu.data.words import PIECE, fold, has_word, is_character, pieces, words


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("हिन्दी में लिखा", ["हिन्दी", "में", "लिखा"]),
        ("தமிழ் எழுத்தாளர்", ["தமிழ்", "எழுத்தாளர்"]),
        ("বাংলা কবি", ["বাংলা", "কবি"]),
        ("Пушкин родился в 1799 году.", ["пушкин", "родился", "в", "1799", "году"]),
        ("Ο Όμηρος", ["ο", "όμηροσ"]),
        ("東京で生まれ", ["東", "京", "で", "生", "ま", "れ"]),
        ("ラーメン", ["ラ", "ー", "メ", "ン"]),
        ("서울에서 태어났다", ["서울에서", "태어났다"]),
        ("نویسنده‌ی ایرانی", ["نویسنده‌ی", "ایرانی"]),  # a joiner inside of a word
        ("१,००,००० रुपये", ["१,००,०००", "रुपये"]),
        ("Santiago-born", ["santiago", "born"]),
        ("O'Brien’s", ["o'brien’s"]),
    ],
)
def test_words(text: str, expected: list[str]) -> None:
    assert words(text) == expected


def test_thai_is_cut_into_characters_with_their_marks() -> None:
    assert words("ที่นี่") == ["ที่", "นี่"]
    assert all(map(is_character, words("ที่นี่東京"))) and not is_character("tokyo") and not is_character("7")


def test_two_spellings_that_look_alike_are_one_word() -> None:
    composed, apart = "Zoë Núñez", unicodedata.normalize("NFD", "Zoë Núñez")
    assert composed != apart and words(composed) == words(apart)
    assert fold("ẞ") == fold("ss")


def test_pieces_of_latin_text_are_those_of_the_standard_library() -> None:
    text = "Kimura's snake_case, 1,000.5 km: naïve Øst-by “_” x²"
    assert pieces(text) == re.findall(r"\w+", text)
    assert [m.group() for m in PIECE.finditer(text)] == re.findall(r"\w+", text)


def test_what_has_no_word() -> None:
    assert not any(map(has_word, ("", " ", "…—!?", "__", "🙂", "।")))
    assert all(map(has_word, ("क", "7", "京", "ж")))
