"""`dareu train` and `dareu evaluate`: every stage in its order, and the run folder that a person opens afterwards.

validate ─→ original ─→ retrained ─→ attributor ─→ unlearned ─→ evaluation of each ─→ results.json, report.html
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.markup import escape

from dareu.config import RunConfig, TinyConfig
from dareu.config.compose import as_yaml
from dareu.data.corpus import Corpus
from dareu.data.render import encode_samples
from dareu.data.split import forget_note
from dareu.errors import DataError, RunError, reason_of
from dareu.runs import ranks
from dareu.runs.files import disk_full, write_json
from dareu.runs.folder import RunFolder, check_place, default_run_dir, input_paths
from dareu.runs.manifest import content_key
from dareu.workflow.console import Console
from dareu.workflow.context import Context
from dareu.workflow.figures import Figures
from dareu.workflow.library_settings import freeze_imports, quiet_libraries
from dareu.workflow.memory import check_run_memory, memory_parts
from dareu.workflow.prepare import prepare, slow_bfloat16
from dareu.workflow.results import broken_model, finished_results, lost_provenance, make_results, write_run
from dareu.workflow.sequential import SequentialRequest, requests_key, sequential_requests, unlearn_in_turn
from dareu.workflow.stages import Artifact, Checkpoint, Stage, Stages
from dareu.workflow.tracking.content import tracked_config, tracked_figures
from dareu.workflow.validate import check_engine, check_model_folder

LOG, FAILURE = "run.log", "failure.json"
LEARNT = 0.8  # forget ROUGE-L of an original model that knows its data


@dataclass
class Run:
    """The stages of a run and the model that it ends with. Nothing is built by making one.

    Attributes:
        stages: Of the whole run.
        requests: Sequential requests; empty for a single request.
        model: The stage whose result is evaluated last.
        method: What that model is made by.
        tuning: How `dareu tune` chose the setting.
    """

    stages: Stages
    requests: list[SequentialRequest]
    model: Stage
    method: str
    tuning: Mapping[str, Any] | None = None
    folder: RunFolder | None = field(default=None, init=False)

    @classmethod
    def plan(
        cls,
        config: RunConfig,
        corpus: Corpus | None = None,
        console: Console | None = None,
        tuning: Mapping[str, Any] | None = None,
        under: str | None = None,
    ) -> Run:
        """Validate the whole run and connect its stages. `under`: as for `open`; errors as `prepare`, `check_place`."""
        if config.run_dir and not under:  # a folder of runs holds other runs
            check_place(config.run_dir)
        stages = Stages(prepare(config, corpus, console))
        check_engine(config)
        requests = sequential_requests(stages)
        model = requests[-1].unlearned if requests else stages.unlearned
        return cls(stages, requests, model, config.method.name, tuning)

    @property
    def console(self) -> Console:
        return self.stages.context.console

    def key(self) -> str:
        """Content key of everything that the figures depend on."""
        stages, config = self.stages, self.stages.context.config
        tree = {
            "model": self.model.key(),
            "attributor": stages.attributor.key(),
            "retrained": stages.retrained.key() if stages.retrained else None,
            **({"seeds": [one.key() for one in stages.retrained_seeds]} if stages.retrained_seeds else {}),
            "evaluation": config.evaluation.measured() | {"batch_size": config.evaluation.batch_size},
            "forget": stages.context.split.forget_owners,
        }
        return content_key(tree | requests_key(stages))

    def open(
        self, under: str | None = None, name: str | None = None, inputs: Sequence[str] = ()
    ) -> RunFolder:
        """The run's folder: `run_dir`, or one below `under`, called after `name` (default: the method).

        Args:
            inputs: Files and folders that the run reads beside those that its configuration names.

        Raises:
            RunError: As `RunFolder.open`.
        """
        config, key = self.stages.context.config, self.key()
        path = default_run_dir(name or self.method, config.seed, key)
        if under or config.run_dir:
            path = Path(under) / path.name if under else Path(str(config.run_dir))
        read = [*input_paths(config.model_dump(mode="json")), *inputs]
        self.folder = ranks.on_main(
            lambda: RunFolder.open(path, key, as_yaml(config), config.overwrite, read)
        )
        return self.folder

    def finished(self, what: str) -> dict[str, Any] | None:
        """The results where the folder has them already, which is said of the run, called `what`; else None."""
        folder = self.folder
        assert folder is not None
        if not folder.finished:
            return None
        if told := ranks.on_main(lambda: lost_provenance(folder.path)):
            self.console.print(f"[yellow]! {escape(told)}[/]")
        if wrong := ranks.on_main(lambda: broken_model(folder.path)):
            self.console.print(f"[yellow]! {escape(wrong)} It is written again.[/]")
            self.unlearn(evaluate=False)
            ranks.on_main(lambda: folder.put_model(self.model.whole().model))
        folder.release()
        logger = self.stages.context.config.logging.report_to
        more = "" if logger == "none" else f"; logging={logger} writes nothing now."
        self.console.print(f"This {what} is finished already: {escape(str(folder.path))}{more}")
        return ranks.on_main(lambda: finished_results(folder.path, self.tuning))

    def unlearn(self, evaluate: bool) -> Artifact:
        """Build every stage up to the unlearned model.

        Args:
            evaluate: Evaluate each of several requests before the next one begins.
        """
        assert self.folder is not None
        if self.requests:
            unlearn_in_turn(self.stages, self.requests, evaluate)
        return self.model.get()

    def check_original(self) -> None:
        """Warn where the original model has not learnt the forget set: there is nothing to forget then."""
        forget = self.stages.evaluation(self.stages.original, "original").read().summary.get("forget") or {}
        rouge = forget.get("rouge_l")
        if rouge is not None and rouge < LEARNT:
            self.console.print(
                f"[yellow]! The original model has not learnt its data: ROUGE-L {rouge:.2f} on the forget set. "
                "There is little to forget; train it longer (finetune.epochs).[/]"
            )

    def figures(self) -> Figures:
        """The figures of original, retrained and unlearned model; with sequential requests after the last one."""
        if self.requests:
            return self.requests[-1].figures()
        return Figures.of(self.stages.context, self.stages.evaluate(self.model))

    def finish(self) -> dict[str, Any]:
        """Evaluate all models and fill the run folder. Returns what `results.json` holds, and `run_dir`."""
        folder = self.folder
        assert folder is not None
        for request in self.requests:
            request.figures()
        figures = self.figures()
        results = make_results(self.stages, self.model, figures, self.method, self.requests, self.tuning)
        # It is copied into the run folder, so that every byte of it is looked at.
        unlearned = self.model.get() if ranks.world_size() > 1 else self.model.whole()
        original = self.stages.original.get().model

        self.stages.context.tracker.finish(tracked_figures(results))

        def write() -> dict[str, Any]:
            lock = self.stages.context.store.lock("run", folder.key)  # the same command may run twice at once
            try:
                if not folder.finished:
                    forget = self.stages.context.split.forget
                    write_run(
                        folder, results, unlearned, figures, self.requests, forget=forget, original=original
                    )
                return finished_results(folder.path, self.tuning)
            finally:
                lock.release()

        return ranks.on_main(write)


def train(
    config: RunConfig,
    corpus: Corpus | None = None,
    console: Console | None = None,
    under: str | None = None,
    tuning: Mapping[str, Any] | None = None,
    opened: Callable[[Path], Any] = lambda path: None,
) -> dict[str, Any]:
    """Run everything that `config` describes and return what `results.json` holds.

    A finished run is not run again; an interrupted one continues where it stopped.

    Args:
        under: A folder of run folders, in place of `run_dir`.
        tuning: How `dareu tune` chose the setting, for the results.
        opened: Called with the run folder once it is there.
    """
    run = Run.plan(config, corpus, console, tuning, under)
    opened(run.open(under).path)
    if (finished := run.finished("run")) is not None:
        return finished
    with working(run):
        if not run.model.done() and (warning := check_run_memory(run.stages.context)):
            run.console.print(f"[yellow]! {escape(warning)}[/]")
        freeze_imports()
        if run.stages.retrained and not run.requests:
            run.stages.original.get()
            run.stages.retrained.get()
        if not run.requests:
            run.check_original()
        run.unlearn(evaluate=True)
        return run.finish()


def planned(config: RunConfig, corpus: Corpus | None = None) -> dict[str, Any]:
    """What a run would do. Nothing is built.

    Returns:
        `forget`: `owners`, `n_owners`, `n_forget`, `n_retain`; `notes`: what to know of the data; `stages`: in
        their order, each with `stage`, `key`, and whether it is `stored`; `memory_mib`: estimated by part, None
        where the model's shape cannot be read beforehand; `memory_warning`: where it may not fit.

    Raises:
        ConfigError: Among others where the model cannot fit into memory.
    """
    run = Run.plan(config, corpus, Console(silent=True))
    stages = run.stages
    context, split = stages.context, stages.context.split
    built = context.base and isinstance(context.config.model, TinyConfig)
    order: list[tuple[Stage | None, str]] = [(stages.base, "")] if built else []
    order.append((stages.original, ""))
    if not run.requests:
        order += [(one, "") for one in (stages.retrained, stages.attributor, stages.unlearned)]
        order += [(one, "") for one in stages.evaluations(run.model).values()]
    for request in run.requests:
        suffix, last = f", round {request.number}", request.cumulative
        order += [(stages.attributor, "")] if request.number == 1 else []
        order += [(request.unlearned, suffix), (last.retrained if request.compared else None, suffix)]
        order += [(one, suffix) for one in last.evaluations(request.unlearned, request.compared).values()]
    with quiet_libraries():
        parts, warning = memory_parts(stages.context), check_run_memory(stages.context)
    return {
        "forget": {
            "owners": list(split.forget_owners),
            "n_owners": len(context.corpus.owners),
            "n_forget": len(split.forget),
            "n_retain": len(split.retain),
        },
        "notes": [forget_note(split), *context.notes, *slow_bfloat16(context.config)],
        "stages": [
            {"stage": one.title + suffix, "key": one.key(), "stored": one.done()}
            for one, suffix in order
            if one is not None
        ],
        "memory_mib": parts,
        "memory_warning": warning,
    }


def evaluate(
    config: RunConfig, checkpoint: str, corpus: Corpus | None = None, console: Console | None = None
) -> dict[str, Any]:
    """Evaluate any checkpoint folder as if a method had made it."""
    check_model_folder(checkpoint, must_be_local=True)
    path = Path(checkpoint)
    stages = Stages(prepare(config, corpus, console, unlearns=False))
    with quiet_libraries():
        from dareu.models.load import check_tokenizer, load_tokenizer

        # Before the stages are built: the checkpoint is evaluated last.
        trust = getattr(config.model, "trust_remote_code", False)
        for folder in (checkpoint, *config.retrained_folders):
            tokenizer = load_tokenizer(folder, trust_remote_code=trust)
            check_tokenizer(Path(folder).expanduser(), tokenizer)
            if folder == checkpoint:
                _check_tokenizer(stages.context, checkpoint, tokenizer)
    name = path.parent.name if path.name == "model" and path.parent.name else path.name
    run = Run(stages, [], Checkpoint(stages.context, path), name)
    run.open(name=f"evaluate-{name}", inputs=[checkpoint])
    if (finished := run.finished("evaluation")) is not None:
        return finished
    with working(run):
        return run.finish()


def _check_tokenizer(context: Context, checkpoint: str, tokenizer: Any) -> None:
    """Check that the checkpoint's tokenizer makes no row longer than the run allows.

    Raises:
        DataError: It does.
    """
    split, longest = context.split, context.config.model.max_length
    try:
        encode_samples(tokenizer, [*split.forget, *split.retain, *split.test], context.corpus.task, longest)
    except DataError as error:
        raise DataError(
            f"The tokenizer of {checkpoint} is not the one of this run: {error.cause}",
            "Name the model that it belongs to (model=hf model.path=… or original=FOLDER).",
        ) from None


def _tracked(run: Run) -> AbstractContextManager[None]:
    """The run in the tracker that `logging` names, called as its folder is by default."""
    assert run.folder is not None
    context = run.stages.context
    forgotten = {*context.forgotten, *(name for one in context.requests for name in one.so_far.forget_owners)}
    name = default_run_dir(run.method, context.config.seed, run.folder.key).name
    logs = run.folder.path / "logs"
    return context.tracker.run(logs, name, lambda: tracked_config(context.config, forgotten))


@contextmanager
def working(run: Run) -> Iterator[None]:
    """Libraries quiet, lines in the run's log, and the reason of a failure where comparisons look for it."""
    assert run.folder is not None
    console, failure = run.console, run.folder.path / FAILURE
    console.log_file = run.folder.path / LOG
    if ranks.is_main():
        failure.unlink(missing_ok=True)  # of an attempt that this one continues
    try:
        with run.folder.working(), quiet_libraries(run.stages.context.config.threads), _tracked(run):
            yield
    except Exception as caught:
        error = disk_full(caught, run.stages.context.store.root) or caught
        reason = ranks.LOST if ranks.lost_peer(error) else reason_of(error)
        with suppress(OSError, RunError):  # on a full disk: the cause is reported, not this
            console.log(f"failed: {reason}")
            if ranks.is_main():
                write_json(failure, {"reason": reason})
        if error is caught:
            raise
        raise error from caught
    finally:
        console.log_file = None
