"""The paper's further settings: semantic overlap and a noisy classifier."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pipeline_fixture import SMALL

from dareu.config.compose import compose
from dareu.errors import ConfigError, ModelError
from dareu.workflow.console import Console
from dareu.workflow.prepare import prepare
from dareu.workflow.stages import Stages


def stages(tmp_path: Path, *overrides: str) -> Stages:
    config = compose([*SMALL, f"cache_dir={tmp_path}", *overrides])
    return Stages(prepare(config, console=Console(silent=True)))


def keys(found: Stages) -> dict[str, Any]:
    assert found.retrained
    made = (found.original, found.retrained, found.attributor)
    return dict(zip(("original", "retrained", "attributor"), (stage.key() for stage in made), strict=True))


def test_planted_paraphrases_are_learnt_by_every_model(tmp_path: Path) -> None:
    plain, planted = stages(tmp_path), stages(tmp_path, "forget.planted=2")
    assert len(planted.context.split.retain) == len(plain.context.split.retain) + 2
    assert planted.context.split.forget == plain.context.split.forget
    assert all(keys(plain)[name] != key for name, key in keys(planted).items())


def test_a_noisy_classifier_is_another_classifier_alone(tmp_path: Path) -> None:
    plain, noisy = keys(stages(tmp_path)), keys(stages(tmp_path, "attributor.label_noise=0.5"))
    assert plain.pop("attributor") != noisy.pop("attributor") and plain == noisy


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["forget.planted=2", "forget.count=null", "rounds.count=2"], "rounds and forget.planted contradict"),
        (["attributor.label_noise=.5", "attributor.name=lexical"], "causal classifier"),
        (["attributor.params.foo=1"], "'causal' has no parameter 'foo' .* It has none"),
        (
            ["attributor.name=substring", "attributor.params.foo=1"],
            "'substring' has no parameter 'foo' .* It has none",
        ),
        (["attributor.name=encoder", "attributor.params.epoch=1"], "'epoch' .* Nearest: epochs"),
        (["attributor.name=counterfactual", "attributor.params.name=1"], "'name' .* Nearest: names"),
        (
            ["attributor.name=counterfactual", "attributor.params.names=0"],
            "must be a whole number from 1 .*got 0",
        ),
        (
            ["attributor.name=encoder", "attributor.params.epochs=many"],
            "must be a whole .*, or null .got 'many'",
        ),
        (
            ["attributor.name=encoder", "attributor.params.holdout=1"],
            "must be a number at least 0 and below 1 ",
        ),
        (
            ["attributor.name=encoder", "attributor.params.learning_rate=inf"],
            "must be a number above 0 .*got inf",
        ),
        (["attributor.name=encoder", "attributor.params.base=./nowhere"], "There is no .*nowhere"),
        (["attributor.name=embedding", "attributor.params.batch_size=x"], "must be a whole number .*got 'x'"),
        (
            ["attributor.name=embedding", "attributor.params.path=5"],
            "must be text that is not empty, or null .got 5",
        ),
        (["method.reward.params.foo=1"], "'attribution' has no parameter 'foo' .method.reward.params"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path: Path, overrides: list[str], words: str) -> None:
    with pytest.raises((ConfigError, ModelError), match=words):
        stages(tmp_path, *overrides)
