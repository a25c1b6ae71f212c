"""What the loader sees of a dataset: counts, what is odd and where, distributions, the cost of an epoch."""

import contextlib

import numpy as np

from pixelrec_train.config.reading import LEAVE_LAST_TWO
from pixelrec_train.data.checks.bars import histogram, side_by_side
from pixelrec_train.data.checks.odd_interactions import check_interactions
from pixelrec_train.data.checks.odd_texts import check_texts
from pixelrec_train.data.checks.remarks import LinedRows
from pixelrec_train.data.inputs import read_inputs
from pixelrec_train.data.item_fields import read_texts
from pixelrec_train.data.item_text import Reader, tokenise
from pixelrec_train.data.negatives import NegativeSampler
from pixelrec_train.errors import InputError
from pixelrec_train.files import existing_file
from pixelrec_train.libraries import load_tokenizer

MOST_TOKENISED = 20_000  # texts; of more, as many drawn at random
UNCUT = 1 << 30  # tokens


def report(config):
    """Lines, each as soon as it is known. config: CheckDataConfig."""
    try:
        inputs, texts = load(config)
    except InputError:
        yield from rows_too_wide(config)
        raise
    told = {"item_id": config.item_column, "user_id": config.user_column, "timestamp": config.time_column}
    protocol = config.split_protocol or LEAVE_LAST_TWO
    checked = check_interactions(config.interaction_data, told, config.encoding, protocol)
    tokens = count_tokens(config, texts) if config.item_dir and texts else None
    yield from describe(config, inputs, checked, texts, tokens)
    yield from remarks(config.interaction_data, checked.rows, checked.remarks)
    if config.has_texts:
        item_ids = inputs.interactions.item_ids
        rows, found = check_texts(
            config.text_data, item_ids, config.text_keys, checked.line_of_item, {}, config.encoding
        )
        yield from remarks(config.text_data, rows, found)
    yield from distributions(inputs, texts, tokens)
    yield from cost(config)


def load(config):
    """(Inputs, the item texts or None), read by the loader itself.

    Raises:
        InputError: it refuses them.
    """
    existing_file(config.interaction_data, "--interaction_data")
    if config.has_texts:
        existing_file(config.text_data, "--text_data")
    reads = config.has_texts and config.item_dir
    reader = Reader.of(config, config.item_dir, config.trust_remote_code) if reads else None
    inputs = read_inputs(config, config, reader, config.time_features)
    NegativeSampler(inputs.split.train_counts, 1, config.max_seq_length, config.seed)  # are there enough?
    item_ids = inputs.interactions.item_ids
    if not config.has_texts:
        return inputs, None
    return inputs, read_texts(item_ids, config, reader.item_prompt if reader else config.item_prompt)[0]


def rows_too_wide(config):
    """All lines with too many fields: the loader stops at the first."""
    for path in (config.interaction_data, config.text_data):
        with contextlib.suppress(InputError, OSError):  # what is wrong with the file is said by the loader
            rows = LinedRows(path or "", config.encoding)
            count = sum(1 for _ in rows)
            yield from remarks(path, count, rows.refused()) if rows.refused() else ()


def count_tokens(config, texts):
    """[n] tokens of texts before they are cut; of many texts, of a sample."""
    if len(texts) > MOST_TOKENISED:
        sample = np.random.default_rng(config.seed).choice(len(texts), MOST_TOKENISED, replace=False)
        texts = [texts[i] for i in sample]
    tokenizer = load_tokenizer(config.item_dir, trust="item" in config.trust_remote_code)
    offsets = tokenise(tokenizer, texts, UNCUT, 1)[1]
    return np.diff(offsets) - 1  # without the placeholder of [ITEM]


def describe(config, inputs, checked, texts, tokens):
    data, *notes, split, text = inputs.describe()
    yield f"{data}; {'{} to {}'.format(*checked.days)}" if checked.days else data
    yield from notes
    yield split
    if tokens is not None:
        yield text
        yield how_much_is_cut(tokens, len(texts), config.max_text_length)
    elif texts is not None:
        lengths = np.array([len(text) for text in texts])
        yield f"text: {lengths.mean():.0f} characters per item (longest {lengths.max():,})"


def how_much_is_cut(tokens, num_texts, limit):
    whose = "texts" if len(tokens) == num_texts else f"texts (of a sample of {len(tokens):,})"
    if not (tokens > limit).any():
        return f"cut: none of the {whose}; the longest has {tokens.max():,} tokens, --max_text_length {limit}"
    lost = np.maximum(tokens - limit, 0).sum() / tokens.sum()
    return (
        f"cut: {(tokens > limit).mean():.1%} of the {whose} are longer than --max_text_length {limit}; "
        f"{lost:.1%} of all tokens are lost"
    )


def remarks(path, rows, found):
    """What is odd in a file: warn = look at it, note = good data have it too."""
    yield f"\n{path}, {rows:,} rows"
    for remark in sorted(found, key=lambda remark: remark.harmless):
        yield f"{'note' if remark.harmless else 'warn':<7}{remark}"
        yield from [f"       {remark.where()}"] * bool(remark.examples)
    if not found:
        yield "ok     nothing odd"


def distributions(inputs, texts, tokens):
    data, windows = inputs.interactions, inputs.split.windows
    popularity = np.bincount(data.items, minlength=data.num_items)
    yield ""
    yield from side_by_side(
        histogram("interactions per user", np.diff(data.offsets), growing=True),
        histogram("interactions per item", popularity, growing=True),
    )
    yield ""
    yield from side_by_side(
        histogram("items per training window", windows[:, 1] - windows[:, 0]),
        () if texts is None
        else histogram("tokens per text, uncut", tokens) if tokens is not None
        else histogram("characters per text", [len(text) for text in texts]),
    )  # fmt: skip
    if texts is not None and tokens is None:
        yield "--item_model_dir (any directory with a tokenizer) counts tokens instead of characters."


def cost(config):
    """The plan of a run and what an epoch would take here, as far as the flags name towers."""
    if not config.has_towers:
        yield "--item_model_dir and --user_model_dir measure memory and time of an epoch on this machine."
        return
    from pixelrec_train.trainings.epoch_cost import epoch_cost  # brings the whole of training with it

    yield ""
    yield from epoch_cost(config)
