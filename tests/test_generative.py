"""The generative head from the command line: two stages, ZeRO-3, and evaluation with the same figures."""

import json
import sys

import numpy as np
import pytest
from conftest import ROOT, as_flags, deepspeed, events, run_command
from transformers import AutoModelForCausalLM

from pixelrec_train.commands import expand_vocabulary
from pixelrec_train.commands.demo import all_text
from pixelrec_train.commands.generative_config import GenerativeConfig
from pixelrec_train.commands.inputs import read_inputs
from pixelrec_train.commands.itemic import Prepared
from pixelrec_train.data import interactions
from pixelrec_train.errors import InputError
from pixelrec_train.flags import parse_args
from pixelrec_train.model.generative_model import GenerativeModel
from pixelrec_train.model.tiny import write_causal_lm
from pixelrec_train.semantic_id.codes import SemanticIds

SIZES = (6, 7, 9)


@pytest.fixture(scope="module")
def generative(demo, demo_config, tmp_path_factory):
    """(folder, flags): semantic ids of the demo, some shared, and a tiny LM that has words for them."""
    folder = tmp_path_factory.mktemp("generative")
    data = interactions.read(demo_config.interaction_data, demo_config.cache_dir)
    rng = np.random.default_rng(0)
    codes = np.stack(np.unravel_index(rng.integers(0, np.prod(SIZES), data.num_items), SIZES), 1)
    SemanticIds(data.item_ids, codes.astype(np.int32), SIZES).save(folder / "sid.json")
    write_causal_lm(all_text(demo_config.text_data), folder / "lm", hidden_size=32, vocab_size=600)
    expand = {"hf_model_dir": folder / "lm", "output_model_dir": folder / "llm"}
    expand_vocabulary.main(list(map(str, as_flags(expand | {"semantic_ids": folder / "sid.json"}))))
    flags = {
        "interaction_data": demo_config.interaction_data, "text_data": demo_config.text_data,
        "text_keys": "title,tag", "semantic_ids": folder / "sid.json", "model_dir": folder / "llm",
        "max_seq_length": 6, "max_text_length": 12, "bf16": False, "gradient_checkpointing": False,
        "per_device_train_batch_size": 16, "num_train_epochs": 1, "learning_rate": 3e-3, "num_beams": 20,
        "dataloader_num_workers": 0, "logging_steps": 5, "cache_dir": demo_config.cache_dir,
        "logging_dir": folder / "logs/run",
    }  # fmt: skip
    return folder, flags


@pytest.mark.launch
def test_two_stages_train_export_and_evaluate_alike_on_any_ranks(generative):
    folder, flags = generative
    script, zero3 = ROOT / "scripts/train_generative.py", ROOT / "configs/ds_config_zero3.json"
    stage1, stage2 = folder / "stage1", folder / "stage2"
    first = as_flags(flags | {"output_dir": stage1, "new_rows_only": True, "deepspeed": zero3})
    result = deepspeed(2, script, *first)
    assert result.returncode == 0, result.stdout + result.stderr
    before, after = (
        AutoModelForCausalLM.from_pretrained(path).state_dict()
        for path in (folder / "llm", stage1 / "best_model/llm")
    )
    moved = [name for name in before if not before[name].equal(after[name])]
    assert set(moved) == {"model.embed_tokens.weight", "lm_head.weight"}  # tied: one table
    old = GenerativeModel.load(folder / "llm").vocabulary.first_new_id
    assert before[moved[0]][:old].equal(after[moved[0]][:old])
    second = as_flags(flags | {"output_dir": stage2, "model_dir": stage1 / "best_model/llm", "num_beams": 30})
    result = run_command([sys.executable, script, *second])
    assert result.returncode == 0, result.stdout + result.stderr
    losses = [event["loss"] for event in events(stage2, "step")]
    assert losses[-1] < losses[0] and {"itemic_loss", "text_loss", "level3_top1"} <= set(
        events(stage2, "step")[0]
    )
    assert {"recall@10", "sid_recall@10", "average_recall@10"} <= set(events(stage2, "eval")[0])

    own = json.loads((stage2 / "table.json").read_text())
    assert list(own) == ["popularity", "generative"]
    evaluate = [ROOT / "scripts/evaluate_pixelrec.py", "--checkpoint", stage2 / "best_model"]
    result = deepspeed(2, *evaluate, "--output_dir", folder / "judged", "--cache_dir", flags["cache_dir"])
    assert result.returncode == 0, result.stdout + result.stderr
    assert json.loads((folder / "judged/metrics.json").read_text())["metrics"] == own


def test_ids_and_vocabulary_that_do_not_fit_are_refused(generative, tmp_path):
    folder, flags = generative
    config = parse_args(GenerativeConfig, list(map(str, as_flags(flags))))
    inputs, model = read_inputs(config), GenerativeModel.load(folder / "llm")
    known = SemanticIds.load(folder / "sid.json")
    SemanticIds(known.item_ids[1:], known.codes[1:], SIZES).save(tmp_path / "fewer.json")
    SemanticIds(known.item_ids, known.codes, (6, 7, 10)).save(tmp_path / "other.json")
    for file, words in (("fewer", "have no semantic id"), ("other", "codebooks of 6, 7, 10, but")):
        with pytest.raises(InputError, match=words):
            Prepared.of(model, folder / "llm", tmp_path / f"{file}.json", inputs)
