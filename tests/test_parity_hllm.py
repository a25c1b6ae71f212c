"""Numbers of the original HLLM, reproduced through our public path. Skips where they are not at hand."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import SHARED
from safetensors.torch import load_file

from pixelrec_train.commands.inputs import read_inputs
from pixelrec_train.config import TrainConfig
from pixelrec_train.data.collate import TwoTowerCollator
from pixelrec_train.evaluation import metrics
from pixelrec_train.evaluation.index import build_index, recommend
from pixelrec_train.evaluation.retrieval import encode_catalogue, rank_held_out
from pixelrec_train.model.hllm_model import HLLMModel
from pixelrec_train.tasks.two_tower import TwoTowerTask

PARITY = SHARED / "parity"
pytestmark = pytest.mark.skipif(
    not PARITY.is_dir(), reason="the original's numbers are not beside the checkout"
)


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    return TrainConfig(
        interaction_data=str(PARITY / "dataset/tiny.csv"),
        text_data=str(PARITY / "information/tiny.csv"),
        text_keys=("title", "tag", "description"),
        item_model_dir=str(PARITY / "item_llm"),
        user_model_dir=str(PARITY / "user_llm"),
        max_seq_length=6,
        max_text_length=40,
        topk=(5, 10, 20, 50),
        cache_dir=str(tmp_path_factory.mktemp("cache")),
    )


@pytest.fixture(scope="module")
def inputs(config):
    return read_inputs(config)


@pytest.fixture
def model(config):
    model = HLLMModel.from_pretrained_towers(config)
    extra = load_file(PARITY / "hllm_extra.safetensors")
    with torch.no_grad():
        model.item_llm.item_token.copy_(extra["item_emb_tokens"].reshape(-1))
        model.logit_scale.copy_(extra["logit_scale"])
    return model


def test_ids_windows_splits_and_tokens_are_the_originals(inputs):
    expected = json.loads((PARITY / "data_expected.json").read_text())
    data, split = inputs.interactions, inputs.split
    assert data.item_ids == expected["id2item"][1:]  # theirs starts with a padding item
    assert data.user_ids == expected["id2user"][1:]
    ours = {tuple(data.items[start:end] + 1) for start, end in split.windows}
    assert ours == {tuple(chunk) for chunk in expected["train_chunks"] if len(chunk) > 1}
    for name, held_out in (("valid", split.valid), ("test", split.test)):
        for e, user in enumerate(held_out.users):
            theirs = expected[name][expected["user_order"].index(user + 1)]
            assert list(held_out.history(e) + 1) == theirs["history"]
            assert held_out.target[e] + 1 == theirs["target"]
    for item, tokens in enumerate(expected["item_tokens"][1:]):
        start, end = inputs.item_text.offsets[item : item + 2]
        assert inputs.item_text.tokens[start:end].tolist() == tokens


@pytest.mark.parametrize("case", ["", "_num_negatives7"])
def test_one_training_step_is_the_originals(config, inputs, model, case):
    batch_in = np.load(PARITY / f"train_batch{case}.npz")
    expected = np.load(PARITY / f"expected_train{case}.npz")
    windows = [row[-n:] - 1 for row, n in zip(batch_in["pos_item_ids"], (6, 4, 2, 1), strict=True)]
    collator = TwoTowerCollator(inputs.item_text, None, config.max_seq_length)
    batch = collator.collate(windows, batch_in["neg_item_ids"].ravel() - 1)

    task = TwoTowerTask(model, config)
    user, target, negatives, _ = model(batch)
    valid = batch.valid
    # theirs is padded on the left, ours on the right: valid positions come in the same order
    left = torch.from_numpy(batch_in["attention_mask"]).bool()
    close(user[valid], torch.from_numpy(expected["user_hidden"])[left], 2e-5)
    close(target[valid], torch.from_numpy(expected["pos_item_emb"])[:, 1:][left], 2e-5)
    close(negatives, expected["neg_item_emb"].reshape(len(negatives), -1), 2e-5)

    loss, figures = task(batch)
    close(loss, expected["loss"], 1e-5)
    for name in ("nce_samples", "nce_top1_acc", "nce_top5_acc"):
        close(figures[name], expected[f"metric_{name}"], 1e-5)

    loss.backward()
    item, user_llm = model.item_llm.backbone, model.user_llm.backbone
    gradients = {
        "grad_item_emb_tokens": model.item_llm.item_token.grad,
        "grad_logit_scale": model.logit_scale.grad,
        "grad_item_llm_layer0_q_proj": item.layers[0].self_attn.q_proj.weight.grad,
        "grad_user_llm_layer1_down_proj": user_llm.layers[1].mlp.down_proj.weight.grad,
    }
    for name, gradient in gradients.items():
        theirs = torch.from_numpy(expected[name]).reshape(gradient.shape)
        assert torch.allclose(gradient, theirs, atol=1e-4, rtol=1e-4), name


@pytest.mark.parametrize("split", ["valid", "test"])
@pytest.mark.parametrize("retrieval", ["faiss", "exact"])
def test_every_held_out_user_gets_the_originals_place(config, inputs, model, split, retrieval):
    expected = json.loads((PARITY / "data_expected.json").read_text())
    theirs = np.load(PARITY / f"expected_eval_{split}.npz")
    held_out = getattr(inputs.split, split)
    model.eval()
    catalogue = encode_catalogue(model.item_llm, inputs.item_text, 500)
    close(catalogue, theirs["item_embeddings"][1:], 2e-5)
    settings = replace(config, retrieval=retrieval)
    ranks, _ = rank_held_out(model, catalogue, held_out, settings, config.max_seq_length)

    # Two items have the same text, hence equal scores: the original leaves their order to torch.topk, ours is
    # by item number. So a place may lie anywhere among equals, and figures agree where there are none.
    row = [expected["user_order"].index(user + 1) for user in held_out.users]
    scores = theirs["scores_masked"][row]
    of_target = np.take_along_axis(scores, held_out.target[:, None] + 1, 1)
    best, worst = (scores > of_target).sum(1), (scores >= of_target).sum(1) - 1
    absent = ~np.isfinite(of_target[:, 0])  # the target is in the user's history: a miss for both
    k = max(config.topk)
    assert (ranks[absent] == k).all()
    inside = ~absent & (worst < k)
    assert (best[inside] <= ranks[inside]).all() and (ranks[inside] <= worst[inside]).all()
    tied = (best != worst) & ~absent
    if not tied.any():
        figures = metrics.figures(ranks, config.topk)
        for name, value in json.loads((PARITY / "expected_eval_metrics.json").read_text())[split].items():
            assert figures[name] == pytest.approx(value, abs=1e-6), name
    assert tied.sum() <= 2


@pytest.mark.parametrize("retrieval", ["faiss", "exact"])
def test_retrieval_figures_are_the_originals(retrieval):
    case = np.load(PARITY / "eval_retrieval.npz")
    expected = json.loads((PARITY / "expected_eval_retrieval.json").read_text())
    users = range(len(case["target"]))
    seen = [case["history_item"][case["history_user"] == user] - 1 for user in users]
    index = build_index(case["item_table"][1:], retrieval)
    lists = recommend(index, case["user_embedding"], seen, 200, 400)
    ranks = metrics.target_ranks(lists, case["target"] - 1)
    figures = metrics.figures(ranks, (10, 50, 200))
    for name, value in expected["fp32_scores"].items():
        assert figures[name] == pytest.approx(value, abs=1e-6), name


def close(ours, theirs, tolerance):
    ours = torch.as_tensor(ours).detach()
    assert torch.allclose(ours, torch.as_tensor(theirs).reshape(ours.shape), atol=tolerance, rtol=0)
