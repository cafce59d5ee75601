"""What the original says of retain rows, kept: the same as a pass, whatever stands beside a row."""

from __future__ import annotations

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from dareu.data.render import Encoded
from dareu.models.logprobs import response_logits, response_logprobs, spread, to_batch
from dareu.training import kept_logits
from dareu.training.kept_logits import KeptLogits, fit_in_memory, logprobs

ROWS = [Encoded([5, 6], [7, 8, 9]), Encoded([5], [9]), Encoded([4, 6, 3], [8, 8, 7, 9]), Encoded([5], [9])]


def tiny() -> LlamaForCausalLM:
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    return LlamaForCausalLM(LlamaConfig(vocab_size=11, **shape)).eval()


def test_they_are_those_of_a_pass() -> None:
    """In any order and any batch: rows 3 and 1 are equal and still two rows."""
    model = tiny()
    kept = KeptLogits(model, ROWS, pad_id=0, batch_size=3)
    for numbers in ([0, 1, 2, 3], [2, 0], [3]):
        rows = [ROWS[n] for n in numbers]
        now, _, _ = response_logits(model, to_batch(rows, 0, "cpu"))
        assert torch.allclose(kept.at(rows), now, atol=1e-5)
        assert not kept.at(rows).requires_grad


def test_log_probabilities_are_those_of_a_pass() -> None:
    model = tiny()
    kept = KeptLogits(model, ROWS, 0, 3, logprobs)
    batch = [ROWS[n] for n in (2, 0)]
    now, mask = response_logprobs(model, to_batch(batch, 0, "cpu"))
    assert torch.allclose(spread(kept.at(batch), mask), now, atol=1e-5) and int(mask.sum()) == 7


def test_nine_tokens_of_a_vocabulary_fit_up_to_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """9 tokens · V · 4 bytes against one MiB: V = 29127 fits, 29128 does not."""
    monkeypatch.setattr(kept_logits, "MOST_MIB", 1)
    assert fit_in_memory(ROWS, 29127)
    assert not fit_in_memory(ROWS, 29128)
