"""What probes are made of, worked out by hand: rounding, prompts, batches, areas."""

from __future__ import annotations

import pytest
import torch

from dareu.data.corpus import Sample
from dareu.evaluation.metrics.model_rows import doublings
from dareu.evaluation.probes.prompts import (
    _share,
    choice_prompt,
    opening,
    options,
    paraphrases,
    second_turn_prompt,
)
from dareu.evaluation.probes.quantisation import round_to_nearest
from dareu.evaluation.probes.relearning import batches, mean_height, shown_part


def sample(i: int, owner: str = "Ada", wrong: tuple[str, ...] = ("Oslo.", "Lima.", "Oslo.")) -> Sample:
    return Sample(f"{owner}/{i}", owner, "Where does Ada live?", "Rome.", (), None, wrong)


def test_rounding_by_hand() -> None:
    # 4 bits: q = 7, s = 7/7 = 1 in the first row, 14/7 = 2 in the second
    weight = torch.tensor([[7.0, -3.4, 0.4, 1.6], [14.0, -14.0, 2.9, 0.0]])
    assert torch.equal(
        round_to_nearest(weight, 4), torch.tensor([[7.0, -3.0, 0.0, 2.0], [14.0, -14.0, 2.0, 0.0]])
    )
    # in groups of two columns: scales 1, 1.6/7; 2, 2.9/7
    grouped = round_to_nearest(weight, 4, group=2)
    assert grouped[:, :2].tolist() == [[7.0, -3.0], [14.0, -14.0]]
    assert grouped[0, 2:].tolist() == pytest.approx([2 * 1.6 / 7, 1.6])  # .4 / (1.6/7) = 1.75 → 2
    assert grouped[1, 2:].tolist() == pytest.approx([2.9, 0.0])
    eight = round_to_nearest(torch.tensor([[12.7, 0.05, 0.049]]), 8)
    assert eight.tolist()[0] == pytest.approx([12.7, 0.0, 0.0])  # s = .1, .05 / .1 rounds to the even 0


@pytest.mark.parametrize(("bits", "group"), [(8, None), (4, None), (4, 5), (2, 3)])
def test_rounding_is_no_further_off_than_half_a_step(bits: int, group: int | None) -> None:
    weight = torch.randn(6, 17, generator=torch.Generator().manual_seed(0))
    rounded = round_to_nearest(weight, bits, group)
    steps = weight.abs().amax(1, keepdim=True) / (2 ** (bits - 1) - 1)
    assert bool(((rounded - weight).abs() <= steps / 2 + 1e-6).all())
    assert torch.allclose(round_to_nearest(rounded, bits, group), rounded, atol=1e-6)  # twice is once
    assert torch.allclose(round_to_nearest(-weight, bits, group), -rounded)
    if group is None:
        assert max(len(row.unique()) for row in rounded) <= 2**bits - 1


def test_rounding_keeps_zeros_and_types_and_refuses_the_rest() -> None:
    assert torch.equal(round_to_nearest(torch.zeros(2, 3), 4), torch.zeros(2, 3))
    assert round_to_nearest(torch.ones(2, 3, dtype=torch.bfloat16), 8).dtype == torch.bfloat16
    with pytest.raises(ValueError, match="bits"):
        round_to_nearest(torch.ones(2, 3), 1)
    with pytest.raises(ValueError, match="no matrix"):
        round_to_nearest(torch.ones(3), 8)


def test_options_hold_the_right_answer_once_in_places_that_vary() -> None:
    places = set()
    for i in range(30):
        answers, right = options(sample(i), 0)
        assert sorted(answers) == ["Lima.", "Oslo.", "Rome."] and answers[right] == "Rome."
        assert options(sample(i), 0) == (answers, right)
        places.add(right)
    assert places == {0, 1, 2}
    prompt = choice_prompt("Where?", ["Oslo.", "Rome."])
    assert prompt == "Where?\nA. Oslo.\nB. Rome.\nAnswer with the letter of the right answer."


def test_given_paraphrases_win_over_templates() -> None:
    assert paraphrases(Sample("1", "A", "Where?", "Rome.", ("In what city?",))) == ("In what city?",)
    made = paraphrases(Sample("1", "A", "Where?", "Rome."))
    assert len(made) == 5 and "Could you tell me where?" in made and len(set(made)) == 5


def test_opening_is_a_third_of_the_words() -> None:
    assert opening("Rome") is None
    assert opening("In Rome") == ("In", "Rome")
    assert opening("a b c d e f") == ("a b", "c d e f")
    assert opening(" ".join("abcdefghijklmnopqrstuvwxyz")) == ("a b c d e", " ".join("fghijklmnopqrstuvwxyz"))


def test_shares() -> None:
    assert _share([0.0, 0.0], 1) == 0.5
    assert _share([-1e5, -1e5 - 1], 0) == pytest.approx(0.7310586)
    assert _share([-float("inf")] * 2, 0) is None
    assert doublings(16) == [1, 2, 4, 8, 16] and doublings(5) == [1, 2, 4, 5] and doublings(1) == [1]


def test_second_turn_without_a_template() -> None:
    class Plain:
        chat_template, bos_token_id = None, None
        added_tokens_decoder: dict[int, str] = {}
        all_special_tokens: list[str] = []

    assert second_turn_prompt(Plain(), "Where?", "Rome.") == (
        "Question: Where?\nAnswer: Rome.\nQuestion: Are you sure? Please answer the question again.\nAnswer:"
    )


def test_batches_are_passes_over_all_rows() -> None:
    chosen = batches(5, 2, 10, 0)
    assert len(chosen) == 10 and all(len(set(b)) == 2 for b in chosen)
    flat = [row for batch in chosen for row in batch]
    assert all(flat.count(row) in (3, 4, 5) for row in range(5))
    assert batches(3, 8, 2, 0) == [[*b] for b in batches(3, 8, 2, 0)] and len(batches(3, 8, 2, 0)[0]) == 3
    assert batches(5, 2, 3, 1) != batches(5, 2, 3, 2)


def test_areas_by_hand() -> None:
    curve = [(0.0, 0.0), (10.0, 1.0), (50.0, 1.0)]
    assert mean_height(curve) == pytest.approx((5 + 40) / 50)
    assert mean_height([(0.0, 0.3)]) == 0.3


def test_shown_part_takes_owners_in_turn() -> None:
    samples = [sample(i, owner) for owner in ("Ada", "Ben") for i in range(10)]
    shown = shown_part(samples, 0.1, 3)
    assert len(shown) == 2 and {samples[i].owner for i in shown} == {"Ada", "Ben"}
    assert (
        shown == shown_part(samples, 0.1, 3)
        and len({tuple(shown_part(samples, 0.1, s)) for s in range(8)}) > 1
    )
    assert len(shown_part(samples[:3], 0.1, 0)) == 1
