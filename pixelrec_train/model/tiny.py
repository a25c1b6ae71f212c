"""Tiny Qwen3 models with a tokenizer trained on the texts at hand: real Hugging Face directories.

For a first run on a laptop, for tests, and as a from-scratch starting point where no model can be downloaded.
"""

from pathlib import Path

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM, Qwen3Model

from pixelrec_train.model.backbone import write_backbone
from pixelrec_train.model.chat_template import CHATML

END = "<|endoftext|>"
ROWS_IN_STEPS_OF = 128  # as the tables of the real Qwen3, which end in rows that no token uses


def write_towers(texts, directory, hidden_size=64, layers=2, vocab_size=4096, seed=0):
    """Write <directory>/item_llm and <directory>/user_llm; returns the two paths.

    Args:
        texts: what the byte-level BPE is trained on.
        vocab_size: at most; fewer when the texts are few.
    """
    tokenizer = train_tokenizer(texts, vocab_size)
    paths = []
    for offset, name in enumerate(("item_llm", "user_llm")):
        torch.manual_seed(seed + offset)
        config = tiny_config(tokenizer, len(tokenizer), hidden_size, layers)
        path = Path(directory) / name
        model = Qwen3Model(config)
        write_backbone(model, path, model.state_dict())
        tokenizer.save_pretrained(path)
        paths.append(path)
    return paths


def write_causal_lm(
    texts, directory, hidden_size=64, layers=2, vocab_size=4096, seed=0, tied=True, chat=False
):
    """Write one model with its language-model head into <directory>; returns the path.

    Args:
        chat: its tokenizer has Qwen3's marks of turns and thoughts, and a chat template.
        tied: the head is the table of word embeddings, as in Qwen3 up to 4B; False = a table of its own.
    """
    tokenizer = train_tokenizer(texts, vocab_size)
    if chat:
        teach_to_chat(tokenizer)
    torch.manual_seed(seed)
    rows = -(-len(tokenizer) // ROWS_IN_STEPS_OF) * ROWS_IN_STEPS_OF
    config = tiny_config(tokenizer, rows, hidden_size, layers, tie_word_embeddings=tied)
    model, path = Qwen3ForCausalLM(config), Path(directory)
    weights = model.state_dict()
    if tied:
        weights.pop("lm_head.weight")
    write_backbone(model, path, weights)
    tokenizer.save_pretrained(path)
    return path


def tiny_config(tokenizer, rows, hidden_size, layers, **more):
    """Qwen3's shape in small; rows of its table of word embeddings."""
    return Qwen3Config(
        vocab_size=rows, hidden_size=hidden_size, intermediate_size=3 * hidden_size,
        num_hidden_layers=layers, num_attention_heads=max(hidden_size // 32, 1),
        num_key_value_heads=max(hidden_size // 64, 1), head_dim=32, max_position_embeddings=2048,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, **more,
    )  # fmt: skip


def train_tokenizer(texts, vocab_size):
    """Byte-level BPE, so that no text in any language has an unknown token."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=[END], initial_alphabet=alphabet, show_progress=False
    )
    bpe.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token=END, pad_token=END)


def teach_to_chat(tokenizer):
    """Add what chats are marked with, as Qwen3's tokenizer has it: a turn's end ends a text, END pads."""
    tokenizer.add_tokens(["<|im_start|>", "<|im_end|>"], special_tokens=True)
    tokenizer.add_tokens([AddedToken(word, normalized=False) for word in ("<think>", "</think>")])
    tokenizer.eos_token, tokenizer.chat_template = "<|im_end|>", CHATML
