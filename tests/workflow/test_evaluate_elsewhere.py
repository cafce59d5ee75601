"""`dareu evaluate` of models that others made: any folders, no run behind them; and the suite that asks the most."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from pipeline_fixture import DATA, TRAINING, dig, results
from transformers import AutoTokenizer, LlamaForCausalLM

from dareu.cli.commands import main
from dareu.config import TinyConfig
from dareu.config.compose import compose
from dareu.data.sources.registry import load_corpus
from dareu.models.tiny import make_tiny
from dareu.report.verdict import verdict
from dareu.workflow.prepare import tokenizer_texts

OVERRIDES = [*DATA, *TRAINING, "attributor.optim.epochs=1"]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The artifact store of these tests."""
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Three untrained models of one base, and one of another vocabulary."""
    shape = {"hidden_size": 32, "intermediate_size": 64, "layers": 2, "heads": 2, "max_length": 128}
    texts = tokenizer_texts(load_corpus(compose(DATA).data))
    found = {}
    for seed, name in enumerate(("original", "retrained", "unlearned", "stranger")):
        found[name] = tmp_path_factory.mktemp(name)
        size = 400 if name == "stranger" else 300
        make_tiny(
            TinyConfig(**shape, vocab_size=size),
            texts[: 20 if name == "stranger" else None],
            seed,
            found[name],
        )
    return found


def run(folders: dict[str, Path], out: Path, cache: Path, *overrides: str) -> int:
    models = [f"{name}={folders[name]}" for name in ("original", "retrained")]
    return main(
        [
            "evaluate",
            str(folders["unlearned"]),
            *models,
            *OVERRIDES,
            f"cache_dir={cache}",
            f"run_dir={out}",
            *overrides,
        ]
    )


def test_three_folders_and_the_full_suite(folders: dict[str, Path], cache: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert (
        run(
            folders,
            out,
            cache,
            "evaluation=full",
            "evaluation.attributors=[substring,char,counterfactual]",
            "evaluation.samples=2",
        )
        == 0
    )
    found = results(out)
    assert dig(found, "models.original.forget.depth") == pytest.approx(0, abs=1e-3)
    assert dig(found, "models.retrained.forget.fade") == pytest.approx(0, abs=1e-3)
    assert dig(found, "models.unlearned.forget.fade") > 0
    assert {"relearn_forget", "int4", "paraphrase"} <= set(dig(found, "models.unlearned.probes"))
    assert dig(found, "models.unlearned.probes.curves")["relearn_forget.probability"][0][0] == 0
    page = (out / "report.html").read_text(encoding="utf-8")
    for drawing in ("Sampled leak, exact", "Relearning on a tenth of the forget set", "Benign fine-tuning"):
        assert f"<b>{drawing}</b>" in page
    audit = found["attribution_audit"]
    assert audit["columns"] == ["reward (causal)", "substring", "char", "counterfactual"] and set(
        audit["rows"]
    ) == {
        "original",
        "retrained",
        "unlearned",
    }
    assert audit["reliability"]["char"]["n"] == audit["reliability"]["counterfactual"]["n"] > 0
    assert 0 <= audit["rows"]["unlearned"]["counterfactual"] <= 1
    assert not list(
        (cache / "auditors").glob("*/counterfactual/model")
    )  # the original's weights are not copied
    assert found["missing"]["seconds.retrained"] == "the retrained model was trained elsewhere"
    assert "substring" in (cache / "auditors").glob("*/substring").__next__().name
    weights = (folders["retrained"] / "model.safetensors").read_bytes()
    assert any(p.read_bytes() == weights for p in (cache / "retrained").glob("*/model/model.safetensors"))


def test_retrained_models_of_several_seeds(folders: dict[str, Path], cache: Path, tmp_path: Path) -> None:
    seeds = f"retrained=[{folders['retrained']},{folders['unlearned']}]"
    out = tmp_path / "run"
    assert run(folders, out, cache, "evaluation.samples=2", "evaluation=privacy", seeds) == 0
    found = results(out)
    assert set(found["models"]) == {"original", "retrained", "unlearned"}
    spread = found["retrained_seeds"]
    assert spread["probability"]["n"] == 2 and spread["probability"]["sd"] > 0 and spread["fade"]["mean"] > 0
    assert run(folders, tmp_path / "bad", cache, "retrained=[]") == 2
    assert run(folders, tmp_path / "bad", cache, f"retrained=[{folders['retrained']},/no/such]") == 2
    copy = shutil.copytree(folders["original"], tmp_path / "copy")
    assert run(folders, tmp_path / "bad", cache, f"retrained=[{folders['retrained']},{copy}]") == 2


def test_the_original_under_another_chat_template(
    folders: dict[str, Path], cache: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(folders["original"], tmp_path / "copy")
    tokenizer = AutoTokenizer.from_pretrained(copy)
    tokenizer.chat_template = "Say nothing. " + tokenizer.chat_template
    tokenizer.save_pretrained(copy)
    assert run(folders | {"unlearned": copy}, tmp_path / "run", cache, "evaluation.samples=2") == 0
    found = results(tmp_path / "run")
    assert found["outcome"]["unchanged"] and found["outcome"]["other_prompt"]
    assert dig(found, "models.unlearned.forget.probability") != dig(
        found, "models.original.forget.probability"
    )
    assert verdict(found).headline == "Nothing was unlearned: its weights are the original's."
    assert any("puts a question otherwise" in point.text for point in verdict(found).points)


def test_keys_that_contradict_and_folders_that_are_not_there(
    folders: dict[str, Path],
    cache: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for overrides, message in (
        (["retrain=false"], "contradict one another"),
        (["retrained=/no/such/folder"], "There is no model folder /no/such/folder"),
        (["evaluation.attributors=[bm24]"], "There is no attributor 'bm24'"),
        (["evaluation=everything"], "There is no evaluation 'everything'"),
    ):
        assert run(folders, tmp_path / "bad", cache, *overrides) == 2
        assert message in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "bad").exists()


@pytest.mark.parametrize("which", ["unlearned", "retrained"])
def test_a_tokenizer_that_does_not_fit_is_told_before_any_model_is_evaluated(
    folders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], which: str
) -> None:
    wrong = shutil.copytree(folders[which], tmp_path / "wrong")
    for file in folders["stranger"].glob("tokenizer*"):
        shutil.copyfile(file, wrong / file.name)
    store, out = tmp_path / "store", tmp_path / "run"
    assert run(folders | {which: wrong}, out, store) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert f"The tokenizer of {wrong} does not fit the model" in said and "embedding of 300" in said
    assert not out.exists() and not list(store.rglob("*.jsonl"))


def test_a_model_of_another_vocabulary_is_a_gap(
    folders: dict[str, Path], cache: Path, tmp_path: Path
) -> None:
    strange = folders | {"retrained": folders["stranger"]}
    assert len(AutoTokenizer.from_pretrained(folders["stranger"])) != len(
        AutoTokenizer.from_pretrained(folders["original"])
    )
    assert LlamaForCausalLM.from_pretrained(folders["stranger"]).config.num_hidden_layers == 2
    assert run(strange, tmp_path / "run", cache, "evaluation=privacy", "evaluation.samples=2") == 0
    found = results(tmp_path / "run")
    assert "another vocabulary" in found["missing"]["unlearned.forget.fade"]
    assert dig(found, "models.unlearned.forget.fade") is None
