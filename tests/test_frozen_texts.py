"""Texts that a frozen item LLM has read: read once, and found by every later command."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
from conftest import inputs_of
from good_folder import write_checkpoint
from safetensors.torch import load_file, save_file

from pixelrec_train.evaluation.retrieval import encode_catalogue
from pixelrec_train.model.backbone import load_backbone
from pixelrec_train.model.text_encoder import TextEncoder
from pixelrec_train.recommend import checkpoints, frozen_texts
from pixelrec_train.recommend.frozen_texts import embed_texts


@pytest.fixture
def tower(demo, tmp_path):
    return shutil.copytree(demo / "towers/item_llm", tmp_path / "item_llm")


def embedded(tower, inputs, cache_dir, eval_tokens=300, token=None):
    """(embeddings, whether they were computed) of a tower as it lies there."""
    encoder = TextEncoder(load_backbone(tower, "--x").eval(), int(token is not None), 25)
    if token is not None:
        encoder.item_token.data.fill_(token)
    return embed_texts(encoder, inputs.item_text, tower, eval_tokens, cache_dir)


def no_encoding(*arguments):
    raise AssertionError("texts are encoded")


def test_a_second_command_finds_them_equal_to_the_bit(tower, demo_config, tmp_path, monkeypatch):
    inputs = inputs_of(demo_config)
    encoder = TextEncoder(load_backbone(tower, "--x").eval(), 0, 25)
    anew = encode_catalogue(lambda items: encoder(items.texts), inputs.item_text, 300)
    first, new = embedded(tower, inputs, tmp_path)
    assert new and torch.equal(first, torch.from_numpy(anew))
    monkeypatch.setattr(frozen_texts, "encode_catalogue", no_encoding)
    second, new = embedded(tower, inputs, tmp_path)
    assert not new and torch.equal(first, second) and second.dtype == torch.float32
    second += 1  # a copy of its own
    assert torch.equal(embedded(tower, inputs, tmp_path)[0], first)


def test_what_they_depend_on_is_their_name(tower, demo_config, config_with, tmp_path):
    inputs = inputs_of(demo_config)
    first, new = embedded(tower, inputs, tmp_path)
    assert new and not embedded(tower, inputs, tmp_path)[1]
    assert embedded(tower, inputs_of(config_with(item_prompt="x")), tmp_path)[1]
    assert embedded(tower, inputs, tmp_path, eval_tokens=200)[1]
    assert embedded(tower, inputs, tmp_path, token=0.5)[1] and embedded(tower, inputs, tmp_path, token=1.0)[1]
    weights = load_file(tower / "model.safetensors")
    name = next(name for name in weights if "layers.0" in name)
    save_file(weights | {name: weights[name] * 2}, tower / "model.safetensors", {"format": "pt"})
    other, new = embedded(tower, inputs, tmp_path)
    assert new and not torch.allclose(other, first)
    settings = json.loads((tower / "config.json").read_text())
    (tower / "config.json").write_text(json.dumps(settings | {"rms_norm_eps": 1e-3}))
    assert embedded(tower, inputs, tmp_path)[1]


@pytest.mark.parametrize("frozen", [True, False])
def test_a_checkpoint_trained_frozen_is_loaded_without_reading(config_with, tmp_path, monkeypatch, frozen):
    config = config_with(item_emb_token_n=0, item_id_embedding=True, cache_dir=str(tmp_path / "cache"))
    inputs = inputs_of(config)
    checkpoint = tmp_path / "run/best_model"
    write_checkpoint(checkpoint, replace(config, freeze_item_llm=frozen), inputs)
    files = checkpoints.data_files(config, text_data=config.text_data)

    def load():
        return checkpoints.load_towers(checkpoint, files, (), 300)

    _, model, first, _ = load()
    assert model.reads_texts is not frozen
    model.stored = None  # it reads each time
    anew = encode_catalogue(model.encode_items, inputs.item_text, 300)
    assert (anew == first).all()
    assert len(list((tmp_path / "cache").glob("text_embeddings-*"))) == frozen
    monkeypatch.setattr(frozen_texts, "encode_catalogue", no_encoding)
    assert (load()[2] == first).all()
