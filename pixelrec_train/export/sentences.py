"""The item tower as a directory of sentence-transformers, which embeds any text as the checkpoint does.

The learned [ITEM] becomes a word of the vocabulary that the tokenizer puts behind every text, and the pooling
is that of the last token. What stands behind the transformer, Dense layers and projection, comes along.
"""

import dataclasses
import itertools
import shutil
from pathlib import Path

import numpy as np
import torch
from tokenizers.processors import TemplateProcessing

from pixelrec_train.batch import PackedTexts
from pixelrec_train.data.item_fields import read_texts
from pixelrec_train.data.item_text import tokenise
from pixelrec_train.errors import InputError
from pixelrec_train.export.towers import same
from pixelrec_train.files import tokenizer_files
from pixelrec_train.libraries import load_tokenizer
from pixelrec_train.model.backbone import load_backbone, write_backbone
from pixelrec_train.model.pooling import Pooling
from pixelrec_train.model.text_encoder import TextEncoder
from pixelrec_train.sentence_encoder import Dense, SentenceEncoder


def write(model, checkpoint, hllm, directory, trust=False):
    """Write the directory.

    Args:
        model: HLLMModel whose items are their texts alone.
        checkpoint: whose item_llm/ it is made of, in the precision it has there.
        hllm: HllmFlags it was trained with.
    """
    source, directory = Path(checkpoint) / "item_llm", Path(directory)
    backbone = load_backbone(source, "the checkpoint", "auto", trust=trust)
    directory.mkdir(parents=True)
    weights, token = dict(backbone.state_dict()), model.item_llm.item_token
    if token is None:
        plain = SentenceEncoder("mean", prompt=hllm.item_prompt, max_tokens=hllm.max_text_length)
        reads = hllm.encoder_of(source, "the checkpoint") or plain
        for file in tokenizer_files(source):
            shutil.copy(file, directory)
    else:
        reads = SentenceEncoder("last_token", prompt=hllm.item_prompt, max_tokens=hllm.max_text_length + 1)
        number = append_token(load_tokenizer(source, trust=trust), directory)
        put_row(backbone, weights, number, token.detach())
    write_backbone(backbone, directory, weights)
    write_layers(model, reads, directory)


def append_token(tokenizer, directory):
    """Save a tokenizer that ends every text with a new word; its number."""
    known = tokenizer.get_vocab()
    name = next(name for n in itertools.count() if (name := f"[ITEM{n or ''}]") not in known)
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise InputError(
            "the item LLM's tokenizer is Python code of its own, to which no [ITEM] can be added. Leave the "
            "directory out: --sentence_transformers False."
        )
    tokenizer.add_tokens([name], special_tokens=True)
    number = tokenizer.convert_tokens_to_ids(name)
    # One template for all: behind another processor that adds words, a second takes its parts for a pair.
    alone, whole = (backend.encode("a", add_special_tokens=special).ids for special in (False, True))
    start = next(n for n in range(len(whole)) if whole[n : n + len(alone)] == alone)
    added = {token: backend.id_to_token(token) for token in whole[:start] + whole[start + len(alone) :]}
    names = [added[token] for token in whole[:start]]
    behind = [added[token] for token in whole[start + len(alone) :]]
    backend.post_processor = TemplateProcessing(
        single=[*names, "$A", *behind, name],
        special_tokens=[(name, number), *((text, token) for token, text in added.items())],
    )
    tokenizer.save_pretrained(directory)
    return number


def put_row(backbone, weights, number, token):
    """Make [D] the embedding of a number, in a state dict of the backbone and in its config."""
    embedding = backbone.get_input_embeddings()
    (name,) = [name for name, module in backbone.named_modules() if module is embedding]
    table = weights[f"{name}.weight"]
    if number >= len(table):
        table = torch.cat([table, table.new_zeros(number + 1 - len(table), table.shape[1])])
        backbone.config.vocab_size = len(table)
    # Some architectures, Gemma's for one, scale what they look up; [ITEM] is learned as it is read.
    with torch.no_grad():
        scale = embedding(torch.tensor([1]))[0].norm() / embedding.weight[1].norm()
    table = table.clone()
    table[number] = token.to(table.dtype) / (scale if abs(scale - 1) > 1e-6 else 1)
    weights[f"{name}.weight"] = table


def write_layers(model, reads, directory):
    """modules.json and what it names."""
    projection = model.projection
    if projection is not None:
        out, width = projection.weight.shape
        reads = dataclasses.replace(reads, layers=(*reads.layers, Dense("", width, out, False, "identity")))
    tensors = dict(model.item_llm.pooling.state_dict())
    behind = Pooling(model.item_llm.backbone.config.hidden_size, reads)
    if projection is not None:
        tensors[f"layers.{len(reads.layers) - 1}.linear.weight"] = projection.weight
    behind.export(directory, {name: tensor.detach().contiguous() for name, tensor in tensors.items()})


@torch.no_grad()
def check(directory, item_ids, wanted, expected, hllm, trust=False):
    """The largest difference between what a written directory and the model make of items' texts.

    Args:
        item_ids: of some items.
        wanted: [tokens] of their texts as the model reads them, the placeholder of [ITEM] included.
        expected: [I, D] what the model makes of them, in fp32.

    Raises:
        InputError: it reads a text otherwise, or makes something else of it.
    """
    reads = SentenceEncoder.of(directory, "the written directory")
    texts = dataclasses.replace(hllm, allow_missing_text=True)
    read, _ = read_texts(item_ids, texts, reads.prompt)
    tokens, offsets = tokenise(
        tokenizer := load_tokenizer(directory, trust=trust), read, reads.max_tokens, 0, reads
    )
    found = np.split(tokens, offsets[1:-1])
    if hllm.item_emb_token_n:
        wanted = [np.append(ids[:-1], len(tokenizer) - 1) for ids in wanted]
    other = [i for i, a, b in zip(item_ids, found, wanted, strict=True) if not np.array_equal(a, b)]
    if other:
        raise InputError(
            f"sentence-transformers would read the texts of {len(other)} of {len(item_ids)} items otherwise "
            f"than training did, {other[0]!r} for one. Does its tokenizer end texts with a word of its own, "
            f"which training cuts off? Leave the directory out: --sentence_transformers False."
        )
    backbone = load_backbone(directory, "the written directory", trust=trust)
    encoder = TextEncoder.of(backbone, 0, reads.max_tokens, reads, directory).eval()
    packed = PackedTexts(torch.from_numpy(tokens.astype(np.int64)), torch.from_numpy(np.diff(offsets)))
    return same("the directory for sentence-transformers", encoder(packed), expected)
