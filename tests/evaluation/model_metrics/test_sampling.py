"""Samples: from the model's own distribution, and decided by prompt, index and seed alone."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from models_fixture import PROMPTS, make_folder

from dareu.data.corpus import Sample
from dareu.data.render import Encoded
from dareu.errors import DataError
from dareu.evaluation.metrics.rouge import exact_answer, rouge_recall
from dareu.evaluation.model_metrics.fade import (
    OwnSamples,
    by_query,
    fade_distance,
    likelihoods_of,
    own_samples,
)
from dareu.evaluation.subject import Subject
from dareu.models.generate import _at_once, _draws, _InverseCdf, generate, sample
from dareu.models.load import load_model


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    return load_model(make_folder(tmp_path_factory.mktemp("model")))


def ids(samples: Any) -> list[list[list[int]]]:
    return [[one.ids for one in of_prompt] for of_prompt in samples]


def test_a_sample_is_where_the_cumulative_probability_passes_the_number() -> None:
    scores = torch.log(torch.tensor([[0.1, 0.0, 0.6, 0.3]])).expand(5, 4)
    uniforms = torch.tensor([[0.0], [0.0999], [0.1001], [0.6999], [0.7001]])
    chosen = _InverseCdf(uniforms, 3, 1.0)(torch.zeros(5, 3, dtype=torch.long), scores).argmax(-1)
    assert chosen.tolist() == [0, 0, 2, 2, 3]  # what has no probability is never drawn
    cold = _InverseCdf(uniforms, 3, 0.01)(torch.zeros(5, 3, dtype=torch.long), scores).argmax(-1)
    assert cold.tolist() == [2] * 5
    last = _InverseCdf(torch.full((5, 1), 1.0), 3, 1.0)(torch.zeros(5, 3, dtype=torch.long), scores).argmax(
        -1
    )
    assert last.tolist() == [3] * 5


def test_a_small_model_on_a_cpu_samples_more_rows_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """4 bytes of 2 · 8 · 3 · 10 keys and values and of 4 · 5 scores: 2,000 a row, so that 5 rows have room."""
    shape = SimpleNamespace(hidden_size=8, num_hidden_layers=3, vocab_size=5)
    config = SimpleNamespace(get_text_config=lambda: shape)
    model = SimpleNamespace(config=config, device=torch.device("cpu"))
    monkeypatch.setattr("dareu.models.generate.ROOM", 10_000)
    assert [_at_once(model, size, 10) for size in (1, 5, 6)] == [5, 5, 6]
    model.device = torch.device("cuda")
    assert _at_once(model, 1, 10) == 1
    model.device = torch.device("cpu")
    del shape.num_hidden_layers
    assert _at_once(model, 1, 10) == 1


def test_batch_size_order_and_count_change_no_sample(
    tiny: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(prompts: list[str], batch: int, count: int = 4, seed: int = 0) -> list[list[list[int]]]:
        return ids(
            sample(
                *tiny, prompts, count=count, temperature=1.0, max_new_tokens=6, batch_size=batch, seed=seed
            )
        )

    whole = run(PROMPTS, 64)
    assert run(PROMPTS, 1) == whole  # in larger batches than was asked for
    monkeypatch.setattr("dareu.models.generate.ROOM", 0)
    assert run(PROMPTS, 1) == run(PROMPTS, 3) == whole
    assert run(PROMPTS[::-1], 8)[::-1] == whole
    assert run(PROMPTS[2:3], 8) == whole[2:3]
    assert [rows[:2] for rows in whole] == run(PROMPTS, 8, count=2)
    assert run(PROMPTS, 8, seed=1) != whole
    assert len({tuple(row) for rows in whole for row in rows}) > 10
    with pytest.raises(ValueError, match="temperature"):
        sample(*tiny, PROMPTS, count=1, temperature=0.0, max_new_tokens=2, batch_size=1)


def test_a_low_temperature_is_greedy_and_the_global_random_state_is_left_alone(tiny: tuple[Any, Any]) -> None:
    state = torch.get_rng_state()
    cold = sample(*tiny, PROMPTS, count=2, temperature=1e-4, max_new_tokens=6, batch_size=8)
    assert torch.equal(state, torch.get_rng_state())
    greedy = generate(*tiny, PROMPTS, max_new_tokens=6, batch_size=8)
    assert ids(cold) == [[one.ids, one.ids] for one in greedy]


def test_first_tokens_follow_the_distribution(tiny: tuple[Any, Any]) -> None:
    model, tokenizer = tiny
    drawn = sample(*tiny, ["Who"], count=2000, temperature=1.0, max_new_tokens=1, batch_size=500)[0]
    counts = Counter(one.ids[0] if one.ids else tokenizer.eos_token_id for one in drawn)
    with torch.no_grad():
        p = model(tokenizer("Who", return_tensors="pt")["input_ids"]).logits[0, -1].softmax(-1)
    for token in p.topk(3).indices.tolist():
        share = float(p[token])
        assert counts[token] / 2000 == pytest.approx(share, abs=5 * (share * (1 - share) / 2000) ** 0.5)


def test_numbers_are_a_function_of_prompt_index_and_seed() -> None:
    assert np.array_equal(_draws("a", 0, 1, 9)[:5], _draws("a", 0, 1, 5))
    rows = [_draws(*key, 5).tolist() for key in (("a", 0, 1), ("a", 1, 1), ("a", 0, 2), ("b", 0, 1))]
    assert len({tuple(row) for row in rows}) == 4


def test_answers_fit_the_context(tiny: tuple[Any, Any]) -> None:
    question = Sample("1", "Ada", "Who wrote the second well?", "a potter from Nantes", ())
    subject = Subject(*tiny, batch_size=4)
    answers = subject.samples([question], 2, 1.0, seed=0)
    assert len(answers) == 1 and len(answers[0]) == 2
    assert subject.samples([], 2, 1.0, seed=0) == subject.answers([], 8) == []
    with pytest.raises(DataError, match="no room"):
        subject.room(["Who " * 80], 8)
    assert rouge_recall("a potter", "a potter from Nantes") == 1.0 and exact_answer(
        "a b", " a b\n"
    ) == 1.0 != exact_answer("a b", "a")


def test_fade_by_hand() -> None:
    # a's samples: 2 nats likelier under a, 4 tokens: ½; b's: 3 nats, 3 tokens: 1
    assert fade_distance([-1.0, -2.0], [-2.0, -3.0], [1, 3], [-1.0], [-4.0], [3]) == pytest.approx(0.75)
    assert fade_distance([-1.0], [-4.0], [3], [-1.0, -2.0], [-2.0, -3.0], [1, 3]) == pytest.approx(0.75)
    with pytest.raises(ValueError, match="both models"):
        fade_distance([], [], [], [-1.0], [-4.0], [3])


def test_fade_is_nought_to_oneself_and_grows_with_a_change(tiny: tuple[Any, Any]) -> None:
    import copy

    model, tokenizer = tiny
    queries = [Sample(str(i), "Ada", prompt, "a potter") for i, prompt in enumerate(PROMPTS)]

    def samples_of(which: Any) -> OwnSamples:
        return own_samples(Subject(which, tokenizer, batch_size=16), queries, 8, seed=3)

    def distances_to(other: Any, theirs: OwnSamples) -> list[float]:
        of_own = likelihoods_of(Subject(other, tokenizer, batch_size=16), own.pairs)
        of_theirs = likelihoods_of(Subject(model, tokenizer, batch_size=7), theirs.pairs)
        found = by_query(own, of_own, theirs, of_theirs, len(PROMPTS))
        back = by_query(theirs, of_theirs, own, of_own, len(PROMPTS))
        assert back == pytest.approx(found)
        assert None not in found
        return [value for value in found if value is not None]

    own = samples_of(model)
    assert distances_to(model, own) == pytest.approx([0.0] * len(PROMPTS), abs=1e-5)
    means = []
    for size in (0.02, 0.1):
        other = copy.deepcopy(model)
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for weight in other.parameters():
                weight.add_(size * torch.randn(weight.shape, generator=generator))
        means.append(np.mean(distances_to(other, samples_of(other))))
    assert 0 < means[0] < means[1]


def test_fade_of_a_query_without_samples_is_none() -> None:
    pair = Encoded([1], [2, 3])
    one = OwnSamples([pair, pair], [-1.0, -2.0], [0, 2])
    other = OwnSamples([pair], [-1.0], [0])
    # query 0: (−1 + 3)/2 and (−1 + 2)/2
    assert by_query(one, [-3.0, -2.0], other, [-2.0], 3) == [pytest.approx(0.75), None, None]
