"""TOFU's evaluation logs, in two layouts.

Lists of rows a set: `prompt`, `gold`, `generated`, and mean losses a token. And what TOFU's code writes,
`eval_log_aggregated.json`: a section for each of its four files, in which each field is a dict from index to value; one
of these files alone is read too.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dareu.errors import DataError
from dareu.evaluation.metrics.base import number
from dareu.evaluation.rescore.log import Log, finite_list, place, text

SETS = ("forget", "retain", "real_authors", "world_facts")
# The files of TOFU's code, and the set that each is of.
FILES = {
    "eval_log_forget.json": "forget",
    "eval_log.json": "retain",
    "eval_real_author_wo_options.json": "real_authors",
    "eval_real_world_wo_options.json": "world_facts",
}
LOSSES = "avg_gt_loss"  # a field that every one of these files has


def is_log(tree: Any) -> bool:
    """Whether a JSON object is laid out like these logs."""
    return isinstance(tree, Mapping) and (
        LOSSES in tree
        or any(name in tree for name in FILES)
        or any(isinstance(tree.get(of), list) for of in SETS)
    )


def read(path: Path, tree: Mapping[str, Any]) -> Log:
    """The log in our records; a row's place in its list, or its key, is its index.

    Raises:
        DataError: for rows that are no objects, and for one file of four whose name does not tell its set.
    """
    if LOSSES in tree:
        if path.name not in FILES:
            raise DataError(
                f"{path} is one file of TOFU's evaluation, and its name does not say of which set.",
                f"Name it as TOFU's code does ({', '.join(FILES)}), or give eval_log_aggregated.json.",
            )
        tree = {path.name: tree}
    known = FILES if any(name in tree for name in FILES) else dict.fromkeys(SETS)
    records = []
    for of in SETS:
        names = [name for name in known if (FILES.get(name) or name) == of and tree.get(name)]
        for name in names:
            rows = _columns(path, name, tree[name]) if name in FILES else _listed(path, name, tree[name])
            for index, row in rows.items():
                records.append({"set": of, "index": index, **{k: v for k, v in row.items() if v is not None}})
    unread = [name for name in tree if name not in known]
    return Log(path, "tofu", records, "geometric", {}, unread)


def _listed(path: Path, name: str, rows: Any) -> dict[int, dict[str, Any]]:
    """The fields of our records for each row of a list."""
    if not isinstance(rows, list) or not all(isinstance(row, Mapping) for row in rows):
        raise DataError(f"{path}: {name} is no list of rows.", "Give a log as TOFU's evaluation wrote it.")
    return {
        index: {
            "prompt": text(row.get("prompt")),
            "reference": text(row.get("gold")),
            "response": text(row.get("generated")),
            "rouge_l": number(row.get("rouge_l_recall")),
            "nll": number(row.get("gt_loss")),
            "paraphrased_nll": number(row.get("paraphrased_loss")),
            "wrong_nlls": finite_list(row.get("perturbed_losses")),
        }
        for index, row in enumerate(rows)
    }


def _columns(path: Path, name: str, section: Any) -> dict[int | str, dict[str, Any]]:
    """The fields of our records for each index of a file of TOFU's code."""

    def column(field: str) -> dict[str, Any]:
        values = section.get(field, {}) if isinstance(section, Mapping) else None
        if isinstance(values, list):  # texts, in some versions
            values = dict(enumerate(values))
        if not isinstance(values, Mapping):
            raise DataError(
                f"{path}: {name} holds no values by index in {field}.",
                "Give a log as TOFU's evaluation wrote it.",
            )
        return {str(index): value for index, value in values.items()}

    losses, right, wrong = map(column, (LOSSES, "avg_paraphrased_loss", "average_perturb_loss"))
    rouge, texts = column("rougeL_recall"), column("generated_text")
    rows: dict[int | str, dict[str, Any]] = {}
    for index in losses:
        said = texts.get(index)
        prompt, response, gold = said if isinstance(said, list | tuple) and len(said) == 3 else (None,) * 3
        rows[place(index)] = {
            "prompt": text(prompt),
            "reference": text(gold),
            "response": text(response),
            "rouge_l": number(rouge.get(index)),
            "nll": number(losses[index]),
            "paraphrased_nll": number(right.get(index)),
            "wrong_nlls": finite_list(wrong.get(index)),
        }
    return rows
