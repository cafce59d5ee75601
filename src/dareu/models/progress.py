"""A progress bar that stays quiet where nobody watches."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar

from tqdm.auto import tqdm

T = TypeVar("T")


def track(items: Sequence[T], description: str | None) -> Iterable[T]:
    """`items` with a bar named `description`; no bar where that is None. The bar goes when it is done."""
    if description is None:
        return items
    return tqdm(items, desc=description, leave=False, dynamic_ncols=True, delay=2)
