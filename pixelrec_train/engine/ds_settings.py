"""What may stand in the DeepSpeed JSON, by name: written down here, as asking DeepSpeed would import it (and
its search for an accelerator) before the ranks have met.

Left out are the settings that a flag or this project owns, and those that need parts it does not have.
"""

from collections.abc import Callable
from typing import NamedTuple


class Kind(NamedTuple):
    words: str
    allows: Callable


def is_number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool)


ANYTHING = Kind("anything", lambda value: True)  # checked where it is used
SWITCH = Kind("true or false", lambda value: isinstance(value, bool))
SIZE = Kind("a whole number, 0 or more", lambda v: is_number(v) and v >= 0 and float(v).is_integer())
BUCKET = Kind("a whole number above 0", lambda v: SIZE.allows(v) and v > 0)
NUMBER = Kind("a number", is_number)
FACTOR = Kind("a number above 0", lambda v: is_number(v) and 0 < v < float("inf"))
PRECISION = Kind("fp32, fp16 or bf16", lambda value: value in ("fp32", "fp16", "bf16"))
SECTION = Kind("an object with settings in it", lambda value: isinstance(value, dict))

ZERO_SWITCHES = (
    "contiguous_gradients", "reduce_scatter", "use_multi_rank_bucket_allreduce", "allgather_partitions",
    "overlap_comm", "load_from_fp32_weights", "ignore_unused_parameters", "round_robin_gradients",
    "parameter_alignment", "zero_quantized_weights", "zero_quantized_nontrainable_weights",
    "zero_quantized_gradients", "memory_efficient_linear", "override_module_apply",
    "log_trace_cache_warnings", "enable_sanity_checks", "stage3_gather_16bit_weights_on_model_save",
    "stage3_use_all_reduce_for_fetch_params", "stage3_allgather_sequential", "compute_grad_norm",
)  # fmt: skip
ZERO_SIZES = (
    "allgather_bucket_size", "sub_group_size", "stage3_prefetch_bucket_size",
    "stage3_param_persistence_threshold", "stage3_model_persistence_threshold", "stage3_max_live_parameters",
    "stage3_max_reuse_distance", "stage3_module_granularity_threshold", "zero_hpz_partition_size",
)  # fmt: skip

INSIDE = {  # section ("" = none) -> name -> what it may be
    "": {
        **dict.fromkeys(("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps",
                         "gradient_clipping", "steps_per_print"), NUMBER),
        **dict.fromkeys(("prescale_gradients", "wall_clock_breakdown", "memory_breakdown", "dump_state"),
                        SWITCH),
        **dict.fromkeys(("data_types", "flops_profiler", "comms_logger", "timers"), SECTION),
        "gradient_predivide_factor": FACTOR,
        "communication_data_type": PRECISION,
    },
    "zero_optimization": {
        **dict.fromkeys(("stage", "offload_optimizer", "offload_param"), ANYTHING),
        **dict.fromkeys(ZERO_SWITCHES, SWITCH),
        **dict.fromkeys(ZERO_SIZES, SIZE),
        "reduce_bucket_size": BUCKET,
    },
    "bf16": dict.fromkeys(("enabled", "immediate_grad_update", "check_grad_overflow"), SWITCH),
    "fp16": {
        **dict.fromkeys(("enabled", "auto_cast", "consecutive_hysteresis"), SWITCH),
        **dict.fromkeys(("loss_scale", "initial_scale_power", "loss_scale_window", "hysteresis",
                         "min_loss_scale"), NUMBER),
    },
}  # fmt: skip
