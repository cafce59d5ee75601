"""The command line. Nothing heavy is imported before a command needs it, so that `--help` answers at once."""

import argparse
import errno
import os
import re
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import NoReturn

from dareu.cli import reading, runs, terminal
from dareu.cli.rescore import add_arguments as add_rescore
from dareu.cli.rescore import run as rescore
from dareu.cli.share import add_export, add_push, run_export, run_push
from dareu.cli.terminal import failed
from dareu.errors import ConfigError, DareuError, nearest, printable
from dareu.runs import ranks

# What a path that a person gives may be: too long, a loop of links, out of bounds.
BAD_PATH = (errno.ENAMETOOLONG, errno.ELOOP, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR)
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
KEYS_OF_TUNE = """keys of this command (`dareu configs trials` explains one of them):
  methods=[dareu,npo]           the methods; methods=all for every one that has something to search
  trials=8                      settings tried for each method; the first are its defaults
  seeds=[41,42,43]              seeds on which the chosen settings are reported; trial_seed=51 is that of the trials
  objective=tug_of_war          what the best trial is chosen by
  batch=4 workers=2             trials proposed at once, processes that run them
keys of runs, such as data=, model=, forget.count=2 and run_dir=DIR, hold for every trial
"""


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
        name: str,
        text: str,
        overrides: bool = True,
        first: tuple[str, str, str] | None = None,
        keys: str = KEYS,
    ) -> argparse.ArgumentParser:
        form, end = argparse.RawDescriptionHelpFormatter, keys if overrides else None
        sub = commands.add_parser(name, help=text, description=text, epilog=end, formatter_class=form)
        sub.add_argument("--json", action="store_true", help="print the result as JSON")
        if first is not None:
            argument, shown, meaning = first
            sub.add_argument(argument, metavar=shown, help=meaning)
        if overrides:
            sub.add_argument("overrides", nargs="*", metavar="key=value", help=OVERRIDES)
            sub.add_argument("--config-dir", metavar="DIR", help=CONFIG_DIR)
            sub.add_argument("--print", action="store_true", help="print the composed configuration and exit")
        return sub

    text = "Run everything: original and retrained model, attributor, unlearning, evaluation, report."
    train = command("train", text)
    text = "print the stages, which of them the store holds, and the estimated memory; run nothing"
    train.add_argument("--dry-run", action="store_true", help=text)
    train.add_argument("-m", "--multirun", action="store_true", help="sweep over comma-separated values")
    command("finetune", "Fine-tune only: the original model and the retrained one.")
    attribute = command("attribute", "Fit the attribution classifier, or score texts with it.")
    text = "score this text (repeat it for several)"
    attribute.add_argument("--text", action="append", metavar="TEXT", help=text)
    attribute.add_argument("--file", metavar="FILE", help="score each line of this file")
    folder = ("checkpoint", "FOLDER", "a folder that from_pretrained loads")
    command("evaluate", "Evaluate any checkpoint folder.", first=folder)
    text = "Search settings: as many trials for each of methods=[…], then its best setting on seeds=[…]."
    command("tune", text, keys=KEYS_OF_TUNE)
    compare = command("compare", "Compare runs in one table, mean ± sd over seeds.", overrides=False)
    compare.add_argument("runs", nargs="+", metavar="RUN", help="run folders, or folders of run folders")
    text = "what to write; default: a table for the terminal"
    forms = ["table", "markdown", "csv", "latex"]
    compare.add_argument("--format", choices=forms, help=text)
    text = "rows by this figure, the best first; default: retrain_similarity"
    compare.add_argument("--sort", metavar="FIGURE", help=text)
    compare.add_argument("--out", metavar="FILE", help="write there instead of printing (not for table)")
    text = "Compute metrics again from per-sample records, without a model."
    add_rescore(command("rescore", text, overrides=False))
    store = command("store", "Check the artifact store, which keeps finished stages.", overrides=False)
    store.add_argument("action", choices=["verify"], help="verify: compare every file with its checksum")
    text = "the store; default: the user's cache folder"
    store.add_argument("cache_dir", nargs="?", metavar="DIR", help=text)
    text = "Write the deletion record of a run: what was requested, done and measured."
    receipt = command("receipt", text, False, ("run", "RUN", FINISHED))
    receipt.add_argument("--records", action="store_true", help="list the salted hash of each record too")
    text = "hash everything again and list what has changed"
    receipt.add_argument("--verify", action="store_true", help=text)
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
    terminal.printable_streams()
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
        terminal.check_working_directory()
        with terminal.terminable(), terminal.one_of_several(args, SHARED):
            code = COMMANDS[args.command](args)
            sys.stdout.flush()
            return code
    except DareuError as error:
        return failed(error.exit_code, error.cause, error.cure)
    except terminal.Terminated:
        return failed(143, "terminated; the same command continues from here.")
    except KeyboardInterrupt:
        return failed(130, "interrupted; the same command continues from here.")
    except BrokenPipeError:
        with suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes it at the end
        with suppress(BrokenPipeError):
            said = "what read the output has ended, and so the command ends."
            failed(1, said, "The same command continues from here.")
        return 1
    except (MemoryError, ImportError, OSError, RuntimeError) as error:
        from dareu.runs.files import out_of_memory

        if told := out_of_memory(error):
            return failed(told.exit_code, told.cause, told.cure)
        if isinstance(error, OSError) and error.errno in BAD_PATH and error.filename is not None:
            where = printable(f"{error.filename}: {error.strerror}.")
            return failed(2, where, "Check the path and your rights there.")
        if isinstance(error, RuntimeError) and ranks.lost_peer(error):
            return failed(1, ranks.LOST, ranks.GOES_ON)
        raise


def _as_options(argv: Sequence[str]) -> list[str]:
    """Options of `export` and `compare` may be written as keys are elsewhere: `format=gguf` for `--format=gguf`."""
    if not argv or argv[0] not in ("export", "compare"):
        return list(argv)
    return [f"--{word}" if word.startswith(("format=", "out=", "sort=")) else word for word in argv]


SHARED = ("train", "finetune", "attribute", "evaluate")  # commands that several processes may run together
COMMANDS = {
    "train": runs.run_train,
    "finetune": runs.run_finetune,
    "attribute": runs.run_attribute,
    "evaluate": runs.run_evaluate,
    "tune": runs.run_tune,
    "compare": reading.compare,
    "rescore": rescore,
    "receipt": reading.receipt,
    "store": reading.store,
    "export": run_export,
    "push": run_push,
    "configs": reading.configs,
}
