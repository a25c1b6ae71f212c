"""Every knob of a run. Field names are the command-line flags; defaults live here only."""

import argparse
import dataclasses
import difflib
import typing
from dataclasses import dataclass
from pathlib import Path

from pixelrec_train.errors import InputError


def flag(help, default=dataclasses.MISSING):
    return dataclasses.field(default=default, metadata={"help": help})


@dataclass(frozen=True, kw_only=True)
class RankingConfig:
    """How a model's recommendations are made and judged; shared by training and evaluation."""

    topk: tuple[int, ...] = flag("cut-offs of recall, ndcg and mrr", (5, 10, 50))
    keep_seen: bool = flag("leave items of the user's own history in the ranking", False)
    retrieval: str = flag(
        "faiss = inner-product index; exact = blocked torch scores (the same lists)", "faiss"
    )
    eval_batch_size: int = flag("users per GPU and block in evaluation", 256)
    eval_tokens: int = flag("item tokens per GPU and block when the catalogue is encoded", 16384)
    cache_dir: str = flag("where sequences and token ids are cached", "results/cache")

    def __post_init__(self):
        require(self.topk and min(self.topk) >= 1, "--topk needs cut-offs of at least 1", self.topk)
        require(self.retrieval in ("faiss", "exact"), "--retrieval must be faiss or exact", self.retrieval)
        require(self.eval_batch_size >= 1, "--eval_batch_size must be at least 1", self.eval_batch_size)
        require(self.eval_tokens >= 1, "--eval_tokens must be at least 1", self.eval_tokens)


@dataclass(frozen=True, kw_only=True)
class TrainConfig(RankingConfig):
    """Train a two-tower HLLM: an item LLM reads texts, a user LLM reads the sequence of their embeddings."""

    # data
    interaction_data: str = flag("CSV with columns item_id, user_id, timestamp")
    text_data: str = flag("CSV with a column item_id and the text columns")
    text_keys: tuple[str, ...] = flag("text columns, in the order they are read", ("title", "description"))
    item_prompt: str = flag(
        "text in front of every item's fields", "Compress the following sentence into embedding: "
    )
    max_seq_length: int = flag("items per training window, history + target", 11)
    one_window_per_user: bool = flag("train on each user's newest window alone, as HLLM does on Books", False)
    max_text_length: int = flag("tokens kept of an item's text", 256)

    # models
    item_model_dir: str = flag("Hugging Face directory (model and tokenizer) of the item LLM")
    user_model_dir: str = flag("Hugging Face directory of the user LLM")
    item_emb_token_n: int = flag("1 = a learnable [ITEM] token reads the text; 0 = mean over its tokens", 1)

    # loss
    num_negatives: int | None = flag(
        "negatives per global micro-batch, over all ranks; None = max_seq_length per window", None
    )
    nce_thres: float = flag(
        "a negative this close (cosine) to the target is the same item, and is left out", 0.99
    )
    loss_weighting: str = flag(
        "position = every position weighs the same; rank = every rank (original HLLM)", "position"
    )

    # optimisation
    per_device_train_batch_size: int = flag("windows per GPU and micro-batch", 4)
    gradient_accumulation_steps: int = flag("micro-batches per optimizer step; each keeps its own pool", 1)
    num_train_epochs: int = flag("passes over the training windows", 5)
    learning_rate: float = flag("peak of the cosine schedule, reached after warm-up", 1e-4)
    warmup_ratio: float = flag("share of all optimizer steps spent warming up, in [0, 1)", 0.1)
    weight_decay: float = flag(
        "AdamW decay of weight matrices; vectors (norms, biases) are not decayed", 0.01
    )
    max_grad_norm: float = flag("gradients are scaled down to this global norm; 0 = never", 1.0)
    gradient_checkpointing: bool = flag("recompute activations in the backward pass to save memory", True)
    bf16: bool = flag("bf16 weights and activations over fp32 master weights; False = fp32", True)
    seed: int = flag("of initial weights, window order and negatives", 42)
    dataloader_num_workers: int = flag(
        "processes per rank that prepare batches; 0 = in the training process", 4
    )
    deepspeed: str = flag("DeepSpeed JSON: ZeRO stage, buckets, precision", "configs/ds_config_zero2.json")
    collective_timeout_minutes: float = flag("a rank that waits this long for the others gives up", 30.0)

    # output
    output_dir: str = flag("run directory: checkpoints, metrics.jsonl, table", "results/pixelrec")
    logging_dir: str = flag("TensorBoard events; the log file is <logging_dir>_train.log", "logs/pixelrec")
    logging_steps: int = flag("optimizer steps between two log lines", 20)
    save_total_limit: int = flag("newest checkpoint-epoch-N kept; best_model is kept besides", 5)
    overwrite: bool = flag("replace a finished run in output_dir", False)
    dry_run: int | None = flag("print the plan for this many ranks and stop", None)
    local_rank: int = flag("set by the launcher", -1)

    def __post_init__(self):
        super().__post_init__()
        for name in ("per_device_train_batch_size", "gradient_accumulation_steps", "num_train_epochs",
                     "max_text_length", "logging_steps", "save_total_limit"):  # fmt: skip
            require(getattr(self, name) >= 1, f"--{name} must be at least 1", getattr(self, name))
        require(
            self.max_seq_length >= 2,
            "--max_seq_length counts history + target: at least 2",
            self.max_seq_length,
        )
        require(self.text_keys, "--text_keys needs at least one column", self.text_keys)
        require(self.item_emb_token_n in (0, 1), "--item_emb_token_n must be 0 or 1", self.item_emb_token_n)
        require(self.num_negatives is None or self.num_negatives >= 1,
                "--num_negatives must be None or at least 1", self.num_negatives)  # fmt: skip
        require(-1 <= self.nce_thres <= 1, "--nce_thres is a cosine, in [-1, 1]", self.nce_thres)
        require(self.loss_weighting in ("position", "rank"),
                "--loss_weighting must be position or rank", self.loss_weighting)  # fmt: skip
        require(0 < self.learning_rate < float("inf"), "--learning_rate must be positive", self.learning_rate)
        require(0 <= self.warmup_ratio < 1, "--warmup_ratio must be in [0, 1)", self.warmup_ratio)
        require(self.weight_decay >= 0, "--weight_decay must not be negative", self.weight_decay)
        require(self.max_grad_norm >= 0, "--max_grad_norm must not be negative", self.max_grad_norm)
        require(self.dataloader_num_workers >= 0, "--dataloader_num_workers must not be negative",
                self.dataloader_num_workers)  # fmt: skip
        require(self.seed >= 0, "--seed must not be negative", self.seed)
        require(10 in self.topk, "--topk must contain 10: best_model is chosen by ndcg@10", self.topk)
        require(self.dry_run is None or self.dry_run >= 1, "--dry_run needs a number of ranks", self.dry_run)

    def negatives_per_window(self, world_size):
        """Negatives drawn with one window, so that all ranks together give the pool that was asked for."""
        if self.num_negatives is None:
            return self.max_seq_length
        return -(-self.num_negatives // (world_size * self.per_device_train_batch_size))


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(RankingConfig):
    """Rank the whole catalogue for every held-out user with a trained checkpoint."""

    checkpoint: str = flag("a checkpoint-epoch-N or best_model directory")
    split: str = flag("valid = second-last item of every user; test = last item", "test")
    interaction_data: str | None = flag("CSV; None = the one the checkpoint was trained on", None)
    text_data: str | None = flag("CSV; None = the one the checkpoint was trained on", None)
    output_dir: str | None = flag(
        "where metrics.json and the index go; None = <checkpoint>/eval-<split>", None
    )
    collective_timeout_minutes: float = flag("a rank that waits this long for the others gives up", 30.0)
    local_rank: int = flag("set by the launcher", -1)

    def __post_init__(self):
        super().__post_init__()
        require(self.split in ("valid", "test"), "--split must be valid or test", self.split)


def require(condition, expectation, found):
    if not condition:
        raise InputError(f"{expectation}, got {found!r}.")


def parse_args(config_class, argv=None):
    """Read flags into a config; a wrong one is an InputError that names the nearest right one."""
    parser = Parser(description=config_class.__doc__, allow_abbrev=False)
    hints = typing.get_type_hints(config_class)
    for f in dataclasses.fields(config_class):
        required = f.default is dataclasses.MISSING
        shown = "required" if required else f"default: {as_text(f.default)!r}" if f.default == "" else (
            f"default: {as_text(f.default)}")  # fmt: skip
        parser.add_argument(
            f"--{f.name}",
            type=reader(hints[f.name]),
            required=required,
            default=None if required else f.default,
            help=f"{f.metadata['help']} ({shown})".replace("%", "%%"),
            metavar=f.name.upper(),
            **({"nargs": "?", "const": True} if hints[f.name] is bool else {}),
        )
    known, unknown = parser.parse_known_args(argv)
    if unknown:
        name = unknown[0].split("=")[0].removeprefix("--")
        nearest = difflib.get_close_matches(name, [f.name for f in dataclasses.fields(config_class)], n=1)
        hint = f"Did you mean --{nearest[0]}?" if nearest else "See --help for all flags."
        raise InputError(f"unknown argument {unknown[0]!r}. {hint}")
    return config_class(**vars(known))


class Parser(argparse.ArgumentParser):
    def error(self, message):
        raise InputError(f"{message}. See --help for all flags.")


def reader(hint):
    """How a flag of this type is read from text: "True"/"False", "None", "a,b", or the plain type."""
    options = [t for t in typing.get_args(hint) if t not in (type(None), Ellipsis)] or [hint]
    plain = options[0]
    is_tuple = typing.get_origin(hint) is tuple
    words = {"true": True, "false": False} if plain is bool else {}
    words |= {"none": None} if type(None) in typing.get_args(hint) else {}

    def read(text):
        if is_tuple:
            return tuple(plain(part.strip()) for part in text.split(",") if part.strip())
        if text.lower() in words:
            return words[text.lower()]
        if plain is bool:
            raise ValueError(text)
        return plain(text)

    read.__name__ = f"comma-separated {plain.__name__}" if is_tuple else plain.__name__
    return read


def as_text(value):
    """A value as it would be written on the command line."""
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def existing_file(path, flag_name):
    """The path, or an InputError that says where it was looked for and what stands there instead."""
    path = Path(path)
    if path.is_file():
        return path
    nearby = sorted(path.parent.glob("*")) if path.parent.is_dir() else []
    match = difflib.get_close_matches(path.name, [p.name for p in nearby], n=1, cutoff=0.5)
    hint = f" {path.parent / match[0]} does: did you mean that?" if match else ""
    raise InputError(f"{flag_name} {path} does not exist (looked from {Path.cwd()}).{hint}")
