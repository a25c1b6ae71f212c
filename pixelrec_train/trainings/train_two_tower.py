"""The first head's training: data, towers, task, engine and evaluation meet here."""

import dataclasses
import time
from pathlib import Path

from pixelrec_train import distributed
from pixelrec_train.data.candidates import Beside
from pixelrec_train.data.inputs import read_inputs
from pixelrec_train.data.item_text import ItemText, Reader
from pixelrec_train.data.loader import Loader
from pixelrec_train.data.negatives import EveryItem, NegativeSampler, check_candidates
from pixelrec_train.data.windows import HistoryDataset, TwoTowerCollator
from pixelrec_train.engine import checkpoint, ds_config, loop
from pixelrec_train.engine.manifest import verify
from pixelrec_train.engine.session import seed_everything, session, start
from pixelrec_train.engine.weights import load_weights, whole
from pixelrec_train.evaluation import metrics
from pixelrec_train.evaluation.faiss_index import way_of_search
from pixelrec_train.evaluation.places import judge
from pixelrec_train.evaluation.report import conclude
from pixelrec_train.evaluation.retrieval import TwoTower, encode_catalogue
from pixelrec_train.evaluation.validation_loss import SoftmaxLoss, ValidationLoss
from pixelrec_train.files import possible_directory
from pixelrec_train.losses.nce import MAX_LOGIT_SCALE
from pixelrec_train.machine.compiler import check_compiler
from pixelrec_train.model.adapters import adapt_towers
from pixelrec_train.model.backbone import check_directory, check_vocabulary
from pixelrec_train.model.hllm_model import HLLMModel
from pixelrec_train.recommend.frozen_texts import embed_texts
from pixelrec_train.recommend.trained import check_init_from
from pixelrec_train.report.end import report_at_end
from pixelrec_train.report.evidence import example_users, items_on_map, leave
from pixelrec_train.run import directory as run_directory
from pixelrec_train.run import watchdog
from pixelrec_train.tasks.two_tower import TwoTowerTask
from pixelrec_train.trainings.known_items import known_items
from pixelrec_train.trainings.plan import ENDS_WITH_TEST, check_room, describe_plan, room


def main(config):
    """config: TrainConfig."""
    start(config, run, lines_without_training)


def lines_without_training(config):
    """Of --dry_run."""
    inputs, _, model, resolved = prepare(config, config.dry_run)
    return describe_plan(config, inputs, model, resolved, config.dry_run)


def run(config):
    """One whole run, on every rank."""
    watchdog.at("reading data and towers")
    inputs, known, model, resolved = prepare(config, distributed.world_size())
    check_room(config, inputs, model, resolved, room())
    loader = build_loader(config, inputs, known)
    plan = describe_plan(config, inputs, model, resolved, distributed.world_size())
    save_memory_or_time(model, config, resolved)
    task, asked = (
        TwoTowerTask(model, config, config.item_dir),
        (config.resume, config.best_by, config.patience),
    )
    with session(task, loader, config, resolved, inputs.facts(), plan, *asked) as training:
        if config.freeze_item_llm:
            store_texts(training, inputs, config)
        loop.train(training, [lambda: validate(task, inputs, config)])
        watchdog.at("test")
        finish(training, inputs, config)


def save_memory_or_time(model, config, resolved):
    """Activation checkpointing and compilation, as the flags say."""
    if config.gradient_checkpointing:
        # Chunks recompute by themselves. Under ZeRO-3 their layers do so too: what a recomputed chunk keeps
        # for its backward pass holds on to the gathered weights of all layers at once.
        model.enable_checkpointing()
        if model.item_llm is not None:
            model.item_llm.layers_of_chunks = resolved["zero_optimization"]["stage"] == 3
    if config.compile:
        model.compile_towers()


def store_texts(training, inputs, config):
    """Let the frozen item LLM read every text once; in the precision, and the way, it is evaluated in."""
    started = time.monotonic()
    model = training.engine.module.model
    with loop.judging(training.engine):
        embeddings, new = embed_texts(
            model.item_llm, inputs.item_text, config.item_dir, config.eval_tokens, config.cache_dir,
            config.compile, to_the_bit=True,
        )  # fmt: skip
    model.store_texts(embeddings)
    how = "once" if new else "before, and found in --cache_dir"
    seconds = time.monotonic() - started
    training.log.note(f"item_llm: {len(embeddings):,} texts embedded {how}, in {seconds:.0f} s")


def prepare(config, world_size):
    """Everything that can be wrong with the input is found here, before a single step."""
    seed_everything(config.seed)
    TwoTowerTask.objective.chosen_by(config.best_by)
    way_of_search(config.retrieval)
    possible_directory(config.cache_dir, "--cache_dir")
    check_init_from(config.init_from, config.output_dir)
    run_directory.check_kept(
        config.output_dir, item_model_dir=config.item_model_dir, user_model_dir=config.user_model_dir
    )
    if config.init_from:
        verify(config.init_from, to_resume=False)
    for tower in ("item", "user"):
        if directory := getattr(config, f"{tower}_model_dir"):
            check_directory(directory, f"--{tower}_model_dir", tower in config.trust_remote_code, merges=True)
    if config.compile:
        check_compiler()
    reader = Reader.of(config, config.item_dir, config.trust_remote_code)
    inputs = read_inputs(config, config, reader, config.time_features)
    inputs.split.judged("test", ENDS_WITH_TEST)
    known = known_items(inputs, config)
    of_items = (inputs.interactions.item_ids, inputs.split.train_counts, known)
    model = HLLMModel.starting(config, *of_items, bf16=config.bf16)
    if model.item_llm is not None:
        check_vocabulary(model.item_llm.backbone, inputs.item_text, config.item_dir)
    check_candidates(inputs.split.train_counts, config.max_seq_length)
    resolved = ds_config.resolve(config, world_size, model.user_llm.backbone.config.hidden_size)
    config.check_stage(resolved["zero_optimization"]["stage"])
    adapt_towers(model, config, config.seed)
    return inputs, known, model, resolved


def build_loader(config, inputs, known):
    split, beside = inputs.split, None
    if config.full_softmax:
        sampler = EveryItem(split.train_counts)
    else:
        per_window = config.negatives_per_window(distributed.world_size())
        sampler = NegativeSampler(split.train_counts, per_window, config.max_seq_length, config.seed)
    if config.full_softmax or config.offsets:
        beside = Beside(split, known.scorers if known else [], config.keep_seen)
    # A frozen item LLM has read its texts before the first step.
    texts = ItemText.unread(inputs.interactions.num_items) if config.freeze_item_llm else inputs.item_text
    return Loader(
        HistoryDataset(split, config.time_features),
        TwoTowerCollator(texts, sampler, config.max_seq_length, config.chunks, beside),
        config.per_device_train_batch_size,
        config.seed,
        config.dataloader_num_workers,
        of_all_ranks=True,
    )


def validate(task, inputs, config):
    """Validation figures of the current weights: recall, ndcg, mrr, the same for cold targets, valid_loss."""
    model, split, world_size = task.model, inputs.split, distributed.world_size()
    catalogue = encode_catalogue(model.encode_items, inputs.item_text, config.eval_tokens)
    with whole([model.logit_scale]):
        logit_scale = model.logit_scale.detach().clone()
    ranks = recommender(model, catalogue, config)
    if config.full_softmax or config.offsets:
        scale = 1.0 if not ranks.cosines else float(logit_scale.float().clamp(0, MAX_LOGIT_SCALE).exp())
        ranks.loss = SoftmaxLoss(ranks.items, split.train_counts, scale)
    else:
        pool_size = config.negatives_per_window(world_size) * config.per_device_train_batch_size * world_size
        ranks.loss = ValidationLoss(
            catalogue, logit_scale, split.train_counts, pool_size, config.nce_thres, config.seed,
            config.nce_chunk,
        )  # fmt: skip
    users = split.valid.sample(config.valid_users, config.seed)
    judged = judge(ranks, users, config)
    cold = split.train_counts[users.target] == 0
    cold_figures = metrics.figures(judged.places[cold], config.topk) if cold.any() else {}
    return (
        judged.counts
        | metrics.figures(judged.places, config.topk)
        | {f"cold_{k}": v for k, v in cold_figures.items()}
    )


def recommender(model, catalogue, config):
    return TwoTower.of(model, catalogue, config.seq_length_in_evaluation, config.retrieval)


def finish(training, inputs, config):
    """Judge the best model on the test split beside popularity, and leave table, curves and report."""
    model = training.engine.module.model
    if config.lora_r or not training.best_is_here:  # merged weights round otherwise than adapters do
        best = HLLMModel.load(
            Path(config.output_dir) / checkpoint.BEST, config.max_text_length, inputs.interactions.item_ids,
            trust=config.trust_remote_code,
        )  # fmt: skip
        adapt_towers(best, config, config.seed)  # by adapters that do nothing: its layers have them in
        load_weights(model, best)
    test = inputs.split.test
    with loop.judging(training.engine):
        catalogue = encode_catalogue(model.encode_items, inputs.item_text, config.eval_tokens)
        ranks = recommender(model, catalogue, config)
        judged = judge(ranks, test, config, keep_lists=example_users(test))
    show_items(training, catalogue, inputs, config)
    judged = conclude(training, {"two_tower": judged}, inputs.split, config)
    run, on_map = config.output_dir, catalogue[items_on_map(len(catalogue))]
    report_at_end(
        training.log, run,
        lambda: leave(run, judged, "two_tower", inputs, test, config, config, "test", config, on_map),
    )  # fmt: skip


def show_items(training, catalogue, inputs, config):
    """Embeddings of items with their texts, for TensorBoard's projector."""
    if distributed.rank() == 0:
        ids = inputs.interactions.item_ids
        labels = {"item_id": ids, "taken": inputs.split.popularity.tolist()}
        if config.text_data:
            from pixelrec_train.data.item_fields import first_texts  # brings pandas and pyarrow with it

            texts = first_texts(ids, dataclasses.replace(config, allow_missing_text=True))
            labels |= {config.text_keys[0]: texts}
        training.log.items(catalogue, labels, config.seed)
