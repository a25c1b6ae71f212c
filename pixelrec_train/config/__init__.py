"""The flags, in groups. A command inherits those it uses; below, a function takes a group, or less.

A field is a command-line flag, and the only home of its default.
"""

from pixelrec_train.config.generative import DecodingFlags, GenerativeConfig
from pixelrec_train.config.judging import CatalogueFlags, RankingFlags, RetrievalFlags, require_cut_off
from pixelrec_train.config.reading import (
    CacheFlags,
    DataFlags,
    TableFlags,
    TextFlags,
    TokenFlags,
    WindowFlags,
)
from pixelrec_train.config.towers import (
    HllmFlags,
    NceFlags,
    PoolingFlags,
    TowerFlags,
    TrainConfig,
    TrustFlags,
)
from pixelrec_train.config.training import LaunchFlags, LoopFlags, OptimisationFlags, OutputFlags, RunFlags

__all__ = [
    "CacheFlags", "CatalogueFlags", "DataFlags", "DecodingFlags", "GenerativeConfig", "HllmFlags",
    "LaunchFlags", "LoopFlags", "NceFlags", "OptimisationFlags", "OutputFlags", "PoolingFlags",
    "RankingFlags",
    "RetrievalFlags", "RunFlags", "TableFlags", "TextFlags", "TokenFlags", "TowerFlags", "TrainConfig",
    "TrustFlags", "WindowFlags", "require_cut_off",
]  # fmt: skip
