"""Give every item a semantic id: embeddings, a quantiser, a rule for collisions, a report card."""

from dataclasses import dataclass

from pixelrec_train.config import (
    CatalogueFlags,
    DataFlags,
    LoopFlags,
    PoolingFlags,
    TokenFlags,
    TrustFlags,
)
from pixelrec_train.engine.ds_file import adopted
from pixelrec_train.errors import InputError
from pixelrec_train.flags import (
    COLUMNS,
    MODEL,
    NOT_NEGATIVE,
    POSITIVE,
    Rule,
    at_least,
    check_paths,
    flag,
    parse_args,
)
from pixelrec_train.run.exit_status import speak_plainly
from pixelrec_train.run.hub import fetched
from pixelrec_train.semantic_id.codecs import CODECS, LETTERS

QUANTISERS = ("rq_kmeans", "rq_kmeans_balanced", "rq_vae", "rq_kmeans_plus")
SOURCES = ("checkpoint", "encoder_model_dir", "matrix", "import_index", "semantic_ids")


@dataclass(frozen=True, kw_only=True)
class BuildConfig(DataFlags, TokenFlags, CatalogueFlags, TrustFlags, PoolingFlags, LoopFlags):
    """Give every item a semantic id, from exactly one of --checkpoint, --encoder_model_dir and --matrix.

    Or read another project's index (--import_index), or ids made before (--semantic_ids), and write such an
    index (--export_index).
    """

    # where the embeddings come from
    checkpoint: str | None = flag("a two-tower checkpoint-epoch-N or best_model; its item embeddings", None)
    encoder_model_dir: str | None = flag(
        "any Hugging Face encoder, a directory or in the hub; --pooling of the tokens of --text_data",
        None,
        path=MODEL,
    )
    matrix: str | None = flag("saved embeddings [items, width], .npy or .safetensors", None)
    matrix_ids: str | None = flag("its item ids in the order of its rows: one a line, or a JSON list", None)
    interaction_data: str | None = flag(
        "CSV; popular items keep their nearest ids, and the card counts interactions; with "
        "--encoder_model_dir its items are the catalogue. None = that of the checkpoint, or none",
        None,
    )
    text_data: str | None = flag("CSV the encoder reads; None = that of the checkpoint", None)
    text_keys: tuple[str, ...] = flag("text columns the encoder reads", ("title", "description"), COLUMNS)
    max_text_length: int = flag("tokens of a text the encoder reads", 256, at_least(1))
    normalise: str = flag(
        "none; l2 = every embedding to length 1; zscore = every dimension to mean 0 and deviation 1; auto = "
        "zscore for rq_vae, else l2 for --checkpoint (it learned directions), else none",
        "auto",
        Rule("is auto, none, l2 or zscore", lambda kind: kind in ("auto", "none", "l2", "zscore")),
    )

    # how they become codes
    quantiser: str = flag(
        "rq_kmeans; rq_kmeans_balanced = codes of equal size; rq_vae; rq_kmeans_plus = a residual encoder "
        "trained from balanced codebooks",
        "rq_kmeans_balanced",
        Rule(f"is one of {', '.join(QUANTISERS)}", lambda name: name in QUANTISERS),
    )
    levels: int = flag(
        "codes of an id", 3, Rule(f"is 1 to {len(LETTERS) - 1}", lambda levels: 1 <= levels < len(LETTERS))
    )
    codebook_size: int | None = flag(
        "codes of a level; None = 256, or what an imported index needs",
        None,
        Rule("is 2 to 1,048,576", lambda size: 2 <= size <= 2**20),
    )
    kmeans_iterations: int = flag("rounds of k-means at each level", 20, at_least(1))
    dedup: str = flag(
        "items with equal codes: none; suffix = one more level; reassign = to the nearest free id; auto = "
        "reassign where there are 8 times as many ids as items, else suffix",
        "auto",
        Rule(
            "is auto, none, suffix or reassign", lambda rule: rule in ("auto", "none", "suffix", "reassign")
        ),
    )
    codebooks: str | None = flag(
        "output_dir of an earlier build: its items keep their ids, new ones get theirs from its codebooks",
        None,
    )

    # other projects
    import_index: str | None = flag("index file of another project to read instead", None)
    semantic_ids: str | None = flag("semantic_ids.json to export instead", None)
    export_index: str | None = flag("index file to write in the spelling of --codec", None)
    codec: str = flag(
        f"spelling of index files: {', '.join(CODECS)}",
        "onerec",
        Rule(f"is one of {', '.join(CODECS)}", lambda name: name in CODECS),
    )
    code_base: int | None = flag(
        "first code in minionerec's files, 0 or 1; None = looked for, 0 on export",
        None,
        Rule("is 0 or 1", lambda base: base in (0, 1)),
    )

    # rq_vae and rq_kmeans_plus
    hidden: tuple[int, ...] = flag(
        "widths of the encoder's layers",
        (512, 256, 128),
        Rule("needs widths of at least 1", lambda widths: min(widths, default=1) >= 1),
    )
    code_width: int = flag("rq_vae: width of what the codebooks quantise", 32, at_least(1))
    beta: float = flag(
        "weight of the encoder's distance from its codes",
        0.25,
        Rule("must be a number from 0 to a million", lambda beta: 0 <= beta < 1e6),
    )
    sinkhorn_epsilon: float = flag(
        "even out the last level while training: 0 = no, 0.003 = as LC-Rec",
        0.0,
        Rule("is 0 or at least 1e-4", lambda epsilon: epsilon == 0 or 1e-4 <= epsilon < 1e6),
    )
    steps_per_epoch: int = flag("batches between two looks at all items", 100, at_least(1))
    per_device_train_batch_size: int = flag("items per GPU and batch", 1024, at_least(1))
    num_train_epochs: int = flag("times --steps_per_epoch", 20, at_least(1))
    learning_rate: float | None = flag(
        "peak of the cosine schedule; None = 1e-3, 1e-4 for rq_kmeans_plus", None, POSITIVE
    )
    weight_decay: float = flag("AdamW decay", 0.0, NOT_NEGATIVE)
    bf16: bool = flag(
        "must be False: codebooks move by less than bf16 can hold",
        False,
        Rule("must be False: codebooks move by less than bf16 can hold", lambda on: not on),
    )
    save_total_limit: int = flag("newest checkpoints kept besides the best", 1, at_least(1))
    output_dir: str = flag(
        "where semantic_ids.json, report_card.json and the codebooks go", "results/semantic_ids"
    )
    logging_dir: str = flag("TensorBoard events of the training; its log is beside", "logs/semantic_ids")

    def __post_init__(self):
        if self.learning_rate is None:
            self.set(learning_rate=1e-4 if self.quantiser == "rq_kmeans_plus" else 1e-3)
        super().__post_init__()
        self.check_sources()

    def check_sources(self):
        """Raises InputError unless the flags name one source, and what it needs."""
        given, flags = [name for name in SOURCES if getattr(self, name)], ", ".join(f"--{n}" for n in SOURCES)
        no_embeddings = self.import_index or self.semantic_ids
        for wrong, sentence in (
            (len(given) != 1,
             f"give exactly one of {flags}; got {', '.join(given) or 'none'}."),
            (self.matrix and not self.matrix_ids, "--matrix needs --matrix_ids: which item is which row?"),
            (self.encoder_model_dir and not self.text_data, "--encoder_model_dir needs --text_data."),
            (self.pooling and not self.encoder_model_dir, "--pooling is for --encoder_model_dir."),
            ((self.valid_data or self.split_data) and not (self.interaction_data or self.checkpoint),
             "--valid_data, --test_data and --split_data need --interaction_data."),
            (self.split_protocol and not (self.interaction_data or self.checkpoint),
             "--split_protocol needs --interaction_data."),
            (self.semantic_ids and not self.export_index, "--semantic_ids is for --export_index FILE."),
            (self.codebooks and no_embeddings, f"--codebooks has no use with --{''.join(given)}."),
        ):  # fmt: skip
            if wrong:
                raise InputError(sentence)

    @property
    def normalisation(self):
        """--normalise with "auto" resolved; of a two-tower checkpoint only directions mean anything."""
        if self.normalise != "auto":
            return self.normalise
        return "zscore" if self.quantiser == "rq_vae" else "l2" if self.checkpoint else "none"


@speak_plainly
def main(argv=None):
    config = adopted(check_paths(parse_args(BuildConfig, argv)))
    config = fetched(config)
    from pixelrec_train.trainings import build_ids

    build_ids.main(config)
