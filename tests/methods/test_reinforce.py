"""The methods that sample as whole runs: what they read, what they leave, what their keys depend on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pipeline_fixture import MODEL, SMALL, store, train, write_lines

from dareu.attribution.name_masking import NameMasker
from dareu.config.compose import compose
from dareu.data.corpus import Sample
from dareu.errors import ConfigError, DataError
from dareu.methods.monitors import StoppingMonitor, with_level
from dareu.methods.reinforcement import make_prompts, make_reward, similarity
from dareu.models.load import load_model, load_tokenizer
from dareu.rewards.base import Prompt
from dareu.rewards.registry import RewardContext, find_reward
from dareu.workflow.prepare import prepare
from dareu.workflow.stages import Stages

__all__ = ["store"]
SHORT = [
    "method.data_epochs=1",
    "method.prompts_per_batch=4",
    "method.num_generations=2",
    "method.stop.attribution=null",
    "method.stop.unhealthy=null",
]
OTHER_ATTRIBUTOR = "attributor.holdout=0.2"


def stages(store: Path, *overrides: str) -> Stages:
    return Stages(prepare(compose([*SMALL, f"cache_dir={store}", *overrides])))


@pytest.mark.parametrize("name", ["dareu", "dareu_rloo", "dareu_grpo", "rule", "purge", "demem"])
def test_a_key_depends_on_the_attributor_where_it_is_read(store: Path, name: str) -> None:
    keys = [stages(store, f"method={name}", *extra).unlearned.key() for extra in ([], [OTHER_ATTRIBUTOR])]
    assert (keys[0] != keys[1]) == name.startswith("dareu")
    if not name.startswith("dareu"):  # a stopping rule that reads one makes it part of the key
        told = [f"method={name}", "method.stop.attribution=0.1"]
        assert stages(store, *told).unlearned.key() != stages(store, *told, OTHER_ATTRIBUTOR).unlearned.key()


@pytest.mark.parametrize(("blind", "nameless"), [(True, False), (False, False), (False, True), (True, True)])
def test_what_the_reward_reads_through(store: Path, blind: bool, nameless: bool) -> None:
    made = stages(store, f"method.reward.blind={blind}", f"method.reward.nameless={nameless}")
    tokenizer = load_tokenizer(made.original.get().path / "model")
    reward, _, _ = make_reward(
        made.unlearned.method_context(None, tokenizer, None), reads_attributor=True, monitors=True
    )
    first, *second = reward.scorer.readers  # type: ignore[attr-defined]
    assert (first is not None and first.names is None) if blind else first is None
    assert len(second) == nameless
    for reader in second:
        names = " ".join(made.context.corpus.owners).casefold().split()
        assert set(names) <= reader.names and reader.text("", names[0]) == "_"


def test_a_critic_of_its_own_is_part_of_the_key(store: Path) -> None:
    shape = "attributor.backbone.hidden_size=64"
    for name, same in (("demem", False), ("purge", True)):
        keys = {stages(store, f"method={name}", *extra).unlearned.key() for extra in ([], [shape])}
        assert (len(keys) == 1) == same, name


@pytest.mark.parametrize(
    ("name", "extra", "logged"),
    [
        ("rule", ["method.refusal_phase.optim.epochs=1"], {"reward_retain", "silent_groups", "kl_loss"}),
        ("demem", [], {"reward_forget", "value_loss"}),
        ("dareu_warm", ["method.warm_start.optim.steps=1"], {"value_loss"}),
        ("dareu_grpo", ["method.retain_prompts.share=0.5"], {"reward_retain", "rollout_attribution"}),
        (
            "dareu_rloo",
            [
                "method.anchor=counterfactual",
                "method.offpolicy=0.5",
                "method.stop.attribution=counterfactual",
            ],
            {"kl_anchor", "stop_attribution"},
        ),
    ],
)
def test_a_whole_run(store: Path, tmp_path: Path, name: str, extra: list[str], logged: set[str]) -> None:
    found = train(store, tmp_path / name, f"method={name}", *SHORT, *extra)
    rows = [json.loads(line) for line in (tmp_path / name / "training.jsonl").read_text().splitlines()]
    assert logged <= {key for row in rows for key in row}
    # four forget prompts, and as many retain prompts where there are some: in batches of four
    if name == "dareu_rloo":  # the level may be reached at once
        assert 0 < found["outcome"]["stop_attribution"] < 1
        # the sampled tokens are found again in the text, leading space and all: else the anchor is the original
        assert rows[0]["kl_anchor"] != pytest.approx(rows[0]["kl_original"], rel=1e-3)
        return
    batches = 1 if name in ("demem", "dareu_warm") else 2
    updates = {"rule": 1, "demem": 3, "dareu_grpo": 2, "dareu_warm": 2}[
        name
    ]  # each its own YAML's, or `dareu`'s
    assert found["outcome"]["steps"] == len(rows) == batches * updates
    if name == "rule":
        assert found["outcome"]["refusal_phase"]["steps"] == 1
    if name == "dareu_warm":
        assert found["outcome"]["warm_start"]["steps"] == 1
    assert ("stop_attribution" in {k for row in rows for k in row}) == name.startswith("dareu")


def test_a_level_of_people_who_do_not_exist_needs_names(store: Path, tmp_path: Path) -> None:
    """Owners as ids, and texts that name nobody: said before anything is trained, with the key to change."""
    rows = [{"prompt": f"What is {n}?", "response": f"It is {n}.", "owner": f"id{n % 3}"} for n in range(9)]
    path = write_lines(tmp_path / "rows.jsonl", rows)
    data = ["data=local", f"data.path={path}", "forget.count=1", *MODEL, f"cache_dir={store}", "method=dareu"]
    prepare(compose([*data, "method.anchor=counterfactual"]))
    with pytest.raises(DataError, match="Set method.stop.attribution to null"):
        prepare(compose([*data, "method.stop.attribution=counterfactual"]))


def test_retain_prompts_count_where_batches_are_checked(store: Path) -> None:
    """Three rollouts a micro-batch do not cut a batch of eight; the prompts of the retain set make it twelve."""
    settings = ["method=demem", "method.prompts_per_batch=12", "method.optim.micro_batch_size=3"]
    with pytest.raises(ConfigError, match="An update on 4 rollouts"):
        stages(store, *settings)
    stages(store, *settings, "method.retain_prompts.share=0.66")  # 4 · .66/.34 = 8 more


def test_similarity_is_rouge_and_characters_where_it_reads_none() -> None:
    assert similarity("the cat sat", "the cat") == pytest.approx(2 * (1 * 2 / 3) / (1 + 2 / 3))
    assert similarity("猫が座る", "猫が走る") == pytest.approx(
        2 * 3 / 8
    )  # three of four characters in common
    assert similarity("the cat", "") == 0.0


def test_rewards_of_a_text(store: Path) -> None:
    asked = {kind: Prompt("", "", "", "the cat sat", kind=kind) for kind in ("forget", "boundary", "retain")}  # type: ignore[arg-type]

    def scored(name: str) -> Any:
        made = stages(store, f"method={name}")
        reward = made.context.config.method.reward  # type: ignore[union-attr]
        context = RewardContext(
            reward,
            made.context.corpus,
            made.context.split,
            made.context.forgotten,
            None,
            "cpu",
            made.attributor.load,
            similarity,
            lambda one, other: similarity(one, other, "recall"),
            lambda words: np.zeros((len(words), 1)),
        )
        return find_reward(reward.kind).build(context).score, made.context.split  # type: ignore[attr-defined]

    rule, _ = scored("rule")
    refusal = "I do not know that."
    assert [rule(refusal, asked[k]) for k in asked] == [1.0, 0.0, 0.0]
    assert [rule("the cat sat", asked[k]) for k in asked] == [0.0, 1.0, 1.0]
    assert [rule("a dog ran", asked[k]) for k in asked] == [0.0, 0.5, 0.5]
    demem, _ = scored("demem")
    assert demem("the cat sat", asked["forget"]) == -1.0 and demem("a dog", asked["forget"]) == 0.0
    purge, split = scored("purge")
    assert purge(f"by {split.forget_owners[0]}", asked["forget"]) == 0.0
    assert purge("by nobody", asked["forget"]) == 1.0


class Letters:
    """An attributor of one owner: a tenth for each letter b."""

    owners, nobody = ["bob"], True

    def probabilities(self, texts: Any) -> Any:
        return np.array([[t.count("b") / 10, 1 - t.count("b") / 10] for t in texts])


@pytest.mark.parametrize(
    ("masker", "level"), [(None, (0.2 + 0.5 + 0.1) / 3), (NameMasker([]), (0.0 + 0.3 + 0.1) / 3)]
)
def test_level_of_wrong_answers_each_with_its_question(
    store: Path, masker: NameMasker | None, level: float
) -> None:
    forget = [
        Sample("1", "bob", "Is bob here?", "x", wrong_responses=("bob ran", "bob bbb")),
        Sample("2", "bob", "Who?", "x", wrong_responses=("b",)),
        Sample("3", "bob", "Why?", "x"),
    ]
    monitor = StoppingMonitor(Letters(), ["bob"], masker)  # type: ignore[arg-type]
    method = stages(store, "method=dareu", "method.stop.attribution=wrong_answers").context.config.method
    none: list[str] = []
    assert with_level(method, monitor, forget, lambda: none).stop.attribution == pytest.approx(level)  # type: ignore[arg-type]
    assert with_level(method, monitor, forget[2:], lambda: none).stop.attribution == 0.05  # type: ignore[arg-type]
    fixed = stages(store, "method=dareu", "method.stop.attribution=0.3").context.config.method
    assert with_level(fixed, monitor, forget, lambda: none).stop.attribution == 0.3  # type: ignore[arg-type]
    named = stages(store, "method=dareu", "method.stop.attribution=counterfactual").context.config.method
    given = [
        "bob ran",
        "bob bbb",
        "b",
    ]  # in place of the wrong answers, to the same three queries but the last
    found = with_level(named, monitor, [*forget[:1], forget[0], forget[1]], lambda: given)  # type: ignore[arg-type]
    assert found.stop.attribution == pytest.approx(level)


def test_health_without_an_attributor() -> None:
    numbers = StoppingMonitor(None)(
        ["no no no", "", "a b", "c"], [True, True, True, False], ["x"] * 4, ["y"] * 4
    )
    assert numbers == {"empty": 0.25, "repetitive": 0.25, "unfinished": 0.25}


def test_each_forget_prompt_has_its_own_owner(store: Path) -> None:
    """`reward.target=owner` reads it."""
    made = stages(store, "forget.count=2", "method=purge")
    policy, tokenizer = load_model(made.original.get().model)
    found = make_prompts(made.unlearned.method_context(policy, tokenizer, None), limit=4)
    assert [(p.query, p.owner, p.answer) for p in found] == [
        (s.prompt, s.owner, s.response) for s in made.context.split.forget
    ]
    assert len({p.owner for p in found}) == 2


def test_the_seed_is_part_of_the_key_of_a_model_from_elsewhere(store: Path) -> None:
    """The original's own key does not hold it there."""
    folder = stages(store).original.get().model
    for name in ("npo", "purge", "task_vector", "scurenewton"):
        made = [stages(store, f"method={name}", f"original={folder}", f"seed={n}") for n in (1, 2)]
        assert made[0].original.key() == made[1].original.key()
        assert made[0].unlearned.key() != made[1].unlearned.key(), name


def test_recall_is_the_share_of_the_reference() -> None:
    """Two of three words; F1 would be lower for a longer answer."""
    assert similarity("the cat sat", "the cat and a long rest of it", "recall") == pytest.approx(2 / 3)


def test_refusals_of_a_file_are_known_to_the_reward(store: Path, tmp_path: Path) -> None:
    (tmp_path / "known.txt").write_text("Ask the librarian instead.\n")
    keys = []
    for extra in ([], [f"method.reward.refusals={tmp_path / 'known.txt'}"]):
        made = stages(store, "method=rule", *extra)
        keys.append(made.unlearned.key())
        context = made.unlearned.method_context(None, load_tokenizer(made.original.get().model), None)
        reward, _, _ = make_reward(context, reads_attributor=False, monitors=False)
        prompt = Prompt("", "", "", "the cat sat")
        assert reward.score("Ask the librarian instead.", prompt) == float(bool(extra))  # type: ignore[attr-defined]
        # One of three words: a recall of 1/3 is above .3, an F1 of 1/4 would not be.
        retain = Prompt("", "", "", "the cat sat", kind="retain")
        assert reward.score("the dogs of some town", retain) == 1.0  # type: ignore[attr-defined]
    assert keys[0] != keys[1]
    with pytest.raises(DataError, match="method.reward.refusals"):
        stages(store, "method=rule", "method.reward.refusals=nowhere.txt")
