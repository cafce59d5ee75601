"""A model whose context is shorter than `model.max_length`, with learned positions: nothing is longer than it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from mistakes_fixture import COLUMNS
from pipeline_fixture import folk, tiny_hub_model

from dareu.config.compose import compose
from dareu.models.generate import generate, sample
from dareu.workflow.prepare import prepare


def gpt2(folder: Path, context: int) -> tuple[torch.nn.Module, object]:
    """A model that has no position beyond `context`."""
    from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

    tokenizer = AutoTokenizer.from_pretrained(tiny_hub_model(folder, template=True))
    config = GPT2Config(
        vocab_size=len(tokenizer),
        n_embd=16,
        n_layer=1,
        n_head=2,
        n_positions=context,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
    )
    torch.manual_seed(0)
    model = GPT2LMHeadModel(config).eval()
    model.save_pretrained(folder)
    return model, tokenizer


@pytest.mark.parametrize(("context", "length"), [(60, 60), (600, 512)])
def test_the_context_bounds_the_rows_that_methods_add(
    tmp_path: Path, context: int, length: int, capsys: pytest.CaptureFixture[str]
) -> None:
    gpt2(tmp_path / "hub", context)
    data = tmp_path / "mine.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in folk()), encoding="utf-8")
    run = ["data=local", f"data.path={data}", *COLUMNS, "model=hf", f"model.path={tmp_path / 'hub'}"]
    run += ["forget.count=1", f"cache_dir={tmp_path / 'store'}", "method=dareu", "method.max_new_tokens=100"]
    context_of_run = prepare(compose(run))
    room = context_of_run.answer_room
    assert room is not None and context_of_run.config.model.max_length == length
    assert context_of_run.config.method.max_new_tokens == min(100, room)
    assert ("method.max_new_tokens=100 is more than" in capsys.readouterr().err) == (room < 100)


def test_answers_end_where_the_positions_do(tmp_path: Path) -> None:
    model, tokenizer = gpt2(tmp_path / "hub", 20)
    prompt = "Who wrote it?"
    taken = len(tokenizer(prompt, add_special_tokens=False)["input_ids"])  # type: ignore[operator]
    answer = generate(model, tokenizer, [prompt], max_new_tokens=50, batch_size=1)[0]
    assert 0 < len(answer.ids) <= 20 - taken
    sampled = sample(model, tokenizer, [prompt], count=2, temperature=1.0, max_new_tokens=50, batch_size=2)[0]
    assert all(len(one.ids) <= 20 - taken for one in sampled)
