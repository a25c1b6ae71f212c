"""Embed a catalogue once, as a job of its own: sharded over ranks, to be ended and started again."""

from dataclasses import dataclass

from pixelrec_train.config import (
    CatalogueFlags,
    DataFlags,
    LaunchFlags,
    PoolingFlags,
    TokenFlags,
    TrustFlags,
)
from pixelrec_train.errors import InputError
from pixelrec_train.flags import (
    COLUMNS,
    FILE,
    MODEL,
    NEW_DIRECTORY,
    at_least,
    check_paths,
    flag,
    parse_args,
    refuse_beside_checkpoint,
)
from pixelrec_train.run.exit_status import speak_plainly
from pixelrec_train.run.hub import fetched

# Of a checkpoint these are as it was trained.
OF_ENCODERS = ("text_keys", "max_text_length", "pooling")


@dataclass(frozen=True, kw_only=True)
class EmbedConfig(DataFlags, TokenFlags, CatalogueFlags, TrustFlags, PoolingFlags, LaunchFlags):
    """Embed every item, by a two-tower checkpoint or any encoder, into --cache_dir, where all commands look.

    A launcher (deepspeed, torchrun) shares items among ranks; the same command goes on where it was ended.
    What is left: item_embeddings.npy, [items, width] in fp32 for numpy.load(…, mmap_mode="r"), and
    item_ids.txt, whose line i names row i.
    """

    checkpoint: str | None = flag("a two-tower checkpoint-epoch-N or best_model directory", None)
    encoder_model_dir: str | None = flag(
        "or any Hugging Face encoder, a directory or in the hub, that reads --text_data", None, path=MODEL
    )
    interaction_data: str | None = flag(
        "table whose items are the catalogue; None = that of the checkpoint, or all items of --text_data",
        None,
        path=FILE,
    )
    text_data: str | None = flag("table of the texts; None = that of the checkpoint", None, path=FILE)
    text_keys: tuple[str, ...] = flag("text columns the encoder reads", ("title", "description"), COLUMNS)
    max_text_length: int = flag("tokens of a text the encoder reads", 256, at_least(1))
    output_dir: str | None = flag(
        "a directory for a copy of the two files; None = they lie in --cache_dir alone",
        None,
        path=NEW_DIRECTORY,
    )
    overwrite: bool = flag("embed anew what is there, and replace the copy in --output_dir", False)

    def __post_init__(self):
        super().__post_init__()
        if bool(self.checkpoint) == bool(self.encoder_model_dir):
            raise InputError("Name --checkpoint or --encoder_model_dir, one of the two: what is to embed.")
        if self.encoder_model_dir and not self.text_data:
            raise InputError("--encoder_model_dir needs --text_data: what is it to read?")
        if self.encoder_model_dir and not self.interaction_data:
            for name in ("valid_data", "split_data", "split_protocol"):
                if getattr(self, name):
                    raise InputError(f"--{name} needs --interaction_data.")


def fitting(config):
    """The config; InputError where a flag that was given has nothing to say to a checkpoint."""
    refuse_beside_checkpoint(config, OF_ENCODERS, "encoder_model_dir")
    return config


@speak_plainly
def main(argv=None):
    config = check_paths(fitting(parse_args(EmbedConfig, argv)))
    config = fetched(config)
    from pixelrec_train.trainings import embed_items

    embed_items.main(config)
