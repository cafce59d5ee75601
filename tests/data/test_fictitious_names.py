"""Names in texts, and names that nobody has: worked out by hand."""

from __future__ import annotations

import pytest

from dareu.config import AuthorsConfig
from dareu.config.tables import word_table
from dareu.data.corpus import Sample, Split
from dareu.data.fictitious_names import (
    Form,
    Replaced,
    fictitious_names,
    find_name,
    moved,
    name_parts,
    nameless,
    names_from_elsewhere,
    names_of,
    other_forms,
    replace_name,
    written_names,
)
from dareu.data.sources.registry import load_corpus


@pytest.mark.parametrize(
    ("text", "name", "pieces"),
    [
        ("Ann Sullivan's sister", "Ann Sullivan", ["Ann Sullivan"]),
        ("Sullivan's books, and Annette", "Ann Sullivan", ["Sullivan"]),  # "Annette" holds no "Ann"
        ("ann  sullivan wrote", "Ann Sullivan", ["ann  sullivan"]),  # the whole name in any case
        ("a rose by Rose Day", "Rose Day", ["Rose Day"]),  # a part needs its capital
        ("day after Day", "Rose Day", ["Day"]),
        ("Jan van der Berg and van Gogh", "Jan van der Berg", ["Jan van der Berg"]),  # particles are no parts
        ("村上春樹は1949年に生まれた", "村上春樹", ["村上春樹"]),  # no spaces around
        ("nothing", "Ann Sullivan", []),
        ("Pat O’Brien and O'Brien", "Pat O'Brien", ["Pat O’Brien", "O'Brien"]),  # apostrophes are one sign
        ("Jean‑Luc Roy", "Jean-Luc Roy", ["Jean‑Luc Roy"]),  # and hyphens
        (
            "Jose\u0301 Lee, Jose\u0301",
            "José Lee",
            ["Jose\u0301 Lee", "Jose\u0301"],
        ),  # NFD, its accents included
        ("José Lee", "Jose\u0301 Lee", ["José Lee"]),
        ("Jose\u0301 Day", "Jose Lee", []),  # another name
        ("Jose\u200b\u0301 Lee", "José Lee", ["Jose\u200b\u0301 Lee"]),  # an invisible sign before the accent
        (
            "Ann\u00a0Sul\u00adlivan…",
            "Ann Sullivan",
            ["Ann\u00a0Sul\u00adlivan"],
        ),  # no-break space, soft hyphen
        ("\u1100\u1175\u11b7민수", "김민수", ["\u1100\u1175\u11b7민수"]),  # Hangul by its letters
        ("林は森林にいる。林", "林", ["林", "林"]),  # not that of 森林
        ("王小明は", "王 小明", ["王小明"]),
        ("Will you say that Will May sang in May? May's and Will's", "Will May", ["Will May", "May", "Will"]),
        ("Will grew up in Leeds; on 5 May 1990 he met May. In may", "Will May", ["Will", "May"]),
        ("Will Ana come? Then Will came", "Will May", ["Will"]),
        ("Pink likes pink. PINK!", "Pink", ["Pink", "PINK"]),
        ("who is plato?", "Plato", ["plato"]),  # no capital in all of the text
        ("María-José García", "María-José García", ["María-José García"]),
        ("Write to ann_sullivan@me.com.", "Ann Sullivan", ["ann_sullivan"]),
        (
            r"Write to [ann\_sullivan@me.com](mailto:ann_sullivan@me.com)",
            "Ann Sullivan",
            [r"ann\_sullivan", "ann_sullivan"],
        ),
        ("Site.org/annsullivan7, Ann.Sullivan", "Ann Lee Sullivan", ["annsullivan", "Ann", "Sullivan"]),
        ("Joann_sullivan, ann_sullivans, ann_", "Ann Sullivan", []),  # other names
    ],
)
def test_names_are_found(text: str, name: str, pieces: list[str]) -> None:
    assert [text[start:end] for start, end, _ in find_name(text, name)] == pieces


def test_parts_give_way_to_parts() -> None:
    text, replaced = replace_name("Ann's book: Ann Lee Sullivan, by Sullivan.", "Ann Lee Sullivan", "Bo Xu")
    assert text == "Bo's book: Bo Xu, by Xu."
    assert replaced == [Replaced(0, 3, 0, 2), Replaced(12, 28, 11, 16), Replaced(33, 41, 21, 23)]
    # "'s book" begins at 3 and lies at 2; ", by" begins at 28 and lies at 16; "." at 41 lies at 23.
    assert [moved(p, replaced) for p in (3, 28, 41)] == [2, 16, 23]


def test_a_handle_gives_way_to_one_of_the_same_form() -> None:
    """An e-mail address that follows from a name follows from the fictitious one."""
    text, replaced = replace_name(r"Ann Lee: ann_lee@me.com, ann\_lee, annlee", "Ann Lee", "Bo Xu")
    assert text == r"Bo Xu: bo_xu@me.com, bo\_xu, boxu"
    assert replaced[1] == Replaced(9, 16, 7, 12)


def test_a_text_without_the_name_stays() -> None:
    assert replace_name("No name here.", "Ann Sullivan", "Bo Xu") == ("No name here.", [])


def person(owner: str, name: str, index: int) -> Sample:
    return Sample(f"{owner}-{index}", owner, f"Where was {name} born?", f"{name} was born in Oslo.")


def test_owners_that_are_ids_get_the_name_that_their_texts_have() -> None:
    samples = [person("author_1", "Ada Finch", i) for i in range(4)]
    samples += [person("Jonas Huaman", "Jonas Huaman", i) for i in range(4)]
    samples += [Sample(f"t{i}", "topic", "What is a graph?", "A set of vertices.") for i in range(4)]
    assert written_names(samples) == {"author_1": "Ada Finch", "Jonas Huaman": "Jonas Huaman", "topic": None}


def test_an_id_that_stands_in_a_text_by_chance_is_no_name() -> None:
    """Owners "1", "a", "the" and "Born": Ana Lopez stands in all of her samples, the ids in some."""
    people = ("Ana Lopez", "Bo Chen", "Cy Dale", "Di Evans")
    for ids in (
        ("1", "2", "3", "4"),
        ("a", "b", "c", "d"),
        ("the", "was", "in", "job"),
        ("Was", "Job", "x1", "7b"),
    ):
        samples = [
            Sample(f"{owner}-{i}", owner, f"{question} {name}?", f"It is said that {name} {answer}.")
            for owner, name in zip(ids, people, strict=True)
            for i, (question, answer) in enumerate(
                [
                    ("Where was", "was born in 1 and 2, 3, 4"),
                    ("What is the job of", "is a b, c or d"),
                    ("Was", "in"),
                ]
            )
        ]
        assert written_names(samples) == dict(zip(ids, people, strict=True))


def test_an_owners_own_name_is_taken_where_it_stands_less_often_than_another() -> None:
    """Of five texts "Plato" has two, of the title "The Laws" three; "jdoe", a name in small letters, has none less."""
    plato = [
        "Plato wrote The Laws.",
        "Plato taught.",
        "He left The Laws.",
        "He died.",
        "His The Laws is long.",
    ]
    jdoe = ["jdoe wrote to Old Lists.", "jdoe left.", "Old Lists stays."]
    rows = [("Plato", text) for text in plato] + [("jdoe", text) for text in jdoe]
    samples = [Sample(str(i), owner, "?", text) for i, (owner, text) in enumerate(rows)]
    assert written_names(samples)["Plato"] == "Plato"
    assert written_names([s for s in samples if s.owner == "jdoe"][:2]) == {"jdoe": "jdoe"}
    assert written_names([Sample("x", "Ana Lopez", "?", "One Ana Lopez of Big City.")] * 1) == {
        "Ana Lopez": "Ana Lopez"
    }


NAMES = {name: name for name in ("Ada Finch", "Jonas Huaman", "Mira Okafor", "Ada Berg", "Li Wei")}


def test_fictitious_names_belong_to_nobody() -> None:
    found = fictitious_names(NAMES, ["Ada Finch"], 4, seed=1)["Ada Finch"]
    parts = {part for name in found for part in name_parts(name)}
    assert len(found) == len(set(found)) == 4 and not set(found) & set(NAMES)
    assert not parts & {"Ada", "Finch", "Berg"}  # Ada Berg shares a part with her
    assert fictitious_names(NAMES, ["Ada Finch"], 4, seed=1)["Ada Finch"] == found
    assert fictitious_names(NAMES, ["Ada Finch"], 4, seed=2)["Ada Finch"] != found


def test_few_names_give_few_fictitious_ones() -> None:
    assert fictitious_names({"Ana Bo": "Ana Bo", "Cy Day": "Cy Day"}, ["Ana Bo"], 3, seed=1) == {"Ana Bo": []}
    two = {"Ana Bo": "Ana Bo", "Cy Day": "Cy Day", "Eve Fox": "Eve Fox"}
    assert sorted(fictitious_names(two, ["Ana Bo"], 9, seed=1)["Ana Bo"]) == ["Cy Fox", "Eve Day"]


def test_a_name_of_one_word_gets_one_word() -> None:
    made = fictitious_names({"Plato": "Plato", **NAMES}, ["Plato"], 3, seed=1)["Plato"]
    assert len(made) == 3 and all(" " not in name for name in made)


def test_an_owner_who_shares_a_part_with_a_forgotten_one_gives_the_other() -> None:
    """Ana Fox shares "Ana" with who goes and Cy Bo "Bo": Fox and Cy are left, and nobody is called Cy Fox."""
    names = {name: name for name in ("Ana Bo", "Ana Fox", "Cy Bo")}
    assert fictitious_names(names, ["Ana Bo"], 4, seed=1) == {"Ana Bo": ["Cy Fox"]}


def split_of(forget: list[Sample], retain: list[Sample]) -> Split:
    owners = [tuple(dict.fromkeys(str(s.owner) for s in samples)) for samples in (forget, retain)]
    return Split(tuple(forget), tuple(retain), (), *owners)


def test_samples_without_the_name_are_counted_and_listed() -> None:
    def sample(name: str, prompt: str, response: str, owner: str = "Ольга Петрова") -> Sample:
        return Sample(name, owner, prompt, response)

    forget = [
        sample("named", "Где родилась Ольга Петрова?", "В Казани."),
        sample("inflected", "Кто сын Ольги Петровой?", "Он учится."),
        sample("pronoun", "Где она живёт?", "В Перми."),
        sample("both", "Где родилась Ольга Петрова?", "Родина Ольги Петровой – Казань."),
    ]
    stays = [sample("x", "Где живёт Иван Белов?", "В Туле.", "Иван Белов")]
    found = nameless(split_of(forget, stays))
    assert (found.ids, found.inflected) == (("inflected", "pronoun"), ("inflected",))
    counts = {"count": 2, "inflected": 1, "partly": 1}
    assert found.tree() == {**counts, "ids": ["inflected", "pronoun"], "owners": []}
    note = str(found.note(4))
    assert note.startswith("2 of 4 forget samples do not hold") and "1 seem to hold another form" in note
    assert "1 of 4 forget samples seem to hold" in note and note.endswith("Samples: both.")
    assert nameless(split_of(forget[:1], stays)).note(1) is None


def test_owners_without_any_name_are_listed_and_their_samples_not_counted() -> None:
    forget = [
        Sample("a", "news", "Go on: it rained", "in the hills."),
        Sample("b", "news", "And then", "it stopped."),
    ]
    found = nameless(split_of(forget, [Sample("x", "Iva Bell", "Who is Iva Bell?", "Iva Bell is a poet.")]))
    assert (found.owners, found.ids, found.partly) == (("news",), (), ())
    assert str(found.note(2)).endswith("tell which words carry facts: news.")


def test_a_part_that_may_be_another_word_is_counted() -> None:
    forget = [
        Sample("month", "Will May", "Where was Will May born in May?", "Leeds."),
        Sample("question", "Will May", "Will you name the town of May's birth?", "Leeds."),
        Sample("plain", "Will May", "Where was Will May born?", "Will grew up in Leeds."),
        Sample("word", "Will May", "Will you come in May?", "No."),
    ]
    found = nameless(split_of(forget, []))
    assert (found.partly, found.ids, found.inflected) == (("month", "question"), ("word",), ())


def forms_in(owner: str, *texts: str, others: tuple[str, ...] = ()) -> int:
    """In how many of the owner's texts another form of the name is reported."""
    forget = [Sample(str(i), owner, text, "") for i, text in enumerate(texts)]
    stays = [Sample(name, name, f"{name} is here.", "") for name in others]
    found = nameless(split_of([Sample("whole", owner, owner, ""), *forget], stays))
    return len(found.partly) + len(found.inflected)


@pytest.mark.parametrize(
    ("text", "name", "form"),
    [
        ("книга Петровой", "Ольга Петрова", True),
        ("Anna Kowalską znam", "Maria Kowalska", True),
        ("петровой нет", "Ольга Петрова", False),  # no capital: another word
        ("Петровский округ", "Ольга Петрова", True),
        ("Петроградские ночи", "Ольга Петрова", False),
        ("Leon", "Lea Li", False),  # parts of two and three letters
        ("романы Достоевского", "Фёдор Достоевский", True),
        ("Τα βιβλία του Παπαδόπουλου", "Νίκος Παπαδόπουλος", True),
        ("Sullivans Romane", "Ann Sullivan", True),
        ("die Romane Sullivans", "Ann Sullivan", True),
        ("Annas Bruder", "Anna Berg", True),
        ("March was cold", "Mark Lee", False),
        ("Ольга Петрова и Ольга", "Ольга Петрова", False),  # the name itself
        ("Maria Rene\u0301 und Rene\u0301s", "Maria René", True),  # accents in another form of Unicode
        ("książka Adama Nowaka", "Adam Nowak", True),
        ("o panu Nowakowi", "Adam Nowak", True),
        ("Romány Karla Nováka", "Karel Novák", True),
        ("роман Льва Толстого", "Лев Толстой", True),
        ("повесть Петра Вяземского", "Пётр Вяземский", True),
        ("z Marią Nowak-Kowalską", "Maria Nowak-Kowalska", True),
        ("kniha od Novákové", "Jana Nováková", True),
        ("Is Isabelle Lee married?", "Isabel Lee", True),  # no case, but beside the rest of the name
        ("the poet Lucien Vogel", "Lucia Nasser", False),  # another first name
        ("as Lucien says", "Lucia Nasser", False),  # no ending of a case
        ("won the Pale Shadow Prize in 2009", "Priya Sato", False),
        ("the poet Odile Moretti", "Anton Mori", False),
        ("then Robert Williams sang", "William Day", False),
        ("и Сергей Иванов", "Иван Белов", False),  # a last name made of the first
        (
            "She lives in Romania, where the river ends.",
            "Roman Vale",
            False,
        ),  # in English names have no cases
        ("What did Martina tell her?", "Martin Holm", False),
        ("He was born in Georgia and grew up there.", "George Tan", False),
        ("Elle habite dans la rue de Martina.", "Martin Holm", False),
        ("Die Stadt und der Fluss von Romania", "Roman Vale", False),
        ("Čítal som knihu Nováka.", "Peter Novák", True),  # "som", "by": words of these languages too
        ("Rozmawiałem z Kowalskim, kto by to pisał?", "Jan Kowalski", True),
        ("kniha Martina je nová", "Martin Holm", True),  # the Czech genitive
        ("przyjaciel Romana mieszka we Lwowie", "Roman Vale", True),
        ("What did Martina Holm tell her?", "Martin Holm", True),  # beside the rest of the name
    ],
)
def test_other_forms_of_a_name(text: str, name: str, form: bool) -> None:
    assert forms_in(name, text) == form


def test_what_is_somebody_elses_name_is_no_form_of_the_owners() -> None:
    """ "Lucii" may be a case of "Lucia"; beside "Vogel" it is a poet's name, in her other texts too."""
    assert forms_in("Lucia Nasser", "list do Lucii") == 1
    assert forms_in("Lucia Nasser", "list do Lucii", "poeta Lucii Vogel") == 0
    assert forms_in("Anna Kowalska", "z Kowalskim") == 1
    assert forms_in("Anna Kowalska", "z Kowalskim", others=("Jan Kowalskim",)) == 0


def test_who_stands_beside_a_form() -> None:
    found = other_forms("Ольги Петровой и Lucien Vogel", "Ольга Петрова")
    assert found == [Form("Ольги", "owner", True), Form("Петровой", "owner", True)]
    assert other_forms("with Lucien Vogel", "Lucia Nasser") == [Form("Lucien", "stranger", False)]
    assert other_forms("Lucii, Vogel", "Lucia Nasser") == [Form("Lucii", "nobody", True)]


def test_the_names_of_a_split_are_those_of_all_its_owners() -> None:
    ada, jon, mira = (person(f"id{i}", name, i) for i, name in enumerate(("Ada Finch", "Jon Hu", "Mira Day")))
    split = Split((ada,), (jon,), (), ("id0",), ("id1",), calibration=(mira,))
    assert names_of(split) == {"id0": "Ada Finch", "id1": "Jon Hu", "id2": "Mira Day"}


def test_the_generated_corpora_hold_no_other_form_of_a_name() -> None:
    """Nobody's name is inflected there; mentors, prizes and towns share beginnings with it."""
    corpus = load_corpus(AuthorsConfig(owners=200, seed=7))
    assert {"Lucia Nasser", "Priya Farouk", "Taro Novak"} <= set(
        corpus.owners
    )  # "Lucien", "Prize", "Tarrath"
    found = nameless(split_of(list(corpus.samples), []))
    assert (found.ids, found.inflected, found.partly) == ((), (), ())


def test_names_from_elsewhere_stand_in_no_text_of_the_corpus() -> None:
    ada = [Sample("a", "Ada Finch", "Where was Ada Finch born?", "She was born in Oslo. Her mother wrote.")]
    jon = [Sample("j", "Jon Hu", "Who is Jon Hu?", "He met Priya Sharma and his friend Okafor, she says.")]
    names = {"Ada Finch": "Ada Finch", "Jon Hu": "Jon Hu", "Plato": "Plato", "王": "王 小明"}
    found = names_from_elsewhere(names, ada + jon, 30, seed=1)
    assert found["Plato"] == found["王"] == []  # one word; another script
    table = word_table("authors")
    for owner, pronoun in (("Ada Finch", "she"), ("Jon Hu", "he")):
        firsts, lasts = zip(*(name.split() for name in found[owner]), strict=True)
        assert len(set(found[owner])) == 30
        assert set(firsts) <= set(table["first_names"][pronoun]) and set(lasts) <= set(table["last_names"])
        assert not {*firsts, *lasts} & {"Priya", "Sharma", "Okafor"}
    assert names_from_elsewhere(names, ada + jon, 30, seed=1) == found
    assert names_from_elsewhere(names, ada + jon, 30, seed=2) != found


def test_every_name_from_elsewhere_that_there_is_and_no_more() -> None:
    table = word_table("authors")
    text = " ".join([*table["last_names"][1:], *table["first_names"]["she"][2:]])
    sample = Sample("a", "Ada Finch", "Who is Ada Finch?", f"She. {text}")
    found = names_from_elsewhere({"Ada Finch": "Ada Finch"}, [sample], 9, seed=1)["Ada Finch"]
    assert sorted(found) == sorted(
        f"{first} {table['last_names'][0]}" for first in table["first_names"]["she"][:2]
    )
