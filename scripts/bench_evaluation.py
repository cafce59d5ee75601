"""What an evaluation costs: seconds of each suite, generation beside a bare `generate`, peak memory beside it.

    python scripts/bench_evaluation.py --suites fast full

The original model of the default corpus and all its samples, one thread. Seconds are of CPU time, which other work on
the machine lengthens little. Each part runs in a process of its own, for its peak of resident memory.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from bench_bars import table
from bench_page import with_origin, write_section

from dareu.config.compose import compose
from dareu.report.figures import show
from dareu.workflow.console import Console
from dareu.workflow.library_settings import quiet_libraries
from dareu.workflow.loading import load_run_model
from dareu.workflow.prepare import prepare
from dareu.workflow.stages import Stages

REPEATS = 5
BARE, OURS = "bare generation", "generation"
SUITES = ("fast", "full")


def cpu_seconds(call: Callable[[], Any]) -> float:
    """CPU time of this process during the call."""
    start = time.process_time()
    call()
    return time.process_time() - start


def measured(part: str, given: Sequence[str]) -> dict[str, float]:
    """CPU seconds of a part, and this process's peak of resident memory in MB."""
    config = compose(["threads=1", *([f"evaluation={part}"] if part in SUITES else []), *given])
    with quiet_libraries(1):
        stages = Stages(prepare(config, console=Console(silent=True)))
        model, tokenizer = load_run_model(stages.context, stages.original.get().model)
        if part in SUITES:
            stages.attributor.get()
            if stages.retrained:
                stages.retrained.get()
            seconds = cpu_seconds(lambda: _evaluate(stages, model, tokenizer))
        else:
            bare, ours = _generation(stages, model, tokenizer)
            run = bare if part == BARE else ours
            run()
            seconds = median(cpu_seconds(run) for _ in range(REPEATS))
    return {"seconds": seconds, "mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def _evaluate(stages: Stages, model: Any, tokenizer: Any) -> Any:
    from dareu.evaluation.suite import evaluate_model

    context = stages.context
    peers = {"original": stages.original, "retrained": stages.retrained}
    return evaluate_model(
        model,
        tokenizer,
        context.split,
        {
            "attribution": stages.attributor.load("reward"),
            "attribution_heldout": stages.attributor.held_out(),
        },
        context.config.evaluation,
        seed=context.config.seed,
        peers={
            name: lambda s=stage: load_run_model(context, s.get().model)
            for name, stage in peers.items()
            if stage
        },
        learning_rate=context.config.finetune.lr / 4,
    )


def _generation(stages: Stages, model: Any, tokenizer: Any) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """Bare `generate` on batches that are padded already, and ours from texts to texts, on the same batches."""
    import torch
    from transformers import GenerationConfig

    from dareu.data.render import render_prompt
    from dareu.evaluation.subject import Subject
    from dareu.models.generate import end_ids, generate

    split, size = stages.context.split, stages.context.config.evaluation.batch_size
    samples = [*split.forget, *split.retain, *split.test]
    prompts = [render_prompt(tokenizer, s.prompt, split.task) for s in samples]
    limit = Subject(model, tokenizer, split.task).limit(samples)
    tokens = min(limit.room, limit.wanted)
    ids = sorted(
        (tokenizer(p, add_special_tokens=False)["input_ids"] for p in prompts), key=lambda row: -len(row)
    )
    batches = [
        tokenizer.pad({"input_ids": ids[i : i + size]}, padding_side="left", return_tensors="pt")
        for i in range(0, len(ids), size)
    ]
    config = GenerationConfig(
        max_new_tokens=tokens,
        do_sample=False,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=end_ids(model, tokenizer),
        use_cache=True,
    )
    model.eval()

    @torch.no_grad()
    def bare() -> None:
        for batch in batches:
            model.generate(
                input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], generation_config=config
            )

    return bare, lambda: generate(model, tokenizer, prompts, max_new_tokens=tokens, batch_size=size)


def body_of(costs: dict[str, dict[str, float]]) -> str:
    """The table: seconds of each suite, and throughput and memory beside those of bare generation."""
    suites = [suite for suite in SUITES if suite in costs]
    bare = costs[BARE]
    rows = [
        *([f"`evaluation={suite}`, CPU seconds", show(costs[suite]["seconds"], 1)] for suite in suites),
        ["throughput of generation over bare `generate`", show(bare["seconds"] / costs[OURS]["seconds"], 2)],
        *(
            [f"peak memory of `{suite}` over bare `generate`", show(costs[suite]["mb"] / bare["mb"], 2)]
            for suite in suites
        ),
    ]
    peaks = ", ".join(f"{name} {cost['mb']:.0f} MB" for name, cost in costs.items())
    return f"{table(['', 'measured'], rows)}\nPeaks of resident memory, Python and libraries included: {peaks}.\n"


def main(argv: Sequence[str] | None = None) -> int:
    top = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    top.add_argument("--suites", nargs="+", choices=SUITES, default=["fast"])
    top.add_argument("--results", type=Path, metavar="PAGE", help="the page whose section is written")
    top.add_argument("--overrides", nargs="+", default=[], metavar="key=value")
    top.add_argument("--part", help=argparse.SUPPRESS)
    args = top.parse_args(argv)
    if args.part:
        print(json.dumps(measured(args.part, args.overrides)))
        return 0
    found = {}
    for part in (BARE, OURS, *args.suites):
        command = [sys.executable, __file__, "--part", part]
        command += ["--overrides", *args.overrides] if args.overrides else []
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        found[part] = json.loads(done.stdout.splitlines()[-1])
    shown = f"--suites {' '.join(args.suites)}"
    body = with_origin(f"bench_evaluation.py {shown}", body_of(found))
    print(body)
    if args.results:
        write_section(args.results, "evaluation", body)
    return 0


if __name__ == "__main__":
    sys.exit(main())
