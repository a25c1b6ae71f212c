"""Every knob of training a generative model that it does not share with the first head."""

from dataclasses import dataclass

from pixelrec_train.config import LoopConfig, TrainConfig, require_sequences
from pixelrec_train.errors import InputError
from pixelrec_train.flags import flag, flag_of, require, require_distinct


@dataclass(frozen=True, kw_only=True)
class GenerativeConfig(LoopConfig):
    """Train a language model with itemic tokens: it reads a history of semantic ids and says the next."""

    # data
    interaction_data: str = flag_of(TrainConfig, "interaction_data")
    text_data: str | None = flag("CSV with a column item_id and the text columns; needed to --align", None)
    text_keys: tuple[str, ...] = flag_of(TrainConfig, "text_keys")
    semantic_ids: str = flag("file that scripts/build_semantic_ids.py wrote")
    align: bool = flag("besides histories, tell the text for every item's id and the id for its text", True)
    max_seq_length: int = flag_of(TrainConfig, "max_seq_length")
    split_data: str | None = flag_of(TrainConfig, "split_data")
    one_window_per_user: bool = flag_of(TrainConfig, "one_window_per_user")
    eval_seq_length: int | None = flag_of(TrainConfig, "eval_seq_length")
    max_text_length: int = flag("tokens kept of an item's text", 64)

    # model
    model_dir: str = flag("directory made by scripts/expand_vocabulary.py, or the llm/ of a checkpoint")
    new_rows_only: bool = flag("stage 1: train the rows of the itemic tokens and nothing else", False)
    dropout: float = flag("share of the entries of embeddings and final states zeroed while training", 0.0)
    gradient_checkpointing: bool = flag_of(TrainConfig, "gradient_checkpointing")
    loss_chunk: int = flag("labels whose logits over the vocabulary exist at a time", 4096)

    # decoding
    num_beams: int = flag("semantic ids kept per user and level", 50)
    normalised_over: str = flag(
        "probabilities of a code: full = over the vocabulary, level = its level", "full"
    )

    valid_users: int | None = flag(
        "validation users judged after each epoch, drawn once; None = all (decoding takes its time)", None
    )

    beside: str | None = flag("a two-tower checkpoint that gets a row in the table too", None)
    resume: str | None = flag_of(TrainConfig, "resume")
    dry_run: int | None = flag_of(TrainConfig, "dry_run")

    def __post_init__(self):
        super().__post_init__()
        for name in ("max_text_length", "loss_chunk", "num_beams"):
            require(getattr(self, name) >= 1, f"--{name} must be at least 1", getattr(self, name))
        require_sequences(self)
        require(0 <= self.dropout < 1, "--dropout must be in [0, 1)", self.dropout)
        users = self.valid_users
        require(users is None or users >= 1, "--valid_users must be None or at least 1", users)
        require(self.normalised_over in ("full", "level"),
                "--normalised_over must be full or level", self.normalised_over)  # fmt: skip
        require(self.text_keys, "--text_keys needs at least one column", self.text_keys)
        require_distinct(self.text_keys, "--text_keys")
        if self.align and not self.text_data:
            raise InputError("--text_data is needed (or --align False).")
        require(self.dry_run is None or self.dry_run >= 1, "--dry_run needs a number of ranks", self.dry_run)

    # What read_inputs asks of a config. The LLM's own tokenizer reads the fields alone; nothing is [ITEM].
    item_prompt = ""
    item_emb_token_n = 0

    @property
    def id_only(self):
        return not self.align

    @property
    def item_dir(self):
        return self.model_dir

    @property
    def seq_length_in_evaluation(self):
        return self.eval_seq_length or self.max_seq_length
