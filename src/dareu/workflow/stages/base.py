"""What every stage has: a content key, a way to build its result, and a result that is made at most once."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from rich.markup import escape

from dareu.errors import ModelError
from dareu.runs import ranks
from dareu.runs.files import out_of_memory
from dareu.runs.manifest import content_key
from dareu.runs.store import MANIFEST, Building, artifact_damage
from dareu.workflow.context import Context
from dareu.workflow.library_settings import quiet_libraries


@dataclass(frozen=True)
class Artifact:
    """The result of a stage.

    Attributes:
        path: Its folder.
        key: The content key of the stage.
        seconds: How long it took when it was made.
        peak_memory_mb: The most memory that its process held.
        extra: What the stage says of it, such as how training ended.
        model: The model folder, where the result is a model.
    """

    path: Path
    key: str
    seconds: float
    peak_memory_mb: float
    extra: dict[str, Any]
    model: Path


class Stage(ABC):
    """One box of the drawing. Nothing is built before `get` is called."""

    name: ClassVar[str]  # its folder in the store
    # What to lower where memory is short.
    memory_keys: ClassVar[str] = "finetune.micro_batch_size or model.max_length"

    def __init__(self, context: Context, title: str) -> None:
        self.context, self.title = context, title
        self.curve: str | None = None  # what a tracker calls its training; None: its name
        self._key: str | None = None
        self._artifact: Artifact | None = None
        self._checked = False  # every byte of the result is known to be as it was written

    @abstractmethod
    def inputs(self) -> Any:
        """Everything that the result depends on, for the content key; the manifest shows it."""

    @abstractmethod
    def build(self, building: Building) -> dict[str, Any]:
        """Make the result in `building.out`; continue from `building.work`. Returns the artifact's `extra`."""

    def prepare(self) -> None:  # noqa: B027  most stages need nothing
        """Get the stages that `build` needs and import libraries: not counted in this stage's seconds."""

    def key(self) -> str:
        """The content key of the result. Nothing is built for it."""
        if self._key is None:
            self._key = content_key(self.inputs())
        return self._key

    def stored_as(self) -> str:
        """The key under which the store holds the result."""
        return self.key()

    def done(self) -> bool:
        """Whether the store holds the result."""
        return self.context.store.find(self.name, self.stored_as()) is not None

    def get(self) -> Artifact:
        """The result, from the store or built now."""
        if self._artifact is None:
            self._artifact = self._get()
        return self._artifact

    def whole(self) -> Artifact:
        """`get`, with every file's checksum compared once: what is damaged is built again, with a notice.

        For what is about to be read in full, such as weights: half a gigabyte takes .3 to 1 s.
        """
        path = self.get().path
        if not self._checked and (wrong := ranks.on_main(lambda: self._discard_damaged(path))):
            self.context.console.print(
                f"[yellow]! {escape(f'{path} is damaged ({wrong}); it is made again.')}[/]"
            )
            self._artifact = None
        self._checked = True
        return self.get()

    def _discard_damaged(self, path: Path) -> str | None:
        """What is wrong with the artifact, which then counts as absent; None where it is whole."""
        if not (path / MANIFEST).is_file():
            return None
        if artifact_damage(path, checksums=True) is None:
            return None
        lock = self.context.store.lock(self.name, self.stored_as())
        try:
            wrong = artifact_damage(path, checksums=True)  # another process may have made it again
            if wrong:
                (path / MANIFEST).unlink(missing_ok=True)
        finally:
            lock.release()
        return wrong

    def _get(self) -> Artifact:
        context = self.context
        if not self.done():
            self.prepare()
        seed = context.config.seed
        with context.store.building(self.name, self.stored_as(), config=self.inputs(), seed=seed) as building:
            if building.done:
                context.console.print(f"[green]✓[/] {self.title} [dim]from the store[/]")
            else:
                with context.console.stage(self.title), quiet_libraries(), self._memory():
                    building.finish(**self.build(building))
                self._checked = True
        return self._read(building)

    @contextmanager
    def _memory(self) -> Iterator[None]:
        """Name the keys where memory is used up."""
        try:
            yield
        except (MemoryError, RuntimeError, OSError, ModelError) as caught:
            error = out_of_memory(caught, f"the stage '{self.title}'", self.memory_keys)
            if error is None:
                raise
            raise error from caught

    def _read(self, building: Building) -> Artifact:
        manifest, path = building.manifest, building.path
        return Artifact(
            path, self.key(), manifest.seconds, manifest.peak_memory_mb, manifest.extra, path / "model"
        )
