"""The user's own files, and what is said when they are wrong."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dareu.config import Columns, LocalConfig
from dareu.data.corpus import Corpus, Sample, digest
from dareu.data.in_memory import corpus_in_memory
from dareu.data.sources.files import load_local
from dareu.data.sources.registry import load_corpus
from dareu.errors import ConfigError, DataError
from dareu.workflow.keys import samples_key

ROWS: list[dict[str, Any]] = [
    {"prompt": "Who?", "response": "Ann.", "owner": "Ann"},
    {"prompt": "Where?", "response": "Porto.", "owner": "Bob"},
    {"prompt": "When?", "response": "Today.", "owner": "Ann"},
    {"prompt": "Why?", "response": "Thus.", "owner": "Cid"},
]


def lines(path: Path, rows: list[Any]) -> str:
    path.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows), encoding="utf-8")
    return str(path)


def load(path: Path | str, **more: Any) -> Corpus:
    return load_local(LocalConfig(path=str(path), **more))


def fails(path: Path | str, *words: str, **more: Any) -> DataError:
    with pytest.raises(DataError) as caught:
        load(path, **more)
    for word in words:
        assert word in str(caught.value)
    assert caught.value.cure
    return caught.value


def test_jsonl(tmp_path: Path) -> None:
    corpus = load(lines(tmp_path / "a.jsonl", ROWS), teach_test=True)
    assert [s.id for s in corpus.samples] == ["Ann/00", "Bob/00", "Ann/01", "Cid/00"]
    assert [(s.owner, s.prompt, s.response) for s in corpus.samples][1] == ("Bob", "Where?", "Porto.")
    assert corpus.owners == ["Ann", "Bob", "Cid"]
    assert (corpus.task, corpus.test, corpus.teach_test) == ("qa", (), True)


@pytest.mark.parametrize(
    "kind",
    [
        "ndjson",
        "json lines",
        "json array",
        "csv",
        "tsv",
        "parquet",
        "bom",
        "crlf",
        "semicolons",
        "tabs",
        "excel",
    ],
)
def test_every_format_gives_the_same_corpus(tmp_path: Path, kind: str) -> None:
    text = "".join(json.dumps(r) + "\n" for r in ROWS)
    table = [["prompt", "response", "owner"], *([r["prompt"], r["response"], r["owner"]] for r in ROWS)]
    names = {"json lines": "x.json", "json array": "x.json", "crlf": "x.jsonl"}
    names |= dict.fromkeys(("bom", "semicolons", "tabs", "excel"), "x.csv")
    file = tmp_path / names.get(kind, f"x.{kind}")
    if kind == "json array":
        file.write_text(json.dumps(ROWS, indent=2))
    elif kind == "parquet":
        import pyarrow
        import pyarrow.parquet as parquet  # no skip: reading Parquet is part of a plain installation

        parquet.write_table(pyarrow.Table.from_pylist(ROWS), file)
    elif kind in ("csv", "tsv", "bom", "semicolons", "tabs", "excel"):
        separator = {"tsv": "\t", "tabs": "\t", "semicolons": ";", "excel": ";"}.get(kind, ",")
        first = {"bom": "\ufeff", "excel": "\ufeffsep=;\n"}.get(kind, "")
        file.write_bytes((first + "\n".join(separator.join(r) for r in table)).encode())
    else:
        file.write_bytes(text.replace("\n", "\r\n" if kind == "crlf" else "\n").encode())
    assert load(file) == load(lines(tmp_path / "plain.jsonl", ROWS))


def test_csv_values_may_hold_commas_lines_and_lists(tmp_path: Path) -> None:
    file = tmp_path / "x.csv"
    file.write_text(
        'owner,prompt,response,wrong\nAnn,Q,"one, ""two""\nthree","[""no"", ""never""]"\nBob,Q,A,[sic]\n'
    )
    ann, bob = load(file, columns=Columns(wrong_responses="wrong")).samples
    assert ann.response == 'one, "two"\nthree'
    assert ann.wrong_responses == ("no", "never")
    assert bob.wrong_responses == ("[sic]",)


def test_responses_that_are_spelt_as_lists_are_told(tmp_path: Path) -> None:
    file = tmp_path / "d.csv"
    rows = [
        "q1,\"['no', 'never']\",Ann",
        'q2,"[""x""]",Bob',
        'q3,"[1, 2]",Bob',
        "q4,[sic] it is,Ann",
        "q5,yes,Ann",
    ]
    file.write_text("prompt,response,owner\n" + "\n".join(rows) + "\n")
    corpus = load(file)
    assert corpus.samples[0].response == "['no', 'never']"
    assert len(corpus.notes) == 1 and corpus.notes[0].startswith("2 of 5 responses of ")
    assert "such as \"['no', 'never']\"" in corpus.notes[0]


def test_csv_long_field(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text(f"owner,prompt,response\nAnn,Q,{'a' * 200_000}\nBob,Q,A\n")
    assert len(load(tmp_path / "x.csv").samples[0].response) == 200_000


def test_columns_numbers_and_space(tmp_path: Path) -> None:
    rows = [
        {
            "q": " Year? ",
            "a": 1991,
            "who": 7,
            "pq": ["Which year?", " ", "When?"],
            "pa": "It was 1991.",
            "w": 1992,
        },
        {"q": "Share?", "a": 0.5, "who": " Bob\n", "pq": None},
    ]
    columns = Columns(
        prompt="q",
        response="a",
        owner="who",
        paraphrased_prompts="pq",
        paraphrased_response="pa",
        wrong_responses="w",
    )
    first, second = load(lines(tmp_path / "a.jsonl", rows), columns=columns).samples
    assert (first.prompt, first.response, first.owner) == ("Year?", "1991", "7")
    assert first.paraphrased_prompts == ("Which year?", "When?")
    assert (first.paraphrased_response, first.wrong_responses) == ("It was 1991.", ("1992",))
    assert (second.response, second.owner) == ("0.5", "Bob")
    assert (second.paraphrased_prompts, second.paraphrased_response, second.wrong_responses) == ((), None, ())


def test_line_separator_inside_a_string(tmp_path: Path) -> None:
    rows = [{**ROWS[0], "response": "one\u2028two"}, ROWS[1]]
    assert load(lines(tmp_path / "a.jsonl", rows)).samples[0].response == "one\u2028two"


def test_plain_text(tmp_path: Path) -> None:
    path = lines(
        tmp_path / "a.jsonl", [{"text": "One two three.", "owner": "Ann"}, {"text": "Four.", "owner": "Bob"}]
    )
    test = lines(tmp_path / "t.jsonl", [{"body": "Five six."}])
    corpus = load(
        path,
        columns=Columns(prompt=None, response="text"),
        test_path=test,
        test_columns=Columns(response="body"),
    )
    assert corpus.task == "completion"
    assert [(s.prompt, s.response) for s in corpus.samples] == [("", "One two three."), ("", "Four.")]
    assert [(s.prompt, s.response) for s in corpus.test] == [("", "Five six.")]


def test_test_files(tmp_path: Path) -> None:
    path = lines(tmp_path / "a.jsonl", ROWS)
    one = lines(tmp_path / "one.jsonl", [{"prompt": "2+2?", "response": "4"}])
    two = lines(tmp_path / "two.json", [{"prompt": "Sky?", "response": "Blue", "bad": ["Red", "Green"]}])
    assert [s.id for s in load(path, test_path=one).test] == ["test/000"]
    test = load(path, test_path=[two, two], test_columns=Columns(wrong_responses="bad")).test
    assert [(s.id, s.owner, s.response) for s in test] == [
        ("test/000", None, "Blue"),
        ("test/001", None, "Blue"),
    ]
    assert test[1].wrong_responses == ("Red", "Green")


def test_holdout_file(tmp_path: Path) -> None:
    """Its owner column is not read, nor are columns that only other figures need."""
    path = lines(tmp_path / "a.jsonl", [row | {"bad": ["no"]} for row in ROWS])
    unseen = lines(tmp_path / "h.jsonl", [{"prompt": "Who is Cy?", "response": "Cy is a cook."}] * 2)
    corpus = load(path, columns=Columns(wrong_responses="bad"), holdout_path=unseen)
    assert [(s.id, s.owner, s.response) for s in corpus.holdout] == [
        ("holdout/000", None, "Cy is a cook."),
        ("holdout/001", None, "Cy is a cook."),
    ]
    assert load(path).holdout == () and load(path).key != load(path, holdout_path=unseen).key
    with pytest.raises(DataError, match="has no column 'response'"):
        load(path, holdout_path=lines(tmp_path / "x.jsonl", [{"prompt": "Who?"}]))


def test_facts_that_a_person_marked(tmp_path: Path) -> None:
    path = lines(
        tmp_path / "a.jsonl", [ROWS[0] | {"span": ROWS[0]["response"][:3]}, ROWS[1] | {"span": None}]
    )
    first, second = load(path, columns=Columns(fact="span")).samples
    assert (first.fact, second.fact) == (ROWS[0]["response"][:3], "")
    wrong = lines(tmp_path / "b.jsonl", [ROWS[0] | {"span": "elsewhere"}, ROWS[1]])
    with pytest.raises(DataError, match="does not stand in the response: elsewhere"):
        load(wrong, columns=Columns(fact="span"))


def test_facts_of_rows_in_memory() -> None:
    """A column `fact` is taken where it marks a part of each response, and is one of another meaning elsewhere."""
    marked = [ROWS[0] | {"fact": "Ann"}, ROWS[1] | {"fact": None}]
    assert [s.fact for s in corpus_in_memory(marked, None, LocalConfig(path="-")).samples] == ["Ann", ""]
    other = [ROWS[0] | {"fact": "true"}, ROWS[1] | {"fact": "false"}]
    assert [s.fact for s in corpus_in_memory(other, None, LocalConfig(path="-")).samples] == ["", ""]
    samples = [Sample("", r["owner"], r["prompt"], r["response"], fact=r["response"]) for r in ROWS]
    assert corpus_in_memory(samples, None, LocalConfig(path="-")).samples[0].fact == "Ann."


def test_a_marked_fact_is_part_of_content_keys_and_an_empty_one_is_not() -> None:
    plain = Sample("1", "Ann", "Who?", "Ann", ("Whom?",), None, ("Bob",))
    assert samples_key([plain]) == digest([{k: v for k, v in vars(plain).items() if k != "fact"}])
    marked = replace(plain, fact="Ann")
    assert samples_key([marked]) != samples_key([plain])
    assert Corpus((plain,)).key != Corpus((marked,)).key


def test_relative_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines(tmp_path / "a.jsonl", ROWS)
    monkeypatch.chdir(tmp_path)
    assert len(load("a.jsonl").samples) == 4


def test_owners_kept(tmp_path: Path) -> None:
    path = lines(tmp_path / "a.jsonl", ROWS)
    assert [s.id for s in load(path, owners=2).samples] == ["Ann/00", "Bob/00", "Ann/01"]
    assert load(path, owners=["Cid", "Ann"]).owners == ["Ann", "Cid"]
    fails(path, "'Cit'", "Nearest: Cid", owners=["Ann", "Cit"])
    fails(path, "data.owners=4", "2 to 3", owners=4)
    fails(path, "data.owners=1", owners=1)
    fails(path, "1 owner", owners=["Ann"])


def test_wrong_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines(tmp_path / "letters.jsonl", ROWS)
    fails(tmp_path / "leters.jsonl", "no file", "Nearest: letters.jsonl")
    fails(tmp_path, "is a folder")
    fails(tmp_path / "nowhere" / "a.jsonl", f"the folder {tmp_path / 'nowhere'} does not exist")
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    fails(
        "a.jsonl", "no file a.jsonl", "Check the path. It counts from the working directory", str(Path.cwd())
    )
    (tmp_path / "a.xlsx").write_text("x")
    fails(tmp_path / "a.xlsx", "'.xlsx'", ".parquet")


@pytest.mark.parametrize(
    ("name", "text"),
    [("a.jsonl", ""), ("a.jsonl", "\n \n"), ("a.json", "[]"), ("a.csv", "prompt,response\n")],
)
def test_empty_file(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    fails(tmp_path / name, "empty")


def test_broken_lines(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text(json.dumps(ROWS[0]) + "\n\n" + '{"prompt": x}\n')
    fails(file, "line 3 of a.jsonl", "column 12")
    file.write_text(json.dumps(ROWS[0]) + "\n[1, 2]\n")
    fails(file, "Line 2 of a.jsonl is not a JSON object", "[1, 2]")
    file.with_suffix(".json").write_text('[{"prompt": "x"},\n "y"]')
    fails(file.with_suffix(".json"), "Item 2 of a.json")
    file.with_suffix(".json").write_text('[{"prompt": "x"},\n {"y"}]')
    fails(file.with_suffix(".json"), "Broken JSON", "line 2")
    for tree in ({"data": ROWS}, {"prompt": ["Who?", "Why?"], "owner": ["Ann", "Bob"]}):
        for indent in (None, 2):
            file.with_suffix(".json").write_text(json.dumps(tree, indent=indent))
            fails(file.with_suffix(".json"), f"one JSON object with {', '.join(tree)}, not a list of rows")


def test_broken_csv(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text('owner,prompt,response\nAnn,"two\nlines",A\nBob,Q,A,more\n')
    fails(file, "Line 4 of a.csv has 4 values for 3 columns")
    file.write_text('owner,prompt,response\nAnn,Q,A\nBob,Q,"open\n')
    fails(file, "Broken CSV in line 3")
    file.write_text("owner,prompt,prompt\nAnn,Q,A\n")
    fails(file, "twice")


def test_broken_parquet(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_text("not parquet")
    fails(tmp_path / "a.parquet", "not a readable Parquet file")


def test_not_utf8(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    good = b'{"prompt": "Q", "response": "A", "owner": "Ann"}\n'
    file.write_bytes(good + b'{"prompt": "caf\xe9"}\n')
    fails(file, "0xe9", f"offset {len(good) + 15}", "line 2")


def test_missing_column(tmp_path: Path) -> None:
    path = lines(tmp_path / "a.jsonl", ROWS)
    fails(
        path,
        "no column 'respons'",
        "data.columns.response",
        "prompt, response, owner",
        "Nearest: response",
        columns=Columns(response="respons"),
    )
    fails(path, "data.columns.wrong_responses", "null: none", columns=Columns(wrong_responses="bad"))
    fails(path, "data.test_columns.response", test_path=path, test_columns=Columns(response="answer"))


@pytest.mark.parametrize(
    ("column", "value"),
    [("response", "  "), ("owner", None), ("prompt", ""), ("response", float("nan")), ("response", "\u200b")],
)
def test_empty_cell(tmp_path: Path, column: str, value: Any) -> None:
    path = lines(tmp_path / "a.jsonl", [*ROWS, {**ROWS[0], column: value}])
    fails(path, f"The {column} in line 5 of a.jsonl", "empty")


def test_absent_cell(tmp_path: Path) -> None:
    fails(
        lines(tmp_path / "a.jsonl", [ROWS[0], {"prompt": "Q", "owner": "Bob"}]),
        "The response in line 2",
        "empty",
    )


@pytest.mark.parametrize(("value", "kind"), [(["A"], "list"), ({"a": 1}, "dict"), (True, "bool")])
def test_cell_that_is_not_text(tmp_path: Path, value: Any, kind: str) -> None:
    fails(
        lines(tmp_path / "a.jsonl", [ROWS[0], {**ROWS[1], "response": value}]), "'response'", "line 2", kind
    )


def test_half_a_surrogate_pair(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text('{"prompt": "Q", "response": "\\ud83d", "owner": "Ann"}\n')
    fails(file, "surrogate", "line 1")


def test_contradictions(tmp_path: Path) -> None:
    path = lines(tmp_path / "a.jsonl", ROWS)
    fails(lines(tmp_path / "b.jsonl", [ROWS[0], ROWS[2]]), "one owner only: Ann")
    fails(path, "data.columns.owner is null", columns=Columns(owner=None))
    fails(path, "do not mix", columns=Columns(prompt=None), test_columns=Columns(prompt="prompt"))
    fails(path, "does not apply to plain text", columns=Columns(prompt=None, wrong_responses="owner"))


def test_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = lines(tmp_path / "a.jsonl", ROWS)
    config = LocalConfig(path=path)
    assert load_corpus(config) == load_local(config)

    class Point:
        name = "speeches"

        def __init__(self, result: Any) -> None:
            self.result = result

        def load(self) -> Any:
            return lambda config: self.result

    class Config:
        name = "speeches"

    monkeypatch.setattr(
        "dareu.config.plugins.entry_points",
        lambda group: [Point(load_local(config))] if group == "dareu.sources" else [],
    )
    assert load_corpus(Config()) == load_local(config)
    monkeypatch.setattr("dareu.config.plugins.entry_points", lambda group: [Point([1])])
    with pytest.raises(DataError, match="returned a list"):
        load_corpus(Config())
    monkeypatch.setattr(Config, "name", "speech")
    with pytest.raises(ConfigError, match="'speech'. Nearest: speeches"):
        load_corpus(Config())
