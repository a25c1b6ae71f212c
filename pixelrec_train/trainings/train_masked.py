"""Masked-language-model pretraining of an encoder, for item towers: BERT, RoBERTa and the like."""

from transformers import AutoModelForMaskedLM

from pixelrec_train import distributed
from pixelrec_train.data.loader import Loader
from pixelrec_train.data.texts.masking import MaskedDataset, MaskingCollator
from pixelrec_train.engine import ds_config
from pixelrec_train.engine.ds_file import remarks
from pixelrec_train.engine.session import seed_everything, start
from pixelrec_train.engine.state import total_steps
from pixelrec_train.errors import InputError
from pixelrec_train.model.backbone import load_backbone, to_train_in
from pixelrec_train.run import watchdog
from pixelrec_train.tasks.masked_words import MaskedTask
from pixelrec_train.trainings.in_run import train_without_catalogue
from pixelrec_train.trainings.text_inputs import files_to_read
from pixelrec_train.trainings.train_texts import laid, reading_of, stage_of


def main(config):
    """config: TextsConfig."""
    start(config, run, lambda config: prepare(config, config.dry_run)[-1], weights="--model_dir {}/encoder")


def prepare(config, world_size):
    """(task, Loader, Loader of --eval_file or None, fingerprint, dict for DeepSpeed, lines for the plan)"""
    seed_everything(config.seed)
    files, held_out = files_to_read(config)
    MaskedTask.objective.chosen_by(config.best_by)
    model = load_backbone(
        config.model_dir,
        "--model_dir",
        to_train_in(config.bf16, config.random_init),
        config.random_init,
        kind=AutoModelForMaskedLM,
    )
    reading = reading_of(config)
    tokenizer = reading.tokenizer
    if tokenizer.mask_token_id is None:
        raise InputError(
            f"the tokenizer of {config.model_dir} has no mask token, which --objective mlm hides words "
            f"behind."
        )
    room = getattr(model.config, "max_position_embeddings", None)
    if room and config.max_length > room:
        raise InputError(f"--block_size {config.max_length} is more than the {room} positions of the model.")
    resolved = ds_config.resolve(config, world_size, model.config.hidden_size)
    sides = [side for side in (files, held_out) if side]
    stores, notes = zip(*(cut(reading, side) for side in sides), strict=True)
    loaders = [
        Loader(
            MaskedDataset(store, tokenizer, config.mask_share, config.seed, fixed=n > 0),
            MaskingCollator(tokenizer.pad_token_id), config.per_device_train_batch_size, config.seed,
            config.dataloader_num_workers,
        )
        for n, store in enumerate(stores)
    ]  # fmt: skip
    batch = config.per_device_train_batch_size * world_size
    lines = [
        stage_of(config),
        *reading.lines(files, held_out),
        *[line for told in notes for line in told],
        f"texts: {len(loaders[0].loader.dataset):,} of at most {config.max_length:,} tokens, "
        f"{config.mask_share:.0%} of the words to be found",
        f"model: {sum(p.numel() for p in model.parameters()):,} trained parameters, {type(model).__name__}",
        f"batch: {batch} texts x {config.gradient_accumulation_steps} per step over {world_size} ranks",
        f"steps: {total_steps(loaders[0].batches_in, config):,}",
        *remarks(config, distributed.uses_gpu()),
    ]
    task = MaskedTask(model, config.model_dir)
    return task, loaders[0], loaders[1] if held_out else None, stores[0].fingerprint, resolved, lines


def cut(reading, files):
    """(texts cut to size, lines for the plan)"""
    store, told = reading.store(files)
    return laid(store, reading.config, reading.tokenizer.num_special_tokens_to_add()), told


def run(config):
    """One whole run, on every rank."""
    watchdog.at("reading data and model")
    task, loader, held_out, mark, resolved, lines = prepare(config, distributed.world_size())
    if config.gradient_checkpointing:
        task.model.gradient_checkpointing_enable()
    evaluators = [lambda: task.judge(held_out.epoch(0))] if held_out else []
    facts = {"data": {"texts": mark}}
    train_without_catalogue(task, loader, config, resolved, facts, lines, evaluators)
