"""The command `dareu tune`: its own keys, and the overrides that describe the runs."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from pydantic import ValidationError, field_validator

from dareu.config.choices import options, yaml_files
from dareu.config.compose import check_overrides, read_override
from dareu.config.params import problem
from dareu.config.tune import TuneKeys
from dareu.errors import ConfigError, nearest, require
from dareu.evaluation.metrics.registry import registry
from dareu.report.figures import BY_KEY

# Hydra's launchers: the start of their names → plugin and extra.
LAUNCHERS = {
    "joblib": ("hydra_joblib_launcher", "joblib"),
    "submitit": ("hydra_submitit_launcher", "submitit"),
}


class TuneConfig(TuneKeys):
    """The keys of `dareu tune`; the objective is one of `objectives`."""

    @field_validator("objective")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in objectives():
            raise ValueError(f"there is no objective '{name}'; there are {', '.join(objectives())}")
        return name


def objectives() -> list[str]:
    """What trials can be chosen by: the registry's comparisons with the retrained model, and knowledge left."""
    pairs = (metric for metric in registry().values() if metric.level == "pair" and metric.better == "higher")
    return ["knowledge_left_worst", *(metric.name for metric in pairs if metric.name in BY_KEY)]


@dataclass(frozen=True)
class TuneCommand:
    """`tune`, the overrides of every run, Hydra's own, and the user's folder of YAML files."""

    tune: TuneConfig
    overrides: list[str]
    hydra: list[str]
    config_dir: str | None

    @property
    def fixed(self) -> frozenset[str]:
        """Keys below `method.` that the command line sets: they are not searched."""
        keys = (o.lstrip("+").partition("=")[0] for o in self.overrides)
        return frozenset(key.removeprefix("method.") for key in keys if key.startswith("method."))


def read(overrides: Sequence[str], config_dir: str | None = None) -> TuneCommand:
    """Sort the command line's `key=value`s.

    Raises:
        ConfigError: One of them cannot be read, or lacks a package.
    """
    own: dict[str, Any] = {}
    rest, hydra = [], []
    for override in overrides:
        key = override.lstrip("+").partition("=")[0]
        if key in TuneConfig.model_fields:
            own[key] = _value(override.lstrip("+"))
        elif key.startswith("hydra"):
            hydra.append(override)
        else:
            rest.append(override)
    check_overrides(rest, config_dir)
    for override in rest:
        _refuse(override.lstrip("+").partition("=")[0])
    known = list(options(config_dir)["method"])
    if own.get("methods") == "all":
        own["methods"] = [name for name in known if searchable(name, config_dir)]
    for key in {"methods", "seeds"} & own.keys():
        own[key] = own[key] if isinstance(own[key], list) else [own[key]]
    if not own.get("methods"):
        raise ConfigError("`dareu tune` needs methods.", "Set methods=dareu,npo, or methods=all.")
    try:
        tune = TuneConfig.model_validate(own)
    except ValidationError as error:
        told = "; ".join(problem(TuneConfig, dict(e), str(e["loc"][0])) for e in error.errors())
        example = "Such as methods=dareu,npo trials=8 seeds=41,42,43 objective=tug_of_war."
        raise ConfigError(f"{told}.", example) from None
    for name in tune.methods:
        if name not in known:
            raise ConfigError(f"There is no method '{name}'.", nearest(name, known))
    tune = tune.model_copy(
        update={"methods": list(dict.fromkeys(tune.methods)), "seeds": list(dict.fromkeys(tune.seeds))}
    )
    if tune.workers > 1 and not any(o.startswith("hydra/launcher") for o in hydra):
        hydra = ["hydra/launcher=joblib", f"hydra.launcher.n_jobs={tune.workers}", *hydra]
    _check_packages(hydra)
    return TuneCommand(tune, rest, hydra, config_dir)


def _value(override: str) -> Any:
    from hydra.core.override_parser.types import ChoiceSweep, Sweep

    read = read_override(override)
    value = None if read is None else read.value()
    if isinstance(value, ChoiceSweep) and value.simple_form:
        return value.list
    if value is None or isinstance(value, Sweep):
        raise ConfigError(f"'{override}' cannot be read.", "Write methods=dareu,npo seeds=41,42 trials=8.")
    return value


def searchable(name: str, config_dir: str | None) -> bool:
    """Whether a method's own YAML has a `search` block: variants that only inherit one are not tuned twice."""
    text = yaml_files("method", config_dir)[name].read_text(encoding="utf-8")
    return bool(re.search(r"(?m)^search:", text))


def _refuse(key: str) -> None:
    """Keys of a run that `dareu tune` sets itself."""
    instead = {
        "method": "Set methods=….",
        "seed": "Set seeds=… for the reported runs, trial_seed=… for the trials.",
        "evaluation.part": "Leave it out: trials use the validation part, the chosen settings the report part.",
        "retrain": "Leave retrain=true: trials are chosen by their likeness to the retrained model.",
    }
    if key.partition(".")[0] == "rounds":
        raise ConfigError(
            "`dareu tune` does not accept rounds: a trial is one request.", "Set forget.owners=…."
        )
    if key in instead:
        raise ConfigError(f"`dareu tune` does not accept {key}=….", instead[key])


def _check_packages(hydra: Sequence[str]) -> None:
    """Check that Optuna and the launcher's plugin are installed.

    Raises:
        ConfigError: One of them is not; the message names the extra.
    """
    require("optuna", "`dareu tune`", "tune")
    for override in hydra:
        key, _, launcher = override.lstrip("+").partition("=")
        row = next((row for start, row in LAUNCHERS.items() if launcher.startswith(start)), None)
        if key == "hydra/launcher" and row and not _has_plugin(row[0]):
            raise ConfigError(
                f"hydra/launcher={launcher} needs a package that is not installed.",
                f"pip install 'dareu[{row[1]}]'",
            )


def _has_plugin(name: str) -> bool:
    return find_spec("hydra_plugins") is not None and find_spec(f"hydra_plugins.{name}") is not None
