"""What may stand in the DeepSpeed JSON, by name: written down here, as asking DeepSpeed would import it (and
its search for an accelerator) before the ranks have met. tests/test_ds_config.py compares it with DeepSpeed.
"""

from pixelrec_train.flags import Rule, one_of


def is_number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool)


ANYTHING = Rule("must be anything", lambda value: True)  # a text, or checked where it is used
SWITCH = Rule("must be true or false", lambda value: isinstance(value, bool))
SIZE = Rule("must be a whole number, 0 or more", lambda v: is_number(v) and v >= 0 and float(v).is_integer())
COUNT = Rule("must be a whole number above 0", lambda v: SIZE.allows(v) and v > 0)
NUMBER = Rule("must be a number, 0 or more", lambda v: is_number(v) and 0 <= v < float("inf"))
FACTOR = Rule("must be a number above 0", lambda v: is_number(v) and 0 < v < float("inf"))
SHARES = Rule(
    "must be two numbers in [0, 1)",
    lambda v: isinstance(v, list) and len(v) == 2 and all(is_number(x) and 0 <= x < 1 for x in v),
)
PRECISION = one_of("fp32", "fp16", "bf16")
SECTION = Rule("must be an object with settings in it", lambda value: isinstance(value, dict))
# What this project does otherwise, or has no use for.
OFF = Rule("must be false", lambda value: value is False)
ON = Rule("must be true", lambda value: value is True)
NOUGHT = Rule("must be 0", lambda value: is_number(value) and value == 0)
LEFT_OUT = Rule(
    "must be left out: it has no place in this project",
    lambda v: v == {} or SECTION.allows(v) and v.get("enabled") is False,
)


def rules(**names_of):
    """{name: Rule} from a Rule's name = "names"."""
    return {name: globals()[rule] for rule, names in names_of.items() for name in names.split()}


MONITOR = rules(SWITCH="enabled", ANYTHING="output_path job_name")
OFFLOAD = rules(SWITCH="pin_memory", ANYTHING="nvme_path", SIZE="buffer_count")
OFFLOAD |= {"device": one_of("none", "cpu", "nvme")}
SCHEDULE = rules(
    SIZE="warmup_num_steps", FACTOR="warmup_max_lr", NOUGHT="warmup_min_lr warmup_min_ratio cos_min_ratio",
)  # fmt: skip
SCHEDULE |= {
    "warmup_type": one_of("linear"),
    "last_batch_iteration": Rule("must be -1", lambda value: value == -1),
    "total_num_steps": Rule('must be "auto": --num_train_epochs and --max_steps decide', lambda value: False),
}

INSIDE = {  # section ("" = none) -> name -> what it may be; a name that is a section holds settings
    "": rules(
        COUNT="train_batch_size train_micro_batch_size_per_gpu gradient_accumulation_steps steps_per_print",
        NUMBER="gradient_clipping",
        FACTOR="gradient_predivide_factor",
        SWITCH="prescale_gradients wall_clock_breakdown memory_breakdown dump_state disable_allgather "
        "disable_python_gc dataloader_drop_last zero_allow_untested_optimizer zero_force_ds_cpu_optimizer",
        PRECISION="communication_data_type seq_parallel_communication_data_type",
        ANYTHING="log_level",
        ON="managed_gradient_accumulation",
        SECTION="zero_optimization bf16 fp16 optimizer scheduler data_types timers flops_profiler "
        "comms_logger tensorboard wandb csv_monitor comet aio activation_checkpointing checkpoint",
        LEFT_OUT="autotuning compile data_efficiency datastates_ckpt expert_parallel hybrid_engine pipeline "
        "tensor_parallel torch_autocast weight_quantization",
        OFF="use_data_before_expert_parallelism",
    )
    | {"gradient_allreduce_op": one_of("mean")},
    "zero_optimization": rules(
        SWITCH="contiguous_gradients reduce_scatter use_multi_rank_bucket_allreduce allgather_partitions "
        "overlap_comm load_from_fp32_weights ignore_unused_parameters round_robin_gradients "
        "parameter_alignment zero_quantized_weights zero_quantized_nontrainable_weights "
        "zero_quantized_gradients memory_efficient_linear override_module_apply "
        "log_trace_cache_warnings enable_sanity_checks "
        "stage3_gather_16bit_weights_on_model_save stage3_use_all_reduce_for_fetch_params "
        "stage3_allgather_sequential compute_grad_norm elastic_checkpoint pipeline_loading_checkpoint "
        "save_muon_momentum_buffer_in_memory",
        SIZE="allgather_bucket_size sub_group_size stage3_prefetch_bucket_size "
        "stage3_param_persistence_threshold stage3_model_persistence_threshold stage3_max_live_parameters "
        "stage3_max_reuse_distance stage3_module_granularity_threshold zero_hpz_partition_size",
        COUNT="reduce_bucket_size",
        SECTION="offload_optimizer offload_param leaf_module",
        OFF="legacy_stage1",
        LEFT_OUT="zenflow",
    )
    | {"stage": Rule("must be 0, 1, 2 or 3", lambda value: is_number(value) and value in (0, 1, 2, 3))},
    "zero_optimization.offload_param": OFFLOAD | rules(SIZE="buffer_size max_in_cpu"),
    "zero_optimization.offload_optimizer": OFFLOAD
    | rules(SWITCH="pipeline_read pipeline_write fast_init", OFF="super_offload", FACTOR="cpuadam_cores_perc")
    | {"ratio": Rule("must be 1", lambda value: is_number(value) and value == 1)},
    "bf16": rules(
        SWITCH="enabled immediate_grad_update check_grad_overflow",
        OFF="bf16_master_weights_and_grads bf16_optimizer_states",
    ),
    "fp16": {"enabled": Rule("must be false: use --bf16 (fp16 is not supported)", OFF.allows)}
    | rules(
        SWITCH="auto_cast consecutive_hysteresis",
        NUMBER="loss_scale initial_scale_power loss_scale_window hysteresis min_loss_scale",
        OFF="fp16_master_weights_and_grads",
    ),
    "optimizer": {"type": one_of("AdamW", "Adam")} | rules(SECTION="params", OFF="legacy_fusion"),
    "optimizer.params": rules(
        FACTOR="lr eps", NUMBER="weight_decay", SHARES="betas", ON="adam_w_mode bias_correction",
        SWITCH="torch_adam fused foreach", OFF="amsgrad",
    ),
    "scheduler": {"type": one_of("WarmupLR", "WarmupDecayLR", "WarmupCosineLR")} | rules(SECTION="params"),
    "scheduler.params": SCHEDULE,
    "data_types": rules(
        PRECISION="grad_accum_dtype param_dtype buffer_dtype", ANYTHING="keep_in_fp32_modules"
    ),
    "timers": rules(SECTION="throughput"),
    "timers.throughput": rules(SWITCH="enabled synchronized"),
    "flops_profiler": rules(
        SWITCH="enabled detailed", NUMBER="recompute_fwd_factor", COUNT="profile_step top_modules",
        ANYTHING="module_depth output_file",
    ),
    "comms_logger": rules(SWITCH="enabled prof_all verbose debug", ANYTHING="prof_ops"),
    "tensorboard": MONITOR,
    "csv_monitor": MONITOR,
    "wandb": rules(SWITCH="enabled", ANYTHING="group team project"),
    "comet": rules(
        SWITCH="enabled online", COUNT="samples_log_interval",
        ANYTHING="project workspace api_key experiment_name experiment_key mode",
    ),
    "aio": rules(
        SIZE="block_size queue_depth intra_op_parallelism", SWITCH="single_submit overlap_events use_gds"
    ),
}  # fmt: skip
WITHOUT_EFFECT = (
    "activation_checkpointing",
    "checkpoint",
    "dataloader_drop_last",
)  # of DeepSpeed's own making
OLD_NAMES = {  # as DeepSpeed reads them; a value of None says that it ignores them, too
    "bfloat16": "bf16",
    "zero_optimization.cpu_offload": "zero_optimization.offload_optimizer",
    "zero_optimization.cpu_offload_param": "zero_optimization.offload_param",
    "zero_optimization.cpu_offload_use_pin_memory": None,
    "zero_optimization.stage3_gather_fp16_weights_on_model_save":
        "zero_optimization.stage3_gather_16bit_weights_on_model_save",
}  # fmt: skip
