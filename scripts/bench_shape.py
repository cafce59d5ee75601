"""Where the time of an update and of rollouts goes, for a model of a given shape with random weights and LoRA.

    python scripts/bench_shape.py --blocks 4        into the section `shape` of docs/performance.md

The shape is that of Llama-2-7B unless the arguments say otherwise, with so many --blocks of its 32 as fit the
machine; blocks and head are told apart, so that the whole model can be told from a part of it. An update is one of
fine-tuning: forward and backward pass over --rows rows of --tokens tokens, half of which are the answer, and AdamW.
Rollouts: --rows samples of half of --tokens after the other half, through the merged adapter. Seconds are those of
one thread, from torch's profiler: of wall time, so that nothing else may run beside.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from bench_bars import table
from bench_page import with_origin, write_section

PRODUCTS = ("mm", "addmm", "_linear_pointwise", "linear_backward")
ATTENTION = ("bmm", "baddbmm", "_softmax", "_softmax_backward_data", "_scaled_dot_product")
PARTS = ("frozen layers", "adapter", "head", "attention", "the rest: norms, activations, copies, optimizer")


def make(args: argparse.Namespace) -> Any:
    """A Llama of random bfloat16 weights with an adapter on every linear layer of its blocks."""
    from transformers import AutoModelForCausalLM, LlamaConfig

    from dareu.config import LoraConfig
    from dareu.models.load import add_lora, contiguous_head

    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=args.hidden, intermediate_size=args.intermediate, num_attention_heads=args.heads,
        num_key_value_heads=args.heads, num_hidden_layers=args.blocks, vocab_size=args.vocabulary,
        attn_implementation="eager", bos_token_id=1, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    contiguous_head(model)  # as of a model that is loaded
    return add_lora(model, LoraConfig(r=args.rank, dropout=0.0))


def part_of(name: str, shapes: Any, rank: int, vocabulary: int) -> str:
    """Which of `PARTS` an operation belongs to, by its name and the shapes of what it reads."""
    operation = name.split("::")[-1]
    sizes = {size for shape in shapes or () if isinstance(shape, list | tuple) for size in shape}
    if operation in PRODUCTS:
        return "adapter" if rank in sizes else "head" if vocabulary in sizes else "frozen layers"
    return "attention" if operation.startswith(ATTENTION) else PARTS[-1]


def profiled(work: Callable[[], Any], args: argparse.Namespace) -> Counter[str]:
    """Seconds of each part of `work`."""
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], record_shapes=True
    ) as profile:
        work()
    seconds: Counter[str] = Counter()
    for event in profile.key_averages(group_by_input_shape=True):
        part = part_of(event.key, event.input_shapes, args.rank, args.vocabulary)
        seconds[part] += event.self_cpu_time_total / 1e6
    return seconds


def measure(args: argparse.Namespace) -> dict[str, Counter[str]]:
    """Seconds of each part of the forward pass, the backward pass with the optimizer, merging, and the rollouts."""
    from dareu.models.logprobs import IGNORE, response_logprobs
    from dareu.models.merge import merged

    model, half = make(args), args.tokens // 2
    ids = torch.randint(3, args.vocabulary, (args.rows, args.tokens))
    labels = ids.clone()
    labels[:, :half] = IGNORE
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad])
    graph: list[torch.Tensor] = []

    def forward() -> None:
        logps, mask = response_logprobs(model, batch)
        graph[:] = [-logps.sum() / mask.sum()]

    def backward() -> None:
        graph[0].backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    def rollouts() -> None:
        with torch.no_grad():
            model.generate(
                input_ids=ids[:, :half], attention_mask=batch["attention_mask"][:, :half], do_sample=True,
                min_new_tokens=args.tokens - half, max_new_tokens=args.tokens - half,
            )  # fmt: skip

    def merge() -> None:
        with merged(model):
            pass

    forward()  # the first passes allocate
    backward()
    found = {"forward": profiled(forward, args)}
    print(f"forward {sum(found['forward'].values()):.1f} s", flush=True)
    found["backward, optimizer"] = profiled(backward, args)
    print(f"backward {sum(found['backward, optimizer'].values()):.1f} s", flush=True)
    graph.clear()
    found["merging and unmerging"] = profiled(merge, args)
    with merged(model):
        found["rollouts"] = profiled(rollouts, args)
    return found


def page(found: dict[str, Counter[str]], args: argparse.Namespace) -> str:
    """A table of shares, and the seconds."""
    totals = {name: sum(seconds.values()) for name, seconds in found.items()}
    rows = [[part, *(f"{seconds[part] / totals[n]:.3f}" for n, seconds in found.items())] for part in PARTS]
    rows.append(["seconds", *(f"{total:.1f}" for total in totals.values())])
    counted = args.rows * args.tokens, args.rows * (args.tokens - args.tokens // 2)
    return (
        f"Width {args.hidden}, {args.intermediate} in the MLP, {args.heads} heads, vocabulary {args.vocabulary:,}, "
        f"{args.blocks} blocks, LoRA r {args.rank}, bfloat16; {args.rows} rows, {counted[0]} tokens in an update, "
        f"{counted[1]} sampled.\n\n" + table(["part", *found], rows)
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, and write the section."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    given = {
        "hidden": 4096, "intermediate": 11008, "heads": 32, "blocks": 4, "vocabulary": 32000, "rank": 8, "rows": 10,
        "tokens": 72,
    }  # fmt: skip
    for name, value in given.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--page", type=Path, default=Path("docs/performance.md"))
    args = parser.parse_args(argv)
    if args.rank in (args.rows, args.heads, args.tokens, args.tokens // 2):
        parser.error("--rank has to differ from the other sizes: the adapter's products are told by it")
    torch.set_num_threads(1)
    begun = time.process_time()
    told = [
        f"--{name} {getattr(args, name)}" for name, value in given.items() if getattr(args, name) != value
    ]
    text = with_origin(" ".join(["bench_shape.py", *told]), page(measure(args), args))
    print(text, f"{time.process_time() - begun:.0f} CPU seconds in all", sep="\n")
    write_section(args.page, "shape", text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
