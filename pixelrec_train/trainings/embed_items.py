"""Embed a catalogue as a job of its own, for every later command to find."""

import shutil
from pathlib import Path

from pixelrec_train import distributed
from pixelrec_train.errors import InputError
from pixelrec_train.files import made_whole, possible_directory, replaceable_directory
from pixelrec_train.recommend import checkpoints, frozen_texts
from pixelrec_train.recommend.embedding_job import Job, embed
from pixelrec_train.recommend.item_cache import IDS, TABLE, mark_of_checkpoint
from pixelrec_train.recommend.item_embeddings import read_encoder
from pixelrec_train.recommend.trained import is_generative
from pixelrec_train.run import rendezvous
from pixelrec_train.run.log import say


def main(config):
    """config: EmbedConfig."""
    rendezvous.initialise(config.collective_timeout_minutes)
    distributed.on_all_ranks(lambda: check(config))
    directory = embed(job_of(config), config.cache_dir, config.eval_tokens, config.overwrite)
    if config.output_dir:
        distributed.on_all_ranks(lambda: distributed.rank() or copy(directory, config.output_dir))
    say(f"{TABLE} and {IDS} in {config.output_dir or directory}/")
    rendezvous.finish()


def check(config):
    """Raises InputError where something is in the way that can be known before a model is loaded."""
    possible_directory(config.cache_dir, "--cache_dir")
    if config.checkpoint and is_generative(config.checkpoint):
        raise InputError(
            f"--checkpoint {config.checkpoint} is a generative model, which embeds no items. Name one of a "
            f"two-tower model."
        )
    if config.output_dir:
        replaceable_directory(
            config.output_dir, "--output_dir", (TABLE, IDS), "embed_items", "embeddings", config.overwrite
        )


def job_of(config):
    """Job: what the flags name."""
    trust = config.trust_remote_code
    if config.encoder_model_dir:
        directory = config.encoder_model_dir
        found = read_encoder(directory, config, config, "item" in trust, config.pooling)
        mark = frozen_texts.job_mark(frozen_texts.source_of(found.encoder, found.item_text, directory))
        encoder = found.encoder
        return Job(lambda items: encoder(items.texts), found.item_text, found.item_ids, mark, found.source)
    files = checkpoints.data_files(
        config, text_data=config.text_data, allow_missing_text=config.allow_missing_text
    )
    inputs, model, _ = checkpoints.read_towers(config.checkpoint, files, trust)
    mark = mark_of_checkpoint(config.checkpoint, inputs, model)
    source = f"the checkpoint {config.checkpoint}"
    return Job(model.encode_items, inputs.item_text, inputs.interactions.item_ids, mark, source)


def copy(directory, output_dir):
    """The table and the ids of its rows, whole or not at all."""

    def write(made):
        for name in (TABLE, IDS):
            shutil.copyfile(Path(directory) / name, made / name)

    try:
        made_whole(output_dir, write)
    except OSError as error:
        raise InputError(
            f"--output_dir {output_dir} cannot be written: {error.strerror}. Is the disk full? The "
            f"embeddings themselves are whole, in {directory}."
        ) from None
