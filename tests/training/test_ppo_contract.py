"""What `training/rl_trainer.py` takes for granted about TRL. A release that breaks it fails here, and says so."""

from __future__ import annotations

import copy
import inspect
from pathlib import Path
from typing import Any

import pytest
import torch
import trl
from datasets import Dataset
from ppo_fixture import (
    FORGET,
    RETAIN,
    config,
    make_model,
    make_tokenizer,
    original,
    ppo_loss,
    response_logps,
    unlearn,
)
from torch import Tensor
from trl import GRPOConfig, GRPOTrainer

from dareu.training.rl_trainer import RLTrainer
from dareu.training.rollouts import VLLM, Plan, allowed_tokens, engine_settings

BREAKS = f"TRL {trl.__version__} breaks what src/dareu/training/rl_trainer.py builds on: "
TEMPERATURE = 0.7

# Methods that ppo.py overrides or calls: arguments as it passes or receives them.
CALLS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "_get_train_sampler": (("dataset",), ()),
    "_tokenize_prompts": (("prompts",), ()),
    "_generate_single_turn": (("prompt_ids", "images", "multimodal_fields", "num_generations"), ()),
    "_prepare_inputs": (("generation_batch",), ()),
    "_generate_and_score_completions": (("inputs",), ()),
    "_get_per_token_logps_and_entropies": (
        ("model", "input_ids", "attention_mask", "logits_to_keep"),
        ("batch_size", "compute_entropy"),
    ),
    "_compute_loss": (("model", "inputs"), ()),
    "train": ((), ("resume_from_checkpoint",)),
    "training_step": (("model", "inputs", "num_items_in_batch"), ()),
    "create_optimizer": ((), ()),
    "log": (("logs", "start_time"), ()),
    "create_model_card": ((), ("model_name",)),
    "_save_checkpoint": (("model", "trial"), ()),
    "_load_optimizer_and_scheduler": (("checkpoint",), ()),
}
SETTINGS = (
    "steps_per_generation", "num_iterations", "num_generations", "max_completion_length", "temperature", "top_p",
    "top_k", "beta", "epsilon", "loss_type", "scale_rewards", "importance_sampling_level", "entropy_coef",
    "disable_dropout", "use_vllm", "generation_kwargs", "shuffle_dataset", *VLLM.values(),
)  # fmt: skip


@pytest.mark.parametrize("name", CALLS)
def test_method_takes_what_ppo_passes(name: str) -> None:
    positional, named = CALLS[name]
    method = getattr(GRPOTrainer, name, None)
    assert method is not None, BREAKS + f"GRPOTrainer.{name} is gone"
    try:
        inspect.signature(method).bind(None, *positional, **dict.fromkeys(named))
    except TypeError as error:
        pytest.fail(BREAKS + f"GRPOTrainer.{name}{inspect.signature(method)}: {error}")


def test_every_override_is_one_of_them() -> None:
    """A new override has to be added above, or nobody notices when TRL renames it."""
    own = {n for n, v in vars(RLTrainer).items() if inspect.isfunction(v) and hasattr(GRPOTrainer, n)}
    assert own - {"__init__"} <= set(CALLS)


@pytest.mark.parametrize("name", SETTINGS)
def test_setting_exists(name: str) -> None:
    assert name in inspect.signature(GRPOConfig).parameters, BREAKS + f"GRPOConfig has no {name}"


def test_vllm_settings_reach_trl(tmp_path: Path) -> None:
    asked = {
        "mode": "server", "memory_share": 0.5, "tensor_parallel": 2, "sleep": True, "max_length": 700,
        "server_url": "http://there:8001", "server_timeout": 9.0, "model_impl": "transformers",
    }  # fmt: skip
    method = config(use_vllm=True, num_generations=2, vllm=asked)
    settings = engine_settings(method, Plan.of(method, 4), 6)
    arguments = GRPOConfig(
        output_dir=str(tmp_path), report_to=[], use_cpu=True, per_device_train_batch_size=2, **settings
    )
    assert arguments.use_vllm
    assert {key: getattr(arguments, name) for key, name in VLLM.items()} == asked
    assert arguments.generation_kwargs is None


def test_vllm_samples_no_id_of_a_padded_vocabulary() -> None:
    """vLLM does not read the generation config, where `load_model` notes the ids that no token has."""
    policy = copy.deepcopy(original()[0])  # 19 tokens
    assert allowed_tokens(policy) is None
    policy.generation_config.suppress_tokens = [17, 18]
    method = config(use_vllm=True, num_generations=2)
    plan = Plan.of(method, 4)
    given = engine_settings(method, plan, 6, allowed_tokens(policy))["generation_kwargs"]
    assert given == {"allowed_token_ids": list(range(17))}
    assert engine_settings(config(), plan, 6, allowed_tokens(policy))["generation_kwargs"] is None


def _captured_rollouts(
    monkeypatch: pytest.MonkeyPatch, folder: Path, updates: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What TRL returned for a batch of rollouts, and what it became in `RLTrainer`."""
    theirs: list[dict[str, Any]] = []
    ours: list[dict[str, Any]] = []

    def note(cls: type, into: list[dict[str, Any]]) -> None:
        original = cls._generate_and_score_completions  # type: ignore[attr-defined]

        def spy(self: Any, inputs: Any) -> dict[str, Any]:
            batch = original(self, inputs)
            into.append(dict(batch))
            return batch

        monkeypatch.setattr(cls, "_generate_and_score_completions", spy)

    note(GRPOTrainer, theirs)
    note(RLTrainer, ours)
    unlearn(folder, config(data_epochs=1, updates_per_batch=updates))
    return theirs[0], ours[0]


@pytest.mark.parametrize("updates", [1, 2])
def test_rollouts_have_the_keys_and_shapes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, updates: int
) -> None:
    theirs, ours = _captured_rollouts(monkeypatch, tmp_path, updates)
    expected = {
        "prompt_ids", "prompt_mask", "completion_ids", "completion_mask", "advantages", "num_items_in_batch",
    }  # fmt: skip
    if updates > 1:
        expected.add("old_per_token_logps")
    assert set(theirs) == expected, BREAKS + f"rollouts have the keys {sorted(theirs)}"
    shapes = {name: tuple(value.shape) for name, value in theirs.items()}
    rollouts, width = shapes["completion_ids"]
    assert rollouts == 12, BREAKS + "it does not generate the whole batch at once"
    for name, shape in {
        "prompt_mask": shapes["prompt_ids"],
        "completion_mask": (rollouts, width),
        "advantages": (rollouts,),
        "num_items_in_batch": (),
    }.items():
        assert shapes[name] == shape, BREAKS + f"{name} has the shape {shapes[name]}, not {shape}"
    prompt_mask, mask = theirs["prompt_mask"], theirs["completion_mask"]
    assert (prompt_mask[:, 1:] >= prompt_mask[:, :-1]).all(), BREAKS + "prompts are not padded on the left"
    assert (mask[:, 1:] <= mask[:, :-1]).all(), BREAKS + "completions are not padded on the right"
    assert theirs["num_items_in_batch"] == mask.sum()
    # Whatever TRL leaves out, the batch that the updates see is complete, token by token.
    for name in ("advantages", "returns", "old_values", "old_per_token_logps"):
        assert ours[name].shape == (rollouts, width)
        assert torch.isfinite(ours[name]).all()


def _trainer(folder: Path, **settings: Any) -> GRPOTrainer:
    tokenizer = make_tokenizer()
    arguments = GRPOConfig(
        output_dir=str(folder), per_device_train_batch_size=4, num_generations=2, max_completion_length=5,
        beta=0.0, epsilon=0.2, scale_rewards="none", importance_sampling_level="token", report_to=[],
        temperature=TEMPERATURE, use_cpu=True, bf16=False, gradient_checkpointing=False, disable_tqdm=True,
        **({"loss_type": "bnpo"} | settings),
    )  # fmt: skip
    trainer = GRPOTrainer(
        model=make_model(tokenizer),
        reward_funcs=lambda completions, **_: [0.0] * len(completions),
        args=arguments,
        train_dataset=Dataset.from_dict({"prompt": list(FORGET | RETAIN)}),
        processing_class=tokenizer,
    )
    trainer.model.train()
    trainer.current_gradient_accumulation_steps = 1
    return trainer


def _batch(trainer: GRPOTrainer) -> dict[str, Tensor]:
    """Four responses of 5, 4, 2 and 1 tokens; some ratios lie outside the clip range, on either side."""
    draw = torch.Generator().manual_seed(5)
    lengths = torch.tensor([[5], [4], [2], [1]])
    mask = (torch.arange(5) < lengths).long()
    ids = torch.randint(3, 15, (4, 5), generator=draw) * mask
    prompt_mask = torch.tensor([[0, 1, 1], [1, 1, 1], [0, 0, 1], [1, 1, 1]])
    prompts = torch.randint(3, 15, (4, 3), generator=draw) * prompt_mask
    batch = {
        "prompt_ids": prompts, "prompt_mask": prompt_mask, "completion_ids": ids, "completion_mask": mask,
        "advantages": torch.randn(4, 5, generator=draw), "num_items_in_batch": mask.sum(),
    }  # fmt: skip
    with torch.no_grad():
        now = response_logps(trainer.model, batch, TEMPERATURE)
    batch["old_per_token_logps"] = (now + 0.5 * torch.randn(4, 5, generator=draw)) * mask
    return batch


@pytest.mark.parametrize("entropy_coef", [0.0, 0.1])
def test_on_a_cpu_our_log_probabilities_are_theirs(tmp_path: Path, entropy_coef: float) -> None:
    """Values and gradients, in one batch, in two, and with retain rows in the same pass.

    TRL scores the prompts as well and throws that away.
    """
    trainer: Any = _trainer(tmp_path, entropy_coef=entropy_coef)
    batch = _batch(trainer)
    full, attention, length = RLTrainer._concatenate(batch)
    theirs = trainer._get_per_token_logps_and_entropies(
        trainer.model, full, attention, length, compute_entropy=True
    )
    parameters = list(trainer.model.parameters())
    weight = torch.randn(4, 5, generator=torch.Generator().manual_seed(2))
    retain = {
        "input_ids": full,
        "attention_mask": attention,
        "labels": full.masked_fill(attention == 0, -100),
    }
    for size, beside in ((4, None), (2, None), (4, retain)):
        trainer._retained = beside
        ours: Any = RLTrainer._on_cpu(trainer, trainer.model, full, attention, length, size)
        assert len(ours) == len(theirs) and ours[2] is theirs[2] is None
        assert bool(ours[1].requires_grad) == bool(entropy_coef)
        gradients = []
        for logps, entropies, _ in (ours, theirs):
            loss = (weight * logps).sum() + entropy_coef * (weight * entropies).sum()
            gradients.append(torch.autograd.grad(loss, parameters, retain_graph=True))
        for one, two in zip((*ours[:2], *gradients[0]), (*theirs[:2], *gradients[1]), strict=True):
            assert one.shape == two.shape and torch.allclose(one, two, atol=1e-5)


def test_bnpo_is_the_clipped_surrogate(tmp_path: Path) -> None:
    """TRL's loss on per-token (B, T) advantages equals `ppo_loss`, in value and in gradient."""
    trainer = _trainer(tmp_path)
    batch = _batch(trainer)
    parameters = list(trainer.model.parameters())
    theirs = trainer._compute_loss(trainer.model, batch)
    ours = ppo_loss(
        response_logps(trainer.model, batch, TEMPERATURE),
        batch["old_per_token_logps"],
        batch["advantages"],
        batch["completion_mask"],
        clip=0.2,
    )
    ratio = (response_logps(trainer.model, batch, TEMPERATURE) - batch["old_per_token_logps"]).exp()[
        batch["completion_mask"] == 1
    ]
    assert ((ratio - 1).abs() > 0.2).any() and ((ratio - 1).abs() < 0.2).any()  # both branches are met
    torch.testing.assert_close(theirs, ours, msg=BREAKS + f"its loss is {theirs}, not {ours}")
    for one, other in zip(
        torch.autograd.grad(theirs, parameters), torch.autograd.grad(ours, parameters), strict=True
    ):
        torch.testing.assert_close(
            one, other, rtol=1e-4, atol=1e-6, msg=BREAKS + "its loss has another gradient"
        )


def test_another_loss_type_is_not(tmp_path: Path) -> None:
    """The comparison above can tell: TRL's default weighs responses, not tokens."""
    trainer = _trainer(tmp_path, loss_type="grpo")
    batch = _batch(trainer)
    ours = ppo_loss(
        response_logps(trainer.model, batch, TEMPERATURE),
        batch["old_per_token_logps"],
        batch["advantages"],
        batch["completion_mask"],
    )
    assert float((trainer._compute_loss(trainer.model, batch) - ours).detach().abs()) > 1e-3


def test_loss_is_divided_by_the_accumulation_steps(tmp_path: Path) -> None:
    trainer = _trainer(tmp_path)
    batch = _batch(trainer)
    whole = trainer._compute_loss(trainer.model, batch)
    trainer.current_gradient_accumulation_steps = 4
    quarter = trainer._compute_loss(trainer.model, batch)
    torch.testing.assert_close(
        quarter,
        whole / 4,
        msg=BREAKS + "the loss is no longer divided by current_gradient_accumulation_steps",
    )


def test_without_old_logps_the_ratio_is_one(tmp_path: Path) -> None:
    """Where the policy has not moved, the loss is the mean advantage, with a minus."""
    trainer = _trainer(tmp_path)
    batch = _batch(trainer)
    del batch["old_per_token_logps"]
    mask = batch["completion_mask"]
    expected = -(batch["advantages"] * mask).sum() / mask.sum()
    loss = trainer._compute_loss(trainer.model, batch).detach()
    torch.testing.assert_close(loss, expected, msg=BREAKS + "the ratio of an unmoved policy is not 1")


def test_numbers_that_the_log_is_made_of(tmp_path: Path) -> None:
    trainer = _trainer(tmp_path)
    trainer._compute_loss(trainer.model, _batch(trainer))
    for name in ("entropy", "clip_ratio/region_mean"):
        assert name in trainer._metrics["train"], BREAKS + f"it no longer notes {name}"
