"""The item tower, where 99 % of a training step is: our packed row against the peers' layouts.

Forward and backward of one micro-batch's items (2 users x 22 items) on one thread in fp32.
"""

import copy
from functools import partial

import torch
from transformers import AutoModel, AutoModelForCausalLM, Qwen3Config

from benchmarks import peers
from benchmarks.inputs import LONGEST_TEXT, VOCAB_SIZE
from benchmarks.measure import interleaved, must_agree
from benchmarks.registry import Goal, Result, benchmark
from pixelrec_train.evaluation.retrieval import encode_catalogue
from pixelrec_train.model.text_encoder import TextEncoder
from pixelrec_train.run import resources

TINY = {"items": 4, "hidden": 64, "layers": 1}
PADDED_TO = LONGEST_TEXT + 1


@benchmark(unit="CPU s", goal=Goal("ratio", at_least=5), tiny=TINY)
def item_tower_vs_dense_head(inputs, items=44, hidden=256, layers=4):
    """Pixelrec's layout: one row, dense mask, LM head."""
    texts, config = inputs.packed_texts(items), qwen3(hidden, layers)
    return compare(texts, config, AutoModelForCausalLM, peers.dense_row, "one row, dense mask, LM head")


@benchmark(unit="CPU s", goal=Goal("ratio", at_least=2.3), tiny=TINY)
def item_tower_vs_padded_head(inputs, items=44, hidden=256, layers=4):
    texts, config = inputs.packed_texts(items), qwen3(hidden, layers)
    way = partial(peers.padded, longest=PADDED_TO)
    return compare(texts, config, AutoModelForCausalLM, way, f"padded to {PADDED_TO}, LM head")


@benchmark(unit="CPU s", goal=Goal("ratio", at_least=1.7), tiny=TINY)
def item_tower_vs_padded(inputs, items=44, hidden=256, layers=4):
    texts, config = inputs.packed_texts(items), qwen3(hidden, layers)
    way = partial(peers.padded, longest=PADDED_TO)
    return compare(texts, config, AutoModel, way, f"padded to {PADDED_TO}, no head")


@benchmark(unit="CPU s", goal=Goal("ratio", at_least=1.7), tiny=TINY | {"batch_size": 2})
def catalogue(inputs, items=512, hidden=256, layers=4, batch_size=64, eval_tokens=16384):
    """The catalogue encoded for evaluation, forward only: sorted and packed against padded as it comes."""
    item_text = inputs.item_text(items)
    encoder, peer = twins(qwen3(hidden, layers), AutoModel)

    def ours():
        return encode_catalogue(lambda batch: encoder(batch.texts), item_text, eval_tokens)

    def theirs():
        return peers.encode_catalogue(peer, encoder.item_token, item_text, batch_size)

    must_agree("catalogue", ours(), theirs(), 1e-4)
    note = f"{items} items, batches of {batch_size} padded to their longest"
    return Result.of_times(*interleaved(ours, theirs), note)


def compare(texts, config, peer_class, peers_way, note):
    """Time the item tower both ways; embeddings and all gradients must be the same."""
    encoder, peer = twins(config, peer_class)
    item_token = torch.nn.Parameter(encoder.item_token.detach().clone())
    weights = torch.randn(len(texts.lengths), config.hidden_size, generator=torch.Generator().manual_seed(1))

    def ours():
        return backward(encoder(texts), weights, encoder)

    def theirs():
        item_token.grad = None
        return backward(peers_way(peer, item_token, texts), weights, peer)

    must_agree("item embeddings", ours(), theirs(), 1e-4)
    check_gradients(encoder, peer.base_model, item_token)
    tokens = int(texts.lengths.sum())
    return Result.of_times(*interleaved(ours, theirs), f"{len(texts.lengths)} items, {tokens} tokens; {note}")


def backward(embeddings, weights, model):
    """Backward from sum(embeddings * weights); the embeddings."""
    model.zero_grad(set_to_none=True)
    (embeddings * weights).sum().backward()
    return embeddings


def check_gradients(encoder, backbone, item_token):
    theirs = dict(backbone.named_parameters())
    pairs = [(name, p.grad, theirs[name].grad) for name, p in encoder.backbone.named_parameters()]
    for name, our_grad, their_grad in [*pairs, ("[ITEM]", encoder.item_token.grad, item_token.grad)]:
        must_agree(f"gradient of {name}", our_grad, their_grad, 1e-4 * max(float(their_grad.abs().max()), 1))


def twins(config, peer_class):
    """Our encoder, and the peer's model with the same random weights."""
    torch.manual_seed(0)
    resources.keep_freed_memory()  # as a training does
    backbone = AutoModel.from_config(config)
    # A config of its own: our encoder writes its attention into the one it has.
    peer = peer_class.from_config(copy.deepcopy(config), attn_implementation="sdpa")
    peer.base_model.load_state_dict(backbone.state_dict())
    return TextEncoder(backbone, item_emb_token_n=1, longest=PADDED_TO), peer


def qwen3(hidden, layers):
    """The shape of model/tiny.py's towers."""
    return Qwen3Config(
        vocab_size=VOCAB_SIZE, hidden_size=hidden, intermediate_size=3 * hidden, num_hidden_layers=layers,
        num_attention_heads=hidden // 32, num_key_value_heads=hidden // 64, head_dim=32,
        max_position_embeddings=2048, tie_word_embeddings=False,
    )  # fmt: skip
