"""Flags of the first head: its two towers and their loss."""

from dataclasses import dataclass

from pixelrec_train.config.adapters import TowerAdapterFlags
from pixelrec_train.config.judging import RankingFlags, RetrievalFlags, ValidUsersFlags, require_cut_off
from pixelrec_train.config.known import KnownFlags
from pixelrec_train.config.reading import DataFlags, TokenFlags, WindowFlags
from pixelrec_train.config.training import RunFlags
from pixelrec_train.errors import InputError
from pixelrec_train.files import model_files
from pixelrec_train.flags import MODEL, SHARE, Flags, Rule, as_text, at_least, flag, one_of
from pixelrec_train.sentence_encoder import MODULES, SentenceEncoder

ITEM_PROMPT = "Compress the following sentence into embedding: "
# Tokens of a rank's batch, by layer and by chunk about equally much memory (docs/scaling.md).
AT_ONCE, CHUNK = 65536, 8192
TOWERS = ("none", "item", "user", "item,user", "user,item")


@dataclass(frozen=True, kw_only=True)
class TrustFlags(Flags):
    trust_remote_code: tuple[str, ...] = flag(
        "towers that may run code of their directory: item, user",
        (),
        Rule("takes item, user or item,user", lambda towers: as_text(towers) in TOWERS),
    )


@dataclass(frozen=True, kw_only=True)
class PoolingFlags(Flags):
    pooling: str | None = flag(
        "what a text without [ITEM] is: mean or cls (the first) or last_token of its tokens; None = as a "
        "sentence-transformers directory says, else mean",
        None,
        one_of("mean", "cls", "last_token"),
    )


@dataclass(frozen=True, kw_only=True)
class TowerFlags(TrustFlags, PoolingFlags):
    """The two towers: where they come from, and how they are trained."""

    item_prompt: str = flag(
        "text in front of every item's fields; unless another is given, that of a sentence-transformers "
        "directory which is followed",
        ITEM_PROMPT,
    )
    item_model_dir: str | None = flag(
        "Hugging Face directory (model and tokenizer) of the item LLM, or ORG/NAME[@revision] in the hub",
        None,
        path=MODEL,
    )
    user_model_dir: str | None = flag("the same of the user LLM", None, path=MODEL)
    init_from: str | None = flag(
        "start from a checkpoint's weights instead: both towers, [ITEM], item ids, temperature", None
    )
    random_init: tuple[str, ...] = flag(
        "towers that start from random weights: item, user",
        (),
        Rule("takes item, user or item,user", lambda towers: as_text(towers) in TOWERS),
    )
    freeze_item_llm: bool = flag(
        "embed the catalogue once and train the user LLM on it (item caching)", False
    )
    item_id_embedding: bool = flag("add a learnable vector per item to its text embedding", False)
    id_only: bool = flag("items are their id embeddings alone; no text is read", False)
    item_emb_token_n: int = flag(
        "1 = a learnable [ITEM] token reads the text; 0 = --pooling of its tokens, also of a frozen "
        "sentence-transformers directory",
        1,
        one_of(0, 1),
    )
    projection: bool = flag(
        "a learned linear map from item embeddings to the user LLM; where widths differ in any case", False
    )
    gradient_checkpointing: bool = flag(
        "recompute activations in the backward pass to save memory", True, may_differ=True
    )
    item_chunk_tokens: int | None = flag(
        "item tokens read at a time; only one such chunk keeps its activations, so a batch of any size fits. "
        f"None = up to {AT_ONCE:,} all at once, recomputed layer by layer, and more of them {CHUNK:,} at a "
        "time (where --gradient_checkpointing is on)",
        None,
        at_least(1),
        may_differ=True,
    )
    history_dropout: float = flag("share of history embeddings' entries zeroed while training", 0.0, SHARE)
    compile: bool = flag(
        "torch.compile the towers: faster steps after minutes of compiling; needs a C++ compiler",
        False,
        may_differ=True,
    )

    def __post_init__(self):
        """Raises InputError also when the flags leave open, or say twice, what reads items and users."""
        super().__post_init__()
        if self.freeze_item_llm and self.item_model_dir:
            if (model_files(self.item_model_dir) / MODULES).is_file():
                self.set(item_emb_token_n=0)
        self.check_towers()

    def check_towers(self):
        dirs, freeze, chunk = (
            self.item_model_dir or self.user_model_dir, self.freeze_item_llm, self.item_chunk_tokens,
        )  # fmt: skip
        for wrong, sentence in (
            (not (self.item_model_dir or self.id_only or self.init_from),
             "--item_model_dir is needed (or --init_from, or --id_only)."),
            (not (self.user_model_dir or self.init_from), "--user_model_dir is needed (or --init_from)."),
            (self.init_from and (dirs or self.random_init),
             "--init_from brings both towers: leave out --item_model_dir, --user_model_dir, --random_init."),
            (self.id_only and "item" in self.random_init, "--id_only has no item LLM for --random_init."),
            (freeze and self.id_only, "--id_only has no item LLM, so there is none to --freeze_item_llm."),
            (freeze and "item" in self.random_init,
             "--freeze_item_llm with --random_init item would keep the item LLM random. Leave one out."),
            (freeze and self.item_emb_token_n and not self.init_from,
             "--freeze_item_llm would keep a new [ITEM] token random. Use --item_emb_token_n 0 (the mean of "
             "the tokens), or --init_from a checkpoint that has learned one."),
            (self.id_only and (self.pooling or self.projection),
             f"--id_only has no text to {'pool' if self.pooling else 'project'}: leave out "
             f"--{'pooling' if self.pooling else 'projection'}."),
            (self.pooling and self.item_emb_token_n,
             f"--pooling {self.pooling} is for --item_emb_token_n 0: here the [ITEM] token reads the text."),
            (chunk and not self.reads_texts,
             "--item_chunk_tokens is for an item LLM that trains (not --freeze_item_llm, --id_only)."),
            (chunk and not self.gradient_checkpointing,
             "--item_chunk_tokens saves memory by recomputing, so it needs --gradient_checkpointing True."),
            (self.compile and self.gradient_checkpointing,
             "--compile needs --gradient_checkpointing False: recomputed layers would not be compiled."),
        ):  # fmt: skip
            if wrong:
                raise InputError(sentence)

    @property
    def chunks(self):
        """(item tokens of a rank that are read at once, tokens of a chunk where there are more); None = never
        cut."""
        if self.item_chunk_tokens or not (self.gradient_checkpointing and self.reads_texts):
            return 0, self.item_chunk_tokens
        return AT_ONCE, CHUNK

    @property
    def item_dir(self):
        """Where the item LLM and its tokenizer lie; None without one."""
        return f"{self.init_from}/item_llm" if self.init_from else self.item_model_dir

    def encoder_of(self, item_dir, flag_name="--item_model_dir"):
        """SentenceEncoder by which the texts are read; None = by [ITEM], or as the mean of the tokens."""
        if self.id_only or self.item_emb_token_n:
            return None
        found = SentenceEncoder.of(item_dir, flag_name, self.pooling)
        own = self.item_prompt == ITEM_PROMPT and (model_files(item_dir) / MODULES).is_file()
        return found and found.within(self.max_text_length, None if own else self.item_prompt)

    @property
    def reads_texts(self):
        """Whether an item LLM reads at every step."""
        return not (self.id_only or self.freeze_item_llm)

    @property
    def has_item_ids(self):
        return self.item_id_embedding or self.id_only


@dataclass(frozen=True, kw_only=True)
class NceFlags(Flags):
    """The two-tower loss."""

    num_negatives: int | None = flag(
        "negatives per global micro-batch, over all ranks (rounded up to as many per window); "
        "None = max_seq_length per window",
        None,
        at_least(1),
    )
    full_softmax: bool = flag(
        "beside every target stand all training items but those of the history, in place of drawn negatives",
        False,
    )
    nce_thres: float = flag(
        "a negative this close (cosine) to the target is the same item, and is left out",
        0.99,
        Rule("is a cosine, in [-1, 1]", lambda cosine: -1 <= cosine <= 1),
    )
    nce_chunk: int | None = flag(
        "negatives scored at a time, for pools whose scores do not fit into memory; None = all at once",
        None,
        at_least(1),
        may_differ=True,
    )
    loss_weighting: str = flag(
        "position = every position weighs the same; rank = every rank (original HLLM)",
        "position",
        one_of("position", "rank"),
    )


@dataclass(frozen=True, kw_only=True)
class HllmFlags(TokenFlags, WindowFlags, TowerFlags, KnownFlags):
    """The first head's model: what it reads, and with which towers."""

    time_features: bool = flag(
        "the user LLM also reads when each item of the history was taken: learned vectors of year, month, "
        "weekday, hour and of the gap to the item before; the time of the target is not known to it",
        False,
    )

    def check_towers(self):
        if not (self.text_data or self.id_only):
            raise InputError("--text_data is needed (or --id_only).")
        super().check_towers()
        self.check_known(self.text_data)


@dataclass(frozen=True, kw_only=True)
class TrainConfig(
    DataFlags, HllmFlags, NceFlags, TowerAdapterFlags, RunFlags, RankingFlags, RetrievalFlags, ValidUsersFlags
):
    """Train a two-tower HLLM: an item LLM reads texts, a user LLM reads the sequence of their embeddings."""

    def __post_init__(self):
        super().__post_init__()
        self.check_adapters()
        require_cut_off(self.topk, self.best_by or "ndcg@10")

    def negatives_per_window(self, world_size):
        """Negatives drawn with one window, so that all ranks together give the pool that was asked for."""
        if self.num_negatives is None:
            return self.max_seq_length
        return -(-self.num_negatives // (world_size * self.per_device_train_batch_size))
