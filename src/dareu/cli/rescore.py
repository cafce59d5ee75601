"""`dareu rescore`: arguments and output."""

import argparse
from pathlib import Path

from dareu.errors import printable


def add_arguments(sub: argparse.ArgumentParser) -> None:
    """The options of the command."""
    text = "run folder, samples/<model>.jsonl, TOFU_EVAL.json or eval_log_aggregated.json"
    sub.add_argument("log", metavar="LOG", help=text)
    text = "the retrained model's log; more of them: of other seeds"
    sub.add_argument("--retrained", metavar="LOG", nargs="+", help=text)
    sub.add_argument("--original", metavar="LOG", help="the original model's log")
    text = "geometric, arithmetic or open-unlearning; default: the log's own definition"
    sub.add_argument("--truth-ratio", metavar="MEAN", help=text)
    text = "write the log there in open-unlearning's layout"
    sub.add_argument("--write-open-unlearning", metavar="FILE", help=text)


def run(args: argparse.Namespace) -> int:
    """Compute, write, print."""
    from dareu.runs.files import json_text, write_json
    from dareu.workflow.rescore import in_open_unlearning, rescore

    results, records = rescore(args.log, args.retrained, args.original, args.truth_ratio)
    if args.write_open_unlearning:
        write_json(Path(args.write_open_unlearning), in_open_unlearning(results, records))
    if args.json:
        print(json_text(results), end="")
        return 0
    from rich.console import Console

    from dareu.report.rescore_tables import print_rescored

    print_rescored(Console(highlight=False), results)
    if args.write_open_unlearning:
        print(f"In open-unlearning's layout: {printable(args.write_open_unlearning)}")
    return 0
