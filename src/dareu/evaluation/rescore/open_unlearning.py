"""open-unlearning's evaluation logs (`TOFU_EVAL.json`; `MUSE_EVAL.json` is read): read, compared, written.

A section a metric: `agg_value`, and `value_by_index` where it is a mean over samples. Definitions that differ from
ours: 1e-10 stands in the denominators of truth ratios and normalised probabilities (`truth_ratio=open-unlearning`);
PrivLeak is taken against an AUC of .5 where no retrained model's log was given. MUSE's sections are of different texts
(questions, articles, members) under the same indices, so that a record there is no sample: its figures alone count.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dareu.evaluation.metrics.base import number
from dareu.evaluation.metrics.likelihood import EPSILON, normalised_probability
from dareu.evaluation.rescore.log import Log, finite_list, place, rows_of, text

PREFIXES = {"forget": "forget", "retain": "retain", "ra": "real_authors", "wf": "world_facts"}
# Section → the membership score of our records, which is the negative: higher for members.
ATTACKS = {
    "mia_loss": "mia_loss",
    "mia_zlib": "mia_zlib",
    "mia_min_k": "mia_min_k_40",
    "mia_min_k_plus_plus": "mia_min_k_plus_40",
    "mia_gradnorm": "mia_gradient_norm",
    "mia_reference": "mia_reference",
}
FORGET_SCORES = {"exact_memorization": "exact_memorisation", "extraction_strength": "extraction_strength"}


def is_log(tree: Any) -> bool:
    """Whether a JSON object is laid out like these logs."""
    return isinstance(tree, Mapping) and any(
        isinstance(s, Mapping) and "agg_value" in s for s in tree.values()
    )


def read(path: Path, tree: Mapping[str, Any]) -> Log:
    """The log in our records. Sections that are missing or null leave fields out.

    Raises:
        DataError: A section is damaged.
    """
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    unread = []
    logged = {}

    def put(of: str, index: str, **fields: Any) -> None:
        row = rows.setdefault((of, index), {"set": of, "index": place(index)})
        row.update({k: v for k, v in fields.items() if v is not None})

    for name, section in tree.items():
        if not isinstance(section, Mapping):
            continue
        figure = number(section.get("agg_value"))
        if figure is not None:
            logged[name] = figure
        if name in ATTACKS:
            for of in ("forget", "holdout"):
                for index, row in _rows(path, f"{name}.{of}", section.get(of)).items():
                    score = number(row.get("score"))
                    put(of, index, **{ATTACKS[name]: None if score is None else -score})
            continue
        values = _rows(path, name, section)
        if name in FORGET_SCORES:
            for index, row in values.items():
                put("forget", index, **{FORGET_SCORES[name]: number(row.get("score"))})
            continue
        prefix, _, kind = name.partition("_")
        of = PREFIXES.get(prefix, "")
        reader = READERS.get(kind) if of else None
        if reader is None:
            if values:
                unread.append(name)
            continue
        for index, row in values.items():
            put(of, index, **reader(row))
    order = list(PREFIXES.values())
    records = sorted(
        rows.values(), key=lambda r: (order.index(r["set"]) if r["set"] in order else 9, _place(r["index"]))
    )
    return Log(path, "open-unlearning", records, "open-unlearning", logged, unread)


def _place(index: Any) -> tuple[int, Any]:
    return (0, index) if isinstance(index, int) else (1, str(index))


def _rows(path: Path, name: str, section: Any) -> dict[str, Mapping[str, Any]]:
    values = section.get("value_by_index") if isinstance(section, Mapping) else None
    return {} if values is None else rows_of(path, name, values)


def _nll(row: Mapping[str, Any]) -> Any:
    loss = row.get("avg_loss")
    if loss is not None:
        return loss
    prob = number(row.get("prob"))
    return -math.log(prob) if prob else None


READERS: dict[str, Any] = {
    "Q_A_Prob": lambda row: {"nll": number(_nll(row))},
    "Q_A_PARA_Prob": lambda row: {"paraphrased_nll": number(_nll(row))},
    "Q_A_PERT_Prob": lambda row: {"wrong_nlls": finite_list(row.get("avg_loss"))},
    "Q_A_Prob_normalised": lambda row: {"probability_normalised": number(row.get("prob"))},
    "Q_A_ROUGE": lambda row: {
        "prompt": text(row.get("input")),
        "reference": text(row.get("ground_truth")),
        "response": text(row.get("generation")),
        "rouge_l": number(row.get("rougeL_recall")),
        "rouge_l_f1": number(row.get("rougeL_f1")),
    },
    "knowmem_ROUGE": lambda row: {"knowmem": number(row.get("rougeL_f1"))},
    "verbmem_ROUGE": lambda row: {"verbmem": number(row.get("rougeL_f1"))},
    "truth_ratio": lambda row: {"truth_ratio": number(row.get("score"))},
    "Truth_Ratio": lambda row: {"truth_ratio": number(row.get("score"))},
}


def figures(log: Log, summary: Mapping[str, Any], comparisons: Mapping[str, Any]) -> dict[str, float | None]:
    """Section of these logs → our figure of the same meaning; None where we have none."""
    ours: dict[str, float | None] = {}

    def figure(part: str, key: str) -> float | None:
        return number((summary.get(part) or {}).get(key))

    for prefix, of in PREFIXES.items():
        rows = log.of(of)
        plain = [math.exp(-r["nll"]) for r in rows if r.get("nll") is not None]
        right = [math.exp(-r["paraphrased_nll"]) for r in rows if r.get("paraphrased_nll") is not None]
        wrong = [math.exp(-w) for r in rows for w in r.get("wrong_nlls") or []]
        ours |= {
            f"{prefix}_Q_A_Prob": _mean(plain),
            f"{prefix}_Q_A_PARA_Prob": _mean(right),
            f"{prefix}_Q_A_PERT_Prob": _mean(wrong),
            f"{prefix}_Q_A_Prob_normalised": figure(of, "probability_normalised"),
            f"{prefix}_Q_A_ROUGE": figure(of, "rouge_l"),
            f"{prefix}_{'truth_ratio' if of == 'forget' else 'Truth_Ratio'}": figure(of, "truth_ratio"),
        }
    for prefix in ("forget", "retain"):
        ours |= {f"{prefix}_{kind}_ROUGE": figure(prefix, kind) for kind in ("knowmem", "verbmem")}
    ours |= {name: figure("forget", key) for name, key in FORGET_SCORES.items()}
    ours |= {name: figure("membership", key.removeprefix("mia_")) for name, key in ATTACKS.items()}
    ours["model_utility"] = number(summary.get("model_utility"))
    quality = comparisons.get("forget_quality")
    ours["forget_quality"] = number(quality.get("p")) if isinstance(quality, Mapping) else None
    ours["privleak"] = number(comparisons.get("privleak"))
    if ours["privleak"] is None and (auc := figure("membership", "min_k_40")) is not None:
        ours["privleak"] = 100 * ((1 - auc) - 0.5) / 0.5
    return ours


def probability_of_right(log: Log, name: str) -> float | None:
    """The truth ratio `name` as open-unlearning's aggregator `prob_mean` has it: mean p(right) / (p(right) + p(wrong)).

    In [0, 1]; None for a section that is no truth ratio, or without likelihoods.
    """
    prefix, _, kind = name.partition("_")
    if kind.lower() != "truth_ratio":
        return None
    values = []
    for row in log.of(PREFIXES.get(prefix, "")):
        right, wrong = row.get("paraphrased_nll", row.get("nll")), row.get("wrong_nlls")
        if right is not None and wrong:
            values.append(normalised_probability(right, [math.fsum(wrong) / len(wrong)], EPSILON))
    return _mean(values)


def _mean(values: Sequence[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None


def write(
    records: Sequence[Mapping[str, Any]], summary: Mapping[str, Any], comparisons: Mapping[str, Any]
) -> dict[str, Any]:
    """Our records and figures in this layout. Sections for which the records hold nothing are left out."""
    log = Log(Path(), "dareu", [dict(r) for r in records], "geometric")
    ours = figures(log, summary, comparisons)
    tree: dict[str, Any] = {}

    def section(name: str, of: str, row_of: Any) -> None:
        rows = {str(r["index"]): row for r in log.of(of) if (row := row_of(r)) is not None}
        if rows:
            tree[name] = {"agg_value": ours.get(name), "value_by_index": rows}

    for prefix, of in PREFIXES.items():
        section(f"{prefix}_Q_A_Prob", of, lambda r: _prob(r.get("nll")))
        section(f"{prefix}_Q_A_PARA_Prob", of, lambda r: _prob(r.get("paraphrased_nll")))
        section(f"{prefix}_Q_A_PERT_Prob", of, lambda r: _probs(r.get("wrong_nlls")))
        section(f"{prefix}_Q_A_ROUGE", of, _rouge)
        name = f"{prefix}_{'truth_ratio' if of == 'forget' else 'Truth_Ratio'}"
        section(name, of, lambda r: _score(r.get("truth_ratio")))
        if of in ("real_authors", "world_facts"):
            section(
                f"{prefix}_Q_A_Prob_normalised", of, lambda r: _value("prob", r.get("probability_normalised"))
            )
    for name, field in FORGET_SCORES.items():
        section(name, "forget", lambda r, field=field: _score(r.get(field)))
    held = "holdout" if log.of("holdout") else "test"
    for name, field in ATTACKS.items():
        parts = {
            of: {str(r["index"]): {"score": -r[field]} for r in log.of(source) if r.get(field) is not None}
            for of, source in (("forget", "forget"), ("holdout", held))
        }
        if all(parts.values()):
            auc = ours.get(name)
            tree[name] = {
                of: {"agg_value": _mean([row["score"] for row in rows.values()]), "value_by_index": rows}
                for of, rows in parts.items()
            } | {"auc": auc, "agg_value": auc}
    for name in ("model_utility", "forget_quality", "privleak"):
        if ours.get(name) is not None:
            tree[name] = {"agg_value": ours[name]}
    return tree


def _value(name: str, value: float | None) -> dict[str, Any] | None:
    return None if value is None else {name: value}


def _score(value: float | None) -> dict[str, Any] | None:
    return _value("score", value)


def _prob(nll: float | None) -> dict[str, Any] | None:
    return None if nll is None else {"prob": math.exp(-nll), "avg_loss": nll}


def _probs(nlls: Sequence[float] | None) -> dict[str, Any] | None:
    return None if not nlls else {"prob": [math.exp(-n) for n in nlls], "avg_loss": list(nlls)}


def _rouge(record: Mapping[str, Any]) -> dict[str, Any] | None:
    if record.get("response") is None:
        return None
    return {
        "rougeL_recall": record.get("rouge_l"),
        "rougeL_f1": record.get("rouge_l_f1"),
        "input": record.get("prompt"),
        "ground_truth": record.get("reference"),
        "generation": record["response"],
    }
