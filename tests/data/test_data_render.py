"""Prompts to tokens, on a tokenizer of single letters whose ids are known."""

from __future__ import annotations

from typing import Any

import pytest
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors
from tokenizers.pre_tokenizers import Split as SplitAt
from transformers import PreTrainedTokenizerFast

from dareu.data.corpus import Sample
from dareu.data.render import (
    Encoded,
    collate,
    cut_completions,
    encode,
    encode_samples,
    render_prompt,
    response_text,
)
from dareu.errors import DataError

END, BOS, USER, BOT = 0, 1, 2, 3
LETTERS = "abcdefghijklmnopqrstuvwxyzQA :\n?"
ID = {c: 4 + i for i, c in enumerate(LETTERS)}
TEMPLATE = (
    "{{ '<b>' }}{% for m in messages %}{{ '<u>' + m['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<a>' }}{% endif %}"
)


def letters(chat: bool = False, bos: bool = False) -> Any:
    """One token a character; the pad token is the end-of-text token, as where a model has no pad token."""
    special = {"</s>": END, "<b>": BOS, "<u>": USER, "<a>": BOT}
    core = Tokenizer(models.WordLevel({**special, **ID}, unk_token="?"))
    core.pre_tokenizer = SplitAt(Regex("[\\s\\S]"), "isolated")
    if bos:
        core.post_processor = processors.TemplateProcessing(single="<b> $A", special_tokens=[("<b>", BOS)])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token="<b>",
        eos_token="</s>",
        pad_token="</s>",
        additional_special_tokens=["<u>", "<a>"],
    )
    if chat:
        fast.chat_template = TEMPLATE
    return fast


def ids(text: str) -> list[int]:
    return [ID[c] for c in text]


def test_question_and_answer_lines() -> None:
    tokenizer = letters()
    assert render_prompt(tokenizer, "who?") == "Question: who?\nAnswer:"
    row = encode(tokenizer, "who?", "ann")
    assert row.prompt_ids == ids("Question: who?\nAnswer:")
    assert row.response_ids == [*ids(" ann"), END]
    assert len(row) == 22 + 5


def test_chat_template_is_used_where_there_is_one() -> None:
    tokenizer = letters(chat=True, bos=True)
    assert render_prompt(tokenizer, "who?") == "<b><u>who?<a>"
    assert response_text(tokenizer, "ann") == "ann"
    row = encode(tokenizer, "who?", "ann")
    assert row.prompt_ids == [BOS, USER, *ids("who?"), BOT]  # one beginning-of-text token, not two
    assert row.response_ids == [*ids("ann"), END]


def test_beginning_of_text_where_the_tokenizer_adds_one() -> None:
    assert encode(letters(bos=True), "q", "a").prompt_ids == [BOS, *ids("Question: q\nAnswer:")]
    assert encode(letters(bos=True), "q", "a").response_ids == [*ids(" a"), END]
    assert encode(letters(bos=True), "ab", "cd", "completion").prompt_ids == [BOS, *ids("ab")]
    assert render_prompt(letters(), "ab", "completion") == "ab"


def test_completion_has_no_frame_even_with_a_chat_template() -> None:
    row = encode(letters(chat=True), "ab", " cd", "completion")
    assert (row.prompt_ids, row.response_ids) == (ids("ab"), [*ids(" cd"), END])


def test_too_long() -> None:
    tokenizer = letters(chat=True)
    samples = [Sample("x", "o", "q", "abc")]  # <b><u>q<a> and abc</s>: 8 tokens
    assert len(encode_samples(tokenizer, samples, "qa", 8)[0]) == 8
    with pytest.raises(DataError, match="take 8 tokens, more than model.max_length=7.*'abc'"):
        encode_samples(tokenizer, samples, "qa", 7)


ROWS = [Encoded([7, 8], [9, END]), Encoded([5], [END])]


def test_collate_right() -> None:
    assert collate(ROWS, pad_id=END) == {
        "input_ids": [[7, 8, 9, END], [5, END, END, END]],
        "attention_mask": [[1, 1, 1, 1], [1, 1, 0, 0]],
        "labels": [
            [-100, -100, 9, END],
            [-100, END, -100, -100],
        ],  # the real end is a label, the pads are not
    }


def test_collate_left() -> None:
    assert collate(ROWS, pad_id=END, side="left") == {
        "input_ids": [[7, 8, 9, END], [END, END, 5, END]],
        "attention_mask": [[1, 1, 1, 1], [0, 0, 1, 1]],
        "labels": [[-100, -100, 9, END], [-100, -100, -100, END]],
    }


def test_collate_to_a_multiple() -> None:
    for side in ("left", "right"):
        batch = collate(ROWS, pad_id=6, side=side, multiple_of=3)
        assert all(len(row) == 6 for rows in batch.values() for row in rows)
        assert [sum(row) for row in batch["attention_mask"]] == [4, 2]
    assert all(len(row) == 4 for row in collate(ROWS, pad_id=6, multiple_of=2)["labels"])


def test_cut_completions() -> None:
    tokenizer = letters(bos=True)
    (cut,) = cut_completions(tokenizer, [Sample("x", "Ann", "", "abc def")], 3)
    assert (cut.id, cut.owner, cut.prompt, cut.response) == ("x", "Ann", "abc", " def")
    again = cut_completions(tokenizer, [cut], 3)
    assert again == (cut,)  # cut from prompt and response together
    with pytest.raises(DataError, match="Text x has 7 tokens; its prompt alone takes 7"):
        cut_completions(tokenizer, [Sample("x", "Ann", "", "abc def")], 7)
    with pytest.raises(DataError, match="Text y has 0 tokens"):
        cut_completions(tokenizer, [Sample("y", "Ann", "", "")], 7)


@pytest.mark.parametrize("trim", [True, False])
def test_cut_leaves_the_space_to_the_response(trim: bool) -> None:
    # Byte-level tokenizers write the space into the word that follows; some trim it from the word's offsets.
    core = Tokenizer(models.WordLevel({"?": 0, "one": 1, "Ġtwo": 2, "Ġthree": 3}, unk_token="?"))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.post_processor = processors.ByteLevel(trim_offsets=trim)
    tokenizer: Any = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="?")
    (cut,) = cut_completions(tokenizer, [Sample("x", "Ann", "", "one two three")], 2)
    assert (cut.prompt, cut.response) == ("one two", " three")
    row = encode(tokenizer, cut.prompt, cut.response, "completion")
    assert (row.prompt_ids, row.response_ids) == ([1, 2], [3, 0])
