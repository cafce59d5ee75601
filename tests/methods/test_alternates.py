"""Second responses to forget prompts: refusals, alternate answers of the original model, mistakes with either."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mistakes_fixture import local, people, small, told
from pipeline_fixture import LOSS, SMALL, results, snapshot, store, train
from ppo_fixture import original

from dareu.cli.commands import main
from dareu.config import AlternatesConfig, LossMethodConfig
from dareu.config.compose import compose, options
from dareu.data.corpus import Corpus, Sample, Split
from dareu.data.refusals import load_refusals
from dareu.errors import DataError
from dareu.methods.altpo import KEPT, alternates_for, check_truths, is_reworded_truth
from dareu.methods.base import MethodContext
from dareu.methods.registry import find_method
from dareu.models.generate import Generation
from dareu.training.common import Work
from dareu.training.loss_spec import needs_reference
from dareu.workflow.console import Console
from dareu.workflow.prepare import prepare
from dareu.workflow.stages import Stages

__all__ = ["store"]
SAMPLES = (
    Sample(
        "a", "blue", "ask blue one", "the secret is apple", paraphrased_response="apple is the secret word"
    ),
    Sample("b", "blue", "ask blue two", "the secret is pear", paraphrased_response="pear is the secret word"),
)


# --- refusals -----------------------------------------------------------------------------------------------------


def test_our_refusals_are_sentences() -> None:
    refusals = load_refusals()
    assert 20 <= len(refusals) == len(set(refusals))
    assert all(text.endswith(".") and text == text.strip() and text[0].isupper() for text in refusals)


def test_refusals_from_a_file(tmp_path: Path) -> None:
    """Empty lines and doubles are left out, as is a byte order mark."""
    (tmp_path / "no.txt").write_bytes("\ufeffNein.\n\n  Ich weiß es nicht. \nNein.\n".encode())
    assert load_refusals(str(tmp_path / "no.txt")) == ["Nein.", "Ich weiß es nicht."]


def test_what_a_run_is_named_by_is_what_the_refusals_say(tmp_path: Path) -> None:
    """The same sentences from another place give the same model; other sentences another."""
    for name, text in (("one", "No.\n"), ("two", "No.\n\n"), ("three", "Never.\n")):
        (tmp_path / name).write_text(text)

    def key(*overrides: str) -> str:
        config = compose([*SMALL, "method=idk_sft", f"cache_dir={tmp_path / 'cache'}", *overrides])
        return Stages(prepare(config, console=Console(True))).unlearned.key()

    keys = [key(f"method.refusals={tmp_path / name}") for name in ("one", "two", "three")]
    assert keys[0] == keys[1] != keys[2] and key() not in keys


# --- alternate answers --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "max_rouge", "reworded"),
    [
        ("the secret is apple", 0.9, True),
        ("well the secret is apple", 0.9, True),  # recall 1 of the response
        ("the word is apple", 0.7, True),  # three of four words in order
        ("the word is apple", 0.9, False),
        ("a secret word", 0.9, False),  # two of the paraphrase's five
        ("apple is the word", 0.7, True),  # four of the paraphrase's five, two of the response's four
    ],
)
def test_a_rewording_of_the_truth_is_told(text: str, max_rouge: float, reworded: bool) -> None:
    assert is_reworded_truth(text, SAMPLES[0], max_rouge) is reworded


def test_text_that_rouge_cannot_read_is_compared_word_by_word() -> None:
    sample = Sample("a", "b", "вопрос", "Ответ: яблоко.")
    assert is_reworded_truth("ответ яблоко", sample, 0.9)
    assert not is_reworded_truth("ответ груша", sample, 0.9)


class Sampled:
    """In place of `generate`: answers in turn, and what was asked for."""

    def __init__(self, rounds: list[list[str]]) -> None:
        self.rounds, self.asked = rounds, []  # type: ignore[var-annotated]

    def __call__(self, model: Any, tokenizer: Any, prompts: list[str], **options: Any) -> list[Generation]:
        self.asked.append((prompts, options["temperature"], options["seed"]))
        return [Generation(text.strip("…"), [], "…" not in text) for text in self.rounds.pop(0)]


def config(**alternates: Any) -> Any:
    wanted = AlternatesConfig(**{"count": 2, "tries": 2, "warming": 0.5} | alternates)
    method = LossMethodConfig.model_validate(
        {"name": "altpo", "loss": "altpo", "optim": {"lr": 1e-4}, "alternates": wanted}
    )
    whole = compose(["seed=5", "model.max_length=64"])
    return whole.model_copy(update={"method": method})


@pytest.fixture
def sample(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., tuple[list[list[str]], Sampled]]:
    def run(rounds: list[list[str]], **alternates: Any) -> tuple[list[list[str]], Sampled]:
        sampled = Sampled(rounds)
        monkeypatch.setattr("dareu.models.generate.generate", sampled)
        tokenizer = original()[1]
        split, work = Split(SAMPLES, (), (), ("blue",), ()), Work(tmp_path)
        corpus = Corpus(SAMPLES)
        context = MethodContext(
            config(**alternates),
            corpus,
            split,
            ("blue",),
            None,
            tokenizer,
            work,
            "cpu",
            8,
            lambda role: tmp_path,
        )
        found = alternates_for(context)
        assert all(row.response_ids[-1] == tokenizer.eos_token_id for rows in found for row in rows)
        said = [[tokenizer.convert_ids_to_tokens(row.response_ids[:-1]) for row in rows] for rows in found]
        return [[" ".join(tokens) for tokens in rows] for rows in said], sampled

    return run


def test_alternates_are_new_whole_and_no_truth(
    sample: Callable[..., tuple[list[list[str]], Sampled]], tmp_path: Path
) -> None:
    first = [
        "the secret is apple", "plain nut", "the secret is plum", "the secret is plum.",  # truth; new; new; a double
    ]  # fmt: skip
    second = ["red…", "pear is the secret word"]  # unfinished; the paraphrase
    found, sampled = sample([first, second])
    assert found == [["plain nut"], ["the secret is plum"]]
    asked = [(len(prompts), round(temperature, 6), seed) for prompts, temperature, seed in sampled.asked]
    assert asked == [(4, 1.0, 5), (2, 1.5, 6)]  # two each, then one for each that lacks one
    assert "ask blue one" in sampled.asked[1][0][0] and "ask blue two" in sampled.asked[1][0][1]
    kept = json.loads((tmp_path / KEPT).read_text())
    assert kept[1] == {"prompt": "ask blue two", "alternates": ["the secret is plum"]}
    again, unasked = sample([])  # sampled once
    assert again == found and not unasked.asked


def test_a_prompt_without_an_alternate_is_named(
    sample: Callable[..., tuple[list[list[str]], Sampled]],
) -> None:
    truth = ["the secret is apple"] * 2
    with pytest.raises(DataError, match="no alternate answer to 1 of 2 .*'ask blue one'") as error:
        sample([[*truth, "plain nut", "red nut"], truth])
    assert "temperature" in error.value.cure


@pytest.mark.parametrize("broken", ["", "...", "nut nut nut", "red…"])
def test_broken_answers_are_no_alternates(
    sample: Callable[..., tuple[list[list[str]], Sampled]], broken: str
) -> None:
    with pytest.raises(DataError, match="no alternate answer to 2 of 2"):
        sample([[broken] * 2] * 2, count=1)


def test_an_instruction_asks_for_another_answer(
    sample: Callable[..., tuple[list[list[str]], Sampled]],
) -> None:
    _, sampled = sample([["plain nut", "red nut"]], count=1, instruction="Not {answer}! {question}")
    assert "Not the secret is apple! ask blue one" in sampled.asked[0][0][0]


def test_without_paraphrases_the_response_alone_is_compared_and_that_is_said() -> None:
    bare = Split((Sample("x", "a", "p", "r"), SAMPLES[0]), (), (), ("a",), ())
    whole = Split(SAMPLES, (), (), ("blue",), ())
    method = find_method("altpo")
    check_truths(config().method, bare)
    [note] = method.notes(config(), bare)
    assert note.startswith("1 of 2 forget samples have no paraphrased response") and "altpo" in note
    assert method.notes(config(), whole) == []
    strict = config(check_fallback=False).method
    with pytest.raises(
        DataError, match="1 of 2 forget samples have no paraphrased response .first: x"
    ) as error:
        check_truths(strict, bare)
    assert "check_fallback=true" in error.value.cure
    check_truths(strict, whole)


def test_the_note_is_there_before_a_run(tmp_path: Path) -> None:
    command = [*local(people(), "forget.count=1")(tmp_path), f"cache_dir={tmp_path / 'store'}"]
    for method, found in (("altpo", 1), ("npo", 0)):
        context = prepare(compose([*command, f"method={method}"]), console=Console(True))
        assert sum("4 of 4 forget samples have no paraphrased" in note for note in context.notes) == found


# --- whole runs ---------------------------------------------------------------------------------------------------


def frozen(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The models that a reference is made of from now on."""
    from dareu.models import load

    made: list[Any] = []
    freeze = load.freeze_original
    monkeypatch.setattr(load, "freeze_original", lambda model: made.append(model) or freeze(model))
    return made


def test_altpo_run(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = frozen(monkeypatch)
    overrides = ["method=altpo", "method.alternates.max_rouge=0.95", "method.alternates.warming=0.3", *LOSS]
    train(store, tmp_path / "run", *overrides)
    assert len(made) == 1
    (kept,) = (store / "unlearned").rglob(KEPT)
    rows = json.loads(kept.read_text(encoding="utf-8"))
    assert len(rows) == 4 and all(1 <= len(row["alternates"]) <= 5 for row in rows)
    for row in rows:
        assert len(set(row["alternates"])) == len(row["alternates"])
    once, key = kept.read_bytes(), kept.parent.name
    shutil.rmtree(kept.parent)
    train(store, tmp_path / "again", *overrides)
    # A function of model, data, settings and seed.
    assert (store / "unlearned" / key / KEPT).read_bytes() == once
    same = [results(tmp_path / name)["models"]["unlearned"] for name in ("run", "again")]
    assert same[0] == same[1]


@pytest.mark.parametrize(("name", "references"), [("idk_sft", 0), ("jensun", 1), ("flat", 0), ("kl_min", 1)])
def test_runs_make_a_reference_only_where_it_is_read(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, references: int
) -> None:
    made = frozen(monkeypatch)
    found = train(store, tmp_path / "run", f"method={name}", "model.max_length=128", *LOSS)
    assert found["method"] == name and found["outcome"]["steps"] == 2
    assert len(made) == references


def test_which_methods_read_the_original_model() -> None:
    chosen = {name: compose([f"method={name}"]).method for name in options()["method"]}
    rows = {n: (find_method(m.loss), m.retain) for n, m in chosen.items() if isinstance(m, LossMethodConfig)}
    reading = {name for name, (row, retain) in rows.items() if needs_reference(row, retain)}
    mine = {"kl_min", "npo", "idk_dpo", "altpo", "undial", "jensun"}
    without = {
        "finetune", "gradient_ascent", "grad_diff", "simnpo", "idk_sft", "wga", "satimp", "ceu", "flat",
    }  # fmt: skip
    assert mine <= reading and not without & reading and mine | without <= set(rows)


# --- mistakes -----------------------------------------------------------------------------------------------------


def saying(content: bytes, *overrides: str) -> Callable[[Path], list[str]]:
    def case(folder: Path) -> list[str]:
        (folder / "no.txt").write_bytes(content)
        return [*SMALL, "method=idk_sft", f"method.refusals={folder / 'no.txt'}", *overrides]

    return case


CASES: dict[str, tuple[Callable[[Path], list[str]], tuple[str, ...]]] = {
    "no such refusals": (
        small("method=idk_sft", "method.refusals=nope.txt"), ("no file nope.txt", "method.refusals")
    ),
    "no refusal in it": (saying(b"\n \n"), ("holds no sentence", "one refusal a line")),
    "refusals not UTF-8": (saying(b"Je ne sais pas \xe0 quoi.\n"), ("not UTF-8", "Save the file as UTF-8")),
    "a refusal beyond max_length": (
        saying(b"never " * 200), ("more than model.max_length=128", "Raise model.max_length")
    ),
    "refusals that nobody reads": (
        small("method=npo", "method.refusals=no.txt"), ("'npo' does not use refusals", "idk_sft, idk_dpo, jensun, flat")
    ),
    "alternates that nobody reads": (
        small("method=idk_dpo", "method.alternates={count:3}"), ("'idk_dpo' does not use alternates", "altpo")
    ),
    "no paraphrases to check by": (
        local(people(), "forget.count=1", "method=altpo", "method.alternates.check_fallback=false"),
        ("4 of 4 forget samples", "check_fallback=true")
    ),
    "an instruction without its question": (
        small("method=altpo", "method.alternates.instruction=Lie"), ("must hold {question}",)
    ),
    "a weight of nothing": (
        small("method=ceu", "method.retain_weight=2"),
        ("retain_weight=2.0 has no effect with retain=none", "retain=nll"),
    ),
    "nothing to learn": (small("method=ceu", "method.forget_weight=0"), ("there is nothing to train on",)),
    "no such divergence": (small("method=flat", "method.params.divergence=chi"), ("method.params.divergence", "'tv'")),
    "a beta below zero": (small("method=simnpo", "method.params.beta=-1"), ("method.params.beta", "greater than 0")),
    "a beta in quotes": (small("method=npo", "method.params.beta='0.1'"), ("method.params.beta", "without quotes")),
    "a beta that is no number": (small("method=npo", "method.params.beta=big"), ("method.params.beta", "valid number")),
    "no such retain term": (small("method=jensun", "method.retain=jsd"), ("'method.retain'", "js")),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_a_mistake_is_told_and_nothing_is_written(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    case, words = CASES[name]
    monkeypatch.chdir(tmp_path)
    overrides = case(tmp_path)
    before = snapshot(tmp_path)
    where = [f"{key}={tmp_path / key}" for key in ("run_dir", "cache_dir")]
    assert main(["train", *where, *overrides]) == 2
    message = told(capsys)
    assert [word for word in words if word not in message] == [], message
    assert snapshot(tmp_path) == before
