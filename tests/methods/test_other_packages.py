"""A loss, a reward, an attributor, a metric and a source of another package, installed beside this one, through the
command line.
"""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from pipeline_fixture import LOSS, MODEL, PPO, TRAINING, store, train

from dareu.cli.commands import main

__all__ = ["store"]
KIND = "method=purge method.reward.kind=scratch_short"
CODE = '''
import numpy as np
from dareu.config import Strict
from dareu.attribution.base import prefix_by_calls
from dareu.methods.registry import LossMethod
from dareu.rewards.base import TextReward
from dareu.rewards.registry import RewardKind
from dareu.training.losses import nll


def ascent(logps, mask, strength: float = 1.0):
    return -strength * nll(logps, mask)


ASCENT = LossMethod(ascent)


def build(context):
    longest = context.config.params["words"]
    return TextReward(lambda text, prompt: float(len(text.split()) <= longest))


class Longest(Strict):
    words: int = 5


SHORT = RewardKind(build, takes=Longest)


class Vowels:
    """The first owner's where there are vowels."""

    nobody = False
    takes = Longest

    def __init__(self, owners):
        self.owners = owners

    @classmethod
    def fit(cls, context):
        assert context.own_responses and context.model is not None
        return cls(list(context.corpus.owners))

    def save(self, folder):
        (folder / "owners.txt").write_text("\\n".join(self.owners), encoding="utf-8")

    @classmethod
    def load(cls, folder, device="cpu"):
        return cls((folder / "owners.txt").read_text(encoding="utf-8").splitlines())

    def probabilities(self, texts):
        found = np.full((len(texts), len(self.owners)), 0.5 / (len(self.owners) - 1))
        found[:, 0] = [0.5 if any(c in "aeiou" for c in t) else 1 / len(self.owners) for t in texts]
        return found / found.sum(1, keepdims=True)

    def prefix_probabilities(self, texts, ends):
        return prefix_by_calls(self, texts, ends)


def words(records):
    return {"mean_words": sum(len(r["response"].split()) for r in records) / len(records)}


def letters(config):
    from dareu.data.corpus import Corpus, Sample

    return Corpus(tuple(
        Sample(f"{who}/{i}", who, f"What did {who} write in letter {i}?", f"{who} wrote of the {thing} in letter {i}.")
        for who in ("Ada Finch", "Jon Huaman", "Mira Okafor", "Li Wei")
        for i, thing in enumerate(("harbour", "garden", "winter", "orchard")[: config.letters])
    ))
'''
POINTS = """
[dareu.methods]
scratch_ascent = scratch_dareu:ASCENT
[dareu.rewards]
scratch_short = scratch_dareu:SHORT
[dareu.attributors]
scratch_vowels = scratch_dareu:Vowels
scratch_half = scratch_dareu:SHORT
[dareu.metrics]
scratch_words = scratch_dareu:words
[dareu.sources]
scratch_letters = scratch_dareu:letters
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which pip has installed the package."""
    folder = tmp_path_factory.mktemp("package")
    wheel, info = folder / "scratch_dareu-1.0-py3-none-any.whl", "scratch_dareu-1.0.dist-info"
    files = {
        "scratch_dareu.py": CODE,
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: scratch-dareu\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": POINTS,
    }
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
        archive.writestr(f"{info}/RECORD", "".join(f"{name},,\n" for name in (*files, f"{info}/RECORD")))
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-cache-dir"]
    subprocess.run([*pip, "--target", str(folder / "site"), str(wheel)], check=True)
    return folder / "site"


@pytest.fixture
def package(site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of YAMLs, while Python finds the installed package."""
    yaml = tmp_path / "configs" / "method"
    yaml.mkdir(parents=True)
    (yaml / "mine.yaml").write_text(
        "# Ascent of another package.\nname: mine\nkind: loss\nloss: scratch_ascent\nparams: {strength: 0.5}\n"
    )
    data = tmp_path / "configs" / "data"
    data.mkdir()
    (data / "letters.yaml").write_text("# Letters of another package.\nname: scratch_letters\nletters: 4\n")
    monkeypatch.syspath_prepend(str(site))
    importlib.invalidate_caches()
    yield tmp_path / "configs"
    sys.modules.pop("scratch_dareu", None)


def test_a_loss(store: Path, tmp_path: Path, package: Path) -> None:
    found = train(store, tmp_path / "run", f"--config-dir={package}", "method=mine", *LOSS)
    assert found["method"] == "mine" and found["outcome"]["steps"] == 2


def test_a_reward(store: Path, tmp_path: Path, package: Path) -> None:
    kind = ["method.reward.kind=scratch_short", "method.reward.params={words:'1000'}"]
    few = ["method.data_epochs=1", "method.prompts_per_batch=4", "method.num_generations=2"]
    found = train(store, tmp_path / "run", "method=purge", *kind, *few)
    rows = [json.loads(line) for line in (tmp_path / "run" / "training.jsonl").read_text().splitlines()]
    assert found["outcome"]["steps"] == 1 and all(row["reward_forget"] == 1.0 for row in rows)


def test_an_attributor(store: Path, tmp_path: Path, package: Path) -> None:
    found = train(store, tmp_path / "run", "attributor.name=scratch_vowels", *PPO)
    assert found["attributor"]["name"] == "scratch_vowels"
    rows = [json.loads(line) for line in (tmp_path / "run" / "training.jsonl").read_text().splitlines()]
    assert all(0 <= row["rollout_attribution"] <= 0.5 + 1e-6 for row in rows if "rollout_attribution" in row)


def test_a_source_and_a_metric(store: Path, tmp_path: Path, package: Path) -> None:
    own = [f"--config-dir={package}", "data=letters", "method=gradient_ascent", "forget.count=1"]
    found = train(store, tmp_path / "run", *own, *LOSS, base=[*MODEL, *TRAINING])
    assert found["data"]["name"] == "scratch_letters" and found["data"]["n_forget"] == 4
    rows = [
        json.loads(x) for x in (tmp_path / "run" / "samples" / "unlearned.jsonl").read_text().split("\n") if x
    ]
    mean = sum(len(r["response"].split()) for r in rows) / len(rows)
    assert found["models"]["unlearned"]["extra"]["scratch_words"]["mean_words"] == pytest.approx(mean)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        (
            f"{KIND} method.reward.params.words=many",
            "'method.reward.params.words' must be a whole number",
        ),
        (
            f"{KIND} method.reward.params.word=5",
            "has no parameter 'word' (method.reward.params).",
        ),
        (
            "attributor.name=scratch_vowels attributor.params.words=[]",
            "'attributor.params.words' must be ",
        ),
        ("method.reward.kind=scratch_shor", "There is no reward 'scratch_shor'"),
        ("attributor.name=scratch_vowel", "There is no attributor 'scratch_vowel'"),
        ("attributor.name=scratch_half", "has no fit, save, load"),
    ],
)
def test_names_and_values_that_are_none(
    store: Path, tmp_path: Path, package: Path, capsys: pytest.CaptureFixture[str], override: str, said: str
) -> None:
    run = ["train", "data.owners=4", *override.split(), f"cache_dir={store}", f"run_dir={tmp_path / 'run'}"]
    assert main(run) == 2 and said in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
