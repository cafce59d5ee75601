"""Lists that stand as text in a table's cell: JSON, Python's or NumPy's."""

import ast
import json
import re
from typing import Any

_STRING = r"""(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")"""
_NUMBER = r"[-+]?\d+(?:\.\d*)?(?:[eE][-+]?\d+)?"
_ITEM = re.compile(rf"{_STRING}|{_NUMBER}|None|nan|null", re.DOTALL)
# NumPy writes no commas between items; Python's own reader would join its strings into one.
_LIST = re.compile(rf"[\[(]\s*(?:(?:{_ITEM.pattern})\s*,?\s*)*[\])]", re.DOTALL)
_ARRAY = re.compile(r"array\((?P<list>.*?)(?:,\s*dtype=[^)]*)?\)", re.DOTALL)
_LEFT_OUT = re.compile(rf"[\[(]\s*(?:(?:{_ITEM.pattern})\s*,?\s*)+\.\.\.", re.DOTALL)


def parse_list(text: str) -> list[Any] | None:
    """The items of a list that `text` spells; None where it spells none, such as "[sic]" or "[a] and b".

    `["a", "b"]` (JSON), `['a', "b's"]` (Python), `['a' 'b']` and `array(['a', 'b'], dtype=object)` (NumPy), one after
    another. Items may be strings, numbers or nothing.

    Raises:
        ValueError: The list was shortened when it was written (`['a' ... 'z']`).
    """
    text = text.strip()
    array = _ARRAY.fullmatch(text)
    if array:
        text = array["list"].strip()
    if text[:1] not in ("[", "("):
        return None
    try:
        value = json.loads(text)
        return value if isinstance(value, list) else None
    except (ValueError, RecursionError):
        pass
    if _LEFT_OUT.match(text):
        raise ValueError("a list that was shortened with '...' when it was written")
    if text[0] == "(" and "," not in text or not _LIST.fullmatch(text):
        return None
    return [_value(item) for item in _ITEM.findall(text)]


def _value(item: str) -> Any:
    if item in ("None", "nan", "null"):
        return None
    try:
        return ast.literal_eval(item.replace("\n", "\\n"))
    except (ValueError, SyntaxError):
        return item[1:-1]
