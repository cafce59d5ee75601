"""What a training step of every loss-based method costs, beside the bare passes that its formula needs.

    python scripts/bench_steps.py                        into the section `steps` of docs/performance.md

Both sides run in one process on one thread and take turns, step by step: after each step of the trainer (batches,
losses, clipping, optimizer, log) comes a bare one: forward passes of the same shapes, the mean NLL of the answers,
backward, optimizer. Compared are medians over --steps steps, in seconds of the CPU, so that other work on the machine
does not count. A reference's pass has no gradient, and a method that reads one layer needs no pass beyond it. The model
is the demo's, untrained: what a step costs does not depend on the weights. --overrides key=value … chooses another.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from bench_bars import table
from bench_page import cpus, write_section
from bench_run import BenchmarkError

from dareu.config import LossMethodConfig, RunConfig
from dareu.config.compose import compose, options
from dareu.data.render import Encoded, encode_samples
from dareu.errors import DareuError
from dareu.runs.manifest import versions
from dareu.workflow.prepare import prepare, tokenizer_texts

WARM_UP = 3  # steps that are not counted


@dataclass(frozen=True)
class Cost:
    """CPU seconds of each step, ours and bare in turn; `passes` says what the bare one is made of."""

    name: str
    passes: str
    ours: Sequence[float]
    bare: Sequence[float]

    @property
    def ratio(self) -> float:
        return statistics.median(self.ours) / statistics.median(self.bare)


def steps_table(costs: Sequence[Cost]) -> str:
    """One row a method: its passes, milliseconds a step on either side, their ratio."""
    rows = []
    for cost in costs:
        ours, bare = (f"{1000 * statistics.median(times):.1f}" for times in (cost.ours, cost.bare))
        rows.append([cost.name, cost.passes, ours, bare, f"{cost.ratio:.2f}"])
    return table(["method", "passes", "trainer, CPU ms", "bare, CPU ms", "ratio"], rows)


def needed(method: LossMethodConfig) -> list[tuple[str, bool]]:
    """(data, whether with gradient) of each pass that a step's formula needs; data: forget, other, retain."""
    from dareu.methods.registry import find_method

    reads = find_method(method.loss).reads
    others = [name.removeprefix("other_") for name in reads if name.startswith("other_")]
    own = [name for name in reads if not name.startswith("other_")]
    found: list[tuple[str, bool]] = []
    for data, names in (("forget", own), ("other", others)):
        if any(not name.startswith("reference") and name != "mask" for name in names):
            found.append((data, True))
        if any(name.startswith("reference") for name in names):
            found.append((data, False))
    if method.retain != "none":
        found.append(("retain", True))
        if method.retain not in ("nll",):
            found.append(("retain", False))
    return found


def described(passes: Sequence[tuple[str, bool]]) -> str:
    return ", ".join(data if gradient else f"{data} of the reference" for data, gradient in passes)


@dataclass
class Side:
    """The bare side of a method: a copy of the policy with an optimizer of its own, and its batches."""

    model: Any
    reference: Any
    optimizer: Any
    batch: Callable[[str, int], dict[str, Any]]
    plan: Callable[[int], list[tuple[str, bool]]]
    layer: int | None = None

    def step(self, number: int) -> None:
        import torch

        total: Any = 0.0
        for data, gradient in self.plan(number):
            batch = self.batch(data, number)
            if gradient:
                total = total + self._loss(self.model, batch)
            else:
                with torch.no_grad():
                    self._output(self.reference, batch)
        total.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()

    def _output(self, model: Any, batch: dict[str, Any]) -> Any:
        from dareu.models.layers import activations

        ids, attention = batch["input_ids"], batch["attention_mask"]
        if self.layer is not None:
            return activations(model, model, self.layer, ids, attention)
        return model(input_ids=ids, attention_mask=attention).logits

    def _loss(self, model: Any, batch: dict[str, Any]) -> Any:
        from dareu.models.logprobs import IGNORE, token_logprobs
        from dareu.training.losses import nll

        output = self._output(model, batch)
        if self.layer is not None:
            return (output[batch["labels"] != IGNORE] ** 2).mean()
        return nll(*token_logprobs(output, batch["labels"]))


def in_turn(side: Side, count: int) -> tuple[Any, list[float], list[float]]:
    """A callback that times the trainer's steps and makes a bare one after each; and what it noted."""
    from transformers import TrainerCallback

    ours: list[float] = []
    bare: list[float] = []

    class Turns(TrainerCallback):
        begun = 0.0

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            ended = time.process_time()
            side.step(state.global_step - 1)
            again = time.process_time()
            if state.global_step > WARM_UP:  # from one step's end to the next: log and batches are within
                ours.append(ended - self.begun)
                bare.append(again - ended)
            self.begun = time.process_time()

    return Turns(), ours, bare


def measure(name: str, config: RunConfig, world: World, steps: int) -> Cost:
    """A short training of `name` with the bare steps in between."""
    import torch

    from dareu.methods.registry import find_method
    from dareu.models.load import freeze_original
    from dareu.training.common import Work
    from dareu.training.loss_trainer import train_with_loss

    method = config.method
    assert isinstance(method, LossMethodConfig)
    row = find_method(method.loss)
    passes = needed(method)
    policy, bare = copy.deepcopy(world.model), copy.deepcopy(world.model)
    walks = row.walks == "retain"
    rows = world.retain if walks else world.forget
    sizes = {"forget": min(method.optim.batch_size, len(rows))}
    sizes |= {"other": sizes["forget"], "retain": method.retain_batch_size or sizes["forget"]}
    data = {"forget": rows, "other": world.forget, "retain": world.retain}
    side = Side(
        bare, freeze_original(bare), None, Batches(data, sizes, world.pad, config.seed), lambda _: passes
    )
    if method.loss == "rmu":
        side.layer = _choose(bare, method)
    if method.loss == "scrub":
        side.plan = _alternating(method, sizes, data)
        passes = [*side.plan(0), *side.plan(10**6)]
    trained = [p for p in bare.parameters() if p.requires_grad]
    side.optimizer = torch.optim.AdamW(trained, lr=method.optim.lr, fused=True)
    bare.train()
    callback, ours, theirs = in_turn(side, steps)
    optim = method.optim.model_copy(update={"steps": steps + WARM_UP, "save_every": 10**6})
    extra: dict[str, Any] = {"others": world.others} if getattr(row, "pairs", None) else {}
    with tempfile.TemporaryDirectory() as folder:
        train_with_loss(
            policy, world.tokenizer, method=row, optim=optim, rows=rows, retain_rows=world.retain,
            retain=method.retain, retain_batch_size=method.retain_batch_size, params=method.params,
            forget_weight=method.forget_weight, retain_weight=method.retain_weight, reference=freeze_original(policy),
            seed=config.seed, work=Work(Path(folder)), callbacks=[callback], **extra,
        )  # fmt: skip
    told = described(passes)
    return Cost(name, told.replace("forget", "retain") if walks else told, ours, theirs)


@dataclass(frozen=True)
class World:
    """What all methods share: an untrained model of the bench's shape, and the rows of its corpus."""

    model: Any
    tokenizer: Any
    forget: list[Encoded]
    retain: list[Encoded]

    @property
    def pad(self) -> int:
        return int(self.tokenizer.pad_token_id)

    @property
    def others(self) -> list[list[Encoded]]:
        """In place of refusals or alternate answers: the answer to another forget prompt."""
        n = len(self.forget)
        return [
            [Encoded(r.prompt_ids, self.forget[(i + 1) % n].response_ids)] for i, r in enumerate(self.forget)
        ]


class Batches:
    """The batches of the bare side: the rows that the trainer's own sampler gives for that step."""

    def __init__(self, data: dict[str, list[Encoded]], sizes: dict[str, int], pad: int, seed: int) -> None:
        from dareu.training.samplers import RetainSampler

        self.walks = {name: RetainSampler(rows, sizes[name], seed) for name, rows in data.items()}
        self.pad = pad

    def __call__(self, name: str, number: int) -> dict[str, Any]:
        from dareu.models.logprobs import to_batch

        return to_batch(self.walks[name].batch(number), self.pad, "cpu")


def _choose(model: Any, method: LossMethodConfig) -> int:
    """As the method does: what is not chosen has no gradient. The block that is read."""
    from dareu.config.params import read_settings
    from dareu.methods.rmu import RMUSettings, chosen_parameters

    layer, names = chosen_parameters(model, read_settings(RMUSettings, method.params))
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in names)
    return layer


def _alternating(
    method: LossMethodConfig, sizes: dict[str, int], data: dict[str, list[Encoded]]
) -> Callable[[int], list[tuple[str, bool]]]:
    """The passes of a step of SCRUB: of its max or its min step."""
    from dareu.methods.scrub import scrub_place

    forget, retain = (-(-len(data[name]) // sizes[name]) for name in ("forget", "retain"))

    def plan(step: int) -> list[tuple[str, bool]]:
        name = "forget" if scrub_place(step, forget, retain, method.params["max_epochs"])[0] else "retain"
        reference = name == "forget" or method.params["alpha"] > 0
        return [(name, True), (name, False)] if reference else [(name, True)]

    return plan


def make_world(overrides: Sequence[str]) -> World:
    from dareu.models.load import load_model
    from dareu.models.tiny import make_tiny

    config = compose(["method=gradient_ascent", *overrides])
    prepared = prepare(config)
    with tempfile.TemporaryDirectory() as folder:
        make_tiny(config.model, tokenizer_texts(prepared.corpus), config.seed, Path(folder))  # type: ignore[arg-type]
        model, tokenizer = load_model(folder)
    forget, retain = (
        encode_samples(tokenizer, part, prepared.corpus.task, config.model.max_length)
        for part in (prepared.split.forget, prepared.split.retain)
    )
    return World(model, tokenizer, forget, retain)


def main(argv: Sequence[str] | None = None) -> int:
    import torch
    from transformers.utils import logging

    parser = argparse.ArgumentParser(
        prog="bench_steps.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--methods", nargs="+", metavar="NAME", help="default: every method that is a loss")
    parser.add_argument("--overrides", nargs="+", default=[], metavar="key=value")
    parser.add_argument("--results", type=Path, default=Path("docs/performance.md"), metavar="FILE")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        configs = {
            name: compose([f"method={name}", *args.overrides]) for name in args.methods or options()["method"]
        }
        loss = {name: c for name, c in configs.items() if isinstance(c.method, LossMethodConfig)}
        if not loss:
            raise BenchmarkError("None of these methods is a loss.")
        world = make_world(args.overrides)
        costs = []
        for name, config in loss.items():
            costs.append(measure(name, config, world, args.steps))
            print(f"{name}: {costs[-1].ratio:.2f}", file=sys.stderr)
        size = sum(p.numel() for p in world.model.parameters())
        shown = ", ".join(f"{name} {number}" for name, number in versions().items() if number)
        command = " ".join(
            ["python scripts/bench_steps.py", f"--steps {args.steps}"]
            + (["--methods", *args.methods] if args.methods else [])
            + (["--overrides", *args.overrides] if args.overrides else [])
        )
        body = (
            f"    {command}\n\n{datetime.now(timezone.utc):%Y-%m-%d}; {cpus()}, one thread; {shown}.\n\n"
            f"A model of {size / 1e6:.1f} million parameters.\n\n{steps_table(costs)}"
        )
        print(body)
        write_section(args.results, "steps", body)
    except (BenchmarkError, DareuError) as error:
        print(f"bench_steps: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
