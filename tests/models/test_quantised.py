"""Weights in few bits with bitsandbytes' own CPU code: the path, not a GPU's numbers."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from pipeline_fixture import folk, tiny_hub_model

from dareu.config import HFConfig, Optim
from dareu.data.corpus import Sample
from dareu.data.render import encode_samples
from dareu.evaluation.probes.base import Gap
from dareu.evaluation.probes.quantisation import changed_weights
from dareu.methods.registry import find_method
from dareu.models.generate import generate
from dareu.models.load import as_original, freeze_original, load_base, load_model, save_model
from dareu.models.logprobs import response_logprobs, to_batch
from dareu.models.merge import merged
from dareu.training.common import Work
from dareu.training.loss_trainer import train_with_loss
from dareu.training.losses import nll

bnb = pytest.importorskip("bitsandbytes")
ROWS = [Sample(f"{i}", r["person"], r["question"], r["answer"]) for i, r in enumerate(folk(2))]


@pytest.fixture(params=["nf4", "int8"])
def quantised(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[Any, Any, Path]:
    """A policy whose linear layers lie in few bits below an adapter, its tokenizer, and the folder of its base."""
    # On a CPU with bfloat16 instructions, as every one is here, bitsandbytes packs 4-bit weights anew in evaluation.
    monkeypatch.setattr(bnb.nn.modules, "has_avx512bf16", lambda: True)
    base = tiny_hub_model(tmp_path / "base", template=True)
    torch.manual_seed(0)
    policy, tokenizer = load_base(HFConfig(path=str(base), quantization=request.param), "cpu")
    return policy, tokenizer, base


def packed(model: Any) -> dict[str, torch.Tensor]:
    return {n: p.detach().clone() for n, p in model.named_parameters() if not p.is_floating_point()}


def with_plain_weights(policy: Any, base: Path) -> Any:
    """The same policy on the base's weights as few bits hold them, in float32."""
    plain, _ = load_base(HFConfig(path=str(base)), "cpu")
    twins = dict(plain.named_parameters())
    with torch.no_grad():
        for name, parameter in policy.named_parameters():
            if parameter.is_floating_point():
                twins[name].copy_(parameter)
            elif hasattr(parameter, "quant_state"):
                twins[name].copy_(bnb.functional.dequantize_4bit(parameter.data, parameter.quant_state))
            else:  # bytes, and a scale for each row; both lie in the state once a batch has passed
                layer = policy.get_submodule(name.rpartition(".")[0])
                twins[name].copy_(layer.state.CB * layer.state.SCB[:, None] / 127)
    return plain


def test_gradients_are_those_of_the_weights_as_they_are_rounded(quantised: tuple[Any, Any, Path]) -> None:
    policy, tokenizer, base = quantised
    assert len(packed(policy)) == 14  # seven linear layers of each of two blocks
    with torch.no_grad():
        for name, parameter in policy.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.2)
    batch = to_batch(encode_samples(tokenizer, ROWS, "qa", 64), tokenizer.pad_token_id, "cpu")
    generate(
        policy, tokenizer, ["Who?"], max_new_tokens=3, batch_size=1
    )  # a pass without gradients goes before
    found: list[torch.Tensor] = []
    for model in (policy, with_plain_weights(policy, base)):
        model.eval()  # without dropout
        nll(*response_logprobs(model, batch)).backward()
        found.append(torch.cat([p.grad.flatten() for n, p in model.named_parameters() if "lora_" in n]))
    assert torch.nn.functional.cosine_similarity(*found, dim=0) > 0.99  # products are made in 16 bits
    assert found[0].norm() == pytest.approx(float(found[1].norm()), rel=0.05)


def test_unlearning_moves_the_adapter_alone_and_the_original_stays(
    quantised: tuple[Any, Any, Path], tmp_path: Path
) -> None:
    policy, tokenizer, base = quantised
    rows = encode_samples(tokenizer, ROWS, "qa", 64)
    before, adapter = packed(policy), copy.deepcopy(policy.peft_config["default"])
    reference = freeze_original(policy)
    batch = to_batch(rows, tokenizer.pad_token_id, "cpu")
    with as_original(policy, reference) as original:
        known, _ = response_logprobs(original, batch)
    train_with_loss(
        policy, tokenizer, method=find_method("npo"), optim=Optim(lr=5e-2, steps=3, batch_size=4), rows=rows[:4],
        retain_rows=rows[4:], retain="nll", params={"beta": 0.1}, reference=reference, work=Work(tmp_path / "work"),
    )  # fmt: skip
    assert all(torch.equal(before[n], p) for n, p in packed(policy).items())
    with as_original(policy, reference) as original:
        again, _ = response_logprobs(original, batch)
    now, _ = response_logprobs(policy.eval(), batch)
    assert torch.equal(known, again) and not torch.allclose(now, known, atol=1e-3)
    with merged(policy):  # nothing is folded into rounded weights
        assert not any(getattr(m, "merged_adapters", []) for m in policy.modules())
        assert len(generate(policy, tokenizer, ["Who?"], max_new_tokens=3, batch_size=1)) == 1
    save_model(policy, tokenizer, tmp_path / "model")
    assert adapter.r == 8
    whole, _ = load_model(tmp_path / "model")  # the adapter on the base with all its bits
    assert not packed(whole) and whole.peft_config["default"].r == 8


def test_weights_in_few_bits_are_not_rounded_once_more(quantised: tuple[Any, Any, Path]) -> None:
    policy, _, _ = quantised
    before = packed(policy)
    with pytest.raises(Gap, match="dareu export RUN"), changed_weights(policy, lambda weight: weight * 0):
        pass
    assert all(torch.equal(before[n], p) for n, p in packed(policy).items())
