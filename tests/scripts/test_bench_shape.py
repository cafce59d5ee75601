"""The profile of a shape: which operation is counted as what."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

import bench_shape  # noqa: E402


@pytest.mark.parametrize(
    ("name", "shapes", "part"),
    [
        ("aten::mm", [[720, 4096], [4096, 8]], "adapter"),
        ("aten::mm", [[720, 4096], [4096, 11008]], "frozen layers"),
        ("aten::mm", [[360, 4096], [4096, 32000]], "head"),
        ("aten::bmm", [[320, 72, 128], [320, 128, 72]], "attention"),
        ("aten::_softmax", [[10, 32, 72, 72], [], []], "attention"),
        ("aten::mul", [[720, 8]], bench_shape.PARTS[-1]),
        ("aten::copy_", [], bench_shape.PARTS[-1]),
    ],
)
def test_an_operation_belongs_to_a_part(name: str, shapes: list[list[int]], part: str) -> None:
    assert bench_shape.part_of(name, shapes, rank=8, vocabulary=32000) == part


def test_shares_add_up_to_one() -> None:
    found = {"forward": Counter({"frozen layers": 3.0, "head": 1.0})}
    args = bench_shape.argparse.Namespace(
        hidden=4, intermediate=8, heads=2, blocks=1, vocabulary=32000, rank=8, rows=10, tokens=72
    )
    text = bench_shape.page(found, args)
    assert "| frozen layers | 0.750 |" in text
    assert "| seconds | 4.0 |" in text
    assert "720 tokens in an update, 360 sampled" in text


def test_a_rank_that_is_also_a_size_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        bench_shape.main(["--rows", "8"])
    assert "--rank has to differ" in capsys.readouterr().err
