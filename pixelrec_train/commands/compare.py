"""One table for a dataset: baselines, SASRec and any checkpoints, on the same users by the same rules."""

from dataclasses import dataclass

from pixelrec_train.config import (
    DataFlags,
    LoopFlags,
    RankingFlags,
    RetrievalFlags,
    TextFlags,
    TrustFlags,
    require_cut_off,
)
from pixelrec_train.engine.ds_file import adopted
from pixelrec_train.flags import (
    COLUMNS,
    DISTINCT,
    FILE,
    NOT_NEGATIVE,
    POSITIVE,
    SHARE,
    Rule,
    at_least,
    check_paths,
    flag,
    one_of,
    parse_args,
    refuse_unless,
)
from pixelrec_train.run.exit_status import speak_plainly


@dataclass(frozen=True, kw_only=True)
class CompareConfig(DataFlags, TextFlags, TrustFlags, RankingFlags, RetrievalFlags, LoopFlags):
    """One table for a dataset: popularity, ItemKNN, TF-IDF, SASRec (trained here) and any checkpoints."""

    text_data: str = flag("table with a column item_id and the text columns", path=FILE)
    text_keys: tuple[str, ...] = flag(
        "text columns TF-IDF reads", ("title", "description"), COLUMNS, DISTINCT
    )
    checkpoint: tuple[str, ...] = flag(
        "a checkpoint-epoch-N or best_model directory; may be given several times. A+B joins two into one "
        "model, whose score is the mean of their cosines",
        (),
        repeated=True,
    )
    split: str = flag(
        "valid or test: of every user the second-last item, or the last, unless --split_protocol says else",
        "test",
        one_of("valid", "test"),
    )
    output_dir: str = flag("where table.md, table.json and the SASRec run go", "results/compare")
    logging_dir: str = flag("TensorBoard events of SASRec; its log is beside", "logs/compare")

    # SASRec; a small model of its own, so some defaults differ from those of an LLM
    max_seq_length: int = flag("SASRec: items per training window, history + target", 51, at_least(2))
    hidden_size: int = flag("SASRec: width of its vectors", 64, at_least(1))
    layers: int = flag("SASRec: transformer blocks", 2, at_least(1))
    heads: int = flag("SASRec: attention heads", 2, at_least(1))
    dropout: float = flag("SASRec: dropout of embeddings, attention and feed-forward", 0.5, SHARE)
    per_device_train_batch_size: int = flag("SASRec: windows per GPU and micro-batch", 128, at_least(1))
    num_train_epochs: int = flag("SASRec: passes over the training windows", 40, at_least(1))
    learning_rate: float = flag("SASRec: peak of the cosine schedule", 1e-3, POSITIVE)
    weight_decay: float = flag("SASRec: AdamW decay", 0.0, NOT_NEGATIVE)
    dataloader_num_workers: int = flag("SASRec: processes per rank that prepare batches", 0, at_least(0))
    bf16: bool = flag("SASRec: bf16 weights over fp32 master weights", False)
    save_total_limit: int = flag("SASRec: newest checkpoints kept besides the best", 1, at_least(1))

    def __post_init__(self):
        super().__post_init__()
        require_cut_off(self.topk, "ndcg@10")
        fits = Rule(f"must be a multiple of --heads {self.heads}", lambda width: width % self.heads == 0)
        refuse_unless(fits, "hidden_size", self.hidden_size)


@speak_plainly
def main(argv=None):
    config = adopted(check_paths(parse_args(CompareConfig, argv)))
    from pixelrec_train.trainings import compare_models

    compare_models.main(config)
