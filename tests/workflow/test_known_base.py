"""Which model the methods read as the base: what the original was fine-tuned from, and never the original itself."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from models_fixture import PROMPTS, inputs, loud, make_folder
from unlearner_fixture import ROWS

from dareu.config import HFConfig
from dareu.config.compose import compose
from dareu.errors import ModelError
from dareu.models.load import load_base, load_model, load_tokenizer, save_model
from dareu.workflow.console import Console
from dareu.workflow.keys import names_a_base
from dareu.workflow.memory import memory_parts
from dareu.workflow.prepare import prepare
from dareu.workflow.stages import Stages
from dareu.workflow.stages.unlearned import _policy
from dareu.workflow.validate import check_folders


def logits(model: Any, tokenizer: Any) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(**inputs(tokenizer, PROMPTS)).logits  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A base, a full model and an adapter that were trained from it, a model of other tokens, and data."""
    folder = tmp_path_factory.mktemp("models")
    found = {"base": make_folder(folder / "base")}
    for name in ("full", "other_tokens"):
        found[name] = Path(shutil.copytree(found["base"], folder / name))
    model, _ = load_model(found["full"])
    loud(model, seed=9).save_pretrained(found["full"])
    tokenizer = load_tokenizer(found["other_tokens"])
    tokenizer.add_tokens(["<new>"])
    tokenizer.save_pretrained(found["other_tokens"])
    adapted, tokenizer = load_base(HFConfig(path=str(found["base"])), "cpu")
    with torch.no_grad():
        for weight in adapted.parameters():
            if weight.requires_grad:
                weight.add_(0.2)
    found["adapter"] = folder / "adapter"
    save_model(adapted, tokenizer, found["adapter"])
    found["data"] = folder / "rows.jsonl"
    found["data"].write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return found


def stages_of(made: dict[str, Path], store: Path, path: str, original: str, *more: str) -> Stages:
    given = [
        "model=hf", f"model.path={made[path]}", f"original={made[original]}", "data=local", f"data.path={made['data']}",
        "forget.owners=[Bob]", "method=counterfactual", "retrain=false", f"cache_dir={store}", "device=cpu",
    ]  # fmt: skip
    return Stages(prepare(compose([*given, *more]), console=Console(silent=True)))


@pytest.mark.parametrize("adapter", ["lora", "none"])
@pytest.mark.parametrize(
    ("path", "original", "known"),
    [
        ("base", "full", True),
        ("base", "adapter", True),
        ("full", "full", False),
        ("other_tokens", "full", False),
    ],
)
def test_the_base_is_never_the_original(
    made: dict[str, Path], tmp_path: Path, path: str, original: str, known: bool, adapter: str
) -> None:
    stages = stages_of(made, tmp_path / "store", path, original, f"model.adapter={adapter}")
    policy, tokenizer = _policy(stages.context, stages.original.get().model)
    said = logits(policy, tokenizer)
    torch.testing.assert_close(said, logits(*load_model(made[original])), atol=1e-4, rtol=1e-4)
    opened = stages.unlearned.method_context(policy, tokenizer, None).base  # type: ignore[arg-type]
    assert (opened is not None) == known
    if opened is not None:
        with opened() as base:
            found = logits(base, tokenizer)
        torch.testing.assert_close(found, logits(*load_model(made["base"])), atol=1e-5, rtol=1e-5)
        assert (found - said).abs().max() > 0.1


def test_a_later_request_does_not_take_the_original_for_the_base(
    made: dict[str, Path], tmp_path: Path
) -> None:
    """Its start is an adapter on the full original, made by the request before."""
    first = stages_of(made, tmp_path / "store", "base", "full")
    policy, tokenizer = _policy(first.context, first.original.get().model)
    with torch.no_grad():
        for weight in policy.parameters():
            if weight.requires_grad:
                weight.add_(0.2)
    opened = first.unlearned.method_context(policy, tokenizer, None).base  # type: ignore[arg-type]
    assert opened is not None
    with opened() as base:
        torch.testing.assert_close(
            logits(base, tokenizer), logits(*load_model(made["base"])), atol=1e-5, rtol=1e-5
        )


def test_the_result_depends_on_the_base_that_it_reads(made: dict[str, Path], tmp_path: Path) -> None:
    keys = {
        path: stages_of(made, tmp_path / "store", path, "full").unlearned.key()
        for path in ("base", "full", "other_tokens")
    }
    assert len(set(keys.values())) == 3
    npo = [
        stages_of(made, tmp_path / "store", path, "full", "method=npo").unlearned.key()
        for path in ("base", "full")
    ]
    assert npo[0] == npo[1]  # reads no base


def test_the_estimate_of_memory_counts_a_base_that_is_loaded(made: dict[str, Path], tmp_path: Path) -> None:
    counted = {
        (path, original): memory_parts(stages_of(made, tmp_path / "store", path, original).context)["base"]  # type: ignore[index]
        for path, original in (("base", "full"), ("base", "adapter"), ("full", "full"))
    }
    assert counted["base", "full"] > 0 == counted["base", "adapter"] == counted["full", "full"]


def test_an_original_of_another_shape_than_the_retrained_model_is_refused(
    made: dict[str, Path], tmp_path: Path
) -> None:
    own = json.loads((made["full"] / "config.json").read_text())
    wider = Path(shutil.copytree(made["full"], tmp_path / "wider"))
    (wider / "config.json").write_text(json.dumps(own | {"num_hidden_layers": own["num_hidden_layers"] + 1}))
    full = f"original={made['full']}"
    said = f"num_hidden_layers {own['num_hidden_layers']} and "
    for model in (["model=hf", f"model.path={wider}"], ["model=tiny"]):
        with pytest.raises(ModelError, match=said):
            check_folders(compose([*model, full]))
        check_folders(compose([*model, full, "retrain=false"]))
        check_folders(compose([*model, full, f"retrained={made['base']}"]))
    check_folders(compose(["model=hf", f"model.path={made['base']}", full]))


def test_which_runs_name_a_base() -> None:
    assert names_a_base({"path": "hub/id", "revision": "main"}, "a")
    assert not names_a_base({}, "a") and not names_a_base({"model": {"name": "tiny"}, "seed": 1}, "a")


def test_a_full_original_without_a_base_or_with_an_adapter_is_told(
    made: dict[str, Path], tmp_path: Path
) -> None:
    def told(path: str, original: str, *more: str) -> str:
        return " ".join(stages_of(made, tmp_path / "store", path, original, *more).context.notes)

    assert "model.path=BASE" in (said := told("full", "full")) and "model.adapter=none" in said
    said = told("base", "full")
    assert "model.path=BASE" not in said and "model.adapter=none" in said
    for fine in (
        told("base", "full", "model.adapter=none"),
        told("base", "adapter"),
        told("full", "full", "method=npo"),
    ):
        assert "full model" not in fine
