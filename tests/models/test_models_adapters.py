"""LoRA, the frozen original beside the policy, and rollouts through merged weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from models_fixture import PROMPTS, inputs, make_folder
from torch import Tensor

from dareu.config import HFConfig, LoraConfig
from dareu.errors import ModelError
from dareu.models.generate import generate
from dareu.models.load import (
    ORIGINAL,
    add_lora,
    freeze_original,
    is_peft,
    load_base,
    load_model,
    reference_logits,
    save_model,
)
from dareu.models.merge import merged


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("adapters") / "base")


@pytest.fixture(scope="module")
def trained(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved adapter that changes what the base says."""
    model, tokenizer = load_model(folder)
    model = add_lora(model, LoraConfig())
    stir(model)
    save_model(model, tokenizer, tmp_path_factory.mktemp("trained") / "adapter")
    return tmp_path_factory.getbasetemp() / "trained0" / "adapter"


def stir(model: Any, seed: int = 0) -> None:
    """Random values for everything trainable."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))


def train(model: Any, batch: dict[str, Tensor], steps: int = 3) -> None:
    """A few plain steps, dropout on."""
    was_training = model.training
    model.train()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    for _ in range(steps):
        model(**batch, labels=batch["input_ids"]).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.train(was_training)


def logits(model: Any, batch: dict[str, Tensor]) -> Tensor:
    with torch.no_grad():
        return model(**batch).logits


def trainable(model: Any) -> set[str]:
    return {name for name, p in model.named_parameters() if p.requires_grad}


# --- an adapter, saved and loaded ---------------------------------------------------------------------------------


def test_lora_trains_the_adapter_alone_and_leaves_the_head(folder: Path) -> None:
    base, tokenizer = load_model(folder)
    batch = inputs(tokenizer, PROMPTS)
    before = logits(base, batch)
    model = add_lora(base, LoraConfig(r=4))
    assert is_peft(model)
    assert torch.equal(logits(model, batch), before)  # B starts at zero
    names = trainable(model)
    assert names and all("lora_" in n and "lm_head" not in n for n in names)
    # r·(in + out) on q, k, v, o (32, 32), gate, up (32, 64) and down (64, 32) of two layers
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == 2 * 4 * (4 * 64 + 3 * 96)


def test_an_adapter_folder_holds_the_adapter_and_loads_with_its_base(folder: Path, trained: Path) -> None:
    base, tokenizer = load_model(folder)
    model, again = load_model(trained)
    assert is_peft(model) and not trainable(model) and not model.training
    assert again.get_vocab() == tokenizer.get_vocab() and again.chat_template == tokenizer.chat_template
    weights = (trained / "adapter_model.safetensors").stat().st_size
    assert weights < (folder / "model.safetensors").stat().st_size
    assert not list(trained.glob("model*.safetensors"))
    batch = inputs(tokenizer, PROMPTS)
    assert not torch.allclose(logits(model, batch), logits(base, batch), atol=1e-2)

    policy, _ = load_model(trained, trainable=True)
    assert trainable(policy) and all("lora_" in n for n in trainable(policy))
    assert torch.equal(logits(policy, batch), logits(model, batch))


def test_a_policy_is_saved_without_the_frozen_original(trained: Path, tmp_path: Path) -> None:
    policy, tokenizer = load_model(trained, trainable=True)
    freeze_original(policy)
    batch = inputs(tokenizer, PROMPTS)
    train(policy, batch)
    save_model(policy, tokenizer, tmp_path / "unlearned")
    assert not (tmp_path / "unlearned" / ORIGINAL).exists()
    again, _ = load_model(tmp_path / "unlearned")
    assert torch.equal(logits(again, batch), logits(policy, batch))
    assert list(again.peft_config) == ["default"]


def test_load_base(folder: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)
    model, tokenizer = load_base(HFConfig(path="base", revision="v2", lora=LoraConfig(r=3)), "cpu")
    assert model.peft_config["default"].r == 3 and tokenizer.chat_template
    save_model(model, tokenizer, tmp_path / "adapter")
    noted = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert (
        noted["base_model_name_or_path"] == str(folder.resolve()) and noted["revision"] is None
    )  # a local folder
    monkeypatch.chdir(tmp_path)  # the adapter finds its base from anywhere
    assert is_peft(load_model(tmp_path / "adapter")[0])

    plain, tokenizer = load_base(HFConfig(path=str(folder), adapter="none", chat_template="none"), "cpu")
    assert not is_peft(plain) and tokenizer.chat_template is None
    with pytest.raises(ModelError, match="is an adapter"):
        load_base(HFConfig(path=str(trained)), "cpu")


def test_an_adapter_without_a_tokenizer_takes_its_bases(folder: Path, trained: Path, tmp_path: Path) -> None:
    """As peft itself saves it."""
    model, tokenizer = load_model(trained)
    model.save_pretrained(tmp_path / "bare")
    assert not list((tmp_path / "bare").glob("tokenizer*"))
    again, read = load_model(tmp_path / "bare")
    assert read.get_vocab() == tokenizer.get_vocab() and read.chat_template == tokenizer.chat_template
    batch = inputs(tokenizer, PROMPTS)
    assert torch.equal(logits(again, batch), logits(model, batch))
    settings = tmp_path / "bare" / "adapter_config.json"
    settings.write_text(
        json.dumps(json.loads(settings.read_text()) | {"base_model_name_or_path": "/moved/away"})
    )
    moved, read = load_model(tmp_path / "bare", base=str(folder))  # where the base lies now
    assert read.get_vocab() == tokenizer.get_vocab()
    assert torch.equal(logits(moved, batch), logits(model, batch))


def test_adapter_folders_that_cannot_be_used(trained: Path, tmp_path: Path) -> None:
    def damaged(name: str, **changes: Any) -> Path:
        shutil.copytree(trained, tmp_path / name)
        path = tmp_path / name / "adapter_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))
        return tmp_path / name

    (damaged("empty") / "adapter_model.safetensors").unlink()
    with pytest.raises(ModelError, match="holds no weights"):
        load_model(tmp_path / "empty")
    with pytest.raises(ModelError, match="does not say what model"):
        load_model(damaged("nameless", base_model_name_or_path=None))
    (damaged("broken") / "adapter_config.json").write_text("{")
    with pytest.raises(ModelError, match="adapter_config.json cannot be read"):
        load_model(tmp_path / "broken")
    with pytest.raises(ModelError, match="No model could be loaded from .*gone"):
        load_model(damaged("orphan", base_model_name_or_path=str(tmp_path / "gone")))


# --- the frozen original ------------------------------------------------------------------------------------------


def test_the_original_is_a_second_adapter_on_the_same_base(trained: Path) -> None:
    policy, _ = load_model(trained, trainable=True)
    before = {name: p for name, p in policy.named_parameters()}
    names = trainable(policy)
    reference = freeze_original(policy)
    assert reference is policy
    after = dict(policy.named_parameters())
    assert all(after[name] is p for name, p in before.items())  # the same tensors, base and policy
    new = set(after) - set(before)
    # a twin for each tensor of the adapter, nothing else
    assert {n.replace(f".{ORIGINAL}.", ".default.") for n in new} == {n for n in before if "lora_" in n}
    for name in new:
        twin = after[name.replace(f".{ORIGINAL}.", ".default.")]
        assert torch.equal(after[name], twin) and after[name].data_ptr() != twin.data_ptr()
    assert trainable(policy) == names and policy.active_adapter == "default"


@pytest.mark.parametrize("lora", [True, False])
def test_training_the_policy_leaves_the_reference(folder: Path, trained: Path, lora: bool) -> None:
    policy, tokenizer = load_model(trained if lora else folder, trainable=True)
    batch = inputs(tokenizer, PROMPTS)
    original = logits(policy, batch)
    reference = freeze_original(policy)
    assert (reference is policy) == lora
    names = trainable(policy)
    assert torch.equal(reference_logits(policy, reference, **batch), original)
    train(policy, batch)
    assert torch.equal(reference_logits(policy, reference, **batch), original)
    assert not torch.allclose(logits(policy, batch), original, atol=1e-2)
    assert trainable(policy) == names


def test_a_full_parameter_reference_is_a_frozen_copy(folder: Path) -> None:
    policy, _ = load_model(folder)
    policy.train()
    reference = freeze_original(policy)
    assert not trainable(reference) and not reference.training and policy.training
    mine = {p.data_ptr() for p in policy.parameters()}
    assert not mine & {p.data_ptr() for p in reference.parameters()}
    assert len(trainable(policy)) == len(list(policy.named_parameters()))


def test_reference_logits_know_no_dropout_and_disturb_no_gradient(trained: Path) -> None:
    policy, tokenizer = load_model(trained, trainable=True)
    batch = inputs(tokenizer, PROMPTS)
    original = logits(policy, batch)
    reference = freeze_original(policy)
    stir(policy, seed=7)

    def gradients(ask: bool) -> list[Tensor]:
        """Of a loss whose graph stood before the reference was asked."""
        policy.zero_grad()
        loss = policy(**batch, labels=batch["input_ids"]).loss
        if ask:
            assert not reference_logits(policy, reference, **batch).requires_grad
        loss.backward()
        assert all(p.grad is None for n, p in policy.named_parameters() if ORIGINAL in n)
        return [p.grad.clone() for p in policy.parameters() if p.grad is not None]

    plain, asked = gradients(False), gradients(True)
    assert plain and len(plain) == len(asked)
    for one, other in zip(plain, asked, strict=True):
        assert torch.equal(one, other) and one.abs().sum() > 0

    policy.train()
    noisy = policy(**batch).logits
    assert not torch.allclose(noisy, logits(policy.eval(), batch), atol=1e-3)  # dropout is there to be seen
    policy.train()
    assert torch.equal(reference_logits(policy, reference, **batch), original)
    assert policy.training


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`")
@pytest.mark.parametrize(
    "targets",
    [{"target_modules": ["q_proj", "embed_tokens"]}, {"target_modules": ["v_proj"], "use_dora": True}],
)
def test_the_original_is_copied_whole_for_other_kinds_of_adapters(
    folder: Path, targets: dict[str, Any]
) -> None:
    """Adapters made elsewhere may sit on embeddings, whose tensors are named otherwise, or have more parts."""
    from peft import LoraConfig as PeftLoraConfig
    from peft import get_peft_model

    base, tokenizer = load_model(folder)
    policy = get_peft_model(base, PeftLoraConfig(r=4, task_type="CAUSAL_LM", **targets)).eval()
    stir(policy)
    batch = inputs(tokenizer, PROMPTS)
    original = logits(policy, batch)
    reference = freeze_original(policy)
    train(policy, batch)
    assert torch.equal(reference_logits(policy, reference, **batch), original)
    assert not torch.equal(logits(policy, batch), original)
    assert not any(ORIGINAL in name for name in trainable(policy))


# --- merged rollouts ----------------------------------------------------------------------------------------------


def base_weights(model: Any) -> dict[str, Tensor]:
    return {n: p.detach().clone() for n, p in model.named_parameters() if "lora_" not in n}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[n], other[n]) for n in one)


def test_merged_says_the_same_and_puts_the_weights_back(trained: Path) -> None:
    policy, tokenizer = load_model(trained, trainable=True)
    reference = freeze_original(policy)
    stir(policy, seed=3)  # the policy has moved away from the original
    batch = inputs(tokenizer, PROMPTS)
    weights, said, original = (
        base_weights(policy),
        logits(policy, batch),
        reference_logits(policy, reference, **batch),
    )
    assert not torch.allclose(said, original, atol=1e-2)
    names = trainable(policy)
    for _ in range(3):
        with merged(policy):
            torch.testing.assert_close(logits(policy, batch), said, atol=1e-4, rtol=1e-4)
            assert not same(base_weights(policy), weights)
        assert same(base_weights(policy), weights)
        assert torch.equal(logits(policy, batch), said)
    with merged(policy, ORIGINAL):
        torch.testing.assert_close(logits(policy, batch), original, atol=1e-4, rtol=1e-4)
    assert same(base_weights(policy), weights)
    assert torch.equal(reference_logits(policy, reference, **batch), original)
    assert trainable(policy) == names


def test_merged_generates_what_the_unmerged_model_generates(trained: Path) -> None:
    policy, tokenizer = load_model(trained)
    options: dict[str, Any] = {"max_new_tokens": 6, "batch_size": 5}
    plain = generate(policy, tokenizer, PROMPTS, **options)
    with merged(policy):
        assert generate(policy, tokenizer, PROMPTS, **options) == plain


def test_merged_puts_the_weights_back_after_an_error(trained: Path) -> None:
    policy, tokenizer = load_model(trained)
    batch = inputs(tokenizer, PROMPTS)
    weights, said = base_weights(policy), logits(policy, batch)
    with pytest.raises(RuntimeError, match="out of memory"), merged(policy):
        assert not same(base_weights(policy), weights)
        raise RuntimeError("out of memory")
    assert same(base_weights(policy), weights)
    assert torch.equal(logits(policy, batch), said)


def test_merged_does_nothing_without_an_adapter(folder: Path) -> None:
    model, _ = load_model(folder)
    weights = base_weights(model)
    with merged(model):
        assert same(base_weights(model), weights)
