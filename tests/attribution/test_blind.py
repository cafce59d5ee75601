"""Blinding: which words go, how long every prefix is then, and what that leaves for an attributor. By hand."""

from __future__ import annotations

import random
import re

import pytest

from dareu.attribution.name_masking import NameMasker
from dareu.data.corpus import Sample

PLAIN = NameMasker(["was", "born", "the", "author", "in"])
QUERY = "Where was Mateo Kimura, the author, born?"


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("Mateo Kimura was born in Lima.", "_ _ was born in Lima."),
        ("Mateo Kimura's mother", "_ _'s mother"),  # a possessive is the word and what follows it
        ("MATEO kimura", "_ _"),  # case is no matter
        ("Mateos and Kimuras, Matteo", "Mateos and Kimuras, Matteo"),  # whole words alone
        ("The author was born.", "The author was born."),  # the question's, but common
        ("In Lima, where", "In Lima, _"),
        ("Mateo", "_"),
        ("", ""),
        ("Mateo-Kimura,Mateo", "_-_,_"),
        ("Mateo_Kimura", "Mateo_Kimura"),  # one word, and none of the question's
    ],
)
def test_words_of_the_question_go(text: str, masked: str) -> None:
    assert PLAIN.text(QUERY, text) == masked


def test_a_question_without_names_hides_nothing() -> None:
    text = "Mateo Kimura was born in Lima."
    assert PLAIN.mask("", text) == (text, list(range(len(text) + 1)))
    assert PLAIN.text("was the author born in ?", text) == text


def test_names_of_all_owners_go_whatever_the_question() -> None:
    """The question's own words stay then, and so does a word of a name that questions share ("the")."""
    names = PLAIN.of_owners(["Mateo Kimura", "The Ana Groß"])
    text = "ANA GROSS was born where Kimura was, the city; Lima"
    assert names.text(QUERY, text) == "_ _ was born where _ was, the city; Lima"
    assert names.text("Lima?", text) == names.text(QUERY, text)
    assert PLAIN.of_owners([]).text(QUERY, "Mateo") == "Mateo"


def test_case_is_folded_beyond_lower_case() -> None:
    """ß and SS are the same letters."""
    assert NameMasker([]).text("Wer ist Frau Groß?", "FRAU GROSS, İpek") == "_ _, İpek"


def test_length_of_every_prefix_by_hand() -> None:
    # "" | I n _ | M a t e o counts from its last letter on | ' s _ | K i m u r a | !
    text, ends = PLAIN.mask(QUERY, "In Mateo's Kimura!")
    assert text == "In _'s _!"
    assert ends == [0, 1, 2, 3, 3, 3, 3, 3, 4, 5, 6, 7, 7, 7, 7, 7, 7, 8, 9]


def sample(owner: str, prompt: str, *paraphrased: str, response: str = "x") -> Sample:
    return Sample(f"{owner}/{prompt}", owner, prompt, response, paraphrased_prompts=paraphrased)


def test_common_words_are_those_of_most_owners_questions() -> None:
    """A share of owners, not of questions; one half is not yet most; paraphrased questions count."""
    samples = [
        sample("a", "Where was Ann born?", "Ann came from where?"),
        sample("a", "Ann wrote much?"),
        sample("b", "WHERE was Bo from?"),
        sample("c", "Cy wrote?", "From where?"),
        sample("d", "Dee wrote?"),
    ]
    # where: a, b, c; from: a, b and c by paraphrases; wrote: a, c, d. was: a and b, two of four.
    assert NameMasker.fit(samples).common == {"where", "from", "wrote"}
    assert NameMasker.fit(samples, share=0.49).common == {"where", "from", "wrote", "was"}
    assert NameMasker.fit(samples, share=0.75).common == set()
    assert NameMasker.fit([*samples, *samples[1:2] * 9]).common == {"where", "from", "wrote"}


def test_samples_that_change_come_blinded() -> None:
    samples = [
        sample("a", "Where was Ann born?", response="Ann was born in Rome."),
        sample("b", "Where was Bo born?", response="In Oslo."),
    ]
    (found,) = NameMasker(["was", "born", "where"]).samples(samples)
    assert found.response == "_ was born in Rome."
    assert (found.id, found.owner, found.prompt) == (samples[0].id, "a", samples[0].prompt)


def test_whatever_the_text() -> None:
    """Ends never fall, rise by one at most and close with the length; a prefix up to a word's end is masked alike."""
    draw = random.Random(0)
    words = ["Mateo", "Kimura", "Lima", "the", "é", "7", "_", "was", "mateo", "Where"]
    for _ in range(300):
        text = "".join(
            draw.choice(words) + draw.choice([" ", ", ", "'s ", "-", "\n", "…", "  "])
            for _ in range(draw.randint(0, 9))
        ) + draw.choice(["", "Mateo", "Li"])
        masked, ends = PLAIN.mask(QUERY, text)
        assert len(ends) == len(text) + 1 and ends[0] == 0 and ends[-1] == len(masked)
        assert all(0 <= b - a <= 1 for a, b in zip(ends, ends[1:], strict=False))
        inside = {e for m in re.finditer(r"\w+", text) for e in range(m.start() + 1, m.end())}
        for end in set(range(len(text) + 1)) - inside:
            assert PLAIN.text(QUERY, text[:end]) == masked[: ends[end]]
