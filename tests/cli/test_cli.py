"""The command line: every command, what it prints and where, and that help loads nothing heavy."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from pipeline_fixture import (
    DATA,
    LOSS,
    PPO,
    SMALL,
    figures,
    process,
    results,
    snapshot,
    store,
    train,
)

from dareu import __version__
from dareu.cli.commands import COMMANDS, main
from dareu.config import parse
from dareu.config.compose import as_yaml, compose, options
from dareu.config.reference import explained
from dareu.methods.base import MethodContext

__all__ = ["store"]
Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def run(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli") / "dareu"
    train(store, folder, *PPO)
    return folder


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys\nfrom dareu.cli import main\nassert main(['--version']) == 0 and main([]) == 0\n"
        "try:\n    main(['train', '--help'])\nexcept SystemExit as end:\n    assert end.code == 0\n"
        "heavy = {'torch', 'transformers', 'trl', 'hydra', 'omegaconf', 'pydantic', 'numpy', 'rich'}\n"
        "print(sorted(heavy & set(sys.modules)), len(sys.modules) < 200)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith(__version__) and done.stdout.endswith("[] True\n")
    assert all(name in done.stdout for name in COMMANDS)


def test_what_print_shows_may_be_json(capsys: Capture) -> None:
    assert main(["train", "--print", "--json", "method=npo", "seed=7"]) == 0
    assert json.loads(capsys.readouterr().out)["method"]["loss"] == "npo"
    assert main(["tune", "--print", "--json", "methods=[npo]"]) == 0
    assert "optim.lr" in json.loads(capsys.readouterr().out)["search"]["npo"]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str, capsys: Capture) -> None:
    with pytest.raises(SystemExit) as end:
        main([command, "--help"])
    told = capsys.readouterr().out
    assert end.value.code == 0 and told.startswith(f"usage: dareu {command} ")
    assert (command in ("compare", "rescore", "receipt", "export", "push", "configs", "store")) != (
        "key=value" in told
    )


def test_train_end_to_end_in_a_process_of_its_own(tmp_path: Path) -> None:
    """From an empty store in an empty folder; stderr holds a line for each stage and nothing else."""
    told = ["train", *SMALL, *PPO, "cache_dir=store"]
    first = process(*told, cwd=tmp_path)
    out, err = first.communicate(timeout=300)
    assert first.returncode == 0, err
    stages = [
        "original model",
        "retrained model",
        "attribution classifier",
        "evaluation of the original model",
    ]
    stages += [
        "unlearned by dareu",
        *(f"evaluation of the {name} model" for name in ("retrained", "unlearned")),
    ]
    assert err.startswith("To forget: 1 of 4 owners, 4 of 16 rows: Arjun Patel.\n")
    asides = ("To forget: ", "! The original model has not learnt")
    lines = [line for line in err.splitlines() if not line.startswith(asides)]
    assert [line.rsplit(" ", 2)[0] for line in lines] == [f"✓ {stage}" for stage in stages]
    [folder] = (tmp_path / "runs").iterdir()
    assert folder.name.startswith("dareu-seed41-") and f"Run folder: runs/{folder.name}" in out
    assert all(name in out for name in ("original", "retrained", "unlearned", "Tug-of-War"))
    assert sorted(p.name for p in folder.iterdir()) == [
        ".lock", "config.yaml", "model", "provenance.json", "report.html", "results.json", "run.json", "run.log",
        "samples", "training.jsonl",
    ]  # fmt: skip
    before = snapshot(tmp_path)
    again = process(*told, cwd=tmp_path)
    out_again, err_again = again.communicate(timeout=300)
    assert out_again == out
    assert err_again.splitlines()[1:] == [f"This run is finished already: runs/{folder.name}"]
    assert again.returncode == 0 and snapshot(tmp_path) == before


def test_print_shows_the_whole_configuration(
    capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", "--print", "method=npo", "seed=7"]) == 0
    text = capsys.readouterr().out
    config = parse(yaml.safe_load(text))
    assert config.method.name == "npo" and config.seed == 7
    lines = text.splitlines()
    assert any(line.startswith("seed: 7  # seed of the whole run") for line in lines)
    assert (
        "  layers: 4  # decoder blocks" in lines
    )  # of model=tiny; the classifier has a key of that name too
    assert all("  # " in line for line in lines if line.startswith("    beta:"))
    assert list(tmp_path.iterdir()) == []


def test_meanings_do_not_change_a_value_that_goes_on_in_the_next_line() -> None:
    prompt = "word: " * 40 + "\n# no comment\n  end"
    config = compose(["model=hf", "model.path=x"], values={"model.system_prompt": prompt})
    tree = config.model_dump(mode="json")
    text = explained(as_yaml(config), tree)
    assert yaml.safe_load(text) == tree and "  path: x  # " in text


def test_configs_shows_every_option_with_its_line(capsys: Capture) -> None:
    assert main(["configs"]) == 0
    told = " ".join(capsys.readouterr().out.split())
    for group, found in options().items():
        assert f"{group}=…" in told
        for name, line in found.items():
            assert name in told and " ".join(line.split()[:3]) in told


def test_finetune_gives_both_models(run: Path, store: Path, tmp_path: Path, capsys: Capture) -> None:
    from transformers import AutoModelForCausalLM

    assert main(["finetune", *SMALL, f"cache_dir={store}"]) == 0
    told = dict(line.split(": ") for line in capsys.readouterr().out.splitlines())
    assert set(told) == {"original", "retrained"} and all(
        Path(p).is_relative_to(store) for p in told.values()
    )
    assert (
        main(["finetune", *SMALL, "retrain=false", f"cache_dir={store}", f"run_dir={tmp_path / 'models'}"])
        == 0
    )
    assert capsys.readouterr().out == f"original: {tmp_path / 'models' / 'original'}\n"
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "models" / "original").config.hidden_size == 32


def test_attribute_fits_and_scores(run: Path, store: Path, tmp_path: Path, capsys: Capture) -> None:
    from dareu.config.compose import compose
    from dareu.data.sources.registry import load_corpus

    where = [*SMALL, f"cache_dir={store}"]
    assert main(["attribute", *where]) == 0
    told = capsys.readouterr().out
    assert "accuracy, held-out responses" in told and str(store / "attributor") in told
    sample = load_corpus(compose(DATA).data).samples[0]
    (tmp_path / "texts.txt").write_text(f"{sample.response}\n\n[bold] gold\n", encoding="utf-8")
    assert main(["attribute", *where, "--json", "--text", "Hm.", "--file", str(tmp_path / "texts.txt")]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["text"] for row in rows] == ["Hm.", sample.response, "[bold] gold"]
    for row in rows:
        assert sum(row["probabilities"].values()) == pytest.approx(1)
        assert list(row["probabilities"].values()) == sorted(row["probabilities"].values(), reverse=True)
    assert len(rows[0]["probabilities"]) == 5 and "(nobody)" in rows[0]["probabilities"]
    assert main(["attribute", *where, "--text", "[bold] gold"]) == 0
    told = capsys.readouterr().out
    assert "[bold] gold" in told and next(iter(rows[2]["probabilities"])) in told


def test_evaluate_any_checkpoint(run: Path, store: Path, tmp_path: Path, capsys: Capture) -> None:
    """The run's own model, as a folder, comes to the run's own figures; the retrained model is its own twin."""
    where = [*SMALL, *PPO, f"cache_dir={store}"]
    assert main(["evaluate", str(run / "model"), *where, f"run_dir={tmp_path / 'same'}"]) == 0
    found = results(tmp_path / "same")
    assert found["models"] == results(run)["models"] and found["method"] == run.name
    assert found["seconds"]["unlearn"] is None and "elsewhere" in found["missing"]["seconds.unlearn"]
    assert (tmp_path / "same" / "report.html").is_file() and not (tmp_path / "same" / "model").exists()
    assert main(["finetune", *where]) == 0
    retrained = capsys.readouterr().out.splitlines()[-1].removeprefix("retrained: ")
    assert main(["evaluate", retrained, *where, f"run_dir={tmp_path / 'twin'}"]) == 0
    twin = results(tmp_path / "twin")
    assert twin["tug_of_war"] == twin["retrain_similarity"] == 1.0
    assert twin["models"]["unlearned"] == twin["models"]["retrained"]


def test_compare_in_every_format(run: Path, store: Path, tmp_path: Path, capsys: Capture) -> None:
    train(store, tmp_path / "npo", "method=npo", *LOSS)
    capsys.readouterr()
    runs = [str(run), str(tmp_path)]  # a run folder, and a folder of run folders
    told = {}
    for form in ("table", "markdown", "csv", "latex"):
        assert main(["compare", *runs, "--format", form]) == 0
        told[form] = capsys.readouterr().out
        assert all(name in told[form] for name in ("original", "retrained", "dareu", "npo"))
    rows = {row["label"]: row for row in csv.DictReader(told["csv"].splitlines())}
    for name, folder in (("dareu", run), ("npo", tmp_path / "npo")):
        assert float(rows[name]["tug_of_war_mean"]) == results(folder)["tug_of_war"]
    assert told["markdown"].count("| dareu |") == 1 and r"\begin{tabular}" in told["latex"]
    out = tmp_path / "tables" / "all.csv"
    assert main(["compare", *runs, "--format", "csv", "--out", str(out)]) == 0
    assert out.read_text(encoding="utf-8") == told["csv"] and capsys.readouterr().out == f"Table: {out}\n"
    assert main(["compare", *runs, "--out", str(out)]) == 2
    assert "Give --format markdown, csv or latex" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--format csv", "--format table", "--sort tug_of_war", "--out x.csv", "format=csv"])
def test_compare_as_json_takes_no_option_of_the_table(option: str, capsys: Capture) -> None:
    assert main(["compare", "runs", *option.split(), "--json"]) == 2
    name = option.split()[0].split("=")[0].lstrip("-")
    said = capsys.readouterr()
    assert f"--json does not go with --{name}: it prints the runs as they are" in said.err and not said.out


def test_a_sweep_ends_with_the_comparison(store: Path, tmp_path: Path, capsys: Capture) -> None:
    """Two methods and two seeds; the steps of one are far too large. It fails, is told, and stays in the table."""
    where = [*SMALL, f"cache_dir={store}", f"run_dir={tmp_path / 'runs'}"]
    swept = ["method=npo,gradient_ascent", "seed=41,42", "method.optim.steps=12"]
    assert main(["train", "-m", *where, *swept]) == 0
    told = capsys.readouterr()
    folders = sorted((tmp_path / "runs").iterdir())
    assert [f.name.rsplit("-", 1)[0] for f in folders] == [
        "gradient_ascent-seed41", "gradient_ascent-seed42", "npo-seed41", "npo-seed42"
    ]  # fmt: skip
    assert {results(f)["seed"] for f in folders} == {41, 42}
    assert "npo" in told.out and "±" in told.out
    assert (
        "method=npo seed=41\n" in told.err and "finetune.epochs=" not in told.err
    )  # what differs is told, no more

    # With lr · weight_decay = 100 each step multiplies the weights by −99.
    diverging = ["method.optim.lr=3e-4,10", "method.optim.weight_decay=10"]
    assert main(["train", "-m", *where, "method=npo", *diverging, "method.optim.steps=12"]) == 3
    told = capsys.readouterr()
    [failed] = [f for f in (tmp_path / "runs").iterdir() if (f / "failure.json").is_file()]
    assert "not finite" in json.loads((failed / "failure.json").read_text())["reason"]
    assert (failed / "config.yaml").is_file() and not (failed / "results.json").exists()
    assert "none\n" in told.out and "Failed:" in told.out and "not finite" in told.out
    assert "dareu: method.optim.lr=10" in told.err and "not finite" in told.err


def test_a_sweep_outlives_a_bug(
    store: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dareu.methods.loss_method import LossMethod

    real = LossMethod.run

    def buggy(self: LossMethod, context: MethodContext) -> dict[str, Any]:
        if context.config.method.name == "npo":
            raise ZeroDivisionError("none left")
        return real(self, context)

    monkeypatch.setattr(LossMethod, "run", buggy)
    where = [
        *SMALL,
        f"cache_dir={store}",
        f"run_dir={tmp_path}",
        "method.optim.steps=3",
        "method.optim.lr=2e-5",
    ]
    assert main(["train", "-m", *where, "method=npo,gradient_ascent"]) == 1
    told = capsys.readouterr()
    assert "Traceback" in told.err and "dareu: method=npo: ZeroDivisionError: none left" in told.err
    assert {f.name.split("-")[0]: (f / "results.json").is_file() for f in tmp_path.iterdir()} == {
        "npo": False, "gradient_ascent": True
    }  # fmt: skip


def test_a_sweep_of_one_is_the_run_itself(
    run: Path, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", "-m", *SMALL, *PPO, f"cache_dir={store}"]) == 0
    assert [p.name for p in tmp_path.iterdir()] == ["runs"]  # Hydra's own files are not left there
    [folder] = (tmp_path / "runs").iterdir()
    assert figures(results(folder)) == figures(results(run))
