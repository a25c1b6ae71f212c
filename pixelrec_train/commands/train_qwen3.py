"""Train a language model on samples in OpenOneRec's format, with OpenOneRec's flags."""

from dataclasses import dataclass

from pixelrec_train.config.samples import SamplesConfig
from pixelrec_train.engine.ds_file import adopted
from pixelrec_train.errors import InputError
from pixelrec_train.flags import (
    MODEL,
    NOT_NEGATIVE,
    POSITIVE,
    SEED,
    SHARE,
    Rule,
    at_least,
    check_paths,
    flag,
    given,
    one_of,
    parse_args,
    replace,
)  # fmt: skip
from pixelrec_train.run.exit_status import speak_plainly

ZERO3 = "configs/ds_config_zero3.json"
BY_VALUE = Rule(
    "clips entry by entry, which turns a gradient; leave it out, --max_grad_norm scales it down",
    lambda _: False,
)
NOTHING_MISSING = Rule("must be empty: a directory that lacks weights is refused", lambda names: not names)


@dataclass(frozen=True, kw_only=True)
class Qwen3Config(SamplesConfig):
    """Train a language model on samples in OpenOneRec's format: alignment, co-pretraining, SFT.

    A flag that OpenOneRec, OneRec-Think or MiniOneRec call otherwise than this project has both names.
    """

    model_dir: str | None = flag(
        "Hugging Face directory of a causal LM, or ORG/NAME[@revision] in the hub",
        None,
        path=MODEL,
        alias=("model_path", "model_name", "base_model"),
    )
    new_rows_only: bool = flag(
        "stage 1: train the rows of new tokens and nothing else", False, alias=("freeze_llm", "freeze_LLM")
    )
    first_new_row: int | None = flag(
        "rows of words below this token id stand still; None or 0 = none do, or with --freeze_llm those "
        "below the itemic tokens",
        None,
        Rule("must not be negative", lambda row: row >= 0),
        alias=("start_optimize_embedding_index",),
    )
    learning_rate: float = flag("peak of its schedule, reached after the warm-up", 2e-4, POSITIVE)
    min_lr: float = flag("where the cosine or line of the learning rate ends", 1e-6, NOT_NEGATIVE)
    warmup_steps: int | None = flag(
        "optimizer steps spent warming up; None = --warmup_ratio of all",
        0,
        Rule("must not be negative", lambda steps: steps >= 0),
        alias=("num_warmup_steps",),
    )
    decay_steps: int | None = flag(
        "optimizer steps after which the rate stays at --min_lr while training goes on; None = all",
        1000,
        at_least(1),
        alias=("num_training_steps",),
    )
    weight_decay: float = flag(
        "AdamW decay of weight matrices; vectors (norms, biases) are not decayed", 0.1, NOT_NEGATIVE
    )
    adam_beta1: float = flag(
        "share of AdamW's mean gradient kept at a step, in [0, 1)", 0.9, SHARE, alias=("beta1",)
    )
    adam_beta2: float = flag(
        "the same of its mean squared gradient, in [0, 1)", 0.95, SHARE, alias=("beta2",)
    )
    per_device_train_batch_size: int = flag(
        "packs per GPU and micro-batch; a pack holds as many samples as --max_length tokens have room for",
        1,
        at_least(1),
        may_differ=True,
        alias=("batch_size", "micro_batch_size"),
    )
    num_train_epochs: int = flag(
        "passes over the samples; the dataset JSON's unless given", 1, at_least(1), alias=("num_epochs",)
    )
    max_grad_norm: float = flag(
        "gradients are scaled down to this global norm; 0 = never",
        1.0,
        NOT_NEGATIVE,
        alias=("gradient_clip_norm",),
    )
    dataloader_num_workers: int = flag(
        "processes per rank that prepare batches; 0 = in the training process",
        4,
        Rule("must not be negative", lambda workers: workers >= 0),
        may_differ=True,
        alias=("num_workers",),
    )
    eval_steps: int | None = flag(
        "judge every so many optimizer steps too; None = after each epoch",
        None,
        at_least(1),
        alias=("steps_per_val_log",),
    )
    seed: int = flag("of dropout; the order of samples has shuffle_seed in the JSON", 123, SEED)
    gradient_checkpointing: bool = flag(
        "recompute activations in the backward pass to save memory",
        False,
        may_differ=True,
        alias=("enable_gradient_checkpointing",),
    )
    loss_chunk: int = flag(
        "labels whose logits over the vocabulary exist at a time",
        4096,
        at_least(1),
        may_differ=True,
        alias=("minibatch_size",),
    )
    loss_by_source: bool = flag(
        "log the loss of every source", False, may_differ=True, alias=("monitor_datasource_loss",)
    )
    counts_by_source: bool = flag(
        "log the share of every source in samples and tokens",
        False,
        may_differ=True,
        alias=("monitor_datasource_cnt",),
    )
    logging_steps: int = flag(
        "optimizer steps between two log lines",
        100,
        at_least(1),
        alias=("logging_per_step", "steps_per_train_log"),
    )
    save_steps: int | None = flag(
        "save every so many optimizer steps too; None = after each epoch",
        1000,
        at_least(1),
        may_differ=True,
        alias=("save_checkpoint_per_step",),
    )
    save_total_limit: int = flag(
        "newest checkpoints kept; best_model is kept besides", 1_000_000, at_least(1), may_differ=True
    )
    checkpoint_layout: str = flag(
        "names of checkpoints: global_step = step50/global_step50, plain = checkpoint-step-50",
        "global_step",
        one_of("plain", "global_step"),
    )
    logging_dir: str | None = flag("TensorBoard events; None = log/ in output_dir", None, may_differ=True)
    output_dir: str = flag(
        "run directory: checkpoints, metrics.jsonl, table", "results/qwen3", may_differ=True
    )
    resume_from: str | None = flag(
        "a run's stepN directory: go on from there, see the next two", None, may_differ=True
    )
    resume_from_tag: str | None = flag("the directory in it: global_stepN", None, may_differ=True)
    resume_training_state: bool = flag(
        "with the optimizer, the schedule and the place in the data, to the bit; without, its weights start "
        "a new run",
        False,
        may_differ=True,
    )
    reshard_after_forward: bool = flag(f"ZeRO-3: --deepspeed {ZERO3}", False, may_differ=True)
    clip_range: float | None = flag("refused: clips a gradient's entries", None, BY_VALUE)
    allow_random_init_params: str = flag("refused unless empty", "", NOTHING_MISSING, may_differ=True)
    enable_profiler: bool = flag("profile 10 micro-batches, as --profile 10", False, may_differ=True)
    use_fp32_weight: bool = flag(
        "fp32 master weights", False, without_effect="AdamW updates fp32 master weights in any case"
    )
    use_fp32_reduce: bool = flag(
        "gradients summed up in fp32", False,
        without_effect="communication_data_type in the DeepSpeed JSON says it",
    )  # fmt: skip
    use_chunked_loss_computer: bool = flag(
        "logits in chunks",
        False,
        without_effect="they exist for --minibatch_size labels at a time in any case",
    )

    def __post_init__(self):
        super().__post_init__()
        if self.first_new_row == 0:
            self.set(first_new_row=None)


def settled(config):
    """OpenOneRec's ways to say a thing, said in this project's."""
    changes = {}
    if config.logging_dir is None:
        changes["logging_dir"] = f"{config.output_dir}/log"
    if "warmup_ratio" in given(config) and "warmup_steps" not in given(config):
        changes["warmup_steps"] = None  # a default of ours must not win over what was asked for
    if config.enable_profiler and not config.profile:
        changes["profile"] = 10
    if config.reshard_after_forward and "deepspeed" in given(config):
        raise InputError("--reshard_after_forward and --deepspeed both name a ZeRO stage. Leave one out.")
    if config.resume and config.resume_from:
        raise InputError("--resume and --resume_from both name a checkpoint. Leave one out.")
    if config.reshard_after_forward:
        changes["deepspeed"] = ZERO3
    return replace(config, **changes)


@speak_plainly
def main(argv=None):
    config = adopted(check_paths(settled(parse_args(Qwen3Config, argv))))
    from pixelrec_train.engine.finding import named_by_tag
    from pixelrec_train.tasks.tokens import LLM
    from pixelrec_train.trainings import train_samples

    asked = config.resume_from, config.resume_from_tag, config.resume_training_state
    checkpoint, weights = named_by_tag(*asked, config.output_dir, LLM)
    if checkpoint:
        config = replace(config, resume=str(checkpoint))
    if weights:
        config = replace(config, model_dir=str(weights))
    train_samples.main(config)
