"""Base, original and retrained model, and models that were trained elsewhere."""

import shutil
from pathlib import Path
from typing import Any, Literal

from dareu.config import HFConfig
from dareu.data.corpus import learnt
from dareu.data.render import encode_samples
from dareu.data.sources.registry import load_background
from dareu.models.files import ADAPTER
from dareu.runs import ranks
from dareu.runs.store import Building
from dareu.workflow.context import Context
from dareu.workflow.keys import folder_key, imported_key, samples_key
from dareu.workflow.library_settings import quiet_libraries
from dareu.workflow.loading import load_run_model, note_base
from dareu.workflow.prepare import tokenizer_texts
from dareu.workflow.stages.base import Artifact, Stage


class BaseModelStage(Stage):
    """The built-in model, pretrained where the data source has background text for it.

    A base from elsewhere is loaded from its own folder and not stored.
    """

    name = "base"

    def __init__(self, context: Context) -> None:
        super().__init__(context, "base model")

    def inputs(self) -> Any:
        return self.context.base

    def build(self, building: Building) -> dict[str, Any]:
        from dareu.models.tiny import make_tiny
        from dareu.workflow.stages.pretraining import pretrain

        config = self.context.config
        assert not isinstance(config.model, HFConfig)
        background = load_background(config.data, config.model.pretrain)
        if background is None:
            texts = tokenizer_texts(self.context.corpus)
            make_tiny(config.model, texts, config.seed, building.out / "model")
        else:
            with self.context.console.stage(self.title):
                pretrain(config.model, background, config.device, building, self.context)
        return {}

    def load(self) -> tuple[Any, Any]:
        """(model, tokenizer), fresh and seeded, with an adapter where the configuration asks for one."""
        from transformers import set_seed

        from dareu.models.load import load_base, load_model

        config = self.context.config
        if isinstance(config.model, HFConfig):
            set_seed(config.seed)
            return load_base(config.model, config.device)
        return load_model(self.get().model, device=config.device)

    def _get(self) -> Artifact:
        """Without a line on the screen where nothing is trained: that takes no time."""
        seed = self.context.config.seed
        with self.context.store.building(self.name, self.key(), config=self.inputs(), seed=seed) as building:
            if not building.done:
                building.finish(**self.build(building))
        return self._read(building)


class FineTuned(Stage):
    """The original model, trained on all samples, or the retrained one, trained without the forget set."""

    def __init__(
        self, context: Context, base: BaseModelStage, which: Literal["original", "retrained"]
    ) -> None:
        super().__init__(context, f"{which} model")
        self.base, self.which = base, which
        self.name = which  # type: ignore[misc]  # two stages of one class

    def samples(self) -> tuple[Any, ...]:
        """What it is trained on; of the original in corpus order, whatever is forgotten."""
        corpus, split = self.context.corpus, self.context.split
        return learnt(corpus.samples if self.which == "original" else split.retain, corpus)

    def inputs(self) -> Any:
        config = self.context.config
        adapter = isinstance(config.model, HFConfig)
        return {
            "base": self.base.key(),
            "adapter": config.model.model_dump(include={"adapter", "lora"}) if adapter else None,
            "finetune": config.finetune.content(),
            "data": samples_key(self.samples()),
            "seed": config.seed,
        }

    def prepare(self) -> None:
        import dareu.training.loss_trainer  # noqa: F401

        if not isinstance(self.context.config.model, HFConfig):
            self.base.whole()  # its time is its own, not this stage's

    def build(self, building: Building) -> dict[str, Any]:
        from dareu.models.load import checkpoint_activations, pick_device, save_model
        from dareu.training.common import Work, checkpoint_named, write_log
        from dareu.training.loss_spec import FINETUNE
        from dareu.training.loss_trainer import train_with_loss

        context, config = self.context, self.context.config
        model, tokenizer = self.base.load()
        if isinstance(config.model, HFConfig) and config.model.gradient_checkpointing:
            checkpoint_activations(model)
        rows = encode_samples(tokenizer, self.samples(), context.corpus.task, config.model.max_length)
        work = Work(
            building.work,
            building.tick,
            on_row=context.tracker.curve(self.curve or self.name),
            progress=context.console.progress(self.title),
            log_every=5,
        )
        with checkpoint_named(work):
            train_with_loss(
                model,
                tokenizer,
                method=FINETUNE,
                optim=config.finetune,
                rows=rows,
                seed=config.seed,
                device=str(pick_device(config.device)),
                work=work,
                by_length=config.finetune.group_by_length,
            )
        save_model(model, tokenizer, building.out / "model")
        note_base(context, building.out / "model")
        write_log(work, building.out / "training.jsonl")
        return {"steps": work.log[-1]["step"] if work.log else 0, "n_samples": len(rows)}


class Imported(Stage):
    """An original or a retrained model that was trained elsewhere: a copy in the store, so that later stages need only
    the store."""

    def __init__(
        self, context: Context, source: Path, which: Literal["original", "retrained"] = "original"
    ) -> None:
        super().__init__(context, f"{which} model")
        self.source, self.which = source, which
        self.name = which  # type: ignore[misc]  # two stages of one class
        self._content: str | None = None

    def inputs(self) -> Any:
        read = self.context.config.model.model_dump(include={"dtype", "chat_template", "quantization"})
        # The weights, and how they are read.
        return {"given": self.stored_as(), "read": read, "rendering": self.context.rendering}

    def stored_as(self) -> str:
        if self.which == "original" and self.context.imported is not None:
            return self.context.imported
        if self._content is None:
            self._content = imported_key(self.source)
        return self._content

    def build(self, building: Building) -> dict[str, Any]:
        """A copy, after the model was loaded once: an error is raised before anything is trained.

        An adapter that is not plain LoRA is folded into its base (`models.lora.put_on`).
        """
        return ranks.on_main(lambda: self._copy(building))

    def _copy(self, building: Building) -> dict[str, Any]:
        from dareu.models.load import add_lora, is_peft, save_model

        config, target = self.context.config.model, building.out / "model"
        with quiet_libraries():
            model, tokenizer = load_run_model(self.context, self.source, to_merge=True)
        if (self.source / ADAPTER).is_file() and not is_peft(model):
            save_model(model, tokenizer, target)
        else:
            shutil.copytree(self.source, target)
        wanted = self.which == "original" and isinstance(config, HFConfig) and config.adapter == "lora"
        if wanted and not is_peft(model):
            add_lora(model, config.lora)  # type: ignore[union-attr]  # it can be done
        return {"given": True}


class Checkpoint(Stage):
    """A checkpoint folder that `dareu evaluate` names. It stays where it is."""

    name = "checkpoint"

    def __init__(self, context: Context, folder: Path) -> None:
        super().__init__(context, "checkpoint")
        self.folder = folder

    def inputs(self) -> Any:
        """Its folder is its key, and `get` gives it as it is."""

    def key(self) -> str:
        if self._key is None:
            self._key = folder_key(self.folder)
        return self._key

    def build(self, building: Building) -> dict[str, Any]:
        raise NotImplementedError

    def done(self) -> bool:
        return True

    def whole(self) -> Artifact:
        """No checksums of it are known."""
        return self.get()

    def get(self) -> Artifact:
        nan = float("nan")
        return Artifact(self.folder, self.key(), nan, nan, {"given": str(self.folder)}, self.folder)
