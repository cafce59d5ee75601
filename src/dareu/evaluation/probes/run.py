"""Probes at work on one checkpoint."""

from collections.abc import Sequence
from typing import Any

from dareu.errors import ConfigError, DareuError, nearest
from dareu.evaluation.probes.base import Gap, ProbeInput, ProbeResult
from dareu.evaluation.probes.registry import PROBES


def run_probes(
    model: Any, tokenizer: Any, inputs: ProbeInput, names: Sequence[str] | None = None
) -> tuple[dict[str, ProbeResult], dict[str, str]]:
    """The results of the probes `names` (all of them by default), and for each that could not run: why, and the cure.

    The model is the same afterwards.

    Raises:
        ConfigError: for a name that no probe has.
    """
    results: dict[str, ProbeResult] = {}
    missing: dict[str, str] = {}
    chosen = list(PROBES) if names is None else list(names)
    for name in chosen:
        if name not in PROBES:
            raise ConfigError(f"There is no probe '{name}'.", nearest(name, PROBES))
    for name in chosen:
        try:
            results[name] = PROBES[name].run(model, tokenizer, inputs)
        except Gap as gap:
            missing[name] = str(gap)
        except DareuError as error:  # such as a prompt that does not fit the context
            missing[name] = f"{PROBES[name].title} could not be measured: {error}"
    return results, missing
