"""Steps, evaluation and decoding on a GPU that computes nothing: nothing lies on the wrong device, and the
host waits for the device at the places listed here alone (docs/speed.md, "Where the host waits")."""

import copy
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from pretend_gpu import DEVICE, backward, pretend_gpu
from test_decoding import VOCABULARY, WORDS, level_rows, prompts, random_codes, tiny
from transformers import AutoModel, AutoModelForCausalLM, BertConfig, Qwen3Config

from pixelrec_train.batch import PackedTexts, TokenBatch
from pixelrec_train.data.item_text import ItemText
from pixelrec_train.data.loader import Slot
from pixelrec_train.data.windows import TwoTowerCollator
from pixelrec_train.evaluation.exact import ExactIndex, scores_of_pairs
from pixelrec_train.evaluation.retrieval import encode_catalogue, encode_histories
from pixelrec_train.evaluation.validation_loss import token_loss
from pixelrec_train.evaluation.vectors import Vectors
from pixelrec_train.model.decoding import beam_search
from pixelrec_train.model.hllm_model import HLLMModel
from pixelrec_train.model.text_encoder import TextEncoder
from pixelrec_train.model.token_model import TokenModel
from pixelrec_train.semantic_id.trie import Trie
from pixelrec_train.tasks.tokens import TokenTask
from pixelrec_train.tasks.two_tower import TwoTowerTask

ITEMS, WINDOW = 12, 5
READ, COPIED, PAGEABLE = "a value is read", "a copy to the CPU", "a copy from pageable memory"
COUNTED = "places are counted"

# {what runs: {(where, what): why it may wait}}; an epoch's evaluation may, a step may not.
WAITS = {
    "two-tower step": {},
    "two-tower step, texts in chunks": {},
    "two-tower step, sentence encoder": {
        ("model/text_encoder.py: run_padded", READ): "transformers looks whether a batch has padding at all",
    },
    "two-tower step, fp32": {},
    "token step": {},
    "token step, branches": {},
    "catalogue": {
        (
            "evaluation/retrieval.py: encode_catalogue",
            COPIED,
        ): "embeddings are kept on the CPU",
        ("evaluation/retrieval.py: encode_catalogue", PAGEABLE): "the block's tokens go to the device",
    },
    "histories": {},
    "ranking": {
        (f"evaluation/exact.py: {function}", what): why
        for what, functions, why in (
            (
                PAGEABLE,
                "on_device <genexpr> search",
                "users and their targets go to the device, a block at a time",
            ),
            (COUNTED, "ahead reach judged among_nearest merge search", "which pairs need a closer look"),
            (READ, "__init__ first_level among_nearest search", "how many there are"),
            (COPIED, "<genexpr> ahead search scores_of_pairs", "what was found is read on the CPU"),
        )
        for function in functions.split()
    }
    | {("evaluation/vectors.py: __init__", PAGEABLE): "vectors of the targets go to the device"},
    "validation loss": {
        ("evaluation/validation_loss.py: token_loss", PAGEABLE): "the batch goes to the device",
        ("evaluation/validation_loss.py: token_loss", READ): "the figure is wanted",
    },
    "decoding": {},
}


def qwen3():
    return Qwen3Config(
        vocab_size=50, hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, head_dim=16,
    )  # fmt: skip


def item_text():
    lengths = np.arange(ITEMS) % 4 + 2
    ends = lengths.cumsum()
    tokens = np.random.default_rng(0).integers(1, 50, ends[-1]).astype(np.int32)
    return ItemText(tokens, np.concatenate([[0], ends]), 0, 0, "drawn")


def towers(config=None, dtype=torch.bfloat16):
    """TwoTowerTask; config: of an item tower without [ITEM]."""
    torch.manual_seed(0)
    user = AutoModel.from_config(qwen3(), dtype=dtype)
    item = AutoModel.from_config(config or qwen3(), dtype=dtype)
    model = HLLMModel(TextEncoder(item, 0 if config else 1, 8), user)
    return TwoTowerTask(model, SimpleNamespace(nce_thres=0.99, nce_chunk=4, loss_weighting="position"), None)


def two_tower_batch(chunk_tokens=None):
    rng = np.random.default_rng(1)
    windows = [rng.permutation(ITEMS)[:size] for size in (5, 3)]
    sampler = SimpleNamespace(pool=lambda samples: rng.integers(0, ITEMS, 8))
    collator = TwoTowerCollator(item_text(), sampler, WINDOW, (0, chunk_tokens))
    return collator([(Slot(0, n, n), window, None) for n, window in enumerate(windows)])


def token_task():
    model = AutoModelForCausalLM.from_config(qwen3(), dtype=torch.bfloat16)
    return TokenTask(TokenModel(model, None, 50, 4, 40), None, sources=("a", "b"), itemic_ids=(40, 49))


def token_batch(branch=None):
    return TokenBatch(
        PackedTexts(torch.arange(12), torch.tensor([7, 5]), branch), torch.arange(0, 12, 2),
        torch.arange(38, 44), {"tokens": 12}, torch.rand(6), torch.tensor([0, 1, 0, 1, 1, 0]),
        {"fill": (12, 20)},
    )  # fmt: skip


def step(gpu, task, batch):
    """Forward and backward pass of a batch as the loader gives it; parameters that train get gradients."""
    gpu.move(task).train()
    assert task.weight(batch) != 0 and task.flops(batch) != 0  # asked of the batch as it comes
    loss, metrics = task(batch.pin_memory().to(DEVICE))
    backward(loss)
    assert loss.device == DEVICE and metrics
    trained = [parameter for parameter in task.parameters() if parameter.requires_grad]
    assert all(p.grad.device == DEVICE and p.grad.shape == p.shape for p in trained if p.grad is not None)
    assert sum(p.grad is not None for p in trained) > 0.9 * len(trained)


def in_chunks(gpu):
    task = towers()
    task.model.enable_checkpointing()
    batch = two_tower_batch(chunk_tokens=30)
    assert batch.chunks > 1
    step(gpu, task, batch)


def bert():
    return BertConfig(
        vocab_size=50, hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=2
    )


def catalogue(gpu):
    model = gpu.move(towers().model).eval()
    assert encode_catalogue(model.encode_items, item_text(), 10).shape == (ITEMS, 32)


def histories(gpu):
    model = gpu.move(towers().model).eval()
    table = torch.zeros(ITEMS, 32)
    users = encode_histories(model.user_llm, table, [np.array([1, 2]), np.array([3])], WINDOW)
    assert users.shape == (2, 32) and users.device == DEVICE


def ranking(gpu):
    index = ExactIndex(Vectors(np.zeros((ITEMS, 32), np.float32), cosines=True))
    gpu.waits.clear()  # once per evaluation
    users, two = np.zeros((2, 32), np.float32), np.array([3, 3])
    scores_of_pairs(users, Vectors(users, cosines=True))
    index.ahead(users, np.zeros(2, np.float32), two, two, two)
    index.search(users, two)


def validation_loss(gpu):
    with pytest.raises(Exception, match="nothing is to be predicted"):  # zeros come back from the device
        token_loss(gpu.move(token_task()).eval(), [token_batch()])


def decoding(gpu):
    model = TokenModel(copy.deepcopy(tiny(1)).bfloat16(), None, VOCABULARY, 64, WORDS).eval()
    gpu.move(model)
    trie, (ids, mask) = Trie.of(random_codes(1, shorter=True)), prompts(0)
    rows = [gpu.there(row) for row in level_rows()]
    ids, mask = gpu.there(ids), gpu.there(mask)
    trie = trie.to(DEVICE)
    gpu.waits.clear()  # all that is needed is on the device: what follows is the search alone
    with model.decoding() as decoder:
        found = beam_search(decoder, trie, rows, ids, mask, 6)
    assert found.leaves.shape == (3, 6) and found.leaves.device == DEVICE


RUNS = {
    "two-tower step": lambda gpu: step(gpu, towers(), two_tower_batch()),
    "two-tower step, texts in chunks": in_chunks,
    "two-tower step, sentence encoder": lambda gpu: step(gpu, towers(bert()), two_tower_batch()),
    "two-tower step, fp32": lambda gpu: step(gpu, towers(dtype=torch.float32), two_tower_batch()),
    "token step": lambda gpu: step(gpu, token_task(), token_batch()),
    "token step, branches": lambda gpu: step(
        gpu, token_task(), token_batch(torch.tensor([0, 0, 1, 1, 2, 2, 2, 0, 0, 0, 1, 1]))
    ),
    "catalogue": catalogue,
    "histories": histories,
    "ranking": ranking,
    "validation loss": validation_loss,
    "decoding": decoding,
}


@pytest.mark.parametrize("name", RUNS)
def test_the_host_waits_for_the_gpu_where_it_is_said_alone(name):
    with pretend_gpu() as gpu:
        RUNS[name](gpu)
    assert set(gpu.waits) == set(WAITS[name]), gpu.waits


QUESTIONS = {
    "a value is read": [lambda x: x.sum().item(), lambda x: x[0].tolist(), lambda x: bool((x > 0).any()),
                        lambda x: float(x[0, 0])],
    "places are counted": [lambda x: x.nonzero(), lambda x: x[x > 0], lambda x: x[:, x[0] > 0]],
    "a copy to the CPU": [lambda x: x.cpu(), lambda x: x.to("cpu", torch.float64).numpy()],
    "a copy from pageable memory": [
        lambda x: torch.ones(3).to(DEVICE, non_blocking=True), lambda x: x.new_tensor(2.0),
        lambda x: x.copy_(torch.ones(4, 3)), lambda x: torch.tensor([1, 2], device=DEVICE),
    ],
    "an index comes from the CPU": [lambda x: x[torch.tensor([0, 2])]],
}  # fmt: skip


def test_what_would_wait_is_noted_and_what_lies_on_the_wrong_device_is_an_error():
    with pretend_gpu() as gpu:
        for what, questions in QUESTIONS.items():
            for ask in questions:
                gpu.waits.clear()
                ask(torch.ones(4, 3, device=DEVICE))
                assert gpu.waits["outside", what], (what, gpu.waits)
        gpu.waits.clear()
        x = torch.ones(3).pin_memory().to(DEVICE) * 2.0 + torch.full((), 1.0, device=DEVICE)
        assert x.device == DEVICE and torch.arange(3).sum().item() == 3 and not gpu.waits
        with pytest.raises(Exception, match="same device"):
            x + torch.ones(3)


def test_gradients_node_after_node_are_those_of_torchs_engine():
    found = []
    for learn in (backward, torch.Tensor.backward):
        task = towers(dtype=torch.float32)
        learn(task(two_tower_batch(chunk_tokens=30))[0])
        found.append([p.grad for p in task.parameters() if p.requires_grad])
    for ours, theirs in zip(*found, strict=True):
        assert torch.equal(ours, theirs)
