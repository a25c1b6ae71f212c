"""The flags of scripts/build_semantic_ids.py."""

from dataclasses import dataclass

from pixelrec_train.commands.item_embeddings import check_sources
from pixelrec_train.config import LoopConfig
from pixelrec_train.flags import flag, require
from pixelrec_train.semantic_id import dedup
from pixelrec_train.semantic_id.codecs import CODECS, LETTERS
from pixelrec_train.semantic_id.quantiser import NORMALISATIONS

IDS, CARD = "semantic_ids.json", "report_card.json"
QUANTISERS = ("rq_kmeans", "rq_kmeans_balanced", "rq_vae", "rq_kmeans_plus")
TRAINED = ("rq_vae", "rq_kmeans_plus")


@dataclass(frozen=True, kw_only=True)
class BuildConfig(LoopConfig):
    """Give every item a semantic id, from exactly one of --checkpoint, --encoder_model_dir and --matrix.

    Or read another project's index (--import_index), or ids made before (--semantic_ids), and write such an
    index (--export_index).
    """

    # where the embeddings come from
    checkpoint: str | None = flag("a two-tower checkpoint-epoch-N or best_model; its item embeddings", None)
    encoder_model_dir: str | None = flag(
        "any Hugging Face encoder; the mean over the tokens of --text_data", None
    )
    matrix: str | None = flag("saved embeddings [items, width], .npy or .safetensors", None)
    matrix_ids: str | None = flag("its item ids in the order of its rows: one a line, or a JSON list", None)
    interaction_data: str | None = flag(
        "CSV; popular items keep their nearest ids, and the card counts interactions; with "
        "--encoder_model_dir its items are the catalogue. None = that of the checkpoint, or none",
        None,
    )
    text_data: str | None = flag("CSV the encoder reads; None = that of the checkpoint", None)
    text_keys: tuple[str, ...] = flag("text columns the encoder reads", ("title", "description"))
    max_text_length: int = flag("tokens of a text the encoder reads", 256)
    normalise: str = flag(
        "none; l2 = every embedding to length 1; zscore = every dimension to mean 0 and deviation 1; auto = "
        "zscore for rq_vae, else l2 for --checkpoint (it learned directions), else none",
        "auto",
    )

    # how they become codes
    quantiser: str = flag(
        "rq_kmeans; rq_kmeans_balanced = codes of equal size; rq_vae; rq_kmeans_plus = a residual encoder "
        "trained from balanced codebooks",
        "rq_kmeans_balanced",
    )
    levels: int = flag("codes of an id", 3)
    codebook_size: int | None = flag("codes of a level; None = 256, or what an imported index needs", None)
    kmeans_iterations: int = flag("rounds of k-means at each level", 20)
    dedup: str = flag(
        "items with equal codes: none; suffix = one more level; reassign = to the nearest free id; auto = "
        "reassign where there are 8 times as many ids as items, else suffix",
        "auto",
    )
    codebooks: str | None = flag(
        "output_dir of an earlier build: its items keep their ids, new ones get theirs from its codebooks",
        None,
    )

    # other projects
    import_index: str | None = flag("index file of another project to read instead", None)
    semantic_ids: str | None = flag("semantic_ids.json to export instead", None)
    export_index: str | None = flag("index file to write in the spelling of --codec", None)
    codec: str = flag(f"spelling of index files: {', '.join(CODECS)}", "onerec")
    code_base: int | None = flag(
        "first code in minionerec's files, 0 or 1; None = looked for, 0 on export", None
    )

    # rq_vae and rq_kmeans_plus
    hidden: tuple[int, ...] = flag("widths of the encoder's layers", (512, 256, 128))
    code_width: int = flag("rq_vae: width of what the codebooks quantise", 32)
    beta: float = flag("weight of the encoder's distance from its codes", 0.25)
    sinkhorn_epsilon: float = flag("even out the last level while training: 0 = no, 0.003 = as LC-Rec", 0.0)
    steps_per_epoch: int = flag("batches between two looks at all items", 100)
    per_device_train_batch_size: int = flag("items per GPU and batch", 1024)
    num_train_epochs: int = flag("times --steps_per_epoch", 20)
    learning_rate: float | None = flag(
        "peak of the cosine schedule; None = 1e-3, 1e-4 for rq_kmeans_plus", None
    )
    weight_decay: float = flag("AdamW decay", 0.0)
    bf16: bool = flag("must be False: codebooks move by less than bf16 can hold", False)
    save_total_limit: int = flag("newest checkpoints kept besides the best", 1)
    output_dir: str = flag(f"where {IDS}, {CARD} and the codebooks go", "results/semantic_ids")
    logging_dir: str = flag("TensorBoard events of the training; its log is beside", "logs/semantic_ids")

    def __post_init__(self):
        if self.learning_rate is None:
            object.__setattr__(self, "learning_rate", 1e-4 if self.quantiser == "rq_kmeans_plus" else 1e-3)
        super().__post_init__()
        require(
            self.quantiser in QUANTISERS, f"--quantiser is one of {', '.join(QUANTISERS)}", self.quantiser
        )
        require(self.codec in CODECS, f"--codec is one of {', '.join(CODECS)}", self.codec)
        require(
            self.normalise in ("auto", *NORMALISATIONS),
            "--normalise is auto, none, l2 or zscore",
            self.normalise,
        )
        require(
            self.dedup in ("auto", *dedup.POLICIES), "--dedup is auto, none, suffix or reassign", self.dedup
        )
        require(self.code_base in (None, 0, 1), "--code_base is 0 or 1", self.code_base)
        require(1 <= self.levels < len(LETTERS), f"--levels is 1 to {len(LETTERS) - 1}", self.levels)
        size = self.codebook_size
        require(size is None or 2 <= size <= 2**20, "--codebook_size is 2 to 1,048,576", size)
        for name in ("kmeans_iterations", "code_width", "steps_per_epoch", "max_text_length"):
            require(getattr(self, name) >= 1, f"--{name} must be at least 1", getattr(self, name))
        require(all(width >= 1 for width in self.hidden), "--hidden needs widths of at least 1", self.hidden)
        require(0 <= self.beta < 1e6, "--beta must be a number from 0 to a million", self.beta)
        require(not self.bf16, "--bf16 must be False: codebooks move by less than bf16 can hold", self.bf16)
        epsilon = self.sinkhorn_epsilon
        require(epsilon == 0 or 1e-4 <= epsilon < 1e6, "--sinkhorn_epsilon is 0 or at least 1e-4", epsilon)
        check_sources(self)

    @property
    def normalisation(self):
        """--normalise with "auto" resolved; of a two-tower checkpoint only directions mean anything."""
        if self.normalise != "auto":
            return self.normalise
        return "zscore" if self.quantiser == "rq_vae" else "l2" if self.checkpoint else "none"
