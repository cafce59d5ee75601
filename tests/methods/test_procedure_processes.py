"""RMU, PDU and SCRUB in two processes (gloo) against one: the same losses and weights, one target, one dual variable.

The file is its own worker: `python test_procedure_processes.py FOLDER` runs each method and writes what it saw.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from ppo_fixture import FORGET, encoded, largest_difference, original, weights
from procedure_fixture import RUNS, run
from processes_fixture import two_processes

from dareu.training.samplers import RetainSampler


def run_all(folder: Path) -> dict[str, Any]:
    """Log, weights and the rows of the seeded walks, by method. Answers are of one length, so that means agree."""
    rows = encoded(original()[1], FORGET | {"ask blue": "the secret is fig"})
    found: dict[str, Any] = {}
    batch = RetainSampler.batch
    for name in RUNS:
        met: list[list[int]] = []

        def noting(sampler: Any, *args: Any, met: list[list[int]] = met) -> Any:
            picked = batch(sampler, *args)
            met.append([sampler.rows.index(row) for row in picked])
            return picked

        RetainSampler.batch = noting  # type: ignore[method-assign]
        try:
            # SCRUB first moves by rounding that the optimizer scales up: min steps alone can be compared.
            model, work = run(
                folder / name, name, rows=rows, retain_batch_size=2,
                optim={"batch_size": 4, "epochs": 3, "lr": 1e-2},
                **({"params": RUNS[name]["params"] | {"max_epochs": 0}} if name == "scrub" else {}),
            )  # fmt: skip
        finally:
            RetainSampler.batch = batch  # type: ignore[method-assign]
        found[name] = {"log": list(work.log), "weights": weights(model), "met": met}
    return found


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """(one process, each of two)."""
    folder = tmp_path_factory.mktemp("two")
    with two_processes(__file__, folder):
        one = run_all(tmp_path_factory.mktemp("one"))
    return one, [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(2)]


@pytest.mark.parametrize("name", RUNS)
def test_two_processes_do_what_one_does(seen: Any, name: str) -> None:
    one, two = seen[0][name], [found[name] for found in seen[1]]
    assert largest_difference(two[0]["weights"], two[1]["weights"]) == 0
    assert largest_difference(one["weights"], two[0]["weights"]) < 2e-3
    for mine, theirs in zip(one["log"], two[0]["log"], strict=True):
        for key in {"forget_loss", "retain_loss", "retain_kl", "dual"} & mine.keys():
            assert theirs[key] == pytest.approx(mine[key], abs=2e-3), key
    # each process has its own rows, together those of one
    for mine, a, b in zip(one["met"], two[0]["met"], two[1]["met"], strict=True):
        assert sorted(a + b) == sorted(mine) and not set(a) & set(b)


if __name__ == "__main__":
    torch.save(
        run_all(Path(sys.argv[1]) / os.environ["RANK"]), Path(sys.argv[1]) / f"{os.environ['RANK']}.pt"
    )
