"""From item texts to tokens: the cache that is made once, and the batches that are gathered from it."""

import numpy as np

from benchmarks import peers
from benchmarks.inputs import LONGEST_TEXT, VOCAB_SIZE
from benchmarks.measure import cores, interleaved, must_agree
from benchmarks.registry import Goal, Result, benchmark
from pixelrec_train.data.item_text import ItemText, tokenise
from pixelrec_train.model.tiny import train_tokenizer


@benchmark(unit="wall s", goal=Goal("ratio", at_least=3), tiny={"items": 200, "trained_on": 200})
def token_cache(inputs, items=100_000, trained_on=4_000):
    """All texts tokenised, on all cores, against a call per item."""
    texts = inputs.texts(items)
    tokenizer = train_tokenizer(texts[:trained_on], VOCAB_SIZE)

    def ours():
        return tokenise(tokenizer, texts, LONGEST_TEXT, item_emb_token_n=1)

    def theirs():
        return peers.tokenise(tokenizer, texts, LONGEST_TEXT)

    must_agree("tokens of all items", ours()[0], np.concatenate(theirs()), 0)
    once, each = interleaved(ours, theirs, rounds=1)
    note = f"{items:,} texts, {cores()} cores; CPU s {once.cpu:.1f} against {each.cpu:.1f}"
    return Result(once.wall, each.wall, each.wall / once.wall, note=note)


@benchmark(unit="CPU s", goal=Goal("ratio", at_least=50), tiny={"items": 20, "trained_on": 200})
def batch_texts(inputs, items=352, trained_on=4_000):
    """The texts of one batch, 16 users x 22 items: gathered from the cache, against a call per item."""
    texts = inputs.texts(trained_on)
    tokenizer = train_tokenizer(texts, VOCAB_SIZE)
    cache = ItemText(*tokenise(tokenizer, texts, LONGEST_TEXT, item_emb_token_n=1), 0, 0, "drawn")
    numbers = np.random.default_rng(0).choice(trained_on, items, replace=False)

    def ours():
        return cache.pack(numbers).token_ids

    def theirs():
        return np.concatenate(peers.tokenise(tokenizer, [texts[i] for i in numbers], LONGEST_TEXT))

    must_agree("tokens of a batch", ours(), theirs(), 0)
    return Result.of_times(*interleaved(ours, theirs, rounds=11), note=f"{items} items")
