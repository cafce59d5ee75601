"""A whole run: evaluation, logging, and all parts with the checks across them."""

from __future__ import annotations

import os
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from dareu.config.attributor import AttributorConfig
from dareu.config.base import Count, Integer, Number, Optim, Seed, Share, Strict, Text
from dareu.config.data import AuthorsConfig, DataConfig, ForgetConfig, RoundsConfig
from dareu.config.methods import MethodConfig
from dareu.config.models import ModelConfig, TinyConfig
from dareu.config.rl import DAREU_WARM, DareUConfig


class EvaluationConfig(Strict):
    """`part` says which of forget, retain and test samples are evaluated; training always sees all of them.

    `validation` is what settings are chosen on, `report` all the rest (see `dareu.data.parts`).
    """

    suite: Literal["fast", "tofu", "muse", "privacy", "robustness", "full"] = Field(
        "fast", description="the metrics that are computed (see docs/metrics.md)"
    )
    truth_ratio: Literal["geometric", "arithmetic", "open-unlearning"] = Field(
        "geometric",
        description="mean over the wrong answers: geometric (TOFU's code), arithmetic (TOFU's paper), "
        "open-unlearning (geometric, 1e-10 added to denominators)",
    )
    batch_size: Count = Field(128, description="answers that are generated, or rows that are scored, at once")
    max_new_tokens: Count | None = Field(
        None, description="tokens of an answer at most; null: the longest reference + 8"
    )
    retain_limit: Count | None = Field(None, description="evaluate this many retain samples; null: all")
    reattribution_threshold: Share = Field(
        0.9, description="an answer counts as another owner's from this probability on"
    )
    part: Literal["all", "validation", "report"] = Field(
        "all",
        description="samples that are evaluated; validation: those that settings are chosen on, report: the rest",
    )
    validation_share: Number = Field(
        0.5, gt=0, lt=1, description="share of each set of samples that is in the part `validation`"
    )
    samples: Count = Field(
        8,
        description="answers sampled for each forget question at temperature 1, for the sampled leak and FADE",
    )
    relearn_lr: Number | None = Field(
        None,
        gt=0,
        le=1,
        description="learning rate of the relearning probes; null: a quarter of finetune.lr",
    )
    attributors: tuple[Text, ...] | None = Field(
        None,
        description="attributors of the audit, of char, word, bm25, substring, embedding, encoder, counterfactual, "
        "watermark; null: all of them in the suite full, none in the others",
    )
    lm_eval: tuple[Text, ...] = Field(
        (), description="tasks of lm-evaluation-harness (extra lm_eval) that every model is evaluated on"
    )
    likelihoods: bool = Field(
        True, description="false leaves out probability and truth ratio, most of the time"
    )

    def measured(self) -> dict[str, Any]:
        """What the figures depend on, for content keys; keys at a default that changes nothing are left out."""
        tree = self.model_dump(exclude={"batch_size", "attributors"})
        if self.part == "all":
            del tree["part"], tree["validation_share"]
        if self.likelihoods:
            del tree["likelihoods"]
        if self.relearn_lr is None:
            del tree["relearn_lr"]
        if not self.lm_eval:
            del tree["lm_eval"]
        return tree


class LoggingConfig(Strict):
    """Where training logs go beside the run folder."""

    report_to: Literal["none", "wandb", "tensorboard", "trackio"] = Field(
        "none", description="logger beside the run folder"
    )
    project: Text = Field("dareu", description="project of the logger")
    offline: bool = Field(True, description="keep the logger's files here, send nothing")
    every: Count = Field(1, description="optimizer steps between logged ones")


class FinetuneOptim(Optim):
    """How original and retrained model are fine-tuned."""

    lr: Number = Field(3e-3, gt=0, le=10, description="learning rate at its highest")
    epochs: Number = Field(12, gt=0, le=10_000, description="passes over the data; parts of one are allowed")
    scheduler: Literal["linear", "cosine", "constant", "constant_with_warmup"] = Field(
        "cosine", description="learning rate after the warm-up"
    )
    warmup_ratio: Share = Field(
        0.05, description="share of the steps in which the learning rate rises from 0"
    )
    weight_decay: Number = Field(0.01, ge=0, le=10, description="weight decay of AdamW")
    group_by_length: bool = Field(
        False, description="batches of rows of like length: fewer pads, so less time; other batches"
    )

    def content(self) -> dict[str, Any]:
        """What the trained weights depend on, for content keys."""
        unread = {"save_every"} if self.group_by_length else {"save_every", "group_by_length"}
        return self.model_dump(exclude=unread)


class RunConfig(Strict):
    """Everything a run needs."""

    seed: Seed = Field(41, description="seed of the whole run; the generated corpus has its own, data.seed")
    run_dir: Text | None = Field(
        None, description="folder of this run's results; null: runs/<method>-seed<seed>-<key>"
    )
    cache_dir: Text | None = Field(
        None,
        description="artifact store, shared by runs; null: $DAREU_CACHE_DIR, or the user's cache folder",
    )
    overwrite: bool = Field(
        False, description="replace the run that run_dir holds: its own files are deleted, no others"
    )
    retrain: bool = Field(
        True, description="also train the model that never saw the forget set, and compare with it"
    )
    original: Text | None = Field(
        None, description="folder of a model that was fine-tuned on this data elsewhere, used as the original"
    )
    retrained: Text | Annotated[tuple[Text, ...], Field(min_length=1)] | None = Field(
        None,
        description="folder of a model that was trained elsewhere on this data without the forget set, used as the "
        "retrained model; a list of folders: the first is the retrained model, the others are the same with other "
        "seeds, and say which differences are chance",
    )
    device: Text = Field(
        "auto", description="auto (the first accelerator, else the CPU), cpu, cuda, cuda:1, mps, …"
    )
    threads: Integer | None = Field(
        None, ge=1, le=1024, description="threads of PyTorch on the CPU; null: PyTorch's choice"
    )
    experiment: Text | None = Field(None, description="name of the experiment file that was chosen")
    forget: ForgetConfig = Field(ForgetConfig(), description="whose data is forgotten")
    rounds: RoundsConfig | None = Field(None, description="requests one after another, in place of forget")
    data: DataConfig = Field(AuthorsConfig(), description="the data with its owners")
    model: ModelConfig = Field(TinyConfig(), description="the model that is fine-tuned")
    finetune: FinetuneOptim = Field(
        FinetuneOptim(), description="how original and retrained model are fine-tuned"
    )
    attributor: AttributorConfig = Field(AttributorConfig(), description="the attribution classifier")
    method: MethodConfig = Field(DAREU_WARM, description="the unlearning method")
    evaluation: EvaluationConfig = Field(EvaluationConfig(), description="how models are evaluated")
    logging: LoggingConfig = Field(LoggingConfig(), description="where training logs go")

    @property
    def retrained_folders(self) -> tuple[str, ...]:
        """The retrained models from elsewhere, the one to compare with first."""
        return (self.retrained,) if isinstance(self.retrained, str) else self.retrained or ()

    @model_validator(mode="after")
    def _go_together(self) -> RunConfig:
        if self.retrained and not self.retrain:
            raise ValueError("retrain=false and retrained=FOLDER contradict one another; give one of them")
        folders = [os.path.realpath(os.path.expanduser(folder)) for folder in self.retrained_folders]
        if twice := [one for i, one in enumerate(self.retrained_folders) if folders[i] in folders[:i]]:
            raise ValueError(
                f"retrained names {twice[0]} twice, which is no model of another seed; name it once"
            )
        if self.retrained and self.rounds is not None:
            raise ValueError("each of several requests needs its own retrained model; leave retrained out")
        if getattr(self.method, "evaluate_every", None) and self.evaluation.part == "all":
            raise ValueError(
                "method.evaluate_every chooses weights on the validation part, which would be reported too; "
                "set evaluation.part=report"
            )
        return self

    @model_validator(mode="after")
    def _blind(self) -> RunConfig:
        if self.attributor.blind or not isinstance(self.method, DareUConfig):
            return self
        reward = self.method.reward
        needs = {
            "blind": reward.blind and self.method.reads_attributor,  # by the reward or by the stopping rule
            "nameless": reward.nameless and reward.kind == "attribution",
        }
        for key, needed in needs.items():
            if needed:
                raise ValueError(
                    f"method.reward.{key}=true needs attributor.blind=true; set method.reward.{key}=false as well"
                )
        return self

    @field_validator("rounds")
    @classmethod
    def _alone(cls, rounds: RoundsConfig | None, info: ValidationInfo) -> RoundsConfig | None:
        forget = info.data.get("forget") or ForgetConfig()
        forget_keys = ", ".join(
            f"forget.{key}" for key in forget.model_dump(exclude_none=True, exclude_defaults=True)
        )
        if rounds is not None and forget_keys:
            raise ValueError(f"rounds and {forget_keys} contradict one another; give one of them")
        return rounds
