# shellcheck shell=bash
# Sourced after prepare_python.sh: how ranks are started on this machine.

count_gpus() { "$PYTHON" -c 'import torch; print(torch.cuda.device_count())'; }

# launcher_for RANKS GPUS_FOUND sets launcher=(…), the DeepSpeed launcher for that many ranks.
# shellcheck disable=SC2034 # for who sources this
launcher_for() {
    local where=(--num_gpus "$1")
    if [ "$2" -gt 0 ] && [ "$1" -gt "$2" ]; then
        echo "error: $1 ranks need a GPU each, and this machine has $2. Set NUM_GPUS to $2 or less, or DS_ACCELERATOR=cpu." >&2
        return 2
    fi
    # The launcher forgets CUDA_VISIBLE_DEVICES when it is told a number; told which GPUs, it keeps to them.
    if [ "$2" -gt 0 ] && [ -n "${CUDA_VISIBLE_DEVICES:-}" ]; then
        where=(--include "localhost:$(echo "$CUDA_VISIBLE_DEVICES" | cut -d, -f "1-$1")")
    fi
    launcher=("$PYTHON" -m deepspeed.launcher.runner --log_level critical "${where[@]}"
        --master_port "$("$PYTHON" -c 'from pixelrec_train.distributed import free_port; print(free_port())')")
}

# run_ranks COMMAND… runs it and returns its status. A signal to this script goes to the ranks alone, which save and end;
# DeepSpeed's launcher would end them itself after 30 s, and report a failure in any case. A second Ctrl-C ends all.
run_ranks() {
    local status name pending="" launcher_pid
    stopped_by="" # the first signal that came; for the caller as well
    set -m # a process group of its own: Ctrl-C reaches this script only
    "$@" </dev/null &
    launcher_pid=$!
    set +m
    for name in TERM USR1 INT; do
        # shellcheck disable=SC2064 # now is when these are known
        trap "pending=1; signal_ranks $name $launcher_pid; stopped_by=\${stopped_by:-$name}" "$name"
    done
    while :; do
        wait "$launcher_pid" && status=0 || status=$?
        [ -n "$pending" ] || break
        pending="" # it was the signal that ended this wait, and not yet the ranks
    done
    trap - TERM USR1 INT
    if [ "$stopped_by" = INT ]; then status=130; fi
    return "$status"
}

# signal_ranks NAME LAUNCHER
signal_ranks() {
    if [ "$1$stopped_by" = INTINT ]; then
        kill -KILL -- "-$2"
        return
    fi
    "$PYTHON" - "$1" "$2" <<'EOF' || kill -s "$1" -- "-$2"
import signal, sys
import psutil

started = psutil.Process(int(sys.argv[2])).children(recursive=True)
ranks = [p for p in started if any(word.startswith("--local_rank=") for word in p.cmdline())]
for process in ranks:
    process.send_signal(getattr(signal, f"SIG{sys.argv[1]}"))
sys.exit(not ranks)  # none yet: end the launchers
EOF
}
