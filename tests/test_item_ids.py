"""Item ids, frozen texts, and weights taken over from a checkpoint."""

import json

import numpy as np
import pytest
import torch
from conftest import inputs_of

from pixelrec_train.data.item_text import ItemText
from pixelrec_train.data.windows import TwoTowerCollator
from pixelrec_train.errors import InputError
from pixelrec_train.evaluation.retrieval import encode_catalogue
from pixelrec_train.model.hllm_model import HLLMModel
from pixelrec_train.model.item_id_embedding import ItemIdEmbedding
from pixelrec_train.tasks.two_tower import TwoTowerTask
from pixelrec_train.trainings import plan


@pytest.fixture(scope="module")
def inputs(demo_config):
    return inputs_of(demo_config)


def start(config, inputs):
    torch.manual_seed(0)
    return HLLMModel.starting(config, inputs.interactions.item_ids, inputs.split.train_counts)


def batch_of(inputs, texts=None, seed=0):
    windows = [np.asarray(inputs.interactions.items[a:b]) for a, b in inputs.split.windows[:8]]
    warm = np.flatnonzero(inputs.split.train_counts)
    negatives = np.random.default_rng(seed).choice(np.setdiff1d(warm, np.concatenate(windows)), 48)
    return TwoTowerCollator(texts or inputs.item_text, None, 6).collate(windows, negatives)


@pytest.mark.parametrize("changes", [{"item_id_embedding": True}, {"id_only": True}])
def test_cold_items_have_no_vector_before_and_after_training(inputs, config_with, changes):
    config = config_with(**changes)
    model = start(config, inputs)
    before = model.item_id.weight.detach().clone()
    task = TwoTowerTask(model, config, config.item_dir)
    optimizer = torch.optim.AdamW(task.parameters(), lr=1e-2, weight_decay=0.1)
    for seed in range(5):
        optimizer.zero_grad()
        task(batch_of(inputs, seed=seed))[0].backward()
        optimizer.step()
    cold = torch.from_numpy(inputs.split.train_counts == 0)
    assert cold.any() and not model.item_id.weight[cold].any()
    assert not torch.equal(model.item_id.weight, before)


def test_added_ids_start_from_the_texts_alone_and_then_add_their_row(inputs, config_with, demo_config):
    with_ids, without = start(config_with(item_id_embedding=True), inputs), start(demo_config, inputs)
    items = inputs.item_text.items([3, 1, 4])
    with torch.no_grad():
        assert torch.equal(with_ids.encode_items(items), without.encode_items(items))
        with_ids.item_id.weight[1] += 2
        difference = with_ids.encode_items(items) - without.encode_items(items)
    assert difference[[0, 2]].abs().max() == 0 and torch.allclose(difference[1], torch.tensor(2.0))


def test_ids_alone_need_neither_texts_nor_an_item_llm(config_with):
    config = config_with(id_only=True, text_data=None, item_model_dir=None)
    inputs = inputs_of(config)
    model = start(config, inputs)
    assert model.item_llm is None
    table = encode_catalogue(model.encode_items, inputs.item_text, 100)
    assert np.array_equal(table, model.item_id.weight.detach().numpy())
    loss, _ = TwoTowerTask(model, config, config.item_dir)(batch_of(inputs))
    loss.backward()
    assert torch.isfinite(loss) and model.item_id.weight.grad.abs().sum() > 0


def test_a_frozen_item_llm_gives_the_loss_and_gradients_of_one_that_reads_every_time(inputs, config_with):
    """The slow twin: the same weights, texts read in every step, gradients of the item LLM thrown away."""
    config = config_with(item_emb_token_n=0, freeze_item_llm=True, item_id_embedding=True)
    texts = inputs_of(config)
    fast, slow = start(config, texts), start(config, texts)
    with torch.no_grad():
        for model in (fast, slow):  # as after an earlier stage
            model.item_id.weight += torch.arange(len(model.item_id.weight))[:, None] / 1000
    fast.store_texts(torch.from_numpy(encode_catalogue(fast.encode_texts, texts.item_text, 300)))
    unread = ItemText.unread(texts.interactions.num_items)
    losses = []
    for model, item_text in ((fast, unread), (slow, texts.item_text)):
        loss, _ = TwoTowerTask(model, config, config.item_dir)(batch_of(texts, item_text))
        loss.backward()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    theirs = dict(slow.named_parameters())
    for name, parameter in fast.named_parameters():
        if name.startswith("item_llm"):
            assert not parameter.requires_grad
        elif parameter.requires_grad:
            assert torch.allclose(parameter.grad, theirs[name].grad, atol=1e-5), name


def exported(model, config, directory):
    directory.mkdir()
    model.export(directory, model.state_dict(), config.item_dir)
    (directory / "run.json").write_text(json.dumps({}))
    return str(directory)


def test_init_from_takes_over_every_weight(inputs, config_with, tmp_path):
    config = config_with(item_id_embedding=True)
    model = start(config, inputs)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    model.item_id.settle(inputs.split.train_counts, alone=False)
    checkpoint = exported(model, config, tmp_path / "first")
    again = start(
        config_with(item_id_embedding=True, init_from=checkpoint, item_model_dir=None, user_model_dir=None),
        inputs,
    )
    theirs = dict(again.named_parameters())
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, theirs[name]), name


def test_vectors_follow_their_item_into_another_numbering(tmp_path):
    weight = torch.arange(6.0).reshape(3, 2)
    ItemIdEmbedding(weight, ["a", "b", "c"]).export(tmp_path, weight)
    loaded = ItemIdEmbedding.load(tmp_path, ["c", "new", "a"], torch.float32)
    assert loaded.weight.tolist() == [[4, 5], [0, 0], [0, 1]]
    with pytest.raises(InputError, match="none of the 2 items is among the 3"):
        ItemIdEmbedding.load(tmp_path, ["none", "known"], torch.float32)


def test_loaded_vectors_are_dropped_for_cold_items_and_made_for_new_ones():
    weight = torch.tensor([[1.0, 1.0], [0.0, 0.0], [2.0, 2.0]])  # the second is new here, the third cold
    settled = ItemIdEmbedding(weight, ["a", "b", "c"]).settle(np.array([3, 4, 0]), alone=True).weight
    assert settled[0].tolist() == [1, 1] and settled[1].any() and not settled[2].any()
    assert not ItemIdEmbedding(weight * 0, ["a", "b", "c"]).settle(np.ones(3), alone=False).weight.any()


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"item_id_embedding": False}, "has item id embeddings; add --item_id_embedding"),
        ({"item_id_embedding": True, "item_emb_token_n": 0}, "1 .ITEM. tokens, but --item_emb_token_n is 0"),
        ({"id_only": True}, "an item LLM, but --id_only is True"),
    ],
)
def test_a_checkpoint_with_other_parts_than_the_flags_is_refused(
    inputs, config_with, tmp_path, changes, words
):
    config = config_with(item_id_embedding=True)
    checkpoint = exported(start(config, inputs), config, tmp_path / "first")
    with pytest.raises(InputError, match=words):
        start(config_with(init_from=checkpoint, item_model_dir=None, user_model_dir=None, **changes), inputs)


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"user_model_dir": None}, "--user_model_dir is needed"),
        ({"item_model_dir": None}, "--item_model_dir is needed"),
        ({"text_data": None}, "--text_data is needed"),
        ({"init_from": "x"}, "--init_from brings both towers"),
        ({"random_init": ("items",)}, "--random_init takes item, user"),
        ({"freeze_item_llm": True}, "would keep a new .ITEM. token random"),
        ({"freeze_item_llm": True, "id_only": True}, "no item LLM"),
        ({"id_only": True, "random_init": ("item",)}, "--id_only has no item LLM for --random_init"),
        ({"freeze_item_llm": True, "item_emb_token_n": 0, "random_init": ("item",)}, "item LLM random"),
        ({"history_dropout": 1.0}, "--history_dropout"),
        ({"eval_seq_length": 1}, "--eval_seq_length"),
    ],
)
def test_contradicting_flags_are_refused_in_words(config_with, changes, words):
    with pytest.raises(InputError, match=words):
        config_with(**changes)


def test_a_random_tower_has_the_architecture_and_not_the_weights(inputs, config_with, demo_config):
    pretrained = start(demo_config, inputs)
    torch.manual_seed(5)
    random = HLLMModel.starting(config_with(random_init=("item",)))
    ours, theirs = dict(pretrained.named_parameters()), dict(random.named_parameters())
    assert ours.keys() == theirs.keys()
    name = "item_llm.backbone.layers.0.mlp.up_proj.weight"
    assert ours[name].shape == theirs[name].shape and not torch.equal(ours[name], theirs[name])
    name = name.replace("item_llm", "user_llm")
    assert torch.equal(ours[name], theirs[name])


def test_history_dropout_acts_in_training_alone(inputs, config_with):
    config = config_with(history_dropout=0.5)
    task, batch = TwoTowerTask(start(config, inputs), config, config.item_dir), batch_of(inputs)
    with torch.no_grad():
        assert task.train()(batch)[0] != task(batch)[0]
        assert task.eval()(batch)[0] == task(batch)[0]


def test_a_table_that_no_rank_has_room_for_is_refused_with_its_size(inputs, config_with):
    config = config_with(item_id_embedding=True)
    model, resolved = start(config, inputs), {"zero_optimization": {"stage": 2}}
    needed = plan.bytes_per_rank(config, inputs, model, 2, 1)
    for there in (None, needed, plan.room()):
        plan.check_room(config, inputs, model, resolved, there)
    rows, width = model.item_id.weight.shape
    says = f"which has {plan.size(needed - 1)}; among them {rows:,} vectors of item ids, {width} wide"
    with pytest.raises(InputError, match=says):
        plan.check_room(config, inputs, model, resolved, needed - 1)
    resolved["zero_optimization"]["offload_optimizer"] = {"device": "cpu"}  # it lies elsewhere then
    plan.check_room(config, inputs, model, resolved, needed - 1)
