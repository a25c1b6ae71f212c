"""Constrained decoding over a vocabulary of 176k against transformers' generate, and building its trie."""

from functools import partial

import numpy as np
import torch
from transformers import AutoModelForCausalLM, Qwen3Config

from benchmarks import peers
from benchmarks.measure import interleaved, must_agree
from benchmarks.registry import Goal, Result, benchmark
from pixelrec_train.model.decoding import beam_search
from pixelrec_train.model.normaliser import log_norm
from pixelrec_train.model.reading import Decoder
from pixelrec_train.model.sampling import sample, sample_distinct
from pixelrec_train.semantic_id.trie import Trie

LEVELS, CODEBOOK, WORDS = 3, 8192, 151_669  # Qwen3's tokenizer, then the codes level by level,
ALIGNED = 256  # begin and end, and padding: 176,384 rows
SMALL = {"beams": 5, "items": 500, "codebook": 64, "words": 300, "prompt": 20}


@benchmark(unit="CPU s", goal=Goal("ratio", at_least=10), tiny=SMALL)
def decoding_vs_generate(inputs, **sizes):
    """A model so small that the vocabulary is most of the work."""
    return against_generate(**{"hidden": 64, "layers": 2} | sizes)


@benchmark(unit="CPU s", goal=Goal("ratio", at_least=10), tiny=SMALL)
def decoding_128_vs_generate(inputs, **sizes):
    """Where the product with the vocabulary decides, on both sides."""
    return against_generate(**{"hidden": 128, "layers": 2} | sizes)


@benchmark(unit="CPU s", goal=Goal("ratio", at_least=10), tiny=SMALL)
def decoding_256_vs_generate(inputs, **sizes):
    """The same, more so."""
    return against_generate(**{"hidden": 256, "layers": 2} | sizes)


@benchmark(unit="beams/CPU s", goal=Goal("value", at_least=500), tiny=SMALL | {"widths": (3, 7)})
def decoding_beams(inputs, hidden=64, layers=2, users=4, widths=(20, 50, 128, 512), beams=None, **sizes):
    """How many beams come in a CPU second, normalised over the whole vocabulary; the value is of the most."""
    model, codes, rows, token_ids, mask = drawn_model(hidden, layers, users, **sizes)
    asked = Decoder.of(model), Trie.of(codes), rows, token_ids, mask
    ways = [partial(beam_search, *asked, width, over) for over in ("full", "level") for width in widths]
    for way in ways:
        way()
    rates = [users * way.args[5] / timing.cpu for way, timing in zip(ways, interleaved(*ways), strict=True)]
    told = [
        ", ".join(f"{rate:,.0f} at K = {width}" for rate, width in zip(part, widths, strict=True))
        for part in (rates[: len(widths)], rates[len(widths) :])
    ]
    note = f"hidden {hidden}, {layers} layers: {told[0]}; over the level {told[1]}"
    return Result(rates[len(widths) - 1], note=note)


@benchmark(unit="CPU s", goal=Goal("ratio", at_least=10), tiny=SMALL)
def decoding_deep_vs_generate(inputs, **sizes):
    """Where reading prompts counts, as it does in any real model."""
    return against_generate(**{"hidden": 256, "layers": 12} | sizes)


@benchmark(unit="CPU s", goal=Goal("ratio", at_least=8), tiny=SMALL)
def rollouts_vs_generate(inputs, hidden=256, layers=12, users=4, beams=16, **sizes):
    """Groups of 16 answers drawn at temperature 1, as GRPO asks for them."""
    model, codes, rows, token_ids, mask = drawn_model(hidden, layers, users, **sizes)
    trie, first = Trie.of(codes), np.array([int(row[0]) for row in rows])
    table = model.get_output_embeddings().weight  # of a model in training, of which nothing is kept
    decoder = Decoder.of(model)._replace(log_norm=lambda hidden: log_norm(hidden, table))
    asked = decoder, trie, rows, token_ids, mask, beams

    def theirs(temperature=1.0):
        return peers.generate(model, codes + first, token_ids, mask, beams, temperature)[0]

    # Near temperature 0 nothing is left to chance.
    found = sample(*asked, temperature=1e-4).leaves.numpy()
    must_agree("answers near temperature 0", trie.ids()[found] + first, theirs(1e-4), 0)
    times = interleaved(lambda: sample(*asked), theirs, lambda: sample_distinct(*asked))
    rates = [users * beams / timing.cpu for timing in times]
    note = (
        f"{users} prompts x {beams}, hidden {hidden}, {layers} layers: {rates[0]:.0f} against {rates[1]:.0f} "
    )
    return Result.of_times(*times[:2], f"{note}rollouts/s; without replacement {rates[2]:.0f}")


def drawn_model(hidden, layers, users, items=20_000, codebook=CODEBOOK, words=WORDS, prompt=160):
    """(causal LM, [N, L] codes, token ids of each level, [B, T] prompts, their mask)"""
    codes = np.random.default_rng(0).integers(0, codebook, (items, LEVELS))
    rows = torch.arange(words, words + LEVELS * codebook).split(codebook)
    model = causal_lm(-(-(int(rows[-1][-1]) + 3) // ALIGNED) * ALIGNED, hidden, layers)
    return model, codes, rows, *prompts(users, prompt, words)


def against_generate(hidden, layers, users=4, beams=20, **sizes):
    """Normalised over the whole vocabulary. The peer is spared the two steps it makes behind an id."""
    model, codes, rows, token_ids, mask = drawn_model(hidden, layers, users, **sizes)
    trie, decoder, first = Trie.of(codes), Decoder.of(model), np.array([int(row[0]) for row in rows])

    def ours(normalised_over="full"):
        return beam_search(decoder, trie, rows, token_ids, mask, beams, normalised_over)

    def theirs():
        return peers.generate(model, codes + first, token_ids, mask, beams)

    found, (sequences, scores) = ours(), theirs()
    must_agree("beams", trie.ids()[found.leaves.numpy()] + first, sequences, 0)
    must_agree("scores", found.scores, scores, 1e-4)
    times = interleaved(ours, theirs, lambda: ours("level"))
    note = f"{users} users x {beams} beams, hidden {hidden}, {layers} layers"
    note += f"; normalised over the level {times[2].cpu:.2g} s"
    return Result.of_times(*times[:2], note)


def causal_lm(vocabulary, hidden, layers):
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=vocabulary, hidden_size=hidden, intermediate_size=3 * hidden, num_hidden_layers=layers,
        num_attention_heads=hidden // 32, num_key_value_heads=hidden // 64, head_dim=32,
        initializer_range=0.2, tie_word_embeddings=True, bos_token_id=None, eos_token_id=None, pad_token_id=0,
    )  # fmt: skip
    return AutoModelForCausalLM.from_config(config).eval()


def prompts(users, longest, words):
    """[B, T] token ids and mask, padded on the left; the shortest is half as long as the longest."""
    generator = torch.Generator().manual_seed(0)
    lengths = torch.linspace(longest, longest // 2, users).long()
    mask = (torch.arange(longest) >= longest - lengths[:, None]).long()
    return torch.randint(1, words, (users, longest), generator=generator) * mask, mask


@benchmark(unit="CPU s", goal=Goal("value", at_most=0.5), tiny={"items": 4000})
def trie_build(inputs, items=400_000):
    codes = np.random.default_rng(0).integers(0, CODEBOOK, (items, LEVELS)).astype(np.int32)
    popularity = np.random.default_rng(1).integers(0, 1000, items)
    (timing,) = interleaved(lambda: Trie.of(codes, popularity))
    return Result(timing.cpu, wall=timing.wall, note=f"{items:,} items, {LEVELS} x {CODEBOOK}")
