"""Flags of training on plain texts and chats, by the names that Genesis' documents and transformers have."""

from dataclasses import dataclass, fields

from pixelrec_train.config.adapters import QuantisedFlags
from pixelrec_train.config.reading import CacheFlags
from pixelrec_train.config.towers import TrustFlags
from pixelrec_train.config.training import RunFlags
from pixelrec_train.errors import InputError
from pixelrec_train.flags import FILE, SHARE, Rule, at_least, flag, one_of

PRETRAIN, SFT = "pretrain", "sft"
ANSWERS, LAST, ALL = "answers", "last", "all"
BLOCK, DOCUMENT = "block", "document"
OF_PRETRAINING, OF_SFT = ("block_size", "block_by"), ("template", "loss_on", "sample_generations")
ALWAYS = "it is so in any case"
FP16 = Rule(
    "is not offered: its range ends at 65,504, and losses overflow; --bf16 costs the same", lambda on: not on
)
LOCAL = Rule("is not offered: nothing is sent anywhere", lambda on: not on)
ADAMW = Rule("must be one of AdamW's names: it is what trains here", lambda name: "adamw" in name.lower())


@dataclass(frozen=True, kw_only=True)
class TextFileFlags(CacheFlags):
    """Which texts are read, and how they are cut to tokens and labels."""

    stage: str | None = flag(
        "pretrain = go on with texts, all tokens are labels; sft = answer in chats, answers are labels; "
        "None = "
        "sft, or pretrain where --block_size or --text_fields is given",
        None,
        one_of(PRETRAIN, SFT),
    )
    train_file: tuple[str, ...] = flag(
        "files, directories or patterns: .txt, JSON lines, JSON, Parquet; packed or not",
        alias=("train_files", "dataset_path"),
    )
    eval_file: tuple[str, ...] = flag(
        "the same of what is held out to validate", (), alias=("eval_files", "validation_file")
    )
    text_fields: tuple[str, ...] = flag(
        "pretrain: keys of a row, the first that is not empty is its text; else its chat, a message a line",
        ("text", "content", "document", "body"),
        Rule("needs at least one name", bool),
        alias=("text_field",),
    )
    document_by: str = flag(
        "of a .txt file: a document is a line (that is not blank) or the whole file", "line",
        one_of("line", "file"),
    )  # fmt: skip
    skip_bad_rows: bool = flag(
        "leave out rows that are no text or chat, and count them; else they stop", False
    )
    max_length: int = flag(
        "sft: tokens of a pack, and of a chat at most",
        1024,
        at_least(2),
        alias=("max_seq_length", "cutoff_len"),
    )
    block_size: int | None = flag("pretrain: tokens of a block; None = --max_length", None, at_least(2))
    block_by: str = flag(
        "pretrain: block = texts end to end, cut every --block_size tokens; document = whole texts packed, "
        "none "
        "sees another, longer ones in pieces",
        BLOCK,
        one_of(BLOCK, DOCUMENT),
    )
    end_mark: str | None = flag(
        "the token that ends a text; None = <|endoftext|> where the tokenizer has it, else its end of "
        "sequence",
        None,
    )
    template: str | None = flag(
        "chat template, a JSON file (configs/templates/); None = the tokenizer's own", None, path=FILE,
        alias=("template_path",),
    )  # fmt: skip
    loss_on: str = flag(
        "sft: labels are all answers, the last answer of a chat, or all tokens",
        ANSWERS,
        one_of(ANSWERS, LAST, ALL),
    )
    pack: str = flag(
        "best_fit = the fewest packs; even = a like mix of long and short samples in each", "best_fit",
        one_of("best_fit", "even"),
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class TextsConfig(QuantisedFlags, TextFileFlags, TrustFlags, RunFlags):
    """Train a language model on texts (continued pretraining) or chats (SFT), in full or by adapters."""

    model_dir: str = flag(
        "Hugging Face directory of a causal LM", alias=("model_name_or_path", "model_path", "base_model")
    )
    tokenizer_dir: str | None = flag(
        "another directory whose tokenizer knows the same words; None = the model's", None,
        alias=("tokenizer_name_or_path",),
    )  # fmt: skip
    objective: str = flag(
        "clm = say the next word; mlm = find hidden words, for encoders such as BERT (--stage pretrain)",
        "clm",
        one_of("clm", "mlm"),
    )
    mask_share: float = flag("mlm: share of a text's words that are to be found", 0.15, SHARE)
    peft_enabled: bool | None = flag(
        "adapters: True = --lora_r is 8 unless it says else; False = none, whatever --lora_r says; None = as "
        "--lora_r says",
        None,
        alias=("use_peft", "use_lora"),
    )
    random_init: bool = flag("draw the weights anew, by --seed and config.json of model_dir", False)
    gradient_checkpointing: bool = flag(
        "recompute activations in the backward pass to save memory", False, may_differ=True
    )
    loss_chunk: int = flag(
        "labels whose logits over the vocabulary exist at a time", 4096, at_least(1), may_differ=True
    )
    loss_by_source: bool = flag("log the loss of every source", False, may_differ=True)
    counts_by_source: bool = flag("log the share of every source", False, may_differ=True)
    sample_generations: int = flag(
        "sft: at each evaluation, chats of --eval_file whose free answers go to the log", 0, at_least(0),
        may_differ=True,
    )  # fmt: skip
    num_train_epochs: int = flag("passes over the texts", 1, at_least(1), alias=("num_epochs", "epochs"))
    per_device_train_batch_size: int = flag(
        "blocks or packs per GPU and micro-batch", 4, at_least(1), may_differ=True, alias=("batch_size",)
    )
    output_dir: str = flag(
        "run directory: checkpoints, metrics.jsonl, table", "results/text", may_differ=True
    )
    logging_dir: str = flag(
        "TensorBoard events; the log file is <logging_dir>_train.log", "logs/text", may_differ=True
    )
    overwrite: bool = flag(
        "replace a finished run in output_dir", False, may_differ=True, alias=("overwrite_output_dir",)
    )
    patience: int | None = flag(
        "stop after so many evaluations without a better figure; None = never", None, at_least(1),
        alias=("early_stopping_patience",),
    )  # fmt: skip
    best_by: str | None = flag(
        "validation figure that makes a checkpoint best_model; None = valid_loss, also called eval_loss",
        None,
        alias=("metric_for_best_model",),
    )  # fmt: skip
    resume: str | None = flag(
        "go on where a run stopped: auto = from the newest checkpoint in output_dir, if any; or one of them",
        None, may_differ=True, alias=("resume_from_checkpoint",),
    )  # fmt: skip
    entity: str | None = flag("WANDB_ENTITY, unless the environment has it", None, may_differ=True)
    mode: str | None = flag(
        "WANDB_MODE and SWANLAB_MODE, unless the environment has them", None,
        one_of("online", "offline", "disabled"), may_differ=True,
    )  # fmt: skip
    fp16: bool = flag("refused", False, FP16)
    push_to_hub: bool = flag("refused", False, LOCAL)
    optim: str = flag(
        "AdamW",
        "adamw_torch",
        ADAMW,
        without_effect="DeepSpeed's or torch's AdamW trains, whichever is there",
    )
    per_device_eval_batch_size: int | None = flag(
        "packs in evaluation", None, without_effect="a loss needs no other batch than training"
    )
    eval_strategy: str = flag(
        "when to validate", "epoch", without_effect="after each epoch, and every --eval_steps",
        alias=("evaluation_strategy",),
    )  # fmt: skip
    logging_strategy: str = flag("when to log", "steps", without_effect="every --logging_steps")
    logging_first_step: bool = flag("log step 1", False, without_effect=ALWAYS)
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
        defaults = {f.name: f.default for f in fields(self)}
        if self.peft_enabled and self.lora_r is None:
            self.set(lora_r=8)
        if self.peft_enabled is False:
            self.set(**{name: defaults[name] for name in defaults if name.startswith(("lora_", "load_in_"))})
        super().__post_init__()
        self.refuse_random(self.random_init)
        if self.stage is None:
            pretrains = (
                self.objective == "mlm" or self.block_size or self.text_fields != defaults["text_fields"]
            )
            self.set(stage=PRETRAIN if pretrains else SFT)
        if self.stage == PRETRAIN:
            self.set(max_length=self.block_size or self.max_length)
        if self.best_by == "eval_loss":
            self.set(best_by="valid_loss")
        if not self.train_file:
            raise InputError("--train_file names no file.")
        if self.objective == "mlm" and (self.stage == SFT or self.lora_r):
            what = "--lora_r" if self.lora_r else "--stage sft"
            raise InputError(f"--objective mlm trains an encoder on texts, in full; {what} is not for it.")
        of_the_other = OF_PRETRAINING if self.stage == SFT else OF_SFT
        for name in of_the_other:
            if (value := getattr(self, name)) != defaults[name]:
                other = PRETRAIN if self.stage == SFT else SFT
                raise InputError(f"--{name} {value} is for --stage {other}, this is {self.stage}.")
        for name in ("patience", "best_by", "sample_generations"):
            if getattr(self, name) and not self.eval_file:
                raise InputError(f"--{name} {getattr(self, name)} needs --eval_file: what is held out?")
