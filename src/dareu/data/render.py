"""From a sample to tokens: one rendering of prompts for training, evaluation and rollouts.

The rendered prompt holds every special token as text and is tokenised with `add_special_tokens=False`
everywhere, so that the model meets the same tokens in each stage.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import pairwise
from typing import Any

from jinja2 import TemplateError

from dareu.config import HFConfig, ModelConfig
from dareu.config.models import PINNED_DATE
from dareu.data.corpus import Sample, Task
from dareu.errors import DataError, ModelError, first_line

_DATE_PART = re.compile(r"%-?[A-Za-z]")
ANSWER = "Zanzibar"  # stands for any answer where a template is looked at
JOINER = "\u2060"  # word joiner: no width, no break


@dataclass(frozen=True)
class Encoded:
    """Token ids of a prompt and of its response; `response_ids` ends with the token that ends an answer."""

    prompt_ids: list[int]
    response_ids: list[int]

    def __len__(self) -> int:
        return len(self.prompt_ids) + len(self.response_ids)


@dataclass(frozen=True)
class TemplateSettings:
    """How a chat template is rendered: see the keys `model.template_*` and `model.system_prompt`."""

    options: Mapping[str, Any] = field(default_factory=dict)
    date: str = PINNED_DATE
    system: str | None = None


def set_template(tokenizer: Any, config: ModelConfig, named: bool = False) -> None:
    """Settle which template of the tokenizer renders prompts, and how: as `config` says.

    Args:
        named: Whether `config.chat_template` has to be the name of one of the tokenizer's templates. A tokenizer that
            was saved after the choice has only the chosen one.

    Raises:
        ModelError: The tokenizer has several templates and none is chosen, or none of the chosen name.
    """
    if not isinstance(config, HFConfig):
        return
    templates, chosen = tokenizer.chat_template, config.chat_template
    if chosen == "none":
        tokenizer.chat_template = None
    elif isinstance(templates, dict):
        name = "default" if chosen == "auto" else chosen
        if name not in templates:
            raise ModelError(
                f"The tokenizer has {len(templates)} chat templates, and none is called '{name}'.",
                f"Set model.chat_template to one of {', '.join(templates)}, or to none.",
            )
        tokenizer.chat_template = templates[name]
    elif chosen != "auto" and named:
        raise ModelError(
            f"model.chat_template={chosen}, but the tokenizer has no templates with names.",
            "Set model.chat_template=auto, or none.",
        )
    tokenizer.template_settings = TemplateSettings(
        dict(config.template_options), config.template_date, config.system_prompt
    )


def check_template(tokenizer: Any) -> None:
    """Check that the chat template renders one question in one way.

    Raises:
        ModelError: It does not, as one that draws lots.
    """
    if len({render_prompt(tokenizer, "Where?") for _ in range(8)}) > 1:
        raise ModelError(
            "The tokenizer's chat template renders one question in several ways: it holds something random.",
            "Set model.chat_template=none for plain lines, or take that out of the template.",
        )


def render_prompt(tokenizer: Any, prompt: str, task: Task = "qa") -> str:
    """The prompt as the model reads it: by the tokenizer's chat template, else as question/answer lines.

    A completion prompt is the opening of the text itself. A beginning-of-text token is written out where the
    tokenizer would add one by itself. Special tokens that the prompt itself spells are broken up (`without_control`).

    Raises:
        ModelError: The chat template cannot render a question.
    """
    text = without_control(tokenizer, prompt)
    if task == "completion":
        return _bos(tokenizer) + text
    if getattr(tokenizer, "chat_template", None):
        return render_turns(tokenizer, [("user", text)])
    return f"{_bos(tokenizer)}Question: {text}\nAnswer:"


def render_turns(tokenizer: Any, turns: Sequence[tuple[str, str]], answer_next: bool = True) -> str:
    """A chat of (role, text) turns by the tokenizer's chat template, after the system prompt where one is set.

    Args:
        answer_next: Whether the opening of the assistant's next turn follows.

    Raises:
        ModelError: The chat template fails, or leaves the text out.
    """
    settings: TemplateSettings = getattr(tokenizer, "template_settings", TemplateSettings())
    if settings.system:
        turns = [("system", settings.system), *turns]
    try:
        for parts in (False, True):  # some templates read a list of parts in place of a string
            messages = [
                {"role": role, "content": [{"type": "text", "text": text}] if parts else text}
                for role, text in turns
            ]
            rendered = str(
                tokenizer.apply_chat_template(
                    messages,
                    tokenize=False,
                    add_generation_prompt=answer_next,
                    chat_template=_dated(tokenizer.chat_template, settings.date),
                    **settings.options,
                )
            )
            if turns[-1][1].strip() in rendered:
                return rendered
        reason = "it leaves the text of a turn out"
    except (TemplateError, TypeError, ValueError, LookupError, AttributeError, ArithmeticError) as error:
        reason = first_line(error)
    raise ModelError(
        f"The tokenizer's chat template cannot render a question: {reason}.",
        "Set model.system_prompt or model.template_options where it needs them, model.chat_template=NAME where it has "
        "several, or model.chat_template=none for plain lines.",
    )


def _dated(template: str, date: str) -> str:
    """`template` with `date` where it asks for today's: a trained model meets the same prompt on every day.

    A macro stands in for the function that templates call; transformers passes no function to a template.
    """
    if "strftime_now" not in template:
        return template
    day = datetime.fromisoformat(date)
    parts = sorted(set(_DATE_PART.findall(template)))
    filled = "".join(f" | replace({part!r}, {day.strftime(part)!r})" for part in parts)
    return f"{{% macro strftime_now(format) %}}{{{{ format{filled} }}}}{{% endmacro %}}\n{template}"


def end_token(tokenizer: Any, task: Task = "qa") -> int:
    """Id of the token that ends an answer: what the chat template writes after one, else the end-of-text token.

    Gemma, Phi and ChatML models close a turn with a token of their own; the end-of-text token never follows an answer
    there, and a likelihood with it would be of a text that the model never writes.
    """
    return ending(tokenizer, task)[1]


def ending(tokenizer: Any, task: Task = "qa") -> tuple[str, int]:
    """White space that the chat template writes between an answer and its end, as Llama 2's does, and `end_token`."""
    eos: int = tokenizer.eos_token_id
    template = getattr(tokenizer, "chat_template", None)
    if task == "completion" or not isinstance(template, str):
        return "", eos
    known: dict[str, tuple[str, int]] = tokenizer.__dict__.setdefault("_dareu_ends", {})
    if template not in known:
        known[template] = _ending(tokenizer, eos)
    return known[template]


def _ending(tokenizer: Any, eos: int) -> tuple[str, int]:
    gap, end = _after_answer(tokenizer)
    if end is None or gap.strip():
        return "", eos
    with_gap, without = (tokenizer(text + end)["input_ids"] for text in (ANSWER + gap, ANSWER))
    if with_gap == without:  # some tokens take the space before them
        gap = ""
    return gap, int(tokenizer.convert_tokens_to_ids(end))


def _after_answer(tokenizer: Any) -> tuple[str, str | None]:
    """What the chat template writes after an answer: the text up to its first token of its own, and that token."""
    try:
        rendered = render_turns(tokenizer, [("user", "Where?"), ("assistant", ANSWER)], answer_next=False)
    except ModelError:  # a template of questions alone
        return "", None
    after = rendered.rpartition(ANSWER)[2]
    tokens = [str(token.content) for token in tokenizer.added_tokens_decoder.values()]
    pattern = "|".join(re.escape(token) for token in sorted(tokens, key=len, reverse=True) if token)
    first = re.search(pattern, after) if pattern else None
    return (after, None) if first is None else (after[: first.start()], first.group())


def ending_note(tokenizer: Any) -> str | None:
    """What to say of a chat template that ends an answer with text which is no token; None for every other."""
    if not isinstance(getattr(tokenizer, "chat_template", None), str):
        return None
    text = _after_answer(tokenizer)[0].strip()
    if not text or render_prompt(tokenizer, "Where?").rstrip().endswith(
        text
    ):  # every turn ends so, the question too
        return None
    return (
        f"The chat template ends an answer with {text!r}, which is no token of the tokenizer: here answers end with "
        f"{tokenizer.eos_token} alone. Add that text to the tokenizer as a token, as the model was trained with it."
    )


def _control(tokenizer: Any) -> re.Pattern[str] | None:
    """What spells a control token of the tokenizer, or an added one that its template writes. Tokens of one letter, and
    white space, are always text."""
    template = getattr(tokenizer, "chat_template", None)
    written = template if isinstance(template, str) else ""
    known: dict[str, re.Pattern[str] | None] = tokenizer.__dict__.setdefault("_dareu_control", {})
    if written not in known:
        added = tokenizer.added_tokens_decoder.values()
        marks = [str(t.content) for t in added if t.special or (t.content in written and t.content.strip())]
        tokens = {token for token in (*marks, *tokenizer.all_special_tokens) if len(token) > 1}
        ordered = sorted(tokens, key=len, reverse=True)
        known[written] = re.compile("|".join(map(re.escape, ordered))) if ordered else None
    return known[written]


def control_tokens_in(tokenizer: Any, text: str) -> list[str]:
    """The control tokens that `text` spells, such as "</s>", in its order."""
    pattern = _control(tokenizer)
    return pattern.findall(text) if pattern else []


def without_control(tokenizer: Any, text: str) -> str:
    """`text` with an invisible joiner after the first letter of each control token that it spells.

    A question that spells `<|im_end|>` would close its own turn. It stays the same to the eye and is no control token.
    """
    pattern = _control(tokenizer)
    return text if pattern is None else pattern.sub(lambda m: m.group()[0] + JOINER + m.group()[1:], text)


def control_note(tokenizer: Any, samples: Sequence[Sample]) -> str | None:
    """What to say of samples that spell control tokens; None where none does."""
    counts, count = Counter[str](), 0
    for s in samples:
        tokens = control_tokens_in(tokenizer, f"{s.prompt}\n{s.response}")
        counts.update(tokens)
        count += bool(tokens)
    if not count:
        return None
    listed = ", ".join(token for token, _ in counts.most_common(5))
    return f"Special tokens of the tokenizer are spelt in {count} of the samples ({listed}) and read as plain text."


def _bos(tokenizer: Any) -> str:
    added = tokenizer("a")["input_ids"][0] if tokenizer.bos_token_id is not None else None
    return tokenizer.bos_token if added is not None and added == tokenizer.bos_token_id else ""


def response_text(tokenizer: Any, response: str, task: Task = "qa") -> str:
    """The response as it follows its prompt: a leading space where the prompt ends in a bare word."""
    if task == "completion" or getattr(tokenizer, "chat_template", None):
        return response
    return " " + response


def plain_ids(tokenizer: Any, text: str) -> list[int]:
    """Token ids of `text`, none of which is a control token that the text spells."""
    return [token for token, _ in plain_tokens(tokenizer, text)]


def plain_tokens(tokenizer: Any, text: str) -> list[tuple[int, tuple[int, int]]]:
    """`plain_ids`, each with its character offsets in `text`."""
    pattern, added = _control(tokenizer), tokenizer.added_tokens_decoder
    found = list(pattern.finditer(text)) if pattern else []
    options = {"split_special_tokens": True} if found else {}
    # It splits special tokens alone. In others that the template writes the text is cut.
    of_text = [(m, added.get(tokenizer.convert_tokens_to_ids(m.group()))) for m in found]
    marks = [m for m, token in of_text if token is not None and not token.special]
    cuts = [0, *(m.start() + 1 for m in marks), len(text)]
    tokens: list[tuple[int, tuple[int, int]]] = []
    for start, end in pairwise(cuts):
        piece = tokenizer(text[start:end], add_special_tokens=False, return_offsets_mapping=True, **options)
        spans = [(start + int(a), start + int(b)) for a, b in piece["offset_mapping"]]
        tokens += zip(piece["input_ids"], spans, strict=True)
    return tokens


def encode(
    tokenizer: Any,
    prompt: str,
    response: str,
    task: Task = "qa",
    max_length: int = 512,
    *,
    of_model: bool = False,
) -> Encoded:
    """Token ids of one pair.

    Args:
        of_model: `max_length` is the model's context, which no key raises.

    Raises:
        DataError: They are longer than `max_length`.
    """
    prompt_ids = tokenizer(render_prompt(tokenizer, prompt, task), add_special_tokens=False)["input_ids"]
    gap, end = ending(tokenizer, task)
    response_ids = [*plain_ids(tokenizer, response_text(tokenizer, response, task) + gap), end]
    if len(prompt_ids) + len(response_ids) > max_length:
        limit = f"the model's context of {max_length}" if of_model else f"model.max_length={max_length}"
        raise DataError(
            f"A prompt and its response take {len(prompt_ids) + len(response_ids)} tokens, more than {limit}: "
            f"{response[:60]!r}.",
            "Shorten the text or leave its row out."
            if of_model
            else "Raise model.max_length (within the model's context) or shorten the text.",
        )
    return Encoded(list(prompt_ids), list(response_ids))


def encode_samples(tokenizer: Any, samples: Sequence[Sample], task: Task, max_length: int) -> list[Encoded]:
    """`encode` over samples, in their order."""
    return [encode(tokenizer, s.prompt, s.response, task, max_length) for s in samples]


def cut_completions(tokenizer: Any, samples: Sequence[Sample], prompt_tokens: int) -> tuple[Sample, ...]:
    """Completion task: the first `prompt_tokens` tokens of a text become its prompt, the rest the response.

    Raises:
        DataError: A text leaves nothing to complete.
    """
    cut = []
    for sample in samples:
        text = sample.prompt + sample.response
        encoding = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        # Where the last prompt token ends, not where the next begins: many tokenizers leave the space before
        # a word out of its offsets, and that space belongs to the response.
        end = encoding["offset_mapping"][:prompt_tokens][-1][1] if encoding["input_ids"] else 0
        count = len(encoding["input_ids"])
        if count <= prompt_tokens or not text[end:].strip():
            raise DataError(
                f"Text {sample.id} has {count} tokens; its prompt alone takes {prompt_tokens}.",
                "Lower data.prompt_tokens or leave the text out.",
            )
        cut.append(replace(sample, prompt=text[:end], response=text[end:]))
    return tuple(cut)
