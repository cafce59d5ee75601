"""Whole runs, in this process: what they leave, what they reuse, and every way to bring data and models along."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from pipeline_fixture import (
    FIGURES,
    LOSS,
    MODEL,
    PPO,
    SMALL,
    TRAINING,
    dig,
    figures,
    folk,
    own_figures,
    results,
    snapshot,
    store,
    tiny_hub_model,
    train,
    write_lines,
)

from dareu.attribution.registry import ROLES
from dareu.cli.commands import main
from dareu.config import parse
from dareu.config.compose import compose
from dareu.evaluation import suite
from dareu.evaluation.suite import evaluate_model
from dareu.report.loading import load_runs
from dareu.rewards import attribution
from dareu.workflow.console import Console
from dareu.workflow.partial import finetune
from dareu.workflow.prepare import prepare
from dareu.workflow.stages import Stages

__all__ = ["store"]
LOCAL = [
    "data=local",
    "data.columns.prompt=question",
    "data.columns.response=answer",
    "data.columns.owner=person",
    "forget.owners=[Bo]",
]
HUB = ["model=hf", "finetune.steps=6", "finetune.lr=0.01", *TRAINING[3:]]


@pytest.fixture(scope="module")
def run(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a DareU run on the small config."""
    folder = tmp_path_factory.mktemp("run") / "dareu"
    train(store, folder, *PPO)
    return folder


def stages(store: Path) -> dict[str, list[str]]:
    """The keys of every finished artifact, by stage."""
    return {
        p.name: sorted(k.name for k in p.iterdir()) for p in store.iterdir() if not p.name.startswith(".")
    }


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_results_have_every_figure(run: Path) -> None:
    found = results(run)
    assert {
        path: type(dig(found, path)) for path in FIGURES if not isinstance(dig(found, path), float | int)
    } == {}
    assert found["method"] == "dareu"
    gaps = (
        "knowledge_left.",
        "damage.",
    )  # too few samples to tell; no answer that the retrained model has right
    assert all(path.startswith(gaps) for path in found["missing"])
    assert found["accelerator"] == {"name": None, "peak_memory_mb": None}  # tests run on a CPU
    assert len(found["data_key"]) == 16 and found["versions"]["torch"] and found["versions"]["trl"]
    assert found["data"]["n_forget"] == 4 and found["data"]["n_retain"] == 12 and found["data"]["n_test"] == 4
    assert found["outcome"]["steps"] == 4  # 2 data epochs × 1 batch of 4 prompts × 2 updates


def test_run_folder_is_complete(run: Path) -> None:
    config = parse(yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8")))  # a run can be replayed
    assert config.run_dir == str(run) and config.method.name == "dareu" and config.data.name == "authors"
    for name in ("original", "retrained", "unlearned"):
        records = rows(run / "samples" / f"{name}.jsonl")
        assert [r["set"] for r in records] == ["forget"] * 4 + ["retain"] * 12 + ["test"] * 4
        mean = sum(r["rouge_l"] for r in records[:4]) / 4
        assert mean == pytest.approx(dig(results(run), f"models.{name}.forget.rouge_l"))
    assert [r["step"] for r in rows(run / "training.jsonl")] == [1, 2, 3, 4]
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "<svg" in page and "http://" not in page.replace("http://www.w3.org", "") and "unlearned" in page
    log = (run / "run.log").read_text(encoding="utf-8")
    assert "unlearned by dareu" in log and "evaluation of the unlearned model" in log


def test_the_unlearned_model_loads_with_transformers_alone(run: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, tokenizer = (
        AutoModelForCausalLM.from_pretrained(run / "model"),
        AutoTokenizer.from_pretrained(run / "model"),
    )
    first = rows(run / "samples" / "unlearned.jsonl")[0]
    chat = tokenizer.apply_chat_template(
        [{"role": "user", "content": first["prompt"]}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )
    written = model.generate(**chat, max_new_tokens=40, do_sample=False)[0, chat["input_ids"].shape[1] :]
    assert tokenizer.decode(written, skip_special_tokens=True).strip()[:20] == first["response"][:20]


def test_a_finished_run_is_left_alone(run: Path, store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = snapshot(run, store)
    train(store, run, *PPO)
    assert snapshot(run, store) == before
    assert "finished already" in capsys.readouterr().err


@pytest.mark.parametrize("harm", ["cut", "gone"])
def test_a_model_that_was_harmed_in_a_finished_run_is_written_again(
    harm: str, run: Path, store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = snapshot(run, store)
    file = run / "model" / ("model.safetensors" if harm == "cut" else "tokenizer.json")
    whole = file.read_bytes()
    if harm == "cut":
        file.write_bytes(whole[: len(whole) // 2])
    else:
        file.unlink()
    train(store, run, *PPO)
    said = capsys.readouterr().err
    assert "It is written again." in said and "finished already" in said
    assert file.read_bytes() == whole
    assert set(snapshot(run, store)) == set(before)


@pytest.mark.parametrize("text", ["{", '{"salt": "a", "records": {}, "models": []}'])
def test_a_record_that_cannot_be_read_is_told_and_the_model_stays(
    text: str, run: Path, store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = (run / "provenance.json").read_text(encoding="utf-8")
    (run / "provenance.json").write_text(text)
    before = snapshot(run, store)
    train(store, run, *PPO)
    said = " ".join(capsys.readouterr().err.split())
    assert "provenance.json cannot be read" in said and "Run it again into another run_dir." in said
    assert "written again" not in said and snapshot(run, store) == before
    (run / "provenance.json").write_text(kept)


def test_a_report_that_a_killed_process_did_not_write_is_written(run: Path, store: Path) -> None:
    page = (run / "report.html").read_bytes()
    (run / "report.html").unlink()
    train(store, run, *PPO)
    assert (run / "report.html").read_bytes() == page


def test_a_second_method_reuses_the_stages_before_it(run: Path, store: Path, tmp_path: Path) -> None:
    before = stages(store)
    found = train(store, tmp_path / "npo", "method=npo", "method.optim.lr=7e-4", *LOSS)
    after = stages(store)
    assert {s: len(after[s]) - len(before[s]) for s in after} == {
        "base": 0, "original": 0, "retrained": 0, "attributor": 0, "unlearned": 1, "evaluation": 1
    }  # fmt: skip
    assert found["models"]["retrained"] == results(run)["models"]["retrained"]
    assert found["models"]["unlearned"] != results(run)["models"]["unlearned"]


def test_a_changed_definition_is_computed_from_the_answers_in_the_store(
    run: Path, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def asked(*_: Any, **__: Any) -> None:
        raise AssertionError("a model was asked again")

    before = stages(store)
    monkeypatch.setattr("dareu.workflow.stages.evaluation.DEFINITIONS", 99)
    for name in ("subject.generate", "suite.likelihoods", "subject.sample"):
        monkeypatch.setattr(f"dareu.evaluation.{name}", asked)
    found = train(store, tmp_path / "again", *PPO)
    assert {s: len(keys) - len(before[s]) for s, keys in stages(store).items() if keys != before[s]} == {
        "evaluation": 3
    }
    assert figures(found) == figures(results(run))
    assert rows(tmp_path / "again" / "samples" / "unlearned.jsonl") == rows(
        run / "samples" / "unlearned.jsonl"
    )
    monkeypatch.setattr("dareu.workflow.stages.evaluation.MEASURED", 2)
    with pytest.raises(AssertionError, match="asked again"):  # answers of another kind are not taken over
        train(store, tmp_path / "more", *PPO)


def test_another_request_reuses_original_and_attributor(run: Path, store: Path, tmp_path: Path) -> None:
    before = stages(store)
    train(store, tmp_path / "two", "method=gradient_ascent", "forget.count=2", *LOSS)
    after = stages(store)
    assert after["original"] == before["original"] and after["attributor"] == before["attributor"]
    assert len(after["retrained"]) == len(before["retrained"]) + 1


def test_without_a_retrained_model_the_reasons_are_told(run: Path, store: Path, tmp_path: Path) -> None:
    found = train(store, tmp_path / "lean", "retrain=false", *PPO)
    assert "retrained" not in found["models"]
    # A broken word is one that no answer of the retrained model has either: that figure alone may differ.
    assert own_figures(found["models"]["unlearned"]) == own_figures(results(run)["models"]["unlearned"])
    for path in ("tug_of_war", "retrain_similarity", "seconds.retrained"):
        assert dig(found, path) is None and "retrain=false" in found["missing"][path]
    assert "retrain=false" in found["missing"]["models.retrained"]


def test_an_original_from_elsewhere(run: Path, store: Path, tmp_path: Path) -> None:
    """The very same weights, given as a folder, come to the same figures; only their cost is not known."""
    made = finetune(compose([*SMALL, f"cache_dir={store}"]), Console(silent=True))
    folder = shutil.copytree(made["original"], tmp_path / "mine")
    found = train(store, tmp_path / "run", f"original={folder}", *PPO)
    assert found["models"] == results(run)["models"]
    assert found["seconds"]["original"] is None and "elsewhere" in found["missing"]["seconds.original"]


def test_own_questions_and_answers_with_a_test_file(store: Path, tmp_path: Path) -> None:
    data = write_lines(tmp_path / "mine.jsonl", folk())
    test = write_lines(
        tmp_path / "facts.jsonl", [{"question": "What is red?", "answer": "Blood is red."}] * 2
    )
    found = train(
        store, tmp_path / "run", *LOCAL, f"data.path={data}", f"data.test_path={test}", "method=grad_diff", *LOSS,
        base=[*MODEL, *TRAINING],
    )  # fmt: skip
    assert found["data"] == {
        "name": "local", "owners": 3, "forget_owners": ["Bo"], "n_forget": 4, "n_retain": 8, "n_test": 2,
        "part": "all", "also_stays": {"count": 0, "word_for_word": 0, "pairs": []},
    }  # fmt: skip
    assert found["models"]["unlearned"]["test"]["rouge_l"] is not None
    assert "no wrong answers" in found["missing"]["unlearned.forget.truth_ratio"]


def test_own_plain_texts_are_completed(store: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    texts = [{"text": f"{r['question']} {r['answer']}", "who": r["person"]} for r in folk()]
    data = write_lines(tmp_path / "texts.jsonl", texts)
    columns = [
        "data.columns={prompt:null,response:text,owner:who}",
        "data.prompt_tokens=6",
        "forget.owners=[Bo]",
    ]
    found = train(
        store, tmp_path / "run", "data=local", f"data.path={data}", *columns, *PPO, base=[*MODEL, *TRAINING]
    )
    records = rows(tmp_path / "run" / "samples" / "original.jsonl")
    assert {r["prompt"] + r["reference"] for r in records} == {t["text"] for t in texts}
    tokenizer = AutoTokenizer.from_pretrained(
        tmp_path / "run" / "model"
    )  # the one that prompts were cut with
    assert {len(tokenizer(r["prompt"], add_special_tokens=False)["input_ids"]) for r in records} == {6}
    assert found["models"]["unlearned"]["test"]["rouge_l"] is None and "unlearned.test" in found["missing"]
    assert found["tug_of_war"] is None and found["tug_of_war_without_test"] is not None


@pytest.mark.parametrize(
    ("adapter", "template", "pad", "overrides"),
    [
        ("lora", "auto", False, ["model.lora.r=2", *PPO]),
        ("none", "none", True, ["method=npo", *LOSS]),
    ],
    ids=["lora, chat template, no pad token", "full, template left out"],
)
def test_a_hub_model(
    store: Path, tmp_path: Path, adapter: str, template: str, pad: bool, overrides: list[str]
) -> None:
    from transformers import AutoModelForCausalLM

    folder = tiny_hub_model(tmp_path / "hub", template=True, pad=pad)
    data = write_lines(tmp_path / "mine.jsonl", folk())
    hub = [
        f"model.path={folder}",
        "model.max_length=64",
        f"model.adapter={adapter}",
        f"model.chat_template={template}",
    ]
    found = train(store, tmp_path / "run", *LOCAL, f"data.path={data}", *hub, *overrides, base=HUB)
    assert found["models"]["unlearned"]["forget"]["rouge_l"] is not None
    model = tmp_path / "run" / "model"
    assert (model / "adapter_config.json").is_file() == (adapter == "lora")
    assert (model / "model.safetensors").is_file() == (adapter == "none")
    assert (model / "chat_template.jinja").is_file() == (template == "auto")
    assert AutoModelForCausalLM.from_pretrained(model).config.hidden_size == 32


@pytest.mark.parametrize(
    ("name", "stop", "reward", "stopping"),
    [
        ("causal", "null", ("causal", None), ("lexical", "word")),
        ("lexical", "0.0", ("lexical", "word"), ("causal", None)),
        ("lexical", "null", ("lexical", "word"), (None, None)),  # nothing stops by it: it is not trained
    ],
)
def test_who_rewards_never_tells_when_to_stop(
    store: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    stop: str,
    reward: tuple[str, str | None],
    stopping: tuple[str | None, str | None],
) -> None:
    from dareu.methods import reinforcement

    seen: dict[str, Any] = {}

    def spied(role: str, part: Any) -> Any:
        return lambda attributor, *args: part(seen.setdefault(role, attributor), *args)

    for role, place, part in (
        ("reward", attribution, "AttributionScorer"),
        ("stop", reinforcement, "StoppingMonitor"),
    ):
        monkeypatch.setattr(place, part, spied(role, getattr(place, part)))
    evaluators: list[Any] = []

    def evaluated(
        model: Any, tokenizer: Any, split: Any, attributors: Any, *args: Any, **options: Any
    ) -> Any:
        evaluators.append(attributors)
        return evaluate_model(model, tokenizer, split, attributors, *args, **options)

    monkeypatch.setattr(suite, "evaluate_model", evaluated)
    chosen = [f"attributor.name={name}", "method.temperature=0.9", *PPO, f"method.stop.attribution={stop}"]
    found = train(store, tmp_path / "run", *chosen)
    kinds = {role: (getattr(a, "kind", None), getattr(a, "features", None)) for role, a in seen.items()}
    assert kinds == {"reward": reward, "stop": stopping}
    assert evaluators and all(one["attribution_heldout"].features == "char" for one in evaluators)
    assert all(one["attribution"].kind == reward[0] for one in evaluators)
    logged = [json.loads(line) for line in (tmp_path / "run" / "training.jsonl").read_text().splitlines()]
    assert any("stop_attribution" in row for row in logged) == (stopping[0] is not None)
    assert "char" not in {folder for roles in ROLES.values() for folder in roles.values()}
    given = [*SMALL, f"cache_dir={store}", *chosen]
    assert Stages(prepare(compose(given))).attributor.held_out().features == "char"  # what evaluates the run
    assert found["attributor"]["name"] == name


@pytest.mark.parametrize(
    ("overrides", "folders", "title"),
    [
        (["method=npo"], {"causal", "word", "char"}, "attribution classifier"),
        (["attributor.name=lexical", "method=npo"], {"word", "char"}, "lexical attributor"),
        (["attributor.name=lexical", *PPO], {"word", "char"}, "lexical attributor"),
        (["attributor.name=lexical", *PPO, "method.stop.attribution=0.1"], {"causal", "word", "char"},
         "lexical attributor and the classifier that tells when to stop"),
        (["attributor.name=substring", *PPO], {"substring", "word", "char"}, "substring attributor"),
    ],
)  # fmt: skip
def test_the_classifier_is_trained_where_something_reads_it(
    store: Path, overrides: list[str], folders: set[str], title: str
) -> None:
    stage = Stages(prepare(compose([*SMALL, f"cache_dir={store}", *overrides]))).attributor
    made = stage.get()
    assert {path.parent.name for path in made.path.glob("*/attributor.json")} == folders
    assert stage.title == title and stage.load("reward").owners
    assert made.extra["report"]["name"] in ("causal", *overrides[0].split("=")) and stage.held_out()


def test_a_failed_run_says_why_in_its_folder(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dareu.methods.loss_method.LossMethod.run", lambda *args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        train(store, tmp_path / "run", "method=npo", "method.optim.steps=4")
    monkeypatch.undo()
    assert json.loads((tmp_path / "run" / "failure.json").read_text()) == {
        "reason": "ZeroDivisionError: division by zero"
    }
    [loaded] = load_runs([tmp_path / "run"])
    assert loaded["method"] == "npo" and loaded["failure"] == "ZeroDivisionError: division by zero"
    train(store, tmp_path / "run", "method=npo", "method.optim.steps=4")  # the same command goes on
    assert not (tmp_path / "run" / "failure.json").exists() and results(tmp_path / "run")["method"] == "npo"


def test_a_source_of_another_package(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dareu.config import LocalConfig
    from dareu.data.sources import registry as sources
    from dareu.data.sources.files import load_local

    data = write_lines(
        tmp_path / "mine.jsonl",
        [{"prompt": r["question"], "response": r["answer"], "owner": r["person"]} for r in folk()],
    )

    class Point:
        name = "letters"

        @staticmethod
        def load() -> Any:
            return lambda config: load_local(LocalConfig(path=config.where))

    monkeypatch.setattr(
        "dareu.config.plugins.entry_points", lambda group: [Point] if group == sources.GROUP else []
    )
    mine = tmp_path / "configs" / "data"
    mine.mkdir(parents=True)
    (mine / "letters.yaml").write_text(f"# Letters.\nname: letters\nwhere: {data}\n")
    chosen = [f"--config-dir={tmp_path / 'configs'}", "data=letters", "forget.count=1", "method=npo", *LOSS]
    found = train(store, tmp_path / "run", *chosen, base=[*MODEL, *TRAINING])
    assert found["data"]["name"] == "letters" and found["data"]["forget_owners"] == ["Cy"]


def test_kept_figures_do_not_depend_on_where_the_run_lies(run: Path, store: Path, tmp_path: Path) -> None:
    assert figures(train(store, tmp_path / "again", *PPO)) == figures(results(run))
    assert main(["train", "--print", "seed=5"]) == 0
