"""Flags of transformers' TrainingArguments that this project has otherwise, so that their files are read."""

import os
from dataclasses import dataclass

from pixelrec_train.config.training import RunFlags
from pixelrec_train.flags import Rule, at_least, flag, one_of

ALWAYS = "it is so in any case"
FP16 = Rule(
    "is refused: its range ends at 65,504, and losses overflow; --bf16 costs the same", lambda on: not on
)
LOCAL = Rule("is refused: nothing is sent anywhere", lambda on: not on)
ADAMW = Rule("must be one of AdamW's names: it is what trains here", lambda name: "adamw" in name.lower())


@dataclass(frozen=True, kw_only=True)
class TransformersRunFlags(RunFlags):
    """RunFlags by their names too, and what has no effect here, with the reason."""

    num_train_epochs: int = flag("passes over the texts", 1, at_least(1), alias=("num_epochs", "epochs"))
    per_device_train_batch_size: int = flag(
        "blocks, packs or pairs per GPU and micro-batch",
        4,
        at_least(1),
        may_differ=True,
        alias=("batch_size",),
    )
    overwrite: bool = flag(
        "replace a finished run in output_dir", False, may_differ=True, alias=("overwrite_output_dir",)
    )
    patience: int | None = flag(
        "stop after so many evaluations without a better figure; None = never",
        None,
        at_least(1),
        alias=("early_stopping_patience",),
    )
    best_by: str | None = flag(
        "validation figure that makes a checkpoint best_model; None = valid_loss, also called eval_loss",
        None,
        alias=("metric_for_best_model",),
    )
    resume: str | None = flag(
        "go on where a run stopped: auto = from the newest checkpoint in output_dir, if any; or one of them",
        None,
        may_differ=True,
        alias=("resume_from_checkpoint",),
    )
    entity: str | None = flag("WANDB_ENTITY, unless the environment has it", None, may_differ=True)
    mode: str | None = flag(
        "WANDB_MODE and SWANLAB_MODE, unless the environment has them",
        None,
        one_of("online", "offline", "disabled"),
        may_differ=True,
    )
    fp16: bool = flag("refused", False, FP16)
    push_to_hub: bool = flag("refused", False, LOCAL)
    optim: str = flag(
        "AdamW",
        "adamw_torch",
        ADAMW,
        without_effect="DeepSpeed's or torch's AdamW trains",
    )
    per_device_eval_batch_size: int | None = flag(
        "packs in evaluation", None, without_effect="a loss needs no other batch than training"
    )
    eval_strategy: str = flag(
        "when to validate",
        "epoch",
        without_effect="after each epoch, and every --eval_steps",
        alias=("evaluation_strategy",),
    )
    logging_strategy: str = flag("when to log", "steps", without_effect="every --logging_steps")
    logging_first_step: bool = flag("log step 1", False, without_effect="every --logging_steps")
    load_best_model_at_end: bool = flag("keep the best", True, without_effect="best_model/ is always kept")
    greater_is_better: bool | None = flag("of the figure", None, without_effect="the figure itself says it")
    dataloader_pin_memory: bool = flag("page-locked batches", True, without_effect=ALWAYS)
    remove_unused_columns: bool = flag("keep what is read", True, without_effect=ALWAYS)
    group_by_length: bool = flag("little padding", False, without_effect="packs have none")
    ddp_find_unused_parameters: bool = flag("of DDP", False, without_effect="DeepSpeed reduces, not DDP")
    ddp_timeout: int | None = flag("of DDP", None, without_effect="see --collective_timeout_minutes")
    do_train: bool = flag("train", True, without_effect=ALWAYS)
    do_eval: bool = flag("validate", True, without_effect="--eval_file says it")

    def __post_init__(self):
        super().__post_init__()
        if self.best_by == "eval_loss":
            self.set(best_by="valid_loss")

    def tell_trackers(self):
        """--entity and --mode into the environment, where trackers look for them."""
        told = {"WANDB_ENTITY": self.entity, "WANDB_MODE": self.mode, "SWANLAB_MODE": self.mode}
        for name, value in told.items():
            if value:
                os.environ.setdefault(name, value)
