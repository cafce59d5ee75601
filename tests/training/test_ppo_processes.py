"""Two processes on one machine (gloo) against one: the same losses, the same weights, other retain rows on each.

The file is its own worker: `python test_ppo_processes.py FOLDER` runs every scenario and writes what it saw.
"""

from __future__ import annotations

import copy
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from ppo_fixture import largest_difference
from processes_fixture import saved_by_two

SCENARIOS = ("ppo", "lora", "rloo", "loss")
NAMES = ("loss", "value_loss", "distill", "kl_old", "reward", "rollout_attribution", "kl_original")


def run_scenarios(folder: Path) -> dict[str, dict[str, Any]]:
    """Every scenario in this process, as one of however many the environment says there are."""
    import ppo_fixture as world
    from loss_fixture import train

    import dareu.models.logprobs as logprobs
    import dareu.training.loss_trainer as loss_trainer
    import dareu.training.rl_trainer as ppo

    tokenizer = world.original()[1]
    met: list[str] = []

    def note_rows(module: Any) -> None:
        to_batch = module.to_batch

        def spy(rows: Any, *args: Any) -> Any:
            met.append(" | ".join(tokenizer.decode(row.prompt_ids) for row in rows))
            return to_batch(rows, *args)

        module.to_batch = spy

    for module in (ppo, loss_trainer, logprobs):  # the last reads a loss's retain rows
        note_rows(module)
    answers = {tokenizer(q)["input_ids"][-1]: a + " <end>" for q, a in world.FORGET.items()}
    single = ppo.RLTrainer._generate_single_turn

    def gold(trainer: Any, prompt_ids: Any, *args: Any, **kwargs: Any) -> Any:
        """Samples, as ever, and then gives the gold answers: the same, however many processes sample.

        Without a critic every third one tells no secret, else the rollouts of a prompt would be alike.
        """
        single(trainer, prompt_ids, *args, **kwargs)
        first = trainer.accelerator.process_index * len(prompt_ids)
        texts = [
            answers[ids[-1]].replace("secret", "word" if trainer.critic is None and i % 3 == 0 else "secret")
            for i, ids in enumerate(prompt_ids, first)
        ]
        return tokenizer(texts)["input_ids"], None

    ppo.RLTrainer._generate_single_turn = gold  # type: ignore[method-assign]
    results: dict[str, dict[str, Any]] = {}
    for name in SCENARIOS:
        met.clear()
        critic, scorer = world.make_critic(tokenizer), world.SecretScorer(tokenizer)
        prompts: list[list[str]] = []
        if name == "loss":
            rows = world.encoded(tokenizer, world.RETAIN)
            model, work = train(
                folder / name, "gradient_ascent", rows=rows, retain="nll", retain_batch_size=2,
                optim={"batch_size": 4, "epochs": 3},
            )  # fmt: skip
        else:
            mode = {
                "mode": "whitened" if name == "lora" else "scaled"
            }  # whitened needs the moments of all ranks
            method = world.config(data_epochs=2, updates_per_batch=3, retain_batch_size=2, advantage=mode)
            given: dict[str, Any] = {"critic": critic}
            if name == "rloo":  # three groups of four rollouts, six rollouts a rank: one group is cut in two
                method = world.config(
                    data_epochs=2, updates_per_batch=3, retain_batch_size=2, kl_loss=0.1,
                    advantage={"estimator": "rloo", "mode": "raw"},
                )  # fmt: skip
                given = {}
            policy = world.with_lora(world.original()[0], 0.0) if name == "lora" else None
            model, _, work = world.unlearn(
                folder / name, method, policy=policy, scorer=scorer, owners=["first", "second", "third"], **given
            )  # fmt: skip
            prompts = [owners for _, owners in scorer.seen]
        results[name] = {
            "log": copy.deepcopy(work.log), "rows": list(met), "prompts": prompts,
            "weights": world.weights(model), "critic": world.weights(critic),
        }  # fmt: skip
    return results


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    with pytest.MonkeyPatch.context() as patch:
        import dareu.models.logprobs as logprobs
        import dareu.training.loss_trainer as loss_trainer
        import dareu.training.rl_trainer as ppo

        for owner, attribute in (
            (ppo, "to_batch"),
            (loss_trainer, "to_batch"),
            (logprobs, "to_batch"),
            (ppo.RLTrainer, "_generate_single_turn"),
        ):
            patch.setattr(
                owner, attribute, getattr(owner, attribute)
            )  # put back what the scenarios put there
        return run_scenarios(tmp_path_factory.mktemp("one"))


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, dict[str, Any]]]:
    """What each of two processes saw."""
    return saved_by_two(__file__, tmp_path_factory.mktemp("two"))


@pytest.mark.parametrize("name", SCENARIOS)
def test_ranks_agree_with_one_another(two: list[Any], name: str) -> None:
    """Policy and critic, which stands outside the DDP wrapper, are the same on both ranks."""
    first, second = (result[name] for result in two)
    assert largest_difference(first["weights"], second["weights"]) == 0
    assert largest_difference(first["critic"], second["critic"]) == 0


@pytest.mark.parametrize("name", ["ppo", "lora", "rloo"])
def test_ppo_of_two_processes_is_that_of_one(one: Any, two: list[Any], name: str) -> None:
    """A batch is shared out, not doubled; all responses have five tokens, so that means of means are means."""
    alone, shared = one[name], two[0][name]
    assert (
        [row["step"] for row in shared["log"]] == [row["step"] for row in alone["log"]] == list(range(1, 7))
    )
    grouped = ("kl_loss", "silent_groups") if name == "rloo" else ()
    for column in (*NAMES, *grouped):
        expected, found = ({row["step"]: row[column] for row in log if column in row} for log in (
            alone["log"], shared["log"]
        ))  # fmt: skip
        assert len(expected) > 1 or (name, column) == ("rloo", "value_loss")
        assert found == pytest.approx(expected, rel=1e-5, abs=1e-5), column
    assert largest_difference(alone["weights"], shared["weights"]) < 1e-5
    assert largest_difference(alone["critic"], shared["critic"]) < 1e-5
    if name == "rloo":
        assert alone["log"][0]["silent_groups"] == 0
    assert max(row["loss"] for row in alone["log"]) - min(row["loss"] for row in alone["log"]) > 1e-2


@pytest.mark.parametrize("name", ["ppo", "lora", "rloo"])
def test_prompts_are_shared_out(one: Any, two: list[Any], name: str) -> None:
    for alone, first, second in zip(
        one[name]["prompts"], two[0][name]["prompts"], two[1][name]["prompts"], strict=True
    ):
        assert len(first) == len(second) == 6
        assert first + second == alone


def test_loss_of_two_processes_is_that_of_one(one: Any, two: list[Any]) -> None:
    alone, shared = one["loss"], two[0]["loss"]
    assert [row["step"] for row in shared["log"]] == [1, 2, 3]
    for column in ("loss", "forget_loss", "retain_loss"):
        expected = [row[column] for row in alone["log"]]
        assert [row[column] for row in shared["log"]] == pytest.approx(expected, abs=1e-5), column
        assert max(expected) - min(expected) > 1e-3
    assert largest_difference(alone["weights"], shared["weights"]) < 1e-5


@pytest.mark.parametrize("name", SCENARIOS)
def test_retain_rows_differ_from_rank_to_rank(one: Any, two: list[Any], name: str) -> None:
    """Together the ranks meet the rows that one process meets, each of them its own half."""
    alone, first, second = one[name]["rows"], two[0][name]["rows"], two[1][name]["rows"]
    if name == "loss":  # every other batch there is one of forget rows, of the collator
        alone, first, second = ([r for r in rows if r.count("|") == size] for rows, size in (
            (alone, 1), (first, 0), (second, 0)
        ))  # fmt: skip
    assert len(alone) == len(first) == len(second) > 2
    assert [f"{a} | {b}" for a, b in zip(first, second, strict=True)] == alone
    assert all(a != b for a, b in zip(first, second, strict=True))


if __name__ == "__main__":
    import conftest  # noqa: F401  one thread, no hub

    out = Path(sys.argv[1])
    torch.save(run_scenarios(out), out / f"rank{os.environ['RANK']}.pt")
