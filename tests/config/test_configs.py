"""Every YAML under configs/ against the typed configuration, and what is said of keys that are wrong."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from dareu.cli.commands import main
from dareu.config import DareUConfig, HFConfig, LossMethodConfig, parse
from dareu.config.compose import GROUPS, as_yaml, compose, compose_tree, config_folder, options
from dareu.errors import ConfigError
from dareu.methods.registry import find_method
from dareu.tuning.search_space import distribution_of, space_of
from dareu.workflow.jobs import job_launcher
from dareu.workflow.sweep import grid

FILES = sorted(
    p for p in config_folder().rglob("*.yaml") if p.parent.name != "accelerate"
)  # of `accelerate launch`
# How many options each group has: a new one is put here, and with that under the tests below.
COUNT = {"model": 16, "data": 11, "method": 36, "evaluation": 6, "logging": 4, "experiment": 13}
SAME_AS = {"authors_classic": "authors"}  # an option that is a variant of another one
SAME_AS |= {name: "hf" for name in options()["model"] if name != "tiny"}
# What an option leaves open on purpose.
OPEN = {"data/local": ["data.path=mine.jsonl"], "data/hub": ["data.id=some/data"]}
OPEN["model/hf"] = ["model.path=some/model"]
OPEN |= {
    f"experiment/{name}": ["data.path=mine.jsonl"]
    for name in options()["experiment"]
    if name not in ("rounds", "paper_reward", "authors_classic", "sotu")
}
for _name in ("tofu_lora", "tofu_smollm2", "lume_smollm2"):
    OPEN[f"experiment/{_name}"].append("model.path=some/model")
PARAMETERS = {(path.parent.name, path.stem) for path in FILES} - {("configs", "train")}


def keys(tree: Any, path: str = "") -> Iterator[str]:
    """Every dotted key of a mapping; Hydra's own `defaults` are no keys of ours."""
    for name, child in tree.items() if isinstance(tree, dict) else ():
        if path or name != "defaults":
            yield f"{path}{name}"
            yield from keys(child, f"{path}{name}.")


def chosen(group: str, name: str) -> list[str]:
    return [f"{group}={name}", *OPEN.get(f"{group}/{name}", [])]


def test_every_file_is_an_option_and_counted() -> None:
    assert {group: len(found) for group, found in options().items()} == COUNT
    assert len(FILES) == sum(COUNT.values()) + 1  # and train.yaml
    assert {(group, name) for group, found in options().items() for name in found} == PARAMETERS


@pytest.mark.parametrize(("group", "name"), sorted(PARAMETERS))
def test_an_option_composes(group: str, name: str) -> None:
    config = compose(chosen(group, name))
    assert parse(yaml.safe_load(as_yaml(config))) == config  # what a run folder keeps gives the run again
    if group == "evaluation":
        assert config.evaluation.suite == name
    if group in ("model", "data", "method"):
        assert getattr(config, group).name == SAME_AS.get(name, name)
    if isinstance(config.method, LossMethodConfig):
        assert find_method(config.method.loss)
    assert len(options()[group][name]) > 10, "the first comment line is what `dareu configs` shows"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(config_folder())))
def test_every_key_is_typed(path: Path) -> None:
    """Composition alone would not tell: an option's key may be overwritten or dropped on the way."""
    group = path.parent.name
    text = path.read_text(encoding="utf-8")
    tree = yaml.safe_load(text)
    package = "" if "@package _global_" in text or path.stem == "train" else f"{group}."
    overrides = [] if path.stem == "train" else chosen(group, path.stem)
    known = set(keys(compose(overrides).model_dump()))
    recommended = tree.pop("per_method", {})  # what an experiment recommends for single methods
    for name, block in recommended.items():
        of_method = set(keys(compose([f"method={name}"]).model_dump()["method"]))
        assert block and set(keys(block)) <= of_method
    written = {package + key for key in keys(tree)}
    assert written and not {k for k in written if k not in known and not k.startswith("method.params.")}


@pytest.mark.parametrize("name", sorted(options()["method"]))
def test_a_method_knows_its_parameters(name: str) -> None:
    config = compose([f"method={name}"])
    tree = compose_tree([f"method={name}"])
    assert isinstance(config.method, DareUConfig) == (tree["method"]["kind"] == "rl")
    if isinstance(config.method, LossMethodConfig):
        row = find_method(config.method.loss)
        parameters = row.loss.__code__.co_varnames[: row.loss.__code__.co_argcount]
        own = row.settings.model_fields if row.settings else {}
        assert set(config.method.params) | set(row.reads) == set(parameters) | set(own)


@pytest.mark.parametrize("name", sorted(options()["method"]))
def test_a_method_can_be_tuned(name: str) -> None:
    """Its search block reads, names its own keys, and holds the defaults without being widened for them."""
    config = compose([f"method={name}"])
    space, defaults = space_of(config)
    assert set(space) == set(config.method.search) == set(defaults)
    for key, text in config.method.search.items():
        read = distribution_of(key, text)
        assert read._contains(read.to_internal_repr(defaults[key])), (
            f"{key}={defaults[key]} is outside of {text}"
        )


@pytest.mark.parametrize(
    ("name", "key", "published"),
    [
        ("satimp", "params", {"beta1": 5.0, "beta2": 0.1}),  # the README of the authors' code
        ("undial", "params.beta", 5.0),  # open-unlearning's configuration
        ("npo", "params.beta", 0.1),  # §5 of the paper
        ("purge", "reward.form", "binary"),
        ("rule", "reward.similar", 0.3),  # the authors' reward function
    ],
)
def test_defaults_that_a_paper_or_its_code_states(name: str, key: str, published: Any) -> None:
    found: Any = compose([f"method={name}"]).method.model_dump()
    for part in key.split("."):
        found = found[part]
    assert found == published


def test_recommended_keys_leave_those_beside_them_and_the_command_line_alone() -> None:
    """The experiment recommends a rate and a number of epochs for the method, not a schedule."""
    method = ["method=counterfactual", *chosen("experiment", "tofu_smollm2")]
    plain, own = compose(method).method.optim, compose(["method=counterfactual"]).method.optim
    assert (plain.batch_size, plain.epochs) == (4, 3) != (own.batch_size, own.epochs)
    assert (plain.scheduler, plain.warmup_ratio) == (own.scheduler, own.warmup_ratio) == ("linear", 0.1)
    given = compose([*method, "method.optim.lr=0.5"]).method.optim
    assert (given.lr, given.batch_size) == (0.5, 4)


def test_precedence_is_base_model_data_method_experiment_command_line() -> None:
    """tiny.yaml and the experiment both set the learning rate of fine-tuning; the command line wins."""
    experiment = [*chosen("experiment", "tofu30")]
    rates = [compose(o).finetune.lr for o in ([], experiment, [*experiment, "finetune.lr=0.5"])]
    assert len(set(rates)) == 3 and rates[2] == 0.5
    assert compose(experiment).data.name == "local" and compose([]).data.name == "authors"


@pytest.mark.parametrize(
    "key", ["finetune.steps=7", "model.attn_implementation=eager", "attributor.backbone.lora.r=3"]
)
def test_a_key_that_no_yaml_writes_can_be_set(key: str) -> None:
    path, _, value = key.partition("=")
    node: Any = compose(["model=hf", "model.path=m", key]).model_dump()
    for part in path.split("."):
        node = node[part]
    assert str(node) == value


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("methdo=npo", "unknown key 'methdo'. Nearest: method"),
        ("forget.onwers=[a]", "Nearest: forget.owners"),
        ("method.rewrad.kl=1", "unknown key 'method.rewrad'. Nearest: method.reward"),
        ("method.reward.granulrity=token", "Nearest: method.reward.granularity"),
        ("lr=3", "finetune.lr or attributor.optim.lr or method.optim.lr"),
        ("+seeed=3", "Nearest: seed"),
        ("method.params.beta=1", "unknown key 'method.params.beta' where method.kind=rl"),
        ("method.optim.steps=3", "data_epochs, prompts_per_batch and updates_per_batch"),
        ("method.optim.batch_size=3", "data_epochs, prompts_per_batch and updates_per_batch"),
        ("attributor.blind=false", "not valid: method.reward.blind=true needs attributor.blind=true"),
        ("method.advantage.estimator=rloo", "num_generations must be at least 2, not 1"),
        ("data.path=x", "unknown key 'data.path' where data.name=authors"),
        ("method=npoo", "There is no method 'npoo'. Nearest: npo"),
        ("model=tini", "There is no model 'tini'. Nearest: tiny"),
        ("experiment=paper", "There is no experiment 'paper'. Nearest: paper_"),
        ("data=local", "'data.path' is not set. Add data.path=…"),
        ("finetune.lr=-1", "'finetune.lr' must be a number above 0 and at most 10 (got -1)"),
        ("finetune.lr=fast", "(got 'fast')"),
        ("method.reward.transform=sqrt", "'method.reward.transform' must be one of log, log_odds, linear (got 'sqrt')"),
        ("model.heads=3", "'model': hidden_size must be a multiple of twice the heads"),
        ("forget={count:1,fraction:.5}", "give one of owners, count, fraction, file; got count, fraction"),
        ("seed=41,42", "'seed=41,42' names several values. Sweep over them with `dareu train -m`"),
        ("data.path=a, b/rows.jsonl", "'data.path=\"a, b/rows.jsonl\"'"),
        ("forget.owners=[Zoë]", 'goes in double quotes, the whole in the shell\'s: \'forget.owners=["Zoë'),
        ("seed", "'seed' cannot be read as key=value"),
        ("folder/rows.jsonl", "Where a value has one, the whole goes in the shell's quotes: 'data.path=my folder"),
        ("data.path=my (1) file", "'data.path=\"my (1) file\"'"),
        ("data.path=", "data.path is empty"),
        ("retrained=[a,b,./a]", "retrained names ./a twice"),
        ("model.heads=null", "(got null)"),
        ("=3", "'=3' cannot be read as key=value"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_in_one_message(override: str, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        compose([override])
    assert told in str(caught.value) and caught.value.cure
    assert "\n" not in str(caught.value) and "hydra" not in str(caught.value).lower()


def test_no_adapter_may_be_written_as_null() -> None:
    assert compose(["model.adapter=null"]).model.adapter == "none"
    big = compose(["model=hf", "model.path=x", "model.adapter=null"]).model
    assert isinstance(big, HFConfig) and big.adapter == "none"


def test_quoted_names_and_values_from_python_need_no_grammar() -> None:
    assert compose(['forget.owners=["Zoë Ångström","Ann O\'Neil"]']).forget.owners == [
        "Zoë Ångström",
        "Ann O'Neil",
    ]
    assert compose(values={"forget.owners": ["Zoë, Ann=1"]}).forget.owners == ["Zoë, Ann=1"]


def test_a_folder_of_ones_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "method").mkdir()
    (tmp_path / "method" / "gentle.yaml").write_text(
        "# Ascent with small steps.\nname: gentle\nkind: loss\nloss: gradient_ascent\noptim: {lr: 1.0e-6}\n"
    )
    config = compose(["method=gentle"], str(tmp_path))
    assert config.method.name == "gentle" and config.method.optim.lr == 1e-6
    assert main(["configs", f"--config-dir={tmp_path}"]) == 0
    assert "Ascent with small steps." in capsys.readouterr().out
    with pytest.raises(ConfigError, match="There is no folder"):
        compose([], str(tmp_path / "none"))


@pytest.mark.parametrize(
    "name", ["a\\b", "end\\", "it's", "x'y\\z", "two\\\\signs", "a=1, [b]", "${seed}", "a\\'b", "~me", "ü"]
)
@pytest.mark.filterwarnings("error")
def test_a_folder_of_ones_own_may_have_any_name(tmp_path: Path, name: str) -> None:
    (tmp_path / name / "method").mkdir(parents=True)
    (tmp_path / name / "method" / "gentle.yaml").write_text("defaults: [npo]\nname: gentle\n")
    assert compose(["method=gentle"], str(tmp_path / name)).method.name == "gentle"
    if "$" not in name:
        with job_launcher([], str(tmp_path / name), tmp_path / name) as launch:
            assert launch([]) == []


def test_the_grid_of_a_sweep() -> None:
    found = grid(["method=dareu,npo", "seed=41,42", "data.owners=4"])
    assert found == [
        ["method=dareu", "seed=41", "data.owners=4"],
        ["method=dareu", "seed=42", "data.owners=4"],
        ["method=npo", "seed=41", "data.owners=4"],
        ["method=npo", "seed=42", "data.owners=4"],
    ]
    assert grid(["seed=range(1,3)"]) == [["seed=1"], ["seed=2"]]
    with pytest.raises(ConfigError, match="interval"):
        grid(["finetune.lr=interval(0,1)"])
    assert set(GROUPS) == set(COUNT)


def test_a_blind_reward_needs_an_attributor_that_learnt_blinded_responses() -> None:
    """Where one is read: by the reward, or by the stopping rule alone."""
    off = "attributor.blind=false"
    for fine in (["method=npo"], ["method=purge"], ["method=dareu", "method.reward.blind=false"]):
        assert compose([*fine, off]).attributor.blind is False
    for wrong in (["method=dareu"], ["method=dareu_rloo"], ["method=purge", "method.stop.attribution=0.1"]):
        with pytest.raises(ConfigError, match=r"method\.reward\.blind=true needs attributor\.blind=true"):
            compose([*wrong, off])
    named = ["method=dareu", "method.reward.blind=false", "method.reward.nameless=true"]
    assert compose(named).attributor.blind is True
    with pytest.raises(ConfigError, match=r"method\.reward\.nameless=true needs attributor\.blind=true"):
        compose([*named, off])
    unread = ["method=purge", "method.stop.attribution=0.1", *named[1:]]  # its reward reads no attributor
    assert compose([*unread, off]).method.reward.nameless  # type: ignore[union-attr]


def test_a_suite_by_its_name_alone() -> None:
    evaluation = compose(
        ["evaluation=privacy", "evaluation.samples=3", "evaluation.attributors=[bm25]"]
    ).evaluation
    assert (evaluation.suite, evaluation.samples, evaluation.attributors) == ("privacy", 3, ("bm25",))
    plain = compose().evaluation
    assert (
        plain.suite == "fast" and "attributors" not in plain.measured() and "lm_eval" not in plain.measured()
    )
    with pytest.raises(ConfigError, match="evaluation.suite.*must be one of fast"):
        compose(["evaluation.suite=fastt"])
