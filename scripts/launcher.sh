# shellcheck shell=bash
# Sourced after prepare_python.sh: how ranks are started on this machine.

count_gpus() { "$PYTHON" -c 'import torch; print(torch.cuda.device_count())'; }

# launcher_for RANKS GPUS_FOUND sets launcher=(…), the DeepSpeed launcher for that many ranks.
# shellcheck disable=SC2034 # for who sources this
launcher_for() {
    local where=(--num_gpus "$1")
    # The launcher forgets CUDA_VISIBLE_DEVICES when it is told a number; told which GPUs, it keeps to them.
    if [ "$2" -gt 0 ] && [ -n "${CUDA_VISIBLE_DEVICES:-}" ]; then
        where=(--include "localhost:$(echo "$CUDA_VISIBLE_DEVICES" | cut -d, -f "1-$1")")
    fi
    launcher=("$PYTHON" -m deepspeed.launcher.runner --log_level error "${where[@]}"
        --master_port "$("$PYTHON" -c 'from pixelrec_train.distributed import free_port; print(free_port())')")
}
