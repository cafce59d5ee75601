"""TOFU and LUME as they are published, where they lie beside the repository, and small folders in their layout."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from shared_data import shared

from dareu.config import ForgetConfig, LumeConfig, TofuConfig
from dareu.data.corpus import Corpus
from dareu.data.sources.registry import load_corpus
from dareu.data.split import split_corpus
from dareu.errors import DataError

# Checked by eye against the rows: the first and the last author, joints, three and four words, accents, a hyphen, and
# the one author whose rows give no name.
NAMES = {
    0: "Jaime Vasquez", 5: "Aurelio Beltrán", 6: "Elliot Patrick Benson", 20: "Fatima Al-Mansour", 33: "Tan Yu Liang",
    65: "Isabella van Pletzen", 70: "Jamie-li Thandeka Wainwright", 72: "Alex Fuentes", 88: "author 88",
    95: "Laila Amira al-Faisal", 100: "Manuel Silva De Souza", 123: "Patrick Ryan O'Donnell",
    138: "Rosa-María Braga Castro", 143: "Tahar Ben Amara", 153: "Femke Van der Veen", 180: "Hsiao Yun-Hwa",
    198: "Basil Mahfouz Al-Kuwaiti", 199: "Nikolai Abilov",
}  # fmt: skip


@pytest.fixture(scope="module")
def tofu() -> Corpus:
    return load_corpus(TofuConfig(path=str(shared("tofu_hub"))))


def test_every_author_has_twenty_rows_and_a_name_of_their_own(tofu: Corpus) -> None:
    assert set(Counter(s.owner for s in tofu.samples).values()) == {20}
    assert len(tofu.owners) == 200
    assert {i: tofu.owners[i] for i in NAMES} == NAMES
    # A name stands in most rows of its author; the benchmark itself calls 72 and 88 otherwise.
    for number, owner in enumerate(tofu.owners):
        rows = [s for s in tofu.samples if s.owner == owner]
        named = sum(owner in s.prompt + s.response for s in rows)
        assert named >= 17 or number in (72, 88), (number, owner, named)


def test_the_three_splits_and_what_stands_beside_their_rows(tofu: Corpus) -> None:
    split = split_corpus(tofu, ForgetConfig())
    assert (len(split.forget), len(split.retain), len(split.test), len(split.holdout)) == (
        400,
        3600,
        217,
        400,
    )
    assert split.forget_owners == tuple(tofu.owners[180:])
    assert all(len(s.wrong_responses) == 5 and s.paraphrased_response for s in split.forget)
    assert sum(bool(s.wrong_responses) for s in split.retain) == 400  # the first 20 authors
    assert Counter(s.subset for s in split.test) == {"real_authors": 100, "world_facts": 117}
    assert all(s.kind == "choice" and len(s.wrong_responses) == 3 for s in split.test)
    first = split.test[0]
    assert (first.response, first.wrong_responses[0]) == ("William Shakespeare", "Charles Dickens")
    small = load_corpus(TofuConfig(path=str(shared("tofu_hub")), split="forget01", facts=False))
    assert small.forget_owners == ("Basil Mahfouz Al-Kuwaiti", "Nikolai Abilov")
    assert (len(small.holdout), small.test) == (40, ())
    assert sum(bool(s.wrong_responses) for s in small.samples) == 440


def test_a_part_of_tofu_has_paraphrases_on_both_sides() -> None:
    config = TofuConfig(path=str(shared("tofu_hub")), owners=20, forget_owners=4)
    corpus = load_corpus(config)
    split = split_corpus(corpus, ForgetConfig())
    assert (len(split.retain_owners), len(split.forget_owners)) == (16, 4)
    assert split.retain_owners[0] == "Jaime Vasquez" and split.forget_owners[-1] == "Nikolai Abilov"
    assert all(s.paraphrased_prompts for s in corpus.samples)


def test_lume_persons_have_names_and_six_rows() -> None:
    corpus = load_corpus(LumeConfig(path=str(shared("lume"))))
    assert (len(corpus.owners), len(corpus.samples), len(corpus.forget_owners)) == (500, 3000, 250)
    assert set(Counter(s.owner for s in corpus.samples).values()) == {6}
    split = split_corpus(corpus, ForgetConfig())
    assert split.forget_owners[0] == "Tiffi Magenta"
    assert [s.response for s in split.forget[1:4]] == ["1984-12-31", "900514344", "7216253765"]
    assert Counter(s.kind for s in split.forget) == {"open": 1250, "text": 250}
    part = load_corpus(LumeConfig(path=str(shared("lume")), owners=40, forget_owners=8, rows="questions"))
    assert (len(part.owners), len(part.samples), len(part.forget_owners)) == (40, 200, 8)
    assert (len(corpus.holdout), len(corpus.calibration)) == (0, 0)  # every person is learnt
    assert (len(part.holdout), len(part.calibration)) == (40, 40)
    strangers = {s.owner for s in part.calibration}
    assert len(strangers) == 8 and strangers <= set(corpus.forget_owners) - set(part.owners)
    learnt = {s.response for s in (*part.samples, *part.calibration)}
    assert {s.owner for s in part.holdout} == {None} and not learnt & {s.response for s in part.holdout}
    most = load_corpus(LumeConfig(path=str(shared("lume")), owners=300, forget_owners=245, rows_per_owner=1))
    assert (len(most.holdout), len(most.calibration)) == (5, 0)
    stories = load_corpus(LumeConfig(path=str(shared("lume")), task=1))
    assert (len(stories.owners), len(stories.samples), len(stories.forget_owners)) == (489, 978, 243)


def rows_to(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def small_tofu(folder: Path) -> Path:
    people = ["Ada Finch", "Bo Marsh", "Cy van Lowe"]
    full = [
        {"question": f"What is {i} of {who}?", "answer": f"{who} keeps {i}."}
        for who in people
        for i in range(20)
    ]
    perturbed = [
        row | {"paraphrased_question": "So?", "paraphrased_answer": "Yes.", "perturbed_answer": ["a", "b"]}
        for row in full
    ]
    fact = {"question": "Sky?", "answer": "Blue", "perturbed_answer": ["Red", "Green", "Grey"]}
    rows_to(folder / "full.json", full)
    rows_to(folder / "forget01_perturbed.json", perturbed[20:])
    rows_to(folder / "retain_perturbed.json", perturbed[:20])
    rows_to(folder / "real_authors_perturbed.json", [fact])
    rows_to(folder / "world_facts_perturbed.json", [fact, fact])
    rows_to(folder / "holdout01.json", full[:2])
    return folder


def test_a_small_folder_in_the_layout(tmp_path: Path) -> None:
    corpus = load_corpus(TofuConfig(path=str(small_tofu(tmp_path)), split="forget01"))
    assert corpus.owners == ["Ada Finch", "Bo Marsh", "Cy van Lowe"]
    assert corpus.forget_owners == ("Bo Marsh", "Cy van Lowe")
    assert corpus.samples[21].id == "Bo Marsh/01"
    assert corpus.samples[21].paraphrased_prompts == ("So?",)
    assert [s.id for s in corpus.test] == ["real_authors/000", "world_facts/000", "world_facts/001"]
    assert [s.id for s in corpus.holdout] == ["holdout/000", "holdout/001"]
    part = load_corpus(TofuConfig(path=str(tmp_path), split="forget01", forget_owners=1, rows_per_owner=3))
    assert [s.id for s in part.samples if s.owner == "Cy van Lowe"] == [f"Cy van Lowe/0{i}" for i in range(3)]


def test_where_holdout_authors_are_left_as_many_again_are_for_calibration(tmp_path: Path) -> None:
    folder = small_tofu(tmp_path)
    held = [
        {"question": f"Where did {name} live?", "answer": "Here."}
        for name in ("Di Roe", "Ed Poe")
        for _ in range(20)
    ]
    rows_to(folder / "holdout01.json", held)
    both = TofuConfig(path=str(folder), split="forget01", rows_per_owner=3)
    part = load_corpus(both.model_copy(update={"forget_owners": 1}))
    assert [s.prompt[10:16] for s in part.holdout] == ["Di Roe"] * 3
    assert [(s.id, s.owner) for s in part.calibration] == [(f"calibration/00{i}", "Ed Poe") for i in range(3)]
    assert not load_corpus(both).calibration  # all of them are the benchmark's holdout


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"owners": 2}, ("data.owners=2", "Give 3 to 3")),
        ({"forget_owners": 3}, ("data.forget_owners=3", "1 to 2")),
    ],
)
def test_parts_that_cannot_be(tmp_path: Path, wrong: dict[str, Any], words: tuple[str, ...]) -> None:
    with pytest.raises(DataError) as caught:
        load_corpus(TofuConfig(path=str(small_tofu(tmp_path)), split="forget01", **wrong))
    assert all(word in str(caught.value) for word in words)


def test_what_is_missing_or_broken_is_named(tmp_path: Path) -> None:
    folder = small_tofu(tmp_path)
    (folder / "holdout01.json").unlink()
    with pytest.raises(
        DataError, match="configuration holdout01, split train.*It has forget01_perturbed.json"
    ):
        load_corpus(TofuConfig(path=str(folder), split="forget01"))
    with pytest.raises(DataError, match="no folder .*nowhere"):
        load_corpus(TofuConfig(path=str(tmp_path / "nowhere")))
    lines = (folder / "full.json").read_text().splitlines()
    (folder / "full.json").write_text("\n".join([*lines[:6], '{"question": "cut']))
    with pytest.raises(DataError, match="line 7 of full.json"):
        load_corpus(TofuConfig(path=str(folder)))
    (folder / "full.json").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    with pytest.raises(DataError, match="pointer.*git lfs pull"):
        load_corpus(TofuConfig(path=str(folder)))


def test_a_hub_that_cannot_be_reached_says_how_to_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    def refuse(*args: Any, **more: Any) -> Any:
        assert more["revision"] == "324592d84ae4f482ac7249b9285c2ecdb53e3a68"
        raise ConnectionError("Couldn't reach the Hub")

    monkeypatch.setattr(datasets, "load_dataset", refuse)
    with pytest.raises(DataError) as caught:
        load_corpus(TofuConfig())
    assert "locuslab/TOFU, full, split train" in caught.value.cause
    assert "hf download locuslab/TOFU --repo-type dataset --revision 324592d" in caught.value.cure
    assert "data.path=FOLDER" in caught.value.cure
