"""Every knob of training and evaluation. A field is a command-line flag, and the only home of its default."""

from dataclasses import dataclass

from pixelrec_train.errors import InputError
from pixelrec_train.flags import as_text, flag, require, require_distinct, require_minutes

TOWERS = ("none", "item", "user", "item,user", "user,item")


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
    trust_remote_code: tuple[str, ...] = flag("towers that may run code of their directory: item, user", ())

    def __post_init__(self):
        require(self.topk and min(self.topk) >= 1, "--topk needs cut-offs of at least 1", self.topk)
        require_distinct(self.topk, "--topk")
        require(self.retrieval in ("faiss", "exact"), "--retrieval must be faiss or exact", self.retrieval)
        require(self.eval_batch_size >= 1, "--eval_batch_size must be at least 1", self.eval_batch_size)
        require(self.eval_tokens >= 1, "--eval_tokens must be at least 1", self.eval_tokens)
        towers = as_text(self.trust_remote_code)
        require(towers in TOWERS, "--trust_remote_code takes item, user or item,user", towers)


@dataclass(frozen=True, kw_only=True)
class LoopConfig(RankingConfig):
    """How any task goes through engine/loop.py: optimisation and output."""

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
    save_steps: int | None = flag("save every so many optimizer steps too; None = after each epoch", None)
    save_total_limit: int = flag("newest checkpoints kept; best_model is kept besides", 5)
    overwrite: bool = flag("replace a finished run in output_dir", False)
    profile: int | None = flag("micro-batches to profile: costs in the log, trace.json in output_dir", None)
    local_rank: int = flag("set by the launcher", -1)

    def __post_init__(self):
        super().__post_init__()
        for name in ("per_device_train_batch_size", "gradient_accumulation_steps", "num_train_epochs",
                     "logging_steps", "save_total_limit"):  # fmt: skip
            require(getattr(self, name) >= 1, f"--{name} must be at least 1", getattr(self, name))
        require(0 < self.learning_rate < float("inf"), "--learning_rate must be a positive number",
                self.learning_rate)  # fmt: skip
        require(0 <= self.warmup_ratio < 1, "--warmup_ratio must be in [0, 1)", self.warmup_ratio)
        for name in ("weight_decay", "max_grad_norm"):
            finite = 0 <= getattr(self, name) < float("inf")
            require(finite, f"--{name} must be a number that is not negative", getattr(self, name))
        require_minutes(self.collective_timeout_minutes, "--collective_timeout_minutes")
        for name in ("save_steps", "profile"):
            value = getattr(self, name)
            require(value is None or value >= 1, f"--{name} must be None or at least 1", value)
        require(self.dataloader_num_workers >= 0, "--dataloader_num_workers must not be negative",
                self.dataloader_num_workers)  # fmt: skip
        require(0 <= self.seed < 2**63, "--seed must be in [0, 2**63)", self.seed)
        require(10 in self.topk, "--topk must contain 10: best_model is chosen by ndcg@10", self.topk)


@dataclass(frozen=True, kw_only=True)
class TrainConfig(LoopConfig):
    """Train a two-tower HLLM: an item LLM reads texts, a user LLM reads the sequence of their embeddings."""

    # data
    interaction_data: str = flag("CSV with columns item_id, user_id, timestamp")
    text_data: str | None = flag("CSV with a column item_id and the text columns", None)
    text_keys: tuple[str, ...] = flag("text columns, in the order they are read", ("title", "description"))
    item_prompt: str = flag(
        "text in front of every item's fields", "Compress the following sentence into embedding: "
    )
    max_seq_length: int = flag("items per training window, history + target", 11)
    split_data: str | None = flag(
        "CSV with split, user_id, item_id, history: what is held out; None = everybody's last two items", None
    )
    one_window_per_user: bool = flag("train on each user's newest window alone, as HLLM does on Books", False)
    eval_seq_length: int | None = flag(
        "the same in evaluation; None = max_seq_length (HLLM on Books: 56, and 51 here)", None
    )
    max_text_length: int = flag("tokens kept of an item's text", 256)

    # models
    item_model_dir: str | None = flag("Hugging Face directory (model and tokenizer) of the item LLM", None)
    user_model_dir: str | None = flag("Hugging Face directory of the user LLM", None)
    init_from: str | None = flag(
        "start from a checkpoint's weights instead: both towers, [ITEM], item ids, temperature", None
    )
    random_init: tuple[str, ...] = flag("towers that start from random weights: item, user", ())
    freeze_item_llm: bool = flag(
        "embed the catalogue once and train the user LLM on it (item caching)", False
    )
    item_id_embedding: bool = flag("add a learnable vector per item to its text embedding", False)
    id_only: bool = flag("items are their id embeddings alone; no text is read", False)
    item_emb_token_n: int = flag("1 = a learnable [ITEM] token reads the text; 0 = mean over its tokens", 1)
    gradient_checkpointing: bool = flag("recompute activations in the backward pass to save memory", True)
    item_chunk_tokens: int | None = flag(
        "item tokens read at a time; only one such chunk keeps its activations, so a batch of any size fits. "
        "None = all at once, recomputed layer by layer",
        None,
    )
    history_dropout: float = flag("share of history embeddings' entries zeroed while training", 0.0)

    # loss
    num_negatives: int | None = flag(
        "negatives per global micro-batch, over all ranks (rounded up to as many per window); "
        "None = max_seq_length per window",
        None,
    )
    nce_thres: float = flag(
        "a negative this close (cosine) to the target is the same item, and is left out", 0.99
    )
    nce_chunk: int | None = flag(
        "negatives scored at a time, for pools whose scores do not fit into memory; None = all at once", None
    )
    loss_weighting: str = flag(
        "position = every position weighs the same; rank = every rank (original HLLM)", "position"
    )
    resume: str | None = flag(
        "go on where a run stopped: auto = from the newest checkpoint in output_dir, if any; or one of them",
        None,
    )
    compile: bool = flag(
        "torch.compile the towers: faster steps after minutes of compiling; needs a C++ compiler", False
    )

    # instead of training
    dry_run: int | None = flag("print the plan for this many ranks and stop", None)

    def __post_init__(self):
        super().__post_init__()
        require(self.max_text_length >= 1, "--max_text_length must be at least 1", self.max_text_length)
        require_sequences(self)
        require(self.text_keys, "--text_keys needs at least one column", self.text_keys)
        require_distinct(self.text_keys, "--text_keys")
        require(0 <= self.history_dropout < 1, "--history_dropout must be in [0, 1)", self.history_dropout)
        self.check_towers()
        for name in ("item_chunk_tokens", "nce_chunk", "num_negatives"):
            value = getattr(self, name)
            require(value is None or value >= 1, f"--{name} must be None or at least 1", value)
        require(self.reads_texts or not self.item_chunk_tokens,
                "--item_chunk_tokens is for an item LLM that trains (not --freeze_item_llm, --id_only)",
                self.item_chunk_tokens)  # fmt: skip
        require(not (self.compile and self.gradient_checkpointing),
                "--compile needs --gradient_checkpointing False: recomputed layers would not be compiled",
                self.gradient_checkpointing)  # fmt: skip
        require(self.gradient_checkpointing or not self.item_chunk_tokens,
                "--item_chunk_tokens saves memory by recomputing, so it needs --gradient_checkpointing True",
                self.gradient_checkpointing)  # fmt: skip
        require(self.item_emb_token_n in (0, 1), "--item_emb_token_n must be 0 or 1", self.item_emb_token_n)
        require(-1 <= self.nce_thres <= 1, "--nce_thres is a cosine, in [-1, 1]", self.nce_thres)
        require(self.loss_weighting in ("position", "rank"),
                "--loss_weighting must be position or rank", self.loss_weighting)  # fmt: skip
        require(self.dry_run is None or self.dry_run >= 1, "--dry_run needs a number of ranks", self.dry_run)

    def check_towers(self):
        """Raises InputError when the flags leave open, or say twice, what reads items and users."""
        dirs, freeze = self.item_model_dir or self.user_model_dir, self.freeze_item_llm
        for wrong, sentence in (
            (not (self.text_data or self.id_only), "--text_data is needed (or --id_only)."),
            (not (self.item_model_dir or self.id_only or self.init_from),
             "--item_model_dir is needed (or --init_from, or --id_only)."),
            (not (self.user_model_dir or self.init_from), "--user_model_dir is needed (or --init_from)."),
            (self.init_from and (dirs or self.random_init),
             "--init_from brings both towers: leave out --item_model_dir, --user_model_dir, --random_init."),
            (as_text(self.random_init) not in TOWERS,
             f"--random_init takes item, user or item,user, got {as_text(self.random_init)!r}."),
            (self.id_only and "item" in self.random_init, "--id_only has no item LLM for --random_init."),
            (freeze and self.id_only, "--id_only has no item LLM, so there is none to --freeze_item_llm."),
            (freeze and "item" in self.random_init,
             "--freeze_item_llm with --random_init item would keep the item LLM random. Leave one out."),
            (freeze and self.item_emb_token_n and not self.init_from,
             "--freeze_item_llm would keep a new [ITEM] token random. Use --item_emb_token_n 0 (the mean of "
             "the tokens), or --init_from a checkpoint that has learned one."),
        ):  # fmt: skip
            if wrong:
                raise InputError(sentence)

    @property
    def item_dir(self):
        """Where the item LLM and its tokenizer lie; None without one."""
        return f"{self.init_from}/item_llm" if self.init_from else self.item_model_dir

    @property
    def reads_texts(self):
        """Whether an item LLM reads at every step."""
        return not (self.id_only or self.freeze_item_llm)

    @property
    def has_item_ids(self):
        return self.item_id_embedding or self.id_only

    @property
    def seq_length_in_evaluation(self):
        return self.eval_seq_length or self.max_seq_length

    def negatives_per_window(self, world_size):
        """Negatives drawn with one window, so that all ranks together give the pool that was asked for."""
        if self.num_negatives is None:
            return self.max_seq_length
        return -(-self.num_negatives // (world_size * self.per_device_train_batch_size))


def require_sequences(config):
    """Raises InputError where a sequence would hold no history."""
    for name in ("max_seq_length", "eval_seq_length"):
        length = getattr(config, name)
        require(length is None or length >= 2, f"--{name} counts history + target: at least 2", length)
