"""What trainings by rewards share: the model, lines of their plans, and what rewards look things up in."""

from pathlib import Path

from safetensors import SafetensorError

from pixelrec_train import distributed
from pixelrec_train.engine.ds_file import remarks
from pixelrec_train.engine.resume import recorded
from pixelrec_train.engine.state import total_steps
from pixelrec_train.errors import InputError, first_line
from pixelrec_train.model.backbone import to_train_in
from pixelrec_train.model.sasrec_model import SASRecModel
from pixelrec_train.model.token_model import TokenModel
from pixelrec_train.recommend.checkpoints import check_same_split, data_files
from pixelrec_train.recommend.item_embeddings import of_checkpoint, of_matrix
from pixelrec_train.trainings.plan import trained, what_trains
from pixelrec_train.trainings.train_samples import trusted


def loaded(config):
    """The TokenModel after SFT. config: has --model_dir, --loss_chunk and TrustFlags."""
    return TokenModel.load(
        config.model_dir, "--model_dir", config.loss_chunk, to_train_in(config.bf16), trusted(config)
    )


def summed(config):
    """The rewards with their weights, in words."""
    return ", ".join(f"{weight:g} {name}" for name, weight in config.weights.items())


def last_lines(config, model, source, ranks):
    """Of a plan: what trains, in which steps."""
    batch = config.per_device_train_batch_size * ranks
    kept = f", weight {config.beta:g} of the divergence from the model before" if config.beta else ""
    return [
        f"model: {trained(model):,} trained parameters ({what_trains(model, config, 'everything')}){kept}",
        f"batch: {batch} prompts x {config.gradient_accumulation_steps} per step over {ranks} ranks",
        f"steps: {total_steps(source.batches_in, config):,}",
        *remarks(config, distributed.uses_gpu()),
    ]


def embeddings_of(config, item_ids):
    """[N, D] of the items, in their order; None where no reward asks for it. config: PolicyConfig.

    Raises:
        InputError: an item has none.
    """
    if config.reward_two_tower:
        check_same_split(config.reward_two_tower, "--reward_two_tower", config)
        files = data_files(config)
        found = of_checkpoint(config.reward_two_tower, files, config.trust_remote_code, 16384)
    elif config.reward_matrix:
        found = of_matrix(config.reward_matrix, config.reward_matrix_ids, config)
    else:
        return None
    row = {item_id: n for n, item_id in enumerate(found.check().item_ids)}
    if absent := [item_id for item_id in item_ids if item_id not in row]:
        raise InputError(
            f"{found.source} has no embedding for {len(absent):,} of {len(item_ids):,} items, the first is "
            f"{absent[0]!r}: a reward would not know what they are worth. Embed the whole catalogue."
        )
    return found.embeddings[[row[item_id] for item_id in item_ids]]


def score_of(config, interactions):
    """SASRec's `score`, b histories -> [b, N] scores; None where no reward asks for it.

    Raises:
        InputError: --reward_sasrec is none, was trained on other items, or may know what is held out.
    """
    if not config.reward_sasrec:
        return None
    name, directory = f"--reward_sasrec {config.reward_sasrec}", Path(config.reward_sasrec)
    check_same_split(directory, "--reward_sasrec", config)
    record = recorded(directory, "--reward_sasrec")
    if record.get("data", {}).get("interactions") != interactions.fingerprint:
        raise InputError(
            f"{name} was trained on other interactions than {config.interaction_data}, so its items have "
            f"other numbers. Train it with scripts/compare.py on these."
        )
    flags = record["config"]
    try:
        sizes = [flags[size] for size in ("hidden_size", "layers", "heads", "dropout")]
        model = SASRecModel(interactions.num_items, flags["max_seq_length"] - 1, *sizes)
        model.load(directory)
    except (OSError, SafetensorError, RuntimeError, KeyError, TypeError) as error:
        raise InputError(
            f"{name} is no SASRec that scripts/compare.py has trained: {first_line(error)} Name "
            f"sasrec/best_model in its --output_dir."
        ) from None
    return model.to(distributed.device()).eval().score
