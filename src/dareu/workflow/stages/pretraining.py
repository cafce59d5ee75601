"""Pretraining of the built-in model on the background text of a data source."""

from dareu.config import TinyConfig
from dareu.data.corpus import Background
from dareu.data.render import encode_samples
from dareu.models.cpu_matmul import with_fast_products
from dareu.models.load import pick_device, save_model
from dareu.models.tiny import new_tiny
from dareu.runs.store import Building
from dareu.training.common import Work, checkpoint_named, write_log
from dareu.training.early_stopping import GoodWeights
from dareu.training.loss_spec import FINETUNE
from dareu.training.loss_trainer import train_with_loss
from dareu.workflow.context import Context


def pretrain(
    config: TinyConfig, background: Background, device: str, building: Building, context: Context
) -> None:
    """Write a pretrained model to `building.out / "model"`.

    Openings of answers first, whole answers then (`model.pretrain`). Each phase has a folder of its own, so that a
    resumed run goes on with the one that was interrupted. Its seed is `model.pretrain.seed`: like a published model it
    is the same for all runs.
    """
    recipe = config.pretrain
    assert recipe is not None
    model, tokenizer = new_tiny(config, background.texts, recipe.seed, recipe.init_std)
    where = pick_device(device)
    with_fast_products(model).to(where)
    phases = {
        "openings": (recipe.openings, background.openings),
        "answers": (recipe.answers, background.answers),
    }
    for number, (name, (optim, samples)) in enumerate(phases.items()):
        folder = building.work / name
        finished = GoodWeights(folder / "finished.safetensors")
        if finished.restore(model):
            continue
        work = Work(
            folder,
            building.tick,
            on_row=context.tracker.curve(f"base/{name}"),
            progress=context.console.progress(f"base model: {name}"),
            log_every=5,
        )
        with checkpoint_named(work):
            train_with_loss(
                model,
                tokenizer,
                method=FINETUNE,
                optim=optim,
                rows=encode_samples(tokenizer, samples, "qa", config.max_length),
                seed=recipe.seed + number,
                device=str(where),
                work=work,
            )
        write_log(work, building.out / f"training-{name}.jsonl")
        finished.keep(model)
    save_model(model, tokenizer, building.out / "model")
