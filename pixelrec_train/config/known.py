"""Flags of what is known of items before a two-tower model trains: untrained recommenders, their vectors."""

from dataclasses import dataclass

from pixelrec_train.errors import InputError
from pixelrec_train.flags import DISTINCT, SHARE, Flags, Rule, at_least, flag

SIMILARITIES = ITEM_KNN, EASE, TFIDF = "item_knn", "ease", "tfidf"
REPEATS = SEEN, LAST = "seen", "last"
OFFSETS = (*SIMILARITIES, *REPEATS)
FEATURES = TFIDF, COOCCURRENCE = "tfidf", "cooccurrence"


def among(*names):
    return Rule(f"takes {', '.join(names)}", lambda given: set(given) <= set(names))


@dataclass(frozen=True, kw_only=True)
class KnownFlags(Flags):
    offsets: tuple[str, ...] = flag(
        "item_knn, ease, tfidf: scores of untrained recommenders stand beside the towers', times learned "
        "factors: the towers learn what these do not know. A window's user is not in their counts. With "
        "--keep_seen also seen, last: whether an item is in the history, is its newest",
        (),
        among(*OFFSETS),
        DISTINCT,
    )
    offset_width: int = flag(
        "of the vectors that stand for each of --offsets (a truncated SVD; of TF-IDF at most 512)",
        1024,
        at_least(1),
    )
    item_features: tuple[str, ...] = flag(
        "vectors that a small network joins to the text's embedding: tfidf, cooccurrence (truncated SVDs)",
        (),
        among(*FEATURES),
        DISTINCT,
    )
    feature_width: int = flag("of each of --item_features", 256, at_least(1))
    item_dropout: float = flag("dropout in the network of --item_features", 0.3, SHARE)

    def check_known(self, text_data):
        """Raises InputError where texts are asked for and not named."""
        for name in ("offsets", "item_features"):
            if TFIDF in getattr(self, name) and not text_data:
                raise InputError(f"--{name} tfidf reads item texts: --text_data is needed.")
