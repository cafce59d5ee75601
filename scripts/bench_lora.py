"""What unlearning a pretrained model with LoRA takes beside fine-tuning it: peak memory, an update, a rollout.

    python scripts/bench_lora.py MODEL        into the section `lora` of docs/performance.md

Memory: each of fine-tuning, NPO, KL minimisation and DareU with a critic runs --steps updates in a process of its own,
with the same number of rows in an update (--rows; half of them forget rows or rollouts, half retain rows), and says the
most memory that it held; beside it what `--dry-run` estimates, above what the process held before the model. Time,
in seconds of the CPU on one thread: an update of DareU beside a bare forward and backward pass over the same rows and
the original's forward pass, and its rollouts beside `generate` on the merged model, medians.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench_bars import table
from bench_page import cpus, write_section

from dareu.runs.manifest import peak_memory_mb, versions

HEAD = ["training", "peak MB", "of fine-tuning", "above the libraries, MB", "`--dry-run`, MB"]
PARTS = ("finetune", "npo", "kl_min", "dareu")  # whose memory is compared


def world(model: str, rows: int) -> dict[str, Any]:
    """The model with an adapter, and rows of the default corpus."""
    from dareu.config import AuthorsConfig, HFConfig
    from dareu.data.render import encode_samples
    from dareu.data.sources.authors import make_authors
    from dareu.models.load import load_base

    config = HFConfig(path=model, attn_implementation="eager")
    policy, tokenizer = load_base(config, "cpu")
    samples = make_authors(AuthorsConfig()).samples
    encoded = encode_samples(tokenizer, samples, "qa", config.max_length)
    return {
        "policy": policy, "tokenizer": tokenizer, "samples": samples[: 4 * rows],
        "forget": encoded[: 4 * rows], "retain": encoded[4 * rows : 8 * rows],
    }  # fmt: skip


def run_part(part: str, model: str, rows: int, steps: int) -> dict[str, Any]:
    """One training in this process: its peak memory and, of DareU, its times."""
    import torch

    torch.set_num_threads(1)
    import dareu.training.rl_trainer  # noqa: F401  libraries are no part of the estimate

    before = peak_memory_mb()
    found = world(model, rows)
    expected = _expected(part, found, rows)
    with tempfile.TemporaryDirectory() as folder:
        times = _train(part, found, rows, steps, Path(folder))
    return {"before": before, "peak": peak_memory_mb(), "estimate": expected, **times}


def _expected(part: str, found: dict[str, Any], rows: int) -> float:
    """MiB that `--dry-run` would name for these rows."""
    import torch
    from transformers import AutoModelForCausalLM

    from dareu.config import LoraConfig
    from dareu.models.memory import Work, estimate, size_of

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(found["policy"].config)
    seen = found["forget"] + found["retain"]
    length, answers = max(map(len, seen)), max(len(row.response_ids) for row in seen)
    size = size_of(model, LoraConfig().r, "float32", dropout=True)
    work = Work(rows, length, answers, sampled=rows // 2 if part == "dareu" else 0, frozen=part != "finetune")
    return estimate(size, work, "cpu")["total"]


def _train(part: str, found: dict[str, Any], rows: int, steps: int, folder: Path) -> dict[str, Any]:
    from dareu.config import Optim
    from dareu.methods.registry import find_method
    from dareu.models.load import freeze_original
    from dareu.training.common import Work
    from dareu.training.loss_spec import FINETUNE
    from dareu.training.loss_trainer import train_with_loss

    policy, tokenizer, work = found["policy"], found["tokenizer"], Work(folder)
    if part.startswith("dareu"):
        return _dareu(found, rows, steps, work, timed=part == "dareu-times")
    size = rows if part == "finetune" else rows // 2
    optim = Optim(lr=1e-4, steps=steps, batch_size=size, save_every=10**6)
    extra: dict[str, Any] = {"method": FINETUNE}
    if part != "finetune":
        extra = {
            "method": find_method(part), "retain_rows": found["retain"], "retain": "nll" if part == "npo" else "kl",
            "reference": freeze_original(policy),
        }  # fmt: skip
    train_with_loss(policy, tokenizer, optim=optim, rows=found["forget"], work=work, **extra)
    return {}


def _dareu(found: dict[str, Any], rows: int, steps: int, work: Any, timed: bool) -> dict[str, Any]:
    """DareU with a reward that reads no classifier, so that what is measured is the engine's."""
    from dareu.config import BackboneConfig, DareUConfig
    from dareu.data.render import render_prompt
    from dareu.methods.dareu import DareUStep
    from dareu.models.load import freeze_original
    from dareu.rewards.base import Prompt, TextReward
    from dareu.training.critic import fresh_critic
    from dareu.training.rl_trainer import RLTrainer, train_rl

    policy, tokenizer, half = found["policy"], found["tokenizer"], rows // 2
    config = DareUConfig.model_validate({
        "name": "dareu", "data_epochs": 1, "prompts_per_batch": half, "rollouts_per_update": None,
        "updates_per_batch": max(2, steps), "stop": {"attribution": None, "unhealthy": None},
        "optim": {"lr": 1e-5, "save_every": 10**6},
    })  # fmt: skip
    prompts = [
        Prompt(render_prompt(tokenizer, s.prompt, "qa"), s.prompt, str(s.owner), s.response)
        for s in found["samples"][: 2 * half]
    ]
    reward = TextReward(lambda text, prompt: float(len(text) % 2))
    reference = freeze_original(policy)
    updates: list[float] = []
    bare: list[float] = []
    ours: list[float] = []
    theirs: list[float] = []
    generate, update = RLTrainer._generate_single_turn, RLTrainer.training_step

    def timed_generate(self: Any, *args: Any, **kwargs: Any) -> Any:
        begun = time.process_time()
        result = generate(self, *args, **kwargs)
        ours.append(time.process_time() - begun)
        theirs.append(_bare_generate(policy, tokenizer, args[0], max(map(len, result[0]))))
        return result

    def timed_update(self: Any, model: Any, inputs: Any, *args: Any) -> Any:
        fresh = self._step % (self.args.steps_per_generation * self.num_iterations) == 0
        begun = time.process_time()
        result = update(self, model, inputs, *args)
        if not fresh:  # a step that samples first is no update alone
            updates.append(time.process_time() - begun)
            bare.append(_bare_update(policy, reference, self))
        return result

    if timed:
        RLTrainer._generate_single_turn, RLTrainer.training_step = timed_generate, timed_update  # type: ignore[method-assign]
    critic = fresh_critic(BackboneConfig(), len(tokenizer), 0)
    train_rl(
        policy, tokenizer, config=config, step=DareUStep(config, reward), reference=reference, prompts=prompts,
        retain_rows=found["retain"], critic=critic, max_new_tokens=48, seed=0, work=work,
    )  # fmt: skip
    if not timed:
        return {}
    return {
        "update": statistics.median(updates) / statistics.median(bare),
        "rollouts": statistics.median(theirs) / statistics.median(ours),
    }


def _bare_generate(policy: Any, tokenizer: Any, prompts: list[list[int]], longest: int) -> float:
    """CPU seconds of sampling as many tokens after the same prompts through merged weights, by `generate` alone."""
    import torch

    from dareu.models.merge import merged

    batch = tokenizer.pad({"input_ids": prompts}, return_tensors="pt")
    with merged(policy), torch.no_grad():
        begun = time.process_time()
        policy.generate(
            **batch, do_sample=True, temperature=0.8, min_new_tokens=longest, max_new_tokens=longest
        )
        return time.process_time() - begun


def _bare_update(policy: Any, reference: Any, trainer: Any) -> float:
    """CPU seconds of the passes that an update needs: policy on rollouts and retain rows, original on retain rows."""
    import torch

    from dareu.models.load import as_original
    from dareu.models.logprobs import IGNORE, response_logits, response_logprobs
    from dareu.training.losses import nll

    inputs, retain = trainer._buffered_inputs[0], trainer._retain_rows()
    ids, attention, length = trainer._concatenate(inputs)
    labels = torch.where(attention.bool(), ids, IGNORE)
    labels[:, : ids.size(1) - length] = IGNORE
    rollouts = {"input_ids": ids, "attention_mask": attention, "labels": labels}
    begun = time.process_time()
    loss = nll(*response_logprobs(policy, rollouts)) + nll(*response_logprobs(policy, retain))
    with as_original(policy, reference) as original:
        response_logits(original, retain)
    loss.backward()
    took = time.process_time() - begun
    policy.zero_grad()
    return took


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, and write the section."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", help="folder of a causal language model")
    parser.add_argument("--rows", type=int, default=8, help="rows of an update")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--page", type=Path, default=Path("docs/performance.md"))
    parser.add_argument("--part", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.part:
        print(json.dumps(run_part(args.part, args.model, args.rows, args.steps)))
        return 0
    found: dict[str, dict[str, float]] = {}
    for part in (*PARTS, "dareu-times"):
        command = [sys.executable, __file__, args.model, "--part", part]
        command += ["--rows", str(args.rows), "--steps", str(args.steps)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(done.stderr)
        found[part] = json.loads(done.stdout.strip().splitlines()[-1])
    text = page(found, Path(args.model).name, args.rows, args.steps)
    print(text)
    write_section(args.page, "lora", text)
    return 0


def page(found: dict[str, dict[str, float]], model: str, rows: int, steps: int) -> str:
    """Two tables: memory by method, and the two ratios of time."""
    fine = found["finetune"]["peak"]
    memory = [
        [
            part,
            f"{found[part]['peak']:.0f}",
            f"{found[part]['peak'] / fine:.2f}",
            f"{found[part]['peak'] - found[part]['before']:.0f}",
            f"{found[part]['estimate']:.0f}",
        ]
        for part in PARTS
    ]
    times = found["dareu-times"]
    ratios = [
        ["update / bare passes", f"{times['update']:.2f}"],
        ["bare `generate` / rollouts", f"{times['rollouts']:.2f}"],
    ]
    told = ", ".join(f"{name} {version}" for name, version in versions().items() if version)
    return (
        f"    python scripts/bench_lora.py {model} --rows {rows} --steps {steps}\n\n"
        f"{time.strftime('%Y-%m-%d')}; {cpus()}, one thread; {told}.\n\n"
        f"{table(HEAD, memory)}\n"
        f"{table(['DareU', 'ratio'], ratios)}"
    )


if __name__ == "__main__":
    sys.exit(main())
