"""`experiment=paper_*` says what the paper says, number by number; what the paper is silent on is the default."""

from __future__ import annotations

from typing import Any

import pytest

from dareu.config import RunConfig
from dareu.config.compose import compose, options

# Key → value, with the part of Lu et al. 2026 (arXiv 2605.30919) that states it, as in the page on the method.
EVERYWHERE: dict[str, Any] = {
    # Policies (experimental settings)
    "model.name": "hf",
    "model.adapter": "lora",
    "model.lora.r": 8,
    "model.lora.alpha": 16,
    "model.lora.dropout": 0.05,
    "finetune.lr": 1.5e-4,
    "finetune.batch_size": 16,
    # Phase 1, the classifier: response only, one class an owner
    "attributor.name": "causal",
    "attributor.backbone.adapter": "lora",
    "attributor.backbone.lora.r": 16,
    "attributor.backbone.lora.alpha": 32,
    "attributor.backbone.lora.dropout": 0.1,
    "attributor.optim.lr": 1e-4,
    "attributor.optim.batch_size": 16,
    "attributor.nobody": False,
    "attributor.blind": False,
    "attributor.crops": 0,
    # Phase 2, the reward: χ with C_seg, DA(i, .) at the end of each of k slices, mean over them, KL to π_old
    "method.kind": "rl",
    "method.reward.kind": "attribution",
    "method.reward.transform": "log",
    "method.reward.scale": 1.05,
    "method.reward.target": "owner",
    "method.reward.blind": False,
    "method.reward.nameless": False,
    "method.reward.floor": 0.0,
    "method.reward.granularity": "slices",
    "method.reward.slices": 15,
    "method.reward.prefix_mean": True,
    "method.reward.credit": "level",
    "method.reward.kl": 0.1,
    # Phase 2, PPO: A = R − V, whitened (appendix); one sample a prompt; alternating distillation
    "method.advantage.estimator": "critic",
    "method.advantage.gae_lambda": 1.0,
    "method.advantage.mode": "whitened",
    "method.data_epochs": 1,
    "method.num_generations": 1,
    "method.temperature": 0.8,
    "method.clip": 0.2,
    "method.value_coef": 0.2,
    "method.distill": 2.0,
    "method.distill_every": 1,
    # Terms, guards and stopping rules that the paper does not have
    "method.reward.nobody_weight": 0.0,
    "method.reward.length_penalty": 0.0,
    "method.reward.empty_penalty": 0.0,
    "method.reward.repetition_penalty": 0.0,
    "method.reward.fluency": 0.0,
    "method.entropy_coef": 0.0,
    "method.kl_loss": 0.0,
    "method.retain_prompts.share": 0.0,
    "method.refusal_phase": None,
    "method.stop.attribution": None,
    "method.stop.kl": None,
    "method.stop.unhealthy": None,
}
LLAMA = {
    "model.path": "meta-llama/Llama-2-7b-chat-hf",
    "attributor.backbone.path": "TinyLlama/TinyLlama-1.1B-Chat-v1.0",
}
QWEN = {"model.path": "Qwen/Qwen3-8B", "attributor.backbone.path": "Qwen/Qwen3-0.6B"}
TOFU = {
    "finetune.epochs": 5,
    "attributor.optim.epochs": 5,
    "method.updates_per_batch": 20,
    "method.prompts_per_batch": 32,
    "method.optim.lr": 1.5e-4,
    "forget.fraction": 0.1,
    "data.columns.prompt": "question",
    "data.teach_test": False,
}
ARXIV = {
    "finetune.epochs": 15,
    "attributor.optim.epochs": 15,
    "method.optim.lr": 2e-4,
    "forget.count": 1,
    "data.columns.prompt": None,
    "data.columns.response": "text",
}
PAPER: dict[str, dict[str, Any]] = {
    "paper_tofu_llama2": EVERYWHERE | TOFU | LLAMA,
    "paper_tofu_qwen3": EVERYWHERE | TOFU | QWEN,
    "paper_arxiv_llama2": EVERYWHERE
    | ARXIV
    | LLAMA
    | {"method.updates_per_batch": 6, "method.prompts_per_batch": 16},
    "paper_arxiv_qwen3": EVERYWHERE
    | ARXIV
    | QWEN
    | {"method.updates_per_batch": 8, "method.prompts_per_batch": 8},
}
# The rounds are the setting's own; the rest of it is the run on TOFU.
PAPER["paper_sequential"] = PAPER["paper_tofu_llama2"] | {
    "forget.fraction": None,
    "rounds.owners": None,
    "rounds.count": 5,
    "rounds.owners_per_round": 4,  # 80 samples, 20 an author
}
# What the paper is silent on, and where the experiment still leaves the default; each says why in its YAML.
ROOM = {"model.max_length": 1024, "attributor.max_length": 1024}
# How the named pairs are read.
LLAMA_READ = {
    "model.revision": "f5db02db724555f92da89c216ac04704f23d4590",
    "attributor.backbone.revision": "fe8a4ea1ffedaf415f4da2f062534de366a451e6",
}
QWEN_READ = {
    "model.revision": "b968826d9c46dd6066d109eabc6255188de91218",
    "attributor.backbone.revision": "c1899de289a04d12100db370d81485cdf75e47ca",
}
SILENT: dict[str, dict[str, Any]] = {
    # γ of a reward of levels: the default is for one of differences; and the defaults' batches are cut in two
    name: {
        "method.critic_lr": None,
        "method.advantage.gamma": 0.95,
        "method.rollouts_per_update": None,
        "method.optim.warmup_ratio": 0.0,
        "attributor.optim.warmup_ratio": 0.0,
        "model.dtype": "bfloat16",
    }
    | (QWEN_READ if "qwen" in name else LLAMA_READ)
    | (ROOM if "arxiv" in name else {})
    for name in PAPER
}


def flat(config: RunConfig, *parts: str) -> dict[str, Any]:
    found: dict[str, Any] = {}

    def walk(node: Any, path: str) -> None:
        if isinstance(node, dict) and node:
            for name, child in node.items():
                walk(child, f"{path}.{name}" if path else name)
        else:
            found[path] = node

    walk(config.model_dump(include=set(parts) or None), "")
    return found


def paper(name: str) -> RunConfig:
    return compose([f"experiment={name}", "data.path=samples.jsonl"])


def test_all_paper_configs_are_looked_at() -> None:
    assert {name for name in options()["experiment"] if name.startswith("paper_")} - {"paper_reward"} == set(
        PAPER
    )
    assert len(PAPER) == 5


@pytest.mark.parametrize("name", PAPER)
def test_what_the_paper_states(name: str) -> None:
    config = flat(paper(name))
    assert {key: config[key] for key in PAPER[name]} == PAPER[name]


@pytest.mark.parametrize("name", PAPER)
def test_what_the_paper_does_not_state_is_the_default(name: str) -> None:
    parts = ("model", "finetune", "attributor", "method", "evaluation")
    ours = flat(paper(name), *parts)
    thinks = ["model.template_options={enable_thinking: false}"] if "qwen" in name else []
    default = flat(compose(["model=hf", "model.path=m", "method=dareu", *thinks]), *parts)
    assert set(ours) == set(default)
    others = {key: ours[key] for key in ours if ours[key] != default[key] and key not in PAPER[name]}
    assert others == SILENT[name]


@pytest.mark.parametrize("group", ["reward", "stop"])
def test_a_new_reward_or_stopping_key_is_decided_upon(group: str) -> None:
    """A guard that is on by default must not find its way into the paper's settings unseen."""
    decided = {
        "epsilon",
        "fluency_clip",
        "patience",
        "similar",
        "rare",
        "params",
        "refusals",
        "form",
        "tau",
    } | {key.removeprefix(f"method.{group}.") for key in EVERYWHERE if key.startswith(f"method.{group}.")}
    keys = flat(paper("paper_tofu_llama2"), "method")
    assert {k.removeprefix(f"method.{group}.") for k in keys if k.startswith(f"method.{group}.")} <= decided


def test_the_command_line_wins() -> None:
    config = compose(["experiment=paper_tofu_llama2", "data.path=x.jsonl", "method.updates_per_batch=3"])
    assert flat(config)["method.updates_per_batch"] == 3


# Keys that the paper is silent on and that change a result: neutral, not what was found by a search on the demo.
NEUTRAL = {
    "warmup_ratio": 0.0,
    "weight_decay": 0.0,
    "scheduler": "linear",  # transformers' own
    "max_grad_norm": 1.0,  # transformers' own
}


@pytest.mark.parametrize("name", PAPER)
def test_nothing_that_was_tuned_elsewhere_is_inherited(name: str) -> None:
    config = flat(paper(name))
    for part in ("finetune", "attributor.optim", "method.optim"):
        assert {key: config[f"{part}.{key}"] for key in NEUTRAL} == NEUTRAL, part
    searched = {key for key in compose([]).method.search if key != "optim.lr"}  # what the demo was tuned by
    stated = {key.removeprefix("method.") for key in (*EVERYWHERE, *PAPER[name])} | {"optim.lr"}
    assert searched <= stated


def test_the_reward_of_the_paper_on_any_data() -> None:
    """Each key of the reward is the paper's run's, and whatever is set beside it stays."""
    wanted = paper("paper_tofu_llama2").method.reward  # type: ignore[union-attr]
    for command in (["experiment=paper_reward"], ["+experiment=paper_reward"]):
        config = compose(command)
        assert config.method.reward == wanted  # type: ignore[union-attr]
        assert config.data.name == "authors"
    both = ["experiment=tofu_lora", "+experiment=paper_reward", "data.path=x", "model.path=m"]
    found = compose(both)
    assert found.method.reward == wanted and found.model.path == "m"  # type: ignore[union-attr]
    assert found == compose(["experiment=[tofu_lora,paper_reward]", *both[2:]]).model_copy(
        update={"experiment": found.experiment}
    )
