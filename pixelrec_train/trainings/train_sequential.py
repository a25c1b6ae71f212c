"""Train a sequential baseline on the engine loop that trains everything else."""

import dataclasses
from pathlib import Path

import numpy as np

from pixelrec_train import distributed
from pixelrec_train.data.loader import Loader
from pixelrec_train.data.negatives import SharedNegatives
from pixelrec_train.data.stretches import StretchCollator, StretchDataset
from pixelrec_train.engine import checkpoint, loop
from pixelrec_train.engine.ds_config import resolve_unsharded
from pixelrec_train.engine.ds_file import remarks
from pixelrec_train.engine.session import seed_everything, session
from pixelrec_train.evaluation import metrics
from pixelrec_train.evaluation.places import judge
from pixelrec_train.evaluation.recommender import ByScores
from pixelrec_train.model.esasrec_model import ESASRecModel
from pixelrec_train.model.hstu_model import HSTUModel
from pixelrec_train.model.sasrec_model import SASRecModel
from pixelrec_train.tasks.next_item import NextItemTask

MODELS = {"sasrec": SASRecModel, "esasrec": ESASRecModel, "hstu": HSTUModel}


def train_sequential(name, config, interactions, split, notes):
    """A Recommender: of --seq_lengths, where there are any, the one that validation ndcg@10 chooses.

    Args:
        name: of MODELS.
        config: CompareConfig.
        notes: a list that gets a line of what was chosen.
    """
    if not config.seq_lengths:
        return train_one(name, name, config, interactions, split)
    found = {}
    for length in config.seq_lengths:
        of_length = dataclasses.replace(config, max_seq_length=length)
        recommender = train_one(name, f"{name}_{length}", of_length, interactions, split)
        found[length] = validate(recommender, split.valid, config)["ndcg@10"], recommender
    best = max(found, key=lambda length: found[length][0])
    told = ", ".join(f"{length} {100 * figure:.2f}" for length, (figure, _) in found.items())
    notes.append(f"{name}: {best} items per sequence, by validation ndcg@10 ({told} %)")
    return found[best][1]


def train_one(name, folder, config, interactions, split):
    """Train in <output_dir>/<folder>; a Recommender with the best epoch's weights (validation)."""
    where = {"output_dir": config.output_dir, "logging_dir": config.logging_dir}
    config = dataclasses.replace(config, **{flag: str(Path(path) / folder) for flag, path in where.items()})
    seed_everything(config.seed)
    model = MODELS[name](
        interactions.num_items, config.max_seq_length - 1, config.hidden_size, config.layers, config.heads,
        config.dropout,
    )  # fmt: skip
    times = times_of(interactions, split) if name == "hstu" else None
    collator = StretchCollator(split.taken.items, times, drawn_by(name, config, split.popularity))
    loader = Loader(
        StretchDataset(split.taken, config.max_seq_length), collator, config.per_device_train_batch_size,
        config.seed, config.dataloader_num_workers, of_all_ranks=True,
    )  # fmt: skip
    recommender = OfSequences(model, times)
    plan = remarks(config, distributed.uses_gpu())
    facts = {"data": {"interactions": interactions.fingerprint}}
    with session(
        NextItemTask(model), loader, config, deepspeed_settings(config), facts, plan, patience=config.patience
    ) as training:
        loop.train(training, [lambda: validate(recommender, split.valid, config)])
    model.load(Path(config.output_dir) / checkpoint.BEST)
    model.eval()
    return recommender


def drawn_by(name, config, train_counts):
    """SharedNegatives, or None where the softmax is over all items."""
    draws = config.negatives_of(name)
    power, corrected = config.negatives_power, config.logq_correction
    return SharedNegatives(train_counts, draws, power, corrected, config.seed) if draws else None


def times_of(interactions, split):
    """[R] seconds of split.taken.items; None where they are not known."""
    # A split that somebody else made has histories of its own, of which nothing says when.
    known = split.taken.items is interactions.items and split.valid.items is interactions.items
    return interactions.times if known else None


class OfSequences(ByScores):
    """Scores of a SequentialModel, which may depend on when a history's items were taken."""

    def __init__(self, model, times=None):
        """times: seconds of HeldOut.items; None = the model does not read them."""
        super().__init__(model.score)
        self.longest, self.times = model.longest, times

    def score_users(self, held_out, users):
        if self.times is None:
            return super().score_users(held_out, users)
        times = [self.times[held_out.start[e] : held_out.end[e]] for e in users]
        return self.score([held_out.history(e) for e in users], times)

    def groups(self, held_out, ranking):
        """Histories of one length share a block: most are short, and would be padded to the longest."""
        length = np.minimum(held_out.end - held_out.start, self.longest)
        return [(np.argsort(length, kind="stable"), ranking.eval_batch_size)]


def deepspeed_settings(config):
    """The dict for deepspeed.initialize, or an InputError."""
    return resolve_unsharded(config, distributed.world_size(), config.hidden_size, "a sequential baseline is")


def validate(recommender, held_out, config):
    return metrics.figures(judge(recommender, held_out, config).places, config.topk)
