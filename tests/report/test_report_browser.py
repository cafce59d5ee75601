"""The page of a run in a real browser: a headless Chromium from PATH. Skipped where there is none."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from browser_fixture import NAMES, Browser, browser_path
from report_fixture import PEOPLE, left, lost, write_run
from test_report_rounds import with_rounds

from dareu.report.page import write_report

LEFT = {
    "rouge_l": (0.05, -0.02, 0.12),
    "exact": (0.3, 0.1, 0.5),
    "probability": (-0.2, -0.3, -0.1),
    "extraction_strength": (1.5, 1.3, 1.7),
    "membership_loss": (-0.9, -1.6, -0.3),
}
NARROW = [320, 390, 760, 1280]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    path = browser_path()
    if path is None:
        pytest.skip(f"no browser: none of {', '.join(NAMES)} is on PATH")
    one = Browser(path, tmp_path_factory.mktemp("browser"))
    yield one
    one.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with every section: knowledge left, losses, curves of all models, rounds, what is missing."""
    results: dict[str, Any] = with_rounds(**left(**LEFT))
    for entry, seconds in zip(results["rounds"], (24.1, 251.0, 3.0), strict=True):
        entry["seconds"]["unlearn"] = seconds
    for height, one in enumerate(results["models"].values()):
        one["leak"] = {"exact": {"1": 0.0, "8": height / 4}}
        one["probes"] = {"curves": {"relearn_forget.probability": [[0.0, 0.0], [50.0, height / 4]]}}
    results["damage"] = lost(0.2, 0.05, 0.02, 0.3)["damage"]
    names = [
        f"{m}.forget.{x}"
        for m in results["models"]
        for x in ("membership_min_k_plus_40", "extraction_strength")
    ]
    results["missing"] = dict.fromkeys(names, "no_word_ends_here_" * 8)
    results["data"]["forget_owners"] = [*results["data"]["forget_owners"], "Llanfairpwllgwyngyll" * 4]
    run = write_run(tmp_path_factory.mktemp("browsed") / "run", results)
    return write_report(run)


@pytest.mark.parametrize("width", NARROW)
def test_the_page_loads_nothing_and_complains_of_nothing(browser: Browser, report: Path, width: int) -> None:
    browser.open(report, width)
    assert browser.loaded() == [report.resolve().as_uri()]
    assert browser.complaints() == []


@pytest.mark.parametrize("width", NARROW)
def test_nothing_is_wider_than_the_window(browser: Browser, report: Path, width: int) -> None:
    """Everything that folds is opened. Wide tables may scroll, but inside their own box."""
    browser.open(report, width)
    browser.js("for (const one of document.querySelectorAll('details')) one.open = true")
    beyond = """[...document.querySelectorAll('body *')].filter((e) => !e.closest('.scroll, pre, svg')
      && e.getBoundingClientRect().right > WIDTH + 1).map((e) => e.tagName + ' ' + e.textContent.slice(0, 40))"""
    assert browser.js(beyond.replace("WIDTH", str(width))) == []
    assert browser.js("[innerWidth, document.documentElement.scrollWidth <= innerWidth]") == [width, True]


def test_tables_sort_by_click(browser: Browser, report: Path) -> None:
    """Largest first, then smallest first; rows without a number last, whichever way."""
    browser.open(report, 1280)
    browser.js("""
      window.table = [...document.querySelectorAll('table.figures')].find((t) => t.querySelector('tr.unlearned'));
      window.column = (n) => [...table.tBodies[0].rows].map((row) => row.cells[n].textContent.trim());
      window.click = (n) => { table.tHead.rows[0].cells[n].querySelector('button').click(); return column(n); }
      table.tBodies[0].rows[0].cells[2].textContent = '–'; 0""")
    assert browser.js("column(0)") == ["original", "retrained", "unlearned"]
    figures = browser.js("column(1)")
    assert len(set(figures)) == 3
    by_size = sorted(figures, key=float, reverse=True)
    assert browser.js("click(1)") == by_size
    assert browser.js("table.tHead.rows[0].cells[1].getAttribute('aria-sort')") == "descending"
    assert browser.js("click(1)") == by_size[::-1]
    assert browser.js("table.tHead.rows[0].cells[1].getAttribute('aria-sort')") == "ascending"
    for _ in range(2):
        assert browser.js("click(2)")[-1] == "–"
    assert browser.js("table.tHead.rows[0].cells[1].hasAttribute('aria-sort')") is False


def test_negative_figures_and_shares_sort_by_size(browser: Browser, report: Path) -> None:
    browser.open(report, 1280)
    browser.js("""
      window.table = document.querySelector('table.figures');
      const cells = [...table.tBodies[0].rows].map((row) => row.cells[1]);
      const texts = ['-.35', '12%', '.5', '-1.20', '2.7e-04'];
      cells.forEach((cell, i) => { cell.textContent = texts[i] || 'more'; }); 0""")
    count = browser.js("table.tBodies[0].rows.length")
    assert count >= 4
    browser.js("table.tHead.rows[0].cells[1].querySelector('button').click()")
    shown = browser.js("[...table.tBodies[0].rows].map((row) => row.cells[1].textContent)")
    sizes = {"-.35": -0.35, "12%": 12.0, ".5": 0.5, "-1.20": -1.2, "2.7e-04": 2.7e-4}
    found = [sizes[text] for text in shown if text in sizes]
    assert len(found) >= 4 and found == sorted(found, reverse=True)


def test_seconds_sort_by_length(browser: Browser, report: Path) -> None:
    browser.open(report, 1280)
    browser.js("window.table = document.querySelector('#rounds table'); 0")
    browser.js("[...table.tHead.rows[0].cells].at(-1).querySelector('button').click()")
    assert browser.js("[...table.tBodies[0].rows].map((row) => [...row.cells].at(-1).textContent)") == [
        "4 min 11 s",
        "24.1 s",
        "3.0 s",
    ]


def test_dots_and_intervals_lie_at_their_figures(browser: Browser, report: Path) -> None:
    """Measured in pixels between the retrained model's ring (0) and the original's square (1)."""
    for width in (390, 1280):
        browser.open(report, width)
        rows = browser.js("""[...document.querySelectorAll('.left-row:not(.head)')].map((row) => {
          const box = (e) => { const r = e.getBoundingClientRect(); return [r.left, r.left + r.width / 2, r.right]; };
          const of = (name) => box(row.querySelector(name));
          const [track, zero, one, ci, dot] = ['.track', '.zero', '.one', '.ci', '.dot'].map(of);
          return {title: row.firstElementChild.textContent, track, zero: zero[1], one: one[1], ci, dot};
        })""")
        found = {row["title"]: row for row in rows}
        assert len(rows) == len(LEFT)
        for title, metric in (
            ("ROUGE", "rouge_l"),
            ("Exact answers", "exact"),
            ("Probability", "probability"),
        ):
            row, (value, low, high) = found[title], LEFT[metric]
            scale = row["one"] - row["zero"]
            at = [(x - row["zero"]) / scale for x in (row["dot"][1], row["ci"][0], row["ci"][2])]
            assert at == pytest.approx([value, low, high], abs=1.5 / scale), title
        right, far = found["Extraction strength"], found["Membership, loss"]
        assert right["dot"][0] == pytest.approx(right["track"][2], abs=1)  # an arrow that leaves the axis
        assert far["dot"][2] == pytest.approx(far["track"][0], abs=1)


@pytest.mark.parametrize("what", ["models", "findings", "rows"])
def test_signs_differ_without_colour(browser: Browser, report: Path, what: str) -> None:
    """Every colour is made black; each sign is drawn at the same place, and no two pictures are nearly alike."""
    browser.open(report, 1280)
    browser.js("""
      const names = ['original', 'retrained', 'unlearned', 'good', 'fair', 'bad', 'none'];
      for (const name of names) document.documentElement.style.setProperty('--' + name, '#000');
      window.box = document.body.appendChild(document.createElement('div'));
      box.style = 'position:fixed;left:0;top:0;width:120px;height:44px;background:#fff;z-index:9'; 0""")
    signs = {
        "models": [f"document.querySelector('svg.key .{m}').closest('svg').outerHTML" for m in
                   ("original", "retrained", "unlearned")],
        "findings": [f"`<ul class=points><li class={tone}></li></ul>`" for tone in ("good", "fair", "bad", "none")],
        "rows": [f"`<span class=track style='position:relative;display:block'>"
                 f"<{tag} class='{kind}' style='left:50%'></{tag}></span>`"
                 for tag, kind in (("i", "end zero"), ("i", "end one"), ("b", "dot"), ("b", "dot outside"))],
    }[what]  # fmt: skip
    pictures = []
    for sign in signs:
        browser.js(f"box.innerHTML = {sign}; box.className = 'left-row'; box.style.display = 'block'; 0")
        pictures.append(browser.picture(120, 44))
    differing = [browser.differing(one, other) for one, other in combinations(pictures, 2)]
    assert min(differing) > 50, differing  # of about 100 that a sign has


def test_the_search_box_keeps_what_it_finds(browser: Browser, report: Path) -> None:
    browser.open(report, 390)
    name = PEOPLE[0][0]
    browser.js(f"const box = document.getElementById('find'); box.value = '{name.upper()} born'; "
               "box.dispatchEvent(new Event('input')); 0")  # fmt: skip
    shown = browser.js(
        "[...document.querySelectorAll('.sample')].filter((e) => e.checkVisibility()).map((e) => e.textContent)"
    )
    assert shown and all(name in text and "born" in text for text in shown)
    browser.js(
        "const box2 = document.getElementById('find'); box2.value = ''; box2.dispatchEvent(new Event('input')); 0"
    )
    assert browser.js("document.querySelectorAll('.sample[hidden]').length") == 0


def test_the_page_reads_without_its_script(browser: Browser, report: Path) -> None:
    browser.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.open(report, 390)
        assert browser.js("document.getElementById('find').checkVisibility()") is False
        assert browser.js("document.querySelectorAll('.left-row .dot').length") == len(LEFT)
        assert browser.js("document.querySelectorAll('th button').length") == 0
    finally:
        browser.call("Emulation.setScriptExecutionDisabled", value=False)


def test_on_paper_every_page_has_text_and_nothing_is_cut(browser: Browser, report: Path) -> None:
    browser.open(report, 1280)
    browser.js("for (const one of document.querySelectorAll('details')) one.open = true")
    printed = browser.pdf()
    pages = [len(_glyphs(content)) for content in _contents(printed)]
    assert len(pages) >= 3 and min(pages) > 100, pages
    browser.call("Emulation.setEmulatedMedia", media="print")
    try:
        browser.open(report, 720)  # a sheet of paper between its margins
        assert browser.js("document.documentElement.scrollWidth") <= 720
        columns = "getComputedStyle(document.querySelector('.answers')).gridTemplateColumns.split(' ').length"
        assert browser.js(columns) == 3
    finally:
        browser.call("Emulation.setEmulatedMedia", media="")


def _contents(pdf: bytes) -> list[bytes]:
    """The content stream of each page."""
    found = []
    for page in re.finditer(rb"/Type\s*/Page\b.*?endobj", pdf, re.DOTALL):
        number = re.search(rb"/Contents (\d+) 0 R", page[0])
        assert number is not None
        stream = re.search(rb"\n%s 0 obj.*?stream\r?\n(.*?)endstream" % number[1], pdf, re.DOTALL)
        assert stream is not None
        found.append(zlib.decompress(stream[1]))
    return found


def _glyphs(content: bytes) -> list[bytes]:
    """The signs that a page's text operators show: two bytes each, written as hexadecimal digits."""
    shown = b"".join(
        re.findall(rb"<([0-9A-Fa-f]+)>", b"".join(re.findall(rb"\bBT\b.*?\bET\b", content, re.DOTALL)))
    )
    return [shown[i : i + 4] for i in range(0, len(shown), 4)]
