"""Tiny sentence-transformers directories, the same on every machine, and texts for them."""

import json

import torch
from safetensors.torch import save_file
from tokenizers.processors import TemplateProcessing
from transformers import AutoModel, BertConfig, Qwen3Config

from pixelrec_train.model.tiny import END, train_tokenizer

TEXTS = [
    "Steel ruler, 30 cm", "x", "Nitrile gloves; powder free. " * 4, "Eine Säge für Holz",
    "a b c d e f g h i j k l m n o p q r s",
]  # fmt: skip
SIZE = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4)
CONFIGS = {
    "bert": BertConfig(vocab_size=300, max_position_embeddings=64, **SIZE),
    "qwen3": Qwen3Config(
        vocab_size=300, num_key_value_heads=2, head_dim=8, max_position_embeddings=128, **SIZE
    ),
}  # fmt: skip
ACTIVATION = "torch.nn.modules.activation."
# What sentence-transformers made of each stands in fixtures/sentence_encoders.json.
CASES = {
    "cls, two Dense": dict(
        kind="bert", pooling={"pooling_mode_cls_token": True}, max_seq_length=14,
        dense=[(48, True, f"{ACTIVATION}Tanh"), (16, False, "torch.nn.modules.linear.Identity")],
        normalise=True,
    ),
    "mean": dict(kind="bert", pooling={"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}),
    "last token, a prompt": dict(
        kind="qwen3", pooling={"pooling_mode": "lasttoken"}, max_seq_length=20, normalise=True,
        prompts={"prompts": {"query": "Q: ", "document": "The item: "}},
    ),
    "weighted mean, a default prompt": dict(
        kind="qwen3", pooling={"pooling_mode": "weightedmean"}, max_seq_length=30,
        prompts={"prompts": {"item": "an item ", "document": ""}, "default_prompt_name": "item"},
    ),
    "max, in lower case": dict(
        kind="qwen3", pooling={"pooling_mode": "max"}, max_seq_length=30, do_lower_case=True
    ),
}  # fmt: skip


def write_encoder(directory, kind, pooling, max_seq_length=None, dense=(), normalise=False, prompts=None,
                  do_lower_case=False, texts=TEXTS):  # fmt: skip
    """Weights are waves, and not drawn: no generator can change them."""
    directory.mkdir(parents=True, exist_ok=True)
    model = AutoModel.from_config(CONFIGS[kind])
    with torch.no_grad():
        for number, parameter in enumerate(model.parameters(), 1):
            parameter.copy_(wave(parameter.shape, number))
    model.save_pretrained(directory)
    tokenizer = train_tokenizer(texts, 300)
    tokenizer.model_max_length = 128
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"$A {END}", special_tokens=[(END, tokenizer.eos_token_id)]
    )
    tokenizer.save_pretrained(directory)
    modules, width = [("", "Transformer"), ("1_Pooling", "Pooling")], 32
    write(directory / "1_Pooling/config.json", pooling | {"word_embedding_dimension": width})
    for out, bias, activation in dense:
        folder = f"{len(modules)}_Dense"
        modules.append((folder, "Dense"))
        write(directory / folder / "config.json", {
            "in_features": width, "out_features": out, "bias": bias, "activation_function": activation,
        })  # fmt: skip
        weights = {"linear.weight": wave((out, width), 3)} | (
            {"linear.bias": wave((out,), 5)} if bias else {}
        )
        save_file(weights, directory / folder / "model.safetensors")
        width = out
    modules += [(f"{len(modules)}_Normalize", "Normalize")] * normalise
    write_modules(directory, modules)
    limits = {"max_seq_length": max_seq_length, "do_lower_case": do_lower_case}
    write(directory / "sentence_bert_config.json", limits)
    if prompts:
        write(directory / "config_sentence_transformers.json", prompts)
    return directory


def write_modules(directory, modules):
    """modules: [(folder, kind)]"""
    write(directory / "modules.json", [
        {"idx": n, "name": str(n), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for n, (path, kind) in enumerate(modules)
    ])  # fmt: skip


def write(path, value):
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(value))


def wave(shape, number):
    size = torch.Size(shape).numel()
    return 0.25 * torch.sin(torch.arange(size, dtype=torch.float64) * (0.7 + number * 0.37)).float().view(
        shape
    )
