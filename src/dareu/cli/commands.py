"""The command line. Nothing heavy is imported before a command needs it, so that `--help` answers at once."""

import argparse
import codecs
import errno
import json
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout, suppress
from pathlib import Path
from typing import NoReturn, TypeVar

from dareu.cli.rescore import add_arguments as add_rescore
from dareu.cli.rescore import run as rescore
from dareu.cli.share import add_export, add_push, run_export, run_push
from dareu.errors import ConfigError, DareuError, RunError, check_folder, nearest, printable
from dareu.runs import ranks

T = TypeVar("T")
# What a path that a person gives may be: too long, a loop of links, out of bounds.
BAD_PATH = (errno.ENAMETOOLONG, errno.ELOOP, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR)
PAUSE = 3.0  # seconds between a failure of several processes and their end
RESEND = 0.05  # seconds until a signal that Python dropped is sent again
# Signs of ours that a terminal may lack. Names and texts of the data keep their letters' numbers.
PLAIN = {
    "✓": "ok", "✗": "failed:", "…": "...", "–": "-", "−": "-", "─": "-", "→": "->", "←": "<-", "±": "+-", "×": "x",
    "≥": ">=", "≤": "<=", "·": ".", "’": "'", "“": '"', "”": '"',
}  # fmt: skip
OVERRIDES = "Hydra overrides, such as method=npo seed=42 forget.count=1 (see `dareu configs`)"
CONFIG_DIR = "a folder of your own YAML files, laid out like configs/"
FINISHED = "the folder of a finished run"

KEYS = """keys that matter most (`dareu configs KEY` explains any of them):
  method=npo                    the method; `dareu configs` lists all
  data=local data.path=FILE     your own rows; data.columns.prompt=… names their columns
  model=hf model.path=MODEL     a pretrained model; original=FOLDER one that has seen the data
  forget.owners=[A,B]           who is forgotten; or forget.count=2
  method.optim.lr=1e-4          keys of the method
  retrain=false                 without the retrained model, which the figures are compared with
  seed=42 device=cuda run_dir=DIR cache_dir=DIR
"""


class Terminated(KeyboardInterrupt):
    """The process received SIGTERM."""


class Parser(argparse.ArgumentParser):
    """Its errors are told as those of a configuration are."""

    def error(self, message: str) -> NoReturn:
        choice = re.search(r"argument (.+): invalid choice: '(.*?)'.* \(choose from (.+)\)", message)
        if choice is None:
            raise ConfigError(f"{message[:1].upper()}{message[1:]}.", f"See `{self.prog} --help`.")
        what, name, known = choice.groups()
        what = "command" if what == "COMMAND" else what
        raise ConfigError(f"There is no {what} '{name}'.", nearest(name, known.replace("'", "").split(", ")))


def parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    top = Parser(prog="dareu", description="Make a fine-tuned language model forget chosen data owners.")
    top.add_argument("--version", action="store_true", help="print the version and exit")
    commands = top.add_subparsers(dest="command", metavar="COMMAND")

    def command(
        name: str, text: str, overrides: bool = True, first: tuple[str, str, str] | None = None
    ) -> argparse.ArgumentParser:
        sub = commands.add_parser(
            name,
            help=text,
            description=text,
            epilog=KEYS if overrides else None,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        sub.add_argument("--json", action="store_true", help="print the result as JSON")
        if first is not None:
            argument, shown, meaning = first
            sub.add_argument(argument, metavar=shown, help=meaning)
        if overrides:
            sub.add_argument("overrides", nargs="*", metavar="key=value", help=OVERRIDES)
            sub.add_argument("--config-dir", metavar="DIR", help=CONFIG_DIR)
            sub.add_argument("--print", action="store_true", help="print the composed configuration and exit")
        return sub

    train = command(
        "train", "Run everything: original and retrained model, attributor, unlearning, evaluation, report."
    )
    train.add_argument(
        "--dry-run",
        action="store_true",
        help="print the stages, which of them the store holds, and the estimated memory; run nothing",
    )
    train.add_argument("-m", "--multirun", action="store_true", help="sweep over comma-separated values")
    command("finetune", "Fine-tune only: the original model and the retrained one.")
    attribute = command("attribute", "Fit the attribution classifier, or score texts with it.")
    attribute.add_argument(
        "--text", action="append", metavar="TEXT", help="score this text (repeat it for several)"
    )
    attribute.add_argument("--file", metavar="FILE", help="score each line of this file")
    folder = ("checkpoint", "FOLDER", "a folder that from_pretrained loads")
    command("evaluate", "Evaluate any checkpoint folder.", first=folder)
    command(
        "tune", "Search settings: as many trials for each of methods=[…], then its best setting on seeds=[…]."
    )
    compare = command("compare", "Compare runs in one table, mean ± sd over seeds.", overrides=False)
    compare.add_argument("runs", nargs="+", metavar="RUN", help="run folders, or folders of run folders")
    compare.add_argument("--format", choices=["table", "markdown", "csv", "latex"], default="table")
    compare.add_argument(
        "--sort", metavar="FIGURE", default="retrain_similarity", help="rows by this column, the best first"
    )
    compare.add_argument("--out", metavar="FILE", help="write there instead of printing (not for table)")
    add_rescore(
        command("rescore", "Compute metrics again from per-sample records, without a model.", overrides=False)
    )
    store = command("store", "Check the artifact store, which keeps finished stages.", overrides=False)
    store.add_argument("action", choices=["verify"], help="verify: compare every file with its checksum")
    store.add_argument(
        "cache_dir", nargs="?", metavar="DIR", help="the store; default: the user's cache folder"
    )
    text = "Write the deletion record of a run: what was requested, done and measured."
    receipt = command("receipt", text, False, ("run", "RUN", FINISHED))
    receipt.add_argument("--records", action="store_true", help="list the salted hash of each record too")
    receipt.add_argument(
        "--verify", action="store_true", help="hash everything again and list what has changed"
    )
    text = "Write a run's model as merged weights or as GGUF."
    add_export(command("export", text, False, ("run", "RUN", FINISHED)))
    text = "Put a run's model on the Hugging Face hub, with figures and a card."
    add_push(command("push", text, False, ("run", "RUN", FINISHED)))
    text = "List what can be chosen, or explain keys and the values that they take."
    configs = command("configs", text, overrides=False)
    configs.add_argument("keys", nargs="*", metavar="KEY", help="a key, or a group such as method.reward")
    configs.add_argument("--config-dir", metavar="DIR", help=CONFIG_DIR)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0, 2 for a mistake in the command, 3 for failed training."""
    _printable_streams()
    try:
        top = parser()
        args, unknown = top.parse_known_args(_as_options(sys.argv[1:] if argv is None else argv))
        if args.version:
            from dareu import __version__

            print(__version__)
            return 0
        if args.command is None and not unknown:
            top.print_help()
            return 0
        # Hydra's own signs, such as ++key=value and ~key, reach it untouched.
        bad = [u for u in unknown if u.startswith("-") or not hasattr(args, "overrides")]
        if bad:
            key = bad[0].lstrip("-").partition("=")[0]
            cure = f"Keys have no dashes: {key}=VALUE. " if hasattr(args, "overrides") else ""
            raise DareuError(
                f"Unknown option {bad[0]}.",
                f"{cure}See `dareu{f' {args.command}' if args.command else ''} --help`.",
            )
        if unknown:
            args.overrides = [*args.overrides, *unknown]
        _check_working_directory()
        with _terminable(), _one_of_several(args):
            code = COMMANDS[args.command](args)
            sys.stdout.flush()
            return code
    except DareuError as error:
        return _failed(error.exit_code, error.cause, error.cure)
    except Terminated:
        return _failed(143, "terminated; the same command continues from here.")
    except KeyboardInterrupt:
        return _failed(130, "interrupted; the same command continues from here.")
    except BrokenPipeError:
        with suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes it at the end
        with suppress(BrokenPipeError):
            _failed(
                1,
                "what read the output has ended, and so the command ends.",
                "The same command continues from here.",
            )
        return 1
    except (MemoryError, ImportError, OSError, RuntimeError) as error:
        from dareu.runs.files import out_of_memory

        if told := out_of_memory(error):
            return _failed(told.exit_code, told.cause, told.cure)
        if isinstance(error, OSError) and error.errno in BAD_PATH and error.filename is not None:
            where = printable(f"{error.filename}: {error.strerror}.")
            return _failed(2, where, "Check the path and your rights there.")
        if isinstance(error, RuntimeError) and ranks.lost_peer(error):
            return _failed(1, ranks.LOST, ranks.GOES_ON)
        raise


def _check_working_directory() -> None:
    try:
        os.getcwd()
    except FileNotFoundError:
        raise RunError(
            "The folder in which this command was started has been deleted.", "Change into one that exists."
        ) from None


def _failed(code: int, cause: str, cure: str = "") -> int:
    """Say why the command ends; of several processes one says it."""
    if ranks.speaks():
        print(f"dareu: {cause}", file=sys.stderr)
        if cure:
            print(f"       {cure}", file=sys.stderr)
    if ranks.world_size() > 1:  # the first to end ends the others, who have to ask before
        time.sleep(PAUSE)
    if ranks.connected():  # an ordinary end would wait for collective calls that nobody answers
        sys.stderr.flush()
        os._exit(code)
    return code


@contextmanager
def _one_of_several(args: argparse.Namespace) -> Iterator[None]:
    """Where torchrun or `accelerate launch` started several processes: connect them; the first one prints."""
    if ranks.world_size() == 1:
        yield
        return
    if args.command not in SHARED or getattr(args, "multirun", False):
        raise ConfigError(
            f"`dareu {args.command}{' -m' if args.command in SHARED else ''}` is one process; this one was started as "
            "one of several.",
            "Start it without torchrun or accelerate launch.",
        )
    from dareu.workflow.validate import connected

    # torch says at each training that all parameters are used.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    with ExitStack() as stack:
        stack.enter_context(connected())
        if not ranks.is_main():
            nowhere = stack.enter_context(open(os.devnull, "w", encoding="utf-8"))
            stack.enter_context(redirect_stdout(nowhere))
        yield


def _as_options(argv: Sequence[str]) -> list[str]:
    """Options of `export` and `compare` may be written as keys are elsewhere: `format=gguf` for `--format=gguf`."""
    if not argv or argv[0] not in ("export", "compare"):
        return list(argv)
    return [f"--{word}" if word.startswith(("format=", "out=", "sort=")) else word for word in argv]


@contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM as an exception, so that locks are released and a message is printed.

    Python drops an exception in a `__del__` or a callback, where a signal may well arrive: regular expressions of the
    tokenizers delete many objects. SIGTERM and SIGINT are then sent once more.
    """

    def end(*_: object) -> None:
        raise Terminated

    def dropped(unraisable: "sys.UnraisableHookArgs") -> None:
        if not issubclass(unraisable.exc_type, KeyboardInterrupt):
            report(unraisable)
            return
        again = signal.SIGTERM if issubclass(unraisable.exc_type, Terminated) else signal.SIGINT
        timer = threading.Timer(RESEND, os.kill, (os.getpid(), again))  # in here it would be dropped too
        timer.daemon = True
        timer.start()

    try:
        before = signal.signal(signal.SIGTERM, end)
    except ValueError:  # not in the main thread
        yield
        return
    report, sys.unraisablehook = sys.unraisablehook, dropped
    try:
        yield
    finally:
        sys.unraisablehook = report
        signal.signal(signal.SIGTERM, before)


def _plainly(error: UnicodeError) -> tuple[str, int]:
    """What stands for signs that an encoding lacks: those of `PLAIN`, else their numbers."""
    assert isinstance(error, UnicodeEncodeError)
    lacked = error.object[error.start : error.end]
    return "".join(PLAIN.get(c, c.encode("ascii", "backslashreplace").decode()) for c in lacked), error.end


def _printable_streams() -> None:
    """Signs that the terminal's encoding lacks are replaced by what it has, not an error."""
    codecs.register_error("plainly", _plainly)
    for stream in (sys.stdout, sys.stderr):
        if (getattr(stream, "encoding", None) or "utf-8").lower().replace("-", "") != "utf8" and hasattr(
            stream, "reconfigure"
        ):
            stream.reconfigure(errors="plainly")


def _print_json(tree: object) -> None:
    print(json.dumps(tree, ensure_ascii=False, indent=2, default=str))


def _print(args: argparse.Namespace, tree: T, show: Callable[[T], None]) -> int:
    """The result of a command, as JSON or by `show`."""
    _print_json(tree) if args.json else show(tree)
    return 0


def _train(args: argparse.Namespace) -> int:
    if args.multirun:
        return _sweep(args)
    config = _config(args)
    if config is None:
        return 0
    from dareu.cli.output import show_plan, show_results
    from dareu.workflow.experiment import planned, train

    if args.dry_run:
        return _print(args, planned(config), show_plan)
    return _print(args, train(config), show_results)


def _sweep(args: argparse.Namespace) -> int:
    from dareu.cli.output import show_comparison
    from dareu.workflow.sweep import sweep

    if args.dry_run:
        raise DareuError("--dry-run is for one run.", "Leave -m out.")
    outcomes = sweep(args.overrides, args.config_dir)
    folders = [outcome.result["run_dir"] for outcome in outcomes if "run_dir" in outcome.result]
    if args.json:
        _print_json([{"title": o.title, "failed": o.failed, **o.result} for o in outcomes])
    elif folders:
        show_comparison(folders)
    failed = [outcome for outcome in outcomes if outcome.failed]
    for outcome in failed:
        cure = outcome.result.get("cure", "")
        print(f"dareu: {outcome.title}: {outcome.failed} {cure}".rstrip(), file=sys.stderr)
    return failed[0].exit_code if failed else 0


def _finetune(args: argparse.Namespace) -> int:
    config = _config(args)
    if config is None:
        return 0
    from dareu.workflow.partial import finetune

    def show(folders: dict[str, Path]) -> None:
        for name, folder in folders.items():
            print(f"{name}: {folder}")

    return _print(args, finetune(config), show)


def _attribute(args: argparse.Namespace) -> int:
    config = _config(args)
    if config is None:
        return 0
    from dareu.cli.output import show_attributor, show_scores
    from dareu.workflow.partial import fit_attributor, read_texts, score_texts

    texts = list(args.text or []) + (read_texts(args.file) if args.file else [])
    if texts:
        show_scores(score_texts(config, texts), args.json)
        return 0
    folder, report = fit_attributor(config)
    return _print(args, {"folder": folder, **report}, show_attributor)


def _evaluate(args: argparse.Namespace) -> int:
    config = _config(args)
    if config is None:
        return 0
    from dareu.cli.output import show_results
    from dareu.workflow.experiment import evaluate

    return _print(args, evaluate(config, args.checkpoint), show_results)


def _tune(args: argparse.Namespace) -> int:
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


def _compare(args: argparse.Namespace) -> int:
    from dareu.cli.output import show_comparison

    if args.json:
        from dareu.report.loading import load_runs

        _print_json(load_runs([Path(p) for p in args.runs]))
        return 0
    show_comparison(args.runs, args.format, args.out, args.sort)
    return 0


def _store(args: argparse.Namespace) -> int:
    from dareu.runs.store import ArtifactStore, artifact_damage

    given = args.cache_dir and args.cache_dir.removeprefix("cache_dir=")
    cure = "Give the folder that cache_dir names."
    store = ArtifactStore(check_folder(Path(given).expanduser(), cure, ConfigError) if given else None)
    artifacts = store.artifacts()
    if given and not artifacts:
        raise ConfigError(f"{store.root} holds no finished stage.", cure)
    wrong = {str(path): said for path in artifacts if (said := artifact_damage(path, checksums=True))}
    if args.json:
        _print_json({"store": str(store.root), "artifacts": len(artifacts), "damaged": wrong})
        return int(bool(wrong))
    for path, said in wrong.items():
        print(f"{path}: {said}")
    print(f"{len(artifacts)} artifacts in {store.root}, {len(wrong)} of them damaged.")
    if wrong:
        print(
            "A run makes an artifact again where a small file or a size differs; delete the folders of the others."
        )
    return int(bool(wrong))


def _receipt(args: argparse.Namespace) -> int:
    from dareu.report.receipt import JSON_FILE, verify_receipt, write_receipt

    run = check_folder(args.run, "Give the folder of a finished run.", what="run folder")
    if args.verify:
        wrong = verify_receipt(run)
        if args.json:
            _print_json({"agrees": not wrong, "changed": wrong})
            return int(bool(wrong))
        for line in wrong or ["Everything agrees with the deletion record."]:
            print(printable(line))
        return int(bool(wrong))
    path = write_receipt(run, args.records)
    print((run / JSON_FILE).read_text(encoding="utf-8").rstrip() if args.json else path)
    return 0


def _configs(args: argparse.Namespace) -> int:
    from dareu.cli.output import show_configs, show_keys

    if args.json:
        from dareu.config.choices import options
        from dareu.config.reference import lines

        names = ("key", "allowed", "default", "meaning")
        keys = [dict(zip(names, row, strict=True)) for row in lines(args.keys)] if args.keys else None
        _print_json(keys or options(args.config_dir))
    elif args.keys:
        show_keys(args.keys)
    else:
        show_configs(args.config_dir)
    return 0


def _config(args: argparse.Namespace):  # type: ignore[no-untyped-def]  # RunConfig, not imported for --help
    """The typed configuration, or None once it has been printed."""
    from dareu.config.compose import as_yaml, compose

    config = compose(args.overrides, args.config_dir)
    if args.config_dir and config.overwrite and config.run_dir:
        from dareu.runs.owned import check_inputs

        # `overwrite` must not empty the user's own folder.
        check_inputs(Path(config.run_dir).expanduser(), [args.config_dir])
    if args.print:
        _print_json(config.model_dump(mode="json")) if args.json else print(as_yaml(config), end="")
        return None
    return config


SHARED = ("train", "finetune", "attribute", "evaluate")  # commands that several processes may run together
COMMANDS = {
    "train": _train,
    "finetune": _finetune,
    "attribute": _attribute,
    "evaluate": _evaluate,
    "tune": _tune,
    "compare": _compare,
    "rescore": rescore,
    "receipt": _receipt,
    "store": _store,
    "export": run_export,
    "push": run_push,
    "configs": _configs,
}
