"""Draws under the trie against the probability of every id, one whole forward pass each."""

import numpy as np
import pytest
import torch
from test_decoding import level_rows, prompts, random_codes, search, slow_beams, tiny

from pixelrec_train.model.reading import Decoder
from pixelrec_train.model.sampling import Noise, likeliest, sample
from pixelrec_train.semantic_id.codes import ABSENT
from pixelrec_train.semantic_id.trie import Trie


def seeded(seed=0, prompts=3):
    return Noise(seed, range(prompts), "cpu")


@torch.no_grad()
def slow_probabilities(model, ids, rows, prompt, temperature=1.0, top_k=None, top_p=1.0, prefix=()):
    """{id: probability}: at every node the share of the probability of those codes that lead on."""
    if len(prefix) == len(rows):
        return {prefix: 1.0}
    level = len(prefix)
    read = torch.tensor([int(rows[n][c]) for n, c in enumerate(prefix) if c != ABSENT], dtype=torch.long)
    whole = model(torch.cat([prompt, read])[None]).logits[0, -1].softmax(-1).tolist()
    children = sorted({i[level] for i in ids if i[:level] == prefix})
    weights = {c: 1.0 if c == ABSENT else whole[int(rows[level][c])] ** (1 / temperature) for c in children}
    total, kept, held = sum(weights.values()), {}, 0.0
    for code in sorted(children, key=lambda c: -weights[c])[:top_k]:
        if held < top_p:
            kept[code] = weights[code]
        held += weights[code] / total
    found = {}
    for code, weight in kept.items():
        rest = slow_probabilities(model, ids, rows, prompt, temperature, top_k, top_p, (*prefix, code))
        found |= {i: weight / sum(kept.values()) * p for i, p in rest.items()}
    return found


@pytest.mark.parametrize("shorter", [False, True])
@pytest.mark.parametrize(
    "settings", [{}, {"temperature": 2.5}, {"top_k": 2}, {"top_p": 0.8, "temperature": 1.7}]
)
def test_ids_are_drawn_as_often_as_the_model_says(settings, shorter):
    model, codes, (ids, mask) = tiny(1), random_codes(3, items=25, shorter=shorter), prompts(3)
    trie, rows, draws = Trie.of(codes), level_rows(), 1500
    found = sample(Decoder.of(model), trie, rows, ids, mask, draws, noise=seeded(), **settings)
    every = [tuple(i) for i in trie.ids().tolist()]
    for user, leaves in enumerate(found.leaves):
        expected = slow_probabilities(model, set(every), rows, ids[user][mask[user].bool()], **settings)
        seen = np.bincount(leaves.numpy(), minlength=len(every)) / draws
        wanted = np.array([expected.get(i, 0.0) for i in every])
        assert wanted.sum() == pytest.approx(1) and not seen[wanted == 0].any()
        # And what is rarer than one in all draws may come three times.
        assert (np.abs(seen - wanted) < 4.5 * np.sqrt(wanted * (1 - wanted) / draws) + 3 / draws).all()
        assert ((wanted > 0) & (wanted < 1)).any()


@pytest.mark.parametrize("normalised_over", ["full", "level"])
def test_log_probabilities_are_the_models_own_whatever_is_drawn_from(normalised_over):
    """Those of a search that keeps every id, code by code, at temperature 1."""
    model, codes, (ids, mask) = tiny(2), random_codes(5, items=30, shorter=True), prompts(5)
    trie, rows = Trie.of(codes), level_rows()
    found = sample(Decoder.of(model), trie, rows, ids, mask, 40, normalised_over, 3.0, 4, 0.9, seeded())
    every = trie.ids()
    assert found.log_probabilities.shape == (3, 40, 3) and found.normalised_over == normalised_over
    for user in range(3):
        whole = slow_beams(model, every, rows, ids[user][mask[user].bool()], 100, normalised_over)
        of_id = {i: score for score, i in whole}
        drawn = [tuple(i) for i in every[found.leaves[user].numpy()].tolist()]
        sums = found.log_probabilities[user].sum(1).tolist()
        assert sums == pytest.approx([of_id[i] for i in drawn], abs=1e-5)
        absent = torch.from_numpy(np.array(drawn)) == ABSENT
        assert absent.any() and not found.log_probabilities[user][absent].any()
    assert (found.log_probabilities <= 0).all()


def test_as_the_temperature_falls_every_draw_is_the_search_with_one_beam():
    for seed in range(4):
        model, codes, (ids, mask) = tiny(seed), random_codes(seed, shorter=seed % 2 == 0), prompts(seed)
        trie, greedy = search(model, codes, ids, mask, beams=1)
        for settings in ({"temperature": 1e-4}, {"top_k": 1}, {"top_p": 1e-6}):
            found = sample(Decoder.of(model), trie, level_rows(), ids, mask, 5, **settings)
            assert torch.equal(found.leaves, greedy.leaves.expand(-1, 5))
            sums = found.log_probabilities.sum(-1)
            torch.testing.assert_close(sums, greedy.scores.expand(-1, 5), atol=1e-5, rtol=0)


def test_the_seed_decides_the_draws_and_draws_differ():
    model, (ids, mask) = tiny(), prompts(0)
    trie, rows = Trie.of(random_codes(0)), level_rows()
    first, again, other = (
        sample(Decoder.of(model), trie, rows, ids, mask, 30, noise=seeded(s)).leaves for s in (7, 7, 8)
    )
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert all(len(leaves.unique()) > 3 for leaves in first)


def test_what_is_likeliest_is_kept_and_always_something():
    scores = torch.tensor([[0.5, 0.2, 0.2, 0.1]]).log()
    for settings, kept in (
        ((None, 1.0), 4), ((2, 1.0), 2), ((9, 1.0), 4), ((None, 0.5), 1), ((None, 0.6), 2), ((1, 0.9), 1),
    ):  # fmt: skip
        found = likeliest(scores, *settings)
        assert found.isfinite().sum() == kept and torch.equal(found[:, :kept], scores[:, :kept]), settings


def test_settings_out_of_range_are_refused():
    arguments = Decoder.of(tiny()), Trie.of(random_codes(0)), level_rows(), *prompts(0)
    for draws, settings in ((0, {}), (1, {"temperature": 0}), (1, {"top_k": 0}), (1, {"top_p": 1.1})):
        with pytest.raises(ValueError, match="at least one beam or draw|no draws with"):
            sample(*arguments, draws, **settings)
