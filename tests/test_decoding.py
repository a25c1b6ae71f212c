"""Constrained beam search against whole forward passes of every id, a slow search, and transformers' own."""

import copy
import functools

import numpy as np
import pytest
import torch
from torch.nn.utils.rnn import pad_sequence
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoConfig, AutoModelForCausalLM

from pixelrec_train.config import RankingFlags
from pixelrec_train.data.interactions import HeldOut
from pixelrec_train.errors import InputError
from pixelrec_train.evaluation.generation import Generated
from pixelrec_train.evaluation.places import judge
from pixelrec_train.evaluation.recommender import ByScores
from pixelrec_train.model.cpu_layers import has_onednn
from pixelrec_train.model.decoding import beam_search
from pixelrec_train.model.normaliser import PACKED_ROWS, Packed, log_norm
from pixelrec_train.model.reading import Decoder, read
from pixelrec_train.model.trie_walk import FEW_OF
from pixelrec_train.semantic_id.codes import ABSENT
from pixelrec_train.semantic_id.trie import Trie

SIZES, WORDS = (6, 5, 7), 40  # codes of each level; token ids that are no codes
VOCABULARY = WORDS + sum(SIZES)


@functools.cache
def tiny(seed=0, kind="qwen3", vocab=VOCABULARY, attention="sdpa", **settings):
    """A causal LM with weights so large that its probabilities differ."""
    torch.manual_seed(seed)
    config = AutoConfig.for_model(
        kind, vocab_size=vocab, hidden_size=32, intermediate_size=48, num_hidden_layers=2, head_dim=16,
        num_attention_heads=2, num_key_value_heads=1, initializer_range=0.4, tie_word_embeddings=False,
        pad_token_id=0, bos_token_id=None, eos_token_id=None, **settings,
    )  # fmt: skip
    return AutoModelForCausalLM.from_config(config, attn_implementation=attention).eval()


def level_rows(sizes=SIZES, seed=0):
    """Token ids of each level's codes, in no order."""
    shuffled = torch.from_numpy(WORDS + np.random.default_rng(seed).permutation(sum(sizes)))
    return shuffled.split(list(sizes))


def random_codes(seed, items=50, sizes=SIZES, shorter=False):
    rng = np.random.default_rng(seed)
    codes = np.stack([rng.integers(0, size, items) for size in sizes], axis=1).astype(np.int32)
    if shorter:
        codes[np.arange(len(sizes)) >= rng.integers(1, len(sizes) + 1, items)[:, None]] = ABSENT
    return codes


def prompts(seed, users=3, longest=8, side="left"):
    """[B, T] token ids and mask, each prompt of its own length."""
    rng = np.random.default_rng(seed)
    ids, mask = torch.zeros(users, longest, dtype=torch.long), torch.zeros(users, longest, dtype=torch.long)
    for row, length in enumerate([longest, *rng.integers(1, longest, users - 1)]):
        real = slice(longest - length, None) if side == "left" else slice(0, length)
        ids[row, real] = torch.from_numpy(rng.integers(1, WORDS, length))
        mask[row, real] = 1
    return ids, mask


@torch.no_grad()
def next_log_probabilities(model, sequence, tokens, normalised_over):
    logits = model(sequence[None]).logits[0, -1]
    return logits.log_softmax(-1)[tokens] if normalised_over == "full" else logits[tokens].log_softmax(-1)


def slow_beams(model, ids, rows, prompt, beams, normalised_over):
    """[(score, id)], best first: prefixes as tuples, and a whole forward pass for each."""
    ids, kept = {tuple(i) for i in ids.tolist()}, [(0.0, ())]
    for level, tokens in enumerate(rows):
        longer = []
        for score, prefix in kept:
            read = torch.tensor([int(rows[n][c]) for n, c in enumerate(prefix) if c != ABSENT])
            gain = next_log_probabilities(model, torch.cat([prompt, read.long()]), tokens, normalised_over)
            for code in {i[level] for i in ids if i[:level] == prefix}:
                longer.append((score + (0.0 if code == ABSENT else float(gain[code])), (*prefix, code)))
        kept = sorted(longer, reverse=True)[:beams]
    return kept


def search(model, codes, ids, mask, beams, normalised_over="full", rows=None, **kwargs):
    trie = Trie.of(codes, **kwargs)
    found = beam_search(Decoder.of(model), trie, rows or level_rows(), ids, mask, beams, normalised_over)
    assert found.normalised_over == normalised_over
    return trie, found


def assert_as_slow(model, trie, found, ids, mask, beams, normalised_over="full", rows=None):
    for row, (leaves, scores) in enumerate(zip(found.leaves, found.scores, strict=True)):
        expected = slow_beams(
            model, trie.ids(), rows or level_rows(), ids[row][mask[row].bool()], beams, normalised_over
        )
        assert [tuple(i) for i in trie.ids()[leaves.numpy()].tolist()] == [i for _, i in expected]
        assert scores.tolist() == pytest.approx([s for s, _ in expected], abs=1e-5)


@pytest.mark.parametrize("normalised_over", ["full", "level"])
@pytest.mark.parametrize("shorter", [False, True])
@pytest.mark.parametrize("beams", [1, 3, 10, 50, 80])
def test_beams_are_those_of_a_slow_search_and_all_of_them_are_the_exhaustive_ranking(
    beams, shorter, normalised_over
):
    """With as many beams as ids the slow search drops nothing: it scores every id, teacher-forced."""
    for seed in range(2):
        model, (ids, mask) = tiny(seed), prompts(seed)
        trie, found = search(model, random_codes(seed, shorter=shorter), ids, mask, beams, normalised_over)
        assert found.leaves.shape[1] == min(beams, trie.num_leaves)
        assert_as_slow(model, trie, found, ids, mask, beams, normalised_over)
        if beams >= trie.num_leaves:
            assert found.leaves.sort(1).values.tolist() == [list(range(trie.num_leaves))] * 3


@torch.no_grad()
def generate(model, codes, rows, ids, mask, beams):
    """transformers' beam search under prefix_allowed_tokens_fn -> [B, K, L] tokens, [B, K] scores."""
    following = {}
    for code in codes.tolist():
        tokens = [int(tokens[c]) for tokens, c in zip(rows, code, strict=True)]
        for level in range(len(tokens)):
            following.setdefault(tuple(tokens[:level]), set()).add(tokens[level])
    prompt = ids.shape[1]
    out = model.generate(
        input_ids=ids, attention_mask=mask, num_beams=beams, num_return_sequences=beams, do_sample=False,
        length_penalty=0.0, max_new_tokens=len(rows), return_dict_in_generate=True, output_scores=True,
        prefix_allowed_tokens_fn=lambda _, read: sorted(following.get(tuple(read[prompt:].tolist()), {1})),
    )  # fmt: skip
    return out.sequences[:, prompt:].view(len(ids), beams, -1), out.sequences_scores.view(len(ids), beams)


@pytest.mark.parametrize("seed", range(12))
def test_beams_are_those_of_transformers_generate_under_a_prefix_constraint(seed):
    model, codes, rows = tiny(seed % 4), random_codes(seed, items=60), level_rows(seed=seed)
    ids, mask = prompts(seed, users=4, longest=5 + seed)
    for beams in (2, 7, 20):
        trie, found = search(model, codes, ids, mask, beams, rows=rows)
        tokens, scores = generate(model, codes, rows, ids, mask, beams)
        ours = np.stack([rows[n].numpy()[trie.ids()[found.leaves.numpy(), n]] for n in range(3)], axis=-1)
        assert np.array_equal(ours, tokens.numpy())
        torch.testing.assert_close(found.scores, scores, atol=1e-5, rtol=0)


def test_no_beam_is_invalid_none_comes_twice_and_none_is_missing():
    """Deep narrow tries, where most nodes have fewer continuations than there are beams."""
    for seed in range(20):
        codes = random_codes(seed, items=1 + seed, shorter=seed % 2 == 0)
        trie, found = search(tiny(seed % 4), codes, *prompts(seed), beams=1 + seed % 7)
        ids = {tuple(i) for i in codes.tolist()}
        for leaves, scores in zip(found.leaves, found.scores, strict=True):
            assert scores.isfinite().all() and len(leaves) == min(1 + seed % 7, len(ids))
            beams = [tuple(i) for i in trie.ids()[leaves.numpy()].tolist()]
            assert len(set(beams)) == len(beams) and set(beams) <= ids


def test_a_code_the_model_calls_impossible_leaves_its_places_empty():
    codes, (ids, mask) = np.array([[0, 0, 0], [0, 1, 0], [1, 0, 0], [1, 0, 1]], np.int32), prompts(0)
    decoder, rows = Decoder.of(tiny()), level_rows()

    def head(hidden, tokens):
        return decoder.head(hidden, tokens).masked_fill(tokens == rows[0][1], -torch.inf)

    found = beam_search(decoder._replace(head=head), Trie.of(codes), rows, ids, mask, 4)
    assert found.leaves[:, :2].sort(1).values.tolist() == [[0, 1]] * 3 and (found.leaves[:, 2:] == -1).all()
    assert found.scores[:, :2].isfinite().all() and found.scores[:, 2:].isneginf().all()


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_user_alone_has_the_beams_it_has_among_others(side):
    model, codes, (ids, mask) = tiny(1), random_codes(3), prompts(3, users=5, side=side)
    together = search(model, codes, ids, mask, 9)[1]
    for row in range(5):
        prompt = ids[row, mask[row].bool()][None]
        alone = search(model, codes, prompt, torch.ones_like(prompt), 9)[1]
        assert torch.equal(alone.leaves[0], together.leaves[row])
        torch.testing.assert_close(alone.scores[0], together.scores[row], atol=1e-5, rtol=0)


def test_a_part_of_the_catalogue_is_ranked_alone():
    model, codes, (ids, mask) = tiny(2), random_codes(5), prompts(5)
    part = np.array([3, 1, 40, 22, 17])
    trie, found = search(model, codes, ids, mask, 5, items=part)
    assert_as_slow(model, trie, found, ids, mask, 5)
    assert {tuple(i) for i in trie.ids().tolist()} == {tuple(i) for i in codes[part].tolist()}


@pytest.mark.parametrize("shorter", [False, True])
def test_nearly_equal_ids_are_told_apart_where_a_node_has_few_of_many_codes(shorter):
    """Codes are twins but for 1 in 10,000 of their vectors; the slow search computes in fp64."""
    sizes = (4, 400, 900)
    rows, codes = level_rows(sizes), random_codes(1, items=120, sizes=sizes, shorter=shorter)
    model, (ids, mask) = copy.deepcopy(tiny(vocab=WORDS + sum(sizes))), prompts(1)
    with torch.no_grad():
        for level in rows:
            table = model.lm_head.weight
            table[level] = table[level[:1]] + 1e-4 * table[level]
    trie, found = search(model, codes, ids, mask, 25, rows=rows)
    assert trie.fanout[1] * FEW_OF > sizes[1] and trie.fanout[2] * FEW_OF <= sizes[2]  # both ways are taken
    assert_as_slow(model.double(), trie, found, ids, mask, 25, rows=rows)


@pytest.mark.parametrize("states", [(2, 3), (5, 7), (1, 300)])
@pytest.mark.parametrize("biased", [False, True])
def test_the_normaliser_is_that_of_all_words_whatever_blocks_it_comes_in(states, biased):
    """Small and large scores, a word that is impossible, tables in one and in two parts."""
    generator = torch.Generator().manual_seed(0)
    hidden, table = (torch.randn(n, 24, generator=generator) for n in (states[0] * states[1], 5000))
    hidden, bias = (
        (hidden * torch.logspace(-2, 1, len(hidden))[:, None]).unflatten(0, states),
        torch.zeros(5000),
    )
    bias[7] = -torch.inf
    expected = (hidden.double() @ table.double().T + (bias if biased else 0)).logsumexp(-1)
    for grad in (False, True):
        with torch.set_grad_enabled(grad):
            found = [log_norm(hidden, table, bias=bias)] if biased else [log_norm(hidden, table)]
            found += [log_norm(hidden, table, bias=bias if biased else None, packed=Packed())]
            for packed in (None, Packed()) if not biased else ():
                found += [log_norm(hidden, table[:1999], table[1999:], packed=packed)]
        for one in found:
            torch.testing.assert_close(one, expected.float(), rtol=1e-6, atol=1e-5)


@torch.no_grad()
def test_what_is_kept_of_tables_that_stand_still_is_never_that_of_others():
    """Tables that change in place, get other memory, or are exchanged for others, maybe at their address."""
    packed, hidden, tables = Packed(), torch.randn(9, 24), list(torch.randn(5000, 24).split(3000))
    for change in (
        lambda: None,
        lambda: tables[1][1999].mul_(50),
        lambda: tables.__setitem__(0, torch.randn(3000, 24)),
        lambda: tables.__setitem__(0, torch.randn(3000, 24)),
        lambda: setattr(tables[0], "data", torch.randn(3000, 24)),
        tables.pop,
    ):
        change()
        expected = (hidden.double() @ torch.cat(tables).double().T).logsumexp(-1).float()
        for one in (packed, packed, copy.deepcopy(packed)):
            found = log_norm(hidden, *tables, packed=one)
            torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-5)
    kept = packed.made
    assert not has_onednn() or packed.of(tables) is kept[1] and len(kept[1]) == -(-3000 // PACKED_ROWS)


def test_levels_8192_wide_are_searched_exactly():
    sizes = (3, 8192, 4)
    codes = random_codes(0, items=9000, sizes=sizes)
    codes[:8192, 0], codes[:8192, 1] = 1, np.arange(8192)
    model, (ids, mask) = tiny(vocab=WORDS + sum(sizes)), prompts(0, users=2)
    trie, found = search(model, codes, ids, mask, 4, rows=level_rows(sizes))
    assert trie.fanout[1] == 8192
    assert_as_slow(model, trie, found, ids, mask, 4, rows=level_rows(sizes))


@pytest.mark.parametrize("kind", ["qwen3", "llama", "mistral", "qwen2", "gemma"])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_other_decoders_and_both_attentions_search_the_same_way(kind, attention):
    model, codes, (ids, mask) = tiny(kind=kind, attention=attention), random_codes(7), prompts(7)
    trie, found = search(model, codes, ids, mask, 6)
    assert_as_slow(model, trie, found, ids, mask, 6)


def test_each_prompt_is_read_once_and_each_further_level_is_one_pass():
    model, codes, (ids, mask) = tiny(), random_codes(0), prompts(0)
    decoder, passes = Decoder.of(model), []

    def backbone(**inputs):
        passes.append(tuple(inputs["inputs_embeds"].shape[:2]))
        return decoder.backbone(**inputs)

    beam_search(decoder._replace(backbone=backbone), Trie.of(codes), level_rows(), ids, mask, 10)
    assert passes == [(3, 8), (3, 6), (3, 10)]  # prompts; the 6 codes of level 0; 10 beams


@pytest.mark.parametrize("kind", ["qwen3", "qwen3_moe", "gpt_neox"])
@torch.no_grad()
def test_of_a_prompt_the_last_layers_mlp_reads_the_last_token_alone(kind):
    """What it gives is what the model gives each prompt by itself, also where it is read in two parts."""
    experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
    model = tiny(kind=kind, **(experts if kind == "qwen3_moe" else {}))
    decoder, (ids, mask), tokens = Decoder.of(model), prompts(4, side="right"), []
    mask[1, 4:] = 0  # in the second part it has nothing
    hooks = [
        layer.mlp.register_forward_hook(lambda part, args, out: tokens.append(args[0].shape[1]))
        for layer in model.base_model.layers
    ]
    once = read(decoder, ids, mask)
    for hook in hooks:
        hook.remove()
    assert tokens == [ids.shape[1], 1]
    twice = read(decoder, ids[:, 4:], mask[:, 4:], read(decoder, ids[:, :4], mask[:, :4]))
    for row, real in enumerate(mask.bool()):
        alone = model.base_model(ids[row, real][None]).last_hidden_state[0, -1]
        for found in (once, twice):
            torch.testing.assert_close(found.hidden[row, 0], alone, atol=1e-5, rtol=0)


class Operations(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.names = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.names.add(function.__name__.split(".")[0])
        return function(*args, **(kwargs or {}))


def test_nothing_in_a_search_waits_for_a_gpu():
    """No operation whose result or shape the CPU has to know."""
    model, codes, (ids, mask) = tiny(), random_codes(0, shorter=True), prompts(0)
    trie, decoder = Trie.of(codes), Decoder.of(model)
    with Operations() as seen:
        beam_search(decoder, trie, level_rows(), ids, mask, 10)
    waiting = {"_local_scalar_dense", "nonzero", "masked_select", "equal", "_unique2", "unique_dim", "item"}
    assert "topk" in seen.names and not seen.names & waiting


def test_what_cannot_be_searched_is_refused():
    codes, (ids, mask) = random_codes(0), prompts(0)
    decoder, trie = Decoder.of(tiny()), Trie.of(codes)
    for rows, beams, norm in (
        (level_rows()[:2], 5, "full"),
        (level_rows(), 0, "full"),
        (level_rows(), 5, "x"),
    ):
        with pytest.raises(ValueError, match="levels|at least one beam or draw|normalised_over"):
            beam_search(decoder, trie, rows, ids, mask, beams, norm)
    windowed = Decoder.of(tiny(kind="mistral", sliding_window=9))
    with pytest.raises(ValueError, match="take 10 tokens, but the model attends to 9"):
        beam_search(windowed, trie, level_rows(), ids, mask, 5)
    beam_search(windowed, trie, level_rows(), ids[:, 1:], mask[:, 1:], 5)
    capped = tiny(kind="gemma2", attention="eager", query_pre_attn_scalar=16, final_logit_softcapping=30.0)
    with pytest.raises(InputError, match="final_logit_softcapping of Gemma2ForCausalLM"):
        Decoder.of(capped)


def test_in_bf16_beams_are_valid_and_scores_are_near_those_of_fp32():
    model, codes, (ids, mask) = tiny(3), random_codes(2), prompts(2)
    trie, exact = search(model, codes, ids, mask, 60)
    half = search(copy.deepcopy(model).bfloat16(), codes, ids, mask, 60)[1]
    assert half.scores.dtype == torch.float32 and half.leaves.shape == (3, trie.num_leaves)
    by_leaf = [found.scores.gather(1, found.leaves.argsort(1)) for found in (exact, half)]
    torch.testing.assert_close(*by_leaf, atol=0.5, rtol=0)


@pytest.mark.parametrize("keep_seen", [False, True])
def test_from_histories_to_places_a_search_ranks_like_scoring_every_item(keep_seen):
    """Ids shared by items, seen items left out or in; prompts are the ids of the history, then one word."""
    rng, model, rows = np.random.default_rng(0), tiny(1), level_rows()
    codes, counts = random_codes(4, items=60, sizes=(3, 3, 3)), rng.integers(0, 5, 60)
    trie, tokens = Trie.of(codes, counts), np.stack([rows[n].numpy()[codes[:, n]] for n in range(3)], axis=1)
    histories, target = [rng.integers(0, 60, n) for n in rng.integers(1, 6, 12)], rng.integers(0, 60, 12)
    ends = np.cumsum([len(h) for h in histories])
    starts = np.concatenate([[0], ends[:-1]])
    users = HeldOut(np.arange(12), starts, ends, target, np.concatenate(histories))
    config = RankingFlags(topk=(3, 60), keep_seen=keep_seen, eval_batch_size=5)

    def read(history):
        return torch.tensor([*tokens[history].ravel(), 5])

    def search_items(histories, beams):
        texts = [read(h) for h in histories]
        ids = pad_sequence(texts, batch_first=True, padding_side="left")  # no prompt has a token 0
        return beam_search(Decoder.of(model), trie, rows, ids, (ids != 0).long(), beams, "level")[:2]

    by_popularity = np.argsort(np.lexsort((np.arange(60), -counts)))  # [60] places; ties by number

    def score(histories):
        every_id = (slow_beams(model, trie.ids(), rows, read(h), 60, "level") for h in histories)
        of_id = [{found: score for score, found in ids} for ids in every_id]
        return np.array([[known[tuple(c)] for c in codes.tolist()] for known in of_id]) - 1e-9 * by_popularity

    recommender = Generated(search_items, trie, beams=1)
    places = judge(recommender, users, config).places
    assert np.array_equal(places, judge(ByScores(score), users, config).places)
    left_out = [h[:0] if keep_seen else h for h in histories]
    again, counted, _ = recommender.find(histories, left_out, target, 60)
    assert np.array_equal(again, places) and (counted.size > 1).any()
