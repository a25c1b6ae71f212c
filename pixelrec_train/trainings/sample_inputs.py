"""What a training on samples reads: packs, and whether samples, their JSON and the model belong together."""

import os
from pathlib import Path

import numpy as np

from pixelrec_train import distributed
from pixelrec_train.data.tokens.chat import PLAIN
from pixelrec_train.data.tokens.mixture import Entry
from pixelrec_train.data.tokens.packed_samples import PackCollator, PackDataset, Packing
from pixelrec_train.data.tokens.token_store import TokenStore
from pixelrec_train.errors import InputError
from pixelrec_train.libraries import load_tokenizer
from pixelrec_train.model.vocabulary import META_FILE


def packed(config, dataset, sources, flag_name, tokenizer, ends=PLAIN, laid=lambda store: store):
    """(PackDataset, PackCollator, lines for the plan) of samples.

    ends: of Renderer. laid: a TokenStore -> what stands for it, see tokens/blocks.py.
    """
    store = laid(store_of(config, dataset, sources, tokenizer, ends))
    longest = min(config.max_length, dataset.max_sample_length or config.max_length)
    too_long, silent = store.lengths > longest, store.num_labels == 0
    usable = ~(too_long | silent)
    lines = [*describe(store), *store.remarks.lines()]
    left_out = {f"of more than {longest:,} tokens": too_long, "without a label": silent & ~too_long}
    for why, lost in left_out.items():
        if lost.any():
            lines.append(f"samples {why}, left out: {by_source(store, lost)}")
    if not usable.any():
        raise InputError(
            f"{flag_name}: no sample is left to train on. {' '.join(lines[1:])} See max_length and "
            f"max_sample_length."
        )
    entries = [
        Entry(first, stop, source.epochs, source.weight)
        for (first, stop), source in zip(store.entry_bounds, sources, strict=True)
    ]
    cut = dataset.cut_to_pad is not False and config.pack == "greedy"
    if dataset.cut_to_pad and config.pack != "greedy":
        lines.append(f"cut_to_pad: nothing to do, --pack {config.pack} cuts no sample")
    packing = Packing(config.max_length, config.pack, cut)
    try:
        packs = PackDataset(store, entries, usable, packing, shuffle_seed(dataset), config.cache_dir)
    except ValueError as error:
        raise InputError(f"{flag_name}: {error}.") from None
    collator = PackCollator(
        store.sources, config.max_length, tokenizer.pad_token_id, bool(dataset.full_attention),
        config.counts_by_source,
    )  # fmt: skip
    return packs, collator, lines


def store_of(config, dataset, sources, tokenizer, ends=PLAIN):
    """The TokenStore of samples."""
    return TokenStore.open_or_build(
        sources, tokenizer, dataset.base_model_dir or config.model_dir, config.cache_dir,
        dataset.only_assistant_loss is not False, bool(dataset.add_think_pattern), ends,
    )  # fmt: skip


def train_adapters(model, config, resolved):
    """Adapters in a TokenModel, where --lora_r asks for some. config: QuantisedFlags.

    Raises:
        InputError: the ZeRO stage does not go with them, or as model.adapters.add_adapters.
    """
    if config.lora_r:
        config.check_stage(resolved["zero_optimization"]["stage"])
        model.train_adapters(config, config.seed, distributed.device() if config.load_in_4bit else None)


def what_is_cut(packs):
    """Lines for the plan: what cut_to_pad takes off in the first epoch, by source."""
    first, store = packs.packs(0), packs.store
    lost = store.lengths[first.sample] - first.length
    if lost.any():
        tokens = np.bincount(store.source[first.sample], lost, len(store.sources)).astype(int)
        named = ", ".join(f"{n:,} of {name}" for n, name in zip(tokens, store.sources, strict=True) if n)
        yield (
            f"cut_to_pad: {np.count_nonzero(lost):,} of {len(lost):,} samples are cut in the first epoch, "
            f"tokens lost: {named}"
        )


def trained_on_too(held_out, sources):
    """A line for the plan where files that are to validate are trained on."""
    trained = {os.path.realpath(file) for source in sources for file in source.files}
    files = [file for source in held_out for file in source.files]
    if both := [file for file in files if os.path.realpath(file) in trained]:
        yield (
            f"samples: {len(both):,} of {len(files):,} files are trained on, too ({both[0]}), so valid_loss "
            f"and best_model do not speak of held-out samples"
        )


def shuffle_seed(dataset):
    """Of the order of samples: the JSON's, or OpenOneRec's own."""
    return 1024 if dataset.shuffle_seed is None else dataset.shuffle_seed


def describe(store):
    """Lines for the plan: how many samples and tokens, of which sources."""
    tokens, labels = int(store.lengths.sum(dtype=np.int64)), int(store.num_labels.sum(dtype=np.int64))
    yield (
        f"samples: {store.num_samples:,} with {tokens:,} tokens, {labels:,} of them labels: "
        f"{by_source(store, np.ones(store.num_samples, bool))}"
    )


def by_source(store, chosen):
    """ "12 video_rec, 3 general": how many of the chosen samples each source has."""
    counts = np.bincount(store.source[chosen], minlength=len(store.sources))
    return ", ".join(f"{n:,} {name}" for n, name in zip(counts, store.sources, strict=True) if n)


def check_first_new(model, config):
    """Raises InputError where --new_rows_only has no new rows, or --first_new_row is no row."""
    rows = model.num_tokens
    if config.first_new_row and config.first_new_row >= rows:
        raise InputError(
            f"--first_new_row {config.first_new_row} is no word of {config.model_dir}: it has {rows:,}."
        )
    first_code = model.vocabulary.first_new_id if model.vocabulary else rows
    if config.interaction_data and config.first_new_row and config.first_new_row > first_code:
        raise InputError(
            f"--first_new_row {config.first_new_row} lies behind the first itemic token, {first_code}: a "
            f"model cut there cannot be judged inside the run. Leave out --interaction_data."
        )
    if config.new_rows_only and model.embedding.new_rows is None:
        raise InputError(
            f"--new_rows_only: {config.model_dir} has no itemic_meta.json that says which rows are new. Make "
            f"it with scripts/expand_vocabulary.py, or say the first new token id: --first_new_row."
        )


def itemic_ids_of(model, dataset, config):
    """(first, last) of itemic_id_range where only the JSON knows it.

    Raises:
        InputError: it contradicts itemic_meta.json, or is no range of the vocabulary.
    """
    found = dataset.itemic_id_range
    if found is None:
        return None
    if found[1] >= model.num_tokens:
        raise InputError(
            f"{config.dataset_config}: itemic_id_range {list(found)} goes beyond the {model.num_tokens:,} "
            f"words of {config.model_dir}."
        )
    if not model.vocabulary:
        return found
    last = model.vocabulary.tokenizer_length - 1
    dataset.refuse_other_range(model.vocabulary.first_new_id, last, f"{config.model_dir}/{META_FILE}")
    return None


def check_model(model, dataset, config):
    """Raises InputError where the JSON or a flag says that the model is another than the directory holds."""
    named = {
        f"{config.dataset_config}: model_class": dataset.model_class,
        "--model_class": config.model_class,
    }
    for where, name in named.items():
        if name not in (None, model.architecture):
            raise InputError(
                f"{where} is {name}, but {config.model_dir} holds a {model.architecture}. Leave it out: the "
                f"directory says it."
            )
    if config.use_tie_weights and model.head is not None:
        raise InputError(
            f"--use_tie_weights, but {config.model_dir} has a head of its own beside its word embeddings "
            f"(tie_word_embeddings false in its config.json). Leave the flag out."
        )


def tokenizer_of(config, dataset, trust):
    """That of base_model_dir, which must know the same words as the model.

    Raises:
        InputError: it does not.
    """
    directory = dataset.base_model_dir or config.model_dir
    tokenizer = load_tokenizer(
        directory, "base_model_dir" if dataset.base_model_dir else "--model_dir", trust
    )
    if Path(directory).resolve() != Path(config.model_dir).resolve():
        own = load_tokenizer(config.model_dir, "--model_dir", trust)
        if own.get_vocab() != tokenizer.get_vocab():
            raise InputError(
                f"{config.dataset_config}: the tokenizer of base_model_dir {directory} ({len(tokenizer):,} "
                f"words) is not that of --model_dir {config.model_dir} ({len(own):,}): the model would read "
                f"other words than were written. Use the expanded directory in both places."
            )
    return tokenizer


def check_positions(model, packs, config, dataset):
    """Raises InputError where a text would be longer than the LLM has learned to read."""
    limit = getattr(model.backbone.config, "max_position_embeddings", None)
    longest = config.max_length
    if not dataset.full_attention:
        longest = packs.longest
    if limit and longest > limit:
        raise InputError(
            f"a text of {longest:,} tokens needs as many positions, but the LLM has {limit:,}. Lower "
            f"max_sample_length in the JSON (or --max_length)."
        )
