"""Train the SASRec baseline on the engine loop that trains everything else."""

import dataclasses
from pathlib import Path

from pixelrec_train import distributed
from pixelrec_train.data.item_text import ItemText
from pixelrec_train.data.loader import Loader
from pixelrec_train.data.negatives import NegativeSampler
from pixelrec_train.data.windows import HistoryDataset, TwoTowerCollator
from pixelrec_train.engine import checkpoint, loop
from pixelrec_train.engine.ds_config import resolve_unsharded
from pixelrec_train.engine.ds_file import remarks
from pixelrec_train.engine.session import seed_everything, session
from pixelrec_train.evaluation import metrics
from pixelrec_train.evaluation.places import judge
from pixelrec_train.evaluation.recommender import ByScores
from pixelrec_train.model.sasrec_model import SASRecModel
from pixelrec_train.tasks.sasrec import SASRecTask


def train_sasrec(config, interactions, split):
    """Train in <output_dir>/sasrec; a Recommender with the best epoch's weights (validation).

    config: CompareConfig.
    """
    config = dataclasses.replace(config, output_dir=str(Path(config.output_dir) / "sasrec"))
    seed_everything(config.seed)
    model = SASRecModel(
        interactions.num_items, config.max_seq_length, config.hidden_size, config.layers, config.heads,
        config.dropout,
    )  # fmt: skip
    no_negatives = NegativeSampler(split.train_counts, 0, max_seq_length=0, seed=config.seed)
    collator = TwoTowerCollator(ItemText.unread(interactions.num_items), no_negatives, config.max_seq_length)
    loader = Loader(
        HistoryDataset(split), collator, config.per_device_train_batch_size, config.seed,
        config.dataloader_num_workers, of_all_ranks=True,
    )  # fmt: skip
    plan = remarks(config, distributed.uses_gpu())
    facts = {"data": {"interactions": interactions.fingerprint}}
    with session(SASRecTask(model), loader, config, deepspeed_settings(config), facts, plan) as training:
        loop.train(training, [lambda: validate(model, split.valid, config)])
    model.load(Path(config.output_dir) / checkpoint.BEST)
    model.eval()
    return ByScores(model.score)


def deepspeed_settings(config):
    """The dict for deepspeed.initialize, or an InputError."""
    return resolve_unsharded(config, distributed.world_size(), config.hidden_size, "SASRec is")


def validate(model, held_out, config):
    return metrics.figures(judge(ByScores(model.score), held_out, config).places, config.topk)
