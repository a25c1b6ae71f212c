"""The DeepSpeed JSON: every "auto" resolved. What contradicts a flag is in bad_inputs/deepspeed.json."""

import json

import pytest
from conftest import ROOT

from pixelrec_train.engine.ds_config import resolve
from pixelrec_train.engine.ds_settings import ANYTHING, INSIDE, SWITCH


def with_json(config_with, tmp_path, content, **changes):
    path = tmp_path / "ds.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return resolve(config_with(deepspeed=str(path), **changes), world_size=2, hidden_size=64)


@pytest.mark.parametrize("stage", [2, 3])
def test_the_shipped_configs_resolve_to_numbers_and_follow_the_flags(config_with, stage):
    config = config_with(
        deepspeed=str(ROOT / f"configs/ds_config_zero{stage}.json"), per_device_train_batch_size=3,
        gradient_accumulation_steps=5, max_grad_norm=0.5, bf16=True,
    )  # fmt: skip
    resolved = resolve(config, world_size=4, hidden_size=64)
    assert "auto" not in json.dumps(resolved)
    assert resolved["zero_optimization"]["stage"] == stage
    assert resolved["bf16"] == {"enabled": True}
    assert resolved["train_batch_size"] == 3 * 5 * 4
    assert (resolved["train_micro_batch_size_per_gpu"], resolved["gradient_accumulation_steps"]) == (3, 5)
    assert resolved["gradient_clipping"] == 0.5
    if stage == 3:
        assert resolved["zero_optimization"]["reduce_bucket_size"] == 64 * 64


def test_a_json_that_agrees_with_the_flags_is_accepted(config_with, tmp_path):
    agreeing = {
        "optimizer": {"type": "AdamW", "params": {"lr": "auto", "weight_decay": 0.01}},
        "bf16": {"enabled": "auto"},
        "zero_optimization": {
            "stage": 2,
            "reduce_bucket_size": "auto",
            "offload_optimizer": {"device": "none"},
        },
    }
    resolved = with_json(config_with, tmp_path, agreeing)
    assert "optimizer" not in resolved
    assert resolved["zero_optimization"]["offload_optimizer"] == {"device": "none"}


def test_the_settings_that_are_let_through_are_deepspeeds_own():
    from deepspeed.runtime.precision_config import DeepSpeedBF16Config, DeepSpeedFP16Config
    from deepspeed.runtime.zero.config import DeepSpeedZeroConfig

    for section, theirs in (
        ("zero_optimization", DeepSpeedZeroConfig),
        ("bf16", DeepSpeedBF16Config),
        ("fp16", DeepSpeedFP16Config),
    ):
        known = {field.alias or name: field.annotation for name, field in theirs.model_fields.items()}
        assert INSIDE[section].keys() <= known.keys()
        for name, kind in INSIDE[section].items():
            if kind is not ANYTHING:
                assert known[name] in ((bool, bool | None) if kind is SWITCH else (int, float)), name
