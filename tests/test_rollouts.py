"""Groups of answers: what is drawn, what it is worth, how it is laid out, what a source gives."""

import copy
import itertools
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import ROOT
from test_decoding import level_rows, prompts, random_codes, tiny
from test_sampling import slow_probabilities

from pixelrec_train.batch import PackedTexts
from pixelrec_train.config.rollouts import RewardFlags
from pixelrec_train.data.tokens.rollouts import PromptDataset, laid_out
from pixelrec_train.data.views.parts import Part
from pixelrec_train.errors import InputError
from pixelrec_train.model.reading import Decoder
from pixelrec_train.model.sampling import Noise, sample_distinct
from pixelrec_train.model.segments import Segments
from pixelrec_train.model.token_model import TokenModel
from pixelrec_train.rl.rewards import Groups, Rewards
from pixelrec_train.rl.rollouts import with_targets
from pixelrec_train.semantic_id.trie import Trie

FIXTURES = ROOT / "tests/fixtures/minionerec"


def in_order(probabilities, count):
    """{ids: probability} of drawing so many one after the other, each with its share of what is left."""
    found = {}
    for ids in itertools.permutations(probabilities, count):
        left, p = 1.0, 1.0
        for i in ids:
            p, left = p * probabilities[i] / left, left - probabilities[i]
        found[ids] = p
    return found


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_distinct_ids_are_drawn_as_one_after_the_other(temperature):
    model, codes, (ids, mask) = tiny(1), random_codes(3, items=5, shorter=True), prompts(3, users=1)
    trie, rows, draws = Trie.of(codes), level_rows(), 6000
    noise = Noise(0, range(draws), "cpu")
    many = ids.expand(draws, -1), mask.expand(draws, -1)
    found = sample_distinct(Decoder.of(model), trie, rows, *many, 2, "full", temperature, noise)
    every = [tuple(i) for i in trie.ids().tolist()]
    expected = slow_probabilities(model, set(every), rows, ids[0][mask[0].bool()], temperature)
    for pair, p in in_order(expected, 2).items():
        wanted = torch.tensor([every.index(i) for i in pair])
        seen = (found.leaves == wanted).all(1).float().mean().item()
        assert abs(seen - p) < 4.5 * np.sqrt(p * (1 - p) / draws) + 1e-9, pair
    assert (found.leaves[:, 0] != found.leaves[:, 1]).all()


def test_as_many_as_there_are_once_each_and_noise_is_a_prompts_own():
    model, (ids, mask) = tiny(2), prompts(5)
    trie, rows = Trie.of(random_codes(5, items=30)), level_rows()
    asked = Decoder.of(model), trie, rows
    found = sample_distinct(*asked, ids, mask, 99, noise=Noise(1, [5, 6, 7], "cpu"))
    assert found.leaves.shape == (3, trie.num_leaves)
    assert all(len(leaves.unique()) == trie.num_leaves for leaves in found.leaves)
    few = sample_distinct(*asked, ids, mask, 9, noise=Noise(1, [5, 6, 7], "cpu"))
    alone = sample_distinct(*asked, ids[2:], mask[2:], 9, noise=Noise(1, [7], "cpu"))
    assert torch.equal(few.leaves[2:], alone.leaves)
    other = sample_distinct(*asked, ids, mask, 9, noise=Noise(2, [5, 6, 7], "cpu"))
    assert not torch.equal(few.leaves, other.leaves)
    with pytest.raises(ValueError, match="temperature 0"):
        sample_distinct(*asked, ids, mask, 2, temperature=0)


def test_branches_are_read_as_if_each_stood_behind_the_prompt_alone():
    torch.manual_seed(0)
    model = copy.deepcopy(tiny(3))
    token = TokenModel(model, None, model.config.vocab_size, 7).double()
    rng = np.random.default_rng(0)
    asked = [torch.from_numpy(rng.integers(1, 40, n)) for n in (5, 1, 9)]
    codes = rng.integers(40, 58, (3, 4, 3))
    codes[0, 1, 2] = codes[1, 2, 1] = codes[1, 2, 2] = -1  # shorter ids
    batch, of = laid_out(asked, codes, 0)
    losses, _ = token.token_losses(batch)
    losses.square().sum().backward()
    gradients = {n: p.grad.clone() for n, p in token.named_parameters() if p.grad is not None}
    token.zero_grad()
    texts = [
        torch.cat([asked[b], torch.from_numpy(answer[answer >= 0])]) for b in range(3) for answer in codes[b]
    ]
    alone = token.read(PackedTexts(torch.cat(texts), torch.tensor([len(t) for t in texts])))
    wanted, place = [], 0
    for n, text in enumerate(texts):
        prompt = len(asked[n // 4])
        hidden, labels = alone[place + prompt - 1 : place + len(text) - 1], text[prompt:]
        wanted.append(token.losses_at(hidden, labels)[0])
        place += len(text)
    torch.testing.assert_close(losses, torch.cat(wanted))
    assert of.tolist() == [n for n, own in enumerate(wanted) for _ in own]
    torch.cat(wanted).square().sum().backward()
    for name, parameter in token.named_parameters():
        if name in gradients:
            torch.testing.assert_close(gradients[name], parameter.grad, atol=1e-4, rtol=1e-4)
    assert len(batch.texts.token_ids) < sum(map(len, texts)) / 2  # and with fewer tokens


def test_positions_and_masks_of_branches_by_hand():
    branch = torch.tensor([0, 0, 1, 1, 2, 0, 0, 0, 1, 2, 3, 3])
    plan = Segments.plan(torch.tensor([5, 7]), "cpu", branch)
    assert plan.position_ids.tolist() == [0, 1, 2, 3, 2, 0, 1, 2, 3, 3, 3, 4]
    first = plan.sees[0][0, 0].int().tolist()
    assert first == [[1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [1, 1, 1, 0, 0], [1, 1, 1, 1, 0], [1, 1, 0, 0, 1]]
    nothing, of = laid_out([], np.zeros((0, 2, 3), np.int64), 7)
    assert nothing.texts.token_ids.tolist() == [7] and not len(nothing.labels) and not len(of)


def test_log_probabilities_of_rollouts_are_those_of_the_training_forward():
    model, (ids, mask) = tiny(2), prompts(5)
    trie, rows = Trie.of(random_codes(5, items=30, shorter=True)), level_rows()
    found = sample_distinct(Decoder.of(model), trie, rows, ids, mask, 8, noise=Noise(1, [5, 6, 7], "cpu"))
    token = TokenModel(copy.deepcopy(model), None, model.config.vocab_size, 64).eval()
    codes = trie.ids()
    tokens = np.stack(
        [np.where(c < 0, c, np.asarray(row)[c]) for c, row in zip(codes.T, rows, strict=True)], 1
    )
    asked = [i[m.bool()] for i, m in zip(ids, mask, strict=True)]
    batch, _ = laid_out(asked, tokens[found.leaves.numpy()], 0)
    entropies = torch.zeros(len(batch.labels))
    with torch.no_grad():
        hidden = torch.nn.functional.embedding(batch.positions, token.read(batch.texts))
        losses, _ = token.losses_at(hidden, batch.labels, entropies)
        whole = token.logits(hidden).log_softmax(-1)
    drawn = found.log_probabilities.flatten(0, 1)[
        torch.from_numpy(tokens[found.leaves.numpy()] >= 0).flatten(0, 1)
    ]
    torch.testing.assert_close(-losses, drawn, atol=1e-5, rtol=0)
    torch.testing.assert_close(entropies, -(whole.exp() * whole).sum(-1), atol=1e-5, rtol=1e-5)


def sequences():
    """Three users of 4, 1 and 3 items; the first two of the third are no targets."""
    part = Part(
        "train", [("a", 0), ("b", 0), ("c", 0)], np.array([0, 4, 5]), np.array([4, 5, 8]),
        np.arange(10, 18), None, behind=np.array([1, 1, 2]),
    )  # fmt: skip
    return part, lambda stretch: torch.tensor(stretch.history)


@pytest.mark.parametrize("per_user", [None, 2, 1])
def test_every_target_of_training_is_a_prompt_once_with_its_own_history(per_user):
    part, say = sequences()
    dataset = PromptDataset(part, say, 2, per_user)
    found = [dataset.stretch(n) for n in range(len(dataset))]
    assert sorted(found) == sorted(part.nexts(2, per_user or 99))
    prompt = dataset[SimpleNamespace(sample=0, epoch=1, position=5)]
    assert prompt.token_ids.tolist() == found[0].history and prompt.target == found[0].targets[0]
    assert prompt.key == (1 << 40) + 5 and dataset[SimpleNamespace(sample=-1)] is None


def theirs():
    """Their groups in our terms: items by number, ids as leaves."""
    told = json.loads((FIXTURES / "expected_rewards.json").read_text())
    ids = sorted(set(told["item_sid"]))
    codes = np.array([[ids.index(sid)] for sid in told["item_sid"]], np.int32)
    trie = Trie.of(codes)
    leaf = {sid: int(trie.leaf_of[told["item_sid"].index(sid)]) for sid in ids}
    target = np.array([told["item_sid"].index(g["target_by_sample"].strip()) for g in told["groups"]])
    leaves = np.array([[leaf[c.strip()] for c in group["completions"]] for group in told["groups"]])
    return told, Groups([np.zeros(1, int)] * len(target), target, leaves, trie)


def test_rewards_are_those_of_minionerec():
    told, groups = theirs()
    table = np.array(told["item_embedding"])
    total, parts = Rewards({"rule": 1.0, "ndcg": 1.0, "semantic": 0.5}, embeddings=table)(groups)
    for name, key in (("rule", "rule_reward"), ("ndcg", "ndcg_rule_reward")):
        np.testing.assert_allclose(parts[name].ravel(), told["rewards"][key], atol=1e-6)
    expected = np.array(told["rewards"]["semantic_reward"]).reshape(-1, 4)
    named = told["item_sid"]  # of items that share an id they know the last, here it is the first
    alone = np.array([[named.count(named[i]) == 1 for i in row] for row in groups.items])
    alone &= np.array([named.count(named[i]) == 1 for i in groups.target])[:, None]
    assert alone.sum() > 8
    np.testing.assert_allclose(parts["semantic"][alone], expected[alone], atol=1e-6)
    ranked, _ = Rewards({"ranking": 1.0})(groups)
    np.testing.assert_allclose(ranked.ravel(), told["ranking = rule + ndcg"], atol=1e-6)
    np.testing.assert_allclose(total, parts["rule"] + parts["ndcg"] + 0.5 * parts["semantic"], atol=1e-6)


def test_the_other_rewards_are_their_formulas():
    _, groups = theirs()
    counts = np.arange(12)
    scores = np.random.default_rng(0).normal(size=(len(groups.target), 12))
    _, parts = Rewards({"popularity": 1.0, "collaborative": 1.0}, score=lambda h: scores, counts=counts)(
        groups
    )
    np.testing.assert_allclose(parts["popularity"], -np.log1p(counts[groups.items]) / np.log(12), atol=1e-6)
    for row, (found, items) in enumerate(zip(parts["collaborative"], groups.items, strict=True)):
        np.testing.assert_allclose(found, scores[row, items], atol=1e-6)
    assert not Rewards({"popularity": 1.0}, counts=np.zeros(12))(groups)[0].any()


def test_a_group_gets_its_target_where_it_lacks_it():
    leaves = np.array([[3, 1, 2], [5, 4, 0]])
    assert with_targets(leaves, np.array([1, 7])).tolist() == [[3, 1, 2], [5, 4, 7]]


@pytest.mark.parametrize(
    "flags, says",
    [
        ({"reward_funcs": ("hit",)}, "names some of rule, ndcg"),
        ({"reward_funcs": ()}, "names some of rule, ndcg"),
        ({"reward_funcs": ("rule", "rule")}, "name each only once"),
        ({"reward_funcs": ("ranking", "rule")}, "ranking is rule and ndcg together"),
        ({"reward_funcs": ("rule", "ndcg"), "reward_weights": (1.0,)}, "1 numbers for the 2 rewards"),
        ({"reward_funcs": ("semantic",)}, "where do the embeddings come from"),
        ({"reward_matrix": "a.npy"}, "row i is item i"),
        ({"reward_matrix": "a.npy", "reward_matrix_ids": "b"}, "where do the embeddings come from"),
        (
            {"reward_funcs": ("semantic",), "reward_matrix": "a.npy", "reward_matrix_ids": "b",
             "reward_two_tower": "c"},
            "where do the embeddings come from",
        ),
        ({"reward_funcs": ("collaborative",)}, "go together"),
        ({"reward_sasrec": "a"}, "go together"),
    ],
)  # fmt: skip
def test_rewards_that_contradict(flags, says):
    with pytest.raises(InputError, match=says):
        RewardFlags(**flags)


def test_rewards_by_minionerecs_names():
    assert RewardFlags(reward_funcs=("ranking_only",)).weights == {"ndcg": 1.0}
    both = RewardFlags(reward_funcs=("rule", "sasrec"), reward_weights=(1.0, 0.5), reward_sasrec="a")
    assert both.weights == {"rule": 1.0, "collaborative": 0.5}
