"""Where modules went. Public is what the README shows, but scripts import more: an old path gives today's names."""

from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any
from warnings import warn

MOVED: dict[str, tuple[str, ...]] = {
    "dareu.data.local": ("dareu.data.sources.files",),
    "dareu.evaluation.similarity": ("dareu.evaluation.metrics.rouge",),
    "dareu.evaluation.text": ("dareu.evaluation.metrics.text_health", "dareu.data.words"),
    "dareu.models.given": ("dareu.models.import_model",),
    "dareu.pipeline": ("dareu.workflow",),
    "dareu.pipeline.bench": ("dareu.workflow.prepare", "dareu.workflow.stages"),
    "dareu.pipeline.compose": ("dareu.config.compose",),
    "dareu.pipeline.prepare": ("dareu.workflow.prepare",),
    "dareu.pipeline.sweep": ("dareu.workflow.sweep",),
    "dareu.unlearner": ("dareu.api",),
}


class OldPaths(MetaPathFinder, Loader):
    """Finds the modules of `MOVED`: copies of where they are now."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """For an old path alone."""
        return ModuleSpec(fullname, self, is_package=True) if fullname in MOVED else None

    def exec_module(self, module: ModuleType) -> None:
        """Fill the old module, and say where its names are now."""
        places = MOVED[module.__name__]
        warn(f"{module.__name__} is now {' and '.join(places)}.", DeprecationWarning, stacklevel=2)
        for place in places:
            names = vars(import_module(place)).items()
            vars(module).update({name: value for name, value in names if not name.startswith("__")})
        vars(module).update(GONE.get(module.__name__, {}))


class Bench:
    """What was `pipeline.bench.Bench`: the context of a run, and the key and the result of each stage.

    Today: `workflow.prepare.prepare` and `workflow.stages.Stages`.
    """

    def __init__(self, config: Any, corpus: Any = None) -> None:
        from dareu.workflow.prepare import prepare
        from dareu.workflow.stages import Stages

        self.context = prepare(config, corpus)
        self.stages = Stages(self.context)

    def __getattr__(self, name: str) -> Any:
        if name.endswith("_key"):
            return getattr(self.stages, name.removesuffix("_key")).key()
        stage = getattr(self.stages, name, None)
        return getattr(self.context, name) if stage is None else stage.get()


GONE = {"dareu.pipeline.bench": {"Bench": Bench}}  # names that no module has today
