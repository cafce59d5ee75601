"""Losses in two processes (gloo) against one: the same losses and weights, other retain rows on each.

The file is its own worker: `python test_loss_processes.py FOLDER` trains by every method in METHODS below and writes
what it saw.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from ppo_fixture import largest_difference
from processes_fixture import saved_by_two

# A loss with pairs and a reference of both, a forward pass of other responses alone, one without a second response.
CHOSEN = {"idk_dpo": "js", "jensun": "kl", "simnpo": "nll", "dropout": "nll"}


def run_all(folder: Path) -> dict[str, dict[str, Any]]:
    """Every method in this process, as one of however many the environment says there are."""
    import copy

    import ppo_fixture as world
    from loss_fixture import METHODS, WORLD, refusals, train

    from dareu.models.load import freeze_original
    from dareu.training import loss_trainer
    from dareu.training.loss_spec import needs_reference

    model, tokenizer = world.original()
    met: dict[str, list[str]] = {"retain": [], "forget": [], "others": []}
    batch, pairs = loss_trainer.RetainSampler.batch, loss_trainer.PairSampler.batch

    def note(kind: str, rows: Any) -> Any:
        met[kind].append(" | ".join(tokenizer.decode([*r.prompt_ids, *r.response_ids]) for r in rows))
        return rows

    def spy_pairs(sampler: Any, rows: Any, epoch: int) -> Any:
        met["forget"].append(" | ".join(map(str, rows)))
        return note("others", pairs(sampler, rows, epoch))

    results: dict[str, dict[str, Any]] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loss_trainer.RetainSampler, "batch", lambda *a: note("retain", batch(*a)))
        patch.setattr(loss_trainer.PairSampler, "batch", spy_pairs)
        for name, retain in CHOSEN.items():
            for seen in met.values():
                seen.clear()
            drops = name == "dropout"
            method = "simnpo" if drops else name
            policy = world.with_lora(model, 0.3) if drops else copy.deepcopy(model)
            trained, work = train(
                folder / name, method, policy=policy, rows=WORLD, others=refusals(WORLD), retain=retain,
                reference=freeze_original(policy) if needs_reference(METHODS[method], retain) else None,
                retain_batch_size=2, optim={"batch_size": 4, "epochs": 3, "micro_batch_size": 2 if drops else None},
            )  # fmt: skip
            seen_now = {kind: list(rows) for kind, rows in met.items()}
            results[name] = {"log": list(work.log), "met": seen_now, "weights": world.weights(trained)}
    return results


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    return run_all(tmp_path_factory.mktemp("one"))


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, dict[str, Any]]]:
    """What each of two processes saw."""
    return saved_by_two(__file__, tmp_path_factory.mktemp("two"))


@pytest.mark.parametrize("name", CHOSEN)
def test_two_processes_learn_what_one_does(one: Any, two: list[Any], name: str) -> None:
    alone, shared = one[name], two[0][name]
    assert [row["step"] for row in shared["log"]] == [1, 2, 3]
    for column in ("loss", "forget_loss", "retain_loss"):
        expected = [row[column] for row in alone["log"]]
        assert [row[column] for row in shared["log"]] == pytest.approx(expected, abs=1e-5), column
        assert max(expected) - min(expected) > 1e-5
    assert largest_difference(alone["weights"], shared["weights"]) < 1e-5
    assert largest_difference(shared["weights"], two[1][name]["weights"]) == 0


@pytest.mark.parametrize("name", CHOSEN)
def test_rows_are_shared_out(one: Any, two: list[Any], name: str) -> None:
    """Retain rows differ from rank to rank; a forget row is paired alike, whichever process meets it."""
    alone, first, second = (result[name]["met"] for result in (one, *two))
    assert len(first["retain"]) == 3
    together = [f"{a} | {b}" for a, b in zip(first["retain"], second["retain"], strict=True)]
    if name == "dropout":  # one process has two micro-batches an update, so that masks are the same
        assert " | ".join(together) == " | ".join(alone["retain"])
    else:
        assert together == alone["retain"]
    assert all(a != b for a, b in zip(first["retain"], second["retain"], strict=True))
    assert bool(alone["others"]) == (name not in ("simnpo", "dropout"))

    def paired(seen: dict[str, list[str]], step: int) -> set[tuple[str, str]]:
        return set(zip(seen["forget"][step].split(" | "), seen["others"][step].split(" | "), strict=True))

    for step in range(len(alone["forget"])):
        assert not set(first["forget"][step].split(" | ")) & set(second["forget"][step].split(" | "))
        assert paired(first, step) | paired(second, step) == paired(alone, step)


if __name__ == "__main__":
    import conftest  # noqa: F401  one thread, no hub

    out = Path(sys.argv[1])
    torch.save(run_all(out), out / f"rank{os.environ['RANK']}.pt")
