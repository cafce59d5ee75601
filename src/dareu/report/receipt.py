"""The deletion record of a run: what was requested, what was done, what was measured, and what is not claimed.

It names owners, counts and hashes, never a record's text.
"""

from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from dareu.errors import RunError
from dareu.report.damage import damages
from dareu.report.figures import dig, gaps, number
from dareu.report.knowledge import knowledge_left, untold, worst
from dareu.report.loading import RESULTS, read_object
from dareu.report.samples import read_lines
from dareu.report.templates import template
from dareu.runs.files import write_json, write_text
from dareu.runs.folder import held
from dareu.runs.integrity import checksum
from dareu.runs.provenance import digest, model_hashes, read_provenance, record_hash

SCHEMA = 1
JSON_FILE, MARKDOWN_FILE = "receipt.json", "receipt.md"
NOT_CLAIMED = (
    "That nothing can be extracted. The figures say what these metrics found on these questions, no more.",
    "That the model is equal to one that never saw the records. “No difference seen” depends on the number of answers.",
    "That copies are gone: of the original model, of the data, of answers that were stored or sent elsewhere.",
    "That a legal duty is fulfilled.",
)


def make_receipt(run: Path, records: bool = False) -> dict[str, Any]:
    """The deletion record of the finished run in `run`; `records` lists the salted hash of each record too.

    Raises:
        RunError: where the folder holds no finished run, or one without hashes.
    """
    results, kept = read_object(run / RESULTS), read_provenance(run)
    request: dict[str, Any] = {
        "owners": dig(results, "data", "forget_owners") or [],
        "records": kept["records"]["count"],
        "records_digest": kept["records"]["digest"],
        "data_key": results.get("data_key"),
        "also_stays": dig(results, "data", "also_stays"),
        "nameless": dig(results, "data", "nameless"),
    }
    if records:
        request["record_hashes"] = kept["records"]["hashes"]
    return {
        "schema_version": SCHEMA,
        "written": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "request": request,
        "done": {
            "method": results.get("method"),
            "seed": results.get("seed"),
            "settings": results.get("unlearn_config"),
            "config_sha256": checksum(run / "config.yaml"),
            "seconds": dig(results, "seconds", "unlearn"),
            "versions": results.get("versions"),
            "git": results.get("git"),
            "model_before": kept["models"].get("original"),
            "model_after": kept["models"].get("unlearned"),
        },
        "measured": _measured(results),
        "files": {name: checksum(path) for name, path in _evidence(run).items()},
        "not_claimed": list(NOT_CLAIMED),
    }


def _measured(results: Mapping[str, Any]) -> dict[str, Any]:
    none, some = gaps(results)
    return {
        "forget_answers": dig(results, "models", "unlearned", "forget", "n")
        or dig(results, "data", "n_forget"),
        "retrained_model": "retrained" in (results.get("models") or {}),
        "knowledge_left": results.get("knowledge_left") or {},
        "knowledge_left_worst": results.get("knowledge_left_worst"),
        "damage": results.get("damage"),
        "tug_of_war": results.get("tug_of_war"),
        "retrain_similarity": results.get("retrain_similarity"),
        "not_computed": none,
        "computed_in_part": some,
    }


def _evidence(run: Path) -> dict[str, Path]:
    """The files that hold what was measured: figures, answers, report."""
    files = [run / RESULTS, run / "report.html", *sorted(run.glob("samples/*.jsonl"))]
    files += sorted(run.glob("rounds/*/samples/*.jsonl"))
    return {path.relative_to(run).as_posix(): path for path in files if path.is_file()}


def to_markdown(receipt: Mapping[str, Any]) -> str:
    """The record for a reader."""
    measured = receipt["measured"]
    return template("receipt.md.j2").render(
        receipt=receipt,
        request=receipt["request"],
        stays=receipt["request"].get("also_stays") or {},
        nameless=receipt["request"].get("nameless") or {},
        done=receipt["done"],
        measured=measured,
        n=number(measured["forget_answers"]),
        left=knowledge_left(measured),
        most=worst(measured),
        lost=damages(measured),
        untold=untold(measured),
    )


def write_receipt(run: Path, records: bool = False) -> Path:
    """Write `receipt.json` and `receipt.md` into the run folder; returns the path of the second.

    Raises:
        RunError: As `make_receipt`; another command is at work in the folder, or it cannot be written to.
    """
    with held(run, "The record is written there: give a copy that you may write to."):
        receipt = make_receipt(run, records)
        write_json(run / JSON_FILE, receipt)
        write_text(run / MARKDOWN_FILE, to_markdown(receipt))
    return run / MARKDOWN_FILE


def verify_receipt(run: Path) -> list[str]:
    """What no longer agrees with `receipt.json`, one sentence each; empty where everything does.

    The model in the run folder, the configuration, the figures, the answers and the report are hashed anew, and so is
    the digest of the records: from the run's kept hashes and, where it holds the answers to all of them, from the
    records themselves.

    Raises:
        RunError: where there is no receipt, or it cannot be read.
    """
    if not (run / JSON_FILE).is_file():
        raise RunError(f"There is no {JSON_FILE} in {run}.", f"Make it first: dareu receipt {run}")
    receipt, kept = read_object(run / JSON_FILE), read_provenance(run)
    wrong = []
    if checksum(run / "config.yaml") != dig(receipt, "done", "config_sha256"):
        wrong.append("config.yaml has changed.")
    before = {f"model/{name}": one for name, one in (dig(receipt, "done", "model_after") or {}).items()}
    now = {f"model/{name}": one for name, one in model_hashes(run / "model").items()} if before else {}
    before |= receipt["files"]
    now |= {name: checksum(path) for name, path in _evidence(run).items()}
    wrong += [f"{name} is missing." for name in before if name not in now]
    wrong += [f"{name} has changed." for name in before if name in now and now[name] != before[name]]
    wrong += [f"{name} is new." for name in now if name not in before]
    expected = dig(receipt, "request", "records_digest")
    if digest(kept["records"]["hashes"]) != expected:
        wrong.append("The hashes of the records have changed.")
    records = _records(run)
    whole = bool(records) and len(records) == dig(receipt, "request", "records")
    if whole and digest(record_hash(kept["salt"], *record) for record in records) != expected:
        wrong.append("The records in samples/ are not those of the request.")
    return wrong


def _records(run: Path) -> list[tuple[str, str, str]]:
    """(prompt, reference, owner) of the forget samples that the run's records hold."""
    rows = read_lines(run / "samples" / "unlearned.jsonl")
    return [(r["prompt"], r["reference"], str(r["owner"])) for r in rows if r.get("set") == "forget"]
