"""Flags of the generative head."""

from dataclasses import dataclass

from pixelrec_train.config.adapters import AdapterFlags
from pixelrec_train.config.judging import RankingFlags, RetrievalFlags, ValidUsersFlags, require_cut_off
from pixelrec_train.config.reading import DataFlags, TokenFlags, WindowFlags
from pixelrec_train.config.towers import TrustFlags
from pixelrec_train.config.training import RunFlags
from pixelrec_train.errors import InputError
from pixelrec_train.flags import FILE, MODEL, SHARE, at_least, flag, one_of


@dataclass(frozen=True, kw_only=True)
class DecodingFlags(RankingFlags):
    """How a generative model's recommendations are found and judged."""

    num_beams: int = flag("semantic ids kept per user and level", 50, at_least(1))
    normalised_over: str = flag(
        "probabilities of a code: full = over the vocabulary, level = its level",
        "full",
        one_of("full", "level"),
    )


@dataclass(frozen=True, kw_only=True)
class GenerativeConfig(
    AdapterFlags, DataFlags, TokenFlags, WindowFlags, TrustFlags, RunFlags, DecodingFlags, RetrievalFlags,
    ValidUsersFlags,
):  # fmt: skip
    """Train a language model with itemic tokens: it reads a history of semantic ids and says the next."""

    text_data: str | None = flag(
        "CSV with a column item_id and the text columns; needed to --align", None, path=FILE
    )
    semantic_ids: str = flag("file that scripts/build_semantic_ids.py wrote", path=FILE)
    align: bool = flag("besides histories, tell the text for every item's id and the id for its text", True)
    max_text_length: int = flag("tokens kept of an item's text", 64, at_least(1))
    model_dir: str = flag(
        "directory made by scripts/expand_vocabulary.py, or the llm/ of a checkpoint; or in the hub",
        path=MODEL,
    )
    random_init: bool = flag(
        "draw the weights anew, by --seed and config.json of model_dir, which gives tokenizer and tokens",
        False,
        alias=("train_from_scratch",),
    )
    new_rows_only: bool = flag("stage 1: train the rows of the itemic tokens and nothing else", False)
    dropout: float = flag(
        "share of the entries of embeddings and final states zeroed while training", 0.0, SHARE
    )
    gradient_checkpointing: bool = flag(
        "recompute activations in the backward pass to save memory", True, may_differ=True
    )
    loss_chunk: int = flag(
        "labels whose logits over the vocabulary exist at a time", 4096, at_least(1), may_differ=True
    )
    beside: str | None = flag("a two-tower checkpoint that gets a row in the table too", None)

    def __post_init__(self):
        super().__post_init__()
        self.refuse_beside(self.new_rows_only)
        self.refuse_random(self.random_init)
        require_cut_off(self.topk, self.best_by or "ndcg@10")
        if self.align and not self.text_data:
            raise InputError("--text_data is needed (or --align False).")
        if self.random_init and self.new_rows_only:
            raise InputError("--new_rows_only with --random_init would keep the language model random.")
