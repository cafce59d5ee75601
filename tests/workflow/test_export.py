"""`dareu export` and `dareu push`: what others get of a run. The hub is a stand-in."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from pipeline_fixture import tiny_hub_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from dareu.cli.commands import main
from dareu.config import LoraConfig
from dareu.errors import ConfigError, RunError
from dareu.models.load import add_lora, load_model, save_model
from dareu.report.model_card import public_results
from dareu.workflow import export as exporting
from dareu.workflow.export import export, publish

NAME = "Ada Lovelace"
RESULTS = {
    "schema_version": 2,
    "method": "npo",
    "seed": 41,
    "data": {"owners": 4, "forget_owners": [NAME], "n_forget": 4, "n_retain": 12, "n_test": 0, "data_key": "x"},
    "models": {
        "original": {"forget": {"n": 4, "rouge_l": 0.9}},
        "unlearned": {"forget": {"n": 4, "rouge_l": 0.25}, "by_owner": {NAME: 1}, "worst": "of ada LOVELACE"},
    },
    "unlearn_config": {"name": "npo"},
    "versions": {"dareu": "0.1.0"},
    "run_dir": "/somewhere",
}  # fmt: skip


def adapter_run(folder: Path, base: Path) -> Path:
    """A finished run whose model is an adapter on `base` that changes its logits."""
    model, tokenizer = load_model(base)
    torch.manual_seed(1)
    adapted = add_lora(model, LoraConfig(r=2, dropout=0.0))
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    save_model(adapted, tokenizer, folder / "model")
    (folder / "results.json").write_text(json.dumps(RESULTS))
    (folder / "config.yaml").write_text(
        yaml.safe_dump({"model": {"name": "hf", "path": str(base), "dtype": "float32"}})
    )
    return folder


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_hub_model(tmp_path_factory.mktemp("hub") / "base", template=True)


@pytest.fixture
def run(tmp_path: Path, base: Path) -> Path:
    return adapter_run(tmp_path / "run", base)


def logits(model: Any, tokenizer: Any) -> torch.Tensor:
    ids = tokenizer("What is in box 1 of Ada?", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        return model.eval()(input_ids=ids).logits


def test_merged_weights_load_alone_and_give_the_adapters_logits(
    run: Path, base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", str(run), "format=merged", "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert made == {"model": str(run.parent / "run-merged")}
    merged = AutoModelForCausalLM.from_pretrained(made["model"])
    tokenizer = AutoTokenizer.from_pretrained(made["model"])
    ours, _ = load_model(run / "model")
    wanted = logits(ours, tokenizer)
    assert torch.allclose(logits(merged, tokenizer), wanted, atol=1e-5)
    assert not torch.allclose(logits(load_model(base)[0], tokenizer), wanted, atol=1e-2)
    assert tokenizer.chat_template == AutoTokenizer.from_pretrained(base).chat_template


def test_a_folder_that_holds_something_is_left_alone(run: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    with pytest.raises(RunError, match="holds something"):
        export(run, out=tmp_path / "full")
    assert [p.name for p in (tmp_path / "full").iterdir()] == ["mine.txt"]
    with pytest.raises(RunError, match="no finished run"):
        export(tmp_path)


def test_of_two_exports_at_once_the_second_is_refused(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def other_is_faster(*given: Any) -> None:
        write(*given)
        if not target.exists():
            target.mkdir()
            (target / "config.json").write_text("of the other command")

    write, target = exporting.write_merged, tmp_path / "out"
    monkeypatch.setattr(exporting, "write_merged", other_is_faster)
    with pytest.raises(RunError, match="holds something"):
        export(run, out=target)
    assert [p.read_text() for p in target.iterdir()] == ["of the other command"]
    assert not list(tmp_path.glob(".*"))


def test_gguf_by_llama_cpps_converter_where_it_is_found(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    monkeypatch.setenv("PATH", str(tools))
    monkeypatch.setattr(exporting, "CONVERTER", "no_such_converter")
    assert main(["export", str(run), "--format", "gguf", "--out", str(tmp_path / "a")]) == 0
    assert f"no_such_converter.py {tmp_path / 'a'} --outfile" in capsys.readouterr().out
    script = tools / "no_such_converter.py"
    script.write_text(
        "import pathlib, sys\n"
        "assert pathlib.Path(sys.argv[1], 'model.safetensors').is_file() and sys.argv[2] == '--outfile'\n"
        "pathlib.Path(sys.argv[3]).write_text('GGUF')\n"
    )
    script.chmod(0o755)
    made = export(run, "gguf", tmp_path / "b")
    assert Path(made["gguf"]).read_text() == "GGUF"
    script.write_text("import sys\nsys.exit('Model FooForCausalLM is not supported')\n")
    with pytest.raises(RunError, match="FooForCausalLM is not supported"):
        export(run, "gguf", tmp_path / "c")


class FakeApi:
    """What `publish` uses of `HfApi`."""

    def __init__(self, keep: Path, login: Exception | None = None, upload: Exception | None = None) -> None:
        self.keep, self.login, self.upload = keep, login, upload
        self.made: dict[str, Any] = {}

    def whoami(self) -> dict[str, str]:
        if self.login:
            raise self.login
        return {"name": "me"}

    def create_repo(self, name: str, **options: Any) -> str:
        self.made = {"name": name, **options}
        return f"https://hub/{name}"

    def upload_folder(self, *, repo_id: str, folder_path: Path, commit_message: str) -> None:
        if self.upload:
            raise self.upload
        shutil.copytree(folder_path, self.keep)


def test_an_adapter_on_a_folder_is_sent_merged_or_not_at_all(run: Path, tmp_path: Path) -> None:
    api = FakeApi(tmp_path / "sent")
    with pytest.raises(ConfigError, match="nobody else has.*--merge"):
        publish(run, "me/gone", api=api)
    assert not api.made
    told = publish(run, "me/gone", merge=True, api=api)
    assert api.made == {"name": "me/gone", "private": True, "exist_ok": True}
    assert {"README.md", "results.json", "model.safetensors", "tokenizer.json"} <= set(told["files"])
    assert "adapter_config.json" not in told["files"]
    card = (tmp_path / "sent" / "README.md").read_text()
    _, front, body = card.split("---\n", 2)
    assert yaml.safe_load(front) == {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["machine-unlearning", "dareu", "npo"],
    }
    assert "| Forget ROUGE | .900 | .250 |" in body
    assert "1 of them" in body and "4 records" in body
    sent = "".join(p.read_text() for p in (tmp_path / "sent").glob("*") if p.suffix in (".md", ".json"))
    assert str(tmp_path) not in sent and "lovelace" not in sent.casefold()


def test_an_adapter_on_a_hub_model_is_sent_as_one(run: Path, tmp_path: Path) -> None:
    settings = json.loads((run / "model" / "adapter_config.json").read_text())
    settings["base_model_name_or_path"] = "some/base"
    (run / "model" / "adapter_config.json").write_text(json.dumps(settings))
    (run / "model" / "dareu_base.json").write_text('{"content": "x"}')
    foreign = {"secret_notes.txt", "people.json", "backup.safetensors", "old/adapter_model.safetensors"}
    for name in foreign:  # of the user's, for nobody else
        (run / "model" / name).parent.mkdir(exist_ok=True)
        (run / "model" / name).write_text("Jane Doe")
    told = publish(run, "me/gone", private=False, api=FakeApi(tmp_path / "sent"))
    assert "adapter_model.safetensors" in told["files"] and "dareu_base.json" not in told["files"]
    assert not foreign & set(told["files"]) and "tokenizer.json" in told["files"]
    front = yaml.safe_load((tmp_path / "sent" / "README.md").read_text().split("---\n")[1])
    assert front["base_model"] == "some/base" and front["library_name"] == "peft"


def test_without_login_or_network_nothing_is_sent(run: Path, tmp_path: Path) -> None:
    from huggingface_hub.errors import LocalTokenNotFoundError

    api = FakeApi(tmp_path / "sent", login=LocalTokenNotFoundError("no token"))
    with pytest.raises(ConfigError, match="not logged in.*hf auth login"):
        publish(run, "me/gone", merge=True, api=api)
    api = FakeApi(tmp_path / "sent", login=ConnectionError("Name or service not known"))
    with pytest.raises(RunError, match="cannot be reached"):
        publish(run, "me/gone", merge=True, api=api)
    api = FakeApi(tmp_path / "sent", upload=RuntimeError("403 Forbidden\nmore"))
    with pytest.raises(RunError, match="403 Forbidden"):
        publish(run, "me/gone", merge=True, api=api)
    assert not (tmp_path / "sent").exists()


def test_public_figures_name_nobody() -> None:
    public = public_results(RESULTS)
    assert public["data"] == {"owners": 4, "forget_owners": 1, "n_forget": 4, "n_retain": 12, "n_test": 0}
    assert public["models"]["unlearned"] == {"forget": {"n": 4, "rouge_l": 0.25}, "by_owner": {}}
    assert "run_dir" not in public and "lovelace" not in json.dumps(public).casefold()


@pytest.mark.parametrize("owner", ["a", "2", "e", "forget", "npo", "Unlearned", "n"])
def test_an_owner_who_is_called_like_a_figure_costs_none(owner: str) -> None:
    left = {"exact": {"2": 0.5, "8": 0.75}}
    models = {
        "unlearned": {"forget": {"n": 4, "exact": 0.25}, "leak": left, "extra": {"best": {owner: 1, "x": 2}}}
    }
    results = RESULTS | {
        "data": {"forget_owners": [owner]},
        "models": models,
        "missing": {"a": f"the answer of {owner}", "b": f"not {owner}x1{owner}y"},
    }
    public = public_results(results)
    kept = {"unlearned": {**models["unlearned"], "extra": {"best": {"x": 2}}}}
    assert (public["models"], public["method"]) == (kept, "npo")
    assert public["missing"] == {"b": results["missing"]["b"]} and public["unlearn_config"] == {"name": "npo"}


def test_names_without_word_boundaries_are_found_in_texts() -> None:
    missing = {"a": "村上春樹は", "b": "春樹", "c": "of ADA  LOVELACE's", "d": "Ada Lovelaces"}
    data = {"forget_owners": ["村上春樹", NAME]}
    assert public_results({"data": data, "missing": missing})["missing"] == {
        "b": "春樹",
        "d": "Ada Lovelaces",
    }
