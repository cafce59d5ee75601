"""Commands that make something: a run, a part of one, a search for settings. Each returns the exit code."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from dareu.cli.terminal import print_json, print_result
from dareu.errors import DareuError

if TYPE_CHECKING:
    from dareu.config import RunConfig


def configured(
    command: Callable[[argparse.Namespace, RunConfig], int],
) -> Callable[[argparse.Namespace], int]:
    """`command` with the configuration that its overrides compose, which `--print` prints instead; `-m`: the sweep."""

    def run(args: argparse.Namespace) -> int:
        from dareu.config.compose import as_yaml, compose

        if getattr(args, "multirun", False):
            return _sweep(args)
        config = compose(args.overrides, args.config_dir)
        if args.config_dir and config.overwrite and config.run_dir:
            from dareu.runs.owned import check_inputs

            # `overwrite` must not empty the user's own folder.
            check_inputs(Path(config.run_dir).expanduser(), [args.config_dir])
        if not args.print:
            return command(args, config)
        from dareu.config.reference import explained

        tree = config.model_dump(mode="json")
        print_json(tree) if args.json else print(explained(as_yaml(config), tree), end="")
        return 0

    return run


@configured
def run_train(args: argparse.Namespace, config: RunConfig) -> int:
    """One run."""
    from dareu.cli.output import show_plan, show_results
    from dareu.workflow.experiment import planned, train

    if args.dry_run:
        return print_result(args, planned(config), show_plan)
    return print_result(args, train(config), show_results)


def _sweep(args: argparse.Namespace) -> int:
    from dareu.cli.output import show_comparison
    from dareu.workflow.sweep import sweep

    if args.dry_run:
        raise DareuError("--dry-run is for one run.", "Leave -m out.")
    outcomes = sweep(args.overrides, args.config_dir)
    folders = [outcome.result["run_dir"] for outcome in outcomes if "run_dir" in outcome.result]
    if args.json:
        print_json([{"title": o.title, "failed": o.failed, **o.result} for o in outcomes])
    elif folders:
        show_comparison(folders)
    failed = [outcome for outcome in outcomes if outcome.failed]
    for outcome in failed:
        cure = outcome.result.get("cure", "")
        print(f"dareu: {outcome.title}: {outcome.failed} {cure}".rstrip(), file=sys.stderr)
    return failed[0].exit_code if failed else 0


@configured
def run_finetune(args: argparse.Namespace, config: RunConfig) -> int:
    """The original model and the retrained one."""
    from dareu.workflow.partial import finetune

    made = finetune(config)
    print_json(made) if args.json else print("\n".join(f"{name}: {path}" for name, path in made.items()))
    return 0


@configured
def run_attribute(args: argparse.Namespace, config: RunConfig) -> int:
    """Fit the attributor, or score texts with it."""
    from dareu.cli.output import show_attributor, show_scores
    from dareu.workflow.partial import fit_attributor, read_texts, score_texts

    texts = list(args.text or []) + (read_texts(args.file) if args.file else [])
    if texts:
        show_scores(score_texts(config, texts), args.json)
        return 0
    folder, report = fit_attributor(config)
    return print_result(args, {"folder": folder, **report}, show_attributor)


@configured
def run_evaluate(args: argparse.Namespace, config: RunConfig) -> int:
    """Evaluate a checkpoint folder."""
    from dareu.cli.output import show_results
    from dareu.workflow.experiment import evaluate

    return print_result(args, evaluate(config, args.checkpoint), show_results)


def run_tune(args: argparse.Namespace) -> int:
    """Search settings, then report the best."""
    from dareu.cli.output import show_search, show_tuned
    from dareu.tuning.options import read

    command = read(args.overrides, args.config_dir)
    if args.print:
        show_search(command, args.json)
        return 0
    from dareu.tuning.tuner import tune

    tuned = tune(command)
    show_tuned(tuned, args.json)
    for what, reason, _ in tuned.failed:
        print(f"dareu: {what}: {reason}", file=sys.stderr)
    return tuned.failed[0][2] if tuned.failed else 0
