"""Offsets, item features and the softmax over all items: each against its slow, obvious twin."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import inputs_of

from pixelrec_train.data.candidates import Beside
from pixelrec_train.data.interactions import Taken
from pixelrec_train.data.loader import Slot
from pixelrec_train.data.negatives import EveryItem
from pixelrec_train.data.windows import HistoryDataset, TwoTowerCollator
from pixelrec_train.errors import InputError
from pixelrec_train.evaluation.places import judge
from pixelrec_train.evaluation.retrieval import TwoTower, encode_catalogue
from pixelrec_train.evaluation.validation_loss import SoftmaxLoss
from pixelrec_train.model.hllm_model import HLLMModel
from pixelrec_train.tasks.two_tower import TwoTowerTask
from pixelrec_train.trainings.known_items import known_items
from pixelrec_train.untrained.ease import Ease
from pixelrec_train.untrained.item_knn import ItemKnn

KNOWN = {
    "offsets": ("ease", "tfidf"), "item_features": ("tfidf", "cooccurrence"), "offset_width": 64,
    "feature_width": 16, "full_softmax": True, "item_id_embedding": True,
}  # fmt: skip


@pytest.fixture(scope="module")
def config(demo_config):
    return replace(demo_config, **KNOWN)


@pytest.fixture(scope="module")
def inputs(config):
    return inputs_of(config)


@pytest.fixture(scope="module")
def known(inputs, config):
    return known_items(inputs, config)


@pytest.fixture
def model(config, inputs, known):
    torch.manual_seed(0)
    model = HLLMModel.starting(config, inputs.interactions.item_ids, inputs.split.train_counts, known)
    with torch.no_grad():
        model.offsets.weight.copy_(torch.tensor([0.3, 0.5]))
        model.item_id.weight.normal_(std=0.1)
    return model.eval()


def batch_of(config, inputs, known, keep_seen=False, windows=6):
    split = inputs.split
    beside = Beside(split, known.scorers, keep_seen)
    collator = TwoTowerCollator(
        inputs.item_text, EveryItem(split.train_counts), config.max_seq_length, beside=beside
    )
    numbers = [*range(windows), -1]
    dataset = HistoryDataset(split)
    return collator([dataset[Slot(0, place, number)] for place, number in enumerate(numbers)])


@pytest.mark.parametrize("kind", [ItemKnn, lambda *taken: Ease(*taken, penalty=2.0, decay=0.8)])
def test_scores_without_a_user_are_those_of_the_others(kind):
    rng = np.random.default_rng(0)
    rows = [rng.integers(0, 12, rng.integers(2, 9)) for _ in range(25)]  # many items twice

    def taken(users):
        ends = np.cumsum([len(rows[user]) for user in users])
        items = np.concatenate([rows[user] for user in users])
        return Taken(np.array(users), np.concatenate([[0], ends[:-1]]), ends, items)

    everybody = kind(taken(range(25)), 12)
    histories = [row[: len(row) // 2 + 1] for row in rows]
    found = everybody.without(histories, np.arange(25))
    for user in range(25):
        others = kind(taken([u for u in range(25) if u != user]), 12).sums()
        assert np.allclose(found[user], others([histories[user]])[0], atol=1e-6)


@pytest.mark.parametrize("kind", [ItemKnn, lambda *taken: Ease(*taken, penalty=30.0, decay=0.8)])
def test_what_an_item_adds_to_itself_is_no_matter_for_new_items(inputs, kind):
    knn = kind(inputs.split.taken, inputs.interactions.num_items)
    histories = [inputs.split.test.history(e) for e in range(10)]
    found, expected = knn.of_its_own()(histories), knn.sums()(histories)
    exact = knn.sums().truncated(inputs.interactions.num_items)(histories)
    for row, history in enumerate(histories):
        assert np.allclose(np.delete(found[row], history), np.delete(expected[row], history), atol=1e-6)
    assert np.allclose(exact, expected, atol=1e-6)


@pytest.mark.parametrize("keep_seen", [False, True])
def test_candidates_are_those_of_a_loop(config, inputs, known, keep_seen):
    batch = batch_of(config, inputs, known, keep_seen)
    split, pool = inputs.split, np.flatnonzero(inputs.split.train_counts)
    found, row = batch.candidates, 0
    for window in range(6):
        start, end = split.windows[window]
        (stretch,) = np.flatnonzero((split.taken.start <= start) & (end <= split.taken.end))
        first, user = split.taken.start[stretch], split.taken.users[stretch]
        for place in range(end - start - 1):
            target = split.taken.items[start + place + 1]
            history = split.taken.items[first : start + place + 1]
            assert found.places[row] == window * (config.max_seq_length - 1) + place
            left_out = {target} if keep_seen else {target, *history}
            assert set(pool[found.left_out[row].numpy()]) == left_out & set(pool)
            for k, scorer in enumerate(known.scorers):
                scores = scorer([history], np.array([user]))[0]
                best = max(s for item, s in enumerate(scores) if keep_seen or item not in history)
                expected = scores / max(best, 1e-9)
                assert np.allclose(found.offsets[k, row], expected[pool], atol=1e-5)
                assert found.of_target[k, row] == pytest.approx(expected[target], abs=1e-5)
            row += 1
    assert row == len(found.places)


def test_the_loss_is_the_cross_entropy_over_all_items(config, inputs, known, model):
    batch, task = batch_of(config, inputs, known), TwoTowerTask(model, config, config.item_dir)
    loss, _ = task(batch)
    with torch.no_grad():
        numbers = torch.arange(inputs.interactions.num_items)
        table = F.normalize(model.encode_items(inputs.item_text.items(numbers.numpy())), dim=-1)
        own = batch.items.numbers
        users = F.normalize(model.user_llm(model.encode_items(batch.items)[batch.history]), dim=-1)
        losses, row = [], 0
        for b, s in batch.valid.nonzero().tolist():
            target = int(own[batch.target[b, s]])
            scores = torch.full((len(table),), -torch.inf)
            pool = torch.from_numpy(np.flatnonzero(inputs.split.train_counts))
            cosines = table @ users[b, s] * model.logit_scale.exp()
            added = sum(w * 10 * x[row] for w, x in zip((0.3, 0.5), batch.candidates.offsets, strict=True))
            scores[pool] = (cosines[pool] + added).masked_fill(batch.candidates.left_out[row], -torch.inf)
            right = sum(w * 10 * x[row] for w, x in zip((0.3, 0.5), batch.candidates.of_target, strict=True))
            scores[target] = cosines[target] + right
            losses.append(-scores.log_softmax(0)[target])
            row += 1
    assert loss.item() == pytest.approx(torch.stack(losses).mean().item(), rel=1e-5)


def test_one_vector_of_the_user_and_one_of_an_item_give_the_sum_of_all_scores(config, inputs, known, model):
    catalogue = encode_catalogue(model.encode_items, inputs.item_text, 4096)
    ranks = TwoTower.of(model, catalogue, config.max_seq_length, config.retrieval)
    histories = [inputs.split.test.history(e) for e in range(5)]
    found = ranks.encode(histories).numpy() @ ranks.items.T
    towers = TwoTower.of(HLLMModel(None, model.user_llm.backbone), catalogue, config.max_seq_length, "exact")
    cosines = F.normalize(towers.encode(histories), dim=-1).numpy() @ towers.items.T
    expected = cosines * model.logit_scale.exp().item()
    for weight, sums in zip((3.0, 5.0), known.sums.values(), strict=True):
        for row, history in enumerate(histories):
            scores = sums([history])[0]
            expected[row] += weight * scores / np.delete(scores, history).max()
    assert np.allclose(found, expected, atol=1e-4)


def test_a_checkpoint_ranks_as_the_model_did_in_any_order_of_items(config, inputs, known, model, tmp_path):
    def lists(model, item_text):
        catalogue = encode_catalogue(model.encode_items, item_text, 4096)
        ranks = TwoTower.of(model, catalogue, config.max_seq_length, "exact")
        return judge(ranks, inputs.split.test, config).places

    model.export(tmp_path, model.state_dict(), config.item_dir)
    ids = inputs.interactions.item_ids
    loaded = HLLMModel.load(tmp_path, config.max_text_length, ids)
    assert np.array_equal(lists(loaded, inputs.item_text), lists(model, inputs.item_text))
    turned = HLLMModel.load(tmp_path, config.max_text_length, ids[::-1])
    assert torch.equal(turned.item_features.features, model.item_features.features.flip(0))
    for name, sums in turned.offsets.sums.items():
        assert np.array_equal(sums.left[::-1], model.offsets.sums[name].left)
        assert np.array_equal(sums.right[::-1], model.offsets.sums[name].right)
    (tmp_path / "offsets.json").write_text('{"keep_seen": false, "sums": {"ease": 7}}')
    with pytest.raises(InputError, match="offsets.json does not fit its offsets.safetensors"):
        HLLMModel.load(tmp_path, config.max_text_length, ids)


def test_every_new_weight_learns_and_the_validation_loss_is_the_training_loss(config, inputs, known, model):
    task = TwoTowerTask(model, config, config.item_dir)
    task(batch_of(config, inputs, known))[0].backward()
    learned = {**dict(model.item_features.named_parameters()), "offsets": model.offsets.weight}
    assert all(p.grad is not None and p.grad.any() for p in learned.values())
    users, items, target = torch.randn(3, 4), torch.randn(9, 4), np.array([2, 0, 5])
    counts = np.array([1, 1, 1, 0, 1, 1, 1, 1, 0])
    left_out, total = [[1, 2], [4], []], 0.0
    for row, item in enumerate(target):
        candidates = [i for i in range(9) if i == item or counts[i] and i not in left_out[row]]
        scores = 1.5 * items[candidates] @ users[row]
        total += F.cross_entropy(scores, torch.tensor(candidates.index(item))).item()
    loss = SoftmaxLoss(items.numpy(), counts, 1.5)(users, target, left_out)
    assert loss.item() == pytest.approx(total, rel=1e-5)


def test_whether_an_item_was_taken_before_has_a_factor_of_its_own(config, inputs, tmp_path):
    config = replace(config, keep_seen=True, offsets=("ease", "last", "tfidf", "seen"), offset_width=2000)
    known, ids = known_items(inputs, config), inputs.interactions.item_ids
    model = HLLMModel.starting(config, ids, inputs.split.train_counts, known).eval()
    assert model.offsets.weight.tolist() == pytest.approx([0.6, 0, 0.6, 0])
    with torch.no_grad():
        model.offsets.weight.copy_(torch.tensor([0.3, -0.2, 0.5, -0.7]))
    catalogue = encode_catalogue(model.encode_items, inputs.item_text, 4096)
    towers = TwoTower.of(HLLMModel(None, model.user_llm.backbone), catalogue, config.max_seq_length, "exact")
    histories = [np.append(inputs.split.test.history(e), 3) for e in range(6)]
    expected = F.normalize(towers.encode(histories), dim=-1).numpy() @ towers.items.T
    expected *= model.logit_scale.exp().item()
    for row, history in enumerate(histories):
        for weight, name in ((3, "ease"), (5, "tfidf")):
            scores = known.sums[name]([history])[0]
            expected[row] += weight * scores / scores.max()
        expected[row, 3] -= 2
        items, times = np.unique(history, return_counts=True)
        expected[row, items] -= 7 * times / times.max()
    ranks = TwoTower.of(model, catalogue, config.max_seq_length, "exact")
    assert np.allclose(ranks.encode(histories).numpy() @ ranks.items.T, expected, atol=1e-4)
    model.export(tmp_path, model.state_dict(), config.item_dir)
    turned = HLLMModel.load(tmp_path, config.max_text_length, ids[::-1])
    back = [len(ids) - 1 - history for history in histories]
    weight, catalogue = model.offsets.weight.detach(), model.offsets.catalogue
    found = turned.offsets.users(back, weight).numpy() @ turned.offsets.catalogue.T
    expected = model.offsets.users(histories, weight).numpy() @ catalogue.T
    assert np.allclose(found[:, ::-1], expected, atol=1e-5)
    with pytest.raises(InputError, match="a column for each of the .* items, and --offset_width is 64"):
        known_items(inputs, replace(config, offset_width=64))
    with pytest.raises(InputError, match="--offsets last,seen says which items were taken before"):
        known_items(inputs, replace(config, keep_seen=False))
