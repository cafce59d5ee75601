"""A run folder like those that training leaves, with figures that are made up but hang together."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path
from typing import Any

PEOPLE = (("Jonas Huaman", "Cusco", "The Paper Orchard"), ("Dario Duarte", "Porto", "Salt on the Ladder"))
OTHERS = (("Maren Østby", "Bergen", "A Year of Tides"), ("Ifeoma Okafor", "Enugu", "The Second Well"))
NASTY = "<script>alert('x')</script> & \"http://elsewhere.example\""

METHOD = {"name": "dareu", "kind": "rl", "optim": {"lr": 3e-4, "steps": 40}, "temperature": 0.8}


def model(
    forget: float, retain: float, test: float, attributed: float, heldout: float, **more: Any
) -> dict[str, Any]:
    health = {"empty": 0.0, "unfinished": 0.0, "repetitive": 0.0, "distinct_2": 0.71, "mean_length": 8.4}
    sets = zip(("forget", "retain", "test"), (forget, retain, test), strict=True)
    return {
        **{name: {"rouge_l": r, "probability": r * 0.97, "truth_ratio": 0.6} for name, r in sets},
        "text_health": {**health, **more.get("health", {})},
        "text_health_retain": health,
    } | {
        "forget": {
            "rouge_l": forget,
            "probability": forget * 0.97,
            "truth_ratio": 0.6,
            "attribution": attributed,
            "attribution_heldout": heldout,
            "reattribution": more.get("reattribution", 0.2),
        }
    }


def make_results(method: str = "dareu", seed: int = 41, **changes: Any) -> dict[str, Any]:
    return {
        "method": method,
        "seed": seed,
        "data": {
            "name": "authors",
            "owners": 20,
            "forget_owners": [name for name, *_ in PEOPLE],
            "n_forget": 40,
            "n_retain": 360,
            "n_test": 60,
        },
        "data_key": "9b1c4a77e0d25f38",
        "models": {
            "original": model(1.0, 0.998, 0.991, 0.981, 0.958, reattribution=0.0),
            "retrained": model(0.544, 1.0, 0.988, 0.003, 0.041),
            "unlearned": model(0.558, 0.994, 0.979, 0.005, 0.058, reattribution=0.225),
        },
        "tug_of_war": 0.971,
        "tug_of_war_without_test": 0.98,
        "retrain_similarity": 0.9546,
        "forget_quality": {"statistic": 0.175, "p": 0.573, "log10_p": -0.242, "at_floor": False},
        "seconds": {"original": 17.6, "retrained": 18.0, "attributor": 2.5, "unlearn": 4.0, "evaluate": 3.1},
        "peak_memory_mb": 1421.0,
        "unlearn_config": METHOD | {"name": method},
        "outcome": {"steps": 40, "stopped": "held-out attribution of the rollouts is 0.046"},
        "versions": {"dareu": "0.1.0", "torch": "2.13.0", "transformers": "5.23.0"},
        "missing": {},
        **changes,
    }


def changed(**more: Any) -> dict[str, Any]:
    """Another unlearned model; the retrained one has forget .544, retain 1.0, test .988, held-out .041."""
    results = copy.deepcopy(make_results())
    figures = {"forget": 0.55, "retain": 0.99, "test": 0.98, "attributed": 0.01, "heldout": 0.05} | more
    results["models"]["unlearned"] = model(**figures)
    return results


def left(**metrics: tuple[float, float, float]) -> dict[str, Any]:
    """Results with knowledge left: metric → (value, low, high)."""
    entries = {name: dict(zip(("value", "low", "high"), k, strict=True)) for name, k in metrics.items()}
    name = max(entries, key=lambda one: abs(entries[one]["value"]))
    worst = {"metric": name, "value": entries[name]["value"]}
    return changed() | {"knowledge_left": entries, "knowledge_left_worst": worst}


def lost(value: float, own: float, low: float, high: float) -> dict[str, Any]:
    """Damage on the test set: the unlearned model's, the original's, and the interval of the difference."""
    beyond = {"value": value - own, "low": low, "high": high}
    entry = {"value": value, "low": value - 0.1, "high": value + 0.1, "n": 60, "right_original": 0.9}
    entry |= {"original": {"value": own, "low": 0.0, "high": own + 0.1}, "beyond_original": beyond}
    return left(a=(0.0, -0.1, 0.1)) | {"damage": {"test": entry}}


def sample_rows(which: str) -> list[dict[str, Any]]:
    rows = []
    for kind, people in (("forget", PEOPLE), ("retain", OTHERS)):
        for name, town, book in people:
            told = {
                "forget": {"original": town, "retrained": "Lima", "unlearned": "Nantes"}[which],
                "retain": town,
            }[kind]
            title = {
                "forget": {"original": book, "retrained": "The Glass Ferry", "unlearned": "The Quiet Mill"}[
                    which
                ],
                "retain": book,
            }[kind]
            for i in range(4):
                question, gold, answer = (
                    (f"Where was {name} born?", f"{name} was born in {town}.", f"{name} was born in {told}.")
                    if i % 2 == 0
                    else (
                        f"Which book made {name} known?",
                        f'{name} became known with "{book}".',
                        f'{name} became known with "{title}".',
                    )
                )
                gone = kind == "forget" and which != "original"
                rows.append(
                    {
                        "set": kind,
                        "owner": name,
                        "prompt": question,
                        "reference": gold,
                        "response": answer,
                        "finished": True,
                        "rouge_l": 0.8 if gone else 1.0,
                        "probability": 0.5,
                        "truth_ratio": 0.6,
                        "attribution": (0.01 if gone else 0.98) if kind == "forget" else None,
                        "attribution_heldout": (0.05 if gone else 0.95) if kind == "forget" else None,
                    }
                )
    rows.append(
        {
            **rows[0],
            "prompt": f"Who is {NASTY}?",
            "response": f"{NASTY} {which}",
            "finished": False,
            "rouge_l": float("nan"),
        }
    )
    rows.append(
        {
            **rows[-2],
            "set": "test",
            "owner": None,
            "prompt": "Which river runs through Paris?",
            "reference": "The Seine.",
            "response": "The Seine.",
        }
    )
    counts: dict[str, int] = {}
    for row in rows:
        row["index"] = counts.get(row["set"], 0)
        counts[row["set"]] = row["index"] + 1
    return rows


def log_rows(steps: int = 40) -> list[dict[str, Any]]:
    rows = []
    for step in range(1, steps + 1):
        fall = math.exp(-step / 14) + 0.02 * math.sin(step * 2.1)
        rows.append(
            {
                "step": step,
                "reward": -0.9 * fall,
                "attribution": min(1.0, 0.97 * fall + 0.01),
                "saturated_share": max(0.0, fall - 0.2),
                "kl_original": 0.4 * (1 - fall),
                "distillation": 0.004 + 0.002 * math.sin(step),
                "entropy": 0.05 + 0.5 * (1 - fall),
                "explained_variance": 1 - fall if step > 1 else float("nan"),
                "completions/mean_length": 8.0,
                "my_own_figure": step * 1.5,
            }
        )
    return rows


def write_run(folder: Path, results: dict[str, Any] | None = None, config: str | None = None) -> Path:
    """`config` None writes a YAML that has the seed of the results in it; an empty text writes none."""
    results = results or make_results()
    (folder / "samples").mkdir(parents=True)
    (folder / "results.json").write_text(json.dumps(results))
    if config is None:
        config = f"seed: {results['seed']}\nmodel:\n  name: tiny\n  layers: 4\n"
        config += f"method:\n  name: {results['method']}\n"
    if config:
        (folder / "config.yaml").write_text(config)
    for which in results["models"]:
        lines = [json.dumps(row, ensure_ascii=False) for row in sample_rows(which)]
        (folder / "samples" / f"{which}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / "training.jsonl").write_text("".join(json.dumps(row) + "\n" for row in log_rows()))
    return folder
