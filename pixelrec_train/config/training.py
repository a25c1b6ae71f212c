"""Flags of any training: its steps, and what it leaves."""

from dataclasses import dataclass

from pixelrec_train.errors import InputError
from pixelrec_train.flags import (
    DISTINCT,
    FILE,
    MINUTES,
    NOT_NEGATIVE,
    POSITIVE,
    RANKS,
    SEED,
    SHARE,
    Flags,
    Rule,
    at_least,
    flag,
    one_of,
)


@dataclass(frozen=True, kw_only=True)
class LaunchFlags(Flags):
    """How ranks meet."""

    collective_timeout_minutes: float = flag(
        "a rank that waits this long for the others gives up", 30.0, MINUTES, may_differ=True
    )
    local_rank: int = flag("set by the launcher", -1, may_differ=True)


@dataclass(frozen=True, kw_only=True)
class OptimisationFlags(Flags):
    """Steps: how many, how large."""

    per_device_train_batch_size: int = flag(
        "windows per GPU and micro-batch", 4, at_least(1), may_differ=True  # the global batch may not
    )  # fmt: skip
    gradient_accumulation_steps: int = flag(
        "micro-batches per optimizer step; each keeps its own pool", 1, at_least(1)
    )
    num_train_epochs: int = flag("passes over the training windows", 5, at_least(1))
    max_steps: int | None = flag(
        "optimizer steps after which training ends; None = all epochs", None, at_least(1)
    )
    learning_rate: float = flag("peak of its schedule, reached after the warm-up", 1e-4, POSITIVE)
    min_lr: float = flag("where the cosine or line of the learning rate ends", 0.0, NOT_NEGATIVE)
    lr_scheduler_type: str = flag(
        "after the warm-up: cosine (also called cosine_with_min_lr) or linear, both down to --min_lr, or "
        "constant_with_warmup (level)",
        "cosine",
        one_of("cosine", "linear", "constant_with_warmup", "cosine_with_min_lr"),
    )
    decay_steps: int | None = flag(
        "optimizer steps after which the rate stays at --min_lr while training goes on; None = all",
        None,
        at_least(1),
    )
    warmup_ratio: float = flag(
        "share of all optimizer steps (or of --decay_steps) spent warming up, in [0, 1)", 0.1, SHARE
    )
    warmup_steps: int | None = flag(
        "optimizer steps spent warming up; None = --warmup_ratio of all",
        None,
        Rule("must not be negative", lambda steps: steps >= 0),
    )
    weight_decay: float = flag(
        "AdamW decay of weight matrices; vectors (norms, biases) are not decayed", 0.01, NOT_NEGATIVE
    )
    adam_beta1: float = flag("share of AdamW's mean gradient kept at a step, in [0, 1)", 0.9, SHARE)
    adam_beta2: float = flag("the same of its mean squared gradient, in [0, 1)", 0.999, SHARE)
    adam_epsilon: float = flag("added to the divisor of AdamW's step", 1e-8, POSITIVE)
    max_grad_norm: float = flag("gradients are scaled down to this global norm; 0 = never", 1.0, NOT_NEGATIVE)
    bf16: bool = flag("bf16 weights and activations over fp32 master weights; False = fp32", True)
    grad_accum_dtype: str | None = flag(
        "fp32 or bf16: in which gradients are added up over micro-batches and sent between ranks; None = as "
        "the DeepSpeed JSON says, else in the weights' own",
        None,
        one_of("fp32", "bf16"),
    )
    seed: int = flag("of initial weights, window order and negatives", 42, SEED)
    dataloader_num_workers: int = flag(
        "processes per rank that prepare batches; 0 = in the training process",
        4,
        Rule("must not be negative", lambda workers: workers >= 0),
        may_differ=True,
    )
    deepspeed: str = flag(
        "DeepSpeed JSON: ZeRO stage, buckets, precision",
        "configs/ds_config_zero2.json",
        path=FILE,
        may_differ=True,
    )

    def __post_init__(self):
        super().__post_init__()
        if self.lr_scheduler_type == "cosine_with_min_lr":
            self.set(lr_scheduler_type="cosine")
        if self.min_lr > self.learning_rate:
            raise InputError(
                f"--min_lr {self.min_lr} is above --learning_rate {self.learning_rate}, from which the rate "
                f"falls to it. Lower it."
            )
        if self.lr_scheduler_type == "constant_with_warmup" and (self.min_lr or self.decay_steps):
            name = "min_lr" if self.min_lr else "decay_steps"
            raise InputError(
                f"--lr_scheduler_type constant_with_warmup never falls, so --{name} {getattr(self, name)} "
                f"has nothing to do. Leave one of the two out."
            )
        if self.decay_steps and (self.warmup_steps or 0) > self.decay_steps:
            raise InputError(
                f"--warmup_steps {self.warmup_steps} is above --decay_steps {self.decay_steps}: the rate "
                f"would fall before it has risen. Raise --decay_steps, or lower --warmup_steps."
            )


@dataclass(frozen=True, kw_only=True)
class OutputFlags(Flags):
    """What a run leaves, where and how often."""

    output_dir: str = flag(
        "run directory: checkpoints, metrics.jsonl, table", "results/pixelrec", may_differ=True
    )
    logging_dir: str = flag(
        "TensorBoard events; the log file is <logging_dir>_train.log", "logs/pixelrec", may_differ=True
    )
    logging_steps: int = flag("optimizer steps between two log lines", 20, at_least(1))
    eval_steps: int | None = flag(
        "judge every so many optimizer steps too; None = after each epoch", None, at_least(1)
    )
    save_steps: int | None = flag(
        "save every so many optimizer steps too; None = after each epoch", None, at_least(1), may_differ=True
    )
    save_strategy: str = flag(
        "epoch = save after each epoch, and at --save_steps; steps = at --save_steps and the end alone",
        "epoch",
        one_of("epoch", "steps"),
        may_differ=True,
    )
    save_total_limit: int = flag(
        "newest checkpoints kept; best_model is kept besides", 5, at_least(1), may_differ=True
    )
    checkpoint_layout: str = flag(
        "plain = checkpoint-epoch-3/, checkpoint-step-120/; global_step = step120/global_step120/, and the "
        "newest one's name in the file latest",
        "plain",
        one_of("plain", "global_step"),
        may_differ=True,
    )
    preflight: bool | None = flag(
        "try a block of evaluation and a checkpoint before training starts; None = behind the first log line "
        "of a run that is to take more than ten minutes",
        None,
        may_differ=True,
    )
    overwrite: bool = flag("replace a finished run in output_dir", False, may_differ=True)
    profile: int | None = flag(
        "micro-batches to profile: costs in the log, trace.json in output_dir",
        None,
        at_least(1),
        may_differ=True,
    )

    def __post_init__(self):
        super().__post_init__()
        if self.save_strategy == "steps" and not self.save_steps:
            raise InputError("--save_strategy steps needs --save_steps: how many?")


TRACKERS = ("wandb", "swanlab", "trackio")
REPORTS = Rule(
    f"must name some of {', '.join(TRACKERS)}, or all, or none",
    lambda names: set(names) <= {"tensorboard", "all", *TRACKERS},
)


@dataclass(frozen=True, kw_only=True)
class TrackingFlags(Flags):
    """Who is told a run's figures."""

    report_to: tuple[str, ...] = flag(
        "trackers beside TensorBoard, which every run has: wandb, swanlab, trackio; all = those installed",
        (),
        REPORTS,
        DISTINCT,
        may_differ=True,
        alias=("trace",),
    )
    run_name: str | None = flag(
        "what trackers call the run, as long as it goes on; None = as in TensorBoard, after --output_dir",
        None,
        may_differ=True,
    )
    project: str = flag("the trackers' project it belongs to", "pixelrec_train", may_differ=True)


@dataclass(frozen=True, kw_only=True)
class LoopFlags(OptimisationFlags, OutputFlags, TrackingFlags, LaunchFlags):
    """How any task goes through engine/loop.py."""


@dataclass(frozen=True, kw_only=True)
class RunFlags(LoopFlags):
    """A training that can be planned, judged and resumed."""

    best_by: str | None = flag(
        "validation figure that makes a checkpoint best_model; None = the task's own", None
    )
    patience: int | None = flag(
        "stop after so many evaluations without a better figure; None = never", None, at_least(1)
    )
    resume: str | None = flag(
        "go on where a run stopped: auto = from the newest checkpoint in output_dir, if any; or one of them",
        None,
        may_differ=True,
    )
    dry_run: int | None = flag("print the plan for this many ranks and stop", None, RANKS, may_differ=True)
