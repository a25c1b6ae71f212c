"""Train the SASRec baseline on the engine loop that trains everything else."""

import dataclasses
from pathlib import Path

from pixelrec_train.commands.start import open_log, seed_everything, telling, unsharded_settings
from pixelrec_train.data.collate import TwoTowerCollator
from pixelrec_train.data.dataset import HistoryDataset
from pixelrec_train.data.item_text import ItemText
from pixelrec_train.data.loader import Loader
from pixelrec_train.data.negatives import NegativeSampler
from pixelrec_train.engine import checkpoint, loop
from pixelrec_train.engine.build import build_engine
from pixelrec_train.engine.state import TrainState, steps_per_epoch
from pixelrec_train.evaluation import metrics
from pixelrec_train.evaluation.scores import rank_by_scores
from pixelrec_train.model.sasrec_model import SASRecModel
from pixelrec_train.tasks.sasrec import SASRecTask


def train_sasrec(config, interactions, split):
    """Train in <output_dir>/sasrec; the function that scores with the best epoch's weights (validation).

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
        config.dataloader_num_workers,
    )  # fmt: skip
    state = TrainState(total_steps=steps_per_epoch(len(loader), config) * config.num_train_epochs)
    resolved = deepspeed_settings(config)
    engine = build_engine(SASRecTask(model), config, resolved, state.total_steps)
    log = open_log(config, resolved, {"data": {"interactions": interactions.fingerprint}})
    with telling(log, state) as signals:
        evaluators = [lambda: validate(model, split.valid, config)]
        loop.train(engine, loader, evaluators, state, config, log, signals)
    model.load(Path(config.output_dir) / checkpoint.BEST)
    model.eval()
    return model.score


def deepspeed_settings(config):
    """The dict for deepspeed.initialize, or an InputError."""
    return unsharded_settings(config, config.hidden_size, "SASRec is")


def validate(model, held_out, config):
    return metrics.figures(rank_by_scores(model.score, held_out, config), config.topk)
