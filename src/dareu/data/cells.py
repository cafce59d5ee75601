"""What a cell of a table may hold beside text: a list that is spelt out, and a chat of turns."""

import ast
import json
import re
from typing import Any

from dareu.errors import DataError

_STRING = r"""(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")"""
_NUMBER = r"[-+]?\d+(?:\.\d*)?(?:[eE][-+]?\d+)?"
_PLAIN = rf"(?:{_STRING}|{_NUMBER}|None|nan|null)"
_ITEM = re.compile(rf"np\.\w+\({_PLAIN}\)|{_PLAIN}", re.DOTALL)  # NumPy 2 names the type of an item
# NumPy writes no commas between items; Python's own reader would join its strings into one.
_LIST = re.compile(rf"[\[({{]\s*(?:(?:{_ITEM.pattern})\s*,?\s*)*[\])}}]", re.DOTALL)
_CALL = re.compile(
    r"(?:array|list|tuple|set|frozenset|deque)\((?P<list>.*?)(?:,\s*dtype=[^)]*)?\)", re.DOTALL
)
_LEFT_OUT = re.compile(rf"[\[({{]\s*(?:(?:{_ITEM.pattern})\s*,?\s*)+\.\.\.", re.DOTALL)
_BEGINS = re.compile(r"""(?:\w+\()?[\[{][\s\[({]*(?:[\w.]+\()?[bu]?["'“‘]""")


def parse_list(text: str) -> list[Any] | None:
    """The items of a list that `text` spells; None where it spells none, such as "[sic]" or "[a] and b".

    `["a", "b"]` (JSON), `['a', "b's"]` or `{'a', 'b'}` (Python), `['a' 'b']`, `array(['a', 'b'], dtype=object)` or
    `[np.str_('a')]` (NumPy), one after another. Items may be strings, numbers or nothing.

    Raises:
        ValueError: The list was shortened when it was written (`['a' ... 'z']`), or begins as one and cannot be read.
    """
    whole = text = text.strip()
    call = _CALL.fullmatch(text)
    if call:
        text = call["list"].strip()
    try:
        value = json.loads(text)
        if isinstance(value, list):
            return value
    except (ValueError, RecursionError):
        pass
    if _LEFT_OUT.match(text):
        raise ValueError("a list that was shortened with '...' when it was written")
    if _LIST.fullmatch(text) and ("," in text or text[0] != "("):
        return [_value(item) for item in _ITEM.findall(text)]
    if _BEGINS.match(whole):
        raise ValueError("what begins as a list and is none")
    return None


def _value(item: str) -> Any:
    if item.startswith("np."):
        item = item.partition("(")[2][:-1]
    if item in ("None", "nan", "null"):
        return None
    try:
        return ast.literal_eval(item.replace("\n", "\\n"))
    except (ValueError, SyntaxError):
        return item[1:-1]


CURE = 'Write a list of {"role": "user", "content": "…"} and {"role": "assistant", "content": "…"}.'


def is_conversation(value: Any) -> bool:
    """Whether `value` is a list of turns, of which there is at least one."""
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(turn, dict) and "role" in turn and "content" in turn for turn in value)
    )


def conversation(value: Any, where: str) -> tuple[str, str]:
    """(prompt, response) of a chat: the response is the last turn of the assistant, the prompt what comes before.

    A lone question is the prompt as it is; a system message stands before it. Of a longer chat every turn before the
    last answer stands in the prompt with its role: "User: …", "Assistant: …". Turns after the last answer are dropped.

    Raises:
        DataError: It is no chat, or has no answer, or no question before the answer.
    """
    if not is_conversation(value):
        raise DataError(f"The messages in {where} are no chat: {str(value)[:60]}.", CURE)
    turns = [(str(turn["role"]), _content(turn["content"], where)) for turn in value]
    last = max((i for i, (role, _) in enumerate(turns) if role == "assistant"), default=None)
    if last is None or not turns[last][1]:
        raise DataError(f"The messages in {where} hold no answer of the assistant.", CURE)
    before = [(role, text) for role, text in turns[:last] if text]
    questions = [text for role, text in before if role == "user"]
    if not questions:
        raise DataError(f"The messages in {where} hold no question before the answer.", CURE)
    if len(before) == len(questions) + sum(role == "system" for role, _ in before) and len(questions) == 1:
        return "\n\n".join(text for _, text in before), turns[last][1]
    named = [text if role == "system" else f"{role.capitalize()}: {text}" for role, text in before]
    return "\n\n".join(named), turns[last][1]


def _content(content: Any, where: str) -> str:
    """The text of a turn; of content in parts those that are text."""
    if isinstance(content, str) or content is None:
        return (content or "").strip()
    if isinstance(content, list):
        parts = [part.get("text") for part in content if isinstance(part, dict)]
        return " ".join(part for part in parts if isinstance(part, str)).strip()
    raise DataError(f"The messages in {where} hold content that is no text: {str(content)[:60]}.", CURE)
