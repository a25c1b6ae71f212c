"""Train a language model to say the next item's semantic id; judge it by decoding under the catalogue's trie.

The only place where its data, model, task, engine and evaluation meet.
"""

from dataclasses import dataclass
from pathlib import Path

from pixelrec_train import distributed, watchdog
from pixelrec_train.commands.inputs import read_inputs
from pixelrec_train.commands.itemic import Prepared, numbers
from pixelrec_train.commands.plan import trained
from pixelrec_train.commands.session import carry_out, session
from pixelrec_train.commands.start import check_places, seed_everything
from pixelrec_train.config import LoopConfig, TrainConfig
from pixelrec_train.data.cache import fingerprint
from pixelrec_train.data.itemic import ItemicDataset
from pixelrec_train.data.loader import Loader
from pixelrec_train.ending import speak_plainly
from pixelrec_train.engine import checkpoint, ds_config, loop
from pixelrec_train.engine.state import steps_per_epoch
from pixelrec_train.engine.weights import load_weights
from pixelrec_train.errors import InputError
from pixelrec_train.evaluation.generation import figures_side_by_side
from pixelrec_train.evaluation.report import beside_popularity, candidates, draw_curves, write_table
from pixelrec_train.flags import flag, flag_of, parse_args, possible_directory, require
from pixelrec_train.model.generative_model import GenerativeModel
from pixelrec_train.tasks.generative import LLM, GenerativeTask


@dataclass(frozen=True, kw_only=True)
class GenerativeConfig(LoopConfig):
    """Train a language model with itemic tokens: it reads a history of semantic ids and says the next."""

    # data
    interaction_data: str = flag_of(TrainConfig, "interaction_data")
    text_data: str | None = flag("CSV with a column item_id and the text columns; needed to --align", None)
    text_keys: tuple[str, ...] = flag_of(TrainConfig, "text_keys")
    semantic_ids: str = flag("file that scripts/build_semantic_ids.py wrote")
    align: bool = flag("besides histories, tell the text for every item's id and the id for its text", True)
    max_seq_length: int = flag_of(TrainConfig, "max_seq_length")
    one_window_per_user: bool = flag_of(TrainConfig, "one_window_per_user")
    eval_seq_length: int | None = flag_of(TrainConfig, "eval_seq_length")
    max_text_length: int = flag("tokens kept of an item's text", 64)

    # model
    model_dir: str = flag("directory made by scripts/expand_vocabulary.py, or the llm/ of a checkpoint")
    new_rows_only: bool = flag("stage 1: train the rows of the itemic tokens and nothing else", False)
    gradient_checkpointing: bool = flag_of(TrainConfig, "gradient_checkpointing")
    loss_chunk: int = flag("labels whose logits over the vocabulary exist at a time", 4096)

    # decoding
    num_beams: int = flag("semantic ids kept per user and level", 50)
    normalised_over: str = flag(
        "probabilities of a code: full = over the vocabulary, level = its level", "full"
    )

    resume: str | None = flag_of(TrainConfig, "resume")
    dry_run: int | None = flag_of(TrainConfig, "dry_run")

    def __post_init__(self):
        super().__post_init__()
        for name in ("max_text_length", "loss_chunk", "num_beams"):
            require(getattr(self, name) >= 1, f"--{name} must be at least 1", getattr(self, name))
        for name in ("max_seq_length", "eval_seq_length"):
            length = getattr(self, name)
            enough = length is None or length >= 2
            require(enough, f"--{name} counts history + target: at least 2", length)
        require(self.normalised_over in ("full", "level"),
                "--normalised_over must be full or level", self.normalised_over)  # fmt: skip
        require(self.text_keys, "--text_keys needs at least one column", self.text_keys)
        if self.align and not self.text_data:
            raise InputError("--text_data is needed (or --align False).")
        require(self.dry_run is None or self.dry_run >= 1, "--dry_run needs a number of ranks", self.dry_run)

    # What read_inputs asks of a config. The LLM's own tokenizer reads the fields alone; nothing is [ITEM].
    item_prompt = ""
    item_emb_token_n = 0

    @property
    def id_only(self):
        return not self.align

    @property
    def item_dir(self):
        return self.model_dir

    @property
    def seq_length_in_evaluation(self):
        return self.eval_seq_length or self.max_seq_length


@speak_plainly
def main(argv=None):
    config = parse_args(GenerativeConfig, argv)
    if not config.dry_run:
        return carry_out(config, run)
    check_places(config, going_on=bool(config.resume))
    print("\n".join(plan(config, prepare(config), config.dry_run)))


def prepare(config):
    """Everything that can be wrong with the input is found here, before a single step."""
    seed_everything(config.seed)
    possible_directory(config.cache_dir, "--cache_dir")
    trust = "item" in config.trust_remote_code
    model = GenerativeModel.load(config.model_dir, "--model_dir", config.loss_chunk, trust=trust)
    inputs = read_inputs(config)
    if config.new_rows_only:
        model.train_new_rows_only()
    return Prepared.of(model, config.model_dir, config.semantic_ids, inputs)


def plan(config, prepared, ranks):
    """Lines for --dry_run and for the top of every log."""
    inputs, model, vocabulary = prepared.inputs, prepared.model, prepared.model.vocabulary
    samples = len(ItemicDataset(inputs.interactions, inputs.split, config.align))
    batch = config.per_device_train_batch_size * ranks
    steps = steps_per_epoch(-(-samples // batch), config)
    what = f"{len(inputs.split.windows):,} histories" + (", every item both ways" if config.align else "")
    stage = "the rows of itemic tokens alone" if config.new_rows_only else "everything"
    return [
        *inputs.describe(),
        f"semantic ids: {vocabulary.levels} levels of {numbers(vocabulary.codebook_sizes)} codes; "
        f"{prepared.trie.num_leaves:,} ids for {inputs.interactions.num_items:,} items",
        f"model: {trained(model):,} trained parameters ({stage}), vocabulary {vocabulary.tokenizer_length:,}",
        f"batch: {batch} sequences x {config.gradient_accumulation_steps} per step over {ranks} ranks; "
        f"{what}",
        f"steps: {steps:,} per epoch x {config.num_train_epochs} epochs = "
        f"{steps * config.num_train_epochs:,}",
    ]


def run(config):
    """One whole run, on every rank."""
    watchdog.at("reading data and model")
    prepared = prepare(config)
    inputs, model = prepared.inputs, prepared.model
    loader = Loader(
        ItemicDataset(inputs.interactions, inputs.split, config.align), prepared.collator,
        config.per_device_train_batch_size, config.seed, config.dataloader_num_workers,
    )  # fmt: skip
    if config.gradient_checkpointing:
        model.enable_checkpointing()
    width = model.backbone.config.hidden_size
    resolved = ds_config.resolve(config, distributed.world_size(), width)
    lines, facts = plan(config, prepared, distributed.world_size()), inputs.facts()
    facts["data"]["semantic_ids"] = fingerprint(Path(config.semantic_ids))
    with session(config, GenerativeTask(model, config), loader, resolved, facts, lines) as session_:
        engine, state, log, signals = session_
        evaluators = [lambda: validate(prepared, config)]
        loop.train(engine, loader, evaluators, state, config, log, signals)
        watchdog.at("test")
        finish(engine, prepared, state, config, log)


def validate(prepared, config):
    """Validation figures of the current weights: by items, and by ids as most papers count."""
    return figures_side_by_side(rank(prepared, prepared.inputs.split.valid, config), config.topk)


def rank(prepared, held_out, config):
    return prepared.rank(
        held_out, config, config.seq_length_in_evaluation, config.num_beams, config.normalised_over
    )


def finish(engine, prepared, state, config, log):
    """Judge the best model on the test split beside popularity, and leave table and curves."""
    run, inputs, test = Path(config.output_dir), prepared.inputs, prepared.inputs.split.test
    if state.best_epoch != state.epoch:
        best = GenerativeModel.load(
            run / checkpoint.BEST / LLM, "the checkpoint", config.loss_chunk, dtype="auto"
        )
        load_weights(prepared.model, best)
    with loop.judging(engine):
        places = rank(prepared, test, config)
    if distributed.rank() == 0:
        rows = beside_popularity({"generative": places.item}, test, inputs.split.train_counts, config)
        over = "vocabulary" if config.normalised_over == "full" else "level"
        note = (
            f"Test = last item of each user, {candidates(inputs.interactions.num_items, config)}, best epoch "
            f"{state.best_epoch} by validation {loop.BEST_BY}; at least {config.num_beams} beams, none "
            f"outside the catalogue, probabilities over the {over}; an id of several items stands for them "
            f"by popularity; ± is half the width of the 95 % bootstrap interval."
        )
        log.block(f"\n{write_table(run, rows, config.topk, note)}\n{note}\n")
        draw_curves(run)
        log.block(f"Files in {run}/: table.md, table.json, curves.png, metrics.jsonl, best_model/")
    distributed.barrier()
    best = f"best epoch {state.best_epoch} (validation {loop.BEST_BY} {state.best_score:.4f})"
    log.note(f"done: {state.step} steps, {best}")
