"""Itemic tokens for a causal LM: new words in its tokenizer, new rows in its tables, nothing else changed.

The rows between a tokenizer's length and the height of its table were never trained (267 in Qwen3), yet the
first new tokens get them: every row from the first new id on is drawn anew, not only those that are added.
"""

import hashlib
from pathlib import Path

import torch
from tokenizers import AddedToken
from torch import nn
from transformers import AutoModelForCausalLM

from pixelrec_train.errors import InputError
from pixelrec_train.files import digested
from pixelrec_train.libraries import load_tokenizer
from pixelrec_train.model.backbone import load_backbone, second_names
from pixelrec_train.model.chat_template import CHAT_TEMPLATES
from pixelrec_train.model.model_directory import check_directory
from pixelrec_train.model.model_files import write_like
from pixelrec_train.model.vocabulary import ItemicVocabulary
from pixelrec_train.semantic_id.codecs import CODECS

ALIGN = 256  # rows of a table come in steps of this many: matrix products like it, and sharding needs it
FLAG = "--hf_model_dir"


def expand(
    source, destination, codec, codebook_sizes, init, seed, trust=False, chat_template=None, others=()
):
    """Write the model of `source` with itemic tokens into `destination`; returns its ItemicVocabulary.

    Args:
        codec: a name in CODECS.
        codebook_sizes: [L] codes of each level.
        init: of the new rows. mean_cov = drawn from the normal distribution with mean and covariance of the
            old rows, so that they look like rows of words; mean = their mean, plus noise of 2 % of its norm.
        trust: whether code in the directory may run.
        chat_template: a name in CHAT_TEMPLATES; None = the directory's own, if it has one.
        others: further words.

    Raises:
        InputError: no causal LM with a plain table and head, a word is there already, or is not one token.
    """
    check_directory(source, FLAG, trust)
    destination = Path(destination)
    tokenizer = load_tokenizer(source, FLAG, trust)
    old_length, first_new_id = len(tokenizer), add_words(tokenizer, CODECS[codec], codebook_sizes, others)
    if first_new_id != old_length:
        raise InputError(
            f"{FLAG} {source}: its tokenizer has {old_length} words, but the next id is {first_new_id}. Ids "
            f"with gaps are not supported."
        )
    vocabulary = ItemicVocabulary(
        codec=codec, codebook_sizes=tuple(codebook_sizes), first_new_id=first_new_id,
        rows=-(-len(tokenizer) // ALIGN) * ALIGN, init=init, seed=seed,
        base_model=str(source), base_sha256=weights_sha256(source), others=tuple(others),
    )  # fmt: skip
    model = load_backbone(source, FLAG, "auto", trust=trust, kind=AutoModelForCausalLM)
    weights = expanded_weights(model, vocabulary, source)
    write_like(source, destination, weights, type(model).__name__, vocabulary.rows)
    (destination / "added_tokens.json").unlink(missing_ok=True)  # the source's; not every format has one
    if chat_template:
        tokenizer.chat_template = CHAT_TEMPLATES[chat_template]
    tokenizer.save_pretrained(destination)
    vocabulary.save(destination)
    ItemicVocabulary.load(destination, "--output_model_dir", trust)  # what was written reads back
    return vocabulary


def add_words(tokenizer, codec, codebook_sizes, others=()):
    """Add a spelling's words, and others; returns the id of the first.

    Not special ones: those vanish from decoded text. And not normalised: a word is found as it is written,
    wherever it stands.

    Raises:
        InputError: a word is there already, or does not come out as one token of its own.
    """
    levels = codec.tokens(codebook_sizes)
    words = [word for level in levels for word in level]
    words += [word for word in (codec.begin, codec.end, *others) if word]
    known = tokenizer.get_vocab()
    there = [word for word in words if word in known]
    if there:
        raise InputError(
            f"{FLAG}: {len(there)} of the {len(words)} tokens are in its vocabulary already, {there[0]} for "
            f"one. Expand the base model, or choose another --codec."
        )
    plain = dict(normalized=False, single_word=False, lstrip=False, rstrip=False, special=False)
    tokenizer.add_tokens([AddedToken(word, **plain) for word in words])
    ids = tokenizer.convert_tokens_to_ids(words)
    item = codec.begin + "".join(level[-1] for level in levels) + codec.end
    for text, expected in (*zip(words, ([n] for n in ids), strict=True), ("".join(words), ids)):
        if tokenizer.encode(text, add_special_tokens=False) != expected:
            raise InputError(f"{FLAG}: its tokenizer does not read {text[:40]!r} as one token per word.")
    sentence = f"Who took {item}{item} also took {item}, or so."
    back = tokenizer.decode(tokenizer.encode(sentence, add_special_tokens=False), skip_special_tokens=True)
    if back.strip() != sentence:
        raise InputError(
            f"{FLAG}: its tokenizer turns {sentence!r} into {back!r}; it must come back as it was."
        )
    if ids != list(range(ids[0], ids[0] + len(ids))):
        raise InputError(f"{FLAG}: its tokenizer gives new words ids that do not follow each other.")
    return ids[0]


def expanded_weights(model, vocabulary, source):
    """{name: tensor} of the model, its table (and its head, if that is a table of its own) expanded."""
    weights = dict(model.state_dict())
    embedding, head = table_names(model, source)
    generator = torch.Generator().manual_seed(vocabulary.seed)
    for name in (embedding, *([] if head == embedding else [head])):
        if len(weights[name]) < vocabulary.first_new_id:
            raise InputError(
                f"{FLAG} {source}: its tokenizer has {vocabulary.first_new_id} words, but {name} only "
                f"{len(weights[name])} rows. They must come from the same model."
            )
        old = weights[name][: vocabulary.first_new_id]
        new = drawn_rows(old.float(), vocabulary.rows - len(old), vocabulary.init, generator)
        weights[name] = torch.cat([old, new.to(old.dtype)])
    twice = second_names(model) if head == embedding else ()
    return {name: tensor for name, tensor in weights.items() if name not in twice}


def table_names(model, flagged):
    """(name of the table of embeddings, name of the head's), the same one where they are tied.

    Raises:
        InputError: they are not a plain table and a plain linear layer, or tied although config.json says no.
    """
    table, head = model.get_input_embeddings(), model.get_output_embeddings()
    if type(table) is not nn.Embedding or type(head) is not nn.Linear or head.bias is not None:
        raise InputError(
            f"{flagged} ({type(model).__name__}): its embeddings or its head are not a plain table; that is "
            f"not supported."
        )
    tied = bool(getattr(model.config, "tie_word_embeddings", False))
    if tied != (table.weight is head.weight):
        raise InputError(
            f"{flagged}: config.json says tie_word_embeddings = {tied}, but the weights say otherwise. Are "
            f"both files of the same model?"
        )
    names = {id(p): name for name, p in model.named_parameters()}  # a tied one has one name here
    return names[id(table.weight)], names[id(head.weight)]


def drawn_rows(old, count, init, generator):
    """[n, D] fp32 rows of words -> [count, D] new ones; see `expand`."""
    mean = old.mean(0)
    noise = torch.randn(count, old.shape[1], generator=generator)
    if init == "mean":
        return mean + noise * 0.02 * mean.norm() / old.shape[1] ** 0.5
    centred = old - mean
    variance, direction = torch.linalg.eigh(centred.T @ centred / len(old))
    return mean + (noise * variance.clamp(min=0).sqrt()) @ direction.T


def weights_sha256(directory):
    """Of config.json and all weight files of a model directory."""
    weights = sorted(Path(directory).glob("*.safetensors"))
    return digested(hashlib.sha256(), Path(directory) / "config.json", *weights).hexdigest()
