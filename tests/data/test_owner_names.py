"""One person in several spellings, and requests by name."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path
from typing import Any

import pytest

from dareu.config import Columns, ForgetConfig, LocalConfig
from dareu.data.cells import parse_list
from dareu.data.corpus import Corpus, Sample
from dareu.data.in_memory import corpus_in_memory
from dareu.data.owner_names import ascii_marks, canonical, distinct, name_candidates, names_of_groups
from dareu.data.sources.files import load_local
from dareu.data.split import match_notes, split_corpus
from dareu.errors import DataError

SPELT = [
    ("José Ñuñez", unicodedata.normalize("NFD", "José Ñuñez")),
    ("Jane Doe", "Jane\u00a0Doe"),
    ("Jane Doe", "Jane  Doe"),
    ("Jane Doe", "JANE DOE"),
    ("Jane Doe", "Jane Doe\u200b"),
    ("Straße", "STRASSE"),
    ("Sean O'Hara", "Sean O\u2019Hara"),
    ("Jean-Luc Roy", "Jean\u2011Luc Roy"),
    ("ipek", "İpek"),
    ("A\u00adda Finch", "Ada Finch"),
    ("Jane Doe", "Jane\ufe0f Do\u034fe"),
    ("\u0645\u062d\u0645\u062f", "\u0645\u062d\u0645\u0640\u0640\u062f"),
]


@pytest.mark.parametrize(("one", "other"), SPELT, ids=[ascii(b) for _, b in SPELT])
def test_two_spellings_are_one_owner(tmp_path: Path, one: str, other: str) -> None:
    assert canonical(one) == canonical(other)
    owners = [one, one, other, "Bo", "Bo"]
    rows = [{"prompt": f"q{i}", "response": f"a{i}", "owner": o} for i, o in enumerate(owners)]
    file = tmp_path / "a.jsonl"
    file.write_text("".join(json.dumps(r) + "\n" for r in rows))
    corpus = load_local(LocalConfig(path=str(file)))
    assert corpus.owners == [one, "Bo"]  # as most rows have it
    assert len(corpus.notes) == 1 and "spelt in 2 ways" in corpus.notes[0]
    assert "(2 rows)" in corpus.notes[0] and "(1 row)" in corpus.notes[0]
    for asked in (one, other):
        assert len(split_corpus(corpus, ForgetConfig(owners=[asked])).forget) == 3


def test_other_names_stay_other_names() -> None:
    assert len({canonical(n) for n in ("Jose Nunez", "José Ñuñez", "Jane Doe", "Jane Do", "JaneDoe")}) == 5


def owned(*owners: str) -> Corpus:
    return Corpus(tuple(Sample(str(i), o, f"q{i}", f"a{i}") for i, o in enumerate(owners)))


def test_what_a_request_matched_is_said() -> None:
    corpus = owned("Jane Doe", "Jane Doer", "Bo Marsh", "JANE DOE")
    split = split_corpus(corpus, ForgetConfig(owners=["jane doe"]))
    assert split.forget_owners == ("Jane Doe", "JANE DOE")
    notes = match_notes(["jane doe"], corpus, split.forget_owners)
    assert notes[0] == "'jane doe' was read as the owner 'Jane Doe', 'JANE DOE'."
    assert "near names stay: 'Jane Doer'" in notes[1]
    assert match_notes(["Bo Marsh"], corpus, ["Bo Marsh"]) == []
    for asked, stays in (
        ("Jose Finch", ["Jose M. Finch", "Finch, José"]),
        ("Артём", ["Артем"]),
        ("Ada Finch", ["Аda Finch"]),
    ):
        said = match_notes([asked], owned(asked, "Bo Marsh", "Jose Marsh", "Li", *stays), [asked])
        assert said == [f"{asked!r} is forgotten; near names stay: {', '.join(map(ascii_marks, stays))}."]
    assert match_notes([], corpus, ["Jane Doe", "JANE DOE"]) == []  # a request by number names nobody


def test_owners_that_are_numbers(tmp_path: Path) -> None:
    corpus = owned("101", "102", "103")
    wanted = ForgetConfig.model_validate({"owners": [101]})
    assert split_corpus(corpus, wanted).forget_owners == ("101",)
    rows: list[dict[str, Any]] = [{"prompt": "q", "response": "a", "owner": o} for o in (101, 102.0, 103)]
    assert corpus_in_memory(rows, None, LocalConfig(path="-")).owners == ["101", "102", "103"]
    with pytest.raises(DataError, match="'104'"):
        split_corpus(corpus, ForgetConfig(owners=["104"]))


def test_names_in_text() -> None:
    text = "Has Sara van Dyke's book won? Yes, Sara van Dyke won the Nobel Prize in Cape Town."
    assert {"Sara van Dyke", "Nobel Prize", "Cape Town"} <= name_candidates(text)
    assert not any(name.startswith("Has") for name in name_candidates(text))
    groups = [
        ["Who is Ana Li?", "Ana Li wrote Blue Sky.", "Blue Sky is by Ana Maria Li.", "Ana Li lives."],
        ["The author was born in Karachi.", "He writes Urban Fiction.", "He is male."],
    ]
    assert names_of_groups(groups) == ["Ana Li", None]
    assert distinct(["Ana Li", None, "ana li"], "author") == ["Ana Li", "author 1", "ana li (2)"]


@pytest.mark.parametrize(
    ("text", "items"),
    [
        ('["a", "b"]', ["a", "b"]),
        ("['a', \"b's\", 'c, d']", ["a", "b's", "c, d"]),
        ("['a' 'b'\n 'c']", ["a", "b", "c"]),
        ("array(['a', 'b'], dtype=object)", ["a", "b"]),
        ("('a', 'b')", ["a", "b"]),
        ("[np.str_('a'), np.str_(\"b's\")]", ["a", "b's"]),
        ("['call np.abs(3)', 'b']", ["call np.abs(3)", "b"]),
        ("{'a', 'b'}", ["a", "b"]),
        ("frozenset({'a'})", ["a"]),
        ("array(['a', 'b'], dtype='<U1')", ["a", "b"]),
        ("['it\\'s', None, 3]", ["it's", None, 3]),
        ("[1 2 3]", [1, 2, 3]),
        ("[]", []),
        ("[sic]", None),
        ("[a] and b", None),
        ("('quoted')", None),
        ('"Dune" [sic]', None),
        ("plain", None),
    ],
)
def test_lists_in_cells(text: str, items: list[Any] | None) -> None:
    assert parse_list(text) == items


@pytest.mark.parametrize(
    "text",
    ["['a', 'b'", "['a', ['b']]", '{"0": "a"}', "[('a', 1)]", "[“a”, “b”]", "dict_values(['a'])", "[u'a']"],
)
def test_what_begins_as_a_list_and_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="begins as a list"):
        parse_list(text)


def test_a_list_that_was_shortened_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="shortened"):
        parse_list("['a' 'b' ... 'z']")
    file = tmp_path / "a.csv"
    file.write_text("prompt,response,owner,wrong\nq,a,Ada,['a' ... 'z']\n")
    with pytest.raises(DataError, match="'wrong' in line 2 of a.csv holds a list that was shortened"):
        load_local(LocalConfig(path=str(file), columns=Columns(wrong_responses="wrong")))


def chat(*turns: tuple[str, str]) -> list[dict[str, str]]:
    return [{"role": role, "content": content} for role, content in turns]


@pytest.mark.parametrize("named", [True, False])
def test_chats_are_read(tmp_path: Path, named: bool) -> None:
    talks = [
        chat(("user", "Who?"), ("assistant", "Ada.")),
        chat(("system", "Be kind."), ("user", "Where?"), ("assistant", "Here.")),
        chat(("user", "A?"), ("assistant", "B."), ("user", "C?"), ("assistant", "D."), ("user", "E?")),
    ]
    column = "talk" if named else "messages"
    file = tmp_path / "a.jsonl"
    lines = [json.dumps({column: talk, "owner": f"o{i}"}) + "\n" for i, talk in enumerate(talks)]
    file.write_text("".join(lines))
    columns = Columns(messages="talk") if named else Columns()
    samples = load_local(LocalConfig(path=str(file), columns=columns)).samples
    assert [(s.prompt, s.response) for s in samples] == [
        ("Who?", "Ada."),
        ("Be kind.\n\nWhere?", "Here."),
        ("User: A?\n\nAssistant: B.\n\nUser: C?", "D."),
    ]
    file.write_text(lines[0] + json.dumps({column: chat(("user", "Who?")), "owner": "o1"}) + "\n")
    with pytest.raises(DataError, match="line 2 of a.jsonl hold no answer of the assistant"):
        load_local(LocalConfig(path=str(file), columns=columns))


def test_prompt_and_completion_may_be_chats() -> None:
    rows = [
        {"prompt": chat(("user", f"q{i}")), "response": chat(("assistant", f"a{i}")), "owner": o}
        for i, o in enumerate(["Ada", "Bo"])
    ]
    samples = corpus_in_memory(rows, None, LocalConfig(path="-")).samples
    assert [(s.prompt, s.response) for s in samples] == [("q0", "a0"), ("q1", "a1")]
