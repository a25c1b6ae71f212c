"""The DeepSpeed JSON: as people bring it, every "auto" resolved. What contradicts a flag is in
bad_inputs/deepspeed.json; fixtures/deepspeed/ has the forms that others' documentation shows.
"""

import dataclasses
import json

import pytest
import torch
from conftest import ROOT

from pixelrec_train import distributed
from pixelrec_train.engine.ds_config import resolve
from pixelrec_train.engine.ds_file import adopt, remarks
from pixelrec_train.engine.ds_settings import INSIDE, OLD_NAMES, SWITCH
from pixelrec_train.engine.optim import build_optimizer
from pixelrec_train.errors import InputError


def with_json(config_with, tmp_path, content, **changes):
    path = tmp_path / "ds.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return resolve(config_with(deepspeed=str(path), **changes), world_size=2, hidden_size=64)


def brought(config_with, name, given=(), **changes):
    """(flags of a run with fixtures/deepspeed/<name>.json, the flags that the file set)"""
    loop = config_with(deepspeed=str(ROOT / f"tests/fixtures/deepspeed/{name}.json"), **changes)
    fixed = adopt(loop, given)
    return dataclasses.replace(loop, **fixed), fixed


@pytest.fixture
def on_gpu(monkeypatch):
    monkeypatch.setattr(distributed, "uses_gpu", lambda: True)


@pytest.mark.parametrize("stage", [2, 3])
def test_the_shipped_configs_resolve_to_numbers_and_follow_the_flags(config_with, stage):
    config = config_with(
        deepspeed=str(ROOT / f"configs/ds_config_zero{stage}.json"), per_device_train_batch_size=3,
        gradient_accumulation_steps=5, max_grad_norm=0.5, bf16=True,
    )  # fmt: skip
    assert adopt(config, {"per_device_train_batch_size"}) == {} and not list(remarks(config, on_gpu=False))
    resolved = resolve(config, world_size=4, hidden_size=64)
    zero = {"stage": stage, "overlap_comm": True, "contiguous_gradients": True}
    zero |= {"allgather_bucket_size": 200000000, "reduce_bucket_size": 200000000} if stage == 2 else {
        "reduce_bucket_size": 50_000_000, "stage3_prefetch_bucket_size": 50_000_000,
        "stage3_param_persistence_threshold": 640, "stage3_max_live_parameters": 10**9,
        "stage3_max_reuse_distance": 10**9,
    }  # fmt: skip
    assert resolved == {
        "train_micro_batch_size_per_gpu": 3, "gradient_accumulation_steps": 5, "train_batch_size": 3 * 5 * 4,
        "gradient_clipping": 0.5, "bf16": {"enabled": True}, "steps_per_print": 10**9,
        "zero_allow_untested_optimizer": False, "zero_optimization": zero,
    }  # fmt: skip


def test_buckets_of_a_wide_model_are_its_squared_width(config_with):
    config = config_with(deepspeed=str(ROOT / "configs/ds_config_zero3.json"))
    zero = resolve(config, world_size=4, hidden_size=8192)["zero_optimization"]
    assert zero["reduce_bucket_size"] == 8192**2 and zero["stage3_prefetch_bucket_size"] == int(0.9 * 8192**2)


def test_in_which_precision_gradients_are_added_up_is_said_by_flag_or_json(config_with, tmp_path):
    asked = config_with(grad_accum_dtype="fp32")
    resolved = resolve(asked, world_size=2, hidden_size=64)
    assert resolved["data_types"] == {"grad_accum_dtype": "fp32"}
    assert resolved["communication_data_type"] == "fp32"
    assert "engine: gradients are added up and sent in fp32" in list(remarks(asked, on_gpu=True))
    settings = {"zero_optimization": {"stage": 2}, "data_types": {"grad_accum_dtype": "fp32"}}
    (tmp_path / "fp32.json").write_text(json.dumps(settings | {"communication_data_type": "bf16"}))
    brought = config_with(deepspeed=str(tmp_path / "fp32.json"))
    assert adopt(brought, set()) == {"grad_accum_dtype": "fp32"}
    followed = resolve(dataclasses.replace(brought, **adopt(brought, set())), world_size=2, hidden_size=64)
    assert followed["communication_data_type"] == "bf16"  # as the JSON has it
    with pytest.raises(InputError, match="sets data_types.grad_accum_dtype = fp32, but --grad_accum_dtype"):
        adopt(dataclasses.replace(brought, grad_accum_dtype="bf16"), {"grad_accum_dtype"})


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


def test_an_auto_that_is_no_flags_and_no_size_of_the_model_is_deepspeeds_default(config_with, tmp_path):
    zero = {"stage": 3, "sub_group_size": "auto", "overlap_comm": "auto"}
    resolved = with_json(config_with, tmp_path, {"zero_optimization": zero, "steps_per_print": "auto"})
    assert resolved["zero_optimization"] == {"stage": 3} and resolved["steps_per_print"] == 10**9


@pytest.mark.parametrize("name", ["zero2_auto_offload", "zero3_auto_offload"])
def test_auto_is_the_flags_value_and_offloading_has_no_effect_without_a_gpu(config_with, name):
    run, fixed = brought(config_with, name, bf16=name.startswith("zero3"), learning_rate=2e-4)
    assert list(fixed) == ["lr_scheduler_type"] and run.learning_rate == 2e-4
    assert run.lr_scheduler_type == ("constant_with_warmup" if "zero2" in name else "linear")
    resolved = resolve(run, world_size=2, hidden_size=64)
    assert "auto" not in json.dumps(resolved) and resolved["train_batch_size"] == 8
    assert not {"offload_optimizer", "offload_param"} & resolved["zero_optimization"].keys()
    assert resolved["bf16"]["enabled"] is run.bf16 and resolved["steps_per_print"] == 2000
    parts = "offload_optimizer" if "zero2" in name else "offload_optimizer, offload_param"
    said = list(remarks(run, on_gpu=False))
    assert said[-1] == f"engine: without a GPU, {parts} of the DeepSpeed JSON: no effect"


@pytest.mark.parametrize("name", ["zero2_auto_offload", "zero3_auto_offload"])
def test_on_a_gpu_offloading_takes_an_optimizer_that_needs_no_compiler(config_with, name, on_gpu):
    run, _ = brought(config_with, name)
    resolved = resolve(run, world_size=1, hidden_size=64)
    offloaded = resolved["zero_optimization"]["offload_optimizer"]
    assert offloaded == {"device": "cpu", "pin_memory": True}
    assert resolved["zero_force_ds_cpu_optimizer"] is False
    assert not any("no effect" in line for line in remarks(run, on_gpu=True))


def test_a_setting_that_deepspeed_knows_is_passed_on(config_with):
    run, fixed = brought(config_with, "zero2_round_robin")
    resolved = resolve(run, world_size=1, hidden_size=64)
    assert not fixed and resolved["zero_allow_untested_optimizer"] is True
    assert resolved["zero_optimization"]["round_robin_gradients"] is True and "fp16" not in resolved


def test_stage_0_trains_as_stage_1_and_says_so(config_with):
    run, fixed = brought(config_with, "zero0")
    assert resolve(run, world_size=1, hidden_size=64)["zero_optimization"]["stage"] == 1 and not fixed
    assert list(remarks(run, on_gpu=True)) == [
        "engine: stage 0 trains as ZeRO-1, which computes the same and holds less"
    ]


def test_what_the_file_fixes_is_the_runs(config_with):
    run, fixed = brought(config_with, "zero2_fixed_values", given={"num_train_epochs", "bf16"})
    assert fixed == {
        "per_device_train_batch_size": 4, "gradient_accumulation_steps": 2, "max_grad_norm": 1.0,
        "learning_rate": 5e-6, "weight_decay": 0.0, "adam_beta1": 0.9, "adam_beta2": 0.999,
        "adam_epsilon": 1e-8, "lr_scheduler_type": "constant_with_warmup", "warmup_steps": 0,
    }  # fmt: skip
    resolved = resolve(run, world_size=1, hidden_size=64)
    assert (resolved["train_batch_size"], resolved["gradient_accumulation_steps"]) == (8, 2)
    assert not {"cpu_offload", "offload_optimizer"} & resolved["zero_optimization"].keys()
    said = list(remarks(run, on_gpu=False))
    assert "learning_rate 5e-06" in said[0] and "warmup_steps 0" in said[0]
    assert said[-1] == "engine: without a GPU, offload_optimizer of the DeepSpeed JSON: no effect"
    with pytest.raises(
        InputError, match="train_batch_size = 8, but the batch flags and the number of ranks .2. give 16"
    ):
        resolve(run, world_size=2, hidden_size=64)


def test_the_old_spelling_of_offloading_is_read(config_with, on_gpu):
    run, _ = brought(config_with, "zero2_fixed_values")
    zero = resolve(run, world_size=1, hidden_size=64)["zero_optimization"]
    assert zero["offload_optimizer"] == {"device": "cpu"} and "cpu_offload" not in zero


@pytest.mark.parametrize(
    "given, says",
    [
        ("learning_rate", "optimizer.params.lr = 5e-06, but --learning_rate says 0.0001"),
        ("weight_decay", "optimizer.params.weight_decay = 0.0, but --weight_decay says 0.01"),
        (
            "lr_scheduler_type",
            r"type = WarmupLR \(constant_with_warmup\), but --lr_scheduler_type says cosine",
        ),
        ("warmup_ratio", "warmup_num_steps = 0, but --warmup_ratio stands on the command line"),
        ("gradient_accumulation_steps", "= 2, but --gradient_accumulation_steps says 1"),
    ],
)
def test_a_flag_of_the_command_line_that_says_otherwise_is_named_with_the_setting(config_with, given, says):
    with pytest.raises(InputError, match=says):
        brought(config_with, "zero2_fixed_values", given={given})


def test_a_file_that_contradicts_itself_is_refused(config_with, tmp_path):
    (tmp_path / "ds.json").write_text(json.dumps({
        "zero_optimization": {"stage": 2}, "optimizer": {"params": {"lr": 1e-3}},
        "scheduler": {"type": "WarmupLR", "params": {"warmup_max_lr": 1e-4}},
    }))  # fmt: skip
    with pytest.raises(
        InputError, match="warmup_max_lr = 0.0001, but by another key --learning_rate is 0.001"
    ):
        adopt(config_with(deepspeed=str(tmp_path / "ds.json")), set())


def test_deepspeeds_own_monitors_are_passed_on(config_with):
    run, fixed = brought(config_with, "zero1_monitors", bf16=True)
    assert fixed == {"per_device_train_batch_size": 16, "gradient_accumulation_steps": 1, "bf16": False}
    resolved = resolve(run, world_size=1, hidden_size=64)
    assert resolved["csv_monitor"] == {"enabled": True, "output_path": "logs/ds_csv", "job_name": "x"}
    assert resolved["flops_profiler"] == {"enabled": True, "profile_step": 2}
    assert resolved["tensorboard"]["enabled"] and resolved["zero_optimization"] == {"stage": 1}


def test_quantised_zero_needs_gpus(config_with, on_gpu, monkeypatch):
    run, _ = brought(config_with, "zero3_plus_plus")
    zero = resolve(run, world_size=2, hidden_size=64)["zero_optimization"]
    assert zero["zero_quantized_weights"] and zero["zero_hpz_partition_size"] == 2
    with pytest.raises(InputError, match="zero_hpz_partition_size = 2, by which 3 ranks cannot be divided"):
        resolve(run, world_size=3, hidden_size=64)
    monkeypatch.setattr(distributed, "uses_gpu", lambda: False)
    with pytest.raises(InputError, match=r"zero_quantized_weights = True \(ZeRO\+\+\), which needs GPUs"):
        resolve(run, world_size=2, hidden_size=64)


def test_nvme_needs_its_directory_and_async_io(config_with, tmp_path, on_gpu, monkeypatch):
    from deepspeed.ops.op_builder import AsyncIOBuilder

    run, _ = brought(config_with, "zero3_nvme")
    with pytest.raises(InputError, match="nvme_path = '/local_nvme', which is no directory of this machine"):
        resolve(run, world_size=1, hidden_size=64)
    text = (ROOT / "tests/fixtures/deepspeed/zero3_nvme.json").read_text()
    (tmp_path / "ds.json").write_text(text.replace("/local_nvme", str(tmp_path)))
    run = dataclasses.replace(run, deepspeed=str(tmp_path / "ds.json"))
    for built in (False, True):
        monkeypatch.setattr(AsyncIOBuilder, "is_compatible", lambda self, verbose, built=built: built)
        if not built:
            with pytest.raises(InputError, match="needs DeepSpeed's async_io.*Install libaio-dev"):
                resolve(run, world_size=1, hidden_size=64)
    resolved = resolve(run, world_size=1, hidden_size=64)
    assert resolved["aio"] == {"block_size": 262144}
    assert resolved["zero_optimization"]["offload_param"] == {"device": "nvme", "nvme_path": str(tmp_path)}


@pytest.mark.parametrize(
    "schedule, warmup, rates",
    [
        ({}, {"warmup_ratio": 0.2}, [0, 0.5, 1, 0.96, 0.85, 0.69, 0.5, 0.31, 0.15, 0.04]),
        ({"lr_scheduler_type": "linear"}, {"warmup_steps": 2}, [0, 0.5, *(1 - n / 8 for n in range(8))]),
        ({"lr_scheduler_type": "constant_with_warmup"}, {"warmup_steps": 4}, [0, 0.25, 0.5, 0.75, *[1] * 6]),
        ({"lr_scheduler_type": "constant_with_warmup"}, {"warmup_steps": 0}, [1] * 10),
    ],
)
def test_the_schedule_warms_up_and_then_falls_or_stays(config_with, schedule, warmup, rates):
    loop = config_with(learning_rate=0.5, adam_beta2=0.95, **schedule, **warmup)
    optimizer, scheduler = build_optimizer(torch.nn.Linear(2, 2), loop, total_steps=10)
    assert optimizer.defaults["betas"] == (0.9, 0.95)
    for rate in rates:
        assert optimizer.param_groups[0]["lr"] == pytest.approx(0.5 * rate, abs=3e-3)
        optimizer.step()
        scheduler.step()


def test_the_settings_that_are_known_are_deepspeeds_own():
    from deepspeed.monitor import config as monitors
    from deepspeed.runtime.precision_config import DeepSpeedBF16Config, DeepSpeedFP16Config
    from deepspeed.runtime.zero.config import DeepSpeedZeroConfig
    from deepspeed.runtime.zero.offload_config import (
        DeepSpeedZeroOffloadOptimizerConfig,
        DeepSpeedZeroOffloadParamConfig,
    )
    from deepspeed.utils.config import DeepSpeedThroughputTimerConfig

    for section, theirs in {
        "zero_optimization": DeepSpeedZeroConfig,
        "zero_optimization.offload_param": DeepSpeedZeroOffloadParamConfig,
        "zero_optimization.offload_optimizer": DeepSpeedZeroOffloadOptimizerConfig,
        "bf16": DeepSpeedBF16Config, "fp16": DeepSpeedFP16Config,
        "tensorboard": monitors.TensorBoardConfig, "csv_monitor": monitors.CSVConfig,
        "wandb": monitors.WandbConfig, "comet": monitors.CometConfig,
        "timers.throughput": DeepSpeedThroughputTimerConfig,
    }.items():  # fmt: skip
        known = {field.alias or name: field.annotation for name, field in theirs.model_fields.items()}
        old = {name for name in known if f"{section}.{name}" in OLD_NAMES}
        assert INSIDE[section].keys() == known.keys() - old, section
        for name, kind in INSIDE[section].items():
            if kind is SWITCH:
                assert known[name] in (bool, bool | None), name


def test_every_key_that_deepspeed_asks_for_is_known():
    from deepspeed.runtime.config import DeepSpeedConfig

    class Asked(dict):
        """Remembers what it was asked for."""

        names = set()

        def get(self, name, default=None):
            self.names.add(name)
            return super().get(name, default)

        def __contains__(self, name):
            self.names.add(name)
            return super().__contains__(name)

        def keys(self):
            return self

    DeepSpeedConfig(Asked(train_batch_size=1))
    unknown = Asked.names - INSIDE[""].keys() - OLD_NAMES.keys()
    removed = DeepSpeedConfig.__init__.__globals__["_REMOVED_TOP_LEVEL_CONFIG_KEYS"].keys()
    assert unknown - removed == {"vocabulary_size"}  # only to warn of odd ones
