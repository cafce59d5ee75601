"""The benchmark scripts: what they measure and remember, and what each item runs. Faked but for the last test."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from report_fixture import make_results

from dareu.config.compose import compose

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

import bench_run as runs  # noqa: E402
import benchmark  # noqa: E402

# Stands in for `dareu train`: notes the call, and writes results by the rules in `rules.json` beside it: the first
# rule all of whose words are among the arguments says the Tug-of-War, or the exit code (of a failure).
FAKE = """
import json, sys
from pathlib import Path
here = Path(__file__).parent
args = sys.argv[1:]
with (here / "calls.txt").open("a") as calls:
    calls.write(json.dumps(args) + "\\n")
given = dict(a.split("=", 1) for a in args)
run, cache = Path(json.loads(given["run_dir"])), Path(json.loads(given["cache_dir"]))
results = json.loads((here / "results.json").read_text())
for words, outcome in json.loads((here / "rules.json").read_text()):
    if set(words) <= set(args):
        if isinstance(outcome, int):
            run.mkdir(parents=True, exist_ok=True)
            (run / "failure.json").write_text('{"reason": "The loss is not finite."}')
            print("dareu: The loss is not finite at step 3; training was stopped.")
            sys.exit(outcome)
        results["tug_of_war"] = outcome
        break
method, seed = given.get("method", "dareu"), int(given.get("seed", 41))
results |= {"method": method, "seed": seed, "cache_was_empty": not cache.exists()}
cache.mkdir(parents=True, exist_ok=True)
run.mkdir(parents=True, exist_ok=True)
(run / "results.json").write_text(json.dumps(results))
(run / "config.yaml").write_text(f"seed: {seed}\\nmethod: {{name: {method}}}\\n")
"""


class Fake:
    """A stand-in for `dareu train` and a record of how it was called."""

    def __init__(self, folder: Path, rules: Any = (), **changes: Any) -> None:
        self.folder = folder
        folder.mkdir()
        (folder / "fake.py").write_text(FAKE)
        (folder / "results.json").write_text(json.dumps(make_results(**changes)))
        self.rules(rules)

    def rules(self, rules: Any) -> None:
        (self.folder / "rules.json").write_text(json.dumps(rules))

    def runner(self, folder: Path, extra: tuple[str, ...] = ()) -> runs.Runner:
        return runs.Runner(folder, extra, command=(sys.executable, str(self.folder / "fake.py")))

    @property
    def calls(self) -> list[list[str]]:
        file = self.folder / "calls.txt"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def arguments(*given: str) -> Any:
    return benchmark.parser().parse_args(list(given))


def _state(pid: str) -> str | None:
    """The letter that the kernel gives a process's state, "Z" for one that has ended; None where there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return None


def test_a_benchmark_that_is_ended_ends_its_run(tmp_path: Path) -> None:
    script = [sys.executable, str(ROOT / "scripts" / "benchmark.py"), "main", "--seeds", "41"]
    ours = subprocess.Popen([*script, "--out", str(tmp_path / "out")], stderr=subprocess.DEVNULL)
    children = Path(f"/proc/{ours.pid}/task/{ours.pid}/children")
    if not children.exists():
        ours.kill()
        pytest.skip("needs a list of children in /proc")
    deadline, theirs = time.monotonic() + 60, []
    while not (theirs := children.read_text().split()) and time.monotonic() < deadline:
        time.sleep(0.05)
    ours.terminate()
    try:
        assert ours.wait(30) == 143 and theirs
        deadline = time.monotonic() + 60  # it ends by the signal that it is sent, on a busy machine later
        while (left := _state(theirs[0])) not in (None, "Z") and time.monotonic() < deadline:
            time.sleep(0.05)
        assert left in (None, "Z")
    finally:
        for pid in (ours.pid, *map(int, theirs)):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


# --- measuring --------------------------------------------------------------------------------------------------


def test_a_grandchild_counts_into_the_peak(tmp_path: Path) -> None:
    """150 MB in the child and 150 MB in its child, held at the same time: 300 MB, which no single process has."""
    hold = "x = bytearray(150_000_000)\nfor i in range(0, len(x), 4096): x[i] = 1\n"
    inner = f"import time\n{hold}\ntime.sleep(1)"
    outer = f"import subprocess, sys\n{hold}\nsubprocess.run([sys.executable, '-c', {inner!r}])"
    start = time.perf_counter()
    got = runs.measure([sys.executable, "-c", outer], tmp_path / "log")
    passed = time.perf_counter() - start
    assert got.exit_code == 0
    assert 300 < got.peak_memory_mb < 400
    assert 1 <= got.wall_seconds <= passed


def test_a_short_peak_between_two_looks_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "tree_bytes", lambda pid: 0)
    size = (
        400_000_000 + 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    )  # more than the tests themselves
    got = runs.measure([sys.executable, "-c", f"bytearray({size}).find(1)"], tmp_path / "log")
    assert size / 1e6 < got.peak_memory_mb < size / 1e6 + 200


def test_exit_code_and_output_are_kept(tmp_path: Path) -> None:
    got = runs.measure(
        [sys.executable, "-c", "import sys; print('said'); sys.exit('told')"], tmp_path / "log"
    )
    assert got.exit_code == 1
    assert sorted((tmp_path / "log").read_text().split()) == ["said", "told"]


# --- remembering ------------------------------------------------------------------------------------------------


def test_a_finished_run_is_not_repeated(tmp_path: Path) -> None:
    fake = Fake(tmp_path / "fake", [[["seed=42"], 0.5]])
    first = fake.runner(tmp_path / "item").run("a", ["seed=42"])
    again = fake.runner(tmp_path / "item").run("a", ["seed=42"])
    assert len(fake.calls) == 1
    assert again == first
    assert first.results["tug_of_war"] == 0.5
    assert "seed=42" in fake.calls[0] and "overwrite=true" in fake.calls[0]


def test_a_run_is_repeated_where_its_configuration_changed(tmp_path: Path) -> None:
    fake = Fake(tmp_path / "fake")
    fake.runner(tmp_path / "item").run("a", ["seed=42"])
    fake.runner(tmp_path / "item").run("a", ["seed=43"])
    fake.runner(tmp_path / "item", ("method.clip=0.3",)).run("a", ["seed=43"])
    fake.runner(tmp_path / "item", ("method.clip=0.3",)).run("a", ["seed=43"])
    assert len(fake.calls) == 3


def test_a_run_is_repeated_where_its_results_are_gone(tmp_path: Path) -> None:
    fake = Fake(tmp_path / "fake")
    runner = fake.runner(tmp_path / "item")
    runner.run("a", ["seed=42"])
    (tmp_path / "item" / "a" / "results.json").unlink()
    runner.run("a", ["seed=42"])
    assert len(fake.calls) == 2


def test_failed_training_is_a_result_and_kept(tmp_path: Path) -> None:
    fake = Fake(tmp_path / "fake", [[["seed=42"], 3]])
    runner = fake.runner(tmp_path / "item")
    failed = runner.run("a", ["seed=42"])
    assert failed.failure == "The loss is not finite at step 3; training was stopped."
    assert failed.results == {}
    assert runner.run("a", ["seed=42"]) == failed
    assert len(fake.calls) == 1


@pytest.mark.parametrize("code", [2, 1, 9])
def test_any_other_failure_stops_the_benchmark(tmp_path: Path, code: int) -> None:
    fake = Fake(tmp_path / "fake", [[["seed=42"], code]])
    with pytest.raises(runs.BenchmarkError, match=f"exit code {code}.*not finite.*a.log"):
        fake.runner(tmp_path / "item").run("a", ["seed=42"])
    fake.rules([])
    assert fake.runner(tmp_path / "item").run("a", ["seed=42"]).failure is None


# --- items ------------------------------------------------------------------------------------------------------


def test_main_runs_each_seed_from_an_empty_cache_and_a_second_method_on_it(tmp_path: Path) -> None:
    fake = Fake(tmp_path / "fake")
    args = arguments("main", "--seeds", "41", "42")
    body, made = benchmark.main_item(args, fake.runner(tmp_path / "item"))
    assert [r.results["cache_was_empty"] for r in made] == [True, False, True, False]
    assert [r.results["method"] for r in made] == ["dareu", "npo", "dareu", "npo"]
    assert body.count("\n| 4") == 4  # a row a seed, in two tables

    # A pair of times counts only whole: where one run is lost, both are made anew, from an empty cache again.
    (tmp_path / "item" / "npo-42" / "results.json").unlink()
    _, again = benchmark.main_item(args, fake.runner(tmp_path / "item"))
    assert len(fake.calls) == 6
    assert [r.results["cache_was_empty"] for r in again] == [True, False, True, False]

    # So too where the first of the pair had failed.
    fake.rules([[["seed=42"], 3]])
    for name in ("dareu-42", "npo-42"):
        (tmp_path / "item" / name / "results.json").unlink()
    _, failed = benchmark.main_item(args, fake.runner(tmp_path / "item"))
    assert [bool(r.failure) for r in failed] == [False, False, True, True]
    (tmp_path / "item" / "npo-42" / "failure.json").unlink()
    fake.rules([])
    _, again = benchmark.main_item(args, fake.runner(tmp_path / "item"))
    assert [r.results["cache_was_empty"] for r in again] == [True, False, True, False]


def test_other_settings_leave_the_defaults() -> None:
    default = compose()
    found = benchmark.other_settings()
    assert list(found)[:5] == [
        "data.seed=8",
        "data.seed=9",
        "data.seed=10",
        "forget.count=1",
        "forget.count=5",
    ]
    owners = compose(found[list(found)[5]]).forget.owners
    split = benchmark.split_corpus(benchmark.load_corpus(default.data), default.forget)
    assert owners is not None and len(set(owners)) == 2
    assert set(owners) <= set(split.retain_owners)


def test_other_makes_one_row_a_setting(tmp_path: Path) -> None:
    fake = Fake(tmp_path / "fake", [[["data.seed=9"], 0.5]])
    body, made = benchmark.other_item(arguments("other", "--seeds", "41"), fake.runner(tmp_path / "item"))
    rows = body.splitlines()[2:]
    assert len(rows) == len(made) == 6
    assert [".500" in row for row in rows] == [False, True, False, False, False, False]


def test_the_tofu_experiment_composes() -> None:
    config = compose(["experiment=tofu30", "data.path=x.jsonl"])
    assert config.model.name == "tiny" and config.forget.count == 3
    assert config.data.teach_test is True
    assert config.method.name == "dareu_whole" and config.attributor.blind
    reward = config.method.reward  # type: ignore[union-attr]
    assert (reward.blind, reward.nameless, reward.floor) == (False, True, 0.3)


def test_the_pretrained_item_has_two_tables(tmp_path: Path) -> None:
    fake = Fake(tmp_path / "fake")
    (tmp_path / "tofu30.jsonl").touch()
    given = ["pretrained", "--seeds", "41", "42", "--tofu", str(tmp_path)]
    with pytest.raises(runs.BenchmarkError, match="--model MODEL"):
        benchmark.pretrained_item(arguments(*given), fake.runner(tmp_path / "item"))
    body, made = benchmark.pretrained_item(
        arguments(*given, "--model", str(tmp_path)), fake.runner(tmp_path / "item")
    )
    assert [
        ("experiment=tofu_lora" in r.overrides, f"seed={s}" in r.overrides)
        for r, s in zip(made, (41, 42), strict=True)
    ] == [(True, True)] * 2
    for asked in (f"model.path={json.dumps(str(tmp_path))}", "method=dareu", "method.data_epochs=18"):
        assert all(asked in r.overrides for r in made)
    assert "| dareu |" in body and "| pretrained-41 |" in body and "| pretrained-42 |" in body
    assert "| run | original s | retrained s |" in body
    shown = benchmark.arguments(arguments(*given, "--model", str(tmp_path)))
    assert shown == ["pretrained", "--seeds", "41", "42", "--tofu", "FOLDER", "--model", "MODEL"]


def test_mistakes_get_one_line_and_exit_code_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ["--out", str(tmp_path / "out"), "--results", str(tmp_path / "none.md"), "--seeds", "41"]
    for wrong, message in (
        (["tofu", *out], "--tofu FOLDER"),
        (["tofu", *out, "--tofu", str(tmp_path)], "tofu30.jsonl"),
        (["other", *out, "--overrides", "seeed=3"], "seeed"),
    ):
        assert benchmark.main(wrong) == 2
        assert message in capsys.readouterr().err


def test_fresh_throws_away_the_runs_of_this_item_only(tmp_path: Path) -> None:
    for item in ("tofu", "main"):
        (tmp_path / item / "run").mkdir(parents=True)
    assert benchmark.main(["tofu", "--fresh", "--out", str(tmp_path)]) == 2  # no --tofu: nothing is run
    assert not (tmp_path / "tofu" / "run").exists()
    assert (tmp_path / "main" / "run").exists()


TINY = [
    *("data.version=1", "model.pretrain=null"),
    *("data.owners=4", "data.pairs=4", "data.facts=4", "model.hidden_size=32", "model.intermediate_size=64"),
    *("model.layers=1", "model.heads=2", "model.vocab_size=300", "finetune.epochs=1"),
    *("attributor.optim.epochs=1", "evaluation.max_new_tokens=8"),
]


def test_one_real_run_through_the_whole_script(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "results.md"
    file.write_text("<!-- begin:main -->\n<!-- end:main -->\n")
    out = ["--out", str(tmp_path / "out"), "--results", str(file), "--seeds", "41", "--overrides", *TINY]
    assert benchmark.main(["main", *out]) == 0
    made = file.read_text()
    assert made.count("| seed | Tug-of-War |") == 1
    lines = [json.loads(line) for line in (tmp_path / "out" / "main" / "runs.jsonl").read_text().splitlines()]
    assert [line["name"] for line in lines] == ["dareu-41", "npo-41"]
    for line in lines:
        # What a process reports of itself starts from its parent's memory: here the tests' own.
        own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        assert line["results"]["peak_memory_mb"] * 1.048576 <= max(line["peak_memory_mb"], own * 1.048576) + 1
        assert line["peak_memory_mb"] > 300
        assert sum(line["results"]["seconds"].values()) > 0
    # The second method took original, retrained model and attributor from the cache: their seconds are the first's.
    first, second = (line["results"]["seconds"] for line in lines)
    assert first["original"] == second["original"] and first["unlearn"] != second["unlearn"]
    capsys.readouterr()


def trials(folder: Path) -> list[str]:
    """The lines of the trials that a tuning under `folder` has made."""
    [table] = folder.rglob("trials.csv")
    return table.read_text().splitlines()[1:]


def test_a_leaderboard_through_the_whole_script(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "results.md"
    file.write_text("<!-- begin:leaderboard -->\n<!-- end:leaderboard -->\n")
    asked = ["--methods", "gradient_ascent", "finetune", "--trials", "2", "--seeds", "41"]
    out = ["--out", str(tmp_path / "out"), "--results", str(file), "--overrides", *TINY]
    assert benchmark.main(["leaderboard", *asked, *out]) == 0
    made = file.read_text()
    assert "benchmark.py leaderboard --seeds 41 --methods gradient_ascent finetune --trials 2" in made
    rows = [line.split(" | ")[0].strip("| *") for line in made.splitlines() if line.startswith("| ")]
    names = [row.partition(",")[0] for row in rows]
    for method in ("gradient_ascent", "finetune"):  # leaderboard, chosen, two trials
        assert names.count(method) == 4 and f"| {method} |" in made
    assert "| original |" in made and "| retrained |" in made and "Retrain similarity" in made
    assert made.count("| **") >= 2 and "highest mean retrain similarity has" in made
    before = trials(tmp_path / "out")
    assert len(before) == 4
    assert benchmark.main(["leaderboard", *asked, *out]) == 0 and file.read_text() == made
    assert trials(tmp_path / "out") == before  # none was run again
    assert benchmark.main(["leaderboard", *out[:4], "--methods", "npoo"]) == 2
    assert "ended with exit code 2" in capsys.readouterr().err
