"""Flags of training on plain texts and chats, by the names that Genesis' documents and transformers have."""

from dataclasses import dataclass, fields

from pixelrec_train.config.adapters import QuantisedFlags
from pixelrec_train.config.reading import CacheFlags
from pixelrec_train.config.towers import TrustFlags
from pixelrec_train.config.transformers_names import TransformersRunFlags
from pixelrec_train.errors import InputError
from pixelrec_train.flags import FILE, MODEL, REQUIRED, SHARE, Rule, at_least, flag, one_of

PRETRAIN, SFT = "pretrain", "sft"
ANSWERS, LAST, ALL = "answers", "last", "all"
BLOCK, DOCUMENT = "block", "document"
OF_PRETRAINING, OF_SFT = ("block_size", "block_by"), ("template", "loss_on", "sample_generations")


@dataclass(frozen=True, kw_only=True)
class TextInputFlags(CacheFlags):
    """Which files are read, and how they become tokens."""

    train_file: tuple[str, ...] = flag(
        "files, directories or patterns: .txt, JSON lines, JSON, Parquet; packed or not",
        REQUIRED,
        Rule("must name a file", bool),
        alias=("train_files", "dataset_path"),
    )
    eval_file: tuple[str, ...] = flag(
        "the same of what is held out to validate", (), alias=("eval_files", "validation_file")
    )
    skip_bad_rows: bool = flag("leave out rows that cannot be read, and count them; else they stop", False)
    max_length: int = flag(
        "tokens of a pack, and of a chat at most", 1024, at_least(2), alias=("max_seq_length", "cutoff_len")
    )
    end_mark: str | None = flag(
        "the token that ends a text; None = <|endoftext|> where the tokenizer has it, else its end of "
        "sequence",
        None,
    )
    template: str | None = flag(
        "chat template, a JSON file (configs/templates/); None = the tokenizer's own",
        None,
        path=FILE,
        alias=("template_path",),
    )
    pack: str = flag(
        "best_fit = the fewest packs; even = a like mix of long and short samples in each",
        "best_fit",
        one_of("best_fit", "even"),
    )


@dataclass(frozen=True, kw_only=True)
class TextModelFlags(QuantisedFlags, TextInputFlags, TrustFlags, TransformersRunFlags):
    """The language model, in full or by adapters."""

    model_dir: str = flag(
        "Hugging Face directory of a causal LM, or its name in a hub",
        path=MODEL,
        alias=("model_name_or_path", "model_path", "base_model"),
    )
    tokenizer_dir: str | None = flag(
        "another directory whose tokenizer knows the same words; None = the model's",
        None,
        path=MODEL,
        alias=("tokenizer_name_or_path",),
    )
    peft_enabled: bool | None = flag(
        "adapters: True = --lora_r is 8 unless it says else; False = none, whatever --lora_r says; None = "
        "as --lora_r says",
        None,
        alias=("use_peft", "use_lora"),
    )
    gradient_checkpointing: bool = flag(
        "recompute activations in the backward pass to save memory", False, may_differ=True
    )
    loss_chunk: int = flag(
        "labels whose logits over the vocabulary exist at a time", 4096, at_least(1), may_differ=True
    )
    counts_by_source: bool = flag("log the share of every source", False, may_differ=True)

    def __post_init__(self):
        if self.peft_enabled and self.lora_r is None:
            self.set(lora_r=8)
        if self.peft_enabled is False:
            of_adapters = [f for f in fields(self) if f.name.startswith(("lora_", "load_in_"))]
            self.set(**{f.name: f.default for f in of_adapters})
        super().__post_init__()
        for name in ("patience", "best_by"):
            if getattr(self, name) and not (self.eval_file or getattr(self, "interaction_data", None)):
                raise InputError(f"--{name} {getattr(self, name)} needs --eval_file: what is held out?")


@dataclass(frozen=True, kw_only=True)
class TextsConfig(TextModelFlags):
    """Train a language model on texts (continued pretraining) or chats (SFT), in full or by adapters."""

    stage: str | None = flag(
        "pretrain = go on with texts, all tokens are labels; sft = answer in chats, answers are labels; "
        "None = sft, or pretrain where --block_size or --text_fields is given",
        None,
        one_of(PRETRAIN, SFT),
    )
    text_fields: tuple[str, ...] = flag(
        "pretrain: keys of a row, the first that is not empty is its text; else its chat, a message a line",
        ("text", "content", "document", "body"),
        Rule("needs at least one name", bool),
        alias=("text_field",),
    )
    document_by: str = flag(
        "of a .txt file: a document is a line (that is not blank) or the whole file",
        "line",
        one_of("line", "file"),
    )
    block_size: int | None = flag("pretrain: tokens of a block; None = --max_length", None, at_least(2))
    block_by: str = flag(
        "pretrain: block = texts end to end, cut every --block_size tokens; document = whole texts packed, "
        "none sees another, longer ones in pieces",
        BLOCK,
        one_of(BLOCK, DOCUMENT),
    )
    loss_on: str = flag(
        "sft: labels are all answers, the last answer of a chat, or all tokens",
        ANSWERS,
        one_of(ANSWERS, LAST, ALL),
    )
    objective: str = flag(
        "clm = say the next word; mlm = find hidden words, for encoders such as BERT (--stage pretrain)",
        "clm",
        one_of("clm", "mlm"),
    )
    mask_share: float = flag("mlm: share of a text's words that are to be found", 0.15, SHARE)
    random_init: bool = flag("draw the weights anew, by --seed and config.json of model_dir", False)
    loss_by_source: bool = flag("log the loss of every source", False, may_differ=True)
    sample_generations: int = flag(
        "sft: at each evaluation, chats of --eval_file whose free answers go to the log",
        0,
        at_least(0),
        may_differ=True,
    )
    output_dir: str = flag(
        "run directory: checkpoints, metrics.jsonl, table", "results/text", may_differ=True
    )
    logging_dir: str = flag(
        "TensorBoard events; the log file is <logging_dir>_train.log", "logs/text", may_differ=True
    )

    def __post_init__(self):
        super().__post_init__()
        defaults = {f.name: f.default for f in fields(self)}
        self.refuse_random(self.random_init)
        if self.stage is None:
            documents = self.block_size or self.text_fields != defaults["text_fields"]
            self.set(stage=PRETRAIN if documents or self.objective == "mlm" else SFT)
        if self.stage == PRETRAIN:
            self.set(max_length=self.block_size or self.max_length)
        if self.objective == "mlm" and (self.stage == SFT or self.lora_r):
            what = "--lora_r" if self.lora_r else "--stage sft"
            raise InputError(f"--objective mlm trains an encoder on texts, in full; {what} is not for it.")
        for name in OF_PRETRAINING if self.stage == SFT else OF_SFT:
            if (value := getattr(self, name)) != defaults[name]:
                other = PRETRAIN if self.stage == SFT else SFT
                raise InputError(f"--{name} {value} is for --stage {other}, this is {self.stage}.")
        if self.sample_generations and not self.eval_file:
            raise InputError("--sample_generations needs --eval_file: what is held out?")
