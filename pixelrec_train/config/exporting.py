"""Flags of handing a two-tower model to other programs."""

import difflib
from dataclasses import dataclass

from pixelrec_train.config.judging import CatalogueFlags
from pixelrec_train.config.reading import PROTOCOLS, DataFlags, TextFlags
from pixelrec_train.config.towers import TrustFlags
from pixelrec_train.errors import InputError
from pixelrec_train.flags import (
    DISTINCT,
    FILE,
    NEW_DIRECTORY,
    SEED,
    Rule,
    as_text,
    at_least,
    flag,
    given,
    one_of,
)

INDEXES = ("flat", "ivf", "hnsw", "pq")
TOWERS = ("torch_export", "onnx")
OF_INDEX = {"nlist": "ivf", "hnsw_m": "hnsw", "pq_m": "pq"}


@dataclass(frozen=True, kw_only=True)
class ExportConfig(TextFlags, DataFlags, CatalogueFlags, TrustFlags):
    """A two-tower checkpoint for programs that have none of this code: FAISS indexes with measured recall,
    size and speed; the towers as programs of torch.export or ONNX; the item tower as a directory of
    sentence-transformers. For a generative checkpoint: scripts/convert_checkpoint.py.
    """

    checkpoint: str = flag("a checkpoint-epoch-N or best_model directory of a two-tower model")
    output_dir: str = flag("directory to write", path=NEW_DIRECTORY)
    index: tuple[str, ...] = flag(
        "flat = exact, ivf = cells, hnsw = a graph, pq = compressed; none = no index", INDEXES, DISTINCT
    )
    towers: tuple[str, ...] = flag(
        "torch_export, onnx (pip install onnx onnxscript onnxruntime); none = no tower", TOWERS[:1], DISTINCT
    )
    sentence_transformers: bool | None = flag(
        "write the item tower as sentence-transformers loads it; None = where a text alone makes the "
        "embedding",
        None,
    )
    split: str = flag(
        "whose users ask: half of them, 1,000 at most, choose nprobe, efSearch and m; the others, 10,000 at "
        "most, are what the table says",
        "test",
        one_of("valid", "test"),
    )
    wanted_recall: float = flag(
        "recall@100 against exact search that nprobe, efSearch and m are chosen for",
        0.95,
        Rule("must be in (0, 1]", lambda share: 0 < share <= 1),
    )
    nlist: int | None = flag(
        "cells of ivf; None = 4 √items, and 39 items for each at least", None, at_least(1)
    )
    hnsw_m: int = flag("neighbours of an item in the graph of hnsw", 32, at_least(2))
    pq_m: int | None = flag(
        "bytes of a vector under pq, a divisor of its width; None = the fewest that reach the wanted recall",
        None,
        at_least(1),
    )
    seed: int = flag("draws the users that ask", 42, SEED)
    overwrite: bool = flag("replace what an earlier export wrote there", False)
    interaction_data: str | None = flag(
        "table; None = the one the checkpoint was trained on", None, path=FILE
    )
    split_protocol: str | None = flag("None = that of the checkpoint", None, one_of(*PROTOCOLS))
    text_keys: tuple[str, ...] = flag("text columns; none = those the checkpoint was trained on", ())

    def __post_init__(self):
        super().__post_init__()
        for name, known in (("index", INDEXES), ("towers", TOWERS)):
            for one in getattr(self, name):
                if one not in known:
                    near = difflib.get_close_matches(one, known, n=1)
                    hint = f" Did you mean {near[0]}?" if near else ""
                    raise InputError(f"--{name} knows {as_text(known)} and none, got {one!r}.{hint}")
        if not (self.index or self.towers or self.sentence_transformers is not False):
            raise InputError(
                "--index none --towers none --sentence_transformers False leaves nothing to export. Leave "
                "one of them out."
            )


def check_sizes(config):
    """Raises InputError where a size was given of an index that is not asked for."""
    for name, kind in OF_INDEX.items():
        if name in given(config) and kind not in config.index:
            raise InputError(f"--{name} is for --index {kind}, which is not asked for. Leave it out.")
