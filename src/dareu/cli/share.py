"""`dareu export` and `dareu push`: arguments and output."""

import argparse


def add_export(sub: argparse.ArgumentParser) -> None:
    """The options of `dareu export`."""
    text = (
        "merged: safetensors, an adapter folded in; gguf: a GGUF file beside them, by llama.cpp's converter"
    )
    sub.add_argument("--format", choices=["merged", "gguf"], default="merged", help=text)
    text = "a new folder; default: beside the run, RUN-merged or RUN-gguf"
    sub.add_argument("--out", metavar="FOLDER", help=text)


def add_push(sub: argparse.ArgumentParser) -> None:
    """The options of `dareu push`."""
    sub.add_argument(
        "repository", metavar="USER/NAME", help="repository on the hub, made where it is missing"
    )
    sub.add_argument(
        "--merge", action="store_true", help="send whole weights, an adapter folded into its base"
    )
    sub.add_argument("--public", action="store_true", help="a new repository is readable by everybody")


def run_export(args: argparse.Namespace) -> int:
    """Write, and say where."""
    from dareu.runs.files import json_text
    from dareu.workflow.export import export

    made = export(args.run, args.format, args.out)
    if args.json:
        print(json_text(made), end="")
        return 0
    print(f"Model: {made['model']}")
    if "gguf" in made:
        print(f"GGUF: {made['gguf']}")
    if "command" in made:
        print(
            f"llama.cpp's converter was not found. With llama.cpp's folder on the PATH:\n  {made['command']}"
        )
    return 0


def run_push(args: argparse.Namespace) -> int:
    """Send, and say where."""
    from dareu.runs.files import json_text
    from dareu.workflow.export import publish

    made = publish(args.run, args.repository, args.merge, not args.public)
    print(json_text(made).rstrip() if args.json else f"{made['url']}: {len(made['files'])} files")
    return 0
