"""Every probe on a small random model: figures in range, the same whatever the batch, the model as before."""

from __future__ import annotations

import builtins
import copy
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest
import torch
from models_fixture import SMALL, loud

from dareu.config import LoraConfig
from dareu.data.corpus import Sample, Split
from dareu.data.render import Encoded
from dareu.evaluation.probes import prompts
from dareu.evaluation.probes.base import Gap, ProbeInput, Values, mean_figures
from dareu.evaluation.probes.knowledge import knowledge
from dareu.evaluation.probes.quantisation import changed_weights, int4, round_to_nearest
from dareu.evaluation.probes.registry import PROBES, run_probe
from dareu.evaluation.probes.relearning import relearn_forget, train_steps
from dareu.evaluation.subject import Subject
from dareu.models.load import add_lora
from dareu.models.tiny import tiny_shape, train_tokenizer

CITIES = ["Rome", "Oslo", "Lima", "Cairo"]


def owned(owner: str | None, i: int) -> Sample:
    return Sample(
        f"{owner}/{i}",
        owner,
        f"Where does {owner or 'he'} live{' now' * (i % 2)}?",
        f"{owner or 'He'} lives in {CITIES[i % 4]}.",
        (),
        None,
        (f"{owner or 'He'} lives in {CITIES[(i + 1) % 4]}.", f"In {CITIES[(i + 2) % 4]}.") if i else (),
    )


SPLIT = Split(
    forget=tuple(owned("Ada", i) for i in range(4)),
    retain=tuple(owned("Ben", i) for i in range(4)),
    test=tuple(owned(None, i) for i in range(2)),
    forget_owners=("Ada",),
    retain_owners=("Ben",),
    attacks=(Sample("a", "Ada", "Ada lives where? Obey!", "Rome."), Sample("b", "Ada", "Say it:", "Oslo.")),
)
GIVEN = ProbeInput(SPLIT, steps=(0, 1, 3), sample_count=3, learning_rate=1e-3, relearn_share=0.25)


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    texts = [s.prompt + s.response for s in SPLIT.forget + SPLIT.retain]
    made = train_tokenizer(texts + [prompts.YES_NO, prompts.SECOND_TURN, *prompts.TEMPLATES], 400)
    made.padding_side = "left"
    return made


@pytest.fixture(scope="module")
def model(tokenizer: Any) -> Any:
    from transformers import LlamaForCausalLM

    config = SMALL.model_copy(update={"max_length": 256})
    return loud(
        LlamaForCausalLM(tiny_shape(config, len(tokenizer), tokenizer.eos_token_id, tokenizer.pad_token_id))
    ).eval()


@pytest.fixture(scope="module")
def subject(model: Any, tokenizer: Any) -> Subject:
    return Subject(model, tokenizer, batch_size=8)


@pytest.fixture(scope="module")
def results(subject: Subject) -> tuple[dict[str, Any], dict[str, str]]:
    return run_probes(subject, GIVEN)


def run_probes(
    subject: Subject, inputs: ProbeInput, names: Iterable[str] = PROBES
) -> tuple[dict[str, Any], dict[str, str]]:
    """What each probe finds, and why others could not run."""
    found: dict[str, Any] = {}
    missing: dict[str, str] = {}
    for name in names:
        try:
            found[name] = run_probe(subject, inputs, name)
        except Gap as gap:
            missing[name] = str(gap)
    return found, missing


def equal(a: list[Values], b: list[Values]) -> bool:
    return all(x == pytest.approx(y, abs=1e-3) for x, y in zip(a, b, strict=True))


def test_every_probe_gives_the_figures_that_its_row_names(
    results: tuple[dict[str, Any], dict[str, str]],
) -> None:
    found, missing = results
    assert set(found) | set(missing) == set(PROBES) and set(missing) <= {"nf4"}
    for name, result in found.items():
        figures = mean_figures(result.samples)
        assert PROBES[name].headline in figures, name
        assert all(0 <= value <= 1 for value in figures.values()), name
        assert len(result.samples) == 4
        for points in result.curves.values():
            assert [x for x, _ in points] == sorted(x for x, _ in points)
    assert found["multiple_choice"].samples[0] == {
        "probability": None,
        "chosen": None,
    }  # it has no wrong answer


def test_batch_size_changes_nothing_and_the_model_is_as_before(
    model: Any, tokenizer: Any, subject: Subject, results: tuple[dict[str, Any], dict[str, str]]
) -> None:
    before = copy.deepcopy(model.state_dict())
    again, _ = run_probes(replace(subject, batch_size=1), GIVEN)
    for name, result in results[0].items():
        assert equal(result.samples, again[name].samples), name
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    assert tokenizer.chat_template and not any(p.grad is not None for p in model.parameters())


def test_the_worst_paraphrase_counts(subject: Subject) -> None:
    one = replace(SPLIT.forget[1], paraphrased_prompts=("Who?", "Where is Ada?", SPLIT.forget[1].prompt))
    given = replace(GIVEN, split=replace(SPLIT, forget=(one,)))
    values = prompts.paraphrased(subject, given).samples[0]
    each = knowledge(subject, [one] * 3, one.paraphrased_prompts)
    for name in ("rouge_l", "probability"):
        parts = [float(v[name] or 0) for v in each]
        assert values[name] == pytest.approx(max(parts), abs=1e-4)
        assert values[f"{name}_mean"] == pytest.approx(sum(parts) / 3, abs=1e-4)


def test_attacks_count_for_their_owner(subject: Subject) -> None:
    other = replace(SPLIT.forget[0], owner="Eve")
    given = replace(GIVEN, split=replace(SPLIT, forget=(*SPLIT.forget, other)))
    result = PROBES["attacks"].run(subject, given)
    each = [float(v["probability"] or 0) for v in knowledge(subject, SPLIT.attacks)]
    assert result.samples[0]["probability"] == pytest.approx(sum(each) / 2, abs=1e-5)
    assert result.samples[-1] == {"rouge_l": None, "exact": None, "probability": None}
    _, missing = run_probes(subject, replace(GIVEN, split=replace(SPLIT, attacks=())), ["attacks"])
    assert "Corpus.attacks" in missing["attacks"]


def test_multiple_choice_is_the_distribution_over_letters(
    model: Any, tokenizer: Any, subject: Subject
) -> None:
    values = prompts.multiple_choice(subject, GIVEN).samples[1]
    answers, right = prompts.options(SPLIT.forget[1], 0)
    text = f"<|user|>{prompts.choice_prompt(SPLIT.forget[1].prompt, answers)}<|assistant|>"
    ids = tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
    letters = [tokenizer(letter, add_special_tokens=False)["input_ids"][0] for letter in "ABC"]
    with torch.no_grad():
        p = model(ids).logits[0, -1][letters].softmax(-1)
    assert values["probability"] == pytest.approx(float(p[right]), abs=1e-4)
    assert values["chosen"] == float(int(p.argmax()) == right)


@pytest.mark.parametrize("name", ["multiple_choice", "yes_no"])
def test_short_answers_to_one_prompt_cost_one_pass_over_it(
    model: Any, subject: Subject, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The figures of reading prompt and answer anew for each answer, from fewer tokens."""

    def whole(asked: Subject, pairs: list[Encoded]) -> list[tuple[float, int]]:
        end = asked.tokenizer.eos_token_id
        return asked.nlls([Encoded(p.prompt_ids, [*p.response_ids, end]) for p in pairs], include_eos=False)

    read: list[int] = []
    handle = model.register_forward_pre_hook(
        lambda _, args, kwargs: read.append(kwargs["input_ids"].numel()), with_kwargs=True
    )
    try:
        once = run_probe(subject, GIVEN, name)
        tokens = sum(read)
        read.clear()
        monkeypatch.setattr(Subject, "nlls_of_shared", whole)
        again = run_probe(subject, GIVEN, name)
    finally:
        handle.remove()
    assert equal(once.samples, again.samples) and any(v is not None for v in once.samples[1].values())
    answers = {"multiple_choice": 3, "yes_no": 2}[name]
    assert tokens < sum(read) / answers  # the answers themselves are not read either


def test_weights_are_rounded_and_then_the_very_same_again(model: Any, subject: Subject) -> None:
    before = copy.deepcopy(model.state_dict())
    with changed_weights(model, lambda weight: round_to_nearest(weight, 4)):
        down = model.model.layers[0].mlp.down_proj.weight
        assert torch.equal(down, round_to_nearest(before["model.layers.0.mlp.down_proj.weight"], 4))
        assert torch.equal(model.lm_head.weight, before["lm_head.weight"])
        rounded = subject.answers([s.prompt for s in SPLIT.forget], subject.limit(SPLIT.forget).wanted)
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    exact = subject.answers([s.prompt for s in SPLIT.forget], subject.limit(SPLIT.forget).wanted)
    assert [a.text for a in rounded] != [a.text for a in exact]


def test_an_adapter_is_folded_in_before_rounding_and_trained_alone(model: Any, tokenizer: Any) -> None:
    plain = copy.deepcopy(model)
    adapted = add_lora(copy.deepcopy(model), LoraConfig(r=2, dropout=0.0)).eval()
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.1, generator=torch.Generator().manual_seed(1))
    merged = copy.deepcopy(adapted).merge_and_unload()
    seen: list[torch.Tensor] = []

    def change(weight: torch.Tensor) -> torch.Tensor:
        seen.append(weight.clone())
        return weight

    with changed_weights(adapted, change):
        pass
    folded, bare = (
        [m.weight for m in one.modules() if isinstance(m, torch.nn.Linear) and m is not one.lm_head]
        for one in (merged, plain)
    )
    assert len(seen) == len(folded) and all(
        torch.allclose(a, b, atol=1e-5) for a, b in zip(seen, folded, strict=True)
    )
    assert not any(torch.allclose(a, b, atol=1e-4) for a, b in zip(seen, bare, strict=True))
    assert mean_figures(int4(Subject(adapted, tokenizer), GIVEN).samples)
    frozen = [n for n, p in adapted.named_parameters() if "lora_" not in n]
    moved: dict[str, bool] = {}

    def compare(trained: Subject) -> None:
        after = dict(trained.model.named_parameters())
        moved.update({n: not torch.equal(p, after[n]) for n, p in adapted.named_parameters()})

    trained = Subject(adapted, tokenizer)
    rows = trained.references(SPLIT.forget)
    train_steps(trained, rows, (2,), compare, learning_rate=1e-2, batch_size=2, seed=0)
    assert any(moved.values()) and not any(moved[n] for n in frozen)


def test_relearning_learns_what_it_is_shown(subject: Subject) -> None:
    rows = subject.references(SPLIT.forget[:1])

    def nll(trained: Subject) -> float:
        return trained.nlls(rows)[0][0]

    curve = train_steps(subject, rows, (0, 5, 20), nll, learning_rate=1e-2, batch_size=4, seed=0)
    assert curve[0] == pytest.approx(nll(subject)) and curve[0] > curve[1] > curve[2]
    result = relearn_forget(subject, GIVEN)
    assert sum(v["rouge_l"] is None for v in result.samples) == 1  # what was shown is not asked
    assert [x for x, _ in result.curves["probability"]] == [0, 1, 3]
    asked = [
        v
        for v, shown in zip(knowledge(subject, SPLIT.forget), result.samples, strict=True)
        if shown["exact"] is not None
    ]
    assert result.curves["probability"][0][1] == pytest.approx(mean_figures(asked)["probability"], abs=1e-4)


def test_gaps_say_what_is_missing_and_how_to_make_it(
    subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare = tuple(replace(s, wrong_responses=()) for s in SPLIT.forget)
    poor = replace(GIVEN, split=replace(SPLIT, forget=bare, test=(), retain=()))
    names = ["multiple_choice", "yes_no", "relearn_unrelated", "benign"]
    found, missing = run_probes(subject, poor, names)
    assert not found and list(missing) == names
    assert "wrong_responses" in missing["yes_no"] and "test set" in missing["relearn_unrelated"]
    _, missing = run_probes(subject, replace(GIVEN, split=replace(SPLIT, forget=())))
    assert set(missing) == set(PROBES) and all("empty" in m or "bitsandbytes" in m for m in missing.values())
    texts = replace(GIVEN, split=replace(SPLIT, task="completion"))
    _, missing = run_probes(subject, texts, ["second_turn", "paraphrase", "first_words"])
    assert all("data.task=qa" in m for m in missing.values()) and len(missing) == 3
    real = builtins.__import__

    def refuse(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("bitsandbytes"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(Gap, match=r"dareu\[quantise\]"):
        PROBES["nf4"].run(subject, GIVEN)


def test_a_prompt_that_does_not_fit_is_a_gap_of_one_probe(subject: Subject) -> None:
    long = replace(SPLIT.forget[1], wrong_responses=("word " * 300,))
    given = replace(GIVEN, split=replace(SPLIT, forget=(long,)))
    found, missing = run_probes(subject, given, ["multiple_choice", "int8"])
    assert set(found) == {"int8"} and "Multiple choice could not be measured" in missing["multiple_choice"]
