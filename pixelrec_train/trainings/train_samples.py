"""Training on samples, chats and documents: data, model, task, engine and validation meet here."""

import dataclasses
from typing import NamedTuple

from pixelrec_train import distributed
from pixelrec_train.data.inputs import read_interactions, split_of
from pixelrec_train.data.loader import Loader
from pixelrec_train.data.samples.dataset_file import DatasetFile
from pixelrec_train.data.samples.files import sources_of
from pixelrec_train.data.tokens.packed_samples import PackCollator, PackDataset
from pixelrec_train.data.views.parts import WHOLE
from pixelrec_train.engine import ds_config
from pixelrec_train.engine.ds_file import remarks
from pixelrec_train.engine.session import seed_everything, start
from pixelrec_train.engine.state import total_steps
from pixelrec_train.errors import InputError
from pixelrec_train.evaluation.validation_loss import token_loss
from pixelrec_train.files import possible_directory
from pixelrec_train.flags import given, replace
from pixelrec_train.model.backbone import to_train_in
from pixelrec_train.model.token_model import TokenModel
from pixelrec_train.recommend.trained import refuse_checkpoint
from pixelrec_train.run import directory as run_directory
from pixelrec_train.run import watchdog
from pixelrec_train.tasks.tokens import TokenTask, of_samples
from pixelrec_train.trainings.asking import asked_in, asking
from pixelrec_train.trainings.in_run import AskedInRun, SampleGenerations, chats, train_without_catalogue
from pixelrec_train.trainings.plan import RANDOM, trained, what_trains
from pixelrec_train.trainings.sample_inputs import (
    check_first_new,
    check_model,
    check_positions,
    itemic_ids_of,
    packed,
    tokenizer_of,
    train_adapters,
    trained_on_too,
    what_is_cut,
)  # fmt: skip


class Prepared(NamedTuple):
    model: TokenModel
    packs: PackDataset
    collator: PackCollator
    valid: tuple | None  # (PackDataset, PackCollator) of held-out samples
    itemic_ids: tuple[int, int] | None  # first and last, where the vocabulary itself does not say it
    tokenizer: object
    questions: list | None  # of --sample_generations, where --valid_samples holds them
    notes: list[str]


def main(config):
    """config: SamplesConfig."""
    dataset = DatasetFile.load(config.dataset_config)
    config = settled(config, dataset)
    start(
        config,
        lambda config: run(config, dataset),
        lambda config: plan(config, prepare(config, dataset, config.dry_run)[0], config.dry_run),
        weights="--model_dir {}/llm",
    )


def settled(config, dataset):
    """The flags with what the JSON says in place of their defaults; what stands on the command line wins."""
    of_json = {
        "num_train_epochs": dataset.num_epochs, "dataloader_num_workers": dataset.num_workers,
        "max_length": dataset.max_length,
        "model_dir": dataset.base_model_dir and str(dataset.base_model_dir),
    }  # fmt: skip
    changes = {
        name: value for name, value in of_json.items() if value is not None and name not in given(config)
    }
    config = replace(config, **changes)
    for name, key in (("model_dir", "base_model_dir"), ("max_length", "max_length")):
        if getattr(config, name) is None:
            raise InputError(f"--{name} is needed, or {key} in {config.dataset_config}.")
    return config


def prepare(config, dataset, world_size):
    """Everything that can be wrong with the input is found here, before a single step.

    Returns:
        (Prepared, the dict for deepspeed.initialize)
    """
    seed_everything(config.seed)
    possible_directory(config.cache_dir, "--cache_dir")
    run_directory.check_kept(config.output_dir, model_dir=config.model_dir)
    refuse_checkpoint(config.model_dir)
    held_out = config.valid_samples and sources_of(config.valid_samples, "--valid_samples")
    objective_of(config, ()).chosen_by(config.best_by)
    trust = trusted(config)
    model = TokenModel.load(
        config.model_dir, "--model_dir", config.loss_chunk, to_train_in(config.bf16, config.random_init),
        trust, config.first_new_row, config.random_init,
    )  # fmt: skip
    check_first_new(model, config)
    resolved = ds_config.resolve(config, world_size, model.backbone.config.hidden_size)
    train_adapters(model, config, resolved)
    if config.new_rows_only:
        model.train_new_rows_only()
    elif config.first_new_row and not config.lora_r:
        model.freeze_old_rows()
    itemic_ids = itemic_ids_of(model, dataset, config)
    check_model(model, dataset, config)
    tokenizer = tokenizer_of(config, dataset, trust)
    packs, collator, notes = packed(config, dataset, dataset.sources, config.dataset_config, tokenizer)
    check_positions(model, packs, config, dataset)
    if config.interaction_data:
        asked_in(asked_as(config, dataset))
    valid = questions = None
    if held_out:
        whole = dataclasses.replace(dataset, cut_to_pad=False)  # a loss of all that was held out
        *valid, more = packed(config, whole, held_out, "--valid_samples", tokenizer)
        notes += [f"validation {line}" for line in (*more, *trained_on_too(held_out, dataset.sources))]
        if config.sample_generations:
            think = bool(dataset.add_think_pattern)
            questions = chats(held_out, config.sample_generations, tokenizer, think, model.longest_text)
    notes = [*dataset.remarks(), *notes]
    return Prepared(model, packs, collator, valid, itemic_ids, tokenizer, questions, notes), resolved


def plan(config, prepared, ranks):
    """Lines for --dry_run and for the top of every log."""
    model, packs, batch = prepared.model, prepared.packs, config.per_device_train_batch_size * ranks
    stage = "the new rows alone" if config.new_rows_only else "everything"
    if config.first_new_row and not config.new_rows_only:
        stage = f"everything but the rows below {config.first_new_row:,}"
    first = packs.packs(0)
    total = total_steps(lambda epoch: -(-packs.samples_in(epoch) // batch), config)
    return [
        *prepared.notes,
        *[RANDOM] * config.random_init,
        *whom_it_judges(config),
        f"packs: {len(first):,} of at most {config.max_length:,} tokens in the first epoch ({config.pack}), "
        f"{first.fill(config.max_length):.1%} full",
        *what_is_cut(packs),
        f"model: {trained(model):,} trained parameters ({what_trains(model, config, stage)}), "
        f"vocabulary {model.num_tokens:,}",
        f"batch: {batch} packs x {config.gradient_accumulation_steps} per step over {ranks} ranks",
        f"steps: {total:,}" + ("" if config.max_steps else f" in {config.num_train_epochs} epochs"),
        *remarks(config, distributed.uses_gpu()),
    ]


def run(config, dataset):
    """One whole run, on every rank."""
    watchdog.at("reading data and model")
    prepared, resolved = prepare(config, dataset, distributed.world_size())
    model, packs = prepared.model, prepared.packs
    if config.gradient_checkpointing:
        model.enable_checkpointing()
    lines = plan(config, prepared, distributed.world_size())
    loader = loader_of(packs, prepared.collator, config)
    facts = {"data": {"samples": packs.mark, "full_attention": str(prepared.collator.one_text)}}
    sources = packs.store.sources
    task = TokenTask(
        model, config.model_dir, objective=objective_of(config, sources), itemic_ids=prepared.itemic_ids,
        sources=sources if config.loss_by_source else (),
    )  # fmt: skip
    evaluators = []
    if prepared.valid:
        held_out = loader_of(*prepared.valid, config)
        evaluators.append(lambda: token_loss(task, held_out.epoch(0)))
    asked = None
    if config.interaction_data:
        asked = AskedInRun(model, config.model_dir, asked_as(config, dataset), trusted(config))
        evaluators.append(asked)
    if config.sample_generations:
        evaluators.append(answering(config, prepared, asked))
    train_without_catalogue(task, loader, config, resolved, facts, lines, evaluators)


def objective_of(config, sources):
    return of_samples(sources, config.loss_by_source, ranked=bool(config.interaction_data))


def answering(config, prepared, asked):
    """SampleGenerations of held-out chats, or of the users of AskedInRun where there are none."""
    questions = prepared.questions or asked.questions(config.sample_generations)
    return SampleGenerations(prepared.model, prepared.tokenizer, questions)


def whom_it_judges(config):
    """A line for the plan, where held-out users are asked inside the run."""
    if config.interaction_data:
        split = split_of(read_interactions(config), config, WHOLE)
        asked = min(len(split.valid), config.valid_users or len(split.valid))
        yield f"judged inside the run: {asked:,} of {len(split.valid):,} validation targets; {split.origin}"


def asked_as(config, dataset):
    """AskFlags of the users that the run judges."""
    return asking(config, "valid", add_think_pattern=bool(dataset.add_think_pattern))


def trusted(config):
    return "item" in config.trust_remote_code


def loader_of(packs, collator, config):
    return Loader(
        packs, collator, config.per_device_train_batch_size, packs.seed, config.dataloader_num_workers
    )
