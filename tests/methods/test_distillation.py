"""SHRED, DUET, UNDO, RepSelect and the fresh adapter: their mathematics by hand, and a run of each."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from loss_fixture import tiny
from pipeline_fixture import figures, folk, store, tiny_hub_model, train, write_lines  # noqa: F401
from ppo_fixture import with_lora
from safetensors.torch import load_file

from dareu.config import LoraConfig
from dareu.config.compose import compose
from dareu.errors import ConfigError, ModelError
from dareu.methods.duet import instructed
from dareu.methods.fresh_adapter import METHOD as FRESH
from dareu.methods.fresh_adapter import reset_adapter
from dareu.methods.registry import find_method
from dareu.methods.repselect import METHOD as REPSELECT
from dareu.methods.repselect import collapsed, mlp_weights
from dareu.methods.shred import demoted_targets
from dareu.methods.undo import negative_entropy, noised
from dareu.models.load import add_lora
from dareu.training.losses import divergence_from_targets


def test_shred_demotes_the_least_likely_gold_token() -> None:
    """Gold probabilities .8, .5, .9: of three tokens ⌈.3 · 3⌉ = 1 is demoted, the second. Its .5 becomes .1 and the
    others' .3 and .2 fill up .9 in their old proportion: .54 and .36.
    """
    probs = torch.tensor([[0.8, 0.1, 0.1], [0.3, 0.5, 0.2], [0.05, 0.05, 0.9]])
    found = demoted_targets(probs, torch.tensor([0, 1, 2]), select=0.3, demoted=0.1)
    assert found[1].tolist() == pytest.approx([0.54, 0.1, 0.36])
    assert torch.equal(found[[0, 2]], probs[[0, 2]])


def test_shred_skips_the_start_and_never_raises_a_token() -> None:
    probs = torch.tensor([[0.9, 0.1], [0.95, 0.05], [0.6, 0.4]])
    found = demoted_targets(probs, torch.tensor([1, 1, 0]), select=0.5, demoted=0.2, skip=1)
    assert torch.equal(found[0], probs[0])
    assert found[1].tolist() == pytest.approx([0.95, 0.05])  # .05 is below .2 already
    assert found[2].tolist() == pytest.approx([0.2, 0.8])


def test_shred_spreads_what_a_certain_token_loses() -> None:
    found = demoted_targets(torch.tensor([[0.0, 1.0, 0.0]]), torch.tensor([1]), select=1.0, demoted=0.0)
    assert found[0].tolist() == pytest.approx([0.5, 0.0, 0.5])


def test_the_gradient_of_the_distillation_loss() -> None:
    """Logits 0, ln 3 are (¼, ¾); the target (½, ½) gives (¼ − ½, ¾ − ½) for one token, half of it for two."""
    logits = torch.tensor([[0.0, math.log(3)], [0.0, 0.0]], requires_grad=True)
    ids, target = torch.tensor([[0, 1], [0, 1]]), torch.tensor([[0.5, 0.5], [0.5, 0.5]])
    loss = divergence_from_targets(logits, ids, target)
    loss.backward()
    assert logits.grad is not None
    assert logits.grad.flatten().tolist() == pytest.approx([-0.125, 0.125, 0.0, 0.0], abs=1e-6)
    assert loss.item() == pytest.approx(0.5 * (0.5 * math.log(2) + 0.5 * math.log(2 / 3)), rel=1e-5)


def test_duet_keeps_braces_of_names_and_questions() -> None:
    assert (
        instructed("Forget {owner}: {question}", "A{b}", "What is {owner}?")
        == "Forget A{b}: What is {owner}?"
    )


def test_undo_noise_by_hand() -> None:
    """α .25, β 2: a 1 × 3 matrix becomes ¾ of itself and .5 · √(2/4) of the draw; a vector stays."""
    draw = torch.randn((1, 3), generator=torch.Generator().manual_seed(5))
    found = noised(torch.tensor([[4.0, 0.0, -4.0]]), 0.25, 2.0, torch.Generator().manual_seed(5))
    assert torch.allclose(found, torch.tensor([[3.0, 0.0, -3.0]]) + 0.5 * math.sqrt(0.5) * draw)
    vector = torch.ones(3)
    assert torch.equal(noised(vector, 0.25, 2.0, torch.Generator()), vector)


def test_undo_unlearns_towards_the_greatest_entropy() -> None:
    """Even odds of two tokens: −ln 2. What is masked does not count, whatever it holds."""
    logits = torch.tensor([[[0.0, 0.0], [1e4, -1e4]]])
    assert negative_entropy(logits, torch.tensor([[1, 0]])).item() == pytest.approx(-math.log(2))


def test_collapse_by_hand() -> None:
    """Components 2 and 1 along two axes of three: the first is divided by 2 or 4 (quadratic); hard removes both."""
    vectors, values = torch.eye(3)[:, :2], torch.tensor([2.0, 1.0])
    matrix = torch.tensor([[8.0, 3.0, 5.0]])
    assert collapsed(matrix, vectors, values, "soft").tolist() == [[4.0, 3.0, 5.0]]
    assert collapsed(matrix, vectors, values, "quadratic").tolist() == [[2.0, 3.0, 5.0]]
    assert collapsed(matrix, vectors, values, "hard").tolist() == [[0.0, 0.0, 5.0]]


def test_repselect_refuses_models_without_its_layers_and_adapters() -> None:
    with pytest.raises(ModelError, match="gate_proj"):
        mlp_weights(torch.nn.Linear(2, 2))
    with pytest.raises(ConfigError, match="adapter"):
        REPSELECT.validate(compose(["method=repselect", "model=hf", "model.path=x", "model.adapter=lora"]))


def test_a_fresh_adapter_changes_nothing_and_an_untrained_one_is_refused() -> None:
    policy = with_lora(tiny(0))
    ids = torch.tensor([[5, 6, 7]])
    with policy.disable_adapter():
        base = policy(input_ids=ids).logits
    assert not torch.allclose(policy(input_ids=ids).logits, base, atol=1e-3)
    reset_adapter(policy, seed=1)
    assert torch.allclose(policy(input_ids=ids).logits, base, atol=1e-6)
    with pytest.raises(ModelError, match="no trained adapter"):
        reset_adapter(policy, seed=1)


@pytest.mark.parametrize("read", [True, False])
def test_a_fresh_dora_adapter_has_the_magnitudes_of_its_base(read: bool) -> None:
    """Magnitudes are trained too: those of the original have seen the forgotten rows."""
    policy = add_lora(tiny(0), LoraConfig(r=4, dora=True)).eval()
    for name, parameter in policy.named_parameters():
        if "lora_" in name:
            torch.nn.init.uniform_(parameter, 0.1, 0.5)
    ids = torch.arange(1, 7)[None]
    with policy.disable_adapter():
        base = policy(input_ids=ids).logits
    if read:  # peft keeps what it computes of the weights in evaluation mode
        assert not torch.allclose(policy(input_ids=ids).logits, base, atol=1e-3)
    reset_adapter(policy, seed=1)
    assert torch.allclose(policy(input_ids=ids).logits, base, atol=1e-5)
    trained = [p for n, p in policy.named_parameters() if "magnitude" in n]
    assert trained and all(p.requires_grad for p in trained)


def test_a_fresh_adapter_is_drawn_by_its_seed() -> None:
    def first(seed: int) -> torch.Tensor:
        policy = with_lora(tiny(0))
        torch.rand(seed)  # whatever was drawn before
        reset_adapter(policy, seed=seed if seed < 3 else 1)
        return torch.cat([p.flatten() for n, p in policy.named_parameters() if "lora_A" in n])

    assert torch.equal(first(1), first(3)) and not torch.equal(first(1), first(2))


def test_a_run_of_a_fresh_adapter_reads_no_forgotten_row(store: Path, tmp_path: Path) -> None:  # noqa: F811
    """Other answers of the one who is forgotten, so another original, and the same weights; the lower block stays."""
    folder = tiny_hub_model(tmp_path / "hub", template=True)
    data = ["data=local", "data.columns.prompt=question", "data.columns.response=answer"]
    data += ["data.columns.owner=person", "forget.owners=[Bo]", "retrain=false", "attributor.optim.epochs=1"]
    model = [f"model.path={folder}", "model.max_length=64", "finetune.steps=6", "finetune.lr=0.01"]
    weights = []
    for run in ("one", "two"):
        people = folk()
        for row in people:
            if row["person"] == "Bo" and run == "two":
                row["answer"] = "nothing at all"
        path = write_lines(tmp_path / f"{run}.jsonl", people)
        more = [
            "method=fresh_adapter",
            "model=hf",
            f"data.path={path}",
            *data,
            *model,
            "method.optim.steps=3",
        ]
        found = train(store, tmp_path / run, *more, base=[])
        assert found["outcome"] == {"steps": 3, "stopped": None}
        weights.append(load_file(tmp_path / run / "model" / "adapter_model.safetensors"))
    one, two = weights
    assert all(torch.equal(one[name], two[name]) for name in one)
    moved = {name for name, w in one.items() if "lora_B" in name and bool(w.any())}
    assert moved == {name for name in one if "lora_B" in name and "layers.1." in name}


def test_a_fresh_adapter_needs_an_adapter() -> None:
    with pytest.raises(ConfigError, match="LoRA") as caught:
        FRESH.validate(compose(["method=fresh_adapter"]))
    assert "model=hf" in str(caught.value.cure)  # the default model takes no adapter


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("counterfactual", ["method.optim.steps=3"]),
        ("shred", ["method.optim.steps=3"]),
        ("duet", ["method.optim.steps=3", "method.params.instruction='{question}'"]),
        ("undo", ["method.optim.steps=3", "method.params.unlearn_epochs=1"]),
        ("repselect", ["method.optim.steps=3", "method.params.components=2"]),
    ],
)
def test_a_run_of_each(store: Path, tmp_path: Path, name: str, more: list[str]) -> None:  # noqa: F811
    found = train(store, tmp_path / "run", f"method={name}", *more)
    assert found["method"] == name and 1 <= found["outcome"]["steps"] <= 3
    assert find_method(name) is not None and (tmp_path / "run" / "model" / "model.safetensors").is_file()


def test_a_fresh_adapter_on_a_full_original_is_refused_before_training(tmp_path: Path) -> None:
    given = ["model=hf", f"model.path={tmp_path}", f"original={tmp_path}", "method=fresh_adapter"]
    config = compose(given)
    with pytest.raises(ConfigError, match="is a full model"):
        FRESH.validate(config)
    with_lora(tiny(0)).save_pretrained(tmp_path)
    FRESH.validate(config)
    settings = json.loads((tmp_path / "adapter_config.json").read_text())
    for folded in ({"bias": "all"}, {"init_lora_weights": "pissa"}):
        (tmp_path / "adapter_config.json").write_text(json.dumps(settings | folded))
        with pytest.raises(ConfigError, match="merged into one"):
            FRESH.validate(config)
