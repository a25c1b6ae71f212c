"""Model directories become towers and back. What does not fit is in bad_inputs/models.json."""

import copy
import json
import shutil
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModel

from pixelrec_train.errors import InputError
from pixelrec_train.model.backbone import load_backbone, write_backbone
from pixelrec_train.model.hllm_model import HLLMModel
from pixelrec_train.model.user_encoder import NAME, UserEncoder
from pixelrec_train.trainings.plan import state_bytes


def with_code(tower, directory):
    """The same tower as a class of its own, whose file leaves a trace where it is run."""
    shutil.copytree(tower, directory)
    config = json.loads((directory / "config.json").read_text())
    config |= {"auto_map": {"AutoModel": "modeling_own.OwnModel"}}
    (directory / "config.json").write_text(json.dumps(config))
    (directory / "modeling_own.py").write_text(
        f"open({str(directory.parent / 'ran')!r}, 'w')\n"
        "from transformers import Qwen3Model\n\n\nclass OwnModel(Qwen3Model):\n    pass\n"
    )
    return directory


def test_code_in_a_model_directory_runs_only_for_the_tower_that_is_trusted(demo, config_with, tmp_path):
    own = with_code(demo / "towers/user_llm", tmp_path / "own")
    config = config_with(user_model_dir=str(own), trust_remote_code=("item",))
    with pytest.raises(InputError, match="Python code of its own.*--trust_remote_code"):
        HLLMModel.starting(config)
    assert not (tmp_path / "ran").exists()
    trusted = HLLMModel.starting(replace(config, trust_remote_code=("user",)))
    assert type(trusted.user_llm.backbone).__name__ == "OwnModel" and (tmp_path / "ran").exists()
    # The export takes the code along, and is no more trusted than where it came from.
    trusted.export(tmp_path / "export", trusted.state_dict(), config.item_dir)
    with pytest.raises(InputError, match="Python code of its own"):
        HLLMModel.load(tmp_path / "export", config.max_text_length)
    again = HLLMModel.load(tmp_path / "export", config.max_text_length, trust=("user",))
    probe = torch.randn(1, 3, 32)
    assert torch.equal(again.user_llm(probe), trusted.eval().user_llm(probe))


def test_weights_of_another_architecture_are_refused_and_not_replaced_by_random_ones(demo, tmp_path):
    shutil.copytree(demo / "towers/item_llm", tmp_path / "m")
    weights = load_file(tmp_path / "m/model.safetensors")
    renamed = {name.replace("layers.0", "blocks.0"): value for name, value in weights.items()}
    save_file(renamed, tmp_path / "m/model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match=r"weights of the architecture .* layers\.0\..*random"):
        load_backbone(tmp_path / "m", "--item_model_dir")


def test_half_precision_weights_are_trained_in_fp32(demo, tmp_path):
    model = AutoModel.from_pretrained(demo / "towers/item_llm", dtype=torch.bfloat16)
    write_backbone(model, tmp_path, model.state_dict())
    assert json.loads((tmp_path / "config.json").read_text())["dtype"] == "bfloat16"
    assert load_backbone(tmp_path, "--item_model_dir").embed_tokens.weight.dtype == torch.float32
    assert AutoModel.from_pretrained(tmp_path).embed_tokens.weight.dtype == torch.bfloat16


def test_an_export_gives_the_model_back_to_the_bit(demo_config, tmp_path):
    model = HLLMModel.starting(demo_config)
    model.export(tmp_path, model.state_dict(), demo_config.item_model_dir)
    assert all(
        file.stat().st_mode & 0o044 for file in tmp_path.rglob("*.safetensors")
    )  # colleagues can read them
    loaded = HLLMModel.load(tmp_path, demo_config.max_text_length)
    assert not loaded.training
    for name, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name


def test_weights_to_be_trained_in_bf16_are_loaded_so_and_drawn_in_fp32(config_with):
    towers = {"item_llm.backbone.": "item", "user_llm.backbone.": "user"}
    full = HLLMModel.starting(config_with()).state_dict()
    for drawn in ((), ("user",)):
        torch.manual_seed(0)
        half = HLLMModel.starting(config_with(random_init=drawn), bf16=True).state_dict()
        for name, value in half.items():
            tower = next((tower for prefix, tower in towers.items() if name.startswith(prefix)), None)
            if tower and tower not in drawn:
                assert torch.equal(value, full[name].bfloat16()), name
            elif tower:
                assert value.dtype == torch.float32, name


def test_a_directory_that_is_no_checkpoint_is_refused(tmp_path):
    with pytest.raises(InputError, match="Expected a checkpoint-epoch-N or best_model directory"):
        HLLMModel.load(tmp_path, 24)


def test_the_user_llms_word_embedding_is_kept_but_not_trained(demo_config):
    model = HLLMModel.starting(demo_config)
    frozen = [name for name, p in model.named_parameters() if not p.requires_grad]
    assert frozen == ["user_llm.backbone.embed_tokens.weight"]


USER_LLMS = {  # kind: (settings, whether it attends as is declared)
    "qwen3": ({}, True),
    "llama": ({"head_dim": None}, True),
    "mistral": ({"sliding_window": 3}, True),
    "gpt2": ({}, True),
    "gemma2": ({"attn_implementation": "eager"}, False),
}


@pytest.mark.parametrize("kind", USER_LLMS)
def test_a_user_llm_attends_as_before_without_looking_for_padding(kind):
    settings, declared = USER_LLMS[kind]
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        kind, vocab_size=20, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, **({"head_dim": 16} | settings),
    )  # fmt: skip
    plain = AutoModel.from_config(config).eval()
    user_llm = UserEncoder(copy.deepcopy(plain))
    for length in (1, 3, 7):
        probe = torch.randn(2, length, 32)
        torch.testing.assert_close(user_llm(probe), plain(inputs_embeds=probe).last_hidden_state)
    assert (user_llm.backbone.config._attn_implementation == NAME) == declared


def test_memory_of_zero_stages_is_that_of_the_paper():
    """arXiv:1910.02054, figure 1: 7.5 B parameters, 64 GPUs, 2-byte weights: 120, 31.4, 16.6, 1.9 GB."""
    gb = [state_bytes(7.5e9, 2, stage, 64) / 1e9 for stage in range(4)]
    assert gb == pytest.approx([120, 31.4, 16.6, 1.9], rel=0.02)
