"""What a run leaves: the figures of `results.json`, and the run folder that a person opens."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dareu.data.corpus import Sample
from dareu.data.duplicates import duplicates_tree
from dareu.data.render import render_prompt, set_template
from dareu.errors import ModelError, RunError
from dareu.evaluation.comparison import NO_RETRAINED
from dareu.evaluation.metrics.rouge import tokenisers
from dareu.evaluation.results import FILE, SCHEMA_VERSION, Results
from dareu.models.files import check_files
from dareu.models.same_weights import same_weights
from dareu.report.loading import read_results
from dareu.runs.files import write_json, write_jsonl
from dareu.runs.folder import RunFolder
from dareu.runs.manifest import git_revision, peak_memory_mb, versions
from dareu.runs.provenance import FILE as PROVENANCE
from dareu.runs.provenance import provenance, read_provenance
from dareu.workflow.figures import Figures
from dareu.workflow.prepare import run_tokenizer
from dareu.workflow.sequential import SequentialRequest
from dareu.workflow.stages import Artifact, Stage, Stages

REPORT = "report.html"


def make_results(
    stages: Stages,
    model: Stage,
    figures: Figures,
    method: str,
    requests: Sequence[SequentialRequest] = (),
    tuning: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """What `results.json` holds; see docs/architecture.md.

    Args:
        model: The evaluated model: the stage of the unlearned one, or a checkpoint from elsewhere.
        figures: Of each model; with sequential requests those of the last one.
        method: What the model was made by.
        requests: Sequential requests; empty for a single request.
        tuning: How `dareu tune` chose the setting.
    """
    from dareu.models.memory import accelerator_used

    context, config, split = stages.context, stages.context.config, stages.context.split
    unlearned = model.get()
    imported = "given" in unlearned.extra
    attributor = stages.attributor.get()
    device, held = accelerator_used()
    seconds_unlearn = sum(r.unlearned.get().seconds for r in requests) if requests else unlearned.seconds
    results = {
        "schema_version": SCHEMA_VERSION,
        "method": method,
        "seed": config.seed,
        "data": {
            "name": config.data.name,
            "owners": len(context.corpus.owners),
            "forget_owners": list(split.forget_owners),
            "n_forget": len(split.forget),
            "n_retain": len(split.retain),
            "n_test": len(split.test),
            "part": config.evaluation.part,
            "also_stays": duplicates_tree(context.duplicates),
            **({"nameless": context.nameless.tree()} if context.nameless else {}),
        },
        "data_key": context.corpus.key,
        "model_keys": {
            "original": stages.original.key(),
            "retrained": stages.retrained.key() if stages.retrained else None,
        },
        "definitions": {
            "truth_ratio": config.evaluation.truth_ratio,
            "words": tokenisers(s.response for s in (*split.forget, *split.retain, *split.test)),
            "suite": config.evaluation.suite,
        },
        "models": {
            name: {k: v for k, v in summary.items() if k not in ("missing", "truth_ratios")}
            for name, summary in figures.summaries.items()
        },
        "seconds": {
            "original": None if config.original else stages.original.get().seconds,
            "retrained": stages.retrained.get().seconds
            if stages.retrained and not config.retrained
            else None,
            "attributor": attributor.seconds,
            "unlearn": None if imported else seconds_unlearn,
            "evaluate": figures.seconds,
        },
        "peak_memory_mb": peak_memory_mb(),
        "accelerator": {"name": device, "peak_memory_mb": held},
        "attributor": attributor.extra.get("report", {}),
        "outcome": unlearned.extra | _as_original(stages, unlearned.model, imported),
        "tuning": None if tuning is None else dict(tuning),
        "unlearn_config": None if imported else config.method.model_dump(mode="json"),
        "versions": versions(),
        "git": git_revision(),
        **figures.comparison,
        "missing": _left_out(stages, imported) | figures.missing,
    }
    auditors = stages.auditors()
    if auditors.names:
        results["attribution_audit"] = audit = auditors.table(figures.records, split.forget_owners)
        results["missing"] |= {f"attribution_audit.{k}": v for k, v in audit["missing"].items()}  # type: ignore[operator]
    if requests:
        results["rounds"] = [request.entry() for request in requests]
    return results


def _as_original(stages: Stages, folder: Path, imported: bool) -> dict[str, bool]:
    """`unchanged`: whether the weights are the original's (`same_weights`); `other_prompt`: whether the tokenizer of a
    model from elsewhere puts a question otherwise than the original's. What is not so is left out.
    """
    from dareu.models.load import load_tokenizer

    config, corpus = stages.context.config, stages.context.corpus
    found = {"unchanged": same_weights(stages.original.get().model, folder)}
    if imported:
        trust = getattr(config.model, "trust_remote_code", False)
        theirs = load_tokenizer(str(folder), trust_remote_code=trust)
        set_template(theirs, config.model)
        asked = set()
        for tokenizer in (run_tokenizer(config, corpus), theirs):
            prompt = render_prompt(tokenizer, corpus.samples[0].prompt, corpus.task)
            asked.add((prompt, *tokenizer(prompt, add_special_tokens=False)["input_ids"]))
        found["other_prompt"] = len(asked) > 1
    return {name: True for name, is_so in found.items() if is_so}


def _left_out(stages: Stages, imported: bool) -> dict[str, str]:
    """Paths of `results.json` that this run has no figures for, and why."""
    config, left = stages.context.config, {}
    if config.original:
        left["seconds.original"] = "the original model was trained elsewhere"
    if config.retrained:
        left["seconds.retrained"] = "the retrained model was trained elsewhere"
    if not config.retrain:
        left |= dict.fromkeys(("models.retrained", "seconds.retrained"), NO_RETRAINED)
    if imported:
        left["seconds.unlearn"] = "the model was unlearned elsewhere"
    return left


def write_run(
    folder: RunFolder,
    results: Mapping[str, Any],
    unlearned: Artifact,
    figures: Figures,
    requests: Sequence[SequentialRequest] = (),
    forget: Sequence[Sample] = (),
    original: Path | None = None,
) -> None:
    """Fill the run folder; `results.json`, which marks it as finished, comes last but for the report.

    Args:
        forget: The forget samples, whose salted hashes are kept for a deletion record.
        original: The folder of the original model, whose files are hashed for the same reason.
    """
    _write_samples(folder.path / "samples", figures.records)
    if "given" not in unlearned.extra:
        folder.put_model(unlearned.model)
        shutil.copyfile(unlearned.path / "training.jsonl", folder.path / "training.jsonl")
        # Not `model/`, where files of the user's may lie too.
        models = {"unlearned": unlearned.model} | ({"original": original} if original else {})
        records = ((s.prompt, s.response, str(s.owner)) for s in forget)
        write_json(folder.path / PROVENANCE, provenance(records, models))
    for request in requests:
        part = folder.path / "rounds" / str(request.number)
        _write_samples(part / "samples", request.figures().records)
        shutil.copyfile(request.unlearned.get().path / "training.jsonl", part / "training.jsonl")
    write_results(folder.path, results)


def lost_provenance(folder: Path) -> str | None:
    """Why no deletion record can be made of a finished run, and what to do; None where one can, or never could."""
    try:
        read_provenance(folder)
    except RunError as error:
        return str(error) if (folder / PROVENANCE).is_file() else None
    return None


def broken_model(folder: Path) -> str | None:
    """What is wrong with the model in a finished run's folder; None where it is whole, or was taken away as a whole.

    Files that a person has changed there stay.
    """
    model = folder / "model"
    if not model.is_dir() or not (folder / PROVENANCE).is_file():
        return None
    known = {} if lost_provenance(folder) else read_provenance(folder)["models"]
    for name in known.get("unlearned") or ():
        if not (model / name).is_file():
            return f"{model / name} is missing."
    try:
        check_files(model)
    except ModelError as error:
        return error.cause
    return None


def write_results(folder: Path, results: Mapping[str, Any]) -> None:
    """Write `results.json` and the report that is made from it."""
    from dareu.report.page import write_report

    Results.of(results).write(folder / FILE)
    write_report(folder)


def finished_results(folder: Path, tuning: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The results of a finished run, and its folder. What a killed process has not written is written: the report.

    Args:
        tuning: How `dareu tune` chose the setting; it is put into the results where they do not say so.

    Raises:
        RunError: They cannot be read.
    """
    results = read_results(folder)
    if tuning is not None and results.get("tuning") != tuning:
        results["tuning"] = dict(tuning)
        write_results(folder, results)
    elif not (folder / REPORT).is_file():
        from dareu.report.page import write_report

        write_report(folder)
    return results | {"run_dir": str(folder)}


def _write_samples(folder: Path, records: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    for name, rows in records.items():
        write_jsonl(folder / f"{name}.jsonl", rows)
