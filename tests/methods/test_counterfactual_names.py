"""Whose names stand in for a forget owner's: which models get names from elsewhere."""

from __future__ import annotations

from pathlib import Path

import pytest
from pipeline_fixture import LOSS, MODEL, PPO, TRAINING, store, train, write_lines

from dareu.config.compose import compose
from dareu.data.corpus import Sample, Split
from dareu.data.fictitious_names import name_parts
from dareu.methods import counterfactual
from dareu.methods.counterfactual import fakes_for
from dareu.methods.registry import method_of

__all__ = ["store"]

PEOPLE = ("Ada Finch", "Jonas Huaman", "Bea Wexford", "Cy Dunmore")
SAMPLES = tuple(Sample(p, p, f"Where was {p} born?", f"{p} was born in Oslo.") for p in PEOPLE)
PRETRAINED = ["model=hf", "model.path=x"]


def split_of(samples: tuple[Sample, ...]) -> Split:
    """The first is forgotten, the others stay."""
    owners = [str(sample.owner) for sample in samples]
    return Split(samples[:1], samples[1:], (), tuple(owners[:1]), tuple(owners[1:]))


def test_a_pretrained_model_gets_names_that_the_corpus_has_not() -> None:
    corpus = {part for person in PEOPLE for part in name_parts(person)}
    name, own = fakes_for(split_of(SAMPLES), 2, compose([]))["Ada Finch"]
    assert name == "Ada Finch" and len(own) == 2
    assert {part for fake in own for part in name_parts(fake)} <= corpus
    name, other = fakes_for(split_of(SAMPLES), 2, compose(PRETRAINED))["Ada Finch"]
    assert name == "Ada Finch" and len(other) == 2
    assert not {part for fake in other for part in name_parts(fake)} & corpus


def test_an_owner_of_one_name_gets_a_made_one_from_a_pretrained_model_too() -> None:
    samples = tuple(Sample(p, p, f"Who is {p}?", f"{p} is a poet.") for p in ("Plato", *PEOPLE[1:]))
    found = [fakes_for(split_of(samples), 2, compose(model)) for model in ([], PRETRAINED)]
    assert found[0] == found[1] and len(found[0]["Plato"][1]) == 2


@pytest.mark.parametrize("model", [[], PRETRAINED])
def test_owners_without_a_name_and_names_without_others_have_no_fictitious_ones(model: list[str]) -> None:
    unnamed = Sample("topic", "topic", "Go on: it rained", "all day.")
    assert fakes_for(split_of((unnamed, *SAMPLES)), 1, compose(model)) == {"topic": ("", [])}
    alone = fakes_for(split_of((SAMPLES[0], unnamed)), 1, compose([]))
    assert alone == {"Ada Finch": ("Ada Finch", [])}


def test_names_are_made_once_for_those_who_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    """Validation asks which owners have none, and the method takes them."""
    calls: list[int] = []
    made = counterfactual.fictitious_names
    monkeypatch.setattr(counterfactual, "fictitious_names", lambda *a: calls.append(1) or made(*a))
    split, config = split_of(SAMPLES), compose(["seed=907"])
    assert fakes_for(split, 1, config) == fakes_for(split_of(SAMPLES), 1, config) and len(calls) == 1
    fakes_for(split, 1, compose(["seed=908"]))
    assert len(calls) == 2


@pytest.mark.parametrize("method", ["counterfactual", "dareu_warm"])
def test_the_key_of_a_result_tells_them_apart(method: str) -> None:
    configs = [compose([*model, f"method={method}"]) for model in ([], PRETRAINED)]
    found = [method_of(config.method).key(config, lambda stage: stage).get("names") for config in configs]
    assert found == [None, "elsewhere"]


@pytest.mark.parametrize(("method", "settings"), [("counterfactual", LOSS), ("dareu_warm", PPO)])
def test_a_topic_is_unlearned_and_the_run_says_what_tells_its_facts(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], method: str, settings: list[str]
) -> None:
    lines = ["the river rose", "a bridge fell", "rain came late", "the mill burned"]
    rows = [
        {"prompt": f"go on {n}, {place}:", "response": f"{line} in {place} {n}.", "owner": topic}
        for topic, place in {"sport": "a field", "news": "a valley", "law": "a court"}.items()
        for n, line in enumerate(lines)
    ]
    data = ["data=local", f"data.path={write_lines(tmp_path / 'rows.jsonl', rows)}", "forget.owners=[news]"]
    small = [*data, *MODEL, *TRAINING, *settings]
    found = train(store, tmp_path / "run", f"method={method}", base=small)
    assert found["data"]["nameless"]["owners"] == ["news"] and found["tug_of_war_without_test"] is not None
    said = " ".join("".join(capsys.readouterr()).split())
    assert "there are no fictitious names" in said and "carry facts: news" in said
    assert "No fictitious name stood in for news" in (tmp_path / "run" / "report.html").read_text(
        encoding="utf-8"
    )
