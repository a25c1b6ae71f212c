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

COLD = "cold"  # 1 for items that nobody took in training: how much better they are than the others know
UNTRAINED = ("item_knn", "tfidf", "ease", COLD)  # parts that every command makes when they are asked for
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
        if len(parts) > 1 and part not in known and not (part and Path(part).exists()):
            empty = "an empty part" * (not part)
            raise InputError(
                f"{flag_name} {'+'.join(parts)}: {empty or repr(part)} is no checkpoint (looked from "
                f"{Path.cwd()}), and none of {', '.join(known)}."
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

    def __init__(self, makers, load):
        """
        Args:
            makers: {name: () -> Recommender}
            load: path of a checkpoint -> Recommender.
        """
        self.makers, self.load, self.made, self.named = makers, load, {}, [*makers]

    def add(self, name, recommender):
        """One that was made elsewhere."""
        self.made[name] = recommender
        self.named.append(name)

    def __getitem__(self, name):
        if name not in self.made:
            self.made[name] = self.makers[name]() if name in self.makers else self.load(name)
        return self.made[name]


def never_taken(counts):
    """The part COLD: a vector model of one column. counts: [num_items] of Split.popularity."""
    return TwoTower(
        lambda histories, times=None: torch.ones(len(histories), 1),
        (counts == 0).astype(np.float32)[:, None], "exact", cosines=False,
    )  # fmt: skip


def loader(files, trust, retrieval, num_beams=None):
    """Path of a checkpoint -> Recommender, for Parts. Arguments as of load_either."""
    return lambda path: load_either(path, files, trust, retrieval, num_beams).recommender


class Summed(ByScores):
    """Ranks by HistorySums, of which vectors are made."""

    def __init__(self, sums, of_its_own=None):
        """of_its_own: () -> HistorySums that rank alike where the history is no candidate, of which a
        truncated SVD keeps more; None = the same."""
        super().__init__(sums)
        self.of_its_own = of_its_own


def vectors_of(part, retrieval, keep_seen, width=WIDTH):
    """A TwoTower with a part's scores, those of HistorySums nearly; None where it is no vector model.

    keep_seen: whether items of the history are candidates.
    """
    if isinstance(part, TwoTower):
        return part
    if not isinstance(part, Summed):
        return None
    exact = part.of_its_own() if part.of_its_own and not keep_seen else part.score
    sums = exact.truncated(width)

    def encode(histories, times=None):
        return torch.from_numpy(np.asarray(sums.users(histories), np.float32))

    right = np.eye(sums.num_items, dtype=np.float32) if sums.right is None else sums.right
    return TwoTower(encode, right, retrieval, cosines=False)
