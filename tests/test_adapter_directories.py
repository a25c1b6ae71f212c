"""An adapter's directory in place of a model's: its base, with the adapter added to the layers."""

import json
import shutil
from dataclasses import replace

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from test_lora import drawn, exported, logits_of
from transformers import AutoModel, AutoModelForCausalLM

from pixelrec_train.errors import InputError
from pixelrec_train.files import model_files, tokenizer_files
from pixelrec_train.libraries import load_tokenizer
from pixelrec_train.model.adapters import adapt_towers
from pixelrec_train.model.backbone import load_backbone
from pixelrec_train.model.expansion import expand
from pixelrec_train.model.hllm_model import HLLMModel
from pixelrec_train.model.tiny import write_causal_lm
from pixelrec_train.model.token_model import TokenModel
from pixelrec_train.model.verification import Subject
from pixelrec_train.tasks.two_tower import TwoTowerTask


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """base, its expansion itemic; and a model with adapters upon that; what it learned, in adapter."""
    folder = tmp_path_factory.mktemp("adapters")
    base = write_causal_lm(["a tale of two cities"] * 3, folder / "base", hidden_size=64)
    expand(base, folder / "itemic", "onerec", (4, 6), "mean_cov", 0)
    model = drawn(TokenModel.load(folder / "itemic"))
    exported(model, folder / "itemic", folder / "run")
    shutil.move(folder / "run/adapter", folder / "adapter")
    return folder, model


def states(model):
    with torch.no_grad():
        return model.eval()(torch.arange(9)[None], output_hidden_states=True).hidden_states[-1]


def test_it_is_its_base_with_the_adapter_merged_and_the_rest_is_the_bases(places, tmp_path):
    folder, model = places
    loaded = TokenModel.load(folder / "adapter")
    assert torch.allclose(logits_of(loaded), logits_of(model), atol=2e-5)
    assert all(p.requires_grad for p in loaded.parameters())
    assert loaded.vocabulary.first_new_id == model.vocabulary.first_new_id
    assert model_files(folder / "adapter") == folder / "itemic" != model_files(folder / "base")
    assert tokenizer_files(folder / "adapter") == tokenizer_files(folder / "itemic") != []
    assert len(load_tokenizer(folder / "adapter")) == model.num_tokens
    again = exported(drawn(loaded, seed=1), folder / "adapter", tmp_path / "again")  # trained upon it
    assert torch.allclose(logits_of(TokenModel.load(again / "llm")), logits_of(loaded), atol=2e-5)
    shutil.move(again / "adapter", tmp_path / "upon")  # an adapter upon an adapter
    assert torch.allclose(logits_of(TokenModel.load(tmp_path / "upon")), logits_of(loaded), atol=5e-5)


def test_a_tower_may_be_of_an_adapter_of_a_language_model_and_the_other_way(places, tmp_path):
    folder, _ = places
    for kind, other in ((AutoModelForCausalLM, AutoModel), (AutoModel, AutoModelForCausalLM)):
        causal = kind is AutoModelForCausalLM
        theirs = peft.get_peft_model(
            kind.from_pretrained(folder / "base"),
            peft.LoraConfig(
                r=2, target_modules=["q_proj", "up_proj"], init_lora_weights=False, use_dora=causal,
                task_type="CAUSAL_LM" if causal else "FEATURE_EXTRACTION",
            ),
        )  # fmt: skip
        theirs.save_pretrained(tmp_path / kind.__name__)
        for asked in (kind, other):
            found = load_backbone(tmp_path / kind.__name__, "--item_model_dir", kind=asked)
            assert type(found) is type(asked.from_pretrained(folder / "base"))
            assert torch.allclose(states(found), states(theirs), atol=1e-5)
    half = load_backbone(tmp_path / "AutoModel", "--item_model_dir", torch.bfloat16)
    assert half.dtype == torch.bfloat16 and half.rotary_emb.inv_freq.dtype == torch.float32


def test_two_towers_go_on_from_adapters(demo_config, tmp_path):
    config = replace(demo_config, lora_r=2)
    model = HLLMModel.starting(config)
    adapt_towers(model, config, 0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * parameter.requires_grad
    TwoTowerTask(model, config, config.item_dir).export(
        tmp_path, dict(model.named_parameters(prefix="model"))
    )
    adapters = {f"{t}_model_dir": str(tmp_path / f"{t}_llm_adapter") for t in ("item", "user")}
    found = HLLMModel.starting(replace(demo_config, **adapters))
    merged = load_file(tmp_path / "user_llm/model.safetensors")
    held = dict(found.user_llm.backbone.named_parameters())
    assert all(torch.allclose(held[name], weight, atol=1e-6) for name, weight in merged.items())
    assert found.item_llm.backbone.name_or_path == adapters["item_model_dir"]


def spoilt(places, tmp_path, **settings):
    copy = tmp_path / "spoilt"
    shutil.copytree(places[0] / "adapter", copy)
    file = copy / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | settings))
    return copy


def test_what_cannot_be_merged_says_so_and_names_the_base(places, tmp_path):
    folder, _ = places
    copy = spoilt(places, tmp_path, base_model_name_or_path="Qwen/Qwen3-8B")
    with pytest.raises(InputError, match="spoilt is an adapter of Qwen/Qwen3-8B, not a .* Merge the two"):
        TokenModel.load(copy)
    shutil.rmtree(copy)
    spoilt(places, tmp_path, base_model_name_or_path=str(copy))  # itself
    with pytest.raises(InputError, match="is an adapter of .*spoilt, not a model"):
        TokenModel.load(copy)
    shutil.rmtree(copy)
    spoilt(places, tmp_path, base_model_name_or_path=str(tmp_path))
    with pytest.raises(InputError, match="spoilt is an adapter, whose base .* has no config.json"):
        TokenModel.load(copy)
    shutil.rmtree(copy)
    spoilt(places, tmp_path, peft_type="IA3")
    with pytest.raises(InputError, match="spoilt is an adapter of the kind IA3"):
        TokenModel.load(copy)
    shutil.rmtree(copy)
    file = spoilt(places, tmp_path) / "adapter_model.safetensors"
    tensors = load_file(file)
    tensors.pop(next(iter(tensors)))
    save_file(tensors, file)
    with pytest.raises(InputError, match="spoilt does not fit its base .*itemic: 1 of its weights are not"):
        TokenModel.load(copy)
    with pytest.raises(InputError, match="adapter is an adapter of"):  # its files are what is checked
        Subject(folder / "adapter").weights  # noqa: B018
