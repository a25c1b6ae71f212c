"""Quantisers, rules for collisions and the report card, beside slow and obvious twins."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment

from pixelrec_train.errors import InputError
from pixelrec_train.semantic_id import balanced, dedup
from pixelrec_train.semantic_id.codes import SemanticIds
from pixelrec_train.semantic_id.quantiser import Preprocessing, Quantiser, nearest_codes
from pixelrec_train.semantic_id.report_card import card_text, report_card
from pixelrec_train.semantic_id.rq_kmeans import rq_kmeans, rq_kmeans_balanced
from pixelrec_train.semantic_id.rq_vae_model import RQVAE, sinkhorn
from pixelrec_train.tasks.rq_vae import RQVAETask, VectorLoader


def silent(text):
    """Nobody listens."""


def clustered(n=600, width=12, clusters=8, seed=0):
    """[n, width] vectors around a few centres, some centres far more popular than others."""
    draw = np.random.default_rng(seed)
    share = 1 / np.arange(1, clusters + 1)
    which = draw.choice(clusters, n, p=share / share.sum())
    centres = draw.normal(size=(clusters, width))
    return (4 * centres[which] + draw.normal(size=(n, width))).astype(np.float32)


def plain(vectors, codebooks):
    return Quantiser(Preprocessing.fit(vectors, "none"), codebooks)


@pytest.mark.parametrize("quantise", [rq_kmeans, rq_kmeans_balanced])
def test_more_levels_leave_less_and_the_seed_decides(quantise):
    x = clustered()
    books, codes = quantise(x, 3, 16, 10, 1, silent)
    errors = plain(x, books).errors(x, codes)
    assert 1 > errors[0] > errors[1] > errors[2] > 0
    decoded = sum(book[codes[:, level]] for level, book in enumerate(books))
    assert errors[-1] == pytest.approx(((x - decoded) ** 2).sum() / ((x - x.mean(0)) ** 2).sum(), rel=1e-4)
    again, other = quantise(x, 3, 16, 10, 1, silent)[1], quantise(x, 3, 16, 10, 2, silent)[1]
    assert (again == codes).all()
    assert (other != codes).any()


def test_codes_are_the_greedy_nearest_ones():
    x = clustered()
    books, codes = rq_kmeans(x, 3, 16, 10, 1, silent)
    for row in range(0, len(x), 7):
        left = x[row].astype(np.float64)
        for level, book in enumerate(books):
            distances = [((left - center) ** 2).sum() for center in book]
            # A hair's breadth between two codes may go either way in fp32.
            assert distances[codes[row, level]] <= min(distances) * (1 + 1e-5)
            left = left - book[codes[row, level]]
    assert (plain(x, books).encode(x) == codes).all()


def test_a_code_is_the_mean_of_its_vectors_when_k_means_has_settled():
    x = clustered(seed=3)
    (book,), codes = rq_kmeans(x, 1, 8, 200, 1, silent)
    for code in range(8):
        assert np.allclose(book[code], x[codes[:, 0] == code].mean(0), atol=1e-3)


@pytest.mark.parametrize("n, k", [(240, 16), (241, 16), (255, 16), (16, 16), (300, 7)])
def test_balanced_parts_are_equal_within_one(n, k):
    x = clustered(n, seed=n)
    books, codes = rq_kmeans_balanced(x, 2, k, 10, 1, silent)
    for level in range(2):
        size = np.bincount(codes[:, level], minlength=k)
        assert set(size) <= {n // k, -(-n // k)}
    free = plain(x, (free := rq_kmeans(x, 2, k, 10, 1, silent))[0]).errors(x, free[1])
    assert plain(x, books).errors(x, codes)[0] <= 3 * free[0] + 1e-9


@pytest.mark.parametrize("seed", range(4))
def test_no_equal_parts_cost_less(seed):
    """Against scipy's assignment, with every centroid as often as it has places."""
    x = clustered(120, seed=seed)
    centroids = x[np.random.default_rng(seed).permutation(120)[:8]]
    assigned, prices = balanced.balanced_assignment(x, centroids)
    distance = ((x[:, None] - centroids[None]) ** 2).sum(-1)
    rows, places = linear_sum_assignment(np.repeat(distance, 15, axis=1))
    best = distance[rows, places // 15].sum()
    assert distance[np.arange(120), assigned].sum() == pytest.approx(best, rel=1e-5)
    # At its prices every vector would choose what it was given.
    priced = distance / 2 + prices
    assert np.allclose(priced[np.arange(120), assigned], priced.min(1), atol=1e-3)


def test_prices_of_a_sample_cost_nothing_and_direct_moves_little(monkeypatch):
    x = clustered(1000)
    centroids = x[:10]

    def cost(assigned):
        assert (np.bincount(assigned, minlength=10) == 100).all()
        return ((x - centroids[assigned]) ** 2).sum()

    exact = cost(balanced.balanced_assignment(x, centroids)[0])
    monkeypatch.setattr(balanced, "SAMPLE", 300)
    assert cost(balanced.balanced_assignment(x, centroids)[0]) == pytest.approx(exact, rel=1e-5)
    monkeypatch.setattr(balanced, "EXACT", 5)
    assert cost(balanced.balanced_assignment(x, centroids)[0]) <= 1.2 * exact


def test_identical_vectors_are_shared_out_too():
    assigned, _ = balanced.balanced_assignment(np.ones((30, 4), np.float32), np.ones((5, 4), np.float32))
    assert (np.bincount(assigned) == 6).all()


def test_fewer_items_than_codes_are_refused():
    with pytest.raises(InputError, match="--codebook_size 64 is more than the 10 items"):
        rq_kmeans(clustered(10), 1, 64, 5, 1, silent)


@pytest.mark.parametrize("kind", ["none", "l2", "zscore"])
def test_preprocessing_does_what_it_is_called(kind):
    x = 3 * clustered() + 5
    x[:, 2] = 7  # says nothing; must not become nan
    out = Preprocessing.fit(x, kind)(x)
    if kind == "none":
        assert (out == x).all()
    if kind == "l2":
        assert np.allclose(np.linalg.norm(out, axis=1), 1, atol=1e-5)
    if kind == "zscore":
        assert np.allclose(out.mean(0), 0, atol=1e-4)
        assert np.allclose(np.delete(out.std(0), 2), 1, atol=1e-3)
        assert (out[:, 2] == 0).all()


def test_codebooks_from_their_files_give_the_same_codes(tmp_path):
    x = clustered()
    before = Preprocessing.fit(x, "zscore")
    books, codes = rq_kmeans(before(x), 3, 16, 10, 1, silent)
    Quantiser(before, books).save(tmp_path, {})
    loaded = Quantiser.load(tmp_path)
    assert (loaded.encode(loaded.vectors(x)) == codes).all()
    (tmp_path / "codebooks.safetensors").write_bytes(b"\x08")
    with pytest.raises(InputError, match="cannot be read"):
        Quantiser.load(tmp_path)


# -- collisions


def test_suffix_numbers_the_items_of_a_group_by_popularity():
    codes = np.array([[1, 2], [1, 2], [0, 0], [1, 2]])
    order = dedup.by_popularity(np.array([1, 9, 5, 9]), 4)
    assert order.tolist() == [1, 3, 2, 0]
    with_suffix, size = dedup.add_suffix(codes, order)
    assert with_suffix.tolist() == [[1, 2, 2], [1, 2, 0], [0, 0, 0], [1, 2, 1]]
    assert size == 6
    later, size = dedup.add_suffix(np.array([[1, 2], [1, 2]]), [0, 1], with_suffix, size)
    assert later.tolist() == [[1, 2, 3], [1, 2, 4]]
    with pytest.raises(InputError, match="4 items share"):
        dedup.add_suffix(np.array([[1, 2]]), [0], with_suffix, 3)


def reassign_one_by_one(codes, order, x, books, taken):
    """What dedup.reassign computes, id by id."""
    codes, used = codes.copy(), set(map(tuple, taken.tolist()))
    keeps = []
    for row in order:
        keeps.append(tuple(codes[row]) not in used)
        used.add(tuple(codes[row]))
    for row in itertools.compress(order, np.logical_not(keeps)):
        left = x[row].astype(float) - sum(book[c] for book, c in zip(books[:-2], codes[row], strict=False))
        of_last = [(codes[row][-2], left - books[-2][codes[row][-2]])]
        of_last_two = [(c, left - books[-2][c]) for c in near(left, books[-2])]
        for pairs in of_last, of_last_two:
            free = []
            for code, rest in pairs:
                ids = [(*codes[row][:-2], code, c) for c in near(rest, books[-1])]
                free += [(((rest - books[-1][i[-1]]) ** 2).sum(), i) for i in ids if i not in used][:1]
            if free:
                codes[row] = min(free, key=lambda pair: pair[0])[1]
                used.add(tuple(codes[row]))
                break
    return codes


def near(vector, book):
    return np.argsort(((book - vector) ** 2).sum(1), kind="stable")[: dedup.CANDIDATES]


@pytest.mark.parametrize(
    ("items", "levels", "size", "candidates", "given"),
    [(120, 2, 8, 50, 0), (400, 3, 16, 3, 0), (300, 3, 8, 50, 100), (500, 2, 64, 5, 50)],
)
def test_reassign_moves_as_a_look_at_every_id_would(items, levels, size, candidates, given, monkeypatch):
    monkeypatch.setattr(dedup, "CANDIDATES", candidates)
    monkeypatch.setattr(dedup, "BLOCK", 7)
    x = clustered(20, width=4)[np.random.default_rng(0).integers(20, size=items)]
    x = (x + 1e-2 * clustered(items, width=4, seed=5)).astype(np.float32)
    books, codes = rq_kmeans(x, levels, size, 10, 1, silent)
    order = dedup.by_popularity(np.random.default_rng(1).integers(9, size=items), items)
    taken = np.unique(codes, axis=0)[:given]
    out, moved, fell_through = dedup.reassign(codes, order, x, books, taken)
    expected = reassign_one_by_one(codes, order, x, books, taken)
    assert (out == expected).all()
    assert moved == (out != codes).any(1).sum() > items / 10
    told_apart = {tuple(c) for c in out.tolist()} - {tuple(c) for c in taken.tolist()}
    assert len(told_apart) == items - fell_through
    assert (fell_through > 0) == (size == 8 and levels == 2 or candidates == 3), fell_through


def test_reassign_moves_within_the_only_level_there_is():
    x, books = np.zeros((5, 2), np.float32), [np.arange(8, dtype=np.float32).reshape(4, 2)]
    out, moved, fell_through = dedup.reassign(np.zeros((5, 1), np.int32), range(5), x, books)
    assert out[:, 0].tolist() == [0, 1, 2, 3, 0] and (moved, fell_through) == (3, 1)


def test_the_default_rule_depends_on_the_room_there_is():
    assert dedup.default_policy(1000, (20, 20, 20)) == "reassign"
    assert dedup.default_policy(1001, (20, 20, 20)) == "suffix"


# -- the card


def test_the_card_against_one_made_by_hand():
    codes = np.array([[0, 0], [0, 0], [0, 1], [1, 1], [2, 0], [2, 0], [2, 0]], np.int32)
    ids = SemanticIds([f"i{n}" for n in range(7)], codes, (4, 2))
    card = report_card(ids, np.array([10, 0, 5, 5, 20, 0, 0]), [0.5, 0.25])
    assert card["items"] == 7 and card["distinct_ids"] == 4
    assert card["collision_rate"] == pytest.approx(3 / 7)
    assert card["items_involved"] == pytest.approx(5 / 7)
    assert card["interactions_involved"] == pytest.approx(30 / 40)
    assert card["worst_group"] == 3
    first, second = card["levels"]
    assert (first["usage"], first["codebook_size"], first["largest_prefix"]) == (3, 4, 3)
    entropy = -sum(p * math.log(p) for p in (3 / 7, 1 / 7, 3 / 7))
    assert first["perplexity"] == pytest.approx(math.exp(entropy))
    assert (second["usage"], second["largest_prefix"]) == (2, 3)
    assert card["reconstruction_error"] == [0.5, 0.25]
    assert "collision rate 42.857%" in card_text(card)
    assert "| 1 | 3 / 4 |" in card_text(card)


# -- RQ-VAE


def started(x, book_size=8, levels=2, epsilon=0.0, network=None, seed=0):
    torch.manual_seed(seed)
    network = network or {"width": x.shape[1], "hidden": [32], "code_width": 6}
    untrained = RQVAE(network, [], [], 0.0)
    with torch.no_grad():
        encoded = untrained.encoder(torch.from_numpy(x)).numpy()
    books, codes = rq_kmeans(encoded, levels, book_size, 10, 1, silent)
    counts = [np.bincount(codes[:, level], minlength=book_size) for level in range(levels)]
    books, counts = [torch.from_numpy(b) for b in books], [torch.from_numpy(c).float() / 10 for c in counts]
    model = RQVAE(network, books, counts, epsilon)
    model.encoder.load_state_dict(untrained.encoder.state_dict())
    return model


@pytest.mark.parametrize("epsilon", [0.0, 0.05])
def test_an_rq_vae_learns_clusters_and_uses_its_codes(epsilon):
    x = Preprocessing.fit(clustered(), "zscore")(clustered())
    model = started(x, epsilon=epsilon)
    variance = float(((x - x.mean(0)) ** 2).sum(1).mean())
    task = RQVAETask(model, 0.25, variance)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=3e-3)
    before = task.eval().judge(x)
    loader = VectorLoader(x, 128, 50, seed=1)
    task.train()
    for epoch in range(6):
        for batch in loader.epoch(epoch):
            loss, metrics = task(batch)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    after = task.eval().judge(x)
    assert after["explained"] > 0.7 > before["explained"]
    assert float(metrics["codes_used"]) > 0.8
    own = Quantiser(
        Preprocessing.fit(x, "none"), [b.detach().numpy() for b in model.codebooks], model.encoder
    )
    with torch.no_grad():
        assert (own.encode(own.vectors(x)) == model(torch.from_numpy(x))[2].numpy()).mean() > 0.999


def test_a_dead_code_comes_back_to_life():
    x = clustered()
    model = started(x, levels=1)
    with torch.no_grad():
        model.codebooks[0][3] = 1e6  # where nobody is
        model.sums[0][3] = 1e6 * model.counts[0][3]
        model.train()
        for _ in range(200):
            codes = model(torch.from_numpy(x[:128]))[2]
    assert (codes == 3).any()
    assert model.codebooks[0].abs().max() < 1e3


def test_a_residual_encoder_starts_as_the_identity_and_its_codes_as_those_of_k_means(tmp_path):
    x = clustered()
    network = {"width": 12, "hidden": [16], "code_width": 12, "unit": 2.0}
    model = started(x, network=network).eval()
    with torch.no_grad():
        decoded, _, codes, encoded = model(torch.from_numpy(x))
    assert (encoded.numpy() == x).all()
    books = [b.detach().numpy() for b in model.codebooks]
    assert (codes.numpy() == plain(x, books).encode(x)).mean() > 0.999
    assert np.allclose(decoded, sum(b[codes[:, level]] for level, b in enumerate(books)), atol=1e-4)
    torch.nn.init.normal_(model.encoder.layers[-1].weight)
    Quantiser(Preprocessing.fit(x, "none"), books, model.encoder, network).save(tmp_path, {})
    with torch.no_grad():
        assert np.allclose(Quantiser.load(tmp_path).vectors(x), model.encoder(torch.from_numpy(x)), atol=1e-4)


def test_sinkhorn_evens_out_what_the_nearest_code_does_not():
    x = torch.from_numpy(clustered(400))
    distance = torch.cdist(x, x[:8]).pow(2)
    nearest, even = distance.argmin(1).bincount(minlength=8), sinkhorn(distance, 0.01).argmax(1).bincount()
    assert nearest.max() > 80
    assert even.max() < 65 and even.min() > 35


def test_every_rank_takes_its_share_of_the_same_order(monkeypatch):
    x = np.arange(20, dtype=np.float32)[:, None]
    whole = [b.vectors.flatten().tolist() for b in VectorLoader(x, 4, 7, seed=3).epoch(2)]
    parts = []
    monkeypatch.setattr("pixelrec_train.distributed.world_size", lambda: 2)
    for rank in range(2):
        monkeypatch.setattr("pixelrec_train.distributed.rank", lambda rank=rank: rank)
        parts.append([b.vectors.flatten().tolist() for b in VectorLoader(x, 2, 7, seed=3).epoch(2)])
    assert whole == [a + b for a, b in zip(*parts, strict=True)]
    assert sorted(v for batch in whole[:5] for v in batch) == list(range(20))


def test_nearest_code_of_a_tie_is_the_first():
    book = np.array([[1.0, 0], [1, 0], [-1, 0]], np.float32)
    assert nearest_codes(np.array([[1.0, 0], [0, 0], [-3, 0]], np.float32), book).tolist() == [0, 0, 2]
