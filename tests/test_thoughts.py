"""Thoughts in a batch against one user at a time without a cache; searches behind them and whole texts."""

import copy

import numpy as np
import pytest
import torch
from test_decoding import WORDS, assert_as_slow, level_rows, prompts, random_codes, tiny
from torch.nn.utils.rnn import pad_sequence
from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from pixelrec_train.model.decoding import beam_search, search_from
from pixelrec_train.model.reading import Decoder, read
from pixelrec_train.model.thoughts import Sampling, draw, think, uniforms
from pixelrec_train.semantic_id.trie import Trie

END, STOP, LIMIT = 7, 11, 24  # token ids of "</think>" and of the end of a text; tokens of a thought
FREE = Sampling(temperature=1.2, top_k=20, top_p=0.95)


def thoughts(model, ids, mask, how=FREE, keys=None, limit=LIMIT):
    numbers = uniforms(3, range(len(ids)) if keys is None else keys, limit)
    decoder = Decoder.of(model)
    return think(decoder, read(decoder, ids, mask), numbers, END, torch.tensor([STOP]), how)


def told(found):
    """The tokens of each user's thought, as lists."""
    return [row[real].tolist() for row, real in zip(found.token_ids, found.real, strict=True)]


@torch.no_grad()
def slow_thought(model, prompt, numbers, how):
    """One user, a whole forward pass for each token, the cuts in plain Python: (tokens, whether it ended)."""
    tokens = []
    for number in numbers.tolist():
        logits = model(torch.tensor([[*prompt, *tokens]])).logits[0, -1] / how.temperature
        likeliest = sorted(enumerate(logits.double().tolist()), key=lambda pair: -pair[1])[: how.top_k]
        weights = np.exp([score for _, score in likeliest])
        weights, held = weights / weights.sum(), 0.0
        kept = []
        for (token, _), weight in zip(likeliest, weights, strict=True):
            if held < how.top_p:
                kept.append((token, weight))
            held += weight
        number, chosen = number * sum(weight for _, weight in kept), None
        for token, weight in kept:
            if chosen is None and number < weight:
                chosen = token
            number -= weight
        if chosen == STOP:
            return tokens, False
        tokens.append(chosen)
        if chosen == END:
            return tokens, True
    return tokens, False


@pytest.mark.parametrize("how", [FREE, Sampling(), Sampling(0.7, None, 0.8)], ids=["cut", "free", "top_p"])
def test_thoughts_are_those_of_one_user_at_a_time_without_a_cache(how):
    endings = set()
    for seed in range(3):
        model, (ids, mask) = tiny(seed), prompts(seed, users=8, longest=6 + seed)
        _, found = thoughts(model, ids, mask, how)
        numbers = uniforms(3, range(8), LIMIT)
        for row, tokens in enumerate(told(found)):
            expected, ended = slow_thought(model, ids[row][mask[row].bool()].tolist(), numbers[row], how)
            assert tokens == expected and bool(found.ended[row]) == ended
            endings.add("ended" if ended else "limit" if len(tokens) == LIMIT else "stopped")
    assert endings == {"ended", "limit", "stopped"}


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_user_alone_thinks_what_it_thinks_among_others(side):
    model, (ids, mask) = tiny(1), prompts(2, users=6, side=side)
    together = told(thoughts(model, ids, mask)[1])
    for row in range(6):
        prompt = ids[row, mask[row].bool()][None]
        assert told(thoughts(model, prompt, torch.ones_like(prompt), keys=[row])[1]) == [together[row]]
    reordered = thoughts(model, ids.flip(0), mask.flip(0), keys=range(5, -1, -1))[1]
    assert told(reordered) == together[::-1]
    other = thoughts(model, ids, mask, keys=range(6, 12))[1]
    assert told(other) != together and len({tuple(tokens) for tokens in together}) == 6


@pytest.mark.parametrize(
    ("kind", "dtype"), [("qwen3", torch.float32), ("gemma", torch.float32), ("llama", torch.float64)],
    ids=["qwen3", "gemma", "llama"],
)  # fmt: skip
def test_a_search_behind_thoughts_scores_as_the_whole_text_read_from_scratch(kind, dtype):
    """Prompts, thoughts and the words behind them all differ in length, so the cache has holes everywhere."""
    codes, rows = random_codes(5), level_rows()
    trie, behind = Trie.of(codes), ([9, 4], [8, END, 9, 4])  # where the model ended its thought; where not
    for seed in range(3):
        model, (ids, mask) = copy.deepcopy(tiny(seed, kind)).to(dtype), prompts(seed, users=7)
        decoder = Decoder.of(model)
        prefix, found = thoughts(model, ids, mask)
        assert 0 < found.ended.sum() < 7
        words = [torch.tensor(behind[0 if ended else 1]) for ended in found.ended]
        more, real = (
            pad_sequence(part, batch_first=True, padding_side="left")
            for part in (words, [torch.ones_like(part) for part in words])
        )
        fast = search_from(decoder, trie, rows, read(decoder, more, real, prefix), 9)

        prompt = [row[on.bool()] for row, on in zip(ids, mask, strict=True)]
        whole = [
            torch.cat([a, torch.tensor(b, dtype=torch.long), c])
            for a, b, c in zip(prompt, told(found), words, strict=True)
        ]
        assert len({len(text) for text in whole}) > 2
        texts, real = (
            pad_sequence(part, batch_first=True, padding_side="left")
            for part in (whole, [torch.ones_like(part) for part in whole])
        )
        slow = beam_search(decoder, trie, rows, texts, real, 9)
        assert torch.equal(fast.leaves, slow.leaves)
        torch.testing.assert_close(fast.scores, slow.scores, atol=1e-5, rtol=0)
        assert_as_slow(model, trie, fast, texts, real, 9)


def test_draws_are_cut_as_transformers_cuts_and_come_as_often_as_their_shares():
    scores, even = torch.randn(1, 50, generator=torch.Generator().manual_seed(0)) * 2, 20_000
    numbers = (torch.arange(even) + 0.5) / even
    for how in (Sampling(), FREE, Sampling(0.6, 20, 0.95), Sampling(2.0, 3, 1.0), Sampling(1.0, None, 0.3)):
        warped = TemperatureLogitsWarper(how.temperature)(None, scores)
        for warper, value in ((TopKLogitsWarper, how.top_k), (TopPLogitsWarper, how.top_p)):
            warped = warped if value in (None, 1.0) else warper(value)(None, warped)
        drawn = draw(scores.expand(even, -1), numbers, how)
        shares = torch.bincount(drawn, minlength=50) / even
        torch.testing.assert_close(shares, warped.softmax(-1)[0], atol=2 / even, rtol=0)
    assert draw(scores, torch.tensor([0.999]), Sampling(0.0)) == scores.argmax()


def test_nothing_that_was_cut_is_drawn_by_the_largest_number():
    largest = torch.tensor([1 - 2**-24])
    for seed in range(50):
        scores = torch.randn(1, 1000, generator=torch.Generator().manual_seed(seed)) * 3
        likeliest = scores.argsort(descending=True)[0]
        assert draw(scores, largest, Sampling(1.0, 40)) == likeliest[39]
        assert draw(scores, largest, Sampling(1.0, None, 1e-6)) == likeliest[0]


def test_without_freedom_a_thought_is_what_transformers_generates_greedily():
    model, (ids, mask) = tiny(2), prompts(4, users=5)
    _, found = thoughts(model, ids, mask, Sampling(0.0))
    out = model.generate(
        input_ids=ids, attention_mask=mask, do_sample=False, max_new_tokens=LIMIT, eos_token_id=[END, STOP]
    )[:, ids.shape[1] :].tolist()
    for tokens, theirs in zip(told(found), out, strict=True):
        ends = [n for n, token in enumerate(theirs) if token in (END, STOP)]
        theirs = theirs[: ends[0] + (theirs[ends[0]] == END)] if ends else theirs
        assert tokens == theirs


def test_prompts_are_read_once_and_nobody_waits_longer_than_the_longest_thought():
    model, (ids, mask), passes = tiny(1), prompts(2, users=6), []
    plain = Decoder.of(model)

    def backbone(**inputs):
        passes.append(inputs["inputs_embeds"].shape[1])
        return plain.backbone(**inputs)

    decoder = plain._replace(backbone=backbone)
    numbers = uniforms(3, range(6), 300)
    even = Sampling(temperature=8.0)  # so that nobody thinks for ever
    _, found = think(decoder, read(decoder, ids, mask), numbers, END, torch.tensor([STOP]), even)
    longest = int(found.real.sum(1).max())
    assert passes[0] == 8 and set(passes[1:]) == {1} and longest < len(passes) - 1 <= longest + 16 < 300


def test_what_cannot_be_thought_is_refused():
    model, (ids, mask) = tiny(), prompts(0)
    for how in (Sampling(-1.0), Sampling(top_k=0), Sampling(top_p=0.0), Sampling(top_p=1.1)):
        with pytest.raises(ValueError, match="no thoughts with"):
            thoughts(model, ids, mask, how)
    windowed = tiny(kind="mistral", sliding_window=9)
    with pytest.raises(ValueError, match="take 10 tokens, but the model attends to 9"):
        thoughts(windowed, ids, mask, limit=2)
    assert thoughts(windowed, ids, mask, limit=1)[1].real.all()


def test_numbers_are_of_the_seed_and_the_user_and_never_one():
    first = uniforms(0, [5, 2**64 - 1], 1000)
    assert torch.equal(uniforms(0, [2**64 - 1], 1000)[0], first[1])
    assert not torch.equal(uniforms(1, [5], 1000)[0], first[0])
    assert 0 <= first.min() and first.max() < 1 and abs(float(first.mean()) - 0.5) < 0.03
    assert WORDS > STOP  # the codes of the catalogue are other tokens
