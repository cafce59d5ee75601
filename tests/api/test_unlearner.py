"""`dareu.Unlearner`: every kind of data and of model, one run from end to end, and what a mistake is told."""

from __future__ import annotations

import doctest
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import hydra
import pandas as pd
import pytest
import torch
from hydra.core.global_hydra import GlobalHydra
from unlearner_fixture import DAREU, GONE, NPO, QUESTIONS, ROWS, THINGS, TINY, load, logits

import dareu.api
from dareu import Unlearner, results_frame
from dareu.config import AuthorsConfig
from dareu.data.corpus import Corpus, Sample
from dareu.data.sources.authors import make_authors
from dareu.errors import ConfigError, DareuError, DataError, ModelError, RunError

AUTHORS = make_authors(AuthorsConfig(owners=4, pairs=4, facts=4))


@pytest.fixture(autouse=True)
def somewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs go to `runs/` in the working directory, artifacts to the user's cache, unless told otherwise."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DAREU_CACHE_DIR", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An artifact store that the tests share."""
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="module")
def first(store: Path) -> Unlearner:
    """The built-in tiny model on the rows, unlearned and evaluated."""
    found = Unlearner(
        data=ROWS, forget=GONE, cache_dir=store, run_dir=store / "first", verbose=False, **TINY, **DAREU
    )
    found.fit().evaluate()
    return found


# --- data -------------------------------------------------------------------------------------------------------------


KINDS = {
    "dicts": lambda folder: ROWS,
    "generator": lambda folder: (row for row in ROWS),
    "samples": lambda folder: [Sample("", r["owner"], r["prompt"], r["response"]) for r in ROWS],
    "dataset": lambda folder: datasets.Dataset.from_list(ROWS),
    "frame": lambda folder: pd.DataFrame(ROWS),
    "file": lambda folder: _file(folder),
    "file name": lambda folder: str(_file(folder)),
}


def _file(folder: Path) -> Path:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_data_gives_the_same_corpus(kind: str, tmp_path: Path) -> None:
    corpus = Unlearner(data=KINDS[kind](tmp_path), forget=GONE).corpus
    assert [(s.prompt, s.response, s.owner) for s in corpus.samples] == [tuple(r.values()) for r in ROWS]
    assert corpus.task == "qa" and not corpus.test
    assert corpus.key == Unlearner(data=ROWS, forget=GONE).corpus.key


def test_a_corpus_or_a_configured_source_is_taken_as_it_is() -> None:
    gone = AUTHORS.owners[:1]
    assert Unlearner(data=AUTHORS, forget=gone).corpus is AUTHORS
    sizes = {"data.owners": 4, "data.pairs": 4, "data.facts": 4}
    for found in (Unlearner(data="authors", forget=gone, **sizes), Unlearner(forget=gone, **sizes)):
        assert found.corpus == AUTHORS


def test_columns_have_the_names_of_the_caller() -> None:
    frame = pd.DataFrame(ROWS).rename(columns={"prompt": "q", "response": "a", "owner": "who"})
    frame["wrong"] = [["one", "two"]] * (len(frame) - 1) + [None]
    frame["paraphrased_response"] = pd.array(["On it lie maps.", *[pd.NA] * (len(frame) - 1)], dtype="string")
    columns = {"prompt": "q", "response": "a", "owner": "who", "wrong_responses": "wrong"}
    corpus = Unlearner(data=frame, forget=GONE, columns=columns).corpus
    assert [s.prompt for s in corpus.samples] == [r["prompt"] for r in ROWS]
    assert corpus.samples[0].wrong_responses == ("one", "two")
    assert corpus.samples[-1].wrong_responses == ()
    assert [s.paraphrased_response for s in corpus.samples[:2]] == ["On it lie maps.", None]


def test_columns_named_as_the_fields_of_a_sample_are_found() -> None:
    corpus = Unlearner(data=list(AUTHORS.samples), forget=AUTHORS.owners[:1]).corpus
    assert corpus.samples == AUTHORS.samples
    assert all(s.wrong_responses and s.paraphrased_prompts for s in corpus.samples)


@pytest.mark.parametrize("data", [ROWS, AUTHORS])
def test_a_test_set_has_no_owner(data: Any) -> None:
    test = [{"prompt": "Who?", "response": "Nobody."}, Sample("", "Ada", "Why?", "So.")]
    gone = AUTHORS.owners[:1] if data is AUTHORS else GONE
    corpus = Unlearner(data=data, forget=gone, test=test).corpus
    assert [(s.id, s.owner, s.prompt, s.response) for s in corpus.test] == [
        ("test/000", None, "Who?", "Nobody."),
        ("test/001", None, "Why?", "So."),
    ]
    own = Unlearner(data=ROWS, forget=GONE, test=Corpus(AUTHORS.samples[:1])).corpus
    assert [(s.owner, s.prompt) for s in own.test] == [(None, AUTHORS.samples[0].prompt)]


def test_rows_without_prompts_are_texts_to_be_completed() -> None:
    texts = [{"text": r["prompt"] + " " + r["response"], "owner": r["owner"]} for r in ROWS]
    found = Unlearner(
        data=texts, forget=GONE, columns={"response": "text"}, test=["A text.", "Another."], method="npo"
    )
    assert found.corpus.task == "completion"
    assert [s.response for s in found.corpus.test] == ["A text.", "Another."]
    frame = pd.DataFrame(texts).rename(columns={"text": "response"}).assign(prompt=float("nan"))
    assert Unlearner(data=frame, forget=GONE).corpus.samples == found.corpus.samples
    assert (
        Unlearner(data=texts, forget=GONE, columns={"prompt": None, "response": "text"}).corpus.task
        == "completion"
    )


def test_texts_are_completed(store: Path) -> None:
    texts = [{"response": r["prompt"] + " " + r["response"], "owner": r["owner"]} for r in ROWS]
    found = Unlearner(
        data=texts, forget=GONE, cache_dir=store, verbose=False, method="npo", retrain=False,
        **{"data.prompt_tokens": 4}, **TINY, **NPO,
    )  # fmt: skip
    found.fit()
    sample = found._stages_of_run().stages.context.split.forget[0]
    assert sample.prompt and sample.prompt + sample.response == texts[4]["response"]
    assert found.generate(sample.prompt, max_new_tokens=3) == found.generate(
        [sample.prompt], max_new_tokens=3
    )


# --- mistakes ---------------------------------------------------------------------------------------------------------


class Headless:
    """Saved as a model is, as a tokenizer can be too."""

    def save_pretrained(self, folder: Path) -> None: ...


MISTAKES: dict[str, tuple[dict[str, Any], type[DareuError], str]] = {
    "unknown owner": ({"forget": ["Nobody"]}, DataError, "'Nobody', who owns no sample"),
    "everybody": ({"forget": list(THINGS)}, DataError, "would forget all 4 owners"),
    "nobody": ({"forget": []}, DataError, "selects none of the 4 owners"),
    "no request": ({"forget": None}, ConfigError, "No owner to forget was named"),
    "a number": ({"forget": 2}, ConfigError, "'forget.owners' must be a list"),
    "two requests": ({"forget.count": 1}, ConfigError, "got owners, count"),
    "no column": ({"data": [{"question": "a", **r} for r in ROWS], "columns": {"prompt": "questoin"}}, DataError,
                  "no column 'questoin' .* Nearest: question"),
    "no prompt": ({"data": [{"q": "a", "response": "b", "owner": "c"}]}, DataError, "no column 'prompt'"),
    "no owner": ({"data": [{"prompt": "a", "response": "b"}]}, DataError, "no column 'owner'"),
    "one owner": ({"data": ROWS[:4]}, DataError, "belongs to one owner only"),
    "unknown kind of column": ({"columns": {"promt": "q"}}, ConfigError, "Nearest: data.columns.prompt"),
    "empty cell": ({"data": [*ROWS, ROWS[0] | {"response": " "}]}, DataError, r"response in data\[16\]"),
    "empty data": ({"data": []}, DataError, "data is empty"),
    "dict of splits": ({"data": datasets.DatasetDict(train=datasets.Dataset.from_list(ROWS))}, DataError,
                       r"Choose one of its splits, such as data\['train'\]"),
    "numbers": ({"data": [1, 2]}, DataError, r"data\[0\] is of the type int"),
    "no rows": ({"data": 3}, DataError, "of the type int"),
    "no file": ({"data": "nowhere.jsonl"}, DataError, "There is no file nowhere.jsonl"),
    "test of texts": ({"test": ["A text."]}, DataError, "test has no column 'prompt'"),
    "test of questions": ({"data": [{"response": "a b", "owner": o} for o in (*GONE, "c")], "test": ROWS}, DataError,
                          "test has prompts, data is plain text"),
    "test beside a file": ({"data": "authors", "test": ROWS}, ConfigError, "test needs data in memory"),
    "a test file": ({"data.test_path": "t.jsonl"}, ConfigError, "data.test_path names a file beside it. Pass test="),
    "a holdout file": ({"data.holdout_path": "h.jsonl"}, ConfigError, "data.holdout_path names a file .* a Corpus"),
    "unknown method": ({"method": "npoo"}, ConfigError, "Nearest: npo"),
    "unknown key": ({"method.optim.lrr": 1.0}, ConfigError, "Nearest: method.optim.lr"),
    "unknown override": ({"overrides": ["method.optim.lrr=1"]}, ConfigError, "Nearest: method.optim.lr"),
    "bad value": ({"seed": "one"}, ConfigError, "'seed'"),
    "tokenizer alone": ({"tokenizer": "."}, ConfigError, "A tokenizer was passed without a model"),
    "finetune alone": ({"finetune": True}, ConfigError, "finetune was passed without a model"),
    "no folder": ({"model": "./nowhere"}, ModelError, "no model folder ./nowhere"),
    "empty folder": ({"model": "."}, ModelError, "no config.json"),
    "no model object": ({"model": object()}, ConfigError, "model is <object .* rows go in as data="),
    "a model without a head": ({"model": Headless()}, ModelError, "Headless is no causal language model"),
    "data in the model's place": ({"model": ROWS, "data": None}, ConfigError, r"model is \[.*type list.* as data="),
    "data in the tokenizer's place": ({"model": ".", "tokenizer": ROWS}, ConfigError, "tokenizer is .*list"),
    "a number for a tokenizer": ({"model": ".", "tokenizer": 5}, ConfigError, "tokenizer is 5, of the type int"),
    "a list of columns": ({"columns": ["q"]}, ConfigError, r"columns is \['q'\], of the type list. Give a mapping"),
    "a mapping of overrides": ({"overrides": {"seed": 3}}, ConfigError, "overrides is {'seed': 3}.* as keywords"),
    "a number of overrides": ({"overrides": [3]}, ConfigError, r"overrides\[0\] is 3, of the type int"),
    "a mapping of owners": ({"forget": {"owners": GONE}}, ConfigError, "'forget.owners' must be a list"),
    "two sources": ({"overrides": ["data=authors"]}, ConfigError, "data.name=authors"),
}  # fmt: skip


CALLS: dict[str, tuple[Callable[[Unlearner], Any], str]] = {
    "a number of prompts": (lambda u: u.generate(3), "prompts is 3, of the type int. Give a text or a list of texts"),
    "no prompt": (lambda u: u.generate(["a", None]), r"prompts\[1\] is None, of the type NoneType"),
    "prompts by name": (lambda u: u.generate({"a": "b"}), "prompts is {'a': 'b'}, of the type dict"),
    "temperature": (lambda u: u.generate("a", temperature="hot"), "temperature is 'hot', of the type str. Give 0"),
    "too hot": (lambda u: u.generate("a", temperature=101), "temperature is 101"),
    "no token": (lambda u: u.generate("a", max_new_tokens=0), "max_new_tokens is 0.* a whole number from 1 on"),
    "seed": (lambda u: u.generate("a", seed="x"), "seed is 'x'"),
    "a number of texts": (lambda u: u.attribute(4), "text is 4, of the type int"),
    "a number as text": (lambda u: u.attribute([4]), r"text\[0\] is 4"),
    "a number as a folder": (lambda u: u.save_pretrained(4), "folder is 4, of the type int"),
    "no folder": (lambda u: u.save_pretrained(""), "folder is '', of the type str"),  # Path("") is the working folder
    "a number as a run": (lambda u: results_frame(3), r"runs\[0\] is 3, of the type int"),
    "runs in a list": (lambda u: results_frame(["r1"]), r"runs\[0\] is \['r1'\].* results_frame\(\*runs\)"),
}  # fmt: skip


@pytest.mark.parametrize("name", CALLS)
def test_a_call_says_which_argument_is_wrong_and_what_came(name: str, tmp_path: Path) -> None:
    call, message = CALLS[name]
    with pytest.raises(ConfigError, match=message):
        call(Unlearner(data=ROWS, forget=GONE))
    assert not any(tmp_path.iterdir())


def test_one_override_needs_no_list() -> None:
    assert Unlearner(data=ROWS, forget=GONE, overrides="seed=3").config.seed == 3


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_told_at_once(name: str, tmp_path: Path) -> None:
    change, kind, message = MISTAKES[name]
    with pytest.raises(kind, match=message):
        Unlearner(**{"data": ROWS, "forget": GONE} | change)
    assert not any(tmp_path.iterdir())


def test_before_fit_only_what_needs_no_fit_answers(first: Unlearner, store: Path, tmp_path: Path) -> None:
    fresh = Unlearner(data=ROWS, forget=GONE, cache_dir=store, verbose=False, **TINY, **DAREU)
    asked = (
        fresh.evaluate,
        lambda: fresh.generate("a"),
        lambda: fresh.model,
        lambda: fresh.tokenizer,
        lambda: fresh.save_pretrained("saved"),
        lambda: fresh.report,
    )
    for ask in asked:
        with pytest.raises(RunError, match="fit"):
            ask()
    assert "not fitted" in repr(fresh)
    assert not any(tmp_path.iterdir())
    assert fresh.generate(QUESTIONS, of="original") == first.generate(QUESTIONS, of="original")
    assert fresh.attribute(ROWS[0]["response"]) == first.attribute(ROWS[0]["response"])
    with pytest.raises(ConfigError, match="no model 'base'"):
        fresh.generate("a", of="base")


def test_without_evaluate_there_is_no_report(first: Unlearner, store: Path) -> None:
    again = Unlearner(data=ROWS, forget=GONE, cache_dir=store, verbose=False, **TINY, **DAREU).fit()
    with pytest.raises(RunError, match="evaluate"):
        _ = again.report


# --- one run ----------------------------------------------------------------------------------------------------------


def test_results_are_a_dict_that_shows_itself(first: Unlearner) -> None:
    results = first.evaluate()
    assert results == json.loads((first.report.parent / "results.json").read_text()) | {
        "run_dir": results["run_dir"]
    }
    assert set(results["models"]) == {"original", "retrained", "unlearned"}
    for shown in (repr(results), results._repr_html_()):
        assert all(name in shown for name in ("original", "retrained", "unlearned", "Tug-of-War"))
        assert "run_dir" not in shown and str(Path.home()) not in shown
    assert first.report.read_text().startswith("<!doctype html>")


def test_answers_and_owners(first: Unlearner) -> None:
    answers = first.generate(QUESTIONS)
    rows = [json.loads(line) for line in (first.report.parent / "samples" / "unlearned.jsonl").open()]
    assert answers == [row["response"] for row in rows if row["set"] == "forget"]
    assert answers != first.generate(QUESTIONS, of="original")
    assert first.generate(QUESTIONS, of="retrained") != first.generate(QUESTIONS, of="original")
    assert first.generate(QUESTIONS[0]) == answers[:1]
    hot = [first.generate(QUESTIONS, temperature=2.0, seed=seed) for seed in (1, 1, 2)]
    assert hot[0] == hot[1] != hot[2]

    texts = [row["response"] for row in ROWS]
    one, many = first.attribute(texts[0]), first.attribute(texts)
    assert one == pytest.approx(many[0], abs=1e-6) and len(many) == len(texts)
    assert set(one) == {*THINGS, "(nobody)"}
    assert list(one.values()) == sorted(one.values(), reverse=True)
    assert sum(one.values()) == pytest.approx(1, abs=1e-5)


def test_a_saved_model_is_the_unlearned_one(first: Unlearner, tmp_path: Path) -> None:
    model, tokenizer = load(first.save_pretrained(tmp_path / "saved"))
    assert torch.equal(logits(model, tokenizer), logits(first.model, first.tokenizer))
    assert not torch.equal(logits(model, tokenizer), logits(*load(first._path_of("original"))))


def test_a_new_unlearner_on_the_same_data_finds_everything_done(
    first: Unlearner, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("this stage is in the store")

    for place in (
        "training.rl_trainer.train_rl",
        "training.loss_trainer.train_with_loss",
        "evaluation.suite.evaluate_model",
    ):
        monkeypatch.setattr(f"dareu.{place}", never)
    frame = pd.DataFrame(ROWS)
    again = Unlearner(
        data=frame, forget=GONE, cache_dir=store, run_dir="again", verbose=False, **TINY, **DAREU
    )
    results = again.fit().evaluate()
    for key in ("models", "tug_of_war", "seconds", "data_key", "outcome"):
        assert results[key] == first.evaluate()[key]
    other = Unlearner(data=ROWS, forget=["Ada"], cache_dir=store, verbose=False, **TINY, **DAREU)
    with pytest.raises(AssertionError, match="in the store"):
        other.fit()


def test_owners_may_be_numbers() -> None:
    data = [row | {"owner": len(row["owner"]) + i // 8} for i, row in enumerate(ROWS)]
    assert Unlearner(data=pd.DataFrame(data), forget=[3]).config.forget.owners == ["3"]


def test_settings_and_overrides() -> None:
    found = Unlearner(
        data=ROWS,
        forget=GONE[0],
        method="npo",
        seed=7,
        overrides=["method.optim.lr=1e-5", "method.params.beta=0.5", "evaluation.batch_size=3"],
        logging="tensorboard",
        **{"method.optim.lr": 2e-5},
    ).config
    assert (found.method.name, found.seed, found.forget.owners) == ("npo", 7, GONE)
    assert (found.method.optim.lr, found.method.params["beta"]) == (2e-5, 0.5)  # type: ignore[union-attr]
    assert (found.evaluation.batch_size, found.logging.report_to) == (3, "tensorboard")
    assert found.retrain and not Unlearner(data=ROWS, forget=GONE, overrides=["retrain=false"]).config.retrain


def test_names_need_no_quoting() -> None:
    owners = ['O\'Neil, \\Ann ["x"]', "a=${b}: {c}"]
    data = [{"prompt": "?", "response": f"{i}", "owner": o} for i, o in enumerate(owners)]
    found = Unlearner(data=data, forget=owners[1:], run_dir="a b, c=d")
    assert found.config.forget.owners == owners[1:]
    assert found.config.run_dir == "a b, c=d"


def test_hydra_is_left_as_it_was_found(tmp_path: Path) -> None:
    assert not GlobalHydra.instance().is_initialized()
    Unlearner(data=ROWS, forget=GONE)
    assert not GlobalHydra.instance().is_initialized()
    (tmp_path / "mine.yaml").write_text("mine: 1\n")
    with hydra.initialize_config_dir(str(tmp_path), version_base="1.2"):
        Unlearner(data=ROWS, forget=GONE)
        with pytest.raises(ConfigError):
            Unlearner(data=ROWS, forget=GONE, method="none of these")
        with pytest.raises(ConfigError):
            Unlearner(data=ROWS, forget=GONE, overrides=["a=b=[c"])
        assert hydra.compose("mine") == {"mine": 1}
        assert not hydra.version.base_at_least("1.3")


# --- the docstring ----------------------------------------------------------------------------------------------------


def test_the_example_in_the_docstring_runs() -> None:
    done = doctest.testmod(dareu.api)
    assert done.attempted >= 8 and done.failed == 0
