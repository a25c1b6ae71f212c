"""The generative head's training: data, model, task, engine and evaluation meet here."""

from pathlib import Path

from pixelrec_train import distributed
from pixelrec_train.config import HllmFlags
from pixelrec_train.data.cache import fingerprint
from pixelrec_train.data.inputs import read_inputs
from pixelrec_train.data.item_text import Reader
from pixelrec_train.data.loader import Loader
from pixelrec_train.data.tokens.histories import HistoryDataset
from pixelrec_train.engine import checkpoint, ds_config, loop
from pixelrec_train.engine.ds_file import remarks
from pixelrec_train.engine.manifest import verify
from pixelrec_train.engine.session import seed_everything, session, start
from pixelrec_train.engine.weights import load_weights
from pixelrec_train.errors import InputError
from pixelrec_train.evaluation.generation import counted_otherwise
from pixelrec_train.evaluation.metrics import figures
from pixelrec_train.evaluation.places import judge
from pixelrec_train.evaluation.report import conclude
from pixelrec_train.evaluation.validation_loss import token_loss
from pixelrec_train.files import possible_directory
from pixelrec_train.model.backbone import to_train_in
from pixelrec_train.model.token_model import TokenModel
from pixelrec_train.model.vocabulary import no_itemic_tokens, numbers
from pixelrec_train.recommend.checkpoints import check_same_split, data_files, load
from pixelrec_train.recommend.generator import Prepared
from pixelrec_train.recommend.trained import refuse_checkpoint, settings_of
from pixelrec_train.report.end import report_at_end
from pixelrec_train.report.evidence import example_users, items_on_map, leave
from pixelrec_train.run import directory as run_directory
from pixelrec_train.run import watchdog
from pixelrec_train.tasks.tokens import LLM, TokenTask
from pixelrec_train.trainings.plan import ENDS_WITH_TEST, RANDOM, steps_line, trained, what_trains


def main(config):
    """config: GenerativeConfig."""
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
    TokenTask.objective.chosen_by(config.best_by)
    possible_directory(config.cache_dir, "--cache_dir")
    run_directory.check_kept(
        config.output_dir, model_dir=config.model_dir, semantic_ids=config.semantic_ids, beside=config.beside
    )
    refuse_checkpoint(config.model_dir)
    if config.beside:  # it is needed at the end; then is too late to find out
        settings_of(config.beside, "--beside", HllmFlags)
        check_same_split(config.beside, "--beside", config)
        verify(config.beside, to_resume=False)
    trust = "item" in config.trust_remote_code
    model = TokenModel.load(
        config.model_dir,
        "--model_dir",
        config.loss_chunk,
        to_train_in(config.bf16, config.random_init),
        trust,
        random_init=config.random_init,
    )
    if model.vocabulary is None:
        raise no_itemic_tokens(config.model_dir, "--model_dir")
    inputs = read_inputs(config, config, Reader(config, config.model_dir, trust) if config.align else None)
    inputs.split.judged("test", ENDS_WITH_TEST)
    check_positions(model, config)
    model.dropout = config.dropout
    resolved = ds_config.resolve(config, world_size, model.backbone.config.hidden_size)
    if config.lora_r:
        config.check_stage(resolved["zero_optimization"]["stage"])
        model.train_adapters(config, config.seed)
    elif config.new_rows_only:
        model.train_new_rows_only()
    return Prepared.of(model, config.model_dir, config.semantic_ids, inputs, trust), resolved


def check_positions(model, config):
    """Raises InputError where a sequence would be longer than the LLM has learned to read."""
    vocabulary, history = model.vocabulary, max(config.max_seq_length, config.seq_length_in_evaluation)
    of_item = vocabulary.levels + sum(x is not None for x in (vocabulary.begin_id, vocabulary.end_id))
    needs = [("--max_seq_length (or --eval_seq_length)", history * of_item)]
    if config.align:
        needs.append(("--max_text_length", of_item + config.max_text_length + 1))  # and the end of the text
    for flag_name, needed in needs:
        limit = getattr(model.backbone.config, "max_position_embeddings", needed)
        if needed > limit:
            raise InputError(
                f"{flag_name} needs {needed} positions, but the LLM has {limit}. Lower the flag."
            )


def plan(config, prepared, ranks):
    """Lines for --dry_run and for the top of every log."""
    inputs, model, vocabulary = prepared.inputs, prepared.model, prepared.model.vocabulary
    samples = len(HistoryDataset(inputs.split, config.align))
    batch = config.per_device_train_batch_size * ranks
    what = f"{len(inputs.split.windows):,} histories" + (", every item both ways" if config.align else "")
    stage = "the rows of itemic tokens alone" if config.new_rows_only else "everything"
    return [
        *inputs.describe(),
        *[RANDOM] * config.random_init,
        f"semantic ids: {vocabulary.levels} levels of {numbers(vocabulary.codebook_sizes)} codes; "
        f"{prepared.trie.num_leaves:,} ids for {inputs.interactions.num_items:,} items",
        f"model: {trained(model):,} trained parameters ({what_trains(model, config, stage)}), "
        f"vocabulary {vocabulary.tokenizer_length:,}",
        f"batch: {batch} sequences x {config.gradient_accumulation_steps} per step over {ranks} ranks; "
        f"{what}",
        steps_line(-(-samples // batch), config),
        *remarks(config, distributed.uses_gpu()),
    ]


def run(config):
    """One whole run, on every rank."""
    watchdog.at("reading data and model")
    prepared, resolved = prepare(config, distributed.world_size())
    inputs, model = prepared.inputs, prepared.model
    loader = Loader(
        HistoryDataset(inputs.split, config.align), prepared.collator,
        config.per_device_train_batch_size, config.seed, config.dataloader_num_workers,
    )  # fmt: skip
    if config.gradient_checkpointing:
        model.enable_checkpointing()
    lines, facts = plan(config, prepared, distributed.world_size()), inputs.facts()
    facts["data"]["semantic_ids"] = fingerprint(Path(config.semantic_ids))
    task = TokenTask(model, config.model_dir, config.semantic_ids)
    asked = config.resume, config.best_by, config.patience
    with session(task, loader, config, resolved, facts, lines, *asked) as training:
        loop.train(training, [lambda: validate(task, prepared, config)])
        watchdog.at("test")
        finish(training, prepared, config)


def validate(task, prepared, config):
    """Validation figures of the current weights: valid_loss, mean over the codes of the items taken next, in
    nats; the ranking by items, and by ids as most papers count."""
    users = prepared.inputs.split.valid.sample(config.valid_users, config.seed)
    batches = prepared.next_items(users, config.seq_length_in_evaluation, config.eval_tokens)
    judged = judge(recommender(prepared, config), users, config)
    return token_loss(task, batches) | figures(judged.places, config.topk) | judged.counts


def recommender(prepared, config):
    return prepared.recommender(config.seq_length_in_evaluation, config.num_beams, config.normalised_over)


def finish(training, prepared, config):
    """Judge the best model on the test split beside popularity, and leave table, curves and report."""
    run, inputs, test = Path(config.output_dir), prepared.inputs, prepared.inputs.split.test
    if config.lora_r or not training.best_is_here:  # merged weights round otherwise than adapters do
        best = TokenModel.load(
            run / checkpoint.BEST / LLM, "the checkpoint", config.loss_chunk, dtype="auto",
            trust="item" in config.trust_remote_code,
        )  # fmt: skip
        if config.lora_r:
            best.train_adapters(config, config.seed)  # which do nothing: its layers have them in already
        load_weights(prepared.model, best)
    with loop.judging(training.engine):
        shown = example_users(test)
        judged = {"generative": judge(recommender(prepared, config), test, config, keep_lists=shown)}
        on_map = prepared.item_vectors(items_on_map(len(prepared.codes)))
    if config.beside:
        files = data_files(config, text_data=config.text_data, allow_missing_text=config.allow_missing_text)
        two_tower = load(config.beside, files, config.trust_remote_code, config)
        judged = {"two_tower": judge(two_tower.recommender, test, config)} | judged
    over = "vocabulary" if config.normalised_over == "full" else "level"
    otherwise = counted_otherwise(judged["generative"].counts, config.topk)
    how = (
        f"at least {config.num_beams} beams, none outside the catalogue, probabilities over the {over}; "
        f"an id of several items stands for them by popularity ({otherwise}); "
    )
    judged = conclude(training, judged, inputs.split, config, how)
    report_at_end(
        training.log, run,
        lambda: leave(run, judged, "generative", inputs, test, config, config, "test", config, on_map),
    )  # fmt: skip
