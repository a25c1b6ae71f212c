"""Training on texts and chats: the files become samples, and from there all is as with any other samples."""

from typing import NamedTuple

from pixelrec_train import distributed
from pixelrec_train.config.texts import BLOCK, PRETRAIN
from pixelrec_train.data.texts.as_samples import CHATS, DOCUMENTS, Form
from pixelrec_train.data.tokens.blocks import Blocks, Pieces
from pixelrec_train.data.tokens.packed_samples import PackCollator, PackDataset
from pixelrec_train.engine import ds_config
from pixelrec_train.engine.ds_file import remarks
from pixelrec_train.engine.session import seed_everything, start
from pixelrec_train.engine.state import total_steps
from pixelrec_train.evaluation.validation_loss import token_loss
from pixelrec_train.model.backbone import to_train_in
from pixelrec_train.model.token_model import TokenModel
from pixelrec_train.recommend.trained import refuse_checkpoint
from pixelrec_train.run import watchdog
from pixelrec_train.tasks.tokens import TokenTask, of_samples
from pixelrec_train.trainings.in_run import SampleGenerations, chats, train_without_catalogue
from pixelrec_train.trainings.plan import RANDOM, trained, what_trains
from pixelrec_train.trainings.sample_inputs import check_positions, train_adapters
from pixelrec_train.trainings.text_inputs import Reading, files_to_read
from pixelrec_train.trainings.train_samples import loader_of, trusted


class Prepared(NamedTuple):
    model: TokenModel
    packs: PackDataset
    collator: PackCollator
    valid: tuple | None  # (PackDataset, PackCollator) of --eval_file
    tokenizer: object
    questions: list | None  # of --sample_generations
    beside: dict[str, str]  # files of the template, for exports
    notes: list[str]


def main(config):
    """config: TextsConfig."""
    start(
        config,
        run,
        lambda config: plan(config, prepare(config, config.dry_run)[0], config.dry_run),
        weights="--model_dir {}/llm",
    )


def prepare(config, world_size):
    """Everything that can be wrong with the input is found here, before a single step.

    Returns:
        (Prepared, the dict for deepspeed.initialize)
    """
    seed_everything(config.seed)
    files, held_out = files_to_read(config)
    refuse_checkpoint(config.model_dir)
    of_samples((), config.loss_by_source, ranked=False).chosen_by(config.best_by)
    model = TokenModel.load(
        config.model_dir, "--model_dir", config.loss_chunk, to_train_in(config.bf16, config.random_init),
        trusted(config), random_init=config.random_init,
    )  # fmt: skip
    resolved = ds_config.resolve(config, world_size, model.backbone.config.hidden_size)
    train_adapters(model, config, resolved)
    reading = reading_of(config)
    packs, collator, notes = reading.packed(files, "--train_file", lambda store: laid(store, config))
    check_positions(model, packs, config, reading.dataset(files))
    valid = questions = None
    if held_out:
        *valid, more = reading.packed(held_out, "--eval_file", lambda store: laid(store, config))
        notes += [f"validation {line}" for line in more]
        if config.sample_generations:
            source, _ = reading.samples(held_out)
            questions = chats(
                [source], config.sample_generations, reading.tokenizer, False, model.longest_text
            )
    notes = [stage_of(config), *reading.lines(files, held_out), *notes]
    return Prepared(
        model, packs, collator, valid, reading.tokenizer, questions, reading.beside(), notes
    ), resolved


def reading_of(config):
    """Reading of TextsConfig."""
    what = DOCUMENTS if config.stage == PRETRAIN else CHATS
    form = Form(what, config.text_fields, config.document_by, config.skip_bad_rows)
    return Reading(config, form, config.loss_on)


def laid(store, config, around=0):
    """The TokenStore, or what stands for it, see tokens/blocks.py. around: tokens put around a text."""
    if config.stage != PRETRAIN:
        return store
    return (Blocks if config.block_by == BLOCK else Pieces)(store, config.max_length - around)


def stage_of(config):
    """A line for the plan."""
    what = f"blocks of {config.max_length:,} tokens" if config.block_by == BLOCK else "whole texts"
    return f"stage: {config.stage}, " + (
        what if config.stage == PRETRAIN else f"labels: {config.loss_on} of chats"
    )


def plan(config, prepared, ranks):
    """Lines for --dry_run and for the top of every log."""
    model, packs, batch = prepared.model, prepared.packs, config.per_device_train_batch_size * ranks
    first = packs.packs(0)
    total = total_steps(lambda epoch: -(-packs.samples_in(epoch) // batch), config)
    return [
        *prepared.notes,
        *[RANDOM] * config.random_init,
        f"packs: {len(first):,} of at most {config.max_length:,} tokens ({config.pack}), "
        f"{first.fill(config.max_length):.1%} full",
        f"model: {trained(model):,} trained parameters ({what_trains(model, config, 'everything')}), "
        f"vocabulary {model.num_tokens:,}",
        f"batch: {batch} packs x {config.gradient_accumulation_steps} per step over {ranks} ranks",
        f"steps: {total:,}" + ("" if config.max_steps else f" in {config.num_train_epochs} epochs"),
        *remarks(config, distributed.uses_gpu()),
    ]


def run(config):
    """One whole run, on every rank."""
    watchdog.at("reading data and model")
    prepared, resolved = prepare(config, distributed.world_size())
    model, packs = prepared.model, prepared.packs
    if config.gradient_checkpointing:
        model.enable_checkpointing()
    lines = plan(config, prepared, distributed.world_size())
    loader = loader_of(packs, prepared.collator, config)
    sources = packs.store.sources
    task = TokenTask(
        model, config.model_dir, objective=of_samples(sources, config.loss_by_source, ranked=False),
        sources=sources if config.loss_by_source else (),
        beside=prepared.beside,
    )  # fmt: skip
    evaluators = []
    if prepared.valid:
        held_out = loader_of(*prepared.valid, config)
        evaluators.append(lambda: token_loss(task, held_out.epoch(0)))
    if prepared.questions:
        evaluators.append(SampleGenerations(model, prepared.tokenizer, prepared.questions))
    facts = {"data": {"samples": packs.mark}}
    train_without_catalogue(task, loader, config, resolved, facts, lines, evaluators)
