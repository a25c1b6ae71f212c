"""Direct preference optimisation: pairs, what the reference says of them, and the loop as ever."""

from pathlib import Path

import numpy as np

from pixelrec_train import distributed
from pixelrec_train.data import cache
from pixelrec_train.data.loader import Loader
from pixelrec_train.data.texts.as_samples import PAIRS, TEXT_PAIRS, Form
from pixelrec_train.data.tokens.pairs import PairCollator, PairDataset
from pixelrec_train.engine import ds_config
from pixelrec_train.engine.ds_file import remarks
from pixelrec_train.engine.session import seed_everything, start
from pixelrec_train.engine.state import total_steps
from pixelrec_train.errors import InputError
from pixelrec_train.model.backbone import to_train_in
from pixelrec_train.model.token_model import TokenModel
from pixelrec_train.recommend.trained import refuse_checkpoint
from pixelrec_train.run import watchdog
from pixelrec_train.tasks.preferences import PreferenceTask
from pixelrec_train.trainings.asking import asked_in, asking
from pixelrec_train.trainings.beside_sft import conclude_beside, judge_first
from pixelrec_train.trainings.in_run import AskedInRun, last_words, train_without_catalogue
from pixelrec_train.trainings.plan import trained, what_trains
from pixelrec_train.trainings.sample_inputs import train_adapters
from pixelrec_train.trainings.text_inputs import Reading, files_to_read
from pixelrec_train.trainings.train_samples import trusted, whom_it_judges

KIND, FILE = "reference", "log_probabilities"


def main(config):
    """config: DpoConfig."""
    start(config, run, lambda config: prepare(config, config.dry_run)[-1], weights="--model_dir {}/llm")


def prepare(config, world_size):
    """(PreferenceTask, [Pairs to train, and to validate if asked], dict for DeepSpeed, lines for the plan)"""
    seed_everything(config.seed)
    files, held_out = files_to_read(config)
    refuse_checkpoint(config.model_dir)
    model = TokenModel.load(
        config.model_dir, "--model_dir", config.loss_chunk, to_train_in(config.bf16), trusted(config)
    )
    reading = Reading(config, Form(TEXT_PAIRS if config.as_text else PAIRS, skip_bad=config.skip_bad_rows))
    task = PreferenceTask(
        model, config.model_dir, config, reading.beside(), config.semantic_ids, bool(config.interaction_data)
    )
    task.objective.chosen_by(config.best_by)
    resolved = ds_config.resolve(config, world_size, model.backbone.config.hidden_size)
    train_adapters(model, config, resolved)
    if config.interaction_data:
        asked_in(asking(config, "valid"))
    pairs = [Pairs(config, reading, files, "--train_file")]
    if held_out:
        pairs.append(Pairs(config, reading, held_out, "--eval_file"))
    batch = config.per_device_train_batch_size * world_size
    smoothing = f", label smoothing {config.label_smoothing:g}" if config.label_smoothing else ""
    lines = [
        f"loss: {config.loss_type}, beta {config.beta:g}{smoothing}, log-probabilities "
        f"{'per token' if config.length_normalised else 'of whole answers'}, "
        f"{'without a reference' if config.reference_free else 'beside those before training'}",
        *reading.lines(files, held_out),
        *whom_it_judges(config),
        *[line for each in pairs for line in each.lines],
        f"model: {trained(model):,} trained parameters ({what_trains(model, config, 'everything')}), "
        f"vocabulary {model.num_tokens:,}",
        f"batch: {batch} pairs x {config.gradient_accumulation_steps} per step over {world_size} ranks",
        f"steps: {total_steps(pairs[0].loader.batches_in, config):,}",
        *remarks(config, distributed.uses_gpu()),
    ]
    return task, pairs, resolved, lines


class Pairs:
    """The pairs of some files, their loader, and what the reference says of them."""

    def __init__(self, config, reading, files, flag_name):
        self.config, self.flag_name = config, flag_name
        store, told = reading.store(files)
        self.mark = store.fingerprint
        limit = config.max_length
        self.dataset = PairDataset(store, limit)
        if not len(self.dataset):
            raise InputError(f"{flag_name}: no pair is left of {store.num_samples // 2:,}. See --max_length.")
        self.collator = PairCollator(reading.tokenizer.pad_token_id)
        self.loader = self.loads(config.dataloader_num_workers)
        left_out = int(self.dataset.too_long.sum())
        self.lines = [*told, f"pairs: {len(self.dataset):,} of {flag_name}"]
        if left_out:
            self.lines.append(f"pairs with more than {limit:,} tokens, left out: {left_out:,}")

    def loads(self, workers):
        batch, seed = self.config.per_device_train_batch_size, self.config.seed
        return Loader(self.dataset, self.collator, batch, seed, workers)

    def know_reference(self, task, begun):
        """Give the collator the log-probabilities of the model before training; all ranks call it.

        They are computed once and kept in the cache directory by what they depend on.

        Args:
            begun: whether the model has been trained already, so that it is no reference any more.

        Raises:
            InputError: it has, and they are not kept.
        """
        config = self.config
        mark = cache.fingerprint(
            "reference 1", self.mark, len(self.dataset), config.length_normalised, config.bf16,
            config.load_in_4bit, *sorted(Path(config.model_dir).glob("*.safetensors")),
        )  # fmt: skip
        if not all(distributed.gather_objects(cache.is_cached(config.cache_dir, KIND, mark))):
            if begun:
                raise InputError(
                    f"the reference's log-probabilities of {self.flag_name} are not in --cache_dir "
                    f"{config.cache_dir} any more, and the model is trained already. Name the directory that "
                    f"the run began with."
                )
            task.eval()
            found = task.reference(self.loads(0).epoch(0), len(self.dataset))
            if distributed.local_rank() == 0:
                cache.write(Path(config.cache_dir) / f"{KIND}-{mark}", {FILE: found}, {})
            distributed.barrier()
        arrays, _ = cache.loaded(Path(config.cache_dir) / f"{KIND}-{mark}")
        self.collator.reference = np.array(arrays[FILE])


def run(config):
    """One whole run, on every rank."""
    watchdog.at("reading data and model")
    task, pairs, resolved, lines = prepare(config, distributed.world_size())
    if config.gradient_checkpointing:
        task.model.enable_checkpointing()
    facts = {"data": {each.flag_name: each.mark for each in pairs}}
    evaluators = [lambda: task.judge(pairs[1].loader.epoch(0))] if pairs[1:] else []
    if config.interaction_data:
        evaluators.append(AskedInRun(task.model, config.model_dir, asking(config, "valid"), trusted(config)))

    def ask_reference(training):
        for each in () if config.reference_free else pairs:
            each.know_reference(task, begun=training.state.step > 0)
        if config.interaction_data:
            judge_first(training, evaluators)

    def end(training):
        if config.interaction_data:
            conclude_beside(training, task.model, config, "dpo")
        else:
            last_words(training)

    train_without_catalogue(
        task, pairs[0].loader, config, resolved, facts, lines, evaluators, ask_reference, end
    )
