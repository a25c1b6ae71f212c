"""What a blend may be made of: untrained recommenders by name, checkpoints of either head by their path."""

from pathlib import Path

import numpy as np
import torch

from pixelrec_train.errors import InputError
from pixelrec_train.evaluation.recommender import ByScores
from pixelrec_train.evaluation.retrieval import TwoTower
from pixelrec_train.recommend.blend_file import blend_file
from pixelrec_train.recommend.checkpoints import load_either
from pixelrec_train.recommend.trained import is_generative
from pixelrec_train.untrained.history_sums import HistorySums
from pixelrec_train.untrained.item_knn import item_knn
from pixelrec_train.untrained.tfidf import tfidf

COLD = "cold"  # 1 for items that nobody took in training: how much better they are than the others know
# {name: (Interactions, Split, a function that reads the text of every item) -> Recommender}
UNTRAINED = {
    "item_knn": lambda read, split, texts: ByScores(item_knn(split.taken, read.num_items)),
    "tfidf": lambda read, split, texts: ByScores(tfidf(texts())),
    COLD: lambda read, split, texts: never_taken(split.popularity),
}
# Columns of the vectors by which a HistorySums stands in a blend of vectors; what that loses: docs/blends.md
WIDTH = 512


def named_parts(spec):
    """["A", "B"] of A+B; a path with a plus in it stays one."""
    return [spec] if Path(spec).exists() else spec.split("+")


def is_blend(spec):
    """Whether a --checkpoint is a blend: parts with a plus between them, a baseline, or a blend.json."""
    return bool(blend_file(spec)) or len(named_parts(spec)) > 1 or spec in UNTRAINED


def checkpoints_of(parts, flag_name, known):
    """Those that are paths; known: names of recommenders that are none.

    Raises:
        InputError: a part is there twice, or is neither.
    """
    for part in parts:
        if parts.count(part) > 1:
            raise InputError(f"{flag_name} {'+'.join(parts)} names {part or 'nothing'} twice.")
        if len(parts) > 1 and part not in known and not Path(part).exists():
            raise InputError(
                f"{flag_name} {'+'.join(parts)}: {part!r} is no checkpoint (looked from {Path.cwd()}), and "
                f"none of {', '.join(known)}."
            )
        if len(parts) > 1 and blend_file(part):
            raise InputError(
                f"{flag_name} {'+'.join(parts)}: {part} is a blend itself. Name its parts instead."
            )
    return [part for part in parts if part not in known]


def check_hybrid(hybrid, *checkpoints):
    """Raises InputError where --hybrid has no generative checkpoint to go with."""
    if hybrid and not any(is_generative(checkpoint) for checkpoint in checkpoints):
        raise InputError(
            f"--hybrid {hybrid} ranks what a generative model has found, but --checkpoint names none."
        )


class Parts:
    """Recommenders by what a blend calls them, each made when it is first asked for."""

    def __init__(self, read, split, texts, load):
        """
        Args:
            read, split: Interactions and their Split.
            texts: () -> [num_items] str, for those that read texts.
            load: path of a checkpoint -> Recommender.
        """
        self.of, self.load, self.made, self.named = (read, split, texts), load, {}, [*UNTRAINED]

    def add(self, name, recommender):
        """One that was made elsewhere."""
        self.made[name] = recommender
        self.named.append(name)

    def __getitem__(self, name):
        if name not in self.made:
            self.made[name] = UNTRAINED[name](*self.of) if name in UNTRAINED else self.load(name)
        return self.made[name]


def never_taken(counts):
    """The part COLD: a vector model of one column. counts: [num_items] of Split.popularity."""
    return TwoTower(
        lambda histories: torch.ones(len(histories), 1),
        (counts == 0).astype(np.float32)[:, None], "exact", cosines=False,
    )  # fmt: skip


def loader(files, trust, retrieval, num_beams=None):
    """Path of a checkpoint -> Recommender, for Parts. Arguments as of load_either."""
    return lambda path: load_either(path, files, trust, retrieval, num_beams).recommender


def vectors_of(part, retrieval, width=WIDTH):
    """A TwoTower with a part's scores, those of a HistorySums nearly; None where it is no vector model."""
    if isinstance(part, TwoTower):
        return part
    if not isinstance(part, ByScores) or not isinstance(part.score, HistorySums):
        return None
    sums = part.score.truncated(width)

    def encode(histories):
        return torch.from_numpy(np.asarray(sums.users(histories), np.float32))

    return TwoTower(encode, sums.right, retrieval, cosines=False)
